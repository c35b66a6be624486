"""What is told of rows, what is quarantined, and that nothing is guessed."""

import numpy as np
import pytest

from gpupipe.data import DataError, time_limits
from tests.support.bond_tables import BONDS, CURVE, QUOTES, changed, findings, read

NAN = np.nan
NO_RATING = "quotes have no rating: that of the bonds stands for all their dates, though it may have been given later"


MARGIN = "margin is outside -5..20 %; basis points have to be divided by 100"


def with_bond(**values):
    """The bonds with one more, which has the values of A where none are given."""
    return {name: [*column, values.get(name, column[0])] for name, column in changed(BONDS, id=BONDS["id"]).items()}


def with_quote(*row):
    return {name: [*column, value] for (name, column), value in zip(QUOTES.items(), row, strict=True)}


def test_clean_tables_have_nothing_to_report():
    panel, report = read()
    assert report.clean and report.quarantine.num_rows == 0
    assert (report.rows_read, report.rows_kept, report.symbols) == (5, 5, 3)
    assert report.sectors == {"energy": 2, "utilities": 1}
    assert (report.first_time, report.last_time) == ("2020-01-02", "2020-01-06")
    assert panel.rating_rank.tolist() == [2, 2, 4, 5, 5] and panel.attributes["rating"] == ("AA", "BBB", "BB")
    np.testing.assert_allclose(panel.coupon, [5, 5, 0, 1.54 + 1.5, 1.57 + 1.5])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"id": None}, "id is not known"),
        ({"id": " "}, "id is not known"),
        ({"id": "Z", "type": "convertible"}, "type is not known"),
        ({"id": "Z", "issue": None}, "issue is not known"),
        ({"id": "Z", "maturity": "soon"}, "maturity is not known"),
        ({"id": "Z", "maturity": "2018-02-15"}, "maturity is not after the issue"),
        ({"id": "Z", "maturity": "2001-02-15"}, "maturity is not after the issue"),
        ({"id": "Z", "coupon": None}, "coupon is not known"),
        ({"id": "Z", "coupon": -1.0}, "coupon is outside 0..40 %"),
        ({"id": "Z", "coupon": 41.0}, "coupon is outside 0..40 %"),
        ({"id": "Z", "type": "zero"}, "zero-coupon bond has a coupon"),
        ({"id": "Z", "frequency": 5}, "frequency is not known"),
        ({"id": "Z", "frequency": 0}, "frequency is not known"),
        ({"id": "Z", "day_count": "bus/252"}, "day count is not known"),
        ({"id": "Z", "type": "floating", "margin": 150.0}, MARGIN),
        ({"id": "Z", "type": "floating", "margin": -6.0}, MARGIN),
    ],
)
def test_instruments_that_are_quarantined(values, reason):
    panel, report = read(bonds=with_bond(**values))
    kind = f"bonds: {reason}"
    assert findings(report)[kind][:2] == ("quarantined", 1) and panel.symbols == ("A", "B", "C")
    rows = report.quarantine.to_pylist()
    assert [(row["row"], row["reason"]) for row in rows] == [(3, kind)]


@pytest.mark.parametrize(
    ("values", "kind", "action"),
    [
        ({"rating": "P-1"}, "rating is not known: NR", "flagged"),
        ({"rating": None}, "rating is missing: NR", "flagged"),
        ({"issuer": None}, "issuer is missing: one of its own", "flagged"),
        ({"sector": " "}, "sector is missing: other", "flagged"),
        ({"type": None}, "type is missing: zero if the coupon is 0, else fixed", "flagged"),
        ({"frequency": None}, "frequency is missing: 2", "flagged"),
        ({"day_count": None}, "day count is missing: the usual one", "flagged"),
        ({"callable": "yes"}, "callable without a call date: valued to maturity", "flagged"),
        ({"callable": "perhaps"}, "callable is not known: no", "flagged"),
        (
            {"day_count": "30U/360"},
            "day count 30U/360 is read as 30/360, which differs at the end of February",
            "flagged",
        ),
        ({"type": "callable"}, "type is callable, and callable is no: no", "flagged"),
    ],
)
def test_missing_values_are_told(values, kind, action):
    bonds = {name: [values.get(name, column[0]), *column[1:]] for name, column in BONDS.items()}
    panel, report = read(bonds=bonds)
    assert findings(report) == {f"bonds: {kind}": (action, 1, 1, "A")}
    assert panel.n_rows == 5
    assert panel.attributes["issuer"][0] == ("A" if "issuer" in values else "X Corp")
    assert panel.attributes["callable"][0] == ("yes" if values.get("callable") == "yes" else "no")


def test_frequency_of_a_zero_coupon_bond():
    panel, report = read(bonds=changed(BONDS, frequency=["semi-annual", "0", "4"]))
    assert report.clean and panel.frequency[panel.offsets[:-1]].tolist() == [2, 0, 4]
    panel, report = read(bonds=changed(BONDS, frequency=[2, None, 4]))
    assert panel.frequency[panel.offsets[:-1]].tolist() == [2, 2, 4]
    assert findings(report) == {"bonds: frequency is missing: 2": ("flagged", 1, 1, "B")}


def test_missing_columns_are_told_in_notes():
    bonds = changed(
        BONDS, **dict.fromkeys(("type", "frequency", "rating", "issuer", "sector", "callable", "day_count"))
    )
    bonds = changed(bonds, coupon=[5.0, 0.0, 3.0], margin=None)
    panel, report = read(bonds=bonds)
    assert report.clean and panel.attributes["type"] == ("fixed", "zero", "fixed")
    assert panel.attributes["day_count"] == ("30/360",) * 3 and panel.attributes["issuer"] == ("A", "B", "C")
    assert panel.rating_rank.tolist() == [11] * 5 and panel.frequency.tolist() == [2] * 5
    assert len([note for note in report.notes if note.startswith("the bonds have no column")]) == 6


def test_calls():
    calls = {
        "call_date": ["2023-02-15", None, None, "2030-01-01", "2024-02-15", "2024-02-15"],
        "call_price": [101.0, None, None, 100.0, None, 1000.0],
    }
    bonds = {
        name: [*column, *[column[0]] * 3] for name, column in changed(BONDS, id=BONDS["id"], callable=None).items()
    }
    bonds = {**bonds, "id": ["A", "B", "C", "D", "E", "F"], **calls}
    quotes = {name: [*column, *[column[0]] * 3] for name, column in QUOTES.items()}
    panel, report = read(bonds=bonds, quotes={**quotes, "id": [*QUOTES["id"], "D", "E", "F"]})
    assert findings(report) == {
        "bonds: call date is not between issue and maturity": ("left out", 1, 1, "D"),
        "bonds: call price is outside 50..200": ("left out", 1, 1, "F"),
        "bonds: call without a price: 100": ("repaired", 1, 1, "E"),
    }
    assert panel.attributes["callable"] == ("yes", "no", "no", "yes", "yes", "yes")
    dates = panel.call_date[panel.offsets[:-1]].astype("M8[D]").astype(str).tolist()
    assert dates == ["2023-02-15", "NaT", "NaT", "NaT", "2024-02-15", "NaT"]
    np.testing.assert_array_equal(panel.call_price[panel.offsets[:-1]], [101, NAN, NAN, NAN, 100, NAN])


def test_instruments_that_repeat_or_conflict():
    panel, report = read(bonds=with_bond())
    assert findings(report) == {"bonds: repeats another row": ("merged", 1, 1, "A")} and panel.n_symbols == 3
    panel, report = read(bonds=with_bond(coupon=5.5))
    found = findings(report)
    assert found["bonds: conflicts with another row of its id"] == ("quarantined", 2, 1, "A")
    assert found["quotes: its bond was quarantined"] == ("quarantined", 2, 1, "A 2020-01-02")
    assert panel.symbols == ("B", "C")


def test_ids_that_differ_in_case_and_bonds_without_quotes_are_told():
    panel, report = read(bonds=with_bond(id="a"))
    assert findings(report) == {
        "bonds: ids differ in case only": ("flagged", 2, 2, "A and a"),
        "bonds: bond without a quote": ("left out", 0, 1, "a"),
    }
    assert panel.n_symbols == 3


@pytest.mark.parametrize(
    ("row", "reason", "example"),
    [
        ((None, "2020-01-03", 100.0), "bond is not known", "? 2020-01-03"),
        (("Q", "2020-01-03", 100.0), "bond is not among the instruments", "Q 2020-01-03"),
        (("A", None, 100.0), "date is not known", "A ?"),
        (("A", "yesterday", 100.0), "date is not known", "A ?"),
        (("A", "2017-12-29", 100.0), "date is before the bond's issue", "A 2017-12-29"),
        (("A", "2020-01-03", None), "neither a price nor a yield is known", "A 2020-01-03"),
        (("A", "2020-01-03", 0.99), "price is outside 1..300", "A 2020-01-03"),
        (("A", "2020-01-03", 300.5), "price is outside 1..300", "A 2020-01-03"),
        (("A", "2020-01-03", float("inf")), "price is outside 1..300", "A 2020-01-03"),
        (("A", "2020-01-03", -100.0), "price is outside 1..300", "A 2020-01-03"),
    ],
)
def test_quotes_that_are_quarantined(row, reason, example):
    panel, report = read(quotes=with_quote(*row))
    symbols = 0 if row[0] is None else 1
    assert findings(report) == {f"quotes: {reason}": ("quarantined", 1, symbols, example)}
    assert panel.n_rows == 5 and report.quarantine["row"].to_pylist() == [5]


def test_quotes_of_matured_bonds_and_of_the_future(monkeypatch):
    now = np.datetime64("2027-06-01", "ns").astype(np.int64)
    monkeypatch.setattr(time_limits, "now_ns", lambda: int(now))
    quotes = {name: [*column, *column[-1:] * 3] for name, column in QUOTES.items()}
    quotes["date"][-3:] = ["2026-01-15", "2027-02-01", "2027-08-01"]
    panel, report = read(quotes=quotes)
    assert findings(report)["quotes: date is not before the bond's maturity"][1:] == (2, 1, "C 2026-01-15")
    assert findings(report)["quotes: date is in the future"][1:] == (1, 1, "C 2027-08-01")
    assert panel.n_rows == 5


def test_the_day_of_trading():
    quotes = changed(QUOTES, auction_date=["2020-01-02", "2020-01-03", None, "2020-01-03", "2020-01-06"])
    panel, report = read(quotes=quotes)
    assert findings(report) == {"quotes: traded after its date": ("quarantined", 1, 1, "C 2020-01-02")}
    np.testing.assert_array_equal(panel.curve_y10, [1.88, 1.80, 1.88, 1.54])


def test_quotes_that_repeat_or_conflict():
    panel, report = read(quotes=with_quote("A", "2020-01-02", 101.5))
    assert findings(report) == {"quotes: repeats another quote": ("merged", 1, 1, "A 2020-01-02")}
    assert panel.n_rows == 5
    panel, report = read(quotes=with_quote("A", "2020-01-02", 101.6))
    assert findings(report) == {
        "quotes: conflicts with another quote of its day": ("quarantined", 2, 1, "A 2020-01-02")
    }
    assert panel.n_rows == 4 and panel.clean[0] == 102.25


def test_yields_are_priced_and_judged():
    quotes = changed(QUOTES, price=[101.5, None, None, None, 99.75], ytm=[None, 4.5, 200.0, 3.2, None])
    panel, report = read(quotes=quotes)
    assert findings(report)["quotes: yield is outside -5..100 %"] == ("quarantined", 1, 1, "B 2020-01-02")
    np.testing.assert_array_equal(panel.columns["yield"], [NAN, 4.5, 3.2, NAN])
    assert np.isfinite(panel.clean).all() and 95 < panel.clean[1] < 110


def test_fractions_are_told_and_equal_percent():
    percent, _ = read(quotes=changed(QUOTES, price=None, ytm=[4.5, 4.25, 3.1, 3.2, 3.3]))
    bonds = changed(BONDS, coupon=[0.05, 0.0, None], margin=[None, None, 0.015])
    quotes = changed(QUOTES, price=None, ytm=[0.045, 0.0425, 0.031, 0.032, 0.033])
    curve = {name: values if name == "date" else [v / 100 for v in values] for name, values in CURVE.items()}
    fractions, report = read(bonds, quotes, curve)
    for name, column in percent.columns.items():
        np.testing.assert_allclose(fractions.columns[name], column, rtol=1e-12)
    assert tuple(note for note in report.notes if note != NO_RATING) == tuple(
        f"{what} were read as fractions, and multiplied by 100" for what in ("coupons", "yields", "rates of the curve")
    )


def test_a_rating_counts_from_its_quote_on():
    quotes = changed(QUOTES, rating=[None, "BBB", None, "odd", "CCC+"])
    panel, report = read(quotes=quotes)
    assert panel.rating_rank.tolist() == [2, 4, 4, 5, 7]
    assert findings(report) == {"quotes: rating is not known: the one before": ("flagged", 1, 1, "C 2020-01-02")}


@pytest.mark.parametrize(
    ("row", "kind", "finding"),
    [
        ((None, 1.5, 1.5, 1.8), "date is not known", ("quarantined", 1, 0, "?")),
        (("2020-01-06", 1.5, 1.5, 101.0), "a rate is outside -5..100 %", ("quarantined", 1, 0, "2020-01-06")),
        (("2020-01-06", None, None, None), "no rate of the day is known", ("left out", 1, 0, "2020-01-06")),
        (("2020-01-03", 1.52, 1.55, 1.8), "repeats another row", ("merged", 1, 0, "2020-01-03")),
        (("2020-01-03", 1.52, 1.56, 1.8), "conflicts with another row of its day", ("quarantined", 2, 0, "2020-01-03")),
    ],
)
def test_curve_days(row, kind, finding):
    curve = {name: [*column, value] for (name, column), value in zip(CURVE.items(), row, strict=True)}
    panel, report = read(curve=curve)
    assert findings(report)[f"curve: {kind}"] == finding
    assert panel.curve_y10[0] == 1.88


def test_missing_curve_days_are_told():
    curve = {**CURVE, "date": ["2020-01-02", "2020-01-15", "2020-01-17"]}
    quotes = changed(QUOTES, date=["2020-01-02", "2020-01-03", "2020-01-09", "2020-01-10", "2020-01-15"])
    panel, report = read(quotes=quotes, curve=curve)
    assert findings(report) == {
        "curve: days are missing": ("flagged", 8, 0, "2020-01-02 to 2020-01-15"),
        "quotes: no curve within 7 days": ("flagged", 1, 1, "C 2020-01-10"),
    }
    assert panel.curve_age.tolist() == [0, 1, 7, 8, 0] and np.isnan(panel.curve_y10[3])
    panel, report = read(quotes=with_quote("A", "2019-12-31", 100.0))
    assert findings(report)["quotes: before the first curve day"] == ("flagged", 1, 1, "A 2019-12-31")


def test_a_tenor_without_any_rate_is_left_out():
    panel, report = read(curve=changed(CURVE, y30=[None, None, None]))
    assert "curve_y30" not in panel.columns and report.notes == (NO_RATING, "the curve has no rate at y30")


def test_nan_everywhere():
    with pytest.raises(DataError, match=r"^quotes: .*no row is left; 5 rows quarantined: quotes: neither a price"):
        read(quotes=changed(QUOTES, price=[NAN] * 5))
    with pytest.raises(DataError, match="no row is left"):
        read(bonds=changed(BONDS, coupon=[NAN] * 3, type=["fixed"] * 3))
    with pytest.raises(DataError, match=r"^curve: .*no day is left; 3 rows left out: curve: no rate of the day"):
        read(curve={name: column if name == "date" else [NAN] * 3 for name, column in CURVE.items()})


def test_a_bond_of_the_type_callable_is_callable():
    panel, report = read(bonds=changed(BONDS, type=["Callable", "zero", "floating"], callable=None))
    assert panel.attributes["callable"] == ("yes", "no", "no") and panel.attributes["type"][0] == "fixed"
    kind = "bonds: callable without a call date: valued to maturity"
    assert findings(report) == {kind: ("flagged", 1, 1, "A")}


def test_a_quoted_coupon_is_that_of_a_floating_bond():
    panel, report = read(quotes=changed(QUOTES, coupon=[5.0, 5.5, None, 4.25, None]))
    np.testing.assert_allclose(panel.coupon, [5, 5, 0, 4.25, 1.57 + 1.5])
    kind = "quotes: coupon differs from that of the bonds, which counts"
    assert findings(report) == {kind: ("flagged", 1, 1, "A 2020-01-06")}
    panel, report = read(quotes=changed(QUOTES, coupon=[None, 99.0, None, 41.0, 4.0]))
    assert findings(report)["quotes: coupon is outside 0..40 %"] == ("quarantined", 1, 1, "C 2020-01-02")
    assert panel.coupon.tolist() == [5, 5, 0, 4]
    panel, report = read(quotes=changed(QUOTES, coupon=[0.05, 0.05, None, 0.0425, 0.04]))
    np.testing.assert_allclose(panel.coupon, [5, 5, 0, 4.25, 4])
    assert "quoted coupons were read as fractions, and multiplied by 100" in report.notes and report.clean


def test_a_note_tells_of_quotes_that_have_the_rating_of_the_bonds():
    def notes(**columns):
        return [note for note in read(quotes=changed(QUOTES, **columns))[1].notes if "rating" in note]

    assert notes() == [NO_RATING] and notes(rating=[None] * 5) == [NO_RATING]
    assert notes(rating=["A", None, "A", None, "A"]) == [f"1 of 5 {NO_RATING}"]
    assert notes(rating=["A", None, "A", "A", None]) == []
