"""Digests: 128 bits that stand for a row of a matrix, the same on every device."""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from .compile import kernel

WORDS = 4  # of 32 bits each, in a digest


@kernel(types=("i4[:,:]", "i8[:,:]", "i4[:,:]"))
def row_digest(i, bits, factors, digest):
    """128 bits of row i of a float32 matrix: the upper halves of four sums of products modulo 2^64.

        digest[i, w] = (factors[w, 0] + sum over k of factors[w, 1 + k] * bits[i, k]) >> 32

    For factors drawn at random, two different rows have equal digests with a probability of 2^-128 (a word of each sum
    is strongly universal). Whole numbers are added, so that neither order nor device changes a bit.

    Reads:   row i alone.
    Inputs:  bits int32 (n_rows, n_columns), the matrix by its bits; factors int64 (WORDS, n_columns + 1).
    Outputs: digest int32 (n_rows, WORDS).
    NaN:     every NaN counts as the same one: devices differ in its sign and in its lower bits.
    Source:  Lemire and Kaser (2014), Strongly universal string hashing is fast, section 3 (Multilinear, K = 64).
    """
    magnitude, infinity, unknown = np.int32(0x7FFFFFFF), np.int32(0x7F800000), np.int32(0x7FC00000)
    for word in range(digest.shape[1]):
        total = factors[word, 0]
        for k in range(bits.shape[1]):
            value = bits[i, k]
            known = value if (value & magnitude) <= infinity else unknown
            total += factors[word, k + 1] * np.int64(known)
        digest[i, word] = np.int32(total >> 32)


@functools.cache
def digest_factors(n_columns: int) -> np.ndarray:
    """int64 (WORDS, n_columns + 1): the factors of `row_digest`, the same in every process; not to be written to."""
    drawn = hashlib.shake_256(b"row_digest").digest(8 * WORDS * (n_columns + 1))
    return np.frombuffer(drawn, dtype="<i8").astype(np.int64).reshape(WORDS, n_columns + 1)
