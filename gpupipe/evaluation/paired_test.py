"""The test that chooses between a pooled model and a sector model: paired log-losses in blocks of dates."""

from __future__ import annotations

import numpy as np

# Neighbouring dates share shocks and overlapping label windows, so differences are summed over blocks of dates.
BLOCK_TIMES = 10


def clearly_better(loss: np.ndarray, reference: np.ndarray, time_ns: np.ndarray) -> bool:
    """Whether the mean of `loss` is below the mean of `reference` by more than one standard error.

    loss, reference: float (n_rows,), nats, of the same rows.  time_ns: int64 (n_rows,).
    The standard error is computed from paired differences, summed over blocks of ten distinct times.
    NaN: rows with a NaN in either are ignored. With fewer than three blocks the answer is False.

        >>> clearly_better(np.full(40, 0.9), np.full(40, 1.0), np.arange(40))
        True
    """
    known = ~(np.isnan(loss) | np.isnan(reference))
    gain = (reference - loss)[known].astype(np.float64)
    block = np.unique(time_ns[known], return_inverse=True)[1] // BLOCK_TIMES
    if gain.size == 0 or block.max() < 2:
        return False
    sums = np.bincount(block, weights=gain)
    standard_error = sums.std(ddof=1) * np.sqrt(len(sums))
    return bool(sums.sum() > standard_error)
