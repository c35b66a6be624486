"""Key daily bars by their session date, so that a Tokyo Monday is a Monday and a day is one bar.

A vendor stamps the bar of a session with the exchange's midnight, with the close, or, while the market is open, with
the moment of the request. All of these become midnight UTC of the session date, which is what a plain date is. So
symbols of different exchanges are compared by session date, although their closes are hours apart.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gpupipe.data.bars import Bars
from gpupipe.data.errors import printable
from gpupipe.data.jumps import blocks
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.report import Finding, counted, time_text
from gpupipe.data.time_choice import SAMPLE_ROWS, STAMPS_PER_ROW, STAMPS_PER_SYMBOL
from gpupipe.data.time_limits import UNKNOWN_TIME
from gpupipe.data.zone_midnights import on_local_clock
from gpupipe.runtime.device import device_of

REPLACED = "replaced by a later bar of its day"

_ONE_A_DAY = 0.95  # bars are daily if at least this share of symbols and dates has one bar
_STAMPED_TWICE = 0.5  # the share of dates that may have a plain date and a time, as from two sources
_JITTER_NS = 600 * 10**9  # closes, or moments of requests, that mean the same time of day


def by_session(bars: Bars, *, daily: bool | None = None) -> tuple[Bars, tuple[str, ...], tuple[Finding, ...]]:
    """Key bars of a day or longer by session date: `(bars, notes, findings)`; intraday bars stay as they are.

    daily: whether the bars are daily; None judges by the bars themselves, and a single bar that is not at midnight
    counts as intraday. Bars are daily if a symbol has one bar a date, at few times of day, give or take minutes.

    The session date is the date on the exchange's clock; but if every time is midnight UTC it is the date in UTC, as
    these were plain dates before a zone was given. Where the source gives no zone it is the date in UTC; but if a
    symbol's times are midnights of a zone east of UTC (see `zone_midnights`), it is the next date.
    Of two bars of one symbol and date with different times, the one at midnight is kept, else the latest: the others
    were taken while the market was open. A row whose time is not known stays.

    >>> values = dict.fromkeys(("open", "high", "low", "close", "volume"), np.float32([1, 1]))
    >>> tokyo = np.array(["2024-01-07T15:00", "2024-01-08T15:00"], "M8[ns]").astype(np.int64)
    >>> bars = Bars(np.int32([0, 0]), ("7203.T",), tokyo, **values, sectors=("",), local_ns=tokyo + 9 * 3_600 * 10**9)
    >>> by_session(bars)[0].time_ns.astype("M8[ns]").astype("M8[D]")
    array(['2024-01-08', '2024-01-09'], dtype='datetime64[D]')
    """
    device = device_of(bars.time_ns)
    if daily is None and _is_intraday(bars, slice(0, SAMPLE_ROWS)):
        return bars, (), ()
    clock = bars.time_ns if bars.local_ns is None else bars.local_ns
    if bars.local_ns is not None and _all_at_midnight(bars, bars.time_ns):  # plain dates, shown in a zone later
        return dataclasses.replace(bars, local_ns=None), (), ()
    if _all_at_midnight(bars, clock):
        return dataclasses.replace(bars, time_ns=clock, local_ns=None), _notes(bars, 0), ()
    known = (bars.time_ns != UNKNOWN_TIME) & (bars.symbol >= 0)
    if daily is None:
        daily = not _is_intraday(bars, slice(None))
    if not daily:
        return bars, (), ()
    host = {name: device.to_host(array) for name, array in {"symbol": bars.symbol, "clock": clock}.items()}
    rows = np.flatnonzero(device.to_host(known))
    symbol, stamp = host["symbol"][rows], host["clock"][rows]
    stamp, n_east = (stamp, 0) if bars.local_ns is not None else on_local_clock(symbol, stamp, len(bars.names))
    day = stamp // NS_PER_DAY
    superseded = _superseded(symbol, day, stamp)
    time_ns = host["clock"].copy()
    time_ns[rows] = day * NS_PER_DAY
    keyed = dataclasses.replace(bars, time_ns=device.asarray(time_ns), local_ns=None)
    if not superseded.any():
        return keyed, _notes(bars, n_east), ()
    first = rows[superseded][0]
    example = printable(f"{bars.names[int(host['symbol'][first])]} {time_text(int(host['clock'][first]))}")
    n_symbols = int(np.unique(symbol[superseded]).size)
    finding = Finding(REPLACED, "merged", int(superseded.sum()), n_symbols, example)
    keep = np.ones(len(time_ns), bool)
    keep[rows[superseded]] = False
    return keyed.take(device.asarray(keep)), _notes(bars, n_east), (finding,)


def _all_at_midnight(bars: Bars, clock: Any) -> bool:
    for begin, end in blocks(bars):
        since_midnight = clock[begin:end] % NS_PER_DAY
        if bool(since_midnight.any()) and bool(since_midnight[bars.time_ns[begin:end] != UNKNOWN_TIME].any()):
            return False
    return True


def _notes(bars: Bars, n_east: int) -> tuple[str, ...]:
    if n_east:
        return (
            f"the times of {counted(n_east, 'symbol')} are midnight of a zone east of UTC: the session date is the "
            "next day",
        )
    return ("daily bars are keyed by the date on the exchange's clock",) if bars.local_ns is not None else ()


def _is_intraday(bars: Bars, part: slice) -> bool:
    """Whether symbols have several bars a date, or too many times of day, in a part of the rows."""
    device = device_of(bars.time_ns)
    to_host = device.to_host
    clock = bars.time_ns if bars.local_ns is None else bars.local_ns
    symbol, stamp = to_host(bars.symbol[part]), to_host(clock[part])
    known = (to_host(bars.time_ns[part]) != UNKNOWN_TIME) & (symbol >= 0)
    symbol, stamp = symbol[known].astype(np.int64), stamp[known]
    if not len(stamp) or not (stamp % NS_PER_DAY).any():
        return False
    day = stamp // NS_PER_DAY
    pairs, of_row, counts = np.unique(np.stack([symbol, day]), axis=1, return_inverse=True, return_counts=True)
    n_midnights = np.bincount(of_row.ravel()[stamp % NS_PER_DAY == 0], minlength=len(counts))
    twice = (counts == 2) & (n_midnights == 1)  # stamped in two ways; bars of 12 hours are so on nearly every date
    single = (counts == 1) | (twice & (twice.mean() <= _STAMPED_TWICE))
    if single.mean() < _ONE_A_DAY:
        return True
    n_symbols = len(np.unique(pairs[0]))
    if len(stamp) == n_symbols:
        return True  # one bar a symbol: its time may be all that tells it from another
    stamps = np.unique(symbol * NS_PER_DAY + stamp % NS_PER_DAY)
    return len(stamps) > max(STAMPS_PER_SYMBOL * n_symbols, STAMPS_PER_ROW * len(stamp)) and not _is_jitter(
        symbol, stamp
    )


def _is_jitter(symbol: np.ndarray, stamp: np.ndarray) -> bool:
    """Whether nearly all rows are within few spans of 10 minutes of their symbol's day, as where seconds differ."""
    span = stamp % NS_PER_DAY // _JITTER_NS
    keys, counts = np.unique(symbol * (NS_PER_DAY // _JITTER_NS) + span, return_counts=True)
    of_symbol = keys // (NS_PER_DAY // _JITTER_NS)
    order = np.lexsort((-counts, of_symbol))
    of_symbol, counts = of_symbol[order], counts[order]
    rank = np.arange(len(counts)) - np.searchsorted(of_symbol, of_symbol)
    return bool(counts[rank < STAMPS_PER_SYMBOL].sum() >= _ONE_A_DAY * len(stamp))


def _superseded(symbol: np.ndarray, day: np.ndarray, stamp: np.ndarray) -> np.ndarray:
    """bool (n,): rows whose symbol and date have a better row, see `by_session`; equal times are left to validation."""
    midnight = stamp % NS_PER_DAY == 0
    order = np.lexsort((stamp, midnight, day, symbol))
    last = np.ones(len(order), bool)  # of a symbol and date
    last[:-1] = (symbol[order][1:] != symbol[order][:-1]) | (day[order][1:] != day[order][:-1])
    group = np.cumsum(np.concatenate([[0], last[:-1]])) if len(order) else np.zeros(0, np.int64)
    best = stamp[order][last][group]
    superseded = np.zeros(len(order), bool)
    superseded[order] = stamp[order] != best
    return superseded
