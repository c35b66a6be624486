"""Positions from a file: what fits the bars, and one line for what does not."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from gpupipe import read
from gpupipe.backtest.position_file import read_positions
from gpupipe.data.errors import DataError
from tests.support.panels import random_panel

HOUR_NS = 3600 * 10**9


def hours(lengths=(60,), begin="2024-01-01T00:00"):
    """Hourly bars, of weekdays alone."""
    at = np.datetime64(begin, "ns").astype(np.int64)
    hour = np.arange(max(lengths))
    hour = hour + 48 * (hour // 24 // 5)
    return random_panel(lengths).replace(time_ns=np.concatenate([at + hour[:n] * HOUR_NS for n in lengths]))


def table(time_ns, position, **columns):
    return pa.table({"time": pa.array(time_ns).cast(pa.timestamp("ns", "UTC")), "position": position, **columns})


def test_a_row_for_each_bar_and_bars_without_a_row():
    panel = hours()
    position = np.random.default_rng(0).integers(-1, 2, 60)
    found = read_positions(table(panel.time_ns, position), panel)
    assert found.path.positions[0].tolist() == position.tolist() and (found.rows, found.kept) == (60, 0)
    assert found.path.since_ns == panel.time_ns[0] and found.path.until_ns == panel.time_ns[-1] + 1
    few = read_positions(table(panel.time_ns[[20, 10, 15]], [0, 1, -1]), panel)
    assert few.path.cut().positions.tolist() == [[1] * 5 + [-1] * 5 + [0]] and (few.rows, few.kept) == (3, 8)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "feather"])
def test_files_of_every_kind_and_spelling(kind, tmp_path):
    panel, path = hours(), tmp_path / f"mine.{kind}"
    rows = table(panel.time_ns, np.ones(60, np.int8), symbol=["S000"] * 60)
    rows = rows.rename_columns(["Date", "Position", "TICKER"])
    if kind == "parquet":
        pq.write_table(rows, path)
    elif kind == "feather":
        pyarrow.feather.write_feather(rows, path)
    else:
        times = panel.time_ns.astype("M8[ns]").astype("M8[m]").astype(str)
        text = "".join(["Date;Position;TICKER\n", *(f"{time};1;S000\n" for time in times)]).encode()
        path.write_bytes(gzip.compress(text) if kind.endswith("gz") else text)
    found = read_positions(path, panel)
    assert found.path.positions.tolist() == [[1] * 60] and found.path.names == ("mine",)
    assert found.path.source == path.name


def test_several_symbols_and_one_of_them():
    panel = hours((30, 20))
    both = table(panel.time_ns, [1] * 30 + [-1] * 20, symbol=["S000"] * 30 + ["S001"] * 20)
    assert read_positions(both, panel).path.positions.tolist() == [[1] * 30 + [-1] * 20]
    one = read_positions(both.slice(30), panel)
    assert one.path.panel.symbols == ("S001",) and one.path.positions.tolist() == [[-1] * 20]
    late = table(panel.time_ns[[0, 40]], [1, -1], symbol=["S000", "S001"])
    found = read_positions(late, panel)
    assert found.path.positions[0].tolist() == [1] * 30 + [0] * 10 + [-1] * 10 and found.kept == 10


def test_dates_name_daily_bars_in_any_zone():
    panel = random_panel((40,))
    dates = pa.table({"date": pa.array(panel.time_ns).cast(pa.timestamp("ns")).cast(pa.date32()), "position": [1] * 40})
    assert read_positions(dates, panel).rows == 40
    zone = pa.timestamp("ns", "Asia/Tokyo")
    tokyo = pa.table({"time": pa.array(panel.time_ns - 9 * HOUR_NS).cast(zone), "position": [1] * 40})
    assert read_positions(tokyo, panel).path.since_ns == panel.time_ns[0]


def test_times_of_a_zone_are_the_moments_they_are():
    panel = hours()
    zone = pa.timestamp("ns", "America/New_York")
    rows = pa.table({"time": pa.array(panel.time_ns).cast(zone), "position": [1] * 60})
    assert read_positions(rows, panel).rows == 60


PANEL = hours((200,))
TIMES = PANEL.time_ns


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (table(TIMES, [1] * 199 + [2]), "1 position other than -1 .short., 0 .flat. and 1 .long.; the first is 2 in"),
        (table(TIMES, [1.0] * 199 + [0.5]), "the first is 0.5"),
        (table(TIMES, [1] * 199 + [None]), "1 position other than"),
        (table(TIMES[[0, 1, 1, 0]], [1, 0, 1, 1]), "2 rows repeat the symbol and time .* 2024-01-01 of S000"),
        (table(TIMES + HOUR_NS // 2, [1] * 200), "200 of 200 times are of no bar; .*; 0.5 hours earlier they would be"),
        (table(TIMES - 5 * HOUR_NS, [1] * 200), "5 hours later they would be: are they in another time"),
        (table(np.append(TIMES, TIMES[9] + 1), [1] * 201), r"1 of 201 times are of no bar; [^;]* of S000$"),
        (table(TIMES + 10**18, [1] * 200), "no overlap: positions from 2055-.* to .*, bars from 2024-01-01 to "),
        (table(TIMES, [1] * 200).rename_columns(["time", "side"]), "one column 'position' .* 'time', 'side'"),
        (table(TIMES, [1] * 200).rename_columns(["when", "position"]), "no column for time"),
        (table(TIMES, ["long"] * 200), "200 positions other than"),
        (table(TIMES, [True] * 200), "expected numbers"),
        (table([*TIMES[:199], None], [1] * 200), "1 time cannot be read"),
        (table(TIMES, [1] * 200, symbol=["S000"] * 199 + ["GOLD"]), "no symbol 'GOLD' in the data"),
        (table(TIMES, [1] * 200, symbol=["S000"] * 199 + [None]), "row 200 has no symbol"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(rows, reason):
    with pytest.raises(DataError, match=reason) as refused:
        read_positions(rows, PANEL)
    assert "\n" not in str(refused.value)


def test_several_symbols_need_a_column_for_them(tmp_path):
    panel = hours((30, 20))
    with pytest.raises(DataError, match="no column symbol, and the data hold 2 symbols"):
        read_positions(table(panel.time_ns[:30], [1] * 30), panel)
    path = tmp_path / "empty.csv"
    path.write_text("time,position\n")
    with pytest.raises(DataError, match="holds no rows"):
        read_positions(path, panel)
    with pytest.raises(DataError, match=r"none\.csv"):
        read_positions(tmp_path / "none.csv", panel)


def test_times_on_the_clock_of_the_exchange_are_named_as_such():
    zone = pa.timestamp("ns", "America/New_York")
    bars = hours((200,)).to_arrow().drop_columns(["sector"])
    bars = bars.set_column(bars.column_names.index("time"), "time", bars["time"].cast(zone))
    panel = read(bars, group_by="symbol", device="cpu")
    naive = pa.table({"time": pa.array(panel.local_ns).cast(pa.timestamp("ns")), "position": [1] * 200})
    with pytest.raises(DataError, match="on the wall clock of the exchange"):
        read_positions(naive, panel)
