"""exp and log for kernels against correctly rounded ones, and the same bits from the plain body and the CPU loop."""

from __future__ import annotations

from decimal import Decimal, getcontext

import numpy as np
import pytest

from gpupipe.kernels import elementary
from gpupipe.kernels.compile import kernel
from gpupipe.kernels.elementary import (
    exp_32,
    exp_64,
    expm1_64,
    log1p_64,
    log_32,
    log_64,
    log_growth,
    logarithms,
)

SMALLEST, LARGEST = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max


@kernel(types=("f4[:]", "f4[:]", "f4[:]"))
def both_32(i, x, exp, log):
    exp[i], log[i] = exp_32(x[i]), log_32(x[i])


@kernel(types=("f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]"), double_precision=True)
def all_64(i, x, exp, log, expm1, log1p):
    exp[i], log[i], expm1[i], log1p[i] = exp_64(x[i]), log_64(x[i]), expm1_64(x[i]), log1p_64(x[i])


def numbers_32() -> np.ndarray:
    """Every 20,011th float32, all that are special, and those around the edges of range, of subnormals and of 1."""
    dense = np.arange(0, 1 << 32, 20_011, dtype=np.uint64).astype(np.uint32).view(np.float32)
    edges = np.float32([88.722839, -87.336548, -103.278929, -103.972084, 89, -105, 1, 0.70710678, 2**-126, 0])
    around = (edges.view(np.int32)[:, None] + np.arange(-40, 41)).astype(np.int32).view(np.float32).ravel()
    special = np.float32([0, -0.0, np.inf, -np.inf, np.nan, SMALLEST, -SMALLEST, LARGEST, -LARGEST, -1])
    return np.concatenate([dense, around, special, np.linspace(-110, 95, 100_000, dtype=np.float32)])


def numbers_64() -> np.ndarray:
    """Numbers of all sizes and signs, dense near 0 and 1, and the edges."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(-745, 709, 2_000))
    edges = [0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 2.0**-1022, 1, -1, 709.782712893384, 709.782712893385, 710, -710,
             -708.4, -744.44, -745.133219101941, -745.14, -746, 1e308, -1e-300, 41.5, 42.5, -37.4]  # fmt: skip
    return np.concatenate([
        sizes, -sizes, rng.uniform(-750, 715, 3_000), rng.uniform(-1, 3, 3_000), 1 + rng.normal(0, 1e-6, 500), edges
    ])  # fmt: skip


def computed(kernel_of, x, n_outputs):
    outputs = [np.empty_like(x) for _ in range(n_outputs)]
    kernel_of(len(x), x, *outputs)
    return outputs


def units(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest distance in units in the last place; exact float64 of finite numbers, or their float64 rounding."""
    place = np.spacing(np.abs(exact.astype(got.dtype))).astype(np.float64)
    return float(np.max(np.abs(got.astype(np.float64) - exact) / place))


@pytest.mark.parametrize(("name", "exact", "bound"), [("exp", np.exp, 0.93), ("log", np.log, 0.9)])
def test_float32_is_within_a_unit(name, exact, bound):
    x = numbers_32()
    got = computed(both_32, x, 2)[name == "log"]
    with np.errstate(all="ignore"):
        expected = exact(x.astype(np.float64))
        rounded = expected.astype(np.float32)
    finite = np.isfinite(rounded)
    # Where the correctly rounded number is infinite, 0 or NaN, so is ours.
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    assert units(got[finite], expected[finite]) <= bound
    assert (got[rounded == 0] == 0).all()


def decimal_units(got: np.ndarray, exact: list[Decimal]) -> float:
    """The largest distance of float64 numbers in units in the last place."""
    places = (Decimal(float(np.spacing(abs(float(value))))) for value in exact)
    return max(
        float(abs(Decimal(float(a)) - value) / place) for a, value, place in zip(got, exact, places, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "bound"), [("exp", 0.9), ("log", 0.9), ("expm1", 1.7), ("log1p", 1.5)]
)  # fmt: skip
def test_float64_is_within_two_units(name, bound):
    getcontext().prec = 80
    x = numbers_64()
    got = dict(zip(("exp", "log", "expm1", "log1p"), computed(all_64, x, 4), strict=True))[name]
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x)
    sharp = np.isfinite(expected) & (expected != 0) & np.isfinite(got)
    if name in ("expm1", "log1p"):  # of smaller numbers they are the number
        sharp &= np.abs(x) > 1e-40
    np.testing.assert_array_equal(got[~np.isfinite(expected)], expected[~np.isfinite(expected)])
    np.testing.assert_allclose(got[~sharp], expected[~sharp], rtol=1e-15)
    exact = {
        "exp": lambda v: v.exp(), "log": lambda v: v.ln(), "expm1": lambda v: v.exp() - 1,
        "log1p": lambda v: (1 + v).ln(),
    }[name]  # fmt: skip
    assert decimal_units(got[sharp], [exact(Decimal(float(v))) for v in x[sharp]]) <= bound


def test_plain_bodies_equal_the_compiled_loops():
    x, wide = numbers_32()[::1_000], np.ascontiguousarray(numbers_64()[::10])
    x = np.concatenate([x, numbers_32()[-100_010 : -100_000 + 10]])
    for kernel_of, numbers, n_outputs in ((both_32, x, 2), (all_64, wide, 4)):
        plain, compiled = [np.empty_like(numbers) for _ in range(n_outputs)], computed(kernel_of, numbers, n_outputs)
        with np.errstate(all="ignore"):
            for i in range(len(numbers)):
                kernel_of.body(i, numbers, *plain)
        for a, b in zip(plain, compiled, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


def test_kernels_of_logarithms():
    x = np.float32([0, -1, np.nan, np.inf, 1e-45, 1, 2.5, 0.1])
    with np.errstate(all="ignore"):
        expected, growth = np.log(x), np.log1p(x.astype(np.float64)).astype(np.float32)
    for at_once in (1, 3, 100):
        out = np.empty_like(x)
        logarithms(-(-len(x) // at_once), np.int64(at_once), x, out)
        np.testing.assert_allclose(out, expected, rtol=1.2e-7)
    log_growth(len(x), x, out)
    np.testing.assert_allclose(out, growth, rtol=1e-7)
    logarithms(0, np.int64(4), x[:0], out[:0])


def test_no_function_of_a_library_is_called():
    """A library's exp rounds as it likes."""
    for name in ("exp_32", "log_32", "exp_64", "log_64", "expm1_64", "log1p_64"):
        assert "math" not in getattr(elementary, name).__code__.co_names
