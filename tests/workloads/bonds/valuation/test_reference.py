"""Values against QuantLib 1.44 (stored by tests/support/make_bond_reference.py), and published prices of auctions."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe import bonds
from tests.support.bond_reference import stored

PRICE, YIELD = 1e-10, 1e-12  # percent of par; a fraction, that is 1e-10 percent
FLOAT32 = 1e-6  # durations are stored in float32


@pytest.mark.parametrize("prefix, n", [("made", 10_000), ("auction", 400)])
def test_values_equal_those_of_quantlib(prefix, n):
    table, expected = stored(prefix)
    valued = bonds.value(table, given="yield", convention="quantlib")
    assert valued.n_bonds == n and not valued.problems
    np.testing.assert_allclose(valued["clean"], expected["clean"], rtol=0, atol=PRICE)
    np.testing.assert_allclose(valued["accrued"], expected["accrued"], rtol=0, atol=PRICE)
    np.testing.assert_allclose(valued["macaulay"], expected["macaulay"], rtol=FLOAT32)
    np.testing.assert_allclose(valued["convexity"], expected["convexity"], rtol=FLOAT32)
    found = bonds.value({**table, "clean": expected["clean"]}, convention="quantlib")
    theirs = table["yield"] / 100 + expected["yield_difference"].astype(np.float64) * 1e-15
    np.testing.assert_allclose(found["yield"] / 100, theirs, rtol=0, atol=YIELD)


def test_the_made_bonds_are_of_all_kinds():
    table, _ = stored("made")
    settled, maturity = table["settlement"].astype(int), table["maturity"]
    assert set(table["day_count"].tolist()) == {0, 1, 2, 3} and set(table["frequency"].tolist()) == {0, 1, 2, 4, 12}
    month_ends = (maturity + 1).astype("datetime64[M]") > maturity.astype("datetime64[M]")
    assert month_ends.sum() > 2_000 and (~np.isnat(table["first_coupon"])).sum() > 2_000
    assert (settled == table["issue"].astype(int)).sum() > 300 and (table["yield"] < 0).sum() > 500
    assert bonds.prepare(table, "quantlib").by_flows.sum() > 3_000 and bonds.prepare(table).by_flows.sum() > 3_000


def test_street_and_quantlib_agree_where_periods_are_equal():
    """Act/Act: but for a first period whose end falls on a short month, from which QuantLib counts back."""
    table, _ = stored("made")
    same = (table["day_count"] == 0) & (table["maturity"].astype("datetime64[M]").astype(int) % 12 != 1)
    day = (table["maturity"] - table["maturity"].astype("datetime64[M]")).astype(int) + 1
    same &= day <= 28
    prices = [bonds.value(table, given="yield", convention=name)["clean"][same] for name in ("street", "quantlib")]
    np.testing.assert_allclose(*prices, rtol=0, atol=PRICE)
    assert same.sum() > 1_000


def test_every_auction_has_its_published_price():
    """By Treasury's convention within 1e-6: it rounds prices and accrued interest to six decimals. By street's formula,
    which compounds until the next coupon, prices are higher by up to 0.0065 where the settlement is no coupon date.
    """  # fmt: skip
    table, expected = stored("auction")
    price, new = expected["published_price"], ~expected["published_reopening"]
    assert new.sum() == 337
    treasury = bonds.value(table, given="yield", convention="treasury")
    np.testing.assert_allclose(treasury["clean"], price, rtol=0, atol=1e-6)
    known = np.isfinite(expected["published_accrued_1000"])
    accrued = treasury["accrued"][known] * 10
    np.testing.assert_allclose(accrued, expected["published_accrued_1000"][known], rtol=0, atol=5.1e-6)
    street = bonds.value(table, given="yield")["clean"] - price
    on_coupon_date = treasury["accrued"] == 0
    assert np.abs(street[on_coupon_date]).max() < 1e-6
    assert (np.abs(street) < 5e-4)[new].mean() > 0.99 and street.min() > -1e-6 and 0.006 < street.max() < 0.0065


def test_yields_of_auctions_are_those_of_the_bids():
    table, expected = stored("auction")
    found = bonds.value({**table, "clean": expected["published_price"]}, convention="treasury")
    allowed = 100 * 1e-6 / (found["modified"] * found["dirty"])  # 1e-6 of the price
    assert (np.abs(found["yield"] - table["yield"]) <= 1.01 * allowed).all()
