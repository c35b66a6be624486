"""Every row is judged: what cannot be a bar is set aside, what is doubtful is flagged, the rest is sorted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.bars import PRICES, Bars
from gpupipe.data.columns import NOT_KNOWN
from gpupipe.data.errors import printable
from gpupipe.data.report import Finding, time_text
from gpupipe.runtime.device import Device, device_of

# Kinds of findings. The first reason that holds is the reason of a quarantined row.
QUARANTINED = (
    "symbol is not known",
    "time is not known",
    "a price is not a number",
    "a price is not positive",
    "high is below open or close",
    "low is above open or close",
    "conflicts with another row of its time",
)
CONFLICT = len(QUARANTINED)
DUPLICATE, UNSORTED, ROUNDING = "repeats another row", "goes back in time", "high or low off by rounding"
NO_VOLUME, ZERO_VOLUME, SPLIT = "volume is not known", "volume is zero", "looks like an unadjusted split"

# A vendor's own rounding (adjusting in float64, storing in float32) moves a high or low past the open or close by
# up to two float32 steps. That is no error of the bar.
_NOISE = 1.0 + 2.0**-22

_BLOCK_ROWS = 1 << 15  # whose columns and comparisons stay in the cache of a core

_SPLIT_FACTORS = np.log(np.array([1.5, 2.0]))
_SPLIT_TOLERANCE = 0.05
_SPLIT_ALWAYS = np.log(2.5)
_STAYS, _STAYS_BARS = np.log(1.2), 3


@dataclass(frozen=True)
class Verdict:
    """bars: what is kept, sorted by symbol and time.  findings: in order of gravity.

    rows: int64 (n,) on the host, numbers of the quarantined rows among all rows read; reasons: one for each.
    """

    bars: Bars
    findings: tuple[Finding, ...]
    rows: np.ndarray
    reasons: list[str]


def judge(bars: Bars) -> Verdict:
    """Judge all rows, on the device they are on; the rules, all in float32, the precision that a Panel keeps:

    - Quarantined: an unknown symbol or time; a price that is null, not a number, infinite or <= 0;
      high < max(open, close); low > min(open, close). A violation of the last two by at most 2**-22 of the price,
      two float32 steps, is rounding of the source and repaired: high and low are moved to that open or close.
    - Rows left with the same symbol and time: merged if all five values agree, else all of them quarantined.
    - A row dated before the row above it of its own symbol: sorted. How symbols are interleaved does not matter.
    - Volume null, negative or not finite becomes NaN (not known) and is flagged; zero is flagged.
    - Flagged as a split: a bar that opens at the close before times or over 3/2 or 2 (within 5 %), or by more
      than 2.5 either way, where its own close and the next three stay within 20 % of that open, and the three
      before stayed within 20 % of that close (as far as there are any: a bad tick goes back, a split does not). A
      takeover can look the same: that is why it is only flagged.
    """
    device = device_of(bars.close)
    names = (*bars.names, "?")  # the last is for symbol -1
    bars, reason, repaired = _judge_rows(bars, device)
    bad = device.xp.flatnonzero(reason)
    kept, back, merged = bars, bad[:0], bad[:0]
    if bad.size or not _in_order(bars):
        order, back = _sort(bars, device.xp.flatnonzero(reason == 0), device)
        order, merged, conflicting = _duplicates(bars, order, device)
        reason[conflicting] = CONFLICT
        bad = device.xp.flatnonzero(reason)
        kept = _take(bars, order)
    code = reason[bad]
    no_volume = device.xp.flatnonzero(~(kept.volume > 0))  # NaN or zero: nothing else is left
    zero = kept.volume[no_volume] == 0
    findings = [
        _finding(kind, "quarantined", bars, bad[code == k], names) for k, kind in enumerate(QUARANTINED, start=1)
    ]
    findings += [
        _finding(DUPLICATE, "merged", bars, merged, names),
        _finding(UNSORTED, "sorted", bars, back, names),
        _finding(ROUNDING, "repaired", bars, repaired, names),
        _finding(NO_VOLUME, "flagged", kept, no_volume[~zero], names),
        _finding(ZERO_VOLUME, "flagged", kept, no_volume[zero], names),
        _finding(SPLIT, "flagged", kept, device.asarray(split_like(kept)), names),
    ]
    reasons = [QUARANTINED[k - 1] for k in device.to_host(code)]
    numbers = device.to_host(bad if bars.row is None else bars.row[bad])
    return Verdict(kept, tuple(f for f in findings if f.rows), numbers, reasons)


def _in_order(bars: Bars) -> bool:
    """Whether the rows rise by symbol and, within one, by time, so that nothing is to be sorted or merged."""
    for begin, end in _blocks(bars):
        symbol, time_ns = bars.symbol[begin : end + 1], bars.time_ns[begin : end + 1]
        later = (symbol[1:] == symbol[:-1]) & (time_ns[1:] > time_ns[:-1])
        later |= symbol[1:] > symbol[:-1]
        if not bool(later.all()):
            return False
    return True


def _blocks(bars: Bars) -> Iterator[tuple[int, int]]:
    """`(begin, end)` of rows to look at together: few enough for a core's cache on a CPU, all of them on CUDA."""
    n = bars.close.size
    step = _BLOCK_ROWS if device_of(bars.close).kind == "cpu" else n
    return ((begin, min(begin + step, n)) for begin in range(0, n, max(step, 1)))


def _take(bars: Bars, order: Any) -> Bars:
    """The rows in this order; the very arrays where that is the order they have."""
    if order.size == bars.symbol.size and bool((order[1:] > order[:-1]).all()):
        return bars
    arrays = {name: getattr(bars, name)[order] for name in ("symbol", "time_ns", *PRICES, "volume")}
    return dataclasses.replace(bars, **arrays, row=order if bars.row is None else bars.row[order])


def _judge_rows(bars: Bars, device: Device) -> tuple[Bars, Any, Any]:
    """`(bars, reason uint8 (n,), repaired rows)`; one pass finds the few rows worth a closer look."""
    xp = device.xp
    rows, volumes_known = _not_fine(bars, device)
    reason = xp.zeros(bars.close.size, xp.uint8)
    repaired = rows[:0]
    if rows.size:
        host = {name: device.to_host(getattr(bars, name)[rows]) for name in ("symbol", "time_ns", *PRICES)}
        code, high, low = _reasons(host)
        reason[rows] = device.asarray(code)
        repaired = rows[device.asarray(code == 0)]
        if repaired.size:
            changed = {"high": bars.high.copy(), "low": bars.low.copy()}
            changed["high"][repaired] = device.asarray(high[code == 0])
            changed["low"][repaired] = device.asarray(low[code == 0])
            bars = dataclasses.replace(bars, **changed)
    if not volumes_known:  # -0.0 becomes 0.0, and every NaN the same NaN
        known = (bars.volume > 0) & (bars.volume < xp.inf)
        volume = xp.where(bars.volume == 0, xp.float32(0), xp.where(known, bars.volume, xp.float32(xp.nan)))
        bars = dataclasses.replace(bars, volume=volume)
    return bars, reason, repaired


def _not_fine(bars: Bars, device: Device) -> tuple[Any, bool]:
    """`(rows with something to look at, whether every volume is > 0 and finite)`; comparisons are false for NaN."""
    xp = device.xp
    found, volumes_known = [xp.zeros(0, xp.int64)], True
    for begin, end in _blocks(bars):
        symbol, time_ns, open_, high, low, close, volume = (
            getattr(bars, name)[begin:end] for name in ("symbol", "time_ns", *PRICES, "volume")
        )
        fine = (symbol >= 0) & (time_ns != NOT_KNOWN)
        fine &= (low > 0) & (low <= open_) & (low <= close) & (high >= open_) & (high >= close) & (high < xp.inf)
        if not bool(fine.all()):
            found.append(xp.flatnonzero(~fine) + begin)
        volumes_known = volumes_known and bool(((volume > 0) & (volume < xp.inf)).all())
    return xp.concatenate(found), volumes_known


def _reasons(rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For rows that are not plainly fine: `(code uint8, high, low)`, code 0 where rounding explains it."""
    prices = np.stack([rows[name] for name in PRICES])
    code = np.zeros(prices.shape[1], np.uint8)
    top = np.maximum(rows["open"], rows["close"])
    bottom = np.minimum(rows["open"], rows["close"])
    with np.errstate(invalid="ignore"):
        wrong = (
            rows["symbol"] < 0,
            rows["time_ns"] == NOT_KNOWN,
            ~np.isfinite(prices).all(axis=0),
            ~(prices > 0).all(axis=0),
            rows["high"] * np.float64(_NOISE) < top,
            rows["low"] > bottom * np.float64(_NOISE),
        )
    for k, where in enumerate(wrong, start=1):
        code[(code == 0) & where] = k
    return code, np.maximum(rows["high"], top), np.minimum(rows["low"], bottom)


def _sort(bars: Bars, rows: Any, device: Device) -> tuple[Any, Any]:
    """`(rows by symbol and time, those that go back in time)`; stable, so equal times keep their order."""
    xp = device.xp
    symbol, time_ns = bars.symbol[rows], bars.time_ns[rows]
    if symbol.size and not bool((symbol[1:] >= symbol[:-1]).all()):
        small = symbol.astype(xp.uint16) if len(bars.names) < 2**16 else symbol  # 16 bits are sorted by radix
        rows = rows[xp.argsort(small, kind="stable")]
        symbol, time_ns = bars.symbol[rows], bars.time_ns[rows]
    backwards = xp.flatnonzero((symbol[1:] == symbol[:-1]) & (time_ns[1:] < time_ns[:-1])) + 1
    if not backwards.size:
        return rows, rows[:0]
    back = rows[backwards]
    by_time = xp.argsort(time_ns, kind="stable")
    rows, symbol = rows[by_time], symbol[by_time]
    small = symbol.astype(xp.uint16) if len(bars.names) < 2**16 else symbol
    return rows[xp.argsort(small, kind="stable")], back


def _duplicates(bars: Bars, order: Any, device: Device) -> tuple[Any, Any, Any]:
    """`(order without them, merged rows, conflicting rows)` of rows sorted by symbol and time."""
    xp = device.xp
    symbol, time_ns = bars.symbol[order], bars.time_ns[order]
    same = (symbol[1:] == symbol[:-1]) & (time_ns[1:] == time_ns[:-1])
    if not bool(same.any()):
        return order, order[:0], order[:0]
    again = xp.concatenate([xp.zeros(1, bool), same])
    agrees = again.copy()
    for name in (*PRICES, "volume"):
        values = getattr(bars, name)[order]
        agrees[1:] &= (values[1:] == values[:-1]) | (xp.isnan(values[1:]) & xp.isnan(values[:-1]))
    group = xp.cumsum(~again) - 1
    in_conflict = xp.bincount(group, weights=(again & ~agrees).astype(xp.float64))[group] > 0
    merged = again & ~in_conflict
    return order[~(in_conflict | merged)], order[merged], order[in_conflict]


def split_like(bars: Bars) -> np.ndarray:
    """Positions, int64 on the host, of bars that look like an unadjusted split; bars sorted by symbol and time."""
    device = device_of(bars.close)
    xp = device.xp
    least = np.float32(np.exp(_SPLIT_FACTORS[0] - _SPLIT_TOLERANCE) * 0.999)
    found = [xp.zeros(0, xp.int64)]
    for begin, end in _blocks(bars):
        later = bars.open[begin + 1 : end + 1]
        with np.errstate(over="ignore", under="ignore"):
            gap = later / bars.close[begin : begin + later.size]
        found.append(xp.flatnonzero((gap > least) | (gap < 1 / least)) + begin + 1)
    rows = xp.concatenate(found)
    rows = rows[bars.symbol[rows] == bars.symbol[rows - 1]]
    if not rows.size:
        return np.zeros(0, np.int64)
    opened = device.to_host(bars.open[rows]).astype(np.float64)
    closed = device.to_host(bars.close[rows - 1]).astype(np.float64)
    size = np.abs(np.log(opened / closed))
    likely = (np.abs(size[:, None] - _SPLIT_FACTORS) <= _SPLIT_TOLERANCE).any(axis=1) | (size > _SPLIT_ALWAYS)
    symbol = device.to_host(bars.symbol[rows])
    for k in range(_STAYS_BARS + 1):
        later, earlier = xp.minimum(rows + k, bars.close.size - 1), xp.maximum(rows - 1 - k, 0)
        for others, level in ((later, opened), (earlier, closed)):
            away = np.abs(np.log(device.to_host(bars.close[others]) / level)) > _STAYS
            likely &= ~(away & (device.to_host(bars.symbol[others]) == symbol))
    return device.to_host(rows)[likely]


def _finding(kind: str, action: str, bars: Bars, rows: Any, names: tuple[str, ...]) -> Finding:
    if not rows.size:
        return Finding(kind, action, 0, 0, "")
    device = device_of(bars.symbol)
    first = rows.min()
    time_ns = int(bars.time_ns[first])
    when = "?" if time_ns == NOT_KNOWN else time_text(time_ns)
    code = device.xp.unique(bars.symbol[rows])
    example = printable(f"{names[int(bars.symbol[first])]} {when}")
    return Finding(kind, action, int(rows.size), int((code >= 0).sum()), example)
