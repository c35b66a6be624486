"""Percent or fractions: told by a whole column, or refused."""

import numpy as np
import pytest

from gpupipe.data import DataError
from gpupipe.workloads.bonds import rate_units

NAN = np.nan


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([4.5, 5.0], "percent"),
        ([0.0, 0.0], "percent"),
        ([], "percent"),
        ([NAN], "percent"),
        ([0.02, 0.05, 2.5, 3.0], "percent"),  # the short end was near zero
        ([-0.5, -0.3, 0.8, 1.2], "percent"),
        ([0.045, 0.05125], "fraction"),
        ([0.0453], "fraction"),
        ([-0.0031, 0.0012, NAN, 0.0], "fraction"),
    ],
)
@pytest.mark.parametrize("stepped", [True, False])
def test_a_column_tells_its_unit(values, unit, stepped):
    assert rate_units.unit_of_rates(np.array(values, np.float64), "x", stepped=stepped) == unit


@pytest.mark.parametrize("values", [[0.3, 0.35, 0.4], [0.05, 0.1, 0.12]])
def test_what_may_be_either_is_refused_unless_it_is_said(values):
    with pytest.raises(DataError, match=r"^curve: rates such as 0.\d+ may be percent or fractions: say which"):
        rate_units.unit_of_rates(np.array(values), "curve", stepped=True)
    for unit in ("percent", "fraction"):
        assert rate_units.unit_of_rates(np.array(values), "curve", unit, stepped=True) == unit


def test_coupons_of_whole_percents_are_fractions():
    assert rate_units.unit_of_rates(np.array([0.05, 0.06, 0.07]), "coupon") == "fraction"


def test_fractions_become_round_percent():
    np.testing.assert_array_equal(rate_units.in_percent(np.array([0.07, 0.0375, NAN]), "fraction"), [7.0, 3.75, NAN])
    values = np.array([7.0])
    assert rate_units.in_percent(values, "percent") is values


def test_prices_of_par_one_are_multiplied():
    clean, notes = rate_units.prices_in_percent(np.array([0.98, 1.01, NAN]))
    np.testing.assert_array_equal(clean, [98.0, 101.0, NAN])
    assert notes == ("prices were read as shares of par, and multiplied by 100",)
    assert rate_units.prices_in_percent(np.array([98.0, 1.5]))[1] == ()  # one distressed bond among others


def test_unknown_choice_is_refused():
    with pytest.raises(DataError, match="rates is 'bp', expected auto, percent, fraction"):
        rate_units.check_choice("bp")


def test_a_negative_rate_is_shown_as_it_is():
    with pytest.raises(DataError, match=r"rates such as -0\.5 may be percent or fractions"):
        rate_units.unit_of_rates(np.array([np.nan, 0.0, -0.5, 0.4]), "curve")
