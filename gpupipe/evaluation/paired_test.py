"""Choosing between the pooled and the sector's own model: by validation log-loss, with the noise of it in mind."""

from __future__ import annotations

import numpy as np

# Neighbouring dates share shocks and overlapping label windows; differences are summed over blocks of this many.
BLOCK_TIMES = 10


def clearly_better(loss: np.ndarray, reference: np.ndarray, time_ns: np.ndarray) -> bool:
    """Whether the mean of `loss` lies below that of `reference` by more than one standard error.

    loss, reference: float (n_rows,), nats, of the same rows.  time_ns: int64 (n_rows,).
    The standard error is that of paired differences summed in blocks of ten distinct times. Rows where
    either is NaN are left out; with fewer than three blocks nothing is clear.
    """
    known = ~(np.isnan(loss) | np.isnan(reference))
    gain = (reference - loss)[known].astype(np.float64)
    block = np.unique(time_ns[known], return_inverse=True)[1] // BLOCK_TIMES
    if gain.size == 0 or block.max() < 2:
        return False
    sums = np.bincount(block, weights=gain)
    standard_error = sums.std(ddof=1) * np.sqrt(len(sums))
    return bool(sums.sum() > standard_error)
