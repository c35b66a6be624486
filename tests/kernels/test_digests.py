"""Digests of rows: by the formula in whole numbers, equal for equal rows alone, and the same for every NaN."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.kernels.digests import WORDS, digest_factors, row_digest

WIDTHS = (0, 1, 7, 89)


def matrix(n_columns: int, n_rows: int = 40) -> np.ndarray:
    rng = np.random.default_rng(n_columns)
    values = rng.normal(0, 3, (n_rows, n_columns)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    values[rng.random(values.shape) < 0.1] = np.inf
    values[rng.random(values.shape) < 0.1] = -0.0
    return values


def naive(values: np.ndarray) -> np.ndarray:
    """The same words by Python's whole numbers, which have no upper limit."""
    factors, words = digest_factors(values.shape[1]), np.empty((len(values), WORDS), np.int32)
    for i, row in enumerate(values):
        bits = np.where(np.isnan(row), np.float32(np.nan), row).view(np.int32).tolist()
        for w, (start, *others) in enumerate(factors.tolist()):
            total = start + sum(factor * value for factor, value in zip(others, bits, strict=True))
            words[i, w] = np.uint32((total % 2**64) >> 32).astype(np.int32)
    return words


def digests(device, values: np.ndarray) -> np.ndarray:
    out = device.xp.empty((len(values), WORDS), dtype=np.int32)
    factors = device.asarray(digest_factors(values.shape[1]))
    row_digest(len(values), device.asarray(values).view(np.int32), factors, out)
    return device.to_host(out)


@pytest.mark.parametrize("n_columns", WIDTHS)
def test_digests_are_those_of_whole_numbers(device, n_columns):
    values = matrix(n_columns)
    np.testing.assert_array_equal(digests(device, values), naive(values))


@pytest.mark.parametrize("n_columns", WIDTHS)
def test_compiled_equals_plain_body(n_columns):
    values = matrix(n_columns)
    out = np.empty((len(values), WORDS), np.int32)
    with np.errstate(over="ignore"):  # sums are modulo 2^64
        for i in range(len(values)):
            row_digest.body(i, values.view(np.int32), digest_factors(n_columns), out)
    np.testing.assert_array_equal(out, naive(values))


def test_every_nan_is_the_same_one(device):
    bits = np.array([0x7FC00000, 0x7FFFFFFF, 0xFFC00000, 0x7F800001, 0x7F800000], np.uint32)
    found = digests(device, bits.view(np.float32)[:, None])
    assert (found[:4] == found[0]).all() and (found[4] != found[0]).any()


def test_another_bit_anywhere_is_another_digest(device):
    rows = np.repeat(matrix(7, 1), 7 * 32 + 1, axis=0)
    rows[np.isnan(rows)] = 1.0
    bits = rows.view(np.uint32)
    for change in range(7 * 32):
        bits[change, change // 32] ^= np.uint32(1) << np.uint32(change % 32)
    known = ~np.isnan(rows).any(axis=1)
    found = digests(device, rows)[known]
    assert known.sum() > 200 and len(np.unique(found, axis=0)) == len(found)
    assert all(len(np.unique(found[:, w])) == len(found) for w in range(WORDS))  # each word by itself, here


def test_factors_are_the_same_in_every_process():
    factors = digest_factors(2)
    assert factors.shape == (WORDS, 3) and len(np.unique(factors)) == factors.size
    assert factors[0, 0] == -8447117199438463144 and digest_factors(2) is factors
