"""Compare the overlapping stored and incoming bars of one symbol: unchanged, revised, restated or contradictory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Relative tolerance of equal values: above the rounding of float32 and of vendors, below the effect of any dividend.
EQUAL_TOLERANCE = 1e-5
# A factor f is constant if no price deviates by more than FACTOR_SHARE of |f - 1|, nor by more than FACTOR_TOLERANCE
# (prices rounded to cents).
FACTOR_TOLERANCE, FACTOR_SHARE = 2e-3, 1 / 20
VOLUME_TOLERANCE = 1e-2  # volumes are rounded to shares or to lots
MIN_BARS = 3  # overlapping bars that must confirm a factor before it scales bars that the source did not send again

UNCHANGED, REVISED, RESTATED, REPLACED, REFUSED = "unchanged", "revised", "restated", "replaced", "refused"


@dataclass(frozen=True)
class Decision:
    """How to merge the bars of one symbol.

    kind: one of
        UNCHANGED: no overlapping bar differs; new bars are added.
        REVISED: some bars were corrected at the same scale; incoming values replace stored ones.
        RESTATED: all bars before row `prefix` of the overlap differ by `factor`. Stored bars that the source did not
            send again are scaled by it, and their volumes by `volume_factor` (None: no common factor, kept).
        REPLACED: the incoming bars replace all stored ones.
        REFUSED: no incoming bar is taken; `reason` says why.
    bars: number of overlapping bars that differ.

    A split 2:1 halves the first three prices, and the fourth bar is after it:

    >>> old = np.float32([[20, 20, 20, 20, 100]] * 3 + [[10, 10, 10, 10, 200]])
    >>> decide(old, np.float32([[10, 10, 10, 10, 200]] * 4), covers=False, reaches=True)
    Decision(kind='restated', bars=3, factor=0.5, volume_factor=2.0, prefix=3, reason='')
    """

    kind: str
    bars: int = 0
    factor: float = 1.0
    volume_factor: float | None = None
    prefix: int = 0
    reason: str = ""


def differs(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Compare values, float32 (n, 5): bool (n, 5), true where they differ by more than EQUAL_TOLERANCE.

    A stored NaN volume differs from a known one. An incoming NaN volume does not differ, so the stored volume stays.
    """
    before, after = old.astype(np.float64), new.astype(np.float64)
    different = ~(np.abs(after - before) <= EQUAL_TOLERANCE * np.abs(before))
    different[:, 4] &= ~np.isnan(after[:, 4])
    return different


def decide(old: np.ndarray, new: np.ndarray, *, covers: bool, reaches: bool) -> Decision:
    """Decide by the overlapping bars `old` (stored) and `new` (incoming), float32 (n, 5), in order of time.

    covers: the incoming bars begin no later and end no earlier than the stored ones.  reaches: they end no earlier.
    """
    different = differs(old, new)
    n, n_different = len(different), int(different.any(axis=1).sum())
    if not n_different:
        return Decision(UNCHANGED)
    how = "not by one factor" if different[:, :4].any() else "only in volume"
    reason = f"{n_different} of {n} overlapping bars differ, {how}"
    restatement = _price_factor(old, new, np.asarray(different[:, :4].any(axis=1)))
    if restatement is not None:
        prefix, factor = restatement
        shown = f"its overlapping bars differ by the factor {factor:.6g}"
        if not reaches:
            reason = f"{shown}, and the source ends before the store: either could be the restated one"
        elif prefix < MIN_BARS and not covers:
            reason = f"{shown}, which {prefix} of {n} confirm; {MIN_BARS} are needed"
        else:
            volume_factor = _volume_factor(old[:prefix, 4], new[:prefix, 4])
            return Decision(RESTATED, n_different, factor, volume_factor, prefix)
    elif not different[0].any() and 2 * n_different <= n:
        return Decision(REVISED, n_different)
    if covers:
        return Decision(REPLACED, n_different)
    return Decision(REFUSED, n_different, reason=reason)


def _price_factor(old: np.ndarray, new: np.ndarray, different: np.ndarray) -> tuple[int, float] | None:
    """`(prefix, factor)` if all prices before row `prefix` differ by one factor and no later price differs, else None.

    different: bool (n,), whether a price of the bar differs.
    """
    prefix = int(np.flatnonzero(different)[-1]) + 1 if different.any() else 0
    if not prefix:
        return None
    ratio = new[:prefix, :4].astype(np.float64) / old[:prefix, :4]
    factor = float(np.median(ratio))
    allowed = min(FACTOR_TOLERANCE, max(EQUAL_TOLERANCE, abs(factor - 1) * FACTOR_SHARE))
    if not bool((np.abs(ratio / factor - 1) <= allowed).all()):
        return None
    return prefix, factor


def _volume_factor(old: np.ndarray, new: np.ndarray) -> float | None:
    """The common factor between volumes; 1.0 if they are equal within VOLUME_TOLERANCE, None if there is none."""
    known = (old > 0) & (new > 0)
    if not known.any():
        return None
    ratio = new[known].astype(np.float64) / old[known]
    factor = float(np.median(ratio))
    if abs(factor - 1) <= VOLUME_TOLERANCE:
        factor = 1.0
    return factor if bool((np.abs(ratio / factor - 1) <= VOLUME_TOLERANCE).all()) else None
