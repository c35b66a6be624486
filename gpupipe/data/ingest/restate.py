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
OPEN_TOLERANCE = 1e-3  # of the open of a bar that was taken while the market was open, and of the finished bar

UNCHANGED, REVISED, RESTATED, REPLACED, REFUSED = "unchanged", "revised", "restated", "replaced", "refused"


@dataclass(frozen=True)
class Decision:
    """How to merge the bars of one symbol.

    kind: one of
        UNCHANGED: no overlapping bar differs; new bars are added.
        REVISED: some bars were corrected or completed at the same scale; incoming values replace stored ones.
        RESTATED: all bars before row `prefix` of the overlap differ by `factor`. Stored bars that the source did not
            send again are scaled by it, and their volumes by `volume_factor` (None: no common factor, kept).
        REPLACED: the incoming bars replace all stored ones.
        REFUSED: no incoming bar is taken; `reason` says why.
    bars: number of overlapping bars that differ.  completed: how many of them were unfinished in the store.

    A split 2:1 halves the first three prices, and the fourth bar is after it:

    >>> old = np.float32([[20, 20, 20, 20, 100]] * 3 + [[10, 10, 10, 10, 200]])
    >>> decide(old, np.float32([[10, 10, 10, 10, 200]] * 4), covers=False, reaches=True)
    Decision(kind='restated', bars=3, factor=0.5, volume_factor=2.0, prefix=3, reason='', completed=0)
    """

    kind: str
    bars: int = 0
    factor: float = 1.0
    volume_factor: float | None = None
    prefix: int = 0
    reason: str = ""
    completed: int = 0


def differs(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Compare values, float32 (n, 5): bool (n, 5), true where they differ by more than EQUAL_TOLERANCE.

    A stored NaN volume differs from a known one. An incoming NaN volume does not differ, so the stored volume stays.
    """
    before, after = old.astype(np.float64), new.astype(np.float64)
    different = ~(np.abs(after - before) <= EQUAL_TOLERANCE * np.abs(before))
    different[:, 4] &= ~np.isnan(after[:, 4])
    return different


def is_older_snapshot(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Whether incoming bars were taken while the market was open, before the stored ones: bool (n,).

    old, new: stored and incoming bars of the same sessions, float32 (n, 5). An older snapshot has the same open, no
    higher high, no lower low and less volume than the later one. Where a volume is not known or zero, its range must
    be narrower.
    """
    before, after = old.astype(np.float64), new.astype(np.float64)
    margin = EQUAL_TOLERANCE * before
    same_open = np.abs(after[:, 0] - before[:, 0]) <= OPEN_TOLERANCE * before[:, 0]
    within = (after[:, 1] <= before[:, 1] + margin[:, 1]) & (after[:, 2] >= before[:, 2] - margin[:, 2])
    narrower = (after[:, 1] < before[:, 1] - margin[:, 1]) | (after[:, 2] > before[:, 2] + margin[:, 2])
    traded = (before[:, 4] > 0) & (after[:, 4] > 0)
    less = np.where(traded, after[:, 4] < before[:, 4] * (1 - VOLUME_TOLERANCE), narrower)
    return same_open & within & less


def decide(old: np.ndarray, new: np.ndarray, *, covers: bool, reaches: bool, at_end: bool = False) -> Decision:
    """Decide by the overlapping bars `old` (stored) and `new` (incoming), float32 (n, 5), in order of time.

    covers: the incoming bars begin no later and end no earlier than the stored ones.  reaches: they end no earlier.
    at_end: the last overlapping bar is the last stored one, so it may have been unfinished when it was stored.

    The rules, in this order:

    1. No bar differs: UNCHANGED.
    2. A stored bar that is an older snapshot of the incoming one (`is_older_snapshot`) is unfinished, and completed
       whatever the others say. So is the last stored bar if the incoming one begins at the same open (to 0.1 %), or
       has a range that contains the stored one's and at least its volume. The rules below look at the other bars. If
       none of them differs: REVISED. So an overlap of one bar is enough for the next bars to be added. A bar whose
       four prices all differ by one factor is not unfinished: that looks like a split or a dividend, and one bar does
       not confirm it.
    3. All prices up to some bar differ by one factor: RESTATED, if the source reaches the end of the store, and either
       MIN_BARS bars confirm the factor or the source covers the store. If only the last stored bar is off the factor,
       it is unfinished at the new scale: its open must follow the factor.
    4. At most half of the bars differ, and not the first: REVISED.
    5. Otherwise REPLACED if the source covers the store, else REFUSED.

    An unfinished bar and the finished one with a new range:

    >>> decide(np.float32([[10, 11, 10, 11, 5]]), np.float32([[10, 12, 9, 9.5, 8]]), covers=False, reaches=True,
    ...        at_end=True)
    Decision(kind='revised', bars=1, factor=1.0, volume_factor=None, prefix=0, reason='', completed=1)
    """
    different = differs(old, new)
    n, n_different = len(different), int(different.any(axis=1).sum())
    if not n_different:
        return Decision(UNCHANGED)
    how = "not by one factor" if different[:, :4].any() else "only in volume"
    reason = f"{n_different} of {n} overlapping bars differ, {how}"
    if n == 1 and different[0, 0]:
        reason += f", and the open by {new[0, 0] / old[0, 0]:.4g}: a split, a dividend or another source"
    restatement, completed, rescaled = _examine(old, new, different, at_end=at_end)
    n_completed = int(completed.sum())
    if n_completed == n_different:
        return Decision(REVISED, n_different, completed=n_completed)
    if restatement is not None:
        prefix, factor = restatement
        confirmed = np.flatnonzero(~completed[:prefix])
        shown = f"its overlapping bars differ by the factor {factor:.6g}"
        if not reaches:
            reason = f"{shown}, and the source ends before the store: either could be the restated one"
        elif len(confirmed) < MIN_BARS and not covers:
            reason = f"{shown}, which {len(confirmed)} of {n} confirm; {MIN_BARS} are needed"
        else:
            volume_factor = _volume_factor(old[confirmed, 4], new[confirmed, 4])
            completed_bars = n_completed + rescaled
            return Decision(RESTATED, n_different, factor, volume_factor, prefix + rescaled, completed=completed_bars)
    elif not different[~completed][0].any() and 2 * (n_different - n_completed) <= n - n_completed:
        return Decision(REVISED, n_different, completed=n_completed)
    if covers:
        return Decision(REPLACED, n_different)
    return Decision(REFUSED, n_different, reason=reason)


def _examine(
    old: np.ndarray, new: np.ndarray, different: np.ndarray, *, at_end: bool
) -> tuple[tuple[int, float] | None, np.ndarray, bool]:
    """`((prefix, factor) or None, bool (n,): unfinished stored bars, whether the last is one at the factor's scale)`.

    prefix: overlapping bars up to it that are not unfinished differ by the factor, later ones do not.
    """
    of_price = np.asarray(different[:, :4].any(axis=1))
    completed = of_price & is_older_snapshot(new, old)  # a volume alone may be another source's
    rows = np.flatnonzero(~completed)
    restatement = _price_factor(old[rows], new[rows], of_price[rows])
    rescaled = False
    if restatement is None and at_end and different[-1].any() and not completed[-1]:
        completed[-1] = _completes(old[-1], new[-1])
        rows = rows[:-1]
        restatement = _price_factor(old[rows], new[rows], of_price[rows])
        if restatement is not None and not completed[-1]:
            rescaled = restatement[0] == len(rows) and _completes(old[-1] * _scale(restatement[1]), new[-1])
            restatement = restatement if rescaled else None
    if restatement is not None:
        restatement = int(rows[restatement[0] - 1]) + 1, restatement[1]
    return restatement, completed, rescaled


def _completes(old: np.ndarray, new: np.ndarray) -> bool:
    """Whether a bar, float32 (5,), can be the finished one of an unfinished stored bar; see `decide`."""
    before, after = old.astype(np.float64), new.astype(np.float64)
    if abs(after[0] - before[0]) <= OPEN_TOLERANCE * before[0]:
        return True
    contains = after[1] >= before[1] * (1 - EQUAL_TOLERANCE) and after[2] <= before[2] * (1 + EQUAL_TOLERANCE)
    return bool(contains and not after[4] < before[4])


def _scale(factor: float) -> np.ndarray:
    """float64 (5,), multiplies the prices of a bar by a factor; its volume becomes unknown."""
    return np.array([factor] * 4 + [np.nan])


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
