"""What the overlap of stored and arriving bars of one symbol says: the same, revised, restated, or contradictory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Relative: less than any dividend changes a price, more than float32 and a vendor's own arithmetic do.
SAME = 1e-5
# A factor is constant if no price is off by more than a twentieth of what it changes, nor by more than this (prices
# rounded to cents).
FACTOR_TOLERANCE, FACTOR_SHARE = 2e-3, 1 / 20
VOLUME_TOLERANCE = 1e-2  # volumes are rounded to shares, and to lots of them
LEAST_BARS = 3  # overlapping bars that must bear a factor out, before bars that nobody sent again are scaled by it

UNCHANGED, REVISED, RESTATED, REPLACED, REFUSED = "unchanged", "revised", "restated", "replaced", "refused"


@dataclass(frozen=True)
class Decision:
    """What becomes of one symbol.

    kind: UNCHANGED: no overlapping bar differs, new bars are added. REVISED: some bars were corrected, the scale is
    the same; the arriving ones stand. RESTATED: all bars before row `prefix` of the overlap differ by `factor`;
    stored ones that did not arrive again are scaled by it, and their volume by `volume_factor`. REPLACED: the
    arrival takes the place of all stored bars. REFUSED: nothing of the arrival is taken; `reason` says why and what
    helps.  bars: overlapping bars that differ.
    """

    kind: str
    bars: int = 0
    factor: float = 1.0
    volume_factor: float | None = None
    prefix: int = 0
    reason: str = ""


def differs(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """bool (n, 5): which of the values, float32 (n, 5), are not the same within SAME.

    A volume that has become known differs; one that is no longer known does not, and the stored one stays.
    """
    before, after = old.astype(np.float64), new.astype(np.float64)
    apart = ~(np.abs(after - before) <= SAME * np.abs(before))
    apart[:, 4] &= ~np.isnan(after[:, 4])
    return apart


def decide(old: np.ndarray, new: np.ndarray, *, covers: bool, reaches: bool) -> Decision:
    """The Decision on the overlapping bars `old`, `new`, float32 (n, 5), in order of time.

    covers: the arrival begins no later and ends no earlier than what is stored.  reaches: it ends no earlier.
    """
    apart = differs(old, new)
    n, n_apart = len(apart), int(apart.any(axis=1).sum())
    if not n_apart:
        return Decision(UNCHANGED)
    how = "not by one factor" if apart[:, :4].any() else "in volume alone"
    why = f"{n_apart} of {n} overlapping bars differ, {how}"
    found = _factor(old, new, np.asarray(apart[:, :4].any(axis=1)))
    if found is not None:
        prefix, factor = found
        shown = f"its overlapping bars differ by the factor {factor:.6g}"
        if not reaches:
            why = f"{shown}, and the source ends before the store: which is restated cannot be told"
        elif prefix < LEAST_BARS and not covers:
            why = f"{shown}, which {prefix} of {n} bear out; {LEAST_BARS} are needed"
        else:
            volume = _volume_factor(old[:prefix, 4], new[:prefix, 4])
            return Decision(RESTATED, n_apart, factor, volume, prefix)
    elif not apart[0].any() and 2 * n_apart <= n:
        return Decision(REVISED, n_apart)
    if covers:
        return Decision(REPLACED, n_apart)
    return Decision(REFUSED, n_apart, reason=why)


def _factor(old: np.ndarray, new: np.ndarray, apart: np.ndarray) -> tuple[int, float] | None:
    """`(prefix, factor)` where all prices before row `prefix` differ by one factor and none from there on differs.

    apart: bool (n,), whether a price of the bar differs.
    """
    prefix = int(np.flatnonzero(apart)[-1]) + 1 if apart.any() else 0
    if not prefix:
        return None
    ratio = new[:prefix, :4].astype(np.float64) / old[:prefix, :4]
    factor = float(np.median(ratio))
    allowed = min(FACTOR_TOLERANCE, max(SAME, abs(factor - 1) * FACTOR_SHARE))
    if not bool((np.abs(ratio / factor - 1) <= allowed).all()):
        return None
    return prefix, factor


def _volume_factor(old: np.ndarray, new: np.ndarray) -> float | None:
    """The one factor between volumes, 1.0 where they are the same, or None where there is no such factor."""
    known = (old > 0) & (new > 0)
    if not known.any():
        return None
    ratio = new[known].astype(np.float64) / old[known]
    factor = float(np.median(ratio))
    if abs(factor - 1) <= VOLUME_TOLERANCE:
        factor = 1.0
    return factor if bool((np.abs(ratio / factor - 1) <= VOLUME_TOLERANCE).all()) else None
