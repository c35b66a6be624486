"""Which times a bar can have: no bar lies in the future, and no intraday bar before 1990."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpupipe.data.panel import NS_PER_DAY
from gpupipe.runtime.device import device_of

if TYPE_CHECKING:
    from gpupipe.data.bars import Bars

UNKNOWN_TIME = int(np.iinfo(np.int64).min)  # a time that is null or could not be parsed


def _ns(day: str) -> int:
    return int(np.datetime64(day, "ns").astype(np.int64))


FIRST_DAILY_NS = _ns("1800-01-01")  # no earlier bar of a day or longer is believed
FIRST_INTRADAY_NS = _ns("1990-01-01")  # no earlier bar of less than a day is believed
# Zero, and a second or a day before it, of usual calendars.
_STAND_INS_NS = tuple(map(_ns, ("1970-01-01", "1969-12-31", "1900-01-01", "1899-12-31", "1899-12-30")))
_YEAR_NS = 366 * NS_PER_DAY
_ZONE_NS = 14 * 3_600 * 10**9  # the date of the farthest zone is that much ahead of UTC


def now_ns() -> int:
    """The clock of this machine, UTC nanoseconds since 1970. Tests replace this function."""
    return time.time_ns()


def latest_ns() -> int:
    """The latest time that a bar can have: a day from now, in whichever zone."""
    return now_ns() + NS_PER_DAY + _ZONE_NS


@dataclass(frozen=True)
class TimeLimits:
    """The times that bars can have: `earliest_ns <= time_ns <= latest_ns`, and none of `stand_ins_ns`.

    All are UTC nanoseconds since 1970. stand_ins_ns: times such as 1970-01-01 that programs write for a missing time.
    """

    earliest_ns: int
    latest_ns: int
    stand_ins_ns: tuple[int, ...] = ()


ANY_TIME = TimeLimits(UNKNOWN_TIME + 1, int(np.iinfo(np.int64).max))


def limits_of(bars: Bars) -> TimeLimits:
    """The limits for bars that are keyed by `session_dates.by_session`, on their device.

    The latest time is tomorrow in the farthest zone. The earliest is 1990 if any bar is not at midnight, so that bars
    are intraday, else 1800. Of daily bars, 1970-01-01, 1900-01-01 and the days before them stand for a missing time if
    no other bar is within a year of them.

    >>> from gpupipe.data.bars import Bars
    >>> values = dict.fromkeys(("open", "high", "low", "close", "volume"), np.float32([1, 1]))
    >>> bars = Bars(np.int32([0, 0]), ("A",), np.int64([0, 18_000 * NS_PER_DAY]), **values, sectors=("",))
    >>> limits = limits_of(bars)
    >>> np.datetime64(limits.earliest_ns, "ns").astype("M8[D]"), limits.stand_ins_ns
    (np.datetime64('1800-01-01'), (0,))
    """
    time_ns, latest = bars.time_ns, latest_ns()
    if not time_ns.size or int(time_ns.min()) >= FIRST_INTRADAY_NS:
        return TimeLimits(FIRST_INTRADAY_NS, latest)
    xp = device_of(time_ns).xp
    possible = time_ns[(time_ns >= FIRST_DAILY_NS) & (time_ns <= latest) & (bars.symbol >= 0)]
    if bool((possible % NS_PER_DAY).any()):
        return TimeLimits(FIRST_INTRADAY_NS, latest)
    stand_ins = []
    for moment in _STAND_INS_NS:
        near = possible[xp.abs(possible - moment) < _YEAR_NS]
        if bool((near == moment).any()) and bool(xp.isin(near, xp.asarray(_STAND_INS_NS)).all()):
            stand_ins.append(moment)
    return TimeLimits(FIRST_DAILY_NS, latest, tuple(stand_ins))
