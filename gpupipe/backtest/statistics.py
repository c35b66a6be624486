"""Statistics of returns and trades: arrays in, numbers out; NaN where a figure is not defined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpupipe.evaluation.multiple_testing import FEWEST_PERIODS

YEAR_NS = 365.25 * 86_400e9
SKILL, NO_SKILL, NOT_KNOWN = "skill", "no skill", "not known"
MOST_P, LEAST_DEFLATED = 0.05, 0.95


def equity_curve(returns: np.ndarray) -> np.ndarray:
    """float64 (n,): the product of 1 + return up to each date; 0 for good once all is lost."""
    return np.cumprod(np.maximum(0.0, 1.0 + returns))


def periods_per_year(times: np.ndarray) -> float:
    """Dates in 365.25 days, of int64 (n_dates,) nanoseconds, whatever the bars are; NaN with fewer than two."""
    span = float(times[-1] - times[0]) if len(times) > 1 else 0.0
    return (len(times) - 1) / (span / YEAR_NS) if span else math.nan


def sharpe_and_error(returns: np.ndarray, per_year: float) -> tuple[float, float]:
    """Sharpe ratio a year, over cash without interest, and its standard error.

    sqrt(per_year) * S, S = mean / standard deviation, and sqrt(per_year) * sqrt((1 - skew S + (kurtosis - 1) / 4 S^2) /
    (n - 1)). NaN with fewer than 6 returns or where nothing varies. Dates are assumed to be independent (Mertens 2002,
    after Lo 2002); the blocks of `benchmarks.moved_dates` allow for dates that are not.
    """
    spread = returns.std(ddof=1) if len(returns) > 1 else 0.0
    if len(returns) < FEWEST_PERIODS or not spread > 0:
        return math.nan, math.nan
    ratio = returns.mean() / spread
    standard = (returns - returns.mean()) / returns.std()
    variance = 1 - (standard**3).mean() * ratio + ((standard**4).mean() - 1) / 4 * ratio**2
    error = math.sqrt(max(0.0, variance) / (len(returns) - 1))
    return float(ratio * math.sqrt(per_year)), float(error * math.sqrt(per_year))


def drawdown(returns: np.ndarray) -> float:
    """Largest loss from a peak of the equity, which begins at 1, as a fraction: 0 if there is none."""
    equity = np.concatenate([[1.0], equity_curve(returns)])
    return float((1 - equity / np.maximum.accumulate(equity)).max())


def performance(series: np.ndarray, per_year: float) -> dict[str, float]:
    """Measures of a portfolio.

    series: float64 (3, n_dates): its return; the share of the equity in positions; the value of all fills as a share.
    turnover: half of all purchases and sales of a year, as a multiple of the equity.
    """
    (returns, exposure, filled), n = series, series.shape[1]
    total = float(equity_curve(returns)[-1]) if n else 1.0
    ratio, error = sharpe_and_error(returns, per_year)
    return {
        "total_return": total - 1,
        "cagr": total ** (per_year / n) - 1 if n and per_year > 0 else math.nan,
        "volatility": float(returns.std(ddof=1) * math.sqrt(per_year)) if n > 1 else math.nan,
        "sharpe": ratio,
        "sharpe_error": error,
        "max_drawdown": drawdown(returns),
        "exposure": float(exposure.mean()) if n else math.nan,
        "turnover": float(filled.mean() / 2 * per_year) if n else math.nan,
    }


def trade_measures(net: np.ndarray) -> dict[str, Any]:
    """Count, mean net return, share above 0, and gains over losses, of float64 (n_trades,) returns."""
    lost = -float(net[net < 0].sum())
    return {
        "trades": len(net),
        "mean_trade": float(net.mean()) if len(net) else math.nan,
        "hit_rate": float((net > 0).mean()) if len(net) else math.nan,
        "profit_factor": float(net[net > 0].sum()) / lost if lost > 0 else math.nan,
    }


def skill(p_value: float, deflated: float) -> str:
    """Classify a model: "skill" if p is at most 5 % and the Deflated Sharpe Ratio at least 95 %, else "no skill".

    A small p credits the dates of the calls, not the symbols or the market. A high Deflated Sharpe Ratio makes it
    unlikely that the model is the best of many trials by chance.
    """
    if math.isnan(p_value) or math.isnan(deflated):
        return NOT_KNOWN
    return SKILL if p_value <= MOST_P and deflated >= LEAST_DEFLATED else NO_SKILL
