"""Bars within a day against an exchange's hours: which lie outside of them, and which are missing inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.ingest.rows import Rows
from gpupipe.data.report import time_text

HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True)
class Hours:
    """The hours of successive sessions, from their exchange's calendar: early closes and breaks included.

    day: datetime64[D] (n,), of each session.  open, close: int64 (n,), UTC nanoseconds.  break_start, break_end: the
    same, equal to close where a session has no break. A session may begin on the evening before its day.
    """

    day: np.ndarray
    open: np.ndarray
    close: np.ndarray
    break_start: np.ndarray
    break_end: np.ndarray


@dataclass(frozen=True)
class Within:
    """What the hours say of some bars.

    outside: `(symbol, "YYYY-MM-DD", bars)` outside of the hours, on days with a session.  closed: days without one on
    which there are bars.  holes: `(symbol, day, bars)` that a symbol lacks on a session of which it has some.
    silent: `("YYYY-MM-DDTHH:MM:SSZ", bars)`, runs of bars that no symbol has though some have others of that session.
    days: datetime64[D] (n_rows,), the session of each bar; NaT for bars outside of all.
    """

    outside: tuple[tuple[str, str, int], ...]
    closed: tuple[str, ...]
    holes: tuple[tuple[str, str, int], ...]
    silent: tuple[tuple[str, int], ...]
    days: np.ndarray


def known(step_ns: float) -> bool:
    """Whether bars of this length are looked at: an hour or what divides it, as clocks change by an hour."""
    return 0 < step_ns <= HOUR_NS and HOUR_NS % int(step_ns) == 0


def of_calendar(calendar: Any, chosen: np.ndarray) -> Hours:
    """The Hours of those sessions of a calendar of exchange-calendars for which `chosen` bool (n,) is true."""
    close = calendar.closes_nanos[chosen]
    starts, ends = calendar.break_starts_nanos[chosen], calendar.break_ends_nanos[chosen]
    has_break = starts > 0  # the least int64 where there is none
    return Hours(
        calendar.sessions.to_numpy()[chosen].astype("datetime64[D]"), calendar.opens_nanos[chosen], close,
        np.where(has_break, starts, close), np.where(has_break, ends, close),
    )  # fmt: skip


def within(rows: Rows, hours: Hours, step_ns: int, local_day: np.ndarray) -> Within:
    """Look at bars of length `step_ns` (see `known`), stamped with their begin or, if they are so, with their end.

    rows: sorted, not empty.  local_day: datetime64[D] (n_rows,), the exchange's date of each. A bar belongs to a
    session if some of its time is within its hours. A symbol's holes count from its first bar here until the last bar
    of any symbol, so that a day that is not over has none to come.
    """
    time_ns = rows.time_ns
    if np.isin(hours.close, time_ns).sum() > np.isin(hours.open, time_ns).sum():
        time_ns = time_ns - step_ns  # stamped with their end: one at the close, none at the open
    values, counts = np.unique(time_ns % step_ns, return_counts=True)
    phase_ns = int(values[counts.argmax()])  # a vendor's whole hours need not be the exchange's
    slot = (time_ns - phase_ns) // step_ns
    expected, session = _expected(hours, step_ns, phase_ns)
    place = np.minimum(np.searchsorted(expected, slot), max(len(expected) - 1, 0))
    inside = expected[place] == slot if len(expected) else np.zeros(len(slot), bool)
    days = np.full(len(slot), np.datetime64("NaT"), "datetime64[D]")
    days[inside] = hours.day[session[place[inside]]]
    on_session = np.isin(local_day, hours.day)
    outside = _counted(rows, np.flatnonzero(~inside & on_session), local_day)
    closed = tuple(map(str, np.unique(local_day[~inside & ~on_session])))
    kept = np.flatnonzero(inside)
    holes = _holes(rows, rows.symbol[kept].astype(np.int64), place[kept], session, hours)
    return Within(outside, closed, holes, _silent(place[kept], expected, session, step_ns, phase_ns), days)


def _expected(hours: Hours, step_ns: int, phase_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """`(slots, session)`: the numbers of all bars that the hours ask for, rising, and the session of each."""
    first, stop = (hours.open - phase_ns) // step_ns, (hours.close - phase_ns - 1) // step_ns + 1
    pause, again = -((phase_ns - hours.break_start) // step_ns), (hours.break_end - phase_ns) // step_ns
    first[1:] = np.maximum(first[1:], stop[:-1])  # sessions without a gap between them share no bar
    counts = np.maximum(stop - first, 0)
    session = np.repeat(np.arange(len(first)), counts)
    slots = np.arange(len(session)) - np.repeat(np.cumsum(counts) - counts, counts) + first[session]
    kept = (slots < pause[session]) | (slots >= again[session])
    return slots[kept], session[kept]


def _counted(rows: Rows, chosen: np.ndarray, day: np.ndarray) -> tuple[tuple[str, str, int], ...]:
    """`(symbol, day, rows)` of the chosen rows."""
    if not len(chosen):
        return ()
    first = day[chosen].min()
    key = rows.symbol[chosen].astype(np.int64) << 32 | (day[chosen] - first).astype(np.int64)
    found, counts = np.unique(key, return_counts=True)
    return tuple(
        (rows.names[one >> 32], str(first + np.timedelta64(int(one & 0xFFFFFFFF), "D")), int(n))
        for one, n in zip(found.tolist(), counts.tolist(), strict=True)
    )


def _holes(
    rows: Rows, symbol: np.ndarray, place: np.ndarray, session: np.ndarray, hours: Hours
) -> tuple[tuple[str, str, int], ...]:  # fmt: skip
    """symbol, place: of the bars inside, sorted; place: among the expected ones, whose sessions are `session`."""
    if not len(place):
        return ()
    once = np.ones(len(place), bool)
    once[1:] = (symbol[1:] != symbol[:-1]) | (place[1:] != place[:-1])
    symbol, place = symbol[once], place[once]
    begin = np.ones(len(place), bool)  # of a symbol's session
    begin[1:] = (symbol[1:] != symbol[:-1]) | (session[place[1:]] != session[place[:-1]])
    at = np.flatnonzero(begin)
    of_symbol, of_session = symbol[at], session[place[at]]
    has = np.diff(np.append(at, len(place)))
    low, high = np.searchsorted(session, of_session), np.searchsorted(session, of_session, "right")
    newcomer = np.ones(len(at), bool)
    newcomer[1:] = of_symbol[1:] != of_symbol[:-1]
    low = np.where(newcomer, place[at], low)
    lacks = np.minimum(high, place.max() + 1) - low - has
    return tuple(
        (rows.names[of_symbol[k]], str(hours.day[of_session[k]]), int(lacks[k])) for k in np.flatnonzero(lacks > 0)
    )


def _silent(
    place: np.ndarray, expected: np.ndarray, session: np.ndarray, step_ns: int, phase_ns: int
) -> tuple[tuple[str, int], ...]:  # fmt: skip
    """Runs of expected bars that nobody has, between the first and the last that somebody has."""
    if not len(place):
        return ()
    heard = np.zeros(len(expected), bool)
    heard[place] = True
    some = np.zeros(int(session[-1]) + 1, bool)
    some[session[place]] = True
    quiet = np.flatnonzero(~heard & some[session] & (np.arange(len(expected)) > place.min()))
    quiet = quiet[quiet < place.max()]
    new = np.ones(len(quiet), bool)
    new[1:] = (np.diff(quiet) > 1) | (session[quiet[1:]] != session[quiet[:-1]])
    at = np.flatnonzero(new)
    counts = np.diff(np.append(at, len(quiet)))
    return tuple(
        (time_text(int(expected[quiet[k]]) * step_ns + phase_ns), int(n)) for k, n in zip(at, counts, strict=True)
    )
