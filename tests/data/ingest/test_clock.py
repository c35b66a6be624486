"""A store keeps the exchange's clock of intraday bars whose source gives a time zone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.data import bars as bars_module
from gpupipe.data import columns, load
from gpupipe.data.ingest import ingest
from gpupipe.data.on_cuda import to_bars
from gpupipe.data.sources import RawTable
from gpupipe.runtime.device import pick
from tests.data.test_cuda import stub_frame
from tests.support.ingested import file_contents, stored_panel, with_column

HOUR_NS = 3_600 * 10**9
TOKYO = 9 * HOUR_NS


def hourly(n_days=6, symbols=("AAA", "BBB"), zone="Asia/Tokyo"):
    """Six hourly bars a day from 9:00 in Tokyo, with the zone in the type of the column."""
    day = np.arange("2024-01-08", n_days, dtype="M8[D]").astype("M8[ns]").astype(np.int64)
    time = (day[:, None] + np.arange(6) * HOUR_NS).ravel()  # 9:00 in Tokyo is midnight UTC
    n, rng = len(time) * len(symbols), np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    prices = {"open": close * 1.001, "high": close * 1.01, "low": close * 0.99, "close": close}
    table = {
        "symbol": np.repeat(symbols, len(time)),
        "time": pa.array(np.tile(time, len(symbols)), pa.timestamp("ns", zone)),
    }
    return pa.table({**table, **prices, "volume": rng.lognormal(12, 0.4, n), "sector": ["energy"] * n})


def part(table, first, last):
    time = table["time"].cast(pa.int64()).to_numpy()
    days = np.unique(time // (24 * HOUR_NS))[first:last]
    return table.filter(pa.array(np.isin(time // (24 * HOUR_NS), days)))


def utc(table):
    return with_column(table, "time", table["time"].cast(pa.timestamp("ns", "UTC")))


def test_the_clock_is_read_again(tmp_path):
    whole = hourly()
    ingest(part(whole, 0, 4), tmp_path / "store", calendar="none")
    ingest(part(whole, 3, 6), tmp_path / "store", calendar="none")
    expected, panel = load(whole, device="cpu")[0], stored_panel(tmp_path / "store")
    np.testing.assert_array_equal(panel.local_ns, expected.local_ns)
    assert (panel.local_ns - panel.time_ns == TOKYO).all() and (panel.time_ns == expected.time_ns).all()
    before = file_contents(tmp_path / "store")
    assert not ingest(whole, tmp_path / "store", calendar="none").changed
    assert not ingest(utc(whole), tmp_path / "store", calendar="none").changed  # the clock that is known stays
    assert file_contents(tmp_path / "store") == before
    again = tmp_path / "again"
    ingest(tmp_path / "store", again, calendar="none")  # a store is a source too
    assert (stored_panel(again).local_ns == expected.local_ns).all()


def test_bars_without_a_zone_have_no_column_and_get_the_clock_when_they_come_with_one(tmp_path):
    whole, store = hourly(), tmp_path / "store"
    ingest(utc(part(whole, 0, 4)), store, calendar="none")
    assert stored_panel(store).local_ns is None
    assert pq.read_schema(next(store.glob("sector=*/*.parquet"))).names[-1] == "volume"
    report = ingest(part(whole, 3, 6), store, calendar="none")
    panel = stored_panel(store)
    day = panel.time_ns // (24 * HOUR_NS)
    np.testing.assert_array_equal(panel.local_ns - panel.time_ns, np.where(day >= np.unique(day)[3], TOKYO, 0))
    assert report.new_bars == 24 and not report.changes
    assert "2 symbols (AAA first) have bars with a time zone and bars without" in report.notes[-1]
    assert not ingest(whole, store, calendar="none").notes
    assert (stored_panel(store).local_ns - stored_panel(store).time_ns == TOKYO).all()


def test_cudf_reads_the_clock_as_the_host_does(tmp_path):
    ingest(hourly(), tmp_path / "store", calendar="none")
    table = pq.read_table(next((tmp_path / "store").glob("sector=*/*.parquet")))
    matches = columns.find(table.column_names, columns.REQUIRED, "test")
    host = bars_module.from_tables([RawTable(table, matches, "host")], None, None, adjusted=False)
    plain = {name: column for name, column in matches.items() if name != "utc_offset_s"}
    raw = [RawTable(stub_frame(table), chosen, "device") for chosen in (matches, plain)]
    device = to_bars(raw, {}, pick("cpu"))
    np.testing.assert_array_equal(device.local_ns, np.concatenate([host.local_ns, host.time_ns]))


@pytest.mark.parametrize("offset", [np.nan, 10.0**9])
def test_an_offset_that_is_none_is_utc(offset):
    table = utc(hourly()).append_column("utc_offset_s", pa.array(np.full(72, offset)))
    assert (load(table, device="cpu")[0].clock_ns == load(utc(hourly()), device="cpu")[0].time_ns).all()
