"""Arithmetic of arrays: known sums whatever the order in memory, logarithms of any shape, norms of derivatives."""

from __future__ import annotations

import numpy as np

from gpupipe.estimators import arithmetic
from gpupipe.kernels.sums import ROWS_OF_BLOCK
from tests.support.fitting import CPU


def test_known_sums_do_not_depend_on_the_order_in_memory():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2 * ROWS_OF_BLOCK + 30, 4)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    sums = arithmetic.known_sums(values, CPU)
    np.testing.assert_allclose(sums[0], np.nansum(values.astype(np.float64), axis=0), rtol=1e-12)
    np.testing.assert_array_equal(sums[1], (~np.isnan(values)).sum(axis=0))
    np.testing.assert_array_equal(arithmetic.known_sums(np.asfortranarray(values), CPU), sums)
    np.testing.assert_array_equal(arithmetic.known_sums(values[:0], CPU), np.zeros((2, 4)))


def test_logarithms_of_parts_of_arrays():
    x = np.random.default_rng(2).dirichlet((1, 2, 1), (50, 3)).astype(np.float32)
    np.testing.assert_allclose(arithmetic.log(x[:, 1], CPU), np.log(x[:, 1]), rtol=2e-7)
    assert arithmetic.log(x[:0], CPU).shape == (0, 3, 3)


def test_norms_of_derivatives():
    gradient, hessian = np.random.default_rng(3).normal(size=(2, 40, 6)).astype(np.float32)
    norms = arithmetic.derivative_norms(gradient, hessian, CPU)
    np.testing.assert_allclose(norms, np.sqrt((gradient**2 + hessian**2).sum(axis=1)), rtol=1e-6)
