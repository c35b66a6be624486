"""Position trades: a path of positions becomes the equity of an account, and the same Trades as those of calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.backtest.engine import Trades, bars_of
from gpupipe.backtest.position_rules import PositionRules
from gpupipe.data.halts import halted_rows
from gpupipe.data.panel import Panel
from gpupipe.runtime.device import device_of

SIDES = (-1, 0, 1)  # short, flat, long


@dataclass(frozen=True)
class PositionPath:
    """Positions by row, and the times that no choice has seen.

    positions: int8 (n_paths, n_rows), on the panel's device: -1 short, 0 flat, 1 long, decided in each row from bars up
        to and including it.  names: of the paths, distinct.
    panel: the bars.  since_ns, until_ns: UTC ns; only rows from the first up to and without the second are traded. The
        caller states that nothing which decides the positions, and no choice among paths, saw them.
    source: where the positions come from, in words.

    Every symbol of the panel is an account of its own; all begin with the same equity.
    Raises ValueError for another shape or dtype, positions other than -1, 0 and 1, and names that occur twice.

        >>> from gpupipe.data import simulate
        >>> panel = simulate(n_symbols=1, n_bars=4)
        >>> path = PositionPath(np.int8([[1, 1, 0, 0]]), ("mine",), panel, 0, int(panel.time_ns[3]))
        >>> path.cut().panel.n_rows
        3
    """

    positions: Any
    names: tuple[str, ...]
    panel: Panel = field(repr=False)
    since_ns: int
    until_ns: int
    source: str = "positions"

    def __post_init__(self) -> None:
        expected = (len(self.names), self.panel.n_rows)
        if self.positions.dtype != np.int8 or self.positions.shape != expected:
            raise ValueError(f"positions are {self.positions.dtype} {self.positions.shape}, expected int8 {expected}")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names of paths occur twice: {', '.join(self.names)}")
        if self.positions.size and not bool((abs(self.positions) <= 1).all()):
            raise ValueError("positions are -1 (short), 0 (flat) or 1 (long)")

    def unseen(self) -> Any:
        """bool (n_rows,): the rows of the times that no choice has seen."""
        return (self.panel.time_ns >= self.since_ns) & (self.panel.time_ns < self.until_ns)

    def cut(self) -> PositionPath:
        """The path of the unseen rows alone; symbols without such a row stay, with no rows. ValueError without any."""
        panel, rows = bars_of(self.panel, self.unseen())
        if not rows.shape[0]:
            raise ValueError(f"no bar is in the times that no choice has seen ({self.source})")
        positions = self.panel.device.xp.ascontiguousarray(self.positions[:, rows])
        return dataclasses.replace(self, panel=panel, positions=positions)


@dataclass(frozen=True)
class Accounts:
    """Accounts by path and row; arrays (n_paths, n_rows) on the panel's device, see kernels.positions.position_equity.

    equity: float64, marked at the row's close.  held: int8, the position after the row's fill.
    value: float64, of the units held.  traded: float64, of the row's fills.

        >>> equity = np.array([[1.0, 1.1]])
        >>> Accounts(equity, np.int8([[0, 1]]), 0 * equity, 0 * equity).held.tolist()
        [[0, 1]]
    """

    equity: Any
    held: Any
    value: Any
    traded: Any


@dataclass(frozen=True)
class PositionBacktest:
    """The result of a backtest of positions.

    path: the unseen rows alone.  slip: float64 (n_rows,).  halted: int8 (n_rows,), 0 throughout under "fill".
    accounts: of every path.  hold: of one more path, long from the first row on, under the same rules: buy and hold.
    trades: as those of calls; `model` is the number of the path, `row` that from which on the side was decided, and
        `unfilled` counts decided positions that a halt or an unknown price left without an entry.
    times: int64 (n_times,), on the host: the distinct times.  time_of_row: int64 (n_rows,), on the host.
    initial: the equity with which every account begins.

        >>> from gpupipe.data import simulate
        >>> panel = simulate(n_symbols=1, n_bars=6)
        >>> path = PositionPath(np.int8([[0, 1, 1, -1, 0, 0]]), ("mine",), panel, 0, 2**62)
        >>> result = backtest_positions(path)
        >>> result.trades.first_row.tolist(), result.trades.last_row.tolist(), result.trades.side.tolist()
        ([2, 4], [4, 5], [1, 2])
    """

    path: PositionPath
    rules: PositionRules
    slip: Any = field(repr=False)
    halted: Any = field(repr=False)
    accounts: Accounts = field(repr=False)
    hold: Accounts = field(repr=False)
    trades: Trades = field(repr=False)
    times: np.ndarray = field(repr=False)
    time_of_row: np.ndarray = field(repr=False)
    initial: float = 1.0

    def series(self, path: int | None, groups: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Equity float64 (n_times,), and float64 (3, n_times): its return, exposure, and the value of fills.

        The mean of the accounts of all symbols of some groups, each at its last row so far; no account is refilled from
        another. path: a number, or None for buy and hold.  groups: numbers of `panel.groups`.
        equity: 1 before the first row.  return: 0 at the first time, and for good once all is lost.  exposure: the
        value of the units held over the equity.  fills: their value over the equity of the time before.
        """
        panel, accounts = self.path.panel, self.hold if path is None else self.accounts
        to_host, n, number = panel.device.to_host, len(self.times), path or 0
        equity, value, traded = (to_host(x[number]) for x in (accounts.equity, accounts.value, accounts.traded))
        offsets = to_host(panel.offsets)
        members = np.flatnonzero(np.isin(panel.group_of_symbol, groups))
        total, invested, filled = np.zeros(n), np.zeros(n), np.zeros(n)
        for symbol in members:
            rows = slice(offsets[symbol], offsets[symbol + 1])
            at = self.time_of_row[rows]
            last = np.searchsorted(at, np.arange(n), side="right")
            total += np.append(self.initial, equity[rows])[last]
            invested += np.append(0.0, value[rows])[last]
            filled[at] += traded[rows]
        before = np.append(len(members) * self.initial, total[:-1])
        alive = np.minimum.accumulate(before) > 0
        safe = np.where(alive, before, 1.0)
        returns = np.where(alive, np.maximum(total / safe - 1, -1.0), 0.0)
        exposure = np.where(total > 0, invested / np.where(total > 0, total, 1.0), 0.0)
        whole = max(1, len(members)) * self.initial
        return total / whole, np.stack([returns, exposure, np.where(alive, filled / safe, 0.0)])


def backtest_positions(
    path: PositionPath, rules: PositionRules | None = None, slip: Any = None, initial: float = 1.0
) -> PositionBacktest:
    """Backtest position paths: accounts, trades, and buy and hold under the same rules.

    slip: float64 (n_rows,) of `path.panel`, half the spread plus slippage in each row as a share of its fill price; the
        costs of the rules, one number, if None.  initial: the equity with which every account begins, above 0.
    Raises ValueError for another shape, or values that are not from 0 to below 1, and without an unseen row.
    """
    rules = rules or PositionRules()
    panel, cut = path.panel, path.cut()
    xp, to_host = panel.device.xp, panel.device.to_host
    if not initial > 0:
        raise ValueError(f"initial is {initial}, expected an equity above 0")
    if slip is None:
        slip = xp.full(cut.panel.n_rows, rules.slip)
    else:
        if slip.dtype != np.float64 or slip.shape != (panel.n_rows,) or not bool(((slip >= 0) & (slip < 1)).all()):
            raise ValueError(f"slip: expected float64 ({panel.n_rows},), shares of a price from 0 to below 1")
        slip = xp.ascontiguousarray(slip[path.unseen()])
    # A halt is judged with the bar before it, which may lie before the times that are traded.
    halted = halted_rows(panel)[path.unseen()] if rules.halts == "wait" else xp.zeros(cut.panel.n_rows, xp.int8)
    hold = xp.ones((1, cut.panel.n_rows), xp.int8)
    bars = (cut.panel.offsets, cut.panel.open, cut.panel.close, halted, slip)
    accounts, held = (_accounts(positions, bars, rules, initial) for positions in (cut.positions, hold))
    trades = _trades(cut, accounts, slip, rules)
    times, time_of_row = np.unique(to_host(cut.panel.time_ns), return_inverse=True)
    return PositionBacktest(
        cut, rules, slip, halted, accounts, held, trades, times, time_of_row.astype(np.int64), initial
    )  # fmt: skip


def equity_of_path(position: np.ndarray, open_: np.ndarray, close: np.ndarray, rules: PositionRules) -> np.ndarray:
    """float64 (n_rows,): equity by row, from 1 on, of one path over the bars of one instrument, on the host.

    position: int8 (n_rows,), decided in each row.  open_, close: float (n_rows,), prices, taken as float32.
    The equity is that of `backtest_positions` for a symbol without halts.

        >>> price = np.array([100.0, 100.0, 110.0, 121.0])
        >>> free = PositionRules(commission_bps=0, spread_bps=0, slippage_bps=0)
        >>> equity_of_path(np.int8([1, 1, 0, 0]), price, price, free).round(3).tolist()
        [1.0, 1.0, 1.1, 1.21]
    """
    n = len(position)
    prices = (np.ascontiguousarray(price, np.float32) for price in (open_, close))
    bars = (np.array([0, n], np.int64), *prices, np.zeros(n, np.int8), np.full(n, rules.slip))
    equity: np.ndarray = _accounts(np.ascontiguousarray(position, np.int8)[None], bars, rules, 1.0).equity[0]
    return equity


def _accounts(positions: Any, bars: tuple[Any, ...], rules: PositionRules, initial: float) -> Accounts:
    """The accounts of paths.  positions: int8 (n_paths, n_rows).  bars: offsets, open, close, halted and slip."""
    from gpupipe.kernels.positions import position_equity

    xp, shape = device_of(positions).xp, positions.shape
    accounts = Accounts(*(xp.empty(shape, kind) for kind in (xp.float64, xp.int8, xp.float64, xp.float64)))
    position_equity(
        shape[0] * (len(bars[0]) - 1), positions, *bars, np.float64(rules.commission), np.float64(rules.size),
        np.float64(initial), np.int64(rules.at_close), accounts.equity, accounts.held, accounts.value, accounts.traded,
    )  # fmt: skip
    return accounts


def _trades(path: PositionPath, accounts: Accounts, slip: Any, rules: PositionRules) -> Trades:
    """The trades of the paths, counted first: the counts give each path and symbol its place in the table."""
    from gpupipe.kernels.positions import position_trades

    panel, n_paths = path.panel, len(path.names)
    xp, asarray = panel.device.xp, panel.device.asarray
    by_group = np.argsort(panel.group_of_symbol, kind="stable").astype(np.int64)
    n_tasks = n_paths * panel.n_symbols
    count, unfilled = xp.empty(n_tasks, xp.int64), xp.empty(n_tasks, xp.int64)
    kinds = (*(xp.int64,) * 4, xp.int8, xp.float32, xp.float32, xp.int8, xp.bool_, xp.float64)

    def listed(begin: Any, n: int, listing: bool) -> list[Any]:
        columns = [xp.empty(n, kind) for kind in kinds]
        position_trades(
            n_tasks, path.positions, asarray(by_group), panel.offsets, accounts.equity, accounts.held, panel.open,
            panel.close, slip, np.float64(rules.commission), np.int64(rules.at_close), begin, np.int64(listing), count,
            unfilled, *columns,
        )  # fmt: skip
        return columns

    listed(xp.zeros(n_tasks, xp.int64), 0, False)
    ends = xp.concatenate([xp.zeros(1, xp.int64), xp.cumsum(count)])
    model, row, first, last, side, entry, leave, reason, waited, net = listed(ends, int(ends[-1]), True)
    first_of = np.searchsorted(panel.group_of_symbol[by_group], np.arange(len(panel.groups)))
    task = np.append((np.arange(n_paths)[:, None] * panel.n_symbols + first_of).ravel(), n_tasks).astype(np.int64)
    counted = np.append(0, np.cumsum(panel.device.to_host(unfilled)))[task]
    return Trades(
        model, row, first, last, side, entry, leave, reason, net, waited, ends[asarray(task)], np.diff(counted)
    )  # fmt: skip
