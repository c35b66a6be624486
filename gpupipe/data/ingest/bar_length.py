"""The length of a store's bars, and whether a source has bars of that length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpupipe.data.errors import DataError
from gpupipe.data.ingest import restate, sessions
from gpupipe.data.ingest.bar_table import BarTable, overlap
from gpupipe.data.panel import NS_PER_DAY

INTRADAY, DAY, DAYS, WEEK, MONTH, QUARTER, YEAR = "intraday", "day", "days", "week", "month", "quarter", "year"

_UNITS = ((WEEK, 6, 8), (MONTH, 27, 33), (QUARTER, 88, 94), (YEAR, 360, 372))  # days between bars, first and last
_MANY = 4  # spacings that are begun at so many times show the length by themselves
_SURE_BARS, _SURE_SHARE = 8, 0.8  # of equal spacings, for bars of 3 days and the like
_SOME = 0.25  # of the spacings of many bars are the length itself: four of five of daily bars
_COMMON = 0.01  # of a store's bars or spacings
_FEW_PERIODS = 2  # weeks or months between few bars; of daily bars, see `_days_are_explained`
_ONE_SPACING = 2  # dates
_OVERNIGHT_NS = 8 * 3_600 * 10**9
_SAMPLE = 1 << 20  # spacings that are looked at


@dataclass(frozen=True)
class BarLength:
    """The length of bars.

    unit: one of INTRADAY, DAY, DAYS (a fixed number of them), WEEK, MONTH, QUARTER and YEAR.  step_ns: the usual time
    between two bars in nanoseconds, of INTRADAY and DAYS exactly.

    >>> str(BarLength(INTRADAY, 5 * 60 * 10**9)), str(BarLength(MONTH, 31 * NS_PER_DAY))
    ('5 minutes', '1 month')
    """

    unit: str
    step_ns: int

    @property
    def is_session(self) -> bool:
        """Whether a bar is a day or longer, so that it is keyed by its session date."""
        return self.unit != INTRADAY

    def __str__(self) -> str:
        """In words: "1 minute", "3 days", "1 week"."""
        return duration(self.step_ns) if self.unit in (INTRADAY, DAYS) else f"1 {self.unit}"


def duration(step_ns: float) -> str:
    """A time in words: "1 minute", "2 days"."""
    units = (("day", 86_400e9), ("hour", 3_600e9), ("minute", 60e9), ("second", 1e9))
    unit, size = next((item for item in units if step_ns >= item[1]), units[-1])
    count = f"{step_ns / size:g}"
    return f"{count} {unit}{'' if count == '1' else 's'}"


def judge(bars: BarTable) -> BarLength | None:
    """Judge by the most frequent spacing of successive bars of a symbol; None if no symbol has two bars.

    bars: those of a day or longer at midnight of their session dates. Spacings of 2 to 5 days and other odd numbers of
    days are daily bars with gaps, unless at least 8 bars are nearly all that far apart.

    >>> from gpupipe.data.ingest.bar_table import empty
    >>> judge(empty()) is None
    True
    """
    steps, starts = _spacings(bars.symbol, bars.time_ns)
    if not len(steps):
        return None
    values, counts = np.unique(steps, return_counts=True)
    usual = int(values[counts.argmax()])
    if usual < NS_PER_DAY:
        return BarLength(INTRADAY, usual)
    n_days = round(usual / NS_PER_DAY)
    for unit, first, last in _UNITS:
        if first <= n_days <= last:
            return BarLength(unit, usual)
    sure = counts.max() >= _SURE_SHARE * len(steps) and len(np.unique(starts)) >= _SURE_BARS
    return BarLength(DAYS, usual) if n_days > 1 and sure else BarLength(DAY, NS_PER_DAY)


def of_store(stored: BarTable) -> BarLength | None:
    """The length of stored bars, see `judge`; None where two dates, a week or more apart, are all that the store has.

    Two Fridays are the first bars of a weekly store, or of a daily one whose first night was thin.
    """
    length = judge(stored)
    if length is None or length.unit in (INTRADAY, DAY, DAYS):
        return length
    return length if len(np.unique(stored.time_ns)) > _ONE_SPACING else None


def periods(day: np.ndarray, unit: str) -> np.ndarray:
    """The number of each day's week (from Monday), month, quarter or year; the day itself for other units.

    day: int64 (n,), days since 1970.

    >>> periods(np.array([3, 4, 10, 11]), WEEK)  # 1970-01-05 was a Monday
    array([-1,  0,  0,  1])
    """
    if unit == WEEK:
        return (day - 4) // 7
    if unit in (MONTH, QUARTER, YEAR):
        months = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        return months // {MONTH: 1, QUARTER: 3, YEAR: 12}[unit]
    return day


def check(stored: BarTable, incoming: BarTable, length: BarLength | None, calendar: str = "") -> None:
    """Raise DataError if incoming bars have another length than the stored ones: a mixture cannot be undone.

    Both: those of a day or longer at their session dates, where they could be keyed.  length: of the stored bars; None
    accepts all.  calendar: name of an exchange's calendar that may explain gaps; "" for none.

    Most overlapping bars are equal: the length is, unless 4 of 5 of many spacings are another one. Else the spacings
    decide:

    - At least 4 spacings: a quarter of them must be the length itself.
    - Fewer: they must be what a calendar explains. Of daily bars that is a weekend with holidays (up to 5 days), a
      longer closure that is not a week or a month, or one that the calendar knows; of weekly and longer ones up to two
      periods; of intraday ones the length, a spacing that the store has too, or a night.
    - Bars that all stand at midnight are no intraday bars, unless the store has bars at midnight, and not other ones.
    """
    if length is None or not incoming.n_rows:
        return
    if _agree(stored, incoming) and not _are_regular(incoming, length):
        return
    explained = _sessions_are_explained if length.is_session else _intraday_is_explained
    if not explained(stored, incoming, length, calendar):
        raise DataError(
            f"the store holds bars of {length} and the source bars of {_in_words(incoming, length)}: use another "
            "--store, or choose with --timeframe"
        )


def _spacings(symbol: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(times between successive bars of a symbol, their starts)`, at most about _SAMPLE of them."""
    same = symbol[1:] == symbol[:-1]
    steps, starts = np.diff(time)[same], time[:-1][same]
    every = max(1, len(steps) // _SAMPLE)
    return steps[::every], starts[::every]


def _are_regular(bars: BarTable, length: BarLength) -> bool:
    """Whether many bars are nearly all of another length than `length`: every fifth day is a week."""
    steps, starts = _spacings(bars.symbol, bars.time_ns)
    if len(np.unique(starts)) < _MANY:
        return False
    usual = judge(bars)
    values, counts = np.unique(steps, return_counts=True)
    several = counts.max() >= _SURE_SHARE * len(steps) and int(values[counts.argmax()]) != length.step_ns
    return several and usual is not None and (usual.unit != length.unit or not length.is_session)


def _agree(stored: BarTable, incoming: BarTable) -> bool:
    """Whether most overlapping bars are equal, or complete the last stored bar; at least one."""
    old_row, new_row = overlap(stored, incoming)
    if not len(old_row):
        return False
    old, new = stored.values[old_row], incoming.values[new_row]
    equal = ~restate.differs(old, new)[:, :4].any(axis=1)
    last = np.isin(old_row + 1, stored.offsets)
    equal |= last & (restate.is_older_snapshot(old, new) | restate.is_older_snapshot(new, old))
    return bool(2 * equal.sum() > len(equal))


def _sessions_are_explained(stored: BarTable, incoming: BarTable, length: BarLength, calendar: str) -> bool:
    if (incoming.time_ns % NS_PER_DAY).any():
        return False  # several bars a day, see `session_keys`
    day = incoming.time_ns // NS_PER_DAY
    if length.unit == DAYS:
        steps, _ = _spacings(incoming.symbol, incoming.time_ns)
        return not len(steps) or float(np.median(steps)) == length.step_ns
    period = periods(day, length.unit)
    first = np.ones(len(day), bool)  # of the bars of a symbol in a period
    first[1:] = (period[1:] != period[:-1]) | (incoming.symbol[1:] != incoming.symbol[:-1])
    repeats = np.flatnonzero(~first)
    unfinished = restate.is_older_snapshot(incoming.values[repeats], incoming.values[repeats - 1])
    if (~unfinished).sum() > 0.05 * first.sum():
        return False  # several bars in a week are daily bars
    steps, starts = _spacings(incoming.symbol[first], period[first])
    if not len(steps):
        return True
    if len(np.unique(starts)) >= _MANY:
        return float((steps == 1).mean()) >= _SOME
    if length.unit != DAY:
        return float(np.median(steps)) <= _FEW_PERIODS
    return _days_are_explained(steps, starts, calendar)


def _days_are_explained(steps: np.ndarray, starts: np.ndarray, calendar: str) -> bool:
    """Whether few spacings of days can be those of daily bars."""
    usual = float(np.median(steps))
    if not any(first <= usual <= last for _, first, last in _UNITS):
        return True
    if not calendar:
        return False
    low, high = (int(day) for day in (starts.min(), (starts + steps).max()))
    days = sessions.Sessions(calendar, np.datetime64(low, "D"), np.datetime64(high, "D")).days.astype(np.int64)
    between = np.searchsorted(days, starts + steps) - np.searchsorted(days, starts, side="right")
    return float(np.median(between)) <= 1


def _intraday_is_explained(stored: BarTable, incoming: BarTable, length: BarLength, calendar: str) -> bool:
    if not (incoming.clock_ns % NS_PER_DAY).any() and (
        (stored.time_ns % NS_PER_DAY).all() or len(overlap(stored, incoming)[0])
    ):
        return False  # at midnight, as days are, and the store has no bars there, or other ones
    steps, starts = _spacings(incoming.symbol, incoming.time_ns)
    if not len(steps):
        return True
    if len(np.unique(starts)) >= _MANY:
        values, counts = np.unique(steps, return_counts=True)
        return int(values[counts.argmax()]) == length.step_ns or float((steps == length.step_ns).mean()) >= _SOME
    stored_steps, _ = _spacings(stored.symbol, stored.time_ns)
    values, counts = np.unique(stored_steps, return_counts=True)
    common = values[counts >= _COMMON * len(stored_steps)]
    phases, counts = np.unique(stored.time_ns % length.step_ns, return_counts=True)
    on_phase = np.isin(incoming.time_ns % length.step_ns, phases[counts >= _COMMON * stored.n_rows])
    return bool(np.isin(steps, common)[steps < _OVERNIGHT_NS].all() and 2 * on_phase.sum() >= len(on_phase))


def _in_words(incoming: BarTable, length: BarLength) -> str:
    found = judge(incoming)
    if found is not None and str(found) != str(length):
        return str(found)
    steps, _ = _spacings(incoming.symbol, incoming.time_ns)
    return duration(float(np.median(steps))) if len(steps) else "1 day"
