"""`bonds.value`: tables of all kinds, bonds with something wrong, and what is refused."""

from __future__ import annotations

import datetime
import decimal
import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from gpupipe import bonds
from gpupipe.runtime.errors import UserError
from tests.support.made_bonds import dates, made_table

GOOD = {
    "coupon": np.full(3, 5.0), "frequency": np.full(3, 2), "issue": dates(["2020-01-15"] * 3),
    "maturity": dates(["2030-01-15", "2031-07-15", "2025-01-15"]), "settlement": dates(["2021-03-01"] * 3),
    "day_count": np.array(["act/act", "30/360", "act/360"]), "clean": np.array([99.0, 101.0, 100.0]),
}  # fmt: skip


def same(a, b):
    for name in b:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize(
    "convert",
    [
        pa.table, pd.DataFrame, pl.DataFrame,
        lambda t: pa.table({**t, "day_count": pa.array(t["day_count"]).dictionary_encode()}),
        lambda t: pd.DataFrame({**t, "day_count": pd.Categorical(t["day_count"])}),
        lambda t: pd.DataFrame({**t, "issue": [date.item() for date in t["issue"]]}),
        lambda t: {name: list(values) for name, values in t.items()},
        lambda t: {**t, "day_count": np.array([0, 1, 2], np.int8), "issue": t["issue"].astype(np.int64)},
        lambda t: {**t, "day_count": np.array([" ACT/ACT", "30/360", "Act/360"], object)},
        lambda t: {**t, "frequency": 2, "issue": datetime.date(2020, 1, 15), "coupon": 5},
        lambda t: {**t, "issue": t["issue"].astype("datetime64[ns]"), "coupon": t["coupon"].astype(np.float32)},
        lambda t: {**t, "frequency": t["frequency"].astype(np.float64)},
    ],
)  # fmt: skip
def test_every_kind_of_table_has_one_result(convert):
    same(bonds.value(convert(GOOD)), bonds.value(GOOD))


def test_the_result_is_a_mapping_and_a_table():
    valued = bonds.value(GOOD)
    assert list(valued) == ["clean", "dirty", "accrued", "yield", "macaulay", "modified", "convexity", "dv01", "status"]
    table = valued.to_arrow()
    assert table.column_names == list(valued) and table.num_rows == valued.n_bonds == 3
    np.testing.assert_array_equal(valued["clean"], GOOD["clean"])
    np.testing.assert_allclose(valued["dirty"], GOOD["clean"] + valued["accrued"])
    assert str(valued) == "3 bonds" and valued["status"].dtype == np.int8


def test_empty_and_single_tables():
    none = bonds.value({name: values[:0] for name, values in GOOD.items()})
    assert none.n_bonds == 0 and none.to_arrow().num_rows == 0
    one = bonds.value({name: values[0] for name, values in GOOD.items()})
    assert one.n_bonds == 1 and one["yield"][0] == bonds.value(GOOD)["yield"][0]


WRONG = [
    ({"maturity": dates("2021-03-01")}, 2), ({"maturity": dates("2019-03-01")}, 2), ({"day_count": "30/361"}, 3),
    ({"frequency": 3}, 4), ({"settlement": dates("2019-12-31")}, 5), ({"coupon": np.nan}, 6),
    ({"maturity": dates("NaT")}, 6), ({"clean": np.nan}, 6), ({"first_coupon": dates("2020-08-15")}, 7),
    ({"first_coupon": dates("2030-07-15")}, 7), ({"clean": -200.0}, 9), ({"type": "perpetual"}, 12),
    ({"call_date": dates("2025-01-15")}, 6), ({"frequency": 0}, 4), ({"frequency": np.nan}, 6),
    ({"day_count": None}, 6),
    ({"type": None}, 6), ({"day_count": " "}, 6), ({"frequency": 2.5}, 4), ({"clean": 0.0, "coupon": 0.0}, 9),
    ({"frequency": 0, "coupon": 0.0, "call_date": dates("2025-01-15"), "call_price": 100.0}, 13),
    ({"call_date": dates("2025-01-15"), "call_price": 1.0}, 14),
    ({"call_date": dates("2025-01-15"), "call_price": 201.0}, 14),
]  # fmt: skip


@pytest.mark.parametrize("changed, status", WRONG)
def test_a_bond_that_cannot_be_valued_has_nan_and_a_status(changed, status):
    table = {name: np.repeat(np.atleast_1d(values)[:1], 2) for name, values in {**GOOD, **changed}.items()}
    table["day_count"] = table["day_count"].astype(object)
    for name in GOOD:
        table[name][1] = GOOD[name][0]
    if "call_price" in table:
        table["call_price"][1] = np.nan
    for name in ("first_coupon", "call_date"):
        if name in table:
            table[name] = np.array([table[name][0], np.datetime64("NaT")])
    if "type" in changed:
        table["type"] = np.array([changed["type"], "fixed"], object)
    with pytest.warns(bonds.BondWarning, match=f"2 bonds, of which 1 has a problem: {bonds.STATUS[status]} 1"):
        valued = bonds.value(table)
    assert valued["status"].tolist() == [status, 0] and valued.problems == {bonds.STATUS[status]: 1}
    for name in ("clean", "dirty", "yield", "macaulay", "modified", "convexity", "dv01"):
        assert np.isnan(valued[name][0]) and np.isfinite(valued[name][1]), name
    with pytest.raises(UserError, match=f"status has it by bond; the first is row 0 .*: {bonds.STATUS[status]}"):
        bonds.value(table, errors="raise")
    same(bonds.value(table, errors="ignore"), valued)


def test_a_yield_out_of_range_is_told():
    table = {**GOOD, "yield": np.array([-190.0, 5.0, np.nan])}
    with pytest.warns(bonds.BondWarning, match="a value is missing 1, yield outside -90 to 900 percent a period"):
        valued = bonds.value(table, given="yield")
    assert valued["status"].tolist() == [17, 0, 6]


@pytest.mark.parametrize(
    "changed, options, message",
    [
        ({"coupon": None}, {}, "lacks coupon; it needs coupon, frequency"),
        ({"clean": None}, {}, "lacks clean"),
        ({}, {"given": "yield"}, "lacks yield"),
        ({"coupon": np.array(["5", "5", "5"])}, {}, "'coupon' is <U1"),
        ({"coupon": np.ones((3, 1))}, {}, "'coupon' is float64 of 2 dimensions"),
        ({"maturity": np.full(3, 5.5)}, {}, "'maturity' is float64 of 1 dimensions; expected dates"),
        ({"maturity": ["2030-01-15"] * 3}, {}, "'maturity' is <U10"),
        ({"day_count": np.full(3, 1.5)}, {}, "'day_count' is float64; expected texts: act/act"),
        ({"day_count": ["act/act", 5, "30/360"]}, {}, "'day_count' is list that holds a int; expected texts: act/act"),
        ({"coupon": [5.0, "5", 5.0]}, {}, "'coupon' is <U32 of 1 dimensions; expected numbers, one a bond; convert"),
        ({"coupon": np.array([5.0, "5", 5.0], object)}, {}, "'coupon' holds a str in row 1; expected numbers"),
        ({"issue": [None, 5.5, None]}, {}, "'issue' holds a float in row 1; expected dates: datetime64"),
        ({"coupon": np.full(2, 5.0)}, {}, "different lengths: coupon 2, frequency 3"),
        ({}, {"given": "price"}, "given='price' is unknown"),
        ({}, {"convention": "japan"}, "convention 'japan' is unknown; expected street, quantlib, treasury"),
        ({}, {"errors": "none"}, "errors='none' is unknown"),
        ({}, {"given": "curve"}, "curve is missing"),
        ({"type": "floating"}, {}, "curve is missing"),
    ],
)
def test_what_does_not_fit_is_refused(changed, options, message):
    table = {name: values for name, values in {**GOOD, **changed}.items() if values is not None}
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        bonds.value(table, **options)


def test_no_table_is_refused():
    with pytest.raises(UserError, match="a int is no table of bonds"):
        bonds.value(3)


def test_prepared_terms_give_the_same_values():
    table = made_table(500, seed=9)
    for convention in ("street", "quantlib"):
        terms, valued = bonds.prepare(table, convention), bonds.value(table, given="yield", convention=convention)
        clean, dirty = terms.price(table["yield"])
        np.testing.assert_array_equal(clean, valued["clean"])
        np.testing.assert_array_equal(dirty, valued["dirty"])
        same(terms.measure(table["yield"]), {name: valued[name] for name in ("macaulay", "convexity")})
        np.testing.assert_array_equal(
            terms.yields(clean)[0], bonds.value({**table, "clean": clean}, convention=convention)["yield"]
        )
    with pytest.raises(UserError, match="floating bonds have no flows"):
        bonds.prepare({**GOOD, "type": "floating"})


def test_treasury_prices_fixed_bonds_alone():
    table = {**GOOD, "yield": np.full(3, 4.0)}
    with pytest.warns(bonds.BondWarning, match="not supported by the convention treasury 1"):
        assert bonds.value(table, "yield", "treasury")["status"].tolist() == [0, 0, 10]
    with pytest.warns(bonds.BondWarning, match="not supported by the convention treasury 3"):
        bonds.value({**table, "frequency": 0, "coupon": 0.0}, "yield", "treasury")


def test_prepared_terms_take_numbers_of_all_bonds_alone():
    terms = bonds.prepare(GOOD)
    expected = terms.price(np.full(3, 5.0))
    for rate in (
        5,
        5.0,
        [5, 5, 5],
        np.full(3, 5.0, np.float32),
        pd.Series([5.0] * 3),
        np.full(6, 5.0)[::2],
        np.full(3, 5),
    ):
        np.testing.assert_array_equal(terms.price(rate), expected)
        np.testing.assert_array_equal(terms.measure(rate)["clean"], expected[0])
    same(dict(enumerate(terms.yields([99, 99, 99]))), dict(enumerate(terms.yields(99.0))))
    for wrong in (np.array([5.0]), np.full(1_000, 5.0), np.ones((3, 1)), ["5", "5", "5"], None):
        for call in (terms.price, terms.measure, terms.yields):
            with pytest.raises(UserError, match=r"expected numbers, \(3,\): one a bond"):
                call(wrong)
    out = (np.empty(3), np.empty(3))
    assert terms.price(5.0, out=out)[0] is out[0] and out[0].tolist() == expected[0].tolist()
    for wrong_out in (np.empty(3), (np.empty(2), np.empty(3)), (np.empty(3, np.float32), np.empty(3)), (np.empty(3),)):
        with pytest.raises(UserError, match="out"):
            terms.price(5.0, out=wrong_out)
    measured = terms.measure(5.0)
    assert terms.measure(4.0, out=measured)["clean"] is measured["clean"]
    for wrong_mapping in ({"clean": np.empty(3)}, 3, {**measured, "dirty": np.empty(9)}):
        with pytest.raises(UserError, match="out"):
            terms.measure(5.0, out=wrong_mapping)


def test_days_that_can_be_no_dates_are_refused():
    last = GOOD["maturity"].astype(np.int64)
    for changed, message in [
        ({"maturity": np.array([20300115] * 3)}, "holds 20300115, which looks like dates as YYYYMMDD"),
        ({"issue": GOOD["issue"].astype("M8[ns]").astype(np.int64)}, "which looks like nanoseconds"),
        ({"settlement": GOOD["settlement"].astype("M8[s]").astype(np.int64)}, "which looks like seconds"),
        (
            {"settlement": np.array([-70_000] * 3)},
            "holds -70000; expected int64 days since 1970-01-01, of",
        ),
        ({"settlement": dates("2300-01-02")}, "has the date 2300-01-02; expected dates from 1800 to 2300, or NaT"),
        ({"maturity": dates("10000-01-01")}, "has the date 10000-01-01; expected dates from 1800 to 9999"),
        ({"maturity": ["2030-01-15"] * 3}, "convert texts with column.astype"),
        ({"maturity": [1.5, dates("2030-01-15"), None]}, "holds a float in row 0; expected dates"),
    ]:
        with pytest.raises(UserError, match=message):
            bonds.value({**GOOD, **changed})
    last[0] = np.datetime64("NaT").astype(np.int64)
    assert bonds.value({**GOOD, "maturity": last}, errors="ignore")["status"].tolist() == [6, 0, 0]
    assert bonds.value({**GOOD, "maturity": dates("9999-12-31")}).problems == {}


def test_a_time_with_a_zone_is_the_date_on_its_clock():
    """Midnight of 1 March in Tokyo is the last of February in UTC."""
    times = pd.DatetimeIndex(["2021-03-01"] * 3).tz_localize("Asia/Tokyo")
    late = pa.array(times.tz_convert("UTC").tz_localize(None), pa.timestamp("us")).cast(
        pa.timestamp("us", "Asia/Tokyo")
    )
    for settlement in (times, pd.Series(times), list(times), times[0], late, pl.Series(pd.Series(times))):
        same(bonds.value({**GOOD, "settlement": settlement}), bonds.value(GOOD))
    same(bonds.value(pa.table({**GOOD, "settlement": late})), bonds.value(GOOD))
    same(bonds.value(pd.DataFrame({**GOOD, "settlement": times})), bonds.value(GOOD))
    missing = bonds.value({**GOOD, "settlement": [*times[:2], pd.NaT]}, errors="ignore")
    assert missing["status"].tolist() == [0, 0, 6]


def test_masked_values_are_missing():
    for name, values in GOOD.items():
        masked = np.ma.array(values, mask=[False, True, False])
        valued = bonds.value({**GOOD, name: masked}, errors="ignore")
        assert valued["status"].tolist() == [0, 6, 0], name
        assert np.isfinite(valued["yield"]).tolist() == [True, False, True]


@pytest.mark.parametrize("of", [pd.Series, pl.Series, pa.array, lambda values: pa.chunked_array([values])])
def test_a_mapping_of_series_is_a_table(of):
    same(bonds.value({name: of(values) for name, values in GOOD.items()}), bonds.value(GOOD))


def test_numbers_may_be_decimals_or_none():
    coupons = [decimal.Decimal("5.0"), None, 5]
    for column in (coupons, pa.array(coupons, pa.decimal128(5, 2)), pd.array([5.0, None, 5.0], "Float64")):
        valued = bonds.value({**GOOD, "coupon": column}, errors="ignore")
        assert valued["status"].tolist() == [0, 6, 0] and valued["yield"][0] == bonds.value(GOOD)["yield"][0]
    assert bonds.value({**GOOD, "frequency": [2, None, 2]}, errors="ignore")["status"].tolist() == [0, 6, 0]


def test_a_coupon_without_a_frequency_is_told():
    table = {**GOOD, "frequency": np.array([0, 0, 2]), "coupon": np.array([5.0, 0.0, 5.0])}
    assert bonds.value(table, errors="ignore")["status"].tolist() == [4, 0, 0]
    floating = {**table, "type": np.array(["zero", "floating", "fixed"])}
    curve = bonds.Curve([1.0], [2.0])
    assert bonds.value(floating, errors="ignore", curve=curve)["status"].tolist() == [0, 4, 0]


def test_memory_does_not_grow_with_the_flows_of_all_bonds(monkeypatch):
    """2,000 bonds of 1,000 flows: in blocks of 20,000 flows, in less than a twentieth of the memory of all of them."""
    from gpupipe.workloads.bonds.valuation import pricing

    monkeypatch.setattr(pricing, "BLOCK_FLOWS", 20_000)
    n, curve = 2_000, bonds.Curve([1.0, 30.0], [2.0, 3.0])
    table = {**{name: values[:1] for name, values in GOOD.items()}, "maturity": dates("2104-07-15"), "frequency": 12}
    table = {name: np.repeat(np.atleast_1d(values), n) for name, values in table.items()}
    table["day_count"] = np.full(n, 2, np.int8)
    bonds.value(table, curve=curve)
    tracemalloc.start()
    valued = bonds.value(table, curve=curve)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    of_all = 40 * bonds.prepare(table).n_flows.sum()
    assert not valued.problems and of_all > 7e7 and peak < of_all / 20


@pytest.mark.parametrize(
    "name, message",
    [
        ("call_dat", "'call_dat' is not read: rename it to 'call_date'"),
        ("Call Date", "rename it to 'call_date'"),
        ("first_coupon_date", "rename it to 'first_coupon'"),
        ("margins", "rename it to 'margin'"),
        ("calprice", "rename it to 'call_price'"),
    ],
)
def test_names_that_are_nearly_those_of_options_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        bonds.value({**GOOD, name: 1.0})


def test_other_columns_are_left_alone():
    others = {
        name: np.zeros(3) for name in ("issuer", "z_spread", "curve_age", "bond_type", "callable", "rating", "id")
    }
    same(bonds.value({**GOOD, **others}), bonds.value(GOOD))


def test_a_misspelt_or_repeated_column_is_named():
    table = {("maturity_dt" if name == "maturity" else name): values for name, values in GOOD.items()}
    with pytest.raises(UserError, match=r"lacks maturity \('maturity_dt' looks like maturity: rename it\); it needs"):
        bonds.value(table)
    frame = pd.DataFrame(GOOD)
    with pytest.raises(UserError, match="more than one column coupon; leave out all but one"):
        bonds.value(pd.concat([frame, frame[["coupon"]]], axis=1))
    with pytest.raises(UserError, match="more than one column coupon"):
        bonds.value(pa.table(GOOD).append_column("coupon", pa.array([1.0, 2.0, 3.0])))


def test_public_names():
    assert dir(bonds) == sorted(bonds.__all__)
    for name in bonds.__all__:
        assert getattr(bonds, name) is not None
    assert isinstance(bonds.value(GOOD), bonds.Valuation) and isinstance(bonds.prepare(GOOD), bonds.Terms)
    with pytest.raises(AttributeError, match="has no attribute 'Bond'"):
        _ = bonds.Bond


def test_accrued_interest_of_30_360_by_convention():
    """From 28 February to 15 May are 77 days of the 183 of the period until 31 August, and 77 of a year's 360."""
    table = {**{name: values[:1] for name, values in GOOD.items()}, "maturity": dates(["2030-08-31"]),
             "issue": dates("2020-08-31"), "settlement": dates("2021-05-15"), "day_count": "30/360"}  # fmt: skip
    accrued = {name: bonds.value(table, convention=name)["accrued"][0] for name in ("street", "quantlib")}
    assert accrued == {"street": pytest.approx(2.5 * 77 / 183), "quantlib": pytest.approx(5 * 77 / 360)}
