"""Find symbols whose times, given without a zone, are midnights of a zone to the east: dates of the day before in UTC.

The midnight of Tokyo's Monday is Sunday 15:00 UTC. No column says so, thus the evidence must be sure: nearly all times
of a symbol are at an hour that is a midnight in the east, and as dates in UTC they miss Friday and Saturday but hold
Sundays, or they are the last days of months, weekends included. Few odd rows change nothing: a live bar, an extra
session on a Saturday.
"""

from __future__ import annotations

import numpy as np

from gpupipe.data.panel import NS_PER_DAY

_QUARTER_NS = 15 * 60 * 10**9  # all offsets of zones are multiples of it
_QUARTERS = 96  # of a day
_FEW = 0.05  # the share of a symbol's rows that may contradict
_SHORT = 8  # rows in which no Sunday means nothing
_FRIDAY, _SATURDAY, _SUNDAY = 1, 2, 3  # days since 1970-01-01, a Thursday, modulo 7

# Hours and minutes in UTC that are midnight in the east. Only offsets that zones with an exchange have: others, such as
# 15:30, are closes of exchanges that trade on Sundays. Australia and New Zealand have a season for some of them.
_ALL_YEAR = (
    *("14:00", "15:00", "16:00", "16:30", "17:00", "17:30", "18:00", "18:15", "18:30", "19:00", "19:30", "20:00"),
    *("20:30", "21:00", "22:00", "23:00"),
)
_SOUTHERN_SUMMER, _SOUTHERN_WINTER = ("11:00", "13:00", "13:30"), ("12:00", "14:30")
_SUMMER_MONTHS = (8, 9, 10, 11, 12, 1, 2, 3, 4)  # with those of the changes; in 2000 Sydney began in August
_WINTER_MONTHS = (3, 4, 5, 6, 7, 8, 9, 10)


def _quarter(time_of_day: str) -> int:
    hour, minute = map(int, time_of_day.split(":"))
    return hour * 4 + minute // 15


def _possible() -> np.ndarray:
    """bool (12, 96): whether a quarter of an hour in UTC is a midnight in the east, in the months from January."""
    table = np.zeros((12, _QUARTERS), bool)
    seasons = (_SUMMER_MONTHS, _SOUTHERN_SUMMER), (_WINTER_MONTHS, _SOUTHERN_WINTER)
    for months, times in ((range(1, 13), _ALL_YEAR), *seasons):
        table[np.ix_([month - 1 for month in months], list(map(_quarter, times)))] = True
    return table


_POSSIBLE = _possible()
_IN_SOME_MONTH: np.ndarray = np.logical_or.reduce(_POSSIBLE)
_IN_ALL_MONTHS: np.ndarray = np.logical_and.reduce(_POSSIBLE)
_11, _12, _13, _NEW_YORK_CLOSE, _TWO_EAST = map(_quarter, ("11:00", "12:00", "13:00", "20:00", "22:00"))


def on_local_clock(symbol: np.ndarray, stamp: np.ndarray, n_names: int) -> tuple[np.ndarray, int]:
    """`(the times on the clocks of zones to the east, int64 (n,), the number of symbols that have such a zone)`.

    symbol: int (n,), at least 0 and below n_names.  stamp: int64 (n,), UTC nanoseconds since 1970, all known.

    The midnights of a symbol in the east become midnight UTC of the next date, and its other rows are moved by the
    offset of one of its midnights. The times of other symbols stay.

    >>> tokyo = np.array(["2024-01-07T15:00", "2024-01-08T15:00"], "M8[ns]").astype(np.int64)
    >>> on_local_clock(np.array([0, 0]), tokyo, 1)[0].astype("M8[ns]").astype("M8[h]")
    array(['2024-01-08T00', '2024-01-09T00'], dtype='datetime64[h]')
    """
    quarter = stamp % NS_PER_DAY // _QUARTER_NS
    midnight = _midnights(symbol, stamp, quarter, n_names)
    if not midnight.any():
        return stamp, 0
    east, undecided = _by_week(symbol, stamp, quarter, midnight, n_names)
    east |= _by_month(symbol, stamp, quarter, midnight, n_names)
    east |= _as_the_others(symbol, quarter, midnight, east, undecided & ~east)
    offset = np.zeros(n_names, np.int64)
    offset[symbol[midnight]] = NS_PER_DAY - stamp[midnight] % NS_PER_DAY
    moved = np.where(midnight, (stamp // NS_PER_DAY + 1) * NS_PER_DAY, stamp + offset[symbol])
    return np.where(east[symbol], moved, stamp), int(np.count_nonzero(east))


def _midnights(symbol: np.ndarray, stamp: np.ndarray, quarter: np.ndarray, n_names: int) -> np.ndarray:
    """bool (n,): whether a time can be the midnight of a zone to the east."""
    possible = (stamp % _QUARTER_NS == 0) & _IN_SOME_MONTH[quarter]
    seasonal = np.flatnonzero(possible & ~_IN_ALL_MONTHS[quarter])
    if not len(seasonal):
        return possible
    month = (stamp[seasonal] // NS_PER_DAY).astype("M8[D]").astype("M8[M]").astype(np.int64) % 12
    possible[seasonal] = _POSSIBLE[month, quarter[seasonal]]
    # 11:00 and 12:00 are New Zealand's midnights, but also closes in the Gulf, in Cairo and Tel Aviv: 12:00 and 13:00
    # beside each other are no zone's, and 11:00 needs 12:00 beside it.
    n_12, n_13 = (_count(symbol[possible & (quarter == hour)], n_names) for hour in (_12, _13))
    refuted = (quarter == _11) & (n_12 == 0)[symbol] | (quarter == _12) & (n_13 > _FEW * n_12)[symbol]
    return possible & ~refuted


def _count(symbol: np.ndarray, n_names: int) -> np.ndarray:
    return np.bincount(symbol, minlength=n_names)


def _by_week(
    symbol: np.ndarray, stamp: np.ndarray, quarter: np.ndarray, midnight: np.ndarray, n_names: int
) -> tuple[np.ndarray, np.ndarray]:
    """`(in the east by their weekdays, could be but hold few days of one week)`, bool (n_names,) each."""
    weekday = stamp // NS_PER_DAY % 7
    by_weekday = _count(symbol[midnight] * 7 + weekday[midnight], 7 * n_names).reshape(n_names, 7)
    n_midnights = by_weekday.sum(axis=1)
    in_utc = stamp % NS_PER_DAY == 0
    n, n_in_utc = _count(symbol, n_names), _count(symbol[in_utc], n_names)
    n_late = _count(symbol[midnight & (quarter >= _TWO_EAST)], n_names)
    n_sundays = _count(symbol[in_utc & (weekday == _SUNDAY)], n_names)
    # London's and Lisbon's midnights are 23:00 in summer and 00:00 in winter.
    mixed = (n_midnights >= 3) & (n_late >= (1 - _FEW) * n_midnights) & (n_sundays <= _FEW * n_in_utc)
    odd = n - n_midnights - np.where(mixed, n_in_utc, 0)
    nearly_all = (n_midnights > 0) & (odd <= np.maximum(n >= 5, _FEW * n))
    east = np.zeros(n_names, bool)
    # A week of an exchange begins on Monday, Sunday (Riyadh) or Saturday (Tehran), and its midnight is a day earlier.
    few = np.maximum(1, _FEW * n_midnights)
    for first in (_SUNDAY, _SATURDAY, _FRIDAY):
        of_week = by_weekday[:, (first + np.arange(7)) % 7]
        begins = of_week[:, 0] >= few
        if first != _SUNDAY:  # not the weekly bar of a Friday, and not the first days of a coin
            begins = (of_week[:, :5] >= np.maximum(2, few)[:, None]).all(axis=1)
        east |= nearly_all & begins & (of_week[:, 5:].sum(axis=1) <= _FEW * n_midnights)
    no_weekend = by_weekday[:, [_FRIDAY, _SATURDAY, _SUNDAY]].sum(axis=1) == 0
    return east, (n_midnights == n) & (n <= _SHORT) & no_weekend


def _by_month(
    symbol: np.ndarray, stamp: np.ndarray, quarter: np.ndarray, midnight: np.ndarray, n_names: int
) -> np.ndarray:
    """bool (n_names,): whether the next dates of a symbol's midnights are first days of months, of 6 or more."""
    day = stamp // NS_PER_DAY
    # 20:00 is New York's close in summer: bars that are dated by the last day of a month may have it.
    chosen = midnight & (quarter != _NEW_YORK_CLOSE)
    # An exchange is closed at weekends, so these are no closes.
    weekend = _count(symbol[chosen & np.isin(day % 7, (_SATURDAY, _SUNDAY))], n_names)
    if not weekend.any():
        return weekend > 0
    next_day = (day + chosen).astype("M8[D]")
    first = (next_day == next_day.astype("M8[M]")) & (chosen | (stamp % NS_PER_DAY == 0))
    n, n_first = _count(symbol, n_names), _count(symbol[first], n_names)
    enough = (n_first >= 6) & (_count(symbol[chosen], n_names) >= 3)
    return enough & (weekend > 0) & (n - n_first <= np.maximum(1, _FEW * n))


def _as_the_others(
    symbol: np.ndarray, quarter: np.ndarray, midnight: np.ndarray, east: np.ndarray, undecided: np.ndarray
) -> np.ndarray:
    """bool (n_names,): the undecided symbols all of whose times of day are those of symbols in the east only."""
    if not east.any() or not undecided.any():
        return np.zeros_like(east)
    in_east = np.bincount(quarter[midnight & east[symbol]], minlength=_QUARTERS) > 0
    elsewhere = np.bincount(quarter[~(east | undecided)[symbol]], minlength=_QUARTERS) > 0
    differs = ~(in_east & ~elsewhere)[quarter]
    return undecided & (_count(symbol[differs], len(east)) == 0)
