"""Decide which of two columns of times is that of the bars: by their dates, times of day and zones."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from gpupipe.data.errors import DataError, printable
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.report import time_text
from gpupipe.data.time_column import Times
from gpupipe.data.time_limits import UNKNOWN_TIME

_FEW = 0.01  # share of rows
_MOST = 0.5
_NEAR_DAYS = 3
SAMPLE_ROWS = 1 << 14
# A daily bar has few times of day: summer and winter, early closes, the moment of a request.
STAMPS_PER_SYMBOL, STAMPS_PER_ROW = 6, 0.1
_ZONE_STEP_NS, _FARTHEST_ZONE_NS = 900 * 10**9, 14 * 3_600 * 10**9
_SECOND_NS = 10**9


@dataclass(frozen=True)
class Candidate:
    """A column, or two joined ones, that may give the time of the bars.

    words: its name, for messages.  has_zone: whether its instants are known.

    >>> days = Candidate("'date'", Times(np.array([0, NS_PER_DAY])))
    >>> days.known.all(), days.day, days.has_clock
    (np.True_, array([0, 1]), False)
    """

    words: str
    times: Times
    has_zone: bool = False

    @functools.cached_property
    def known(self) -> np.ndarray:
        """bool (n,): where the time is known."""
        return self.times.time_ns != UNKNOWN_TIME

    @functools.cached_property
    def day(self) -> np.ndarray:
        """int64 (n,): the date on the clock of the column, in days since 1970."""
        return self.times.clock_ns // NS_PER_DAY

    @functools.cached_property
    def has_clock(self) -> bool:
        """Whether any time is not midnight."""
        return bool((self.times.clock_ns[self.known] % NS_PER_DAY).any())


def better(first: Candidate, second: Candidate, symbol: np.ndarray, origin: str) -> tuple[Candidate, str]:
    """The candidate that gives the time of the bars, and a note if they differ; see `bar_columns.read_times`."""
    known = first.known & second.known
    differs = known & (first.day != second.day)
    if not differs.any():
        return _of_same_dates(first, second, symbol, origin)
    other_dates = f"has other dates in {int(differs.sum()):,} rows"
    both = ((first, second), (second, first))
    for bar, other in both:
        if is_one_a_day(bar, symbol) and _is_unrelated(other, bar, symbol):
            return bar, note_on(bar, f"{other.words} {other_dates}")
    for bar, other in both:
        near = bool((np.abs(bar.day - other.day)[known] <= _NEAR_DAYS).all())
        if bar.has_clock and not other.has_clock and near and not is_one_a_day(other, symbol):
            return bar, note_on(bar, f"{other.words} {other_dates}")
    raise _undecided(first, second, differs, origin, "time, and their dates")


def _undecided(first: Candidate, second: Candidate, differs: np.ndarray, origin: str, what: str) -> DataError:
    row = int(np.flatnonzero(differs)[0])
    shown = " and ".join(time_text(int(candidate.times.time_ns[row])) for candidate in (first, second))
    return DataError(
        f"{origin}: columns {first.words} and {second.words} both give a {what} differ in "
        f"{int(differs.sum()):,} of {len(differs):,} rows (first {shown}): leave out the one that is not the bar's"
    )


def _of_same_dates(first: Candidate, second: Candidate, symbol: np.ndarray, origin: str) -> tuple[Candidate, str]:
    """The result of `better` for columns with the same dates."""
    bar, other = (second, first) if second.has_clock and not first.has_clock else (first, second)
    if are_moments(bar, other, symbol):
        bar, other, note = other, bar, note_on(other, f"{bar.words} has too many times of day for daily bars")
    elif bar.has_clock and other.has_clock:
        bar, other, note = _of_clocks(bar, other, symbol, origin)
    else:
        note = ""
    filled, rows = _filled(bar, other, symbol)
    if not rows:
        return bar, note
    from_other = f"column {other.words} gives the time of {rows:,} rows in which {bar.words} has none"
    return filled, printable(f"{note}; {from_other}" if note else from_other)


def _of_clocks(
    first: Candidate, second: Candidate, symbol: np.ndarray, origin: str
) -> tuple[Candidate, Candidate, str]:
    """`(the bar's, the other one, note)` of two columns with the same dates and with times of day."""
    known = first.known & second.known
    differs = known & (first.times.time_ns != second.times.time_ns)
    if not differs.any() or is_daily(first, symbol):
        return first, second, ""
    both = ((first, second), (second, first))
    if (first.times.clock_ns == second.times.clock_ns)[known].all():  # one gives the zone, too
        return (*both[first.times.local_ns is None], "")
    gap = np.abs(first.times.time_ns - second.times.time_ns)[known]
    if gap.max() < _SECOND_NS:
        has_parts = bool((first.times.time_ns[known] % _SECOND_NS).any())
        return (*both[has_parts], "")
    for bar, other in both:
        if bar.has_zone and not other.has_zone and _is_wall_clock(other.times.time_ns[known], bar.times.time_ns[known]):
            return bar, other, note_on(bar, f"{other.words} has the clock of another zone")
    raise _undecided(first, second, differs, origin, "time of day, and these")


def _is_wall_clock(clock_ns: np.ndarray, time_ns: np.ndarray) -> bool:
    """Whether times without a zone are instants on the clock of a zone, and not their bars' begin or end."""
    offsets = np.unique(clock_ns - time_ns)
    if (offsets % _ZONE_STEP_NS).any() or np.abs(offsets).max() > _FARTHEST_ZONE_NS:
        return False
    steps = np.diff(np.unique(time_ns))
    return len(offsets) > 1 or not len(steps) or abs(int(offsets[0])) != int(steps.min())


def _filled(bar: Candidate, other: Candidate, symbol: np.ndarray) -> tuple[Candidate, int]:
    """`(the bar's times, with those of another column where they are not known; number of such rows)`.

    Only if at least as many rows have both, which are the same: the instants, or of daily bars the dates.
    """
    missing = ~bar.known & other.known
    known = bar.known & other.known
    if not missing.any() or missing.sum() > known.sum():
        return bar, 0
    time_ns, local_ns = other.times.time_ns, other.times.clock_ns
    same = bool((bar.times.time_ns == time_ns)[known].all()) and bar.has_clock == other.has_clock
    if not same or (bar.times.local_ns is None) != (other.times.local_ns is None):
        if not is_daily(bar, symbol):
            return bar, 0
        time_ns = local_ns = other.day * NS_PER_DAY
    times = dataclasses.replace(
        bar.times,
        time_ns=np.where(missing, time_ns, bar.times.time_ns),
        local_ns=None if bar.times.local_ns is None else np.where(missing, local_ns, bar.times.local_ns),
    )
    return dataclasses.replace(bar, times=times), int(missing.sum())


def are_moments(stamps: Candidate, dates: Candidate, symbol: np.ndarray) -> bool:
    """Whether times of day beside daily dates are too many for daily bars, as those of requests are."""
    if not stamps.has_clock:
        return False
    return all(
        _has_many_clocks(stamps, symbol, part)
        and not (dates.has_clock and _has_many_clocks(dates, symbol, part))
        and is_one_a_day(dates, symbol, part)
        for part in (slice(0, SAMPLE_ROWS), slice(None))
    ) and is_daily(dates, symbol)


def _has_many_clocks(candidate: Candidate, symbol: np.ndarray, part: slice) -> bool:
    """Whether there are more times of day than daily bars have."""
    known = candidate.known[part]
    code, clock = symbol[part][known].astype(np.int64), candidate.times.clock_ns[part][known] % NS_PER_DAY
    n_stamps = len(np.unique(code * NS_PER_DAY + clock))
    return n_stamps > max(STAMPS_PER_SYMBOL * len(np.unique(code)), STAMPS_PER_ROW * len(code))


def is_daily(candidate: Candidate, symbol: np.ndarray) -> bool:
    """Whether nearly every symbol and date has one row, and not every symbol has one row alone."""
    first_rows = slice(0, SAMPLE_ROWS)
    if not all(is_one_a_day(candidate, symbol, part) for part in (first_rows, slice(None))):
        return False
    return len(np.unique(symbol[candidate.known])) < int(candidate.known.sum())


def note_on(bar: Candidate, why: str) -> str:
    """The note on the column that was taken. why: a sentence on the other one."""
    return printable(f"column {bar.words} gives the time of the bars; {why}, and was not used")


def is_one_a_day(candidate: Candidate, symbol: np.ndarray, part: slice = slice(None)) -> bool:
    """Whether nearly every symbol and date has one row."""
    known = candidate.known[part]
    code, day = symbol[part][known].astype(np.int64), candidate.day[part][known]
    pairs = np.unique(code * 2**20 + day)  # days stay below 2**17
    return bool(known.any()) and len(pairs) >= (1 - 5 * _FEW) * int(known.sum())


def _is_unrelated(other: Candidate, bar: Candidate, symbol: np.ndarray) -> bool:
    """Whether a column can be no time of bars: it has few dates, or goes back while the bars of a symbol go on."""
    known = bar.known & other.known
    day, day_of_other, code = bar.day[known], other.day[known], symbol[known]
    if len(np.unique(day_of_other)) < _MOST * len(np.unique(day)):
        return True
    order = np.lexsort((day, code))
    steps = np.diff(other.times.time_ns[known][order])[np.diff(code[order]) == 0]
    return bool(len(steps)) and float((steps < 0).mean()) > _FEW
