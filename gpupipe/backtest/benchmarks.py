"""Benchmarks of a backtest: buy and hold of all symbols, and random entries, the same calls on other dates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.backtest.engine import Backtest, net_returns
from gpupipe.backtest.rules import Rules
from gpupipe.data.panel import Panel
from gpupipe.evaluation.block_bootstrap import FEWEST_BLOCKS, block_length

N_DRAWS = 500


def buy_and_hold(result: Backtest) -> np.ndarray:
    """float64 (n_sectors + 1, n_dates): returns of an equal share in every symbol, of each sector and, last, of all.

    The mean over symbols of close / the last known close - 1, from the second date on; shares are made equal again at
    every close, which costs nothing here; the first date and the last date pay the costs of a fill.
    """
    date = result.panel.device.to_host(result.date_of_row)
    return held(result.panel, date, len(result.times), result.rules)


def held(panel: Panel, date: np.ndarray, n_dates: int, rules: Rules) -> np.ndarray:
    """The returns of `buy_and_hold`, for the rows of a panel.  date: int64 (n_rows,), on the host, below n_dates."""
    to_host = panel.device.to_host
    close, symbol = to_host(panel.close).astype(np.float64), to_host(panel.symbol_of_row)
    known = np.flatnonzero(close > 0)
    same = symbol[known[1:]] == symbol[known[:-1]]
    now, before = known[1:][same], known[:-1][same]
    n_sectors = len(panel.groups)
    at = panel.group_of_symbol[symbol[now]] * n_dates + date[now]
    total = np.bincount(at, close[now] / close[before] - 1, n_sectors * n_dates).reshape(n_sectors, n_dates)
    count = np.bincount(at, minlength=n_sectors * n_dates).reshape(n_sectors, n_dates)
    total, count = (np.vstack([x, x.sum(axis=0)]) for x in (total, count))
    returns: np.ndarray = total / np.maximum(count, 1)
    if n_dates > 1:
        for at_end in (1, -1):  # in turn: with two dates both are the same column
            returns[:, at_end] -= rules.slip + rules.commission
    return returns


def moved_dates(n_dates: int, longest_horizon: int, n_draws: int, seed: int) -> np.ndarray:
    """int32 (n_draws, n_dates): the new position of each date; every row is a permutation.

    Dates are rotated by any number, cut into blocks, and the blocks are shuffled. So calls of a date, and of dates soon
    after each other, stay together, as calls and returns of a market do. The length of a block is that of
    `block_bootstrap.block_length`.
    """
    return moved_blocks(n_dates, block_length(n_dates, longest_horizon), n_draws, seed)


def moved_blocks(n_dates: int, block: int, n_draws: int, seed: int) -> np.ndarray:
    """The positions of `moved_dates`, with blocks of so many dates."""
    rng = np.random.default_rng([seed, 6])
    edges = np.arange(block, n_dates, block)
    edges = edges[: max(0, n_dates // block - 1)]  # the last block takes the remaining dates
    moved = np.empty((n_draws, n_dates), np.int32)
    for draw in range(n_draws):
        parts = np.split(np.roll(np.arange(n_dates), int(rng.integers(n_dates))), edges)
        moved[draw] = np.concatenate([parts[k] for k in rng.permutation(len(parts))])
    return moved


@dataclass(frozen=True)
class RandomEntries:
    """The mean net return of a trade as backtested, and in draws that move the same calls to other dates.

    total: float64 (n_models, n_sectors, 1 + n_draws), sums of net returns, the first as backtested.
    known: int64, of the same shape, numbers of trades. All trades are held to target, stop or horizon, also where an
        opposite call would close them.

        >>> total = np.array([[[0.4, 0.1, 0.2, 0.3]]])  # as backtested, then three draws
        >>> draws = RandomEntries(total, np.full((1, 1, 4), 10), n_blocks=5.0)
        >>> mean, p = draws.of(0, [0])
        >>> round(mean, 4), p
        (0.02, 0.25)
    """

    total: np.ndarray
    known: np.ndarray
    n_blocks: float

    def of(self, model: int, sectors: Any) -> tuple[float, float]:
        """Mean net return of a trade of the draws, and the p-value: (1 + draws at least as good) / (1 + draws).

        sectors: an index of the second axis.  NaN without trades, or with fewer than three blocks of dates.
        """
        total, known = (x[model, sectors].sum(axis=0) for x in (self.total, self.known))
        if not known[0] or self.n_blocks < FEWEST_BLOCKS:
            return math.nan, math.nan
        means = total[1:][known[1:] > 0] / known[1:][known[1:] > 0]
        if not len(means):
            return math.nan, math.nan
        at_least = int((means >= total[0] / known[0]).sum())
        return float(means.mean()), (1 + at_least) / (1 + len(means))


def random_entries(result: Backtest, seed: int, n_draws: int = N_DRAWS) -> RandomEntries:
    """Every model's trades in `n_draws` draws of other dates; the same draws for all models, sectors and symbols.

    A draw keeps the number of trades of each symbol and side, less those that fall where no trade can begin (its last
    bar, or a date without a bar); it ignores whether the positions of a symbol overlap.
    """
    from gpupipe.kernels.backtest import moved_entries

    panel, xp = result.panel, result.panel.device.xp
    asarray, n_dates, trades = panel.device.asarray, len(result.times), result.trades
    longest = max(result.source.horizons)
    moved = np.vstack([np.arange(n_dates, dtype=np.int32), moved_dates(n_dates, longest, n_draws, seed)])
    shape = (len(result.source.families) * len(panel.groups), len(moved))
    total, known = xp.empty(shape, xp.float64), xp.empty(shape, xp.int64)
    outcome = result.outcomes.row_of(asarray(result.variant_of_model)[trades.model], trades.side.astype(xp.int64))
    symbol = panel.symbol_of_row[trades.row].astype(xp.int64)
    moved_entries(
        shape[0] * shape[1], trades.groups, outcome, symbol, result.date_of_row[trades.row],
        net_of_every_row(result, result.rules), asarray(moved), total, known,
    )  # fmt: skip
    by_model = (len(result.source.families), len(panel.groups), len(moved))
    host = panel.device.to_host
    n_blocks = n_dates / block_length(n_dates, longest)
    return RandomEntries(host(total).reshape(by_model), host(known).reshape(by_model), n_blocks)


def net_of_every_row(result: Backtest, rules: Rules) -> Any:
    """float32 (n_variants * n_sides, n_symbols, n_dates), in the order of Outcomes: net return of a call on each date.

    NaN where there is no trade.
    """
    panel, xp, outcomes = result.panel, result.panel.device.xp, result.outcomes
    net = xp.full((len(outcomes.exit_price), panel.n_symbols, len(result.times)), xp.nan, xp.float32)
    for column in range(len(net)):
        side = xp.full(panel.n_rows, outcomes.sides[column % len(outcomes.sides)], xp.int8)
        returns = net_returns(panel, side, outcomes.entry_price, outcomes.exit_price[column], rules)
        net[column, panel.symbol_of_row, result.date_of_row] = returns.astype(xp.float32)
    return net
