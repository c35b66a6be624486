"""Statistics of position trades beside buy and hold and random entries, with intervals by blocks of days."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpupipe.backtest import statistics
from gpupipe.backtest.benchmarks import N_DRAWS
from gpupipe.backtest.choices import BUY_AND_HOLD, HALTS
from gpupipe.backtest.position_benchmarks import random_entries
from gpupipe.backtest.position_trades import PositionBacktest
from gpupipe.backtest.tables import ALL
from gpupipe.data.report import time_text
from gpupipe.evaluation import block_bootstrap, multiple_testing


def portfolios(result: PositionBacktest) -> list[tuple[str, list[int]]]:
    """Name and numbers of the groups of every portfolio: all groups together, then each alone."""
    groups = result.path.panel.groups
    single = [(name, [k]) for k, name in enumerate(groups)]
    return [(ALL, list(range(len(groups)))), *single] if len(single) > 1 else single


def position_statistics(
    result: PositionBacktest, seed: int = 0, trials: int | None = None, n_draws: int = N_DRAWS
) -> dict[str, Any]:
    """What is known of every path: the content of statistics.json.

    seed: of random entries and intervals.  trials: how many paths were tried, of which these are the ones that are
        looked at, for the Deflated Sharpe Ratio; as many as there are here, if that is more or if None.

    "statistics" has a row for each portfolio and path, then one for its buy and hold, with the measures of
    `statistics.performance` from the second bar on and, of trades, `statistics.trade_measures`, and

    random_mean_trade, p_value: see `position_benchmarks.random_entries` and `RandomEntries.of`.
    deflated_sharpe, trials, skill: of the returns of bars, as trials without skill (see `deflated_sharpe`), and
        `statistics.skill`: p of at most 5 % and a Deflated Sharpe Ratio of at least 95 %.
    day_return, day_return_low, day_return_high: the mean log-return of a day, from its last bar to that of the day
        before, and its 95 % interval by blocks of days (`block_bootstrap`).  over_hold, ...: the same of the difference
        from buy and hold. NaN with fewer than three blocks of days, and where all is lost.
    unfilled, waited: positions that a halt left without an entry, and exits that waited.

    Returns are annualised by the bars of a calendar year, as the times have them, nights and weekends included; so
    bars of any length can be compared, but less than some weeks of bars say little about a year.

        >>> from gpupipe.backtest import PositionPath, backtest_positions
        >>> from gpupipe.data import simulate
        >>> panel = simulate(n_symbols=1, n_bars=60)
        >>> path = PositionPath(np.ones((1, 60), np.int8), ("long",), panel, 0, 2**62)
        >>> row = position_statistics(backtest_positions(path))["statistics"][0]
        >>> row["trades"], row["p_value"], row["skill"]  # a trade over all bars has one place only
        (1, 1.0, 'no skill')
    """
    per_year = statistics.periods_per_year(result.times)
    n_trials = max(trials or 0, len(result.path.names))
    drawn = random_entries(result, seed, n_draws)
    days = Days.of(result, seed)
    rows: list[dict[str, Any]] = []
    for name, groups in portfolios(result):
        hold = result.series(None, groups)[1]
        hold_equity = statistics.equity_curve(hold[0])  # 0 for good once all is lost
        for path, path_name in enumerate(result.path.names):
            series = result.series(path, groups)[1]
            random_mean, p_value = drawn.of(path, groups)
            deflated = multiple_testing.deflated_sharpe(series[0, 1:], n_trials)
            rows.append({
                "group": name, "path": path_name, **statistics.performance(series[:, 1:], per_year),
                **_of_trades(result, path, groups), "random_mean_trade": random_mean, "p_value": p_value,
                "deflated_sharpe": deflated, "trials": n_trials, "skill": statistics.skill(p_value, deflated),
                **days.intervals(statistics.equity_curve(series[0]), hold_equity),
            })  # fmt: skip
        held = {**statistics.performance(hold[:, 1:], per_year), **days.intervals(hold_equity)}
        rows.append({"group": name, "path": BUY_AND_HOLD, **held})
    return {
        "source": result.path.source, "rules": result.rules.as_dict(), "from": time_text(int(result.times[0])),
        "to": time_text(int(result.times[-1])), "bars": len(result.times), "bars_per_year": per_year,
        "days": len(days.draws.times), "block": days.draws.block, "seed": seed, "draws": n_draws, "trials": n_trials,
        "device": result.path.panel.device.kind, "statistics": rows,
    }  # fmt: skip


def _of_trades(result: PositionBacktest, path: int, groups: list[int]) -> dict[str, Any]:
    """Measures of the trades of a path in some groups, and what halts did to them."""
    trades, panel = result.trades, result.path.panel
    net, waited, ends = (panel.device.to_host(x) for x in (trades.net, trades.waited, trades.groups))
    numbers = [path * len(panel.groups) + group for group in groups]
    rows = np.concatenate([np.arange(ends[k], ends[k + 1]) for k in numbers])
    counts = int(trades.unfilled[numbers].sum()), int(waited[rows].sum())
    return {**statistics.trade_measures(net[rows]), **dict(zip(HALTS, counts, strict=True))}


class Days:
    """The days of a backtest, as the exchange's clock has them, and bootstrap samples of their blocks.

    draws: of the days.  last: int64 (n_days,), the number of the last time of each day.
    """

    def __init__(self, day_of_time: np.ndarray, seed: int) -> None:
        """day_of_time: int64 (n_times,), rising."""
        self.draws = block_bootstrap.draw(day_of_time, longest_horizon=1, seed=seed)
        self.last = np.searchsorted(day_of_time, self.draws.times, side="right") - 1

    @classmethod
    def of(cls, result: PositionBacktest, seed: int) -> Days:
        """The days of the times of a backtest. A time that is of two days on two exchanges is of the later one."""
        day_of_time = np.full(len(result.times), np.iinfo(np.int64).min)
        panel = result.path.panel
        np.maximum.at(day_of_time, result.time_of_row, panel.device.to_host(panel.session_day))
        return cls(np.maximum.accumulate(day_of_time), seed)

    def log_returns(self, equity: np.ndarray) -> np.ndarray:
        """float64 (n_days,): of each day, of an equity by time that began with 1; NaN from the day on which it is lost.

        >>> days = Days(np.array([0, 0, 1, 1]), seed=0)
        >>> np.exp(days.log_returns(np.array([1, 1.5, 1.25, 3]))).round(6).tolist()
        [1.5, 2.0]
        """
        closing = np.concatenate([[1.0], equity[self.last]])
        alive = np.minimum.accumulate(closing) > 0
        return np.diff(np.log(np.where(alive, closing, np.nan)))

    def intervals(self, equity: np.ndarray, hold: np.ndarray | None = None) -> dict[str, float]:
        """The mean log-return of a day and its 95 % interval; with `hold`, also of the difference from that equity."""
        columns = {"day_return": self.log_returns(equity)}
        if hold is not None:
            columns["over_hold"] = columns["day_return"] - self.log_returns(hold)
        sums = self.draws.sums(np.stack(list(columns.values()), axis=1))
        size = self.draws.starts.shape[1] * self.draws.block
        found: dict[str, float] = {}
        for k, (name, values) in enumerate(columns.items()):
            mean = float(values.mean()) if len(values) else math.nan
            low, high = block_bootstrap.interval(mean, sums[:, k] / size, self.draws.n_blocks)
            found |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        return found
