"""Files and frames of every kind give the same panel; bad input is one clear line."""

import gzip

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from gpupipe.data import DataError, save
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds.reading import read_bonds
from tests.support.bond_tables import BONDS, CURVE, QUOTES, changed, findings, read
from tests.support.street_price import price_of_yield

HASH = read()[1].data_hash
TABLES = {"bonds": pa.table(BONDS), "quotes": pa.table(QUOTES), "curve": pa.table(CURVE)}


def parquet(table, path):
    pq.write_table(table, path)


def zipped(table, path):
    with gzip.open(path, "wb") as stream:
        pa.csv.write_csv(table, stream)


WRITERS = {"parquet": parquet, "csv": pa.csv.write_csv, "csv.gz": zipped, "feather": pa.feather.write_feather}


@pytest.mark.parametrize("ending", WRITERS)
def test_files(tmp_path, ending):
    paths = {name: tmp_path / f"{name}.{ending}" for name in TABLES}
    for name, table in TABLES.items():
        WRITERS[ending](table, paths[name])
    _, report = read_bonds(*paths.values(), price_of_yield=price_of_yield)
    assert report.data_hash == HASH and report.clean
    assert report.description == (f"bonds of bonds.{ending}, quotes of quotes.{ending}, par curve of curve.{ending}")
    assert report.path == str(paths["quotes"]) and report.kind == "bonds"


def test_folder_of_quotes_by_month(tmp_path):
    folder = tmp_path / "quotes"
    folder.mkdir()
    table = TABLES["quotes"]
    parquet(table.filter(pa.compute.equal(table["date"], "2020-01-02")), folder / "2020-01.parquet")
    parquet(table.filter(pa.compute.equal(table["date"], "2020-01-06")), folder / "2020-01-06.parquet")
    _, report = read(quotes=str(folder))
    assert report.data_hash == HASH and "quotes of quotes (2 files)" in report.description


@pytest.mark.parametrize(
    "frame", [lambda t: t.to_pandas(), pl.from_arrow, lambda t: t.to_pandas().set_axis(range(t.num_rows))]
)
def test_frames(frame):
    panel, report = read(**{name: frame(table) for name, table in TABLES.items()})
    assert report.data_hash == HASH and panel.n_rows == 5


def test_pandas_curve_with_an_index_of_dates():
    curve = TABLES["curve"].to_pandas()
    curve = curve.set_index(pd.DatetimeIndex(curve.pop("date")))
    assert read(curve=curve)[1].data_hash == HASH
    assert read(curve=curve.rename_axis(None))[1].data_hash == HASH


def test_usual_spellings():
    bonds = changed(BONDS, id=None, coupon=None, issue=None, maturity=None, frequency=None)
    bonds |= {
        "CUSIP": BONDS["id"], "Coupon Rate": BONDS["coupon"], "Issue Date": BONDS["issue"],
        "MATURITY_DATE": BONDS["maturity"], "Freq": ["Semi-Annual", "2", "quarterly"],
    }  # fmt: skip
    quotes = {"Bond ID": QUOTES["id"], "Trade Date": QUOTES["date"], "PX_LAST": QUOTES["price"]}
    curve = {"observation_date": CURVE["date"], "DGS3MO": CURVE["3m"], "DGS1": CURVE["1Y"], "DGS10": CURVE["10Y"]}
    assert read(bonds, quotes, curve)[1].data_hash == HASH


def test_of_two_columns_with_one_meaning_a_note_tells_which_was_used():
    bonds = changed(BONDS, issue=None) | {"issue_date": ["2018-03-01"] * 3, "dated_date": BONDS["issue"]}
    _, report = read(bonds, changed(QUOTES, mid=[1.0] * 5))
    assert report.data_hash == HASH
    assert report.notes == (
        "column 'dated_date' gives the issue; 'issue_date' was not used",
        "column 'price' gives the clean; 'mid' was not used",
        "quotes have no rating: that of the bonds stands for all their dates, though it may have been given later",
    )


@pytest.mark.parametrize(
    "convert",
    [
        lambda dates: [int(date.replace("-", "")) for date in dates],
        lambda dates: [date.replace("-", "/") for date in dates],
        lambda dates: pa.array(np.array(dates, "M8[D]")),
        lambda dates: pa.array(np.array(dates, "M8[ns]"), pa.timestamp("ns", "UTC")),
    ],
)
def test_dates_of_many_kinds(convert):
    bonds = changed(BONDS, issue=convert(BONDS["issue"]), maturity=convert(BONDS["maturity"]))
    quotes, curve = changed(QUOTES, date=convert(QUOTES["date"])), changed(CURVE, date=convert(CURVE["date"]))
    assert read(bonds, quotes, curve)[1].data_hash == HASH


def test_spreadsheet_day_numbers_are_read_or_refused():
    days = np.busday_offset("2020-01-01", np.arange(60), roll="forward")
    numbers = (days.astype(np.int64) + 25_569).tolist()
    panel, _ = read(
        quotes={"id": ["A"] * 60, "date": numbers, "price": [100.0] * 60},
        curve={"date": numbers, "10Y": [1.5] * 60},
    )
    np.testing.assert_array_equal(panel.time_ns.astype("M8[ns]").astype("M8[D]"), days)
    dates = np.array(["2045-02-15", "2029-06-30", "2026-01-15", "2050-11-30", "2036-08-15"], "M8[D]")
    maturity = (dates.astype(np.int64) + 25_569).tolist()
    bonds = {name: [*column, *column[:1] * 2] for name, column in BONDS.items()}
    panel, _ = read(bonds=changed(bonds, id=["A", "B", "C", "D", "E"], maturity=maturity))
    assert panel.maturity[panel.offsets[:-1]].astype("M8[D]").astype(str).tolist() == dates.astype(str).tolist()[:3]
    with pytest.raises(DataError, match=r"may be yyddd \(2053-01-08\) or a spreadsheet's day numbers \(2045-02-15\)"):
        read(bonds=changed(BONDS, maturity=maturity[:3]))
    with pytest.raises(DataError, match="are not understood as times"):
        read(bonds=changed(BONDS, maturity=[8.1, 9.5, -2.0]))  # years to maturity


def test_dates_whose_day_and_month_cannot_be_told_apart_are_refused():
    with pytest.raises(DataError, match="have the day or the month first"):
        read(bonds=changed(BONDS, maturity=["02/03/2028"] * 3))


@pytest.mark.parametrize("id_", ["X [2030] (EUR)", "Öst. 4⅞ % 債券", 'a,b"c', "../../etc", "=1+1", "007", "NA"])
def test_ids_of_any_letters(tmp_path, id_):
    paths = {}
    for name, table in {"bonds": BONDS, "quotes": QUOTES}.items():
        paths[name] = tmp_path / f"{name}.csv"
        ids = [id_ if value == "A" else value for value in table["id"]]
        pd.DataFrame({**table, "id": ids}).to_csv(paths[name], index=False)
    panel, report = read(**paths)
    assert id_ in panel.symbols and panel.n_rows == 5 and report.clean


def test_whole_numbers_as_ids():
    panel, _ = read(changed(BONDS, id=[7, 8, 9]), changed(QUOTES, id=[7, 7, 8, 9, 9]))
    assert panel.symbols == ("7", "8", "9")


def test_one_bond_on_one_date():
    one = {name: column[:1] for name, column in BONDS.items()}
    panel, report = read(one, {name: column[:1] for name, column in QUOTES.items()})
    assert panel.n_rows == 1 and panel.symbols == ("A",) and report.clean
    panel, _ = read(one, {name: column[:1] for name, column in QUOTES.items()}, group_by="symbol")
    assert panel.groups == ("A",)


def test_rows_with_another_number_of_fields_are_quarantined(tmp_path):
    path = tmp_path / "quotes.csv"
    pa.csv.write_csv(TABLES["quotes"], path)
    path.write_text(path.read_text() + "A,2020-01-03\nA,2020-01-03,100,7\n")
    panel, report = read(quotes=path)
    assert panel.n_rows == 5 and findings(report)["quotes: is not a row"][:2] == ("quarantined", 2)
    assert report.quarantine["reason"].to_pylist() == [
        "quotes: is not a row: 2 fields instead of 3: A,2020-01-03",
        "quotes: is not a row: 4 fields instead of 3: A,2020-01-03,100,7",
    ]


def test_quarantine_and_report_are_written(tmp_path):
    quotes = {
        name: [*column, value] for (name, column), value in zip(QUOTES.items(), ("Q", "2020-01-03", 9), strict=True)
    }
    bonds = {name: [*column, "Z" if name == "id" else None] for name, column in BONDS.items()}
    _, report = read(bonds, quotes)
    written = save(report, tmp_path)
    assert [path.name for path in written] == ["quarantine.parquet", "data_report.json"]
    rows = pq.read_table(tmp_path / "quarantine.parquet").to_pylist()
    assert [(row["reason"], row["id"], row["row"]) for row in rows] == [
        ("bonds: issue is not known", "Z", 3),
        ("quotes: bond is not among the instruments", "Q", 5),
    ]
    assert '"rows_quarantined": 2' in (tmp_path / "data_report.json").read_text()


def test_too_many_quarantined_rows_stop_the_reading():
    quotes = changed(QUOTES, price=[101.5, 0.0, 0.0, 0.0, 0.5])
    with pytest.raises(DataError) as caught:
        read(quotes=quotes, max_quarantined=0.05)
    message = str(caught.value)
    assert message.startswith("quotes: a pyarrow Table: 4 of 5 rows would be quarantined") and "\n" not in message
    assert "price is outside 1..300 (first A 2020-01-06)" in message and "--max-quarantined 0.8" in message
    assert read(quotes=quotes, max_quarantined=0.8)[0].n_rows == 1


def test_strict_makes_any_finding_an_error():
    with pytest.raises(DataError, match="strict: 1 row merged: quotes: repeats another quote"):
        read(quotes={name: [*column, column[0]] for name, column in QUOTES.items()}, strict=True)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"bonds": "absent.csv"}, "bonds: absent.csv: no such file or folder"),
        ({"bonds": changed(BONDS, maturity=None)}, "no column for maturity; found 'id', .*accepted names: maturity as"),
        ({"quotes": changed(QUOTES, price=None, dirty=[1.0] * 5)}, "no column for a clean price or a yield"),
        (
            {"curve": changed(CURVE, **{"3m": None, "1Y": None, "10Y": None, "slope": [1.0] * 3})},
            "no column is a tenor",
        ),
        (
            {"curve": changed(CURVE, **{"12m": [1.0] * 3})},
            "columns '1Y' and '12m' are both the tenor y1; leave out one",
        ),
        ({"quotes": {name: column[:0] for name, column in QUOTES.items()}}, "quotes: a pyarrow Table holds no rows"),
        ({"quotes": pa.table({**QUOTES, "price": ["1,5"] * 5})}, "numbers are written with commas"),
        ({"quotes": pa.table({**QUOTES, "price": [True] * 5})}, "has type bool, expected numbers"),
        ({"quotes": 7}, "cannot read a builtins int"),
        ({"rates": "bp"}, "rates is 'bp'"),
        ({"max_quarantined": 2.0}, "expected a share of rows in 0..1"),
    ],
)
def test_bad_input_is_one_clear_line(tables, message):
    with pytest.raises(UserError, match=message) as caught:
        read(**tables)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"id,date,price\n", b"PK\x03\x04", b"\xff\xfe\x00", b"<html>", b"id,date,price\n\xff,2020-01-02,1\n"],
)
@pytest.mark.parametrize("name", ["bonds", "quotes", "curve"])
def test_broken_files_are_one_clear_line(tmp_path, content, name):
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(**{name: path})
    assert "file.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_order_of_rows_does_not_matter():
    rng = np.random.default_rng(2)
    tables = {name: table.take(rng.permutation(table.num_rows)) for name, table in TABLES.items()}
    assert read(**tables)[1].data_hash == HASH


def test_many_quotes():
    n_bonds, n_days = 400, 250
    days = np.busday_offset("2019-07-01", np.arange(n_days), roll="forward")
    ids = [f"B{k:03d}" for k in range(n_bonds)]
    bonds = {name: [column[0]] * n_bonds for name, column in BONDS.items()} | {"id": ids}
    quotes = {
        "id": np.repeat(ids, n_days),
        "date": np.tile(days, n_bonds),
        "price": np.linspace(50, 150, n_bonds * n_days),
    }
    curve = {"date": days, "10Y": np.linspace(1, 2, n_days)}
    panel, report = read(bonds, quotes, curve)
    assert panel.n_rows == n_bonds * n_days and report.clean
    np.testing.assert_array_equal(panel.clean, quotes["price"])
    np.testing.assert_array_equal(panel.curve_y10, np.tile(curve["10Y"], n_bonds))
