"""The panel of bonds, by hand on a few rows."""

import dataclasses

import numpy as np
import pytest

from gpupipe.workloads.bonds import schema
from gpupipe.workloads.bonds.schema import NO_DAY, Curve, Instruments, Quotes, bond_table, panel_of, reference_rate

NAN = np.nan


def day(text):
    return int(np.datetime64(text, "D").astype(np.int64))


def instruments(**changes):
    fields = {
        "id": ("A", "B", "C"),
        "type": ("fixed", "floating", "zero"),
        "rating": ("AA", "BBB", "NR"),
        "issuer": ("X", "X", "Y"),
        "sector": ("energy", "energy", "utilities"),
        "day_count": ("30/360", "act/360", "act/act"),
        "callable": ("no", "no", "no"),
        "coupon": np.array([5.0, NAN, 0.0]),
        "margin": np.array([0.0, 1.5, 0.0]),
        "frequency": np.int64([2, 4, 2]),
        "issue": np.int64([day("1965-03-01"), day("2019-01-15"), day("2019-01-15")]),
        "maturity": np.int64([day("2024-03-01"), day("2024-01-15"), day("2029-01-15")]),
        "first_coupon": np.full(3, NO_DAY),
        "call_date": np.full(3, NO_DAY),
        "call_price": np.full(3, NAN),
    }
    return Instruments(**{**fields, **changes})


def quotes(rows):
    """Rows of (bond, date, clean, yield)."""
    n = len(rows)
    return Quotes(
        bond=np.int64([row[0] for row in rows]),
        day=np.int64([day(row[1]) for row in rows]),
        clean=np.array([row[2] for row in rows], np.float64),
        yield_=np.array([row[3] for row in rows], np.float64),
        traded=np.int64([day(row[1]) for row in rows]),
        rating_rank=np.full(n, 3),
        coupon=np.full(n, NAN),
    )


CURVE = Curve(
    np.int64([day("2020-01-02"), day("2020-01-03")]),
    ("m3", "y1", "y10"),
    np.array([[1.5, 1.6, 1.9], [1.52, NAN, 1.95]]),
)
ROWS = [(0, "2019-12-31", 101.0, NAN), (0, "2020-01-02", NAN, 2.0), (1, "2020-01-04", 99.0, 3.0),
        (2, "2020-01-12", 80.0, NAN)]  # fmt: skip


def of_rows(rows=ROWS, **options):
    return panel_of(instruments(), quotes(rows), CURVE, lambda table: table["yield"] + 100, **options)


def test_a_row_has_the_last_curve_on_or_before_its_day():
    panel = of_rows()
    np.testing.assert_array_equal(panel.curve_age, [-1, 0, 1, 9])
    np.testing.assert_array_equal(panel.curve_m3, [NAN, 1.5, 1.52, NAN])  # before the first one, and after 9 days
    np.testing.assert_array_equal(panel.curve_y1, [NAN, 1.6, NAN, NAN])
    np.testing.assert_array_equal(of_rows(max_curve_age=9).curve_y10, [NAN, 1.9, 1.95, 1.95])
    assert schema.curve_tenors(panel) == ("m3", "y1", "y10")


def test_the_curve_is_that_of_the_day_of_trading():
    given = quotes(ROWS)
    panel = panel_of(
        instruments(), dataclasses.replace(given, traded=given.day - 1), CURVE, lambda table: table["yield"]
    )
    np.testing.assert_array_equal(panel.curve_age, [-1, -1, 0, 8])
    np.testing.assert_array_equal(panel.curve_m3, [NAN, NAN, 1.52, NAN])
    assert schema.days_of(panel)[2] == day("2020-01-04")


def test_only_a_quoted_yield_alone_is_priced():
    panel = of_rows()
    np.testing.assert_array_equal(panel.clean, [101.0, 102.0, 99.0, 80.0])
    np.testing.assert_array_equal(panel.columns["yield"], [NAN, 2.0, 3.0, NAN])


def test_the_price_is_made_from_the_bonds_table():
    seen = []

    def price(table):
        seen.append(table)
        return np.full(1, NAN)

    panel = panel_of(instruments(), quotes(ROWS), CURVE, price)
    (table,) = seen
    assert {name: values.tolist()[0] for name, values in table.items() if values.dtype.kind != "M"} == {
        "type": "fixed", "day_count": "30/360", "coupon": 5.0, "margin": 0.0,
        "call_price": pytest.approx(NAN, nan_ok=True), "frequency": 2, "yield": 2.0,
    }  # fmt: skip
    dates = {name: str(values[0]) for name, values in table.items() if values.dtype == "datetime64[D]"}
    assert dates == {
        "issue": "1965-03-01", "maturity": "2024-03-01", "first_coupon": "NaT", "call_date": "NaT",
        "settlement": "2020-01-02",
    }  # fmt: skip
    assert np.isnan(panel.clean[1])


def test_coupon_of_a_floating_bond_follows_the_curve_of_its_day():
    panel = of_rows()
    np.testing.assert_allclose(panel.coupon, [5.0, 5.0, 1.52 + 1.5, 0.0])
    given = dataclasses.replace(quotes(ROWS), coupon=np.array([NAN, NAN, 4.25, NAN]))
    assert panel_of(instruments(), given, CURVE, lambda table: table["yield"]).coupon[2] == 4.25
    fixed = instruments(coupon=np.array([5.0, 3.5, 0.0]))
    assert panel_of(fixed, quotes(ROWS), CURVE, lambda table: table["yield"]).coupon[2] == 3.5


def test_reference_rate_is_at_maturity_and_of_floating_bonds_at_a_coupon_period():
    rate = reference_rate(of_rows())
    years = (day("2024-03-01") - day("2020-01-02")) / 365.25
    np.testing.assert_allclose(rate[[1, 2]], [np.interp(years, [0.25, 1, 10], [1.5, 1.6, 1.9]), 1.52])
    assert np.isnan(rate[[0, 3]]).all()


def test_bonds_without_a_quote_are_no_symbols_and_days_may_lie_before_1970():
    panel = of_rows([(0, "1966-01-03", 90.0, NAN), (2, "2020-01-02", 80.0, NAN)])
    assert panel.symbols == ("A", "C") and panel.attributes["issuer"] == ("X", "Y")
    assert schema.days_of(panel).tolist() == [day("1966-01-03"), day("2020-01-02")]
    assert panel.groups == ("energy", "utilities") and panel.issue[0] == day("1965-03-01")


def test_later_quotes_and_curve_days_change_no_row():
    later = Curve(CURVE.day[:1], CURVE.tenors, CURVE.rates[:1])
    panel = panel_of(instruments(), quotes(ROWS[:2]), later, lambda table: table["yield"] + 100)
    whole = of_rows()
    for name, column in panel.columns.items():
        np.testing.assert_array_equal(column, whole.columns[name][:2])


def test_table_of_some_rows():
    panel = of_rows()
    table = bond_table(panel, np.array([3, 0]))
    assert table["type"].tolist() == ["zero", "fixed"]
    floating = bond_table(panel, np.array([2]))  # a fixed bond with the coupon that runs
    assert floating["type"].tolist() == ["fixed"] and floating["coupon"].tolist() == [1.52 + 1.5]
    assert table["settlement"].astype(str).tolist() == ["2020-01-12", "2019-12-31"]
    assert {len(values) for values in bond_table(panel).values()} == {4}
