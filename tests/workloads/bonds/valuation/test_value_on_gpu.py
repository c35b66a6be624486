"""A table of bonds on a GPU is valued as on the CPU, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe import bonds
from gpupipe.runtime.device import pick, why_no_cuda
from tests.support.made_bonds import made_table, with_calls_and_rates

pytestmark = pytest.mark.gpu

CURVE = {"tenors": [0.25, 2.0, 10.0], "rates": [[1.0, np.nan, 3.0], [2.0, 2.5, 2.0]], "dates": [1_000, 12_000]}


@pytest.fixture(scope="module")
def device():
    if problem := why_no_cuda():
        pytest.skip(problem)
    return pick("cuda")


@pytest.fixture(scope="module")
def table():
    """Bonds of all kinds, calls and floating coupons among them."""
    made = with_calls_and_rates(made_table(200, seed=16), seed=17)
    return {**made, "clean": np.random.default_rng(18).uniform(90, 110, 200)}


def moved(table, device):
    """Numbers and dates on the device, dates as int64 days; texts stay."""
    plain = {name: column.view(np.int64) if column.dtype.kind == "M" else column for name, column in table.items()}
    return {name: column if column.dtype.kind == "U" else device.asarray(column) for name, column in plain.items()}


def assert_equal(on_host, on_device, device):
    assert list(on_host) == list(on_device)
    for name, column in on_host.items():
        got = device.to_host(on_device[name])
        np.testing.assert_array_equal(got, column.astype(got.dtype), err_msg=name)


@pytest.mark.parametrize("convention", ["street", "quantlib"])
@pytest.mark.parametrize("given", ["yield", "clean", "curve"])
@pytest.mark.parametrize("kind", ["par", "zero"])
def test_values_on_both_devices(table, device, given, convention, kind):
    curve = bonds.Curve(CURVE["tenors"], CURVE["rates"], kind, CURVE["dates"], None)
    on_host, on_device = (
        bonds.value(made, given, convention, curve, errors="ignore") for made in (table, moved(table, device))
    )
    assert (on_host["status"] == 0).sum() > 100
    assert_equal(on_host, on_device, device)


def test_prices_by_the_treasury_s_convention(table, device):
    fixed = {name: table[name] for name in ("coupon", "frequency", "issue", "maturity", "settlement", "day_count")}
    fixed["yield"] = table["yield"]
    on_host, on_device = (
        bonds.value(made, "yield", "treasury", errors="ignore") for made in (fixed, moved(fixed, device))
    )
    assert_equal(on_host, on_device, device)


def test_key_rate_durations_on_both_devices(table, device):
    curve = bonds.Curve(CURVE["tenors"], CURVE["rates"], "par", CURVE["dates"], None)
    on_host, on_device = (
        bonds.key_rate_durations(made, curve, errors="ignore") for made in (table, moved(table, device))
    )
    assert_equal(on_host, on_device, device)
