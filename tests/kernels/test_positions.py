"""Kernels of position paths: the compiled loop equals the plain body; edges. tests/backtest has the event loop."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.kernels.positions import position_equity, position_trades
from tests.support.panels import random_panel

LENGTHS = (60, 0, 1, 2, 30)


def arguments(at_close=0, size=1.0, seed=0, lengths=LENGTHS, n_paths=3):
    """Inputs of position_equity, on bars with unknown prices and halts, and its outputs, all of them filled with 7."""
    rng, panel = np.random.default_rng(seed), random_panel(lengths)
    n = panel.n_rows
    for column in (panel.open, panel.close):
        column[rng.random(n) < 0.05] = np.nan
    position = rng.integers(-1, 2, (n_paths, n)).astype(np.int8)
    halted = (rng.random(n) < 0.1).astype(np.int8)
    outputs = [np.full((n_paths, n), 7, kind) for kind in ("f8", "i1", "f8", "f8")]
    return [
        position, panel.offsets, panel.open, panel.close, halted, rng.uniform(0, 0.01, n), np.float64(1e-3),
        np.float64(size), np.float64(1.0), np.int64(at_close), *outputs,
    ]  # fmt: skip


def by_body(kernel, n, given):
    copies = [np.array(a) if np.ndim(a) else a for a in given]
    with np.errstate(all="ignore"):
        for i in range(n):
            kernel.body(np.int64(i), *copies)
    return copies


def list_arguments(given):
    """Inputs of position_trades for the outputs of position_equity, without the list."""
    position, offsets, open_, close, _, slip, commission, _, _, at_close, equity, held, _, _ = given
    symbols = np.array([4, 0, 3, 1, 2])
    n = len(position) * len(symbols)
    counts = [np.full(n, 7), np.full(n, 7)]
    return n, [position, symbols, offsets, equity, held, open_, close, slip, commission, at_close], counts


def listed(n, columns=("i8", "i8", "i8", "i8", "i1", "f4", "f4", "i1", "b1", "f8")):
    return [np.zeros(n, kind) for kind in columns]


@pytest.mark.parametrize("at_close", [0, 1])
@pytest.mark.parametrize("size", [1.0, 40.0])
def test_compiled_equals_the_plain_body(at_close, size):
    given = arguments(at_close, size)
    n = 3 * len(LENGTHS)
    body = by_body(position_equity, n, given)
    position_equity(n, *given)
    for got, expected in zip(given, body, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert not (given[-4] == 7).any() and (given[-4] <= 0).any() == (size > 1)

    n, inputs, counts = list_arguments(given)
    counting = [*inputs, np.zeros(n, np.int64), np.int64(0), *counts, *listed(0)]
    body = by_body(position_trades, n, counting)
    position_trades(n, *counting)
    for got, expected in zip(counting, body, strict=True):
        np.testing.assert_array_equal(got, expected)
    count, unfilled = counts
    assert (count >= 0).all() and count.sum() > 10 and (unfilled.sum() > 3 or size > 1)

    begin = np.concatenate([[0], np.cumsum(count)])
    listing = [*inputs, begin[:-1].copy(), np.int64(1), *counts, *listed(begin[-1])]
    body = by_body(position_trades, n, listing)
    position_trades(n, *listing)
    for got, expected in zip(listing, body, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(listing[-11], unfilled)  # counted, and left as it is


def test_no_rows_and_one_row():
    given = arguments(lengths=(0, 1), n_paths=1)
    position_equity(2, *given)
    assert given[-4].tolist() == [[1.0]] and given[-3].tolist() == [[0]]
    assert given[-2].tolist() == given[-1].tolist() == [[0.0]]


def test_one_thread_and_many_give_equal_bytes():
    """Items are apart: their order, and how many there are in a call, do not matter."""
    given, again = arguments(), arguments()
    position_equity(3 * len(LENGTHS), *given)
    for path in range(3):
        alone = [again[0][path : path + 1].copy(), *again[1:10], *(a[path : path + 1].copy() for a in again[10:])]
        position_equity(len(LENGTHS), *alone)
        for got, expected in zip(alone[10:], given[10:], strict=True):
            np.testing.assert_array_equal(got[0], expected[path])
