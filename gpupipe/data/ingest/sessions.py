"""When an exchange was open, by the package exchange-calendars: a missing bar is told from a closed exchange."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.errors import DataError
from gpupipe.data.ingest import hours
from gpupipe.data.ingest.rows import Rows

DEFAULT = "XNYS"
MISSING = "exchange-calendars is not installed (pip install -e '.[calendars]')"
_DAY_NS = 86_400_000_000_000


@dataclass(frozen=True)
class Gaps:
    """What the calendar says of some bars.

    missing: `(symbol, "YYYY-MM-DD")` of sessions between two bars of a symbol on which it has none.  closed: days with
    bars on which the exchange was closed.  outside, holes, silent: as of `hours.Within`, of bars within a day.
    """

    missing: tuple[tuple[str, str], ...] = ()
    closed: tuple[str, ...] = ()
    outside: tuple[tuple[str, str, int], ...] = ()
    holes: tuple[tuple[str, str, int], ...] = ()
    silent: tuple[tuple[str, int], ...] = ()


class Sessions:
    """The sessions of one exchange, as days."""

    def __init__(self, name: str, first_day: np.datetime64, last_day: np.datetime64) -> None:
        """name: of exchange-calendars ("XNYS", "XLON", "24/7", ...). Days are datetime64[D], both included.

        Raises DataError for a name or a time that the package does not know, or if it is not installed.
        """
        if not installed():
            raise DataError(f"--calendar {name}: {MISSING}, or --calendar none")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, about what exchange-calendars does with it
            import exchange_calendars

            self._calendar = _made(exchange_calendars, name, first_day, last_day)
            days = self._calendar.sessions.to_numpy().astype("datetime64[D]")
            chosen = (days >= first_day) & (days <= last_day)
            self.days, self.hours = days[chosen], hours.of_calendar(self._calendar, chosen)

    def days_of(self, time_ns: np.ndarray) -> np.ndarray:
        """The day of each bar, datetime64[D] (n,): its UTC date if all are at midnight UTC, else the exchange's date.

        A session that begins on the evening before (futures, currencies) is known by its hours alone (`hours`).
        """
        moments = time_ns.astype("datetime64[ns]")
        if not (time_ns % _DAY_NS).any():
            return moments.astype("datetime64[D]")
        import pandas as pd

        local = pd.DatetimeIndex(moments, tz="UTC").tz_convert(self._calendar.tz).tz_localize(None)
        return local.to_numpy().astype("datetime64[D]")


def installed() -> bool:
    """Whether exchange-calendars is there; imports nothing of it."""
    return importlib.util.find_spec("exchange_calendars") is not None


def _made(package: Any, name: str, first_day: np.datetime64, last_day: np.datetime64) -> Any:
    # Without bounds a calendar reaches 20 years back. A week more: its own ends must be sessions.
    week = np.timedelta64(7, "D")
    try:
        return package.get_calendar(name, start=str(first_day - week), end=str(last_day + week))
    except package.errors.InvalidCalendarName:
        known = ", ".join(sorted(package.get_calendar_names(include_aliases=False))[:8])
        raise DataError(f"--calendar {name}: not known to exchange-calendars; it has {known}, ... or none") from None
    except (ValueError, package.errors.CalendarError) as error:
        raise DataError(f"--calendar {name}: {str(error).splitlines()[0]}; or --calendar none") from None


def gaps(rows: Rows, symbols: frozenset[int], first_ns: np.ndarray, name: str, step_ns: float = 0.0) -> Gaps:
    """What the calendar says of `symbols` (positions in rows.names), each from its time `first_ns` (n_names,) on.

    step_ns: the length of a bar; of bars within a day (`hours.known`) the hours are looked at too.
    """
    chosen = np.isin(rows.symbol, sorted(symbols)) & (rows.time_ns >= first_ns[rows.symbol])
    rows = rows.take(np.flatnonzero(chosen))
    if not rows.n_rows:
        return Gaps()
    # The zone of an exchange moves a bar by less than a day.
    low, high = (np.datetime64(int(t), "ns").astype("datetime64[D]") for t in (rows.time_ns.min(), rows.time_ns.max()))
    sessions = Sessions(name, low - np.timedelta64(1, "D"), high + np.timedelta64(1, "D"))
    day = sessions.days_of(rows.time_ns)
    if not hours.known(step_ns):
        closed = tuple(map(str, np.setdiff1d(day, sessions.days)))
        return Gaps(_missing(rows, symbols, day, sessions.days), closed)
    found = hours.within(rows, sessions.hours, int(step_ns), day)
    inside = np.flatnonzero(~np.isnat(found.days))
    missing = _missing(rows.take(inside), symbols, found.days[inside], sessions.days)
    return Gaps(missing, found.closed, found.outside, found.holes, found.silent)


def _missing(
    rows: Rows, symbols: frozenset[int], day: np.ndarray, sessions: np.ndarray
) -> tuple[tuple[str, str], ...]:  # fmt: skip
    """Sessions between two bars of a symbol on which it has none; day: of each row."""
    missing, edges = [], rows.edges
    for k in sorted(symbols):
        own = day[edges[k] : edges[k + 1]]
        if len(own):
            expected = sessions[(sessions >= own[0]) & (sessions <= own[-1])]
            if len(expected) > len(own) or not np.array_equal(expected, own):
                missing += [(rows.names[k], str(gone)) for gone in np.setdiff1d(expected, own)]
    return tuple(missing)


def last_session(name: str, day: np.datetime64) -> np.datetime64:
    """The last session on or before a day."""
    found = Sessions(name, day - np.timedelta64(14, "D"), day).days
    return found[-1] if len(found) else day
