"""A daily store keeps one bar a session, however a source stamps it; older stores are brought to session dates."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gpupipe.data import DataError, data_hash, load
from gpupipe.data.ingest import SourceOptions, ingest, parts, restore_store, session_keys, sessions, verify_store
from gpupipe.data.ingest.bar_table import concatenate, from_panel
from tests.support.ingested import change_of, panel_of, same, stored_panel, with_column

HOUR, DAY = 3_600 * 10**9, 86_400 * 10**9
MONDAY = int(np.datetime64("2024-03-04", "ns").astype(np.int64))


def bars(symbols=("AAA", "BBB", "CCC"), n=40, seed=0):
    """Daily bars of weekdays from a Monday, at midnight UTC."""
    rng = np.random.default_rng(seed)
    time = np.busday_offset("2024-03-04", np.arange(n)).astype("M8[ns]").astype(np.int64)
    total = n * len(symbols)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, total)))
    open_ = close * np.exp(rng.normal(0, 0.01, total))
    prices = {"open": open_, "high": np.maximum(open_, close) * 1.01, "low": np.minimum(open_, close) * 0.99}
    table = {"symbol": np.repeat(symbols, n), "time": np.tile(time, len(symbols)), **prices, "close": close}
    return pa.table({**table, "volume": np.round(rng.lognormal(12, 0.4, total)), "sector": ["energy"] * total})


def part(table, first, last):
    """Sessions first <= k < last, counted from the first Monday."""
    time = table["time"].to_numpy()
    day = np.busday_count("2024-03-04", time.astype("M8[ns]").astype("M8[D]"))
    return table.filter(pa.array((day >= first) & (day < last)))


def at(table, shift_ns, zone=None):
    """The same bars stamped later by `shift_ns`, as UTC or with the zone in the type."""
    stamps = pa.array(table["time"].to_numpy() + shift_ns)
    return with_column(table, "time", stamps.cast(pa.timestamp("ns", zone)))


def halved(table):
    """The last bar of each symbol as it was at noon."""
    columns = {name: table[name].to_numpy().copy() for name in ("open", "high", "low", "close", "volume")}
    symbol = np.array(table["symbol"].to_pylist())
    rows = np.flatnonzero(np.append(symbol[1:] != symbol[:-1], True))
    columns["close"][rows] = (columns["open"][rows] + columns["close"][rows]) / 2
    for name, bound in (("high", np.maximum), ("low", np.minimum)):
        columns[name][rows] = bound(columns["open"][rows], columns["close"][rows])
    columns["volume"][rows] *= 0.4
    for name, values in columns.items():
        table = with_column(table, name, pa.array(values))
    return table


def put(table, store, options=None, calendar="none", **keywords):
    return ingest(table, store, options, calendar=calendar, **keywords)


@pytest.fixture
def whole():
    return bars()


@pytest.fixture
def store(tmp_path, whole):
    put(part(whole, 0, 30), tmp_path / "store")
    return tmp_path / "store"


STAMPS = {
    "live": (21 * HOUR + 2 * 10**9, None),
    "New York, UTC": (4 * HOUR, None),
    "New York": (4 * HOUR, "America/New_York"),
    "closes": (20 * HOUR, None),
    "Tokyo": (-9 * HOUR, "Asia/Tokyo"),
    "Tokyo, UTC": (-9 * HOUR, None),
    "Sydney, UTC": (-10 * HOUR, None),
}


@pytest.mark.parametrize("stamp", STAMPS)
@pytest.mark.parametrize("first", [28, 30])
def test_a_night_of_any_stamp_is_the_days_bars(store, whole, stamp, first):
    if first == 30 and stamp.endswith(("Tokyo, UTC", "Sydney, UTC")):
        last = 36  # without an overlap, a Sunday tells that these are days of the east
    else:
        last = 31
    report = put(at(part(whole, first, last), *STAMPS[stamp]), store)
    assert report.new_bars == 3 * (last - 30) and not report.changes and not report.rekeyed
    assert same(store, part(whole, 0, last))


def test_a_new_bar_of_the_east_alone_contradicts_the_last_stored_one(store, whole):
    put(at(part(whole, 30, 31), -9 * HOUR), store)
    assert same(store, part(whole, 0, 31))


def test_the_zone_of_the_named_calendar_tells_the_session(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(sessions, "zone_of", {"XTKS": "Asia/Tokyo", "XNYS": "America/New_York"}.__getitem__)
    stored = from_panel(panel_of(part(whole, 0, 30)))
    for name, shift in (("XTKS", -9 * HOUR), ("XNYS", 24 * HOUR + HOUR // 2)):  # 0:30 UTC is the evening before
        incoming = from_panel(load(at(part(whole, 31, 32), shift), device="cpu", daily=False)[0])
        aligned = session_keys.align(stored, incoming, zone=sessions.zone_of(name))
        assert aligned.incoming.time_ns.tolist() == [MONDAY + 43 * DAY] * 3
    evening = at(part(whole, 31, 32), 24 * HOUR + HOUR // 2)
    monkeypatch.setattr(sessions, "check_calendar", lambda *_: sessions.CalendarCheck())
    put(part(whole, 0, 31), tmp_path / "store", calendar="XNYS")
    put(evening, tmp_path / "store", calendar="XNYS")
    assert same(tmp_path / "store", part(whole, 0, 32))


def test_a_store_with_sundays_has_no_next_date(tmp_path):
    def daily(first, last, hour):
        time = np.arange(first, last, dtype="M8[D]").astype("M8[ns]").astype(np.int64) + hour * HOUR
        return with_column(bars(("BTC",), len(time)), "time", pa.array(time, pa.timestamp("ns")))

    put(daily("2024-03-01", "2024-04-07", 16), tmp_path / "store")
    put(daily("2024-04-07", "2024-04-08", 16), tmp_path / "store")  # a Sunday, alone
    assert stored_panel(tmp_path / "store").session_day[-1] == np.datetime64("2024-04-07").astype(int)


def test_two_exchanges_in_one_store(tmp_path):
    new_york, tokyo = bars(("AAA",), seed=1), bars(("7203.T",), seed=2)
    both = pa.concat_tables([new_york, tokyo])
    put(part(both, 0, 30), tmp_path / "store")
    for k in (30, 31):
        night = [at(part(new_york, k - 2, k + 1), 20 * HOUR), at(part(tokyo, k - 2, k + 1), -9 * HOUR)]
        put(pa.concat_tables(night), tmp_path / "store")
    assert same(tmp_path / "store", part(both, 0, 32))


def test_a_night_sent_twice_with_and_without_a_zone(store, whole):
    for zone in (None, "America/New_York", "UTC", None):
        put(at(part(whole, 28, 32), 4 * HOUR, zone), store)
    put(part(whole, 28, 32), store)
    assert same(store, part(whole, 0, 32)) and stored_panel(store).local_ns is None


def test_a_live_bar_is_completed_the_next_night(store, whole):
    live = at(halved(part(whole, 30, 31)), 19 * HOUR + 123456789, "UTC")
    report = put(pa.concat_tables([at(part(whole, 28, 30), 0, "UTC"), live]), store)
    assert report.new_bars == 3 and stored_panel(store).n_rows == 93
    assert change_of(put(part(whole, 30, 32), store), "AAA").kind == "revised"
    assert same(store, part(whole, 0, 32))
    assert [change.kind for change in put(live, store).changes] == ["kept"] * 3
    assert same(store, part(whole, 0, 32))


def test_a_live_bar_beside_the_finished_one_is_merged(store, whole):
    live = at(halved(part(whole, 31, 32)), 19 * HOUR)
    source = pa.concat_tables([at(part(whole, 30, 32), 0), live])
    with pytest.raises(DataError, match="strict: 3 rows replaced by a later bar of its day"):
        put(source, store, SourceOptions(strict=True))
    report = put(source, store)
    assert report.new_bars == 6 and same(store, part(whole, 0, 32))
    assert '"kind": "replaced by a later bar of its day"' in (store / "_log" / "data_report.json").read_text()


def write_as_earlier(folder, *tables):
    """A store as earlier versions wrote it: bars under the times of the source, in one file a night."""
    manifest = None
    for table in tables:
        stored = parts.read_bars(folder, manifest)
        new = from_panel(panel_of(table))
        clock = np.sort(table["time"].cast(pa.int64()).to_numpy().reshape(len(new.names), -1), axis=1).ravel()
        new = type(new)(new.names, new.sectors, new.symbol, clock, new.values, new.file)
        merged = new if manifest is None else concatenate(stored, new)[0]
        planned = parts.plan(merged, manifest, frozenset())
        parts.commit(folder, planned, manifest)
        manifest = planned.manifest
    return folder


@pytest.mark.parametrize("shift", [4 * HOUR, 20 * HOUR, -9 * HOUR])
def test_a_store_of_an_earlier_version_is_brought_to_session_dates(tmp_path, whole, shift):
    stamped = at(whole, shift)
    folder = write_as_earlier(tmp_path / "store", part(stamped, -1, 20), *(part(stamped, k, k + 1) for k in (20, 21)))
    before = stored_panel(folder)
    report = put(part(whole, 21, 24), folder)
    assert report.rekeyed >= 63 and report.doubled == 0
    assert same(folder, part(whole, 0, 24)) and verify_store(folder) == []
    restore_store(folder, 3)
    assert data_hash(stored_panel(folder)) == data_hash(before)  # the earlier files are kept until --clean


@pytest.mark.parametrize("shift", [4 * HOUR, -9 * HOUR])
def test_days_that_stand_twice_become_one_and_the_finished_bar_stays(tmp_path, whole, shift):
    history, nights = part(whole, 0, 25), [at(part(whole, k, k + 2), shift) for k in range(22, 28, 2)]
    folder = write_as_earlier(tmp_path / "store", halved(history), *nights)
    report = put(part(whole, 27, 29), folder)
    assert report.rekeyed == 18 and report.doubled == 9 and same(folder, part(whole, 0, 29))
    assert not put(part(whole, 0, 29), folder).changed


def test_single_bars_a_symbol_become_days_when_the_next_ones_come(tmp_path, whole):
    put(at(part(whole, 0, 1), 21 * HOUR + 2 * 10**9), tmp_path / "store")
    report = put(at(part(whole, 1, 2), 21 * HOUR + 3 * 10**9), tmp_path / "store")
    assert report.rekeyed == 3 and same(tmp_path / "store", part(whole, 0, 2))


def mondays(table):
    """The bars of Mondays, to be taken for bars of weeks."""
    time = table["time"].to_numpy()
    return table.filter(pa.array((time.astype(np.int64) - MONDAY) % (7 * DAY) == 0))


def test_weeks_that_are_dated_on_fridays_are_the_stores_weeks_of_mondays(tmp_path):
    table = mondays(bars(n=60))
    put(at(part(table, 0, 40), 0), tmp_path / "store")
    night = at(part(table, 30, 60), 4 * DAY)
    report = put(night, tmp_path / "store")
    assert report.new_bars == 12 and not report.changes and same(tmp_path / "store", table)
    live = at(part(table, 55, 60), 2 * DAY)  # the week that is not over is dated on the day of the request
    assert not put(live, tmp_path / "store").changed
    with pytest.raises(DataError, match="dates weeks by Mondays and the source by Sundays"):
        put(at(part(table, 30, 60), -DAY), tmp_path / "store")
    with pytest.raises(DataError, match="holds bars of 1 week and the source bars of 1 day"):
        put(part(bars(n=75, seed=5), 60, 75), tmp_path / "store")


def test_months_that_are_dated_on_the_last_day(tmp_path):
    first = np.arange("2022-01", "2024-01", dtype="M8[M]").astype("M8[ns]").astype(np.int64)
    last = np.arange("2022-02", "2024-02", dtype="M8[M]").astype("M8[ns]").astype(np.int64) - DAY
    table = part(bars(("AAA",), n=24), 0, 24)
    monthly, ends = (with_column(table, "time", pa.array(time).cast(pa.timestamp("ns"))) for time in (first, last))
    put(monthly.slice(0, 20), tmp_path / "store")
    assert put(ends.slice(18, 6), tmp_path / "store").new_bars == 4 and same(tmp_path / "store", monthly)
