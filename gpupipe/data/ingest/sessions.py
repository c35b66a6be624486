"""Check bars against an exchange's calendar (package exchange-calendars): missing sessions and closed days."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.errors import DataError
from gpupipe.data.ingest import hours
from gpupipe.data.ingest.bar_table import BarTable

DEFAULT = "XNYS"
MISSING = "exchange-calendars is not installed (pip install -e '.[calendars]')"
_DAY_NS = 86_400_000_000_000


@dataclass(frozen=True)
class CalendarCheck:
    """The result of `check_calendar`.

    missing: `(symbol, "YYYY-MM-DD")`, sessions without a bar of the symbol between two of its bars.  closed: days with
    bars on which the exchange was closed.  outside, holes, silent: of intraday bars, see `hours.HoursCheck`.

    >>> CalendarCheck(missing=(("AAA", "2009-12-02"),)).closed
    ()
    """

    missing: tuple[tuple[str, str], ...] = ()
    closed: tuple[str, ...] = ()
    outside: tuple[tuple[str, str, int], ...] = ()
    holes: tuple[tuple[str, str, int], ...] = ()
    silent: tuple[tuple[str, int], ...] = ()


class Sessions:
    """The sessions of one exchange: `days`, datetime64[D] (n,), `hours`, their SessionHours, and its time `zone`.

    New York was closed on Thanksgiving, 2009-11-26:

    >>> Sessions("XNYS", np.datetime64("2009-11-25"), np.datetime64("2009-11-27")).days  # doctest: +SKIP
    array(['2009-11-25', '2009-11-27'], dtype='datetime64[D]')
    """

    def __init__(self, name: str, first_day: np.datetime64, last_day: np.datetime64) -> None:
        """name: of exchange-calendars ("XNYS", "XLON", "24/7", ...). Days are datetime64[D], both included.

        Raises DataError for a name or a time that the package does not know, or if it is not installed.
        """
        if not installed():
            raise DataError(f"--calendar {name}: {MISSING}, or --calendar none")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas warns about exchange-calendars' use of it
            import exchange_calendars

            self._calendar = _get_calendar(exchange_calendars, name, first_day, last_day)
            days = self._calendar.sessions.to_numpy().astype("datetime64[D]")
            chosen = (days >= first_day) & (days <= last_day)
            self.zone = self._calendar.tz
            self.days, self.hours = days[chosen], hours.from_calendar(self._calendar, chosen)

    def local_days(self, time_ns: np.ndarray) -> np.ndarray:
        """The day of each bar, datetime64[D] (n,): the UTC date if all bars are at midnight UTC, else the local date.

        For a session that begins on the evening before (futures, currencies), only its hours tell the day; see `hours`.
        """
        moments = time_ns.astype("datetime64[ns]")
        if not (time_ns % _DAY_NS).any():
            return moments.astype("datetime64[D]")
        import pandas as pd

        local = pd.DatetimeIndex(moments, tz="UTC").tz_convert(self._calendar.tz).tz_localize(None)
        return local.to_numpy().astype("datetime64[D]")


def zone_of(name: str) -> str:
    """The time zone of an exchange, as "America/New_York"; DataError as for `Sessions`."""
    day = np.datetime64("2024-01-02")  # any session
    return str(Sessions(name, day, day).zone)


def installed() -> bool:
    """Whether exchange-calendars is installed; does not import it."""
    return importlib.util.find_spec("exchange_calendars") is not None


def _get_calendar(package: Any, name: str, first_day: np.datetime64, last_day: np.datetime64) -> Any:
    # Without bounds a calendar reaches 20 years back. One more week at both ends, because there must be a session.
    week = np.timedelta64(7, "D")
    try:
        return package.get_calendar(name, start=str(first_day - week), end=str(last_day + week))
    except package.errors.InvalidCalendarName:
        known = ", ".join(sorted(package.get_calendar_names(include_aliases=False))[:8])
        raise DataError(f"--calendar {name}: not known to exchange-calendars; it has {known}, ... or none") from None
    except (ValueError, package.errors.CalendarError) as error:
        raise DataError(f"--calendar {name}: {str(error).splitlines()[0]}; or --calendar none") from None


def check_calendar(
    bars: BarTable, symbols: frozenset[int], first_ns: np.ndarray, name: str, step_ns: float = 0.0
) -> CalendarCheck:
    """Check the bars of `symbols` (positions in bars.names), each from its time `first_ns`, int64 (n_names,), on.

    name: of the calendar.  step_ns: the length of a bar; intraday bars (`hours.supports`) are also checked against the
    trading hours.
    """
    chosen = np.isin(bars.symbol, sorted(symbols)) & (bars.time_ns >= first_ns[bars.symbol])
    bars = bars.take(np.flatnonzero(chosen))
    if not bars.n_rows:
        return CalendarCheck()
    # One more day at both ends: the exchange's time zone moves a bar by less than a day.
    low, high = (np.datetime64(int(t), "ns").astype("datetime64[D]") for t in (bars.time_ns.min(), bars.time_ns.max()))
    sessions = Sessions(name, low - np.timedelta64(1, "D"), high + np.timedelta64(1, "D"))
    day = sessions.local_days(bars.time_ns)
    if not hours.supports(step_ns):
        closed = tuple(map(str, np.setdiff1d(day, sessions.days)))
        return CalendarCheck(_missing_sessions(bars, symbols, day, sessions.days), closed)
    check = hours.check_hours(bars, sessions.hours, int(step_ns), day)
    inside = np.flatnonzero(~np.isnat(check.days))
    missing = _missing_sessions(bars.take(inside), symbols, check.days[inside], sessions.days)
    return CalendarCheck(missing, check.closed, check.outside, check.holes, check.silent)


def _missing_sessions(
    bars: BarTable, symbols: frozenset[int], day: np.ndarray, sessions: np.ndarray
) -> tuple[tuple[str, str], ...]:
    """Sessions between two bars of a symbol on which it has none; day: of each row."""
    missing, offsets = [], bars.offsets
    for k in sorted(symbols):
        days = day[offsets[k] : offsets[k + 1]]
        if len(days):
            expected = sessions[(sessions >= days[0]) & (sessions <= days[-1])]
            if len(expected) > len(days) or not np.array_equal(expected, days):
                missing += [(bars.names[k], str(session)) for session in np.setdiff1d(expected, days)]
    return tuple(missing)


def last_session(name: str, day: np.datetime64) -> np.datetime64:
    """The last session on or before a day; the day itself if there is none in the two weeks before."""
    days = Sessions(name, day - np.timedelta64(14, "D"), day).days
    return days[-1] if len(days) else day
