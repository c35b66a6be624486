"""Check intraday bars against an exchange's trading hours: bars outside the hours, and missing bars inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.ingest.bar_table import BarTable
from gpupipe.data.report import time_text

HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True)
class SessionHours:
    """The hours of successive sessions from an exchange's calendar, with early closes and breaks.

    day: datetime64[D] (n,), the date of each session.  open, close: int64 (n,), UTC nanoseconds since 1970.
    break_start, break_end: the same; both equal close in a session without a break. A session may begin on the evening
    before its day.

    The early close of New York on the day after Thanksgiving:

    >>> day = np.array(["2009-11-27"], "datetime64[D]")
    >>> open, close = (day + np.array(minute, "timedelta64[m]") for minute in (14 * 60 + 30, 18 * 60))
    >>> open, close = (time.astype("datetime64[ns]").astype(np.int64) for time in (open, close))
    >>> (SessionHours(day, open, close, break_start=close, break_end=close).close - open) / HOUR_NS
    array([3.5])
    """

    day: np.ndarray
    open: np.ndarray
    close: np.ndarray
    break_start: np.ndarray
    break_end: np.ndarray


@dataclass(frozen=True)
class HoursCheck:
    """The result of `check_hours`.

    outside: `(symbol, "YYYY-MM-DD", bars)` outside the hours, on days with a session.  closed: days with bars and no
    session.  holes: `(symbol, day, bars)` that a symbol lacks in a session in which it has others.
    silent: `("YYYY-MM-DDTHH:MM:SSZ", bars)`, runs of bars that every symbol lacks, in a session in which some symbol
    has bars.  days: datetime64[D] (n_rows,), the session of each bar; NaT outside all hours.

    A symbol with minute bars at 14:30 and 14:32 has a hole at 14:31, in which no other symbol has a bar either:

    >>> day = np.array(["2009-11-27"], "datetime64[D]")
    >>> midnight = day.astype("datetime64[ns]").astype(np.int64)
    >>> open, close = midnight + int(14.5 * HOUR_NS), midnight + 18 * HOUR_NS
    >>> minute_ns, symbol = HOUR_NS // 60, np.zeros(2, np.int32)
    >>> time_ns = open + np.array([0, 2]) * minute_ns
    >>> bars = BarTable(("AAA",), ("energy",), symbol, time_ns, np.ones((2, 5), np.float32), symbol)
    >>> check = check_hours(bars, SessionHours(day, open, close, close, close), minute_ns, np.repeat(day, 2))
    >>> check.holes, check.silent
    ((('AAA', '2009-11-27', 1),), (('2009-11-27T14:31:00Z', 1),))
    """

    outside: tuple[tuple[str, str, int], ...]
    closed: tuple[str, ...]
    holes: tuple[tuple[str, str, int], ...]
    silent: tuple[tuple[str, int], ...]
    days: np.ndarray


@dataclass(frozen=True)
class _Slots:
    """The bars that the hours require.

    number: int64 (n,), rising; slot k begins at k * step_ns + phase_ns.  session: int64 (n,), position of its session.
    """

    number: np.ndarray
    session: np.ndarray
    step_ns: int
    phase_ns: int

    def time_text(self, position: int) -> str:
        return time_text(int(self.number[position]) * self.step_ns + self.phase_ns)


def supports(step_ns: float) -> bool:
    """Whether bars of this length can be checked: an hour or a divisor of it, because clocks change by an hour."""
    return 0 < step_ns <= HOUR_NS and HOUR_NS % int(step_ns) == 0


def from_calendar(calendar: Any, chosen: np.ndarray) -> SessionHours:
    """The hours of the sessions of an exchange-calendars calendar where `chosen`, bool (n,), is true."""
    close = calendar.closes_nanos[chosen]
    starts, ends = calendar.break_starts_nanos[chosen], calendar.break_ends_nanos[chosen]
    has_break = starts > 0  # the smallest int64 without a break
    return SessionHours(
        day=calendar.sessions.to_numpy()[chosen].astype("datetime64[D]"),
        open=calendar.opens_nanos[chosen],
        close=close,
        break_start=np.where(has_break, starts, close),
        break_end=np.where(has_break, ends, close),
    )


def check_hours(bars: BarTable, hours: SessionHours, step_ns: int, local_day: np.ndarray) -> HoursCheck:
    """Check bars of length `step_ns` (see `supports`), stamped with their begin or their end.

    bars: not empty.  local_day: datetime64[D] (n_rows,), the exchange's date of each bar. A bar belongs to a session if
    it overlaps the session's hours. A symbol's holes are counted from its first bar until the last bar of any symbol,
    so the rest of an unfinished day is no hole.
    """
    time_ns = bars.time_ns
    if np.isin(hours.close, time_ns).sum() > np.isin(hours.open, time_ns).sum():
        time_ns = time_ns - step_ns  # stamped with the end: there are bars at closes and none at opens
    phases, counts = np.unique(time_ns % step_ns, return_counts=True)
    phase_ns = int(phases[counts.argmax()])  # hourly bars may begin on the hour although the session opens at half past
    slots = _required_slots(hours, step_ns, phase_ns)
    number = (time_ns - phase_ns) // step_ns
    position = np.minimum(np.searchsorted(slots.number, number), max(len(slots.number) - 1, 0))
    inside = slots.number[position] == number if len(slots.number) else np.zeros(len(number), bool)
    days = np.full(len(number), np.datetime64("NaT"), "datetime64[D]")
    days[inside] = hours.day[slots.session[position[inside]]]
    on_session = np.isin(local_day, hours.day)
    kept = np.flatnonzero(inside)
    return HoursCheck(
        outside=_count_by_day(bars, np.flatnonzero(~inside & on_session), local_day),
        closed=tuple(map(str, np.unique(local_day[~inside & ~on_session]))),
        holes=_holes(bars.names, bars.symbol[kept].astype(np.int64), position[kept], slots, hours.day),
        silent=_silent(position[kept], slots),
        days=days,
    )


def _required_slots(hours: SessionHours, step_ns: int, phase_ns: int) -> _Slots:
    first, stop = (hours.open - phase_ns) // step_ns, (hours.close - phase_ns - 1) // step_ns + 1
    pause, resume = -((phase_ns - hours.break_start) // step_ns), (hours.break_end - phase_ns) // step_ns
    first[1:] = np.maximum(first[1:], stop[:-1])  # adjoining sessions share no bar
    counts = np.maximum(stop - first, 0)
    session = np.repeat(np.arange(len(first)), counts)
    number = np.arange(len(session)) - np.repeat(np.cumsum(counts) - counts, counts) + first[session]
    kept = (number < pause[session]) | (number >= resume[session])
    return _Slots(number[kept], session[kept], step_ns, phase_ns)


def _count_by_day(bars: BarTable, rows: np.ndarray, day: np.ndarray) -> tuple[tuple[str, str, int], ...]:
    """`(symbol, day, number of rows)` of the chosen rows."""
    if not len(rows):
        return ()
    first = day[rows].min()
    keys = bars.symbol[rows].astype(np.int64) << 32 | (day[rows] - first).astype(np.int64)
    unique, counts = np.unique(keys, return_counts=True)
    return tuple(
        (bars.names[key >> 32], str(first + np.timedelta64(int(key & 0xFFFFFFFF), "D")), int(n))
        for key, n in zip(unique.tolist(), counts.tolist(), strict=True)
    )


def _holes(
    names: tuple[str, ...], symbol: np.ndarray, position: np.ndarray, slots: _Slots, session_day: np.ndarray
) -> tuple[tuple[str, str, int], ...]:
    """Missing bars of each symbol and session; symbol, position (in `slots`): of the bars inside the hours, sorted."""
    if not len(position):
        return ()
    first = np.ones(len(position), bool)  # of bars of one symbol in one slot
    first[1:] = (symbol[1:] != symbol[:-1]) | (position[1:] != position[:-1])
    symbol, position = symbol[first], position[first]
    session = slots.session[position]
    starts = np.ones(len(position), bool)  # of a symbol's session
    starts[1:] = (symbol[1:] != symbol[:-1]) | (session[1:] != session[:-1])
    rows = np.flatnonzero(starts)
    group_symbol, group_session = symbol[rows], session[rows]
    present = np.diff(np.append(rows, len(position)))
    low, high = np.searchsorted(slots.session, group_session), np.searchsorted(slots.session, group_session, "right")
    first_session = np.ones(len(rows), bool)  # of a symbol: counted from its first bar
    first_session[1:] = group_symbol[1:] != group_symbol[:-1]
    low = np.where(first_session, position[rows], low)
    missing = np.minimum(high, position.max() + 1) - low - present
    return tuple(
        (names[group_symbol[k]], str(session_day[group_session[k]]), int(missing[k]))
        for k in np.flatnonzero(missing > 0)
    )


def _silent(position: np.ndarray, slots: _Slots) -> tuple[tuple[str, int], ...]:
    """Runs of slots without any bar, between the first and the last bar; position: in `slots`, of all bars."""
    if not len(position):
        return ()
    has_bar = np.zeros(len(slots.number), bool)
    has_bar[position] = True
    session_has_bar = np.zeros(int(slots.session[-1]) + 1, bool)
    session_has_bar[slots.session[position]] = True
    empty = np.flatnonzero(~has_bar & session_has_bar[slots.session] & (np.arange(len(has_bar)) > position.min()))
    empty = empty[empty < position.max()]
    starts = np.ones(len(empty), bool)  # of a run
    starts[1:] = (np.diff(empty) > 1) | (slots.session[empty[1:]] != slots.session[empty[:-1]])
    rows = np.flatnonzero(starts)
    counts = np.diff(np.append(rows, len(empty)))
    return tuple((slots.time_text(empty[k]), int(n)) for k, n in zip(rows, counts, strict=True))
