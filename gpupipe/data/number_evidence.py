"""Weigh two readings of the same numbers as times: weekdays, gaps, regular months and years tell which is likelier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.time_limits import FIRST_INTRADAY_NS

ENOUGH_DAYS = 10  # for weekdays and gaps to be evidence
_BEFORE_7_DAY_MARKETS = 14_245  # 2009-01-01 in days since 1970: no market traded on all seven days of a week


@dataclass(frozen=True)
class Reading:
    """One reading of the distinct numbers.

    words: its name.  fits: bool, where time_ns is a possible time of a bar.  share: of rows that fit; more than needed
    must.  is_doubtful: the numbers may be row numbers; it may keep others from being sure, but it is not taken.
    """

    words: str
    time_ns: np.ndarray
    fits: np.ndarray
    share: float
    needed: float
    is_doubtful: bool = False


def is_likelier(reading: Reading, other: Reading, counts: np.ndarray) -> bool:
    """Whether evidence speaks for one reading and none for the other.

    Evidence: weekdays; dense dates, but not against first days of months at regular steps, which bars of a month or a
    quarter have; 24 of these, against days of which most are missing; years, of day numbers.
    """
    evidence = []
    enough = min(len(np.unique(_days(r))) for r in (reading, other)) >= ENOUGH_DAYS
    for one, another in ((reading, other), (other, reading)):
        days, days_of_other = _days(one), _days(another)
        weekend = share(np.logical_or(*_weekend(days)), counts[one.fits])
        weekend_of_other = share(np.logical_or(*_weekend(days_of_other)), counts[another.fits])
        evidence.append(
            (enough and weekend < 0.01 and weekend_of_other > 0.1)
            or (enough and _density(days) > 4 * _density(days_of_other) and not _months_apart(days_of_other))
            or (len(np.unique(days)) >= 24 and _months_apart(days) in (1, 3) and _density(days_of_other) < 0.5)
            or (another.is_doubtful and _is_recent(days) and not _is_recent(days_of_other))
        )
    return bool(evidence[0] and not evidence[1])


def has_early_weekends(reading: Reading) -> bool:
    """Whether days before 2009 are of all days of the week, as row numbers are and days of bars are not."""
    days = _days(reading)
    early = np.unique(days[days < _BEFORE_7_DAY_MARKETS])
    return len(early) >= 2 * ENOUGH_DAYS and min(mask.mean() for mask in _weekend(early)) > 0.05


def share(chosen: np.ndarray, counts: np.ndarray) -> float:
    """The share of rows that have one of the chosen distinct numbers; counts: rows of each."""
    return float(counts[chosen].sum() / counts.sum())


def _days(reading: Reading) -> np.ndarray:
    days: np.ndarray = reading.time_ns[reading.fits] // NS_PER_DAY
    return days


def _weekend(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each day is a Saturday, a Sunday; 1970-01-01 was a Thursday."""
    weekday = (days + 3) % 7
    return weekday == 5, weekday == 6


def _months_apart(days: np.ndarray) -> int:
    """How many months lie between days that are first days of months at regular steps, of at most a year; else 0.

    One step in ten may have another size. Fewer than 10 days are not regular.
    """
    first_days = np.unique(days).astype("datetime64[D]")
    months = first_days.astype("datetime64[M]")
    if len(months) < ENOUGH_DAYS or (months != first_days).any():
        return 0
    steps = np.diff(months).astype(np.int64)
    step = int(np.median(steps))
    return step if step in (1, 3, 6, 12) and (steps == step).mean() >= 0.9 else 0


def _is_recent(days: np.ndarray) -> bool:
    return bool(np.median(days) * NS_PER_DAY >= FIRST_INTRADAY_NS)


def _density(days: np.ndarray) -> float:
    """The share of days between the first and the last one that occur."""
    return len(np.unique(days)) / (int(days.max()) - int(days.min()) + 1)
