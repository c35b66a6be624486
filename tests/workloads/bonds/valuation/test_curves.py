"""Curves: bootstrapped discounts, prices and spreads on them, floating bonds, key-rate durations."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from gpupipe import bonds
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds.valuation.pricing import tenor_name
from tests.support.made_bonds import dates, made_table, with_calls_and_rates

TENORS = np.array([1 / 12, 0.25, 0.5, 1, 2, 3, 5, 7, 10, 20, 30])
PAR = np.array([0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.2, 2.6, 2.9, 3.4, 3.6])
NOTE = {"frequency": 2, "issue": dates("2020-01-15"), "settlement": dates("2020-01-15"), "day_count": "act/act"}


def test_par_rates_price_their_bonds_at_par():
    curve = bonds.Curve(TENORS, PAR)
    times, log_discount = curve.nodes()
    discount = dict(zip(times.tolist(), np.exp(log_discount[0]), strict=True))
    for k in range(1, 61):
        halves = [discount[0.5 * j] for j in range(1, k + 1)]
        rate = np.interp(0.5 * k, TENORS, PAR) / 100
        assert rate / 2 * sum(halves) + halves[-1] == pytest.approx(1, abs=1e-14)
    assert discount[0.25] == pytest.approx(1 / (1 + 0.002 * 0.25), abs=1e-15)
    assert times.tolist()[:4] == [1 / 12, 0.25, 0.5, 1.0] and times[-1] == 30


def test_missing_tenors_are_left_out():
    gaps = np.where(np.isin(TENORS, (1 / 12, 5, 20)), np.nan, PAR)
    whole = np.where(np.isnan(gaps), np.interp(TENORS, TENORS[~np.isnan(gaps)], gaps[~np.isnan(gaps)]), gaps)
    for kind in ("par", "zero"):
        both = [bonds.Curve(TENORS, rates, kind).nodes()[1] for rates in (gaps, whole)]
        np.testing.assert_allclose(*both, rtol=0, atol=1e-15)
    assert np.isnan(bonds.Curve(TENORS, np.full(11, np.nan)).nodes()[1]).all()


def test_par_bonds_are_worth_100_on_their_curve():
    years = np.array([2, 5, 10, 30])
    table = {**NOTE, "maturity": dates([f"{2020 + y}-01-15" for y in years]), "coupon": np.interp(years, TENORS, PAR)}
    valued = bonds.value(table, given="curve", curve=bonds.Curve(TENORS, PAR))
    np.testing.assert_allclose(valued["clean"], 100, atol=0.01)  # half-years of the calendar are not all of one length
    np.testing.assert_allclose(valued["yield"], table["coupon"], atol=0.005)
    np.testing.assert_array_equal(valued["clean"], valued["curve_clean"])


def flat(rate):
    return bonds.Curve([1.0, 30.0], [rate, rate], "zero")


def test_a_zero_on_a_flat_curve():
    table = {**NOTE, "maturity": dates(["2030-01-15", "2070-01-15"]), "coupon": 0.0}
    valued = bonds.value(table, given="curve", curve=flat(3.0))
    days = (table["maturity"] - NOTE["settlement"]).astype(int)
    np.testing.assert_allclose(valued["clean"], 100 * np.exp(-0.03 * days / 365.25), rtol=1e-13)


def test_spreads_are_found_again():
    table = with_calls_and_rates(made_table(600, seed=11), seed=12)
    curve = bonds.Curve(TENORS, PAR)
    spread = np.random.default_rng(13).uniform(-1, 5, 600)
    priced = bonds.value({**table, "spread": spread}, given="curve", curve=curve, errors="ignore")
    found = bonds.value({**table, "clean": priced["curve_clean"]}, curve=curve, errors="ignore")
    long = (table["maturity"] - table["settlement"]).astype(int) > 30
    np.testing.assert_allclose(found["spread"][long], spread[long], atol=1e-10)
    on_curve = bonds.value(table, given="curve", curve=curve, errors="ignore")
    np.testing.assert_array_equal(found["curve_clean"], on_curve["clean"])
    by_yield = bonds.value({**table, "yield": priced["yield"]}, given="yield", curve=curve, errors="ignore")
    fine = long & (priced["status"] == 0)
    np.testing.assert_allclose(by_yield["spread"][fine], spread[fine], atol=1e-8)
    assert fine.sum() > 500


def test_a_floating_bond_pays_its_curve():
    """With the curve's own rate for the current period and no margin it is worth 100 on a coupon date."""
    curve = bonds.Curve(TENORS, PAR)
    maturity = dates(["2023-01-15", "2030-01-15"])
    first = dates("2020-07-15")
    share = (first - NOTE["settlement"]).astype(int)
    _, log_discount = curve.nodes()
    time = share / 365.25
    discount = np.exp(np.interp(time, [0, 1 / 12, 0.25, 0.5], [0, *log_discount[0, :3]]))
    coupon = 100 * (1 / discount - 1) * 360 / share
    table = {**NOTE, "day_count": "act/360", "type": "floating", "maturity": maturity, "coupon": coupon}
    valued = bonds.value(table, given="curve", curve=curve)
    np.testing.assert_allclose(valued["clean"], 100, atol=1e-11)
    margin = bonds.value({**table, "margin": 1.0}, given="curve", curve=curve)["clean"]
    annuity = bonds.value({**table, "type": "fixed", "coupon": 1.0}, given="curve", curve=curve)["clean"]
    zero = bonds.value({**table, "type": "fixed", "coupon": 0.0}, given="curve", curve=curve)["clean"]
    first_coupon = discount * share / 360  # the current coupon has no margin on top
    np.testing.assert_allclose(margin - 100, annuity - zero - first_coupon, atol=1e-11)
    keys = bonds.key_rate_durations(table, curve)
    assert (np.abs(keys["duration"]) < 0.6).all()  # the first coupon alone is fixed
    yields = bonds.value({**table, "clean": valued["clean"]}, curve=curve)
    back = bonds.value({**table, "yield": yields["yield"]}, given="yield", curve=curve)
    np.testing.assert_allclose(back["clean"], 100, atol=1e-10)


@pytest.mark.parametrize("kind", ["par", "zero"])
def test_key_rates_add_up_to_a_shift_of_the_whole_curve(kind):
    curve = bonds.Curve(TENORS, PAR, kind)
    table = {**made_table(200, seed=14), "spread": 1.0}
    keys = bonds.key_rate_durations(table, curve)
    up, down = (
        bonds.value(table, given="curve", curve=bonds.Curve(TENORS, PAR + shift, kind), errors="ignore")["dirty"]
        for shift in (0.01, -0.01)
    )
    price = bonds.value(table, given="curve", curve=curve, errors="ignore")["dirty"]
    np.testing.assert_allclose(keys["duration"], (down - up) / (2e-4 * price), rtol=2e-3, atol=1e-4)
    names = [tenor_name(t) for t in TENORS]
    assert list(keys) == ["curve_clean", "duration", "status", *names] and names[:4] == ["m1", "m3", "m6", "y1"]
    np.testing.assert_allclose(sum(keys[name] for name in names), keys["duration"], rtol=1e-12, atol=1e-12)


def test_the_key_rate_of_a_zero_is_at_its_maturity():
    table = {**NOTE, "coupon": 0.0, "frequency": 0, "maturity": dates("2030-01-15")}
    keys = bonds.key_rate_durations(table, bonds.Curve([5.0, 3653 / 365.25, 20.0], [1.0, 2.0, 3.0], "zero"))
    assert keys["duration"][0] == pytest.approx(keys[list(keys)[4]][0]) == pytest.approx(3653 / 365.25)


def test_a_bond_takes_the_curve_of_its_date():
    settlement = dates(["2020-01-14", "2020-01-15", "2020-02-20"])
    table = {**NOTE, "coupon": 2.0, "issue": dates("2015-01-15"), "maturity": dates("2030-01-15"),
             "settlement": settlement}  # fmt: skip
    rates = [[1.0, 1.0], [2.0, 2.0]]
    dated = bonds.Curve([1.0, 30.0], rates, "zero", dates(["2020-01-15", "2020-02-15"]))
    with pytest.warns(bonds.BondWarning, match="no curve 1"):
        valued = bonds.value(table, given="curve", curve=dated)
    assert valued["status"].tolist() == [8, 0, 0] and np.isnan(valued["clean"][0])
    plain = bonds.Curve([1.0, 30.0], rates, "zero")
    rows = bonds.value({**table, "curve": np.array([-1, 0, 1])}, given="curve", curve=plain, errors="ignore")
    np.testing.assert_array_equal(rows["clean"], valued["clean"])
    alone = [bonds.value(table, given="curve", curve=flat(r))["clean"] for r in (1.0, 2.0)]
    np.testing.assert_array_equal(valued["clean"][1:], [alone[0][1], alone[1][2]])
    with pytest.raises(UserError, match="2 curves without dates"):
        bonds.value(table, given="curve", curve=plain)
    # a price is valued without a curve; only the columns of the curve are NaN
    with pytest.warns(bonds.BondWarning, match="^1 of 3 bonds are valued, but have no spread$"):
        quoted = bonds.value({**table, "clean": 99.0}, curve=dated)
    with pytest.raises(UserError, match="have no spread"):
        bonds.value({**table, "clean": 99.0}, curve=dated, errors="raise")
    assert not quoted.problems and np.isnan(quoted["spread"]).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([2.0, 1.0], [1.0, 1.0]), "have to be years above 0 that rise"),
        (([0.0, 1.0], [1.0, 1.0]), "have to be years above 0"),
        (([1.0, 2.0], [1.0]), "rates have shape"),
        (([1.0], [1.0], "forward"), "curve kind 'forward' is unknown"),
        (([1.0], [[1.0], [2.0]], "zero", [3]), "dates have shape"),
        (([1.0], [[1.0], [2.0]], "zero", [3, 3]), "dates have shape"),
        (([1.0], [1.0], "zero", [np.datetime64("NaT")]), "dates have shape"),
        (([1.0], [1.0], "zero", ["2020-01-15"]), "'dates' is <U10"),
        (([1.0], [1.0], "zero", [20200115]), "looks like dates as YYYYMMDD"),
        ((["1Y", "2Y"], [1.0, 2.0]), "tenors of the curve hold str; expected numbers: years"),
        (([1.0, np.inf], [1.0, 2.0]), "have to be years above 0"),
        (([1.0, np.nan], [1.0, 2.0]), "have to be years above 0"),
        (([1.0, 2.0], [1.0, np.inf]), "a rate of the curve is infinite"),
        (([1.0, 2.0], [[1.0, 2.0], [1.0]]), "rows of different lengths"),
        (([1.0, 2.0], None), "rates of the curve hold NoneType"),
        (([1.0], [1.0], "zero", [3], -1), "max_age_days is -1"),
        (([1.0], [1.0], "zero", [3], "7"), "max_age_days is '7'"),
    ],
)
def test_curves_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        bonds.Curve(*arguments)


def test_a_curve_that_is_too_old_is_told():
    settlement = dates(["2020-01-22", "2020-01-23"])
    table = {**NOTE, "coupon": 2.0, "issue": dates("2015-01-15"), "maturity": dates("2030-01-15"),
             "settlement": settlement}  # fmt: skip
    of = ([1.0, 30.0], [2.0, 2.0], "zero", [datetime.date(2020, 1, 15)])
    valued = bonds.value(table, given="curve", curve=bonds.Curve(*of), errors="ignore")
    assert valued["status"].tolist() == [0, 16] and np.isnan(valued["clean"]).tolist() == [False, True]
    assert bonds.value(table, given="curve", curve=bonds.Curve(*of, max_age_days=8)).problems == {}
    assert bonds.value(table, given="curve", curve=bonds.Curve(*of, max_age_days=None)).problems == {}
    keys = bonds.key_rate_durations(table, bonds.Curve(*of), errors="ignore")
    assert keys["status"].tolist() == [0, 16]


def test_what_is_wrong_with_a_curve_is_told():
    table = {**NOTE, "coupon": 2.0, "maturity": dates(["2021-01-15", "2030-01-15"]), "spread": np.array([1.0, np.nan])}
    empty = bonds.Curve([1.0], [np.nan])
    assert bonds.value(table, given="curve", curve=empty, errors="ignore")["status"].tolist() == [15, 6]
    assert bonds.key_rate_durations(table, empty, errors="ignore")["status"].tolist() == [15, 6]
    negative = bonds.Curve([1.0, 2.0, 30.0], [1.0, 90.0, 90.0])
    later = {**table, "spread": 0.0, "maturity": dates(["2021-01-15", "2049-01-15"])}
    assert bonds.value(later, given="curve", curve=negative, errors="ignore")["status"].tolist() == [0, 15]
    for wrong in ({}, 5.0, [1.0]):
        with pytest.raises(UserError, match="expected bonds"):
            bonds.value(table, given="curve", curve=wrong)
    for wrong in ({}, None):
        with pytest.raises(UserError, match="expected bonds"):
            bonds.key_rate_durations(table, wrong)


def test_tenors_of_one_name_are_refused():
    table = {**NOTE, "coupon": 2.0, "maturity": dates(["2030-01-15"])}
    with pytest.raises(UserError, match="have one name, m3"):
        bonds.key_rate_durations(table, bonds.Curve([0.25, 0.25001, 1.0], [1.0, 1.0, 1.0]))
