"""The engine: outcomes of every row once, then which calls of every model are acted on, then portfolios by date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.backtest.rules import Rules
from gpupipe.backtest.sources import OutOfSample
from gpupipe.data.halts import halted_rows
from gpupipe.data.panel import Panel
from gpupipe.runtime.device import device_of
from gpupipe.targets.barriers import factors
from gpupipe.targets.classes import percent

REASONS = ("", "target", "stop", "time", "opposite call", "end of data", "position", "all lost")
VOLATILITY_BARS = 20
RETURN, WEIGHT, OPEN, FILLED = range(4)  # of Backtest.days


@dataclass(frozen=True)
class Outcomes:
    """The outcome of a position opened after each row, for each horizon, threshold and side that the rules act on.

    Arrays: see kernels.backtest.trade_outcomes.  variants: (horizon, threshold).  sides: of LONG and SHORT.

        >>> from gpupipe.targets.trade_return import LONG, SHORT
        >>> outcomes = Outcomes(((1, 0.05), (5, 0.1)), (LONG, SHORT), None, None, None, None, None)
        >>> [outcomes.row_of(variant, side) for variant in (0, 1) for side in (LONG, SHORT)]
        [0, 1, 2, 3]
    """

    variants: tuple[tuple[int, float], ...]
    sides: tuple[int, ...]
    halted: Any
    entry_price: Any
    exit_row: Any
    exit_price: Any
    reason: Any

    def row_of(self, variant: Any, side: Any) -> Any:
        """The first index of exit_row, exit_price and reason for numbers of variants and sides; arrays are allowed."""
        return variant * len(self.sides) + (side - self.sides[0])


@dataclass(frozen=True)
class Trades:
    """Trades of all models, sorted by model, sector, then row; arrays (n_trades,) on the panel's device.

    model: int64, number of a name of OutOfSample.names.  row: int64, of the call.  first_row, last_row: int64, of entry
    and exit. All rows are those of Backtest.panel.  side: int8, LONG or SHORT.
    entry_price, exit_price: float32, before costs.  reason: int8, index of REASONS.
    net: float64, return on the stake after costs.  waited: bool, whether the exit waited for the end of a halt.
    groups: int64 (n_models * n_sectors + 1,): the trades of model m and sector s are groups[k]:groups[k + 1],
        k = m * n_sectors + s.
    unfilled: int64 (n_models * n_sectors,), on the host: calls that opened no trade because of a halt.

        >>> from gpupipe.targets.trade_return import LONG
        >>> prices, rows = np.array([100, 50], np.float32), np.array([0, 5])
        >>> trades = Trades(
        ...     model=np.zeros(2, int), row=rows, first_row=rows + 1, last_row=rows + 3, side=np.full(2, LONG, np.int8),
        ...     entry_price=prices, exit_price=prices * np.float32(1.25), reason=np.ones(2, np.int8),
        ...     net=np.array([0.2495, 0.2495]), waited=np.zeros(2, bool), groups=np.array([0, 1, 2]),
        ...     unfilled=np.zeros(2, int))
        >>> trades.n_trades, REASONS[trades.reason[0]], float(trades.exit_price[1])
        (2, 'target', 62.5)
    """

    model: Any
    row: Any
    first_row: Any
    last_row: Any
    side: Any
    entry_price: Any
    exit_price: Any
    reason: Any
    net: Any
    waited: Any
    groups: Any
    unfilled: np.ndarray

    @property
    def n_trades(self) -> int:
        """The number of trades."""
        return int(self.row.shape[0])


@dataclass(frozen=True)
class Backtest:
    """The result of a backtest: trades and daily portfolios of all models.

    panel: the out-of-sample bars alone.  calls: int8 (n_models, n_rows): LONG, SHORT, or 0 where a row is not called.
    times: int64 (n_dates,), on the host: the distinct times of the panel.  date_of_row: int64 (n_rows,).
    days: float64 (n_models, n_sectors, 4, n_dates), on the host: sums over positions of weight * return, weight, 1, and
        weight * fills.  listed: int64 (n_sectors, n_dates), on the host: symbols with a bar.

        >>> from gpupipe.data import simulate
        >>> panel, values = simulate(n_symbols=1, n_bars=8), np.zeros((8, 1, 3), np.float32)
        >>> values[2] = 0, 0, 1  # call BUY in the third bar alone
        >>> source = OutOfSample(
        ...     values, np.full((1, 1, 2), 0.5, np.float32), (2,), (0.5,), ("linear",), panel.time_ns[:1],
        ...     panel.time_ns[-1:] + 1, "an example", panel)
        >>> result = backtest(source)
        >>> int(result.trades.first_row[0]), int(result.trades.last_row[0]), REASONS[result.trades.reason[0]]
        (3, 4, 'time')
    """

    panel: Panel = field(repr=False)
    source: OutOfSample = field(repr=False)
    rules: Rules
    outcomes: Outcomes = field(repr=False)
    variant_of_model: np.ndarray = field(repr=False)
    calls: Any = field(repr=False)
    trades: Trades = field(repr=False)
    times: np.ndarray = field(repr=False)
    date_of_row: Any = field(repr=False)
    days: np.ndarray = field(repr=False)
    listed: np.ndarray = field(repr=False)

    def capital(self, model: int, sectors: Any) -> np.ndarray:
        """float64 (n_dates,): the denominator of the shares of some sectors' positions; 1 without positions."""
        if self.rules.sizing == "equal":
            at_once = self.source.horizons[model] if self.rules.overlapping else 1
            whole = self.listed[sectors].sum(axis=0) * float(at_once)
        else:
            whole = self.days[model, sectors, WEIGHT].sum(axis=0)
        return np.where(whole > 0, whole, 1.0)

    def series(self, model: int, sectors: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float64 (n_dates,) each: return, exposure and traded share of the equity, of a model over some sectors."""
        shares = self.days[model, sectors].sum(axis=0) / self.capital(model, sectors)
        return shares[RETURN], shares[WEIGHT], shares[FILLED]


def backtest(source: OutOfSample, rules: Rules | None = None, called: np.ndarray | None = None) -> Backtest:
    """Backtest every model of `source` under `rules`, on the device of its panel.

    called: int8 (n_models, n_unseen), on the host: LONG, SHORT or 0 for each row of `source.unseen()`, as
    `calling.calls.calls_of` gives it. None calls the rows whose probability reaches the cutoffs of `source`.
    The outcome of a position that begins on a row depends on rules, horizon and threshold alone, and is computed once;
    the models then choose the rows that are acted on. Rows before the out-of-sample time are cut off before anything
    is computed. Raises ValueError when no row is out of sample.
    """
    rules = rules or Rules()
    panel, rows = cut(source)
    xp, device = panel.device.xp, panel.device
    halted = halted_rows(source.panel)[rows]  # of the whole panel, whose bars before the first row are known
    outcomes, variant = outcomes_of(panel, source.horizons, source.thresholds, rules, halted)
    calls = call_of(panel, source, rows) if called is None else device.asarray(called)
    trades = taken(panel, calls, variant, outcomes, rules)
    times, date_of_row = xp.unique(panel.time_ns, return_inverse=True)
    date_of_row = date_of_row.reshape(-1).astype(xp.int64)
    weight = _weights(source.panel, rows, trades, rules)
    days = _days(panel, trades, weight, date_of_row, len(times), rules, (len(source.families), len(panel.groups)))
    sector_of_date = device.asarray(panel.group_of_symbol)[panel.symbol_of_row] * len(times) + date_of_row
    listed = xp.bincount(sector_of_date, minlength=len(panel.groups) * len(times)).reshape(len(panel.groups), -1)
    return Backtest(
        panel=panel, source=source, rules=rules, outcomes=outcomes, variant_of_model=variant, calls=calls,
        trades=trades, times=device.to_host(times), date_of_row=date_of_row, days=device.to_host(days),
        listed=device.to_host(listed),
    )  # fmt: skip


def cut(source: OutOfSample) -> tuple[Panel, Any]:
    """The panel of the out-of-sample rows, with all its symbols, and their row numbers."""
    panel, rows = bars_of(source.panel, source.unseen())
    if not rows.shape[0]:
        raise ValueError(f"no row of the panel is out of sample ({source.source})")
    return panel, rows


def bars_of(panel: Panel, keep: Any) -> tuple[Panel, Any]:
    """The panel of the rows for which keep, bool (n_rows,), is true, with all its symbols; and their row numbers."""
    return panel.take(keep, keep_empty=True), panel.device.xp.flatnonzero(keep)


def outcomes_of(
    panel: Panel, horizons: tuple[int, ...], thresholds: tuple[float, ...], rules: Rules, halted: Any
) -> tuple[Outcomes, np.ndarray]:
    """The outcome of a position opened after each row; int64 (n_models,), on the host: the variant of each model.

    halted: int8 (n_rows,), of `data.halts.halted_rows`; ignored where the rules fill halted bars.
    """
    from gpupipe.kernels.backtest import trade_outcomes

    pairs = list(zip(horizons, thresholds, strict=True))
    variants = tuple(sorted(set(pairs)))
    xp, asarray, n = panel.device.xp, panel.device.asarray, panel.n_rows
    entry = xp.empty(n, xp.float32)
    halted = halted if rules.halts == "wait" else xp.zeros(n, xp.int8)
    exits = [xp.empty((len(rules.sides) * len(variants), n), dtype) for dtype in (xp.int64, xp.float32, xp.int8)]
    trade_outcomes(
        n, panel.open, panel.high, panel.low, panel.close, halted, panel.symbol_of_row, panel.offsets,
        asarray(np.array([h for h, _ in variants], np.int64)),
        *factors(panel.device, [t for _, t in variants]),
        asarray(np.array(rules.sides, np.int8)), np.int64(rules.at_close), np.int64(rules.both_in_bar == "target"),
        entry, *exits,
    )  # fmt: skip
    variant_of_model = np.array([variants.index(pair) for pair in pairs], np.int64)
    return Outcomes(variants, rules.sides, halted, entry, *exits), variant_of_model


def call_of(panel: Panel, source: OutOfSample, rows: Any) -> Any:
    """int8 (n_models, n_rows): LONG where a row is called BUY, SHORT where SELL, by the cutoffs of its window.

    panel, rows: see `cut`.
    """
    from gpupipe.kernels.backtest import call_rows

    xp, asarray = panel.device.xp, panel.device.asarray
    calls = xp.empty((source.values.shape[1], panel.n_rows), xp.int8)
    window = xp.zeros(panel.n_rows, xp.int64)
    if source.windows_ns is not None:
        window = xp.searchsorted(asarray(source.windows_ns), panel.time_ns, side="right").astype(xp.int64) - 1
    cutoffs = asarray(source.by_window.reshape(-1, *source.by_window.shape[2:]))
    call_rows(panel.n_rows, xp.ascontiguousarray(source.values), rows.astype(xp.int64), cutoffs, window,
              panel.symbol_of_row, asarray(panel.group_of_symbol), calls)  # fmt: skip
    return calls


def taken(panel: Panel, calls: Any, variant: np.ndarray, outcomes: Outcomes, rules: Rules) -> Trades:
    """The calls that are acted on, as a table.

    They are counted first: the counts give each model and symbol its place in the table.
    """
    from gpupipe.kernels.backtest import take_trades

    xp, asarray = panel.device.xp, panel.device.asarray
    by_sector = np.argsort(panel.group_of_symbol, kind="stable").astype(np.int64)
    n_tasks = len(calls) * panel.n_symbols

    def take(begin: Any, listing: bool, counts: Sequence[Any], trades: list[Any]) -> None:
        flags = (rules.overlapping, rules.exit_on_opposite, rules.at_close)
        take_trades(
            n_tasks, calls, asarray(by_sector), panel.offsets, asarray(variant),
            asarray(np.array(rules.sides, np.int8)), panel.open, panel.close, outcomes.halted, outcomes.entry_price,
            outcomes.exit_row, outcomes.exit_price, outcomes.reason, *(np.int64(flag) for flag in flags), begin,
            np.int64(listing), *counts, *trades,
        )  # fmt: skip

    def columns(n: int) -> list[Any]:
        kinds = (xp.int64, xp.int64, xp.int64, xp.int8, xp.float32, xp.float32, xp.int8)
        return [xp.empty(n, kind) for kind in kinds]

    count, unfilled = xp.empty(n_tasks, xp.int64), xp.empty(n_tasks, xp.int64)
    take(xp.zeros(n_tasks, xp.int64), False, (count, unfilled), columns(0))
    ends = xp.concatenate([xp.zeros(1, xp.int64), xp.cumsum(count)])
    trades = columns(int(ends[-1]))
    take(ends, True, (count, unfilled), trades)
    model, row, last_row, side, entry_price, exit_price, reason = trades
    first_of = np.searchsorted(panel.group_of_symbol[by_sector], np.arange(len(panel.groups)))
    task = (np.arange(len(calls))[:, None] * panel.n_symbols + first_of).ravel()
    groups = ends[asarray(np.append(task, n_tasks).astype(np.int64))]
    first_row = row if rules.at_close else row + 1
    net = net_returns(panel, side, entry_price, exit_price, rules)
    waited = _waited(outcomes, asarray(variant)[model], row, last_row, reason, rules)
    ends_of_groups = np.append(0, np.cumsum(panel.device.to_host(unfilled)))[np.append(task, n_tasks)]
    return Trades(
        model, row, first_row, last_row, side, entry_price, exit_price, reason, net, waited, groups,
        np.diff(ends_of_groups),
    )  # fmt: skip


def _waited(outcomes: Outcomes, variant: Any, row: Any, last_row: Any, reason: Any, rules: Rules) -> Any:
    """bool (n_trades,): whether the exit was due in a halted bar, by time or, at an open, by an opposite call."""
    device, at_time, opposite = device_of(reason), REASONS.index("time"), REASONS.index("opposite call")
    due = row + device.asarray(np.array([h for h, _ in outcomes.variants], np.int64))[variant]
    halted = outcomes.halted != 0
    waited = (reason == at_time) & (last_row > due) & halted[device.xp.minimum(due, last_row)]
    if not rules.at_close:
        waited |= (reason == opposite) & halted[last_row - 1]
    return waited


def net_returns(panel: Panel, side: Any, entry_price: Any, exit_price: Any, rules: Rules) -> Any:
    """float64 (n,): returns after costs of positions.  side: int8 (n,).  entry_price, exit_price: float32 (n,)."""
    from gpupipe.kernels.backtest import trade_returns

    net = panel.device.xp.empty(len(side), panel.device.xp.float64)
    trade_returns(
        len(side), side, entry_price, exit_price, np.float64(rules.slip), np.float64(rules.commission), net
    )  # fmt: skip
    return net


def _weights(panel: Panel, rows: Any, trades: Trades, rules: Rules) -> Any:
    """float64 (n_trades,): the weight of each position.  panel: the whole panel, because volatility looks back."""
    xp = panel.device.xp
    if rules.sizing != "inverse_volatility":
        return xp.ones(trades.n_trades, xp.float64)
    from gpupipe.features.matrix import compute_features

    name = f"volatility_{VOLATILITY_BARS}"
    volatility = compute_features(panel, name).values[:, 0][rows[trades.row]].astype(xp.float64)
    return xp.where(volatility > 0, 1 / xp.where(volatility > 0, volatility, 1), 0.0)


def _days(
    panel: Panel, trades: Trades, weight: Any, date_of_row: Any, n_dates: int, rules: Rules, shape: tuple[int, int]
) -> Any:
    """Backtest.days, on the device.

    A position's first date is the date after its call, also where it opened at that close. On the date of that close
    its return is the cost of the fill, which is counted a date later.
    """
    from gpupipe.kernels.backtest import portfolio_days

    days = panel.device.xp.zeros((shape[0] * shape[1], 4, n_dates), panel.device.xp.float64)
    portfolio_days(
        len(days), trades.groups, trades.row + 1, trades.last_row, trades.side, trades.entry_price,
        trades.exit_price, weight, panel.close, date_of_row, np.float64(rules.slip), np.float64(rules.commission), days,
    )  # fmt: skip
    return days.reshape(*shape, 4, n_dates)


def title_of(source: OutOfSample, model: int) -> dict[str, Any]:
    """Model, label, horizon and threshold of a model: the columns of every table."""
    h, t = source.horizons[model], source.thresholds[model]
    return {"model": source.families[model], "label": f"label_{h}d_{percent(t)}pct", "horizon": h, "threshold": t}
