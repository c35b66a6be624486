"""Scale prices by adj_close / close, and volumes by the part of that factor that is splits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from gpupipe.data.errors import printable
from gpupipe.data.report import counted, time_text
from gpupipe.data.time_column import UNKNOWN_TIME

VOLUME_COLUMNS = "volume_*, obv_slope_*, mfi_*, cmf_*, sector_rank_volume_* and others"  # a test compares the catalogue

_SMALLEST_STEP = 1.2  # a smaller step of the factor is a dividend
_LARGEST_DIVIDEND = 1.06  # a split may come with a dividend: its step is up to this much above a simple ratio
_WITH_DIVIDEND = 1.5  # ... but only for splits of at least 3:2: between 1.2 and 1.5 simple ratios are too dense
_EXACT = 3e-3
_CENT = 0.005  # an adjusted close is often rounded to cents
_WINDOW_BARS, _MIN_BARS = 20, 3  # volumes on each side of a split
_SURE = 3.0  # log-likelihood ratio, e**3 = 20 to 1
_LEVEL_VARIANCE, _BAR_VARIANCE = 0.1, 0.25  # of the log of volumes: of their level over weeks, and from bar to bar
_SHOWN = 3  # splits in a note

_RATIOS = np.array(
    sorted(
        {
            float(ratio)
            for p in range(1, 101)
            for q in range(1, 101)
            if (p == 1 or q == 1 or max(p, q) <= 10)
            and math.gcd(p, q) == 1
            and not 1 / _SMALLEST_STEP < (ratio := Fraction(p, q)) < _SMALLEST_STEP
        }
    )
)


@dataclass(frozen=True)
class AdjustedColumns:
    """The result of `adjust`.

    open, high, low, close, volume: float32 (n,).  notes: sentences on what became of the volumes.

    >>> AdjustedColumns(*np.ones((5, 2), np.float32), notes=("no split was found",)).close
    array([1., 1.], dtype=float32)
    """

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Steps:
    """Large steps of the factor, in order of symbol and time.

    position: int64 (k,), in `rows`, of the first bar after the step.  split: float64 (k,), new shares for an old one;
    NaN if the step is no split for sure.
    """

    rows: np.ndarray
    series: np.ndarray
    position: np.ndarray
    split: np.ndarray


def adjust(
    series: np.ndarray, time_ns: np.ndarray, columns: Mapping[str, np.ndarray], names: Sequence[str]
) -> AdjustedColumns:
    """Scale open, high, low and close by adj_close / close, and volumes by the splits in that factor.

    The factor of a symbol, in order of time, stays between two bars, or makes a step. A step is a split if

    - it is at least 6:5 either way and a simple ratio (n:1, 1:n or p:q of numbers up to 10) to 0.3 %, or exceeds a
      simple ratio of at least 3:2 by up to 6 %, which is a dividend at the same time; and
    - the raw open is off the close before by about the inverse: the product of both is nearer to 1 than to the step.

    Any other step is a dividend or a spin-off, which does not change the number of shares. A volume is multiplied by
    the ratios of all later splits of its symbol, that is, divided by the split part of the factor of its price.
    So volumes count shares as of the symbol's last bar; splits after it cannot be seen.

    Some vendors adjust volumes and not prices. If the volumes around all splits together say by 20 to 1 that they are
    adjusted already (the median of up to 20 bars on each side; log-normal, a standard deviation of 0.3 of the level),
    they stay. A note says what was done, and names what is not told apart for sure.

    series: int (n,), equal for the bars of one symbol (and timeframe), -1 if unknown; in any order.  time_ns: int64
    (n,).  columns: open, high, low, close, adj_close float64 (n,), volume (n,); a NaN is unknown: such a bar's factor
    is not looked at, and its prices become NaN.  names: the symbol of each value of `series`.

    A split 4:1 and its volumes:

    >>> prices = dict.fromkeys(("open", "high", "low", "close"), np.array([400.0, 400.0, 100.0, 100.0]))
    >>> columns = {**prices, "adj_close": np.full(4, 100.0), "volume": np.array([10.0, 10.0, 40.0, 40.0])}
    >>> adjusted = adjust(np.zeros(4, int), np.arange(4) * 86_400 * 10**9, columns, ("AAA",))
    >>> adjusted.open, adjusted.volume
    (array([100., 100., 100., 100.], dtype=float32), array([40., 40., 40., 40.], dtype=float32))
    >>> adjusted.notes[0]
    'volumes were scaled with 1 split in adj_close / close (AAA 4:1 1970-01-03)'
    """
    with np.errstate(all="ignore"):
        factor = columns["adj_close"] / columns["close"]
        scaled = {name: (columns[name] * factor).astype(np.float32) for name in ("open", "high", "low")}
        scaled["close"] = columns["adj_close"].astype(np.float32)
    steps = _large_steps(series, time_ns, columns, factor)
    is_split = ~np.isnan(steps.split)
    volume = np.asarray(columns["volume"], np.float64)
    sureness = _raw_volume_evidence(steps, volume)
    if is_split.any() and sureness > -_SURE:
        multiplier = np.ones(len(volume))
        multiplier[steps.rows] = _later_splits(steps)
        volume = volume * multiplier
    with np.errstate(over="ignore"):
        return AdjustedColumns(
            **scaled, volume=volume.astype(np.float32), notes=_notes(steps, series, time_ns, names, sureness)
        )


def _large_steps(
    series: np.ndarray, time_ns: np.ndarray, columns: Mapping[str, np.ndarray], factor: np.ndarray
) -> _Steps:
    with np.errstate(all="ignore"):
        known = (series >= 0) & (time_ns != UNKNOWN_TIME) & (factor > 0) & (factor < np.inf)
        known &= (columns["open"] > 0) & (columns["close"] > 0)
    rows = np.flatnonzero(known)
    rows = rows[np.lexsort((time_ns[rows], series[rows]))]
    ordered = series[rows]
    with np.errstate(all="ignore"):
        step = factor[rows][1:] / factor[rows][:-1]
        size = np.abs(np.log(step))
        large = np.flatnonzero((ordered[1:] == ordered[:-1]) & (size >= math.log(_SMALLEST_STEP) - _EXACT))
        before, after, step, size = rows[large], rows[large + 1], step[large], size[large]
        rounding = _CENT / columns["adj_close"][before] + _CENT / columns["adj_close"][after]
        split = _simple_ratios(step, np.minimum(_EXACT + rounding, 10 * _EXACT))
        gap = columns["open"][after] / columns["close"][before]
        split[~(np.abs(np.log(gap * step)) <= size / 2)] = np.nan
    return _Steps(rows, ordered, large + 1, split)


def _simple_ratios(step: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """The simple ratio of each step, float64 (k,); NaN if there is none. tolerance: of an exact one, relative."""
    excess = step[:, None] / _RATIOS - 1.0
    with_dividend = (
        (excess >= 0) & (excess < _LARGEST_DIVIDEND - 1) & (np.abs(np.log(_RATIOS)) >= np.log(_WITH_DIVIDEND))
    )
    exact = np.abs(excess) <= tolerance[:, None]
    distance = np.where(exact | (with_dividend & ~exact.any(axis=1)[:, None]), np.abs(excess), np.inf)
    nearest = distance.argmin(axis=1) if len(step) else np.zeros(0, np.int64)
    found = np.isfinite(distance).any(axis=1)
    return np.where(found, _RATIOS[nearest], np.nan)


def _later_splits(steps: _Steps) -> np.ndarray:
    """float64 (len(rows),): the product of the splits of the same series after each row."""
    product = np.ones(len(steps.rows))
    for position, split in zip(steps.position, steps.split, strict=True):
        if not np.isnan(split):
            product[np.searchsorted(steps.series, steps.series[position]) : position] *= split
    return product


def _raw_volume_evidence(steps: _Steps, volume: np.ndarray) -> float:
    """The log-likelihood ratio of volumes that were not adjusted for the splits to volumes that were."""
    evidence = 0.0
    for position, split in zip(steps.position, steps.split, strict=True):
        if np.isnan(split):
            continue
        first, stop = np.searchsorted(steps.series, steps.series[position] + np.array([0, 1]))
        sides = (
            slice(max(first, position - _WINDOW_BARS), position),
            slice(position, min(stop, position + _WINDOW_BARS)),
        )
        before, after = (volume[steps.rows[side]] for side in sides)
        before, after = before[before > 0], after[after > 0]
        if min(len(before), len(after)) < _MIN_BARS:
            continue
        jump, expected = np.log(np.median(after) / np.median(before)), np.log(split)
        variance = _LEVEL_VARIANCE + _BAR_VARIANCE * (1 / len(before) + 1 / len(after))
        evidence += expected * (2 * jump - expected) / (2 * variance)
    return float(evidence)


def _notes(
    steps: _Steps, series: np.ndarray, time_ns: np.ndarray, names: Sequence[str], sureness: float
) -> tuple[str, ...]:
    is_split = ~np.isnan(steps.split)

    def listed(chosen: np.ndarray) -> str:
        texts = []
        for k in np.flatnonzero(chosen)[:_SHOWN]:
            row = steps.rows[steps.position[k]]
            ratio = "" if np.isnan(steps.split[k]) else _ratio_text(steps.split[k]) + " "
            texts.append(printable(f"{names[series[row]]} {ratio}{time_text(int(time_ns[row]))}"))
        return f"({', '.join(texts)}{', ...' if chosen.sum() > _SHOWN else ''})"

    if not is_split.any():
        notes = ["volumes were not scaled: adj_close / close has no step that is a split"]
    else:
        splits = f"{counted(int(is_split.sum()), 'split')} in adj_close / close {listed(is_split)}"
        notes = [f"volumes were scaled with {splits}"]
        if sureness <= -_SURE:
            notes = [f"volumes were not scaled with {splits}: they do not jump there, so they are adjusted already"]
        elif sureness < _SURE:
            notes.append(
                "the volumes do not tell for sure that they were not adjusted already; "
                f"if they were, do not use columns of volume ({VOLUME_COLUMNS})"
            )
    if not is_split.all():
        n_others = counted(int((~is_split).sum()), "large step")
        notes.append(
            f"{n_others} of adj_close / close {listed(~is_split)} without a split's price gap or ratio were taken for "
            f"dividends or spin-offs: if one is a split, columns of volume ({VOLUME_COLUMNS}) jump there"
        )
    return tuple(notes)


def _ratio_text(ratio: float) -> str:
    fraction = Fraction(ratio).limit_denominator(100)
    return f"{fraction.numerator}:{fraction.denominator}"
