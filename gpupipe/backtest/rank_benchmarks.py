"""Benchmarks of a portfolio of ranks: the same weights on other dates, and on random names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpupipe.backtest.benchmarks import N_DRAWS, moved_blocks
from gpupipe.backtest.rank_portfolio import RankBacktest
from gpupipe.evaluation.block_bootstrap import FEWEST_BLOCKS, block_length

_ROUNDING = 1e-12  # of a mean return: draws that choose the same names must count as equal


@dataclass(frozen=True)
class Null:
    """A portfolio's mean return of a rebalancing period before costs, among draws without its information.

    mean: of the portfolio.  moved_mean, p_moved: mean of the draws that give its target weights to other dates, and the
    share of draws at least as good, the portfolio among them.  names_mean, p_names: the same of draws that give them to
    random names on the same dates.  NaN with fewer than three blocks of dates.

        >>> Null(0.01, 0.002, 0.03, 0.003, 0.02).p_moved
        0.03
    """

    mean: float = math.nan
    moved_mean: float = math.nan
    p_moved: float = math.nan
    names_mean: float = math.nan
    p_names: float = math.nan


def nulls(result: RankBacktest, seed: int, n_draws: int = N_DRAWS) -> list[Null]:
    """The null distributions of every model.

    A period lasts from the fill of a decision to that of the next one; its return is that of the target weights, with
    no trade and no cost within it. Blocks of decisions that span at least as many dates as `block_length` says stay
    together: their weights move to the dates of another block, or their names are exchanged by one permutation, so
    that a draw trades about as much as the portfolio. On a date when a name has no price, the others share its weight.
    """
    found = [Null()] * len(result.every)
    by_dates: dict[tuple[int, ...], list[int]] = {}
    for model in range(len(result.every)):
        dates = result.decisions.date[result.decisions.model == model]
        by_dates.setdefault((int(result.every[model]), *dates.tolist()), []).append(model)
    for (every, *dates), models in by_dates.items():
        returns = _period_returns(result, np.array(dates, np.int64))
        n_periods = len(returns)
        longest = max(result.source.horizons[model] for model in models)
        block = math.ceil(block_length(result.bars.n_dates, longest) / every)
        if not n_periods or n_periods / block < FEWEST_BLOCKS:
            continue
        weights = np.stack([result.decisions.of(model, result.bars.n_symbols)[:n_periods] for model in models])
        moved = moved_blocks(n_periods, block, n_draws, seed)
        random = _random_names(weights, returns, block, n_draws, seed)
        for place, model in enumerate(models):
            own = _earned(weights[place], returns)
            mean = float(np.diag(own).mean())
            drawn = own[moved, np.arange(n_periods)].mean(axis=1)
            found[model] = Null(mean, *_compared(mean, drawn), *_compared(mean, random[place]))
    return found


def _period_returns(result: RankBacktest, dates: np.ndarray) -> np.ndarray:
    """float64 (n_periods, n_symbols): return from each decision's fill to the next one's; NaN without a price."""
    bars, at_close = result.bars, result.rules.fills.at_close
    if at_close:
        filled = dates[dates < bars.n_dates - 1]
        price = bars.mark[filled]
    else:
        filled = dates[dates < bars.n_dates - 1] + 1
        price = np.where(bars.traded[filled], bars.open[filled], bars.mark[filled - 1])
    ends = np.vstack([price[1:], bars.mark[-1:]])[: len(filled)]
    gone = bars.last[None] < filled[:, None]
    returns: np.ndarray = np.where(gone, np.nan, ends / price - 1)
    return returns


def _earned(weights: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """float64 (n_decisions, n_periods): return of each decision's weights in each period."""
    known = ~np.isnan(returns)
    sums = weights @ np.where(known, returns, 0.0).T
    there, whole = np.abs(weights) @ known.T, np.abs(weights).sum(axis=1, keepdims=True)
    earned: np.ndarray = sums * whole / np.where(there > 0, there, 1)
    return earned


def _random_names(weights: np.ndarray, returns: np.ndarray, block: int, n_draws: int, seed: int) -> np.ndarray:
    """float64 (n_models, n_draws): mean return of a period if the weights go to random names.

    weights: float64 (n_models, n_periods, n_symbols).  returns: float64 (n_periods, n_symbols).
    """
    rng, (n_models, n_periods, n_symbols) = np.random.default_rng([seed, 7]), weights.shape
    total = np.zeros((n_models, n_draws))
    for period in range(n_periods):
        if period % block == 0:
            order = rng.random((n_draws, n_symbols)).argsort(axis=1)
        known = ~np.isnan(returns[period])
        taken = order[known[order]].reshape(n_draws, -1)
        own = weights[:, period]
        there, whole = np.abs(own[:, known]).sum(axis=1), np.abs(own).sum(axis=1)
        scale = np.where(there > 0, whole / np.where(there > 0, there, 1), 0.0)
        total += (own[:, known] @ returns[period][taken].T) * scale[:, None]
    return total / n_periods


def _compared(mean: float, draws: np.ndarray) -> tuple[float, float]:
    """The mean of the draws, and the share of draws that are at least as good."""
    return float(draws.mean()), float((1 + (draws >= mean - _ROUNDING).sum()) / (1 + len(draws)))
