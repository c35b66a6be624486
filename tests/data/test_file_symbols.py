"""Symbols from the names of files: endings, periods, second downloads; and files without rows or with other content."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from gpupipe.data import DataError, load
from gpupipe.data.file_symbols import _interval_ns, symbol_of

DAY, HOUR = np.timedelta64(1, "D"), np.timedelta64(1, "h")


def bars(start: str, n: int, seed: int = 0, step: np.timedelta64 = DAY) -> pa.Table:
    close = 50 + np.random.default_rng(seed).random(n)
    times = np.datetime64(start, "s") + step * np.arange(n)
    prices = dict(open=close, high=close + 1, low=close - 1, close=close, volume=np.full(n, 100.0))
    return pa.table({"date": times, **prices})


def read(folder, files, no_sector="other", **options):
    """Write tables, texts or bytes under their names and read the folder: `(panel, report)`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pa.csv.write_csv(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load(folder, device="cpu", no_sector=no_sector, **options)


def found(report):
    return [(f.kind, f.action, f.rows, f.symbols, f.example) for f in report.findings]


def test_only_the_known_ending_is_cut(tmp_path):
    names = {
        "BRK.A.csv": "BRK.A", "BRK.B.CSV": "BRK.B", "7203.T.csv": "7203.T", "BP.L.Csv": "BP.L", "BP.csv": "BP",
        "%5EGSPC.csv": "^GSPC", "BTC%2FUSDT.csv": "BTC/USDT", "100%.csv": "100%", "Apple Inc.csv": "Apple Inc",
        "NASDAQ_AAPL.csv": "NASDAQ_AAPL", "RDS-A.csv": "RDS-A", "X.tsv.csv": "X.tsv",
    }  # fmt: skip
    files = {name: bars("2020-01-01", 3, seed) for seed, name in enumerate(names)}
    panel, report = read(tmp_path, files, sector_map=dict.fromkeys(names.values(), "Energy"), no_sector="error")
    assert panel.symbols == tuple(sorted(names.values())) and report.clean and panel.sectors == ("energy",)
    assert symbol_of("A.B.parquet", (".parquet",)) == "A.B" and symbol_of("A.csv.GZ", (".csv", ".csv.gz")) == "A"


def test_files_of_other_kinds_keep_their_dots_too(tmp_path):
    pq.write_table(bars("2020-01-01", 3), tmp_path / "BRK.A.parquet")
    assert load(tmp_path / "BRK.A.parquet", {"BRK.A": "x"}, device="cpu")[0].symbols == ("BRK.A",)
    (tmp_path / "csv").mkdir()
    text = "date,open,high,low,close,volume\n2020-01-01,1,2,0.5,1,7\n"
    (tmp_path / "csv" / "BF.B.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert load(tmp_path / "csv" / "BF.B.csv.gz", {"BF.B": "x"}, device="cpu")[0].symbols == ("BF.B",)


@pytest.mark.parametrize(
    ("names", "step", "note"),
    [
        (
            {"BTCUSDT-1d-2020-10.csv": ("2020-10-01", 31), "BTCUSDT-1d-2020-11.csv": ("2020-11-01", 30)},
            DAY,
            "2 files BTCUSDT-1d-YYYY-MM were read as one symbol BTCUSDT",
        ),
        (
            {"BTCUSDT-10-2020.csv": ("2020-10-01", 31), "BTCUSDT-11-2020.csv": ("2020-11-01", 30)},
            DAY,
            "2 files BTCUSDT-MM-YYYY were read as one symbol BTCUSDT",
        ),
        (
            {"BTCUSDT_Apr-2020.csv": ("2020-04-01", 30), "BTCUSDT_August2020.csv": ("2020-08-01", 31)},
            DAY,
            "2 files BTCUSDT_Mon-YYYY, BTCUSDT_MonYYYY were read as one symbol BTCUSDT",
        ),
        (
            {f"BTCUSDT-1h-2020-10-0{k}.csv": (f"2020-10-0{k}", 24) for k in (5, 6)},
            HOUR,
            "2 files BTCUSDT-1h-YYYY-MM-DD were read as one symbol BTCUSDT",
        ),
        (
            {f"BTCUSDT_{year}.csv": (f"{year}-01-01", 300) for year in (2020, 2021, 2022)},
            DAY,
            "3 files BTCUSDT_YYYY were read as one symbol BTCUSDT",
        ),
        (
            {"BTCUSDT 2020Q1.csv": ("2020-01-01", 80), "BTCUSDT 2020Q2.csv": ("2020-04-01", 80)},
            DAY,
            "2 files BTCUSDT YYYYQN were read as one symbol BTCUSDT",
        ),
        (
            {"BTCUSDT_2019-01-01_2020-06-30.csv": ("2019-02-01", 80)},
            DAY,
            "1 file BTCUSDT_YYYY-MM-DD_YYYY-MM-DD was read as one symbol BTCUSDT",
        ),
        (
            {"BTCUSDT/2020-10.csv": ("2020-10-01", 31), "BTCUSDT/2020-11.csv": ("2020-11-01", 30)},
            DAY,
            "2 files YYYY-MM were read as one symbol BTCUSDT",
        ),
    ],
)
def test_periods_of_one_symbol_are_joined(tmp_path, names, step, note):
    files = {name: bars(start, n, seed, step) for seed, (name, (start, n)) in enumerate(names.items())}
    panel, report = read(tmp_path, files)
    assert panel.symbols == ("BTCUSDT",) and panel.n_rows == sum(n for _, n in names.values())
    assert note in report.notes and report.clean


def test_many_symbols_by_month_have_one_note(tmp_path):
    files = {f"{name}-1d-2020-1{k}.csv": bars(f"2020-1{k}-01", 30, k) for name in ("A", "B") for k in (0, 1)}
    panel, report = read(tmp_path, files)
    assert panel.symbols == ("A", "B") and panel.n_rows == 120 and report.clean
    assert "4 files A-1d-YYYY-MM and the like were read as 2 symbols, A, B" in report.notes


def test_a_name_that_the_sector_map_knows_stays(tmp_path):
    files = {"A_2020.csv": bars("2020-01-01", 90), "A_2021.csv": bars("2021-01-01", 90)}
    panel, report = read(tmp_path, files, sector_map={"A_2020": "Energy", "A_2021": "Energy"}, no_sector="error")
    assert panel.symbols == ("A_2020", "A_2021") and report.clean


def test_two_intervals_of_a_symbol_are_timeframes(tmp_path):
    files = {"BTC-1d-2020-10.csv": bars("2020-10-01", 31), "BTC-1h-2020-10.csv": bars("2020-10-01", 700, 1, HOUR)}
    with pytest.raises(DataError, match="the data have bars of 1d, 1h; choose one"):
        read(tmp_path, files)
    panel, _ = load(tmp_path, device="cpu", timeframe="1h", no_sector="other")
    assert panel.symbols == ("BTC",) and panel.n_rows == 700


def test_files_by_interval_are_one_symbol_if_their_bars_are_that_far_apart(tmp_path):
    days, hours = bars("2020-10-01", 40), bars("2020-10-01", 90, 1, HOUR)
    with pytest.raises(DataError, match="the data have bars of 1d, 1h; choose one"):
        read(tmp_path / "both", {"B-1d.csv": days, "B-1h.csv": hours})
    panel, _ = load(tmp_path / "both", device="cpu", timeframe="1h", no_sector="other")
    assert panel.symbols == ("B",) and panel.n_rows == 90
    panel, _ = read(tmp_path / "tenors", {"EURIBOR-1M.csv": days, "EURIBOR-3M.csv": days})  # interest rates, by day
    assert panel.symbols == ("EURIBOR-1M", "EURIBOR-3M")
    panel, _ = read(tmp_path / "alone", {"B_daily.csv": days})
    assert panel.symbols == ("B_daily",)
    panel, _ = load(tmp_path / "alone", {"B": "Energy"}, device="cpu")  # the map says what the name is
    assert panel.symbols == ("B",)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1d", 86_400), ("15m", 900), ("1M", 2_629_800), ("M5", 300), ("H4", 14_400), ("MN", 2_629_800), ("hourly", 3600),
     ("30min", 1800), ("1wk", 604_800)],
)  # fmt: skip
def test_lengths_of_intervals(text, seconds):
    assert _interval_ns(text) == seconds * 10**9


UNSURE = "files may be parts of one symbol"


@pytest.mark.parametrize(
    ("files", "finding"),
    [
        # Contracts that are named after the month of their delivery, and were traded before it.
        ({"ES-2020-12": ("2020-06-01", 90), "ES-2021-03": ("2020-09-01", 90)}, (UNSURE, "flagged", 180, 2)),
        ({"ES-12-2020": ("2020-06-01", 90), "ES-03-2021": ("2020-09-01", 90)}, (UNSURE, "flagged", 180, 2)),
        ({"A_2020": ("2020-01-01", 90), "A_2021": ("2020-05-01", 90)}, (UNSURE, "flagged", 180, 2)),
        ({"A_2020": ("2020-01-01", 90), "A": ("2020-01-01", 90)}, (UNSURE, "flagged", 90, 1)),
        ({"A_20240110": ("2020-01-01", 90), "A_20240111": ("2020-01-01", 91)}, (UNSURE, "flagged", 181, 2)),
        ({"SZ_200011": ("2020-01-01", 90), "SZ_200012": ("2020-01-01", 90)}, None),  # codes of stocks
        ({"A_2024": ("2010-01-01", 90), "B_2024": ("2010-01-01", 90)}, None),  # the year of the download
    ],
)
def test_names_that_only_look_like_periods_stay_symbols(tmp_path, files, finding):
    tables = {f"{name}.csv": bars(start, n, seed) for seed, (name, (start, n)) in enumerate(files.items())}
    panel, report = read(tmp_path, tables)
    assert panel.symbols == tuple(sorted(files)) and panel.n_rows == sum(n for _, n in files.values())
    assert [item[:4] for item in found(report)] == ([finding] if finding else [])


def test_a_second_download_is_the_same_symbol(tmp_path):
    panel, report = read(tmp_path, {"A.csv": bars("2020-01-01", 30), "A (1).csv": bars("2020-01-01", 30)})
    assert panel.symbols == ("A",) and panel.n_rows == 30
    assert ("several files of one symbol overlap in time", "flagged", 60, 1, "A (1).csv and A.csv") in found(report)
    assert ("repeats another row", "merged", 30) in [item[:3] for item in found(report)]
    assert "'A (1)' was read as a second download of A" in report.notes
    assert load(tmp_path, {"A": "x", "A (1)": "y"}, device="cpu")[0].symbols == ("A", "A (1)")


def test_files_of_one_name_in_several_folders(tmp_path):
    apart = {"2020/A.csv": bars("2020-01-01", 30), "2021/A.csv": bars("2021-01-01", 30)}
    panel, report = read(tmp_path / "apart", apart)
    assert panel.symbols == ("A",) and panel.n_rows == 60 and report.clean
    assert "several files were read as one symbol, A" in report.notes
    both = {"LSE/A.csv": bars("2020-01-01", 30, 1), "NYSE/A.csv": bars("2020-01-21", 20, 2)}
    with pytest.raises(DataError, match=r"one symbol overlap in time \(first LSE/A.csv and NYSE/A.csv\); 20 rows quar"):
        read(tmp_path / "both", both)
    _, report = load(tmp_path / "both", device="cpu", no_sector="other", max_quarantined=1.0)
    assert [item[:3] for item in found(report)[:2]] == [
        ("several files of one symbol overlap in time", "flagged", 50),
        ("conflicts with another row of its time", "quarantined", 20),
    ]
    assert report.findings[0].example == "LSE/A.csv and NYSE/A.csv"


def test_doubtful_names_are_findings(tmp_path):
    case = {"AAPL.csv": bars("2020-01-01", 30), "aapl.csv": bars("2020-01-01", 20, 1), "B.csv": bars("2020-01-01", 9)}
    panel, report = read(tmp_path / "case", case)
    assert panel.symbols == ("AAPL", "B", "aapl")
    assert found(report) == [("symbols differ in case only", "flagged", 50, 2, "AAPL and aapl")]
    generic = {"A.csv": bars("2020-01-01", 30), "prices.csv": bars("2020-01-01", 20)}
    _, report = read(tmp_path / "generic", generic)
    kind = "symbol is a file's name that looks like no ticker"
    assert found(report) == [(kind, "flagged", 20, 1, "prices")]
    named = bars("2020-01-01", 30).append_column("symbol", pa.array(["X"] * 30))
    _, report = read(tmp_path / "named", {"all.csv": named, "B.csv": bars("2020-01-01", 20)})
    assert found(report) == [("file has no column for the symbol, others have one", "flagged", 20, 1, "B")]


def kline(start: str, n: int, per_second: int) -> str:
    lines = []
    for row in bars(start, n).to_pylist():
        begin = int(np.datetime64(row["date"], "s").astype(int)) * per_second
        values = [begin, row["open"], row["high"], row["low"], row["close"], 5.5, begin + 86_400 * per_second - 1]
        lines.append(",".join(map(str, [*values, 1.5, 7, 1.5, 1.5, 0])))
    return "\n".join(lines) + "\n"


def test_klines_of_binance_need_no_line_of_names(tmp_path):
    files = {"B-1d-2024-12.csv": kline("2024-12-01", 31, 10**3), "B-1d-2025-01.csv": kline("2025-01-01", 31, 10**6)}
    panel, report = read(tmp_path, files)
    assert panel.symbols == ("B",) and panel.n_rows == 62 and set(panel.volume) == {5.5}
    days = panel.time_ns.astype("M8[ns]").astype("M8[D]")
    assert str(days[0]) == "2024-12-01" and (np.diff(days) == DAY).all()
    assert "files without names of columns were read as Binance klines" in report.notes[0]
    with pytest.raises(
        DataError, match=r"B-1d.csv: the first line holds values, not the names of the columns \(2020-01"
    ):
        read(tmp_path / "other", {"B-1d.csv": "2020-01-02,1,2,0.5,1,7\n2020-01-03,1,2,0.5,1,7\n"})


HEADER = "date,open,high,low,close,volume\n"


def test_empty_files_among_others_are_one_finding(tmp_path):
    files = {f"{name}.csv": bars("2020-01-01", 5, k) for k, name in enumerate("ABC")}
    nothing = {"F.csv": "", "G.csv": HEADER, "H.csv": '\ufeff""\r\n', "I.csv.gz": gzip.compress(b""), "J.csv.gz": b""}
    panel, report = read(tmp_path, files | nothing)
    assert panel.symbols == ("A", "B", "C") and panel.n_rows == 15
    assert found(report) == [("file holds no rows", "skipped", 0, 5, "F.csv and G.csv and 3 more")]
    with pytest.raises(DataError, match=r"strict: 0 rows skipped: file holds no rows \(first F.csv and G.csv"):
        load(tmp_path, device="cpu", no_sector="other", strict=True)


def test_if_all_files_are_empty_nothing_is_read(tmp_path):
    with pytest.raises(DataError, match=r"all files of the folder are empty \(F.csv\)"):
        read(tmp_path / "a", {"F.csv": "", "G.csv": "\n"})
    with pytest.raises(DataError, match="the data hold no rows"):
        read(tmp_path / "b", {"F.csv": "", "G.csv": HEADER})
    with pytest.raises(DataError, match=r"F.csv: the file is empty"):
        load(tmp_path / "a" / "F.csv", device="cpu")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("F.csv", "<!DOCTYPE html>\n<html><body>Too many requests</body></html>", "it holds a web page"),
        ("F.csv", '{"chart":{"result":null,"error":{"code":"Not Found"}}}', "a server's answer.*remove it"),
        ("F.csv", b"PK\x03\x04" + bytes(20), "it holds a ZIP archive: unpack it"),
        (
            "F.csv.gz",
            gzip.compress(HEADER.encode() * 500)[:-9],
            "gzip data are cut or damaged .*: download the file again",
        ),
        ("F.csv.gz", gzip.compress(HEADER.encode())[:12], "gzip data are cut or damaged"),
    ],
)
def test_files_with_other_content_are_refused_by_name(tmp_path, name, content, words):
    with pytest.raises(DataError, match=rf"F\.csv[^ ]*: .*{words}"):
        read(tmp_path, {"A.csv": bars("2020-01-01", 5), name: content})
