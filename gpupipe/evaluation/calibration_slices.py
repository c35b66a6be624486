"""Calibration by month and by volatility: a model that is calibrated on average need not be so on a day.

In each slice of the rows, the expected frequency of a class is the mean of its predicted probabilities; beside the
observed frequency stands the standard error of their difference. Rows of one date share its shocks, and label windows
of h bars overlap over h dates, so the error is that of sums by date (clustered), with their autocorrelation (Newey and
West 1987): an error that took rows as independent would be several times too small. It is never below
that of independent rows with the predicted probabilities, which is what remains where hardly any event was observed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.evaluation.metrics import outer_classes
from gpupipe.evaluation.rank_summary import newey_west_error, overlap_lags

FILE = "calibration_slices.parquet"
MONTH, VOLATILITY = "month", "volatility"
QUINTILES = 5
FEWEST_DATES = 10  # of a slice, for a standard error
FEWEST_EVENTS = 5  # expected in a slice, for a standard error: the sums of rarer events are far from normal


@dataclass(frozen=True)
class Slices:
    """A partition of rows.

    by: what the rows are divided by, "month" or "volatility".  names: of the slices, in order.
    number: int64 (n,), the slice of each row, a position in names; -1 for none.

        >>> by_month(np.array([0, 32 * 86_400_000_000_000, 0]))
        Slices(by='month', names=('1970-01', '1970-02'), number=array([0, 1, 0]))
    """

    by: str
    names: tuple[str, ...]
    number: np.ndarray


def by_month(time_ns: np.ndarray) -> Slices:
    """Rows by calendar month (UTC).  time_ns: int64 (n,)."""
    months, number = np.unique(time_ns.astype("datetime64[ns]").astype("datetime64[M]"), return_inverse=True)
    return Slices(MONTH, tuple(str(month) for month in months), number)


def by_volatility(volatility: np.ndarray, training: np.ndarray) -> Slices:
    """Rows by quintile of volatility, "1" (calmest) to "5".

    volatility: float (n,); a row without it is in no slice.  training: float (n_training,), of the training rows, whose
    quintiles are the cuts: a turbulent test has most rows in "5". Without any finite value there no row is in a slice.

    >>> by_volatility(np.array([0.5, 9.0, np.nan]), np.arange(10.0)).number.tolist()
    [0, 4, -1]
    """
    known = training[np.isfinite(training)].astype(np.float64)
    names = tuple(str(k + 1) for k in range(QUINTILES))
    if not len(known):
        return Slices(VOLATILITY, names, np.full(len(volatility), -1))
    cuts = np.quantile(known, np.arange(1, QUINTILES) / QUINTILES)
    number = np.searchsorted(cuts, volatility.astype(np.float64), side="right")
    return Slices(VOLATILITY, names, np.where(np.isfinite(volatility), number, -1))


def slice_lines(
    key: Mapping[str, Any],
    probability: np.ndarray,
    y: np.ndarray,
    time_ns: np.ndarray,
    slices: Sequence[Slices],
    horizon: int,
) -> list[dict[str, Any]]:
    """Lines of calibration_slices.parquet: the outer classes ("buy", "sell") of one model in every slice that has rows.

    key: what is repeated in every line, such as label and model.  probability: float (n, n_classes), without NaN.
    y: int8 (n,), class numbers: all labels must be known.  time_ns: int64 (n,).  horizon: bars of the label.
    A line has "side", "by", "slice", "rows", "dates", "happened" and "expected" (numbers of rows), and "error": the
    standard error of happened / rows - expected / rows; NaN below ten dates, or five expected events.

        >>> time_ns = np.arange(20) * 86_400_000_000_000
        >>> probability = np.tile([0.25, 0.5, 0.25], (20, 1))
        >>> y = np.int8([2, 0, 1, 1] * 5)
        >>> line = slice_lines({"model": "linear"}, probability, y, time_ns, [by_month(time_ns)], horizon=1)[0]
        >>> {name: line[name] for name in ("side", "slice", "rows", "happened", "expected")}
        {'side': 'buy', 'slice': '1970-01', 'rows': 20, 'happened': 5, 'expected': 5.0}
    """
    times, date = np.unique(time_ns, return_inverse=True)
    lines = []
    for side, c in outer_classes(probability.shape[1]).items():
        happened, chance = y == c, probability[:, c].astype(np.float64)
        for part in slices:
            used = part.number >= 0
            cell = part.number[used] * len(times) + date[used]
            shape = (len(part.names), len(times))
            rows, events, expected, variance = (
                np.bincount(cell, weights=weights, minlength=shape[0] * shape[1]).reshape(shape)
                for weights in (None, happened[used], chance[used], (chance * (1 - chance))[used])
            )
            for k, name in enumerate(part.names):
                if rows[k].any():
                    counts = {"rows": int(rows[k].sum()), "dates": int((rows[k] > 0).sum())}
                    sums = {"happened": int(events[k].sum()), "expected": float(expected[k].sum())}
                    error = _error(rows[k], events[k] - expected[k], sums["expected"], variance[k].sum(), horizon)
                    lines.append({**key, "side": side, "by": part.by, "slice": name, **counts, **sums, "error": error})
    return lines


def _error(rows: np.ndarray, difference: np.ndarray, expected: float, variance: float, horizon: int) -> float:
    """Standard error of sum(difference) / sum(rows), a ratio of sums by date, by its linearisation.

    variance: of the number of events, if rows were independent with their predicted probabilities.
    """
    used = rows > 0
    rows, difference = rows[used].astype(np.float64), difference[used]
    if len(rows) < FEWEST_DATES or expected < FEWEST_EVENTS:
        return float("nan")
    residual = difference - rows * (difference.sum() / rows.sum())
    clustered = newey_west_error(residual, overlap_lags(horizon)) * len(rows)
    return float(max(clustered, np.sqrt(variance)) / rows.sum())


def furthest_off(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The line whose observed frequency is most standard errors from the expected one; None where no line has one."""
    known = [line for line in lines if line["error"] is not None and np.isfinite(line["error"])]
    return max(known, key=lambda line: abs(errors_off(line)), default=None)


def errors_off(line: Mapping[str, Any]) -> float:
    """(observed - expected frequency) / its standard error; NaN without one.

    >>> errors_off({"happened": 30, "expected": 20.0, "rows": 100, "error": 0.05})
    2.0
    """
    error = line["error"]
    if error is None:
        return float("nan")
    return float((line["happened"] - line["expected"]) / line["rows"] / error)
