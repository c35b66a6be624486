"""Key the daily and longer bars of a store and of a source by session date, so that a session is one bar.

A store that an earlier version wrote may have such bars at the exchange's midnight, at the close, or at the moment of a
request, and some days twice. It is brought to session dates when it is next ingested into.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from gpupipe.data.errors import DataError, printable
from gpupipe.data.ingest import bar_length, restate
from gpupipe.data.ingest.bar_length import DAY, MONTH, WEEK, BarLength
from gpupipe.data.ingest.bar_table import BarTable, concatenate, overlap
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.report import Finding, counted, time_text
from gpupipe.data.session_dates import REPLACED

_HALF_DAY_NS, _HALF_HOUR_NS = NS_PER_DAY // 2, NS_PER_DAY // 48
_MOST_A_DAY = 3  # states of one session: more bars of a date are intraday bars
_SHARE_INTRADAY = 0.05
_EAST_NS = (26 * _HALF_HOUR_NS, 37 * _HALF_HOUR_NS)  # 13:00 to 18:30 UTC is midnight from Sydney to Mumbai
_CUSTOMARY = 0.9  # a store dates its weeks by one weekday if at least this share of them has it


@dataclass(frozen=True)
class Aligned:
    """The bars of a store and of a source, both keyed by session date if they are of a day or longer.

    stored, incoming: the bars.  length: of the stored bars, or None.  rekeyed: number of stored bars that were not at
    their session date.  doubled: number of stored bars that were removed, because their day stands there twice.
    notes, findings: on the incoming bars, for the report of the source.

    >>> from gpupipe.data.ingest.bar_table import empty
    >>> align(empty(), empty()).rekeyed
    0
    """

    stored: BarTable
    incoming: BarTable
    length: BarLength | None
    rekeyed: int = 0
    doubled: int = 0
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def align(stored: BarTable, incoming: BarTable, calendar: str = "", zone: str | None = None) -> Aligned:
    """Key both tables by session date where the store has bars of a day or longer, and check the length of the source.

    stored: as it is in the files.  incoming: at the times of the source.  calendar: see `bar_length.check`.  zone: name
    of the time zone of bars whose source gives none, if the user named the exchange; None is UTC.

    A store of one bar a symbol tells its length together with the source. The session date of a bar is

    - the date on the exchange's clock, where the source or `zone` gives one;
    - else the date in UTC, or the next one: a time after noon in UTC is the midnight of a zone in the east if the
      symbols with this time of day agree with the stored bars of the next date and not of the same one; if they have
      bars on Sundays and none on Fridays, and the store has no Sundays; or if they stand at half or whole hours from
      13:00 to 18:30 UTC, and contradict the stored bars of the same date.

    In a store of weeks or longer, a bar belongs to the stored bar of its calendar week (Monday to Sunday), month,
    quarter or year, whatever its date. Of two bars of a session an older snapshot (`restate.is_older_snapshot`) goes,
    else the one that is not at midnight or is earlier. Raises DataError for bars of another length, and for
    weeks that are dated on a Saturday or Sunday in one table, and on a weekday in the other.
    """
    if not stored.n_rows:
        return Aligned(stored, incoming, None)
    at_midnight = stored.take(np.flatnonzero(stored.clock_ns % NS_PER_DAY == 0))
    are_sessions = _are_sessions(stored, at_midnight)
    if not are_sessions and bar_length.judge(stored) is None:
        are_sessions = _are_sessions(_together(stored, incoming), at_midnight)
    if not are_sessions:
        length = bar_length.judge(stored)
        bar_length.check(stored, incoming, length, calendar)
        return Aligned(stored, incoming, length)
    rekeyed = doubled = 0
    if at_midnight.n_rows < stored.n_rows or stored.local_ns is not None:
        days = _session_days(stored, at_midnight, None)
        rekeyed = int((stored.time_ns != days * NS_PER_DAY).sum())
        keyed, kept = _keyed(stored, days)
        stored, doubled = keyed, stored.n_rows - len(kept)
    length = bar_length.of_store(stored)
    raw, notes, findings = incoming, [], []
    days = _session_days(raw, stored, zone)
    if not _has_intraday_days(raw, days):
        incoming, kept = _keyed(raw, days)
        bar_length.check(stored, incoming, length, calendar)
        days = days[kept]
        if length is not None and length.unit != DAY:
            dated = _dated_as_stored(stored, days, incoming, length.unit)
            if (dated != days).any():
                n_dated = counted(int((dated != days).sum()), "bar")
                notes.append(f"{n_dated} got the date that the store gives to the same {length.unit}")
            incoming, of_period = _keyed(dataclasses.replace(incoming, time_ns=raw.time_ns[kept]), dated)
            kept = kept[of_period]
        findings = _findings(raw, kept)
    else:
        bar_length.check(stored, incoming, length or BarLength(DAY, NS_PER_DAY), calendar)
    return Aligned(stored, incoming, length, rekeyed, doubled, tuple(notes), tuple(findings))


def _findings(raw: BarTable, kept: np.ndarray) -> list[Finding]:
    """The finding on rows that are not kept, of bars whose session has another one."""
    removed = np.setdiff1d(np.arange(raw.n_rows), kept)
    if not len(removed):
        return []
    symbols = np.unique(raw.symbol[removed])
    example = printable(f"{raw.names[raw.symbol[removed[0]]]} {time_text(int(raw.clock_ns[removed[0]]))}")
    return [Finding(REPLACED, "merged", len(removed), len(symbols), example)]


def _together(first: BarTable, second: BarTable) -> BarTable:
    """The bars of both tables, without their sectors."""
    names = tuple(sorted({*first.names, *second.names}))
    first, second = (table.with_names(names, ("",) * len(names)) for table in (first, second))
    return concatenate(first, second)[0]


def _are_sessions(bars: BarTable, at_midnight: BarTable) -> bool:
    """Whether bars are of a day or longer: all at midnight, or one a date and symbol, and on several dates."""
    clock = bars.clock_ns
    if not (clock % NS_PER_DAY).any():
        return True
    if bars.n_rows > _MOST_A_DAY * _starts(bars.symbol, clock // NS_PER_DAY).sum():
        return False
    days = _session_days(bars, at_midnight, None)
    several = len(np.unique(bars.symbol)) < int(_starts(bars.symbol, days).sum())
    return several and not _has_intraday_days(bars, days)


def _has_intraday_days(bars: BarTable, days: np.ndarray) -> bool:
    """Whether more than a few dates have several bars of a symbol that are not states of one session.

    On a symbol's last date a bar at midnight may stand beside one that was taken while the market was open.
    """
    starts = np.flatnonzero(_starts(bars.symbol, days))
    if not len(starts):
        return False
    sizes = np.diff(np.append(starts, bars.n_rows))
    rows = np.flatnonzero(~_starts(bars.symbol, days))  # a bar before has the same symbol and date
    group = np.searchsorted(starts, rows, side="right") - 1
    earlier, later = bars.values[rows - 1], bars.values[rows]
    states = restate.is_older_snapshot(earlier, later) | restate.is_older_snapshot(later, earlier)
    states |= ~restate.differs(earlier, later).any(axis=1)
    intraday = sizes > _MOST_A_DAY
    intraday[group[~states]] = True
    ends = starts + sizes
    is_last = np.isin(ends, bars.offsets)
    has_midnight = np.zeros(len(starts), bool)
    has_midnight[np.searchsorted(starts, np.flatnonzero(bars.clock_ns % NS_PER_DAY == 0), side="right") - 1] = True
    intraday &= ~((sizes == 2) & is_last & has_midnight)
    return bool(intraday.mean() > _SHARE_INTRADAY)


def _starts(symbol: np.ndarray, days: np.ndarray) -> np.ndarray:
    """bool (n,): the first row of each run of equal symbol and date."""
    first = np.ones(len(days), bool)
    first[1:] = (symbol[1:] != symbol[:-1]) | (days[1:] != days[:-1])
    return first


def _session_days(bars: BarTable, reference: BarTable, zone: str | None) -> np.ndarray:
    """The session date of each bar in days since 1970, int64 (n,); see `align`. reference: bars at session dates."""
    clock, midday = bars.clock_ns, bars.time_ns % NS_PER_DAY
    days = clock // NS_PER_DAY
    open_ = (clock == bars.time_ns) & (midday != 0)  # without a zone
    if zone is not None and open_.any():
        local = _local_ns(bars.time_ns, zone)
        days = np.where(open_, local // NS_PER_DAY, days)
        open_ &= local % NS_PER_DAY != 0
    rows = np.flatnonzero(open_ & (midday >= _HALF_DAY_NS))
    if not len(rows):
        return days
    candidates = bars.take(rows)
    time_of_day = midday[rows]
    last = np.append(np.flatnonzero(np.diff(candidates.symbol)), len(rows) - 1)  # of each symbol
    _, group_of_symbol = np.unique(time_of_day[last], return_inverse=True)
    group = np.repeat(group_of_symbol, np.diff(np.append(-1, last)))
    n_groups = int(group.max()) + 1
    same, other = (_votes(candidates, reference, shift, group, n_groups) for shift in (0, 1))
    weekday = (candidates.time_ns // NS_PER_DAY - 4) % 7  # 0 is Monday
    on_sunday = np.bincount(group[weekday == 6], minlength=n_groups) > 0
    before_weekend = np.bincount(group[(weekday == 4) | (weekday == 5)], minlength=n_groups) > 0
    is_hour = (time_of_day % _HALF_HOUR_NS == 0) & (time_of_day >= _EAST_NS[0]) & (time_of_day <= _EAST_NS[1])
    at_hours = np.bincount(group[~is_hour], minlength=n_groups) == 0
    undecided = same[0] == other[0]
    stored_weekday = (reference.time_ns // NS_PER_DAY - 4) % 7
    by_weekday = undecided & on_sunday & ~before_weekend & (not (stored_weekday == 6).any())
    by_contradiction = undecided & (same[0] == 0) & at_hours & ~before_weekend & (same[1] > other[1])
    east = (other[0] > same[0]) | by_weekday | by_contradiction
    days[rows] = candidates.time_ns // NS_PER_DAY + east[group] if zone is None else days[rows] + east[group]
    return days


def _votes(
    bars: BarTable, reference: BarTable, shift: int, group: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """`(bars that are the reference's bar of their date + shift, bars that contradict it)`, int64 (n_groups,) each."""
    moved = dataclasses.replace(bars, time_ns=(bars.time_ns // NS_PER_DAY + shift) * NS_PER_DAY)
    first = np.flatnonzero(_starts(moved.symbol, moved.time_ns))
    old_row, new_row = overlap(reference, moved.take(first))
    old, new = reference.values[old_row], bars.values[first[new_row]]
    agrees = ~restate.differs(old, new)[:, :4].any(axis=1)
    agrees |= restate.is_older_snapshot(old, new) | restate.is_older_snapshot(new, old)
    ratio = new[:, :4].astype(np.float64) / old[:, :4]
    of_one_scale = ratio.max(axis=1, initial=0.0) <= ratio.min(axis=1, initial=np.inf) * (1 + restate.FACTOR_TOLERANCE)
    of_group = group[first[new_row]]
    contradicts = ~agrees & ~of_one_scale & (np.abs(ratio[:, 0] - 1) > restate.OPEN_TOLERANCE)
    return np.bincount(of_group[agrees], minlength=n_groups), np.bincount(of_group[contradicts], minlength=n_groups)


def _local_ns(time_ns: np.ndarray, zone: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    local = pc.local_timestamp(pa.array(time_ns).cast(pa.timestamp("ns", zone)))
    return local.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _keyed(bars: BarTable, days: np.ndarray) -> tuple[BarTable, np.ndarray]:
    """`(bars at midnight UTC of their days, one for each; the rows that are kept)`; days: int64 (n,)."""
    stamp = bars.clock_ns
    order = np.lexsort((stamp, stamp % NS_PER_DAY == 0, days, bars.symbol))
    while True:
        repeats = ~_starts(bars.symbol[order], days[order])
        second = np.flatnonzero(repeats & ~np.append(False, repeats[:-1]))  # of each session
        if not len(second):
            break
        first = second - 1
        older = restate.is_older_snapshot(bars.values[order[first]], bars.values[order[second]])
        order = np.delete(order, np.where(older, second, first))
    kept = bars.take(order)
    return dataclasses.replace(kept, time_ns=days[order] * NS_PER_DAY, local_ns=None), order


def _dated_as_stored(stored: BarTable, days: np.ndarray, incoming: BarTable, unit: str) -> np.ndarray:
    """The date that the store gives to each incoming bar's week, month, quarter or year, int64 (n,)."""
    stored_days = stored.time_ns // NS_PER_DAY
    stored_period, period = bar_length.periods(stored_days, unit), bar_length.periods(days, unit)
    if unit == WEEK:
        _check_weekends(stored_days, days)
    dated = _customary_dates(stored_days, days, unit)
    of_period = dataclasses.replace(stored, time_ns=stored_period)
    last = np.append(np.flatnonzero(_starts(stored.symbol, stored_period))[1:], stored.n_rows) - 1
    first = np.flatnonzero(_starts(incoming.symbol, period))
    old_row, new_row = overlap(of_period.take(last), dataclasses.replace(incoming, time_ns=period).take(first))
    run = np.cumsum(_starts(incoming.symbol, period)) - 1  # of each incoming bar
    date_of_run = dated[first]
    date_of_run[new_row] = stored_days[last[old_row]]
    return np.where(np.isin(run, new_row), date_of_run[run], dated)


def _customary_dates(stored_days: np.ndarray, days: np.ndarray, unit: str) -> np.ndarray:
    """The dates in the store's manner, if it dates all weeks by one weekday, or all months by the first or last day."""
    if unit == WEEK:
        counts = np.bincount((stored_days - 4) % 7, minlength=7)
        usual = int(counts.argmax())
        return days - (days - 4) % 7 + usual if counts[usual] >= _CUSTOMARY * len(stored_days) else days
    if unit != MONTH:
        return days
    first, next_first = _month_edges(stored_days)
    in_first, in_next = _month_edges(days)
    if (stored_days == first).mean() >= _CUSTOMARY:
        return in_first
    return in_next - 1 if (stored_days == next_first - 1).mean() >= _CUSTOMARY else days


def _month_edges(days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first day of each day's month, and of the next one."""
    month = days.astype("datetime64[D]").astype("datetime64[M]")
    return month.astype("datetime64[D]").astype(np.int64), (month + 1).astype("datetime64[D]").astype(np.int64)


def _check_weekends(stored_days: np.ndarray, days: np.ndarray) -> None:
    """Raise DataError if weeks are dated on a weekend in one table only: which week such a date means is not known."""
    usual = [int(np.bincount((table - 4) % 7, minlength=7).argmax()) for table in (stored_days, days) if len(table)]
    if len({weekday >= 5 for weekday in usual}) > 1:
        names = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
        raise DataError(
            f"the store dates weeks by {names[usual[0]]} and the source by {names[usual[1]]}: whether that is the same "
            "week cannot be told; date the source's weeks as the store's, or use another --store"
        )
