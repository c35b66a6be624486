"""Names of tenors, and rates between them."""

import numpy as np
import pytest

from gpupipe.workloads.bonds.par_curve import interpolated, tenor_of, tenor_years


@pytest.mark.parametrize(
    ("name", "tenor"),
    [
        ("m1", "m1"), ("1M", "m1"), ("12m", "y1"), ("1 Yr", "y1"), ("30Y", "y30"), ("DGS1MO", "m1"), ("DGS30", "y30"),
        ("BC_3MONTH", "m3"), ("1.5 Month", "m1_5"), ("curve_y10", "y10"), ("y_10", "y10"), ("10-year", "y10"),
        ("date", ""), ("10", ""), ("y0", ""), ("200y", ""), ("volume", ""), ("", ""),
    ],
)  # fmt: skip
def test_names_of_tenors(name, tenor):
    assert tenor_of(name) == tenor


def test_years_of_tenors():
    np.testing.assert_allclose(tenor_years(("m1", "m1_5", "m6", "y1", "y30")), [1 / 12, 0.125, 0.5, 1, 30])


def test_rates_between_tenors_equal_numpys_row_by_row():
    rng = np.random.default_rng(0)
    tenors = np.array([0.25, 1.0, 2.0, 10.0, 30.0])
    rates = np.where(rng.random((300, 5)) < 0.4, np.nan, rng.random((300, 5)))
    years = np.where(rng.random(300) < 0.2, rng.choice(tenors, 300), rng.uniform(0, 40, 300))
    found = interpolated(tenors, rates, years)
    for row, (values, year) in enumerate(zip(rates, years, strict=True)):
        known = ~np.isnan(values)
        expected = np.interp(year, tenors[known], values[known]) if known.any() else np.nan
        np.testing.assert_allclose(found[row], expected, rtol=1e-13)


def test_no_rows_and_unknown_years():
    assert interpolated(np.array([1.0]), np.zeros((0, 1)), np.zeros(0)).shape == (0,)
    assert np.isnan(interpolated(np.array([1.0]), np.array([[2.0]]), np.array([np.nan]))).all()
