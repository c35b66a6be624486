"""The kernels of bonds: compiled equals plain body, and both the flows summed one by one with exact dates."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest

from gpupipe import bonds
from gpupipe.kernels import bond_math, compile
from tests.support.bond_oracle import street_flows
from tests.support.made_bonds import made_table, with_calls_and_rates

PRICE = 1e-10  # percent of par


def day(text):
    return datetime.date.fromisoformat(text)


def python_row(table, k):
    first = table["first_coupon"][k]
    return (
        float(table["coupon"][k]), int(table["frequency"][k]), table["issue"][k].item(), table["maturity"][k].item(),
        table["settlement"][k].item(), str(table["day_count"][k]), None if np.isnat(first) else first.item(),
    )  # fmt: skip


def test_prices_and_risk_equal_flows_summed_one_by_one():
    table = made_table(600, seed=1)
    valued = bonds.value(table, given="yield")
    assert not valued.problems
    for k in range(600):
        flows = street_flows(*python_row(table, k))
        rate = float(table["yield"][k])
        assert valued["clean"][k] == pytest.approx(flows.price(rate), abs=PRICE)
        assert valued["accrued"][k] == pytest.approx(float(flows.accrued), abs=1e-12)
        measures = [valued[name][k] for name in ("macaulay", "modified", "convexity")]
        np.testing.assert_allclose(measures, flows.measures(rate), rtol=1e-10, atol=1e-12)
        assert valued["dv01"][k] == pytest.approx(valued["modified"][k] * valued["dirty"][k] / 1e4, rel=1e-14)


def test_yields_are_found_again():
    table = made_table(2_000, seed=2)
    for convention in ("street", "quantlib"):
        priced = bonds.value(table, given="yield", convention=convention)
        found = bonds.value({**table, "clean": priced["clean"]}, convention=convention)
        assert not found.problems
        error = np.abs(found["yield"] - table["yield"]) / 100
        assert error[priced["modified"] > 0.01].max() < 1e-12
        assert (error * priced["modified"]).max() < 2e-14  # of the price, which is rounded to 1e-16 of itself


def test_measures_are_derivatives():
    table = made_table(400, seed=3)
    for convention in ("street", "quantlib", "treasury"):
        if convention == "treasury":
            table = {**table, "day_count": "act/act"}
        terms = bonds.prepare(table, convention)
        fine = terms.status == 0
        step = 1e-3
        up, here, down = (terms.price(table["yield"] + k * step)[1] for k in (1, 0, -1))
        measured = terms.measure(table["yield"])
        modified = (down - up) / (2 * step / 100) / here
        convexity = (down - 2 * here + up) / (step / 100) ** 2 / here
        np.testing.assert_allclose(measured["modified"][fine], modified[fine], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(measured["convexity"][fine], convexity[fine], rtol=2e-3, atol=1e-3)
        assert fine.sum() > 200


def test_calls_are_valued_at_the_worst_end():
    table = with_calls_and_rates(made_table(300, seed=4), seed=5)
    table["type"] = "fixed"
    called = np.flatnonzero(~np.isnat(table["call_date"]))
    priced = bonds.value(table, given="yield")
    assert not priced.problems
    found = bonds.value({**table, "clean": priced["clean"]})
    np.testing.assert_allclose(found["yield"], table["yield"], atol=1e-9)
    early = 0
    for k in called:
        row, call = python_row(table, k), table["call_date"][k].item()
        price = float(table["call_price"][k])
        whole = street_flows(*row)
        ends = [date for _, _, date in whole.flows[:-2] if date > call]
        if call < row[3] and call > row[4]:
            ends.append(call)
        prices = {date: street_flows(*row, call=(date, price)).price(float(table["yield"][k])) for date in ends}
        prices[row[3]] = whole.price(float(table["yield"][k]))
        worst = min(prices, key=prices.get)
        assert priced["clean"][k] == pytest.approx(prices[worst], abs=PRICE)
        assert prices[priced["workout"][k].item()] == pytest.approx(prices[worst], abs=PRICE)
        early += worst != row[3]
    assert early > 20


BY_HAND = {
    "coupon": 6.0, "frequency": 2, "issue": day("2020-02-29"), "maturity": day("2030-02-28"),
    "settlement": day("2020-02-29"), "day_count": "act/act",
}  # fmt: skip


@pytest.mark.parametrize(
    "changed, rate, expected",
    [
        ({}, 6.0, 100.0),  # at par on its issue, month ends in leap years
        ({}, 0.0, 160.0),  # the sum of the flows
        ({}, 100.0, 3 * (1 - 1.5**-20) / 0.5 + 100 * 1.5**-20),
        ({}, -1.0, 3 * ((1 - 0.995**-20) / -0.005) + 100 * 0.995**-20),
        ({"settlement": day("2029-08-31")}, 6.0, 100.0),  # one flow left, on a coupon date
        ({"coupon": 0.0}, 5.0, 100 * 1.025**-20),
        ({"frequency": 0, "coupon": 0.0}, 5.0, 100 * 1.05**-10),  # compounded once a year
        ({"maturity": day("2120-02-29")}, 6.0, 100.0),  # 100 years, 200 flows
        ({"maturity": day("2120-02-29"), "frequency": 12}, 6.0, 100.0),  # 1,200 flows
    ],
)
def test_prices_by_hand(changed, rate, expected):
    table = {**BY_HAND, **changed}
    valued = bonds.value({**table, "yield": np.array([rate])}, given="yield")
    assert valued["clean"][0] == pytest.approx(expected, abs=1e-9)
    back = bonds.value({**table, "clean": valued["clean"]})
    assert back["yield"][0] == pytest.approx(rate, abs=1e-11)


@pytest.mark.parametrize("u", [0.0, 1e-18, -1e-12, 1e-9, 1e-7])
def test_nothing_is_lost_near_a_yield_of_zero(u):
    rate = np.array([200 * u])
    clean = bonds.value({**BY_HAND, "yield": rate}, given="yield")["clean"][0]
    assert clean == pytest.approx(160 - u * (3 * 210 + 100 * 20) + u * u * (3 * 1540 + 100 * 210), abs=2e-11)


@pytest.mark.parametrize("clean", [1.0, 10.0, 50.0, 99.99, 150.0, 300.0])
def test_yields_of_prices_from_1_to_300(clean):
    found = bonds.value({**BY_HAND, "clean": np.array([clean])})
    assert not found.problems
    back = bonds.value({**BY_HAND, "yield": found["yield"]}, given="yield")
    assert back["clean"][0] == pytest.approx(clean, abs=1e-10)


def test_a_price_that_no_yield_has_is_told():
    on_last_day = {**BY_HAND, "day_count": "30/360", "maturity": day("2030-05-31"), "issue": day("2020-05-31"),
                   "settlement": day("2030-05-30")}  # fmt: skip
    with pytest.warns(bonds.BondWarning, match="no yield has the price 1, price not positive"):
        found = bonds.value({**on_last_day, "clean": np.array([90.0, -5.0])})  # the last flow is due: no discount
    assert found["status"].tolist() == [1, 9] and np.isnan(found["yield"]).all()
    with pytest.warns(bonds.BondWarning, match="no yield"):
        assert np.isnan(bonds.value({**BY_HAND, "clean": np.array([1e25])})["yield"][0])


def test_logarithm_and_exponential():
    for u in [*np.linspace(-0.89, 8.9, 500), 1e-300, -1e-16, 1e-9, 0.0]:
        assert bond_math.log_growth(np.float64(u)) == pytest.approx(math.log1p(u), rel=1e-15, abs=2.3e-16)
    for x in np.linspace(-10, 10, 501):
        assert bond_math.exponential(np.float64(x)) == pytest.approx(math.exp(x), rel=2e-14)
        assert bond_math.exponential(np.float64(x)) == bond_math.near_exponential(np.float64(x))
    for x in np.linspace(-708, 708, 1_001):
        assert bond_math.exponential(np.float64(x)) == pytest.approx(math.exp(x), rel=1e-12)
    assert bond_math.exponential(np.float64(-1e5)) == pytest.approx(math.exp(-708), rel=1e-12)
    assert math.isnan(bond_math.exponential(np.float64(np.nan)))
    for x in np.linspace(-256, -16, 1_001):
        assert bond_math.near_exponential(np.float64(x)) == pytest.approx(math.exp(x), abs=1e-15)


@pytest.mark.parametrize("frequency", [0, 1, 2, 4])
@pytest.mark.parametrize("rate", [0.5, 5.0, 80.0, 850.0])
def test_a_bond_until_the_year_9999(frequency, rate):
    table = {**BY_HAND, "issue": day("2020-12-31"), "settlement": day("2020-12-31"), "maturity": day("9999-12-31"),
             "frequency": frequency, "yield": np.array([rate]), "coupon": 6.0 if frequency else 0.0}  # fmt: skip
    u, n = rate / 100 / max(frequency, 1), 7979 * max(frequency, 1)
    discount = math.exp(-n * math.log1p(u)) if n * math.log1p(u) < 700 else 0.0
    coupon = 6.0 / frequency if frequency else 0.0
    valued = bonds.value(table, given="yield")
    assert valued["clean"][0] == pytest.approx(coupon * (1 - discount) / u + 100 * discount, rel=1e-11, abs=1e-200)
    if frequency:
        assert bonds.value({**table, "clean": valued["clean"]})["yield"][0] == pytest.approx(rate, rel=1e-11)


@pytest.mark.parametrize("clean", [1.0, 2.0, 1e3, 1e20])
def test_yields_of_a_hundred_years_of_quarters(clean):
    table = {**BY_HAND, "coupon": 15.0, "frequency": 4, "maturity": day("2120-02-29")}
    found = bonds.value({**table, "clean": np.array([clean])})
    assert not found.problems
    u = found["yield"][0] / 400
    log_discount = -400 * math.log1p(u)
    discount = math.exp(log_discount)
    assert 3.75 * (1 - discount) / u + 100 * discount == pytest.approx(clean, rel=1e-10)


KEPT_DAY = {
    "coupon": 6.0, "frequency": 2, "issue": day("2020-08-28"), "maturity": day("2030-02-28"),
    "settlement": day("2021-08-28"), "day_count": "act/act",
}  # fmt: skip


def test_a_schedule_keeps_the_day_of_its_issue_or_first_coupon():
    """28 February and 28 August: on 28 August nothing is accrued, and on 31 August three days are."""
    table = {**KEPT_DAY, "settlement": np.array(["2021-08-28", "2021-08-31"], "datetime64[D]"), "yield": 6.0}
    valued = bonds.value(table, given="yield")
    assert valued["accrued"].tolist() == [0.0, pytest.approx(3 * 3 / 184)] and valued["clean"][0] == pytest.approx(100)
    month_ends = bonds.value({**table, "issue": day("2020-08-31")}, given="yield")
    assert month_ends["accrued"].tolist() == [pytest.approx(3 * 181 / 184), 0.0]
    first = bonds.value({**table, "issue": day("2020-05-04"), "first_coupon": day("2020-08-28")}, given="yield")
    np.testing.assert_array_equal(first["accrued"], valued["accrued"])
    last_day = bonds.value({**table, "first_coupon": day("2021-02-28")}, given="yield")
    np.testing.assert_array_equal(last_day["accrued"], valued["accrued"])  # a short month tells nothing
    at_end = {**table, "issue": day("2020-08-28"), "first_coupon": day("2021-08-31")}
    assert bonds.value(at_end, given="yield")["accrued"][1] == 0.0
    quantlib = bonds.value(table, given="yield", convention="quantlib")
    assert quantlib["accrued"][1] == 0.0  # as its schedules with endOfMonth
    thirtieth = {**table, "issue": day("2020-10-30"), "maturity": day("2030-04-30"),
                 "settlement": np.array(["2021-10-30", "2021-10-31"], "datetime64[D]")}  # fmt: skip
    assert bonds.value(thirtieth, given="yield")["accrued"].tolist() == [0.0, pytest.approx(3 / 182)]


def test_calls_and_curves_follow_the_schedule_that_keeps_its_day():
    table = {**KEPT_DAY, "call_date": day("2025-08-28"), "call_price": 100.0, "clean": np.array([110.0])}
    assert str(bonds.value(table)["workout"][0]) == "2025-08-28"
    assert bonds.prepare(table).n_flows[0] == 17  # 28 February 2022 to 2030; the call is on one of these dates


def test_a_bond_of_too_many_coupons_is_told():
    table = {**BY_HAND, "maturity": day("9999-12-31"), "frequency": np.array([4, 12]), "yield": 5.0}
    with pytest.warns(bonds.BondWarning, match="more than 32,768 coupons left 1"):
        assert bonds.value(table, given="yield")["status"].tolist() == [0, 11]


def test_a_price_beyond_float64_is_told():
    table = {**BY_HAND, "frequency": 4, "maturity": day("2120-02-29"), "yield": np.array([-355.0, 5.0])}
    with pytest.warns(bonds.BondWarning, match="or its price too large 1"):
        valued = bonds.value(table, given="yield")
    assert valued["status"].tolist() == [17, 0] and np.isnan(valued["clean"]).tolist() == [True, False]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 60, 127])
@pytest.mark.parametrize("v", [0.5, 0.97, 1.0, 1.02])
def test_sums_of_powers(n, v):
    sums = bond_math.geometric_moments(np.float64(v), np.int64(n))
    expected = [math.fsum(j**power * v**j for j in range(n)) for power in range(3)]
    np.testing.assert_allclose(sums, [*expected, v**n], rtol=2e-14)
    np.testing.assert_allclose(bond_math.geometric(np.float64(v), np.int64(n)), [expected[0], v**n], rtol=2e-14)


def test_threads_and_blocks_change_no_bit(monkeypatch):
    from gpupipe.workloads.bonds.valuation import pricing, terms

    table = with_calls_and_rates(made_table(3_000, seed=6), seed=7)
    table["clean"] = np.random.default_rng(8).uniform(60, 140, 3_000)
    curve = bonds.Curve([1.0, 5.0, 30.0], [2.0, 3.0, 4.0])
    whole = bonds.value(table, curve=curve, errors="ignore")
    monkeypatch.setattr(pricing, "BLOCK", 171)
    monkeypatch.setattr(terms, "FLOWS_AT_ONCE", 300)
    monkeypatch.setattr(compile, "n_threads", lambda: 1)
    parts = bonds.value(table, curve=curve, errors="ignore")
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)


def test_the_size_of_a_block_changes_no_bit(monkeypatch):
    from gpupipe.workloads.bonds.valuation import terms

    table = made_table(1_500, seed=10)
    for convention in ("street", "treasury"):
        results = []
        for at_once in (1_024, 1, 7):
            monkeypatch.setitem(terms.BONDS_AT_ONCE, "cpu", at_once)
            prepared = bonds.prepare(table, convention)
            clean, _ = prepared.price(table["yield"])
            results.append([clean, *prepared.yields(clean), *prepared.measure(table["yield"]).values()])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)
