"""The target of values: the next row of the same symbol."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpupipe.targets.next_period import next_row


def naive(values, time_ns, offsets, most_ns):
    """The rule in a loop."""
    found = np.full(len(values), -1)
    for begin, end in itertools.pairwise(offsets):
        for i in range(begin, end - 1):
            if time_ns[i + 1] - time_ns[i] <= most_ns and np.isfinite(values[i + 1]):
                found[i] = i + 1
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_next_row_is_that_of_the_loop(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 6, 12)
    offsets = np.append(0, np.cumsum(counts))
    times = np.concatenate([np.sort(rng.choice(60, n, replace=False)) for n in counts]).astype(np.int64)
    values = np.where(rng.random(len(times)) < 0.2, np.nan, rng.standard_normal(len(times)))
    found = next_row(values, times, offsets, 15)
    assert found.dtype == np.int64 and np.array_equal(found, naive(values, times, offsets, 15))


@pytest.mark.parametrize("n_rows", [0, 1])
def test_too_few_rows_have_no_next_one(n_rows):
    assert next_row(np.zeros(n_rows), np.zeros(n_rows, np.int64), np.array([0, n_rows]), 9).tolist() == [-1] * n_rows


def test_symbols_without_rows_shift_nothing():
    offsets = np.array([0, 0, 2, 2, 3, 3])
    assert next_row(np.ones(3), np.array([0, 1, 2]), offsets, 5).tolist() == [1, -1, -1]


def test_a_gap_of_exactly_the_limit_still_counts():
    assert next_row(np.ones(3), np.array([0, 5, 11]), np.array([0, 3]), 5).tolist() == [1, -1, -1]
