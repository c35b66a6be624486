"""Statistics of portfolios of ranks: a row for each model, and one for buy and hold of the same symbols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.backtest import benchmarks, statistics
from gpupipe.backtest.engine import title_of
from gpupipe.backtest.rank_benchmarks import nulls
from gpupipe.backtest.rank_portfolio import RankBacktest
from gpupipe.backtest.rank_rules import RankRules
from gpupipe.backtest.rank_trades import RoundTrips, capacity
from gpupipe.backtest.tables import ALL, HOLD, _times, _words
from gpupipe.evaluation import multiple_testing

if TYPE_CHECKING:
    import pyarrow


def models_with_scores(result: RankBacktest) -> list[int]:
    """Numbers of the models that have a score on any date, and so a portfolio."""
    return np.flatnonzero(result.bars.first_scored() < result.bars.n_dates).tolist()


def held_returns(result: RankBacktest) -> np.ndarray:
    """float64 (n_dates,): returns of an equal share in every symbol, as `benchmarks.buy_and_hold` has them."""
    date = np.searchsorted(result.bars.times, result.panel.device.to_host(result.panel.time_ns))
    returns: np.ndarray = benchmarks.held(result.panel, date, result.bars.n_dates, result.rules.fills)[-1]
    return returns


def from_second_date(result: RankBacktest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, traded share and cost of the equity, float64 (n_models, n_dates - 1) each, from the second date on.

    What the first date has, fills at its close, counts on the second: a return needs a date before it.
    """
    returns, traded, cost = (series[:, 1:].copy() for series in (result.returns, result.traded, result.cost))
    if result.bars.n_dates > 1:
        returns[:, 0] = (1 + returns[:, 0]) * (1 + result.returns[:, 0]) - 1
        traded[:, 0] += result.traded[:, 0]
        cost[:, 0] += result.cost[:, 0]
    return returns, traded, cost


def measured(result: RankBacktest, trips: RoundTrips, seed: int, trials: int = 0) -> list[dict[str, Any]]:
    """A row for each model, then buy and hold.

    Beside the measures of `statistics.performance` (exposure: the gross one) and, of round trips, of
    `statistics.trade_measures`, a row has

    rebalance: dates between two decisions.  net_exposure, names: means over dates.
    costs: all costs of a year, as a share of the equity.
    information_ratio: Sharpe ratio of the return over buy and hold; under long-short that of the return itself.
    mean_period, moved_mean_period, p_value, names_mean_period, p_names: see `rank_benchmarks.Null`; p_value is p_moved.
    deflated_sharpe: of the returns over buy and hold (long-short: of the returns), so that the market's own rise is no
        skill; over `trials`, or as many as there are models here, whichever are more.
    skill: see `statistics.skill`.  unfilled: orders that lapsed in a halt.  waited: exits that waited for its end.
    capacity, capacity_low: see `rank_trades.capacity`, in the money of the prices.
    """
    models, per_year = models_with_scores(result), statistics.periods_per_year(result.bars.times)
    held, drawn = held_returns(result)[1:], nulls(result, seed)
    returns, traded, cost = from_second_date(result)
    active = returns - (0.0 if result.rules.short else held)
    median, low = capacity(result)
    n_trials = max(trials, len(models))
    rows = []
    for m in models:
        own, null = trips.model == m, drawn[m]
        deflated = multiple_testing.deflated_sharpe(active[m], n_trials, active[models].T)
        rows.append({
            "sector": ALL, **title_of(result.source, m), "rebalance": int(result.every[m]),
            **statistics.performance(np.stack([returns[m], result.gross[m, 1:], traded[m]]), per_year),
            "net_exposure": _mean(result.net[m, 1:]), "names": _mean(result.names[m, 1:]),
            "costs": _mean(cost[m]) * per_year, **statistics.trade_measures(trips.net[own]),
            "information_ratio": statistics.sharpe_and_error(active[m], per_year)[0],
            "mean_period": null.mean, "moved_mean_period": null.moved_mean, "p_value": null.p_moved,
            "names_mean_period": null.names_mean, "p_names": null.p_names, "deflated_sharpe": deflated,
            "trials": n_trials, "skill": statistics.skill(null.p_moved, deflated),
            "unfilled": int(result.unfilled[m]), "waited": int(trips.waited[own].sum()),
            "capacity": float(median[m]), "capacity_low": float(low[m]),
        })  # fmt: skip
    whole = np.stack([held, np.ones_like(held), np.zeros_like(held)])
    title = {"sector": ALL, "model": HOLD, "label": "", "horizon": None, "threshold": None}
    return [*rows, {**title, **statistics.performance(whole, per_year)}]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def equity_table(result: RankBacktest) -> pyarrow.Table:
    """A row for each model and date, then for buy and hold: return, equity, exposures, turnover, number of names.

    turnover: half of the value of the date's fills, as a share of the equity of the date before.
    """
    import pyarrow as pa

    models, n_dates, held = models_with_scores(result), result.bars.n_dates, held_returns(result)
    n, nothing = len(models) + 1, np.zeros((1, n_dates))
    titles = [title_of(result.source, m) for m in models]
    number = np.repeat(np.arange(n), n_dates)
    listed = result.bars.listed.sum(axis=1)
    series = {
        "return": (result.returns, held), "equity": (result.equity, statistics.equity_curve(held)),
        "exposure": (result.gross, nothing + 1), "net_exposure": (result.net, nothing + 1),
        "turnover": (result.traded / 2, nothing), "positions": (result.names, listed),
    }  # fmt: skip
    columns: dict[str, Any] = {
        "model": _words(number, [*(title["model"] for title in titles), HOLD]),
        "label": _words(number, [*(title["label"] for title in titles), ""]),
        "sector": _words(np.zeros_like(number), (ALL,)),
        "time": _times(np.tile(result.bars.times, n)),
    }
    for name, (own, last) in series.items():
        columns[name] = pa.array(np.vstack([own[models], np.reshape(last, (1, n_dates))]).ravel())
    return pa.table(columns)


def sentences(whole: dict[str, Any]) -> list[str]:
    """What the figures mean, in words.  whole: the content of statistics.json."""
    rules, tried, calls = RankRules.of_dict(whole["rules"]), len(whole["tried"]), whole["calls_tried"]
    over = "" if rules.short else ", of returns over buy and hold,"
    return [
        "p: the share of draws that earn as much a period before costs. Moved: the same weights on other dates "
        f"({whole['draws']} draws, blocks that span {whole['block']} dates); names: the same weights on random names.",
        f"A model has skill where p moved is at most 5 % and the Deflated Sharpe Ratio (DSR){over} is at least 0.95. "
        f"It counts the models of {tried} {'portfolio' if tried == 1 else 'portfolios'} and {calls} "
        f"{'backtest' if calls == 1 else 'backtests'} of calls that were tried here.",
        f"Capacity: the equity at which half of the fills, or one in ten, are more than {100 * rules.volume_share:g} % "
        "of the symbol's median dollar volume of 20 bars.",
    ]


def money(value: float | None) -> str:
    """An amount in the currency of the prices with three digits, as 12.3M; "-" where it is not known.

    >>> money(12_345_678), money(950), money(None)
    ('12.3M', '950', '-')
    """
    if value is None:
        return "-"
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"
