"""Validate every row: reject impossible bars, flag doubtful ones, merge duplicates, and sort the rest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data import jumps
from gpupipe.data.bars import PRICES, Bars
from gpupipe.data.errors import printable
from gpupipe.data.report import Finding, time_text
from gpupipe.data.time_limits import ANY_TIME, FIRST_INTRADAY_NS, UNKNOWN_TIME, TimeLimits
from gpupipe.runtime.device import Device, device_of

# Kinds of findings. A quarantined row gets the first reason that applies.
TIME_NOT_KNOWN = "time is not known"
QUARANTINED = (
    "symbol is not known",
    TIME_NOT_KNOWN,
    "time is in the future",
    "time is before 1990, and bars are intraday",
    "time stands for a missing one, as 1970-01-01",
    "a price is not a number",
    "a price is not positive",
    "high is below open or close",
    "low is above open or close",
    "conflicts with another row of its time",
    "price jumps and comes back",
)
CONFLICT, JUMP = len(QUARANTINED) - 1, len(QUARANTINED)
DUPLICATE, UNSORTED, ROUNDING = "repeats another row", "goes back in time", "high or low off by rounding"
NO_VOLUME, ZERO_VOLUME, SPLIT = "volume is not known", "volume is zero", "looks like an unadjusted split"
BAD_EXTREME = "high or low far from open and close"

# A vendor's rounding (adjusting in float64, storing in float32) moves a high or low past the open or close by up to
# two float32 steps. That does not make the bar wrong.
_ROUNDING = 1.0 + 2.0**-22

# A bar whose high is this many times its low is looked at for a lone bad price.
_WIDE = np.float32(jumps.OFF)


@dataclass(frozen=True)
class Validated:
    """The outcome of validation.

    bars: the kept rows, sorted by symbol and time.  findings: most severe first.  quarantined_rows: int64 (n,) on the
    host, row numbers among all rows read.  reasons: one of QUARANTINED for each quarantined row.

    >>> prices = dict.fromkeys(("open", "low", "close"), np.float32([10, 10]))
    >>> bars = Bars(np.int32([0, 0]), ("A",), np.int64([0, 1]), high=np.float32([11, 9.5]), **prices,
    ...             volume=np.float32([5, 5]), sectors=("energy",))
    >>> validated = validate_bars(bars)
    >>> [(finding.kind, finding.action, finding.rows) for finding in validated.findings]
    [('high is below open or close', 'quarantined', 1)]
    """

    bars: Bars
    findings: tuple[Finding, ...]
    quarantined_rows: np.ndarray
    reasons: list[str]


def validate_bars(bars: Bars, limits: TimeLimits = ANY_TIME) -> Validated:
    """Validate all rows on their device. limits: the times that bars can have, see `time_limits.limits_of`.

    The rules, in float32 (the precision of a Panel):

    - Quarantined: an unknown symbol or time; a time outside the limits; a price that is null, not a number, infinite
      or <= 0;
      high < max(open, close); low > min(open, close).
    - Repaired: a violation of the last two rules by at most 2**-22 of the price (two float32 steps) is rounding of the
      source; high or low is set to that open or close.
    - Remaining rows of the same symbol and time: merged if all five values agree, else all of them are quarantined.
    - Sorted: a row with an earlier time than the previous row of its symbol. Symbols may be interleaved in any way.
    - A volume that is null, negative or not finite becomes NaN (unknown) and is flagged; zero is flagged.
    - Repaired: a high of at least 5 times open and close, or a low of at most a fifth of both, becomes the larger or
      the smaller of the two: nothing was traded there that could have been kept.
    - Jumps that come back are quarantined from a factor of 10 on, and flagged from 5 on, see `jumps.bars_that_jump`.
      Jumps that stay are flagged as possible splits, see `jumps.possible_splits`.

    >>> prices = {"open": np.float32([10, 10]), "low": np.float32([9, 9]), "close": np.float32([10, 10])}
    >>> bars = Bars(np.int32([0, 0]), ("A",), np.int64([0, 1]), high=np.float32([11, 9.5]), **prices,
    ...             volume=np.float32([5, 5]), sectors=("energy",))
    >>> validated = validate_bars(bars)
    >>> validated.bars.high, validated.quarantined_rows, validated.reasons
    (array([11.], dtype=float32), array([1]), ['high is below open or close'])
    """
    device = device_of(bars.close)
    names = (*bars.names, "?")  # the last is for symbol -1
    bars, code, repaired, extremes, suspects = _check_rows(bars, limits, device)
    rejected = device.xp.flatnonzero(code)
    kept, unsorted, merged = bars, rejected[:0], rejected[:0]
    if rejected.size or not _is_sorted(bars):
        order, unsorted = _sort(bars, device.xp.flatnonzero(code == 0), device)
        order, merged, conflicting = _merge_duplicates(bars, order, device)
        code[conflicting] = CONFLICT
        rejected = device.xp.flatnonzero(code)
        kept = _take(bars, order)
    sure, splits, doubtful = _jumps(kept, suspects=suspects)
    if sure.size:
        code[sure if kept is bars else order[sure]] = JUMP
        rejected = device.xp.flatnonzero(code)
        keep = device.xp.ones(kept.symbol.size, bool)
        keep[sure] = False
        kept = kept.take(keep)
        _, splits, doubtful = _jumps(kept, suspects=suspects)
    code = code[rejected]
    no_volume = device.xp.flatnonzero(~(kept.volume > 0))  # NaN or zero: `_check_rows` leaves no other value
    zero = kept.volume[no_volume] == 0
    findings = [
        _finding(kind, "quarantined", bars, rejected[code == k], names) for k, kind in enumerate(QUARANTINED, start=1)
    ]
    findings += [
        _finding(DUPLICATE, "merged", bars, merged, names),
        _finding(UNSORTED, "sorted", bars, unsorted, names),
        _finding(ROUNDING, "repaired", bars, repaired, names),
        _finding(BAD_EXTREME, "repaired", bars, extremes, names),
        _finding(QUARANTINED[JUMP - 1], "flagged", kept, doubtful, names),
        _finding(NO_VOLUME, "flagged", kept, no_volume[~zero], names),
        _finding(ZERO_VOLUME, "flagged", kept, no_volume[zero], names),
        _finding(SPLIT, "flagged", kept, splits, names),
    ]
    reasons = [QUARANTINED[k - 1] for k in device.to_host(code)]
    row_numbers = device.to_host(rejected if bars.row is None else bars.row[rejected])
    return Validated(kept, tuple(f for f in findings if f.rows), row_numbers, reasons)


def _jumps(bars: Bars, *, suspects: bool) -> tuple[Any, Any, Any]:
    """`(rows that surely jump and come back, rows that look like a split, rows that may jump and come back)`.

    suspects: whether any bar was suspect, as wide bars are.
    """
    device, gaps = device_of(bars.close), jumps.gaps(bars)
    wide = jumps.wide(bars) if suspects else gaps[:0]
    found = jumps.bars_that_jump(bars, gaps, wide)
    splits = np.union1d(jumps.possible_splits(bars, gaps), jumps.at_the_end(bars, wide))
    return device.asarray(found.sure), device.asarray(splits), device.asarray(found.doubtful)


def _is_sorted(bars: Bars) -> bool:
    """Whether symbols rise and times strictly rise within each symbol, so that no row needs sorting or merging."""
    for begin, end in jumps.blocks(bars):
        symbol, time_ns = bars.symbol[begin : end + 1], bars.time_ns[begin : end + 1]
        later = (symbol[1:] == symbol[:-1]) & (time_ns[1:] > time_ns[:-1])
        later |= symbol[1:] > symbol[:-1]
        if not bool(later.all()):
            return False
    return True


def _take(bars: Bars, order: Any) -> Bars:
    """The rows in this order; without a copy if the order keeps every row in its place."""
    if order.size == bars.symbol.size and bool((order[1:] > order[:-1]).all()):
        return bars
    return bars.reordered(order)


def _check_rows(bars: Bars, limits: TimeLimits, device: Device) -> tuple[Bars, Any, Any, Any, bool]:
    """`(bars, reason code uint8 (n,), rows repaired from rounding or from a bad high or low, whether any is suspect)`.

    Only the few suspect rows are examined in full, on the host.
    """
    xp = device.xp
    rows, volumes_known = _suspect_rows(bars, limits, device)
    reason_code = xp.zeros(bars.close.size, xp.uint8)
    rounding = extremes = rows[:0]
    if rows.size:
        host = {name: device.to_host(getattr(bars, name)[rows]) for name in ("symbol", "time_ns", *PRICES)}
        code, high, low, is_extreme = _reason_codes(host, limits)
        reason_code[rows] = device.asarray(code)
        changed = (code == 0) & ((high != host["high"]) | (low != host["low"]))
        if changed.any():
            columns = {"high": bars.high.copy(), "low": bars.low.copy()}
            columns["high"][rows[device.asarray(changed)]] = device.asarray(high[changed])
            columns["low"][rows[device.asarray(changed)]] = device.asarray(low[changed])
            bars = dataclasses.replace(bars, **columns)
        rounding = rows[device.asarray(changed & ~is_extreme)]
        extremes = rows[device.asarray(changed & is_extreme)]
    if not volumes_known:  # -0.0 becomes 0.0, and every NaN gets the same bits
        known = (bars.volume > 0) & (bars.volume < xp.inf)
        volume = xp.where(bars.volume == 0, xp.float32(0), xp.where(known, bars.volume, xp.float32(xp.nan)))
        bars = dataclasses.replace(bars, volume=volume)
    return bars, reason_code, rounding, extremes, bool(rows.size)


def _suspect_rows(bars: Bars, limits: TimeLimits, device: Device) -> tuple[Any, bool]:
    """`(rows that break a rule, whether every volume is > 0 and finite)`; comparisons with NaN are false."""
    xp = device.xp
    suspect, volumes_known = [xp.zeros(0, xp.int64)], True
    for begin, end in jumps.blocks(bars):
        symbol, time_ns, open_, high, low, close, volume = (
            getattr(bars, name)[begin:end] for name in ("symbol", "time_ns", *PRICES, "volume")
        )
        valid = (symbol >= 0) & (time_ns >= limits.earliest_ns) & (time_ns <= limits.latest_ns)
        for moment in limits.stand_ins_ns:
            valid &= time_ns != moment
        valid &= (low > 0) & (low <= open_) & (low <= close) & (high >= open_) & (high >= close)
        # No price is above what float32 cannot hold; a file may have NaNs of the kind that signal.
        with np.errstate(over="ignore", invalid="ignore"):
            valid &= high < _WIDE * low
        if not bool(valid.all()):
            suspect.append(xp.flatnonzero(~valid) + begin)
        volumes_known = volumes_known and bool(((volume > 0) & (volume < xp.inf)).all())
    return xp.concatenate(suspect), volumes_known


def _reason_codes(
    rows: dict[str, np.ndarray], limits: TimeLimits
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For suspect rows: `(code uint8, repaired high, repaired low, whether high or low was far off)`.

    The code is 0 if rounding explains the violation, or if high or low alone is far off.
    """
    prices = np.stack([rows[name] for name in PRICES])
    code = np.zeros(prices.shape[1], np.uint8)
    top = np.maximum(rows["open"], rows["close"])
    bottom = np.minimum(rows["open"], rows["close"])
    with np.errstate(invalid="ignore"):
        violations = (
            rows["symbol"] < 0,
            rows["time_ns"] == UNKNOWN_TIME,
            rows["time_ns"] > limits.latest_ns,
            (rows["time_ns"] < limits.earliest_ns) & (limits.earliest_ns == FIRST_INTRADAY_NS),
            (rows["time_ns"] < limits.earliest_ns) | np.isin(rows["time_ns"], limits.stand_ins_ns),
            ~np.isfinite(prices).all(axis=0),
            ~(prices > 0).all(axis=0),
            rows["high"] * np.float64(_ROUNDING) < top,
            rows["low"] > bottom * np.float64(_ROUNDING),
        )
    for k, violated in enumerate(violations, start=1):
        code[(code == 0) & violated] = k
    with np.errstate(invalid="ignore", over="ignore"):
        far_high, far_low = rows["high"] >= jumps.OFF * top, rows["low"] * jumps.OFF <= bottom
    high = np.where(far_high, top, np.maximum(rows["high"], top))
    low = np.where(far_low, bottom, np.minimum(rows["low"], bottom))
    return code, high, low, far_high | far_low


def _sort(bars: Bars, rows: Any, device: Device) -> tuple[Any, Any]:
    """`(rows sorted by symbol and time, rows earlier than their predecessor)`; stable, so equal times keep order."""
    xp = device.xp
    symbol, time_ns = bars.symbol[rows], bars.time_ns[rows]
    if symbol.size and not bool((symbol[1:] >= symbol[:-1]).all()):
        small = symbol.astype(xp.uint16) if len(bars.names) < 2**16 else symbol  # numpy radix-sorts 16-bit integers
        rows = rows[xp.argsort(small, kind="stable")]
        symbol, time_ns = bars.symbol[rows], bars.time_ns[rows]
    positions = xp.flatnonzero((symbol[1:] == symbol[:-1]) & (time_ns[1:] < time_ns[:-1])) + 1
    if not positions.size:
        return rows, rows[:0]
    unsorted = rows[positions]
    by_time = xp.argsort(time_ns, kind="stable")
    rows, symbol = rows[by_time], symbol[by_time]
    small = symbol.astype(xp.uint16) if len(bars.names) < 2**16 else symbol
    return rows[xp.argsort(small, kind="stable")], unsorted


def _merge_duplicates(bars: Bars, order: Any, device: Device) -> tuple[Any, Any, Any]:
    """`(order without duplicates, merged rows, conflicting rows)` of rows sorted by symbol and time."""
    xp = device.xp
    symbol, time_ns = bars.symbol[order], bars.time_ns[order]
    same = (symbol[1:] == symbol[:-1]) & (time_ns[1:] == time_ns[:-1])
    if not bool(same.any()):
        return order, order[:0], order[:0]
    repeats = xp.concatenate([xp.zeros(1, bool), same])
    agrees = repeats.copy()
    for name in (*PRICES, "volume"):
        values = getattr(bars, name)[order]
        agrees[1:] &= (values[1:] == values[:-1]) | (xp.isnan(values[1:]) & xp.isnan(values[:-1]))
    group = xp.cumsum(~repeats) - 1
    conflicting = xp.bincount(group, weights=(repeats & ~agrees).astype(xp.float64))[group] > 0
    merged = repeats & ~conflicting
    return order[~(conflicting | merged)], order[merged], order[conflicting]


def _finding(kind: str, action: str, bars: Bars, rows: Any, names: tuple[str, ...]) -> Finding:
    if not rows.size:
        return Finding(kind, action, 0, 0, "")
    device = device_of(bars.symbol)
    first = rows.min()
    time_ns = int(bars.time_ns[first])
    when = "?" if time_ns == UNKNOWN_TIME else time_text(time_ns)
    code = device.xp.unique(bars.symbol[rows])
    example = printable(f"{names[int(bars.symbol[first])]} {when}")
    return Finding(kind, action, int(rows.size), int((code >= 0).sum()), example)
