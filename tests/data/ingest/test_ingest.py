"""Ingest appends, restates, revises or refuses incoming bars, and reports every change."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gpupipe.data import DataError, load
from gpupipe.data.ingest import SourceOptions, clean_store, ingest, restore_store, verify_store
from gpupipe.data.ingest.parts import MAX_FILES
from tests.support.ingested import (
    DAY,
    START,
    change_of,
    days,
    edited,
    file_contents,
    market,
    only,
    panel_of,
    same,
    scaled,
    stored_panel,
    with_column,
    without,
)


def put(source, store, options=None, **keywords):
    return ingest(source, store, options, calendar="none", **keywords)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def whole():
    return market()


def test_two_halves_equal_the_whole_and_compacted_files_are_equal_byte_for_byte(store, whole, tmp_path):
    first = put(days(whole, 0, 25), store)
    second = put(days(whole, 25, 40), store)
    assert (first.new_bars, second.new_bars) == (100, 60) and first.added and not second.added
    assert second.files_written == 2 and second.generation == 2
    assert same(store, whole)
    once = tmp_path / "once"
    put(whole, once)
    put(days(whole, 39, 40), store, compact=True)
    contents = [sorted(path.read_bytes() for path in folder.glob("sector=*/*.parquet")) for folder in (store, once)]
    assert contents[0] == contents[1] and len(contents[0]) == 2


def test_ingesting_a_source_again_changes_only_the_log(store, whole):
    put(days(whole, 0, 30), store)
    put(days(whole, 25, 40), store)
    before = file_contents(store)
    for source in (days(whole, 25, 40), whole):
        report = put(source, store)
        assert not report.changed and not report.new_bars and not report.changes and report.status == "OK"
    assert file_contents(store) == before
    assert len((store / "_log" / "ingest.jsonl").read_text().splitlines()) == 4


def test_unordered_and_repeated_bars_give_a_clean_panel(store, whole):
    shuffled = whole.take(pa.array(np.random.default_rng(1).permutation(whole.num_rows)))
    put(days(shuffled, 20, 30), store)
    put(pa.concat_tables([days(shuffled, 0, 22), days(shuffled, 0, 5)]), store)  # earlier days after later ones
    put(days(only(whole, "S001"), 35, 40), store)
    put(days(whole, 28, 40), store)  # begins before the stored bars of S001
    assert same(store, whole)
    assert load(str(store), None, "all", "cpu")[1].clean  # the files are in order: nothing has to be sorted


def test_the_number_of_files_is_bounded_and_old_files_are_not_rewritten(store, whole):
    put(days(whole, 0, 10), store)
    first = {path.name for path in store.glob("sector=*/*.parquet")}
    for day in range(10, 10 + MAX_FILES - 1):
        report = put(days(whole, day, day + 1), store)
        assert report.files_written == 2
    names = {path.name for path in store.glob("sector=energy/*.parquet")}
    assert len(names) == MAX_FILES and first & names
    put(days(whole, 25, 26), store)
    assert len(list(store.glob("sector=energy/*.parquet"))) == 1
    assert same(store, days(whole, 0, 26))


def test_a_split_is_detected_in_the_overlap_and_scales_the_earlier_history(store, whole):
    put(days(whole, 0, 30), store)
    after = scaled(whole, "S001", 0.5)
    report = put(days(after, 25, 40), store)
    change = change_of(report, "S001")
    assert change.kind == "restated" and change.factor == pytest.approx(0.5) and change.since == "2009-10-13"
    assert "25 earlier ones were scaled, volumes by 2" in change.detail
    assert len(report.changes) == 1 and report.status == "OK"
    assert same(store, after)  # times 0.5 and 2 are exact


def test_a_vendor_that_restates_a_day_late_leaves_a_step_in_the_overlap(store, whole):
    put(days(scaled(whole, "S001", 2.0, before=28), 0, 30), store)  # 2:1 on day 28, history not adjusted yet
    report = put(days(whole, 22, 32), store)
    change = change_of(report, "S001")
    assert change.kind == "restated" and change.factor == pytest.approx(0.5) and change.since == "2009-10-11"
    assert same(store, days(whole, 0, 32))


def test_a_dividend_adjusts_prices_and_leaves_volumes(store, whole):
    put(days(whole, 0, 30), store)
    adjusted = scaled(whole, "S002", 0.9873, before=30, volume=1.0)
    change = change_of(put(days(adjusted, 20, 40), store), "S002")
    assert change.kind == "restated" and change.factor == pytest.approx(0.9873, rel=1e-6)
    assert change.detail.endswith("volumes by 1")
    panel, expected = stored_panel(store), panel_of(adjusted)
    for name in ("open", "high", "low", "close"):
        np.testing.assert_allclose(getattr(panel, name), getattr(expected, name), rtol=2.0**-22)
    np.testing.assert_array_equal(panel.volume, expected.volume)


@pytest.mark.parametrize("bars, kind", [(2, "refused"), (3, "restated")])
def test_a_factor_needs_three_bars(store, whole, bars, kind):
    put(days(whole, 0, 30), store)
    report = put(days(scaled(whole, "S001", 0.01), 30 - bars, 40), store)
    assert change_of(report, "S001").kind == kind
    if kind == "refused":
        assert "2 of 2 confirm; 3 are needed" in change_of(report, "S001").detail and report.status == "WARN"
        assert same(store, pa.concat_tables([days(only(whole, "S001"), 0, 30), without(whole, "S001")]))


def rounded(table, factor, digits):
    for name in ("open", "high", "low", "close"):
        values = np.round(table[name].to_numpy().astype(np.float64) * factor, digits)
        table = with_column(table, name, pa.array(values))
    return table


def test_rounding_is_no_restatement_and_hides_none(store, whole):
    cents = rounded(whole, 1.0, 2)
    put(days(cents, 0, 30), store)
    assert not put(days(rounded(cents, 1 + 2e-6, 7), 0, 30), store).changed
    report = put(days(rounded(cents, 0.5, 2), 20, 40), store)  # all symbols split 2:1, again in cents
    assert [change.kind for change in report.changes] == ["restated"] * 4
    assert all(change.factor == pytest.approx(0.5, rel=1e-4) for change in report.changes)
    np.testing.assert_allclose(stored_panel(store).close, panel_of(rounded(cents, 0.5, 2)).close, rtol=2e-4)


def contradictory(table, first):
    for day in range(first, 30):
        price = 50.0 + day
        table = edited(table, "S001", day, open=price, high=price + 1, low=price - 1, close=price)
    return table


def test_contradictory_bars_are_refused_and_the_stored_ones_kept(store, whole):
    put(days(whole, 0, 30), store)
    report = put(days(contradictory(whole, 20), 20, 40), store)
    change = change_of(report, "S001")
    assert change.kind == "refused" and "10 of 10 overlapping bars differ" in change.detail
    assert report.status == "WARN" and "1 symbol refused" in report.warnings
    assert same(store, pa.concat_tables([days(only(whole, "S001"), 0, 30), without(whole, "S001")]))


def test_a_source_with_all_history_replaces_the_stored_bars(store, whole):
    put(days(whole, 0, 30), store)
    other = contradictory(whole, 0)
    source = pa.concat_tables([days(other, 0, 12), days(other, 13, 40)])
    change = change_of(put(source, store), "S001")
    assert change.kind == "replaced" and "1 bars that it does not have were removed" in change.detail
    expected = pa.concat_tables([only(source, "S001"), without(whole, "S001")])
    assert same(store, expected)


def test_an_older_file_of_another_scale_is_refused(store, whole):
    put(days(whole, 10, 40), store)
    change = change_of(put(days(scaled(whole, "S001", 0.5), 0, 30), store), "S001")
    assert change.kind == "refused" and "ends before the store" in change.detail


def test_corrected_bars_of_the_same_scale_are_accepted(store, whole):
    put(days(whole, 0, 30), store)
    corrected = edited(edited(whole, "S001", 28, close=whole["low"][68].as_py()), "S003", 29, volume=12345.0)
    report = put(days(corrected, 20, 35), store)
    assert {change.symbol: change.kind for change in report.changes} == {"S001": "revised", "S003": "revised"}
    assert same(store, days(corrected, 0, 35))


def test_a_stored_volume_is_kept_if_the_incoming_one_is_unknown(store, whole):
    put(whole, store)
    report = put(edited(whole, "S001", 39, volume=np.nan), store)
    assert not report.changed and same(store, whole)


def test_a_symbol_moves_with_all_its_bars(store, whole):
    put(days(whole, 0, 30), store)
    rows = zip(whole["symbol"].to_pylist(), whole["sector"].to_pylist(), strict=True)
    sectors = ["technology" if name == "S001" else sector for name, sector in rows]
    moved = with_column(whole, "sector", pa.array(sectors))
    report = put(days(moved, 28, 40), store)
    assert change_of(report, "S001").detail == "from sector energy to technology"
    assert same(store, moved)
    files = {path.parent.name: pa.parquet.read_table(path) for path in store.glob("sector=energy/*.parquet")}
    assert all("S001" not in table["symbol"].to_pylist() for table in files.values())


def test_sectors_come_from_the_store_and_a_symbol_without_one_is_left_out(store, whole):
    put(days(whole, 0, 30), store)
    plain = market(lengths=5).drop_columns(["sector"])
    report = put(days(plain, 29, 40), store)
    assert report.without_sector == ("S004",) and report.status == "WARN"
    assert same(store, whole)
    assert put(days(plain, 0, 40), store, SourceOptions(sector_map={"S004": "utilities"})).added == ("S004",)
    assert stored_panel(store).groups == ("energy", "technology", "utilities")


def test_a_source_without_accepted_bars_fails(store, whole):
    report = put(whole.drop_columns(["sector"]), store)
    assert report.status == "FAIL" and report.rows == 0 and not (store / "manifest.json").exists()


def test_bad_rows_are_quarantined_next_to_the_log(store, whole):
    report = put(edited(whole, "S001", 5, close=-1.0), store)
    assert report.rows_quarantined == 1 and report.status == "WARN" and report.rows == 159
    quarantine = pa.parquet.read_table(store / "_log" / "quarantine.parquet")
    assert quarantine["reason"].to_pylist() == ["a price is not positive"]


def test_a_high_that_was_repaired_is_told(store, whole):
    report = put(edited(whole, "S001", 5, high=1e5), store)
    (doubt,) = report.doubts
    assert doubt.startswith("1 row repaired: high or low far from open and close (S001 ") and report.status == "WARN"
    assert stored_panel(store).high.max() < 1e4


def test_a_new_symbol_that_differs_in_case_is_told(store, whole):
    put(whole, store)
    other = with_column(whole, "symbol", pa.array([name.lower() for name in whole["symbol"].to_pylist()]))
    report = put(only(other, "s001"), store)
    assert report.doubts == ("a new symbol looks like a stored one (s001 and S001)",) and report.status == "WARN"
    assert put(only(other, "s001"), store).doubts == ()


def test_minute_bars_and_bars_of_another_length(store, whole):
    minutes = with_column(
        whole,
        "time",
        pa.array(
            (whole["time"].cast(pa.int64()).to_numpy() - START) // DAY * 60_000_000_000 + START + 52_200 * 10**9
        ).cast(pa.timestamp("ns", "UTC")),
    )
    rows = pa.array(np.arange(whole.num_rows) % 40 < 30)
    put(minutes.filter(rows), store)
    put(minutes, store)
    assert same(store, minutes)
    with pytest.raises(DataError, match=r"holds bars of 1 minute and the source bars of 1 day: use another --store"):
        put(whole, store)


def test_a_split_between_two_ingests_without_overlap_is_flagged(store):
    calm = scaled(market(seed=3), "S001", 1.0)
    put(days(calm, 0, 30), store)
    report = put(days(scaled(calm, "S001", 0.5), 30, 40), store)
    assert change_of(report, "S001").kind == "looks like a split" and report.status == "WARN"
    assert change_of(report, "S001").detail.startswith("2009-10-13 opens at 0.498 of the close before, and no bar")
    assert report.unchecked == ("S000", "S001", "S002", "S003") and len(report.changes) == 1


def test_a_split_that_the_source_does_not_adjust_is_flagged_once(store):
    raw = scaled(market(seed=3), "S001", 2.0, before=30)
    put(days(raw, 0, 30), store)
    report = put(days(raw, 25, 40), store)
    assert report.changes == (change_of(report, "S001"),) and "no bar overlaps" not in change_of(report, "S001").detail
    assert put(days(raw, 25, 40), store).changes == ()


@pytest.mark.parametrize("seed", range(4))
def test_slices_in_any_order_give_the_same_panel(store, whole, seed):
    rng = np.random.default_rng(seed)
    for _ in range(7):
        first, last = np.sort(rng.integers(0, 41, 2))
        names = rng.permutation(["S000", "S001", "S002", "S003"])[: rng.integers(1, 5)]
        piece = days(only(whole, *names.tolist()), first, last)
        if piece.num_rows:
            put(piece, store)
    put(whole, store)
    assert same(store, whole) and verify_store(store) == []
    assert load(str(store), None, "all", "cpu")[1].clean


def test_volumes_of_another_source_are_refused_with_a_reason(store, whole):
    put(days(whole, 0, 30), store)
    rng = np.random.default_rng(0)
    volume = (whole["volume"].to_numpy() * rng.uniform(1, 1.5, 160)).astype(np.float32)
    noisy = with_column(whole, "volume", pa.array(volume))
    report = put(days(noisy, 20, 40), store)
    assert len(report.changes) == 4 and "overlapping bars differ, only in volume" in report.changes[0].detail
    assert report.status == "FAIL" and same(store, days(whole, 0, 30))


def test_versions_are_kept_until_clean(store, whole):
    put(days(whole, 0, 30), store)
    put(days(scaled(whole, "S001", 0.5), 20, 40), store)
    assert verify_store(store) == []
    restored = restore_store(store, 1)
    assert restored.generation == 3 and same(store, days(whole, 0, 30)) and verify_store(store) == []
    assert clean_store(store, dry_run=True).generations == 2
    cleaned = clean_store(store)
    assert cleaned.generations == 2 and cleaned.files == 2 and cleaned.bytes > 0
    assert same(store, days(whole, 0, 30)) and clean_store(store).files == 0
    with pytest.raises(ValueError, match="has no generation 1 to restore; there are none"):
        restore_store(store, 1)


def test_a_dry_run_reports_and_writes_nothing(store, whole):
    assert put(whole, store, dry_run=True).new_bars == 160 and not store.exists()
    put(days(whole, 0, 30), store)
    before = file_contents(store)
    report = put(days(whole, 28, 40), store, dry_run=True)
    assert report.new_bars == 40 and report.generation == 2 and file_contents(store) == before


def test_since_drops_older_bars(store, whole):
    assert put(whole, store, SourceOptions(since="2009-10-01")).first_time == "2009-10-01"
    with pytest.raises(DataError, match="--since soon: expected a day"):
        put(whole, store, SourceOptions(since="soon"))


def bar_of(table, symbol, day):
    """Open, high, low, close and volume of one bar."""
    row = days(only(table, symbol), day, day + 1)
    return {name: row[name][0].as_py() for name in ("open", "high", "low", "close", "volume")}


def unfinished(table, symbol, day, *, close=0.5):
    """The same table with one bar as it was at noon: half of its move, range and volume."""
    bar = bar_of(table, symbol, day)
    middle = bar["open"] + close * (bar["close"] - bar["open"])
    high, low = max(bar["open"], middle), min(bar["open"], middle)
    return edited(table, symbol, day, close=middle, high=high, low=low, volume=bar["volume"] * 0.4)


@pytest.mark.parametrize("first", [29, 28, 20])
def test_an_unfinished_bar_is_completed_and_the_next_one_added(store, whole, first):
    put(days(unfinished(whole, "S001", 29), 0, 30), store)
    report = put(days(whole, first, 31), store)
    assert report.changes == (change_of(report, "S001"),) and report.new_bars == 4 and report.status == "OK"
    assert change_of(report, "S001").detail == "1 unfinished bar was completed"
    assert same(store, days(whole, 0, 31))


def test_several_unfinished_bars_inside_the_store_are_completed(store, whole):
    halves = whole
    for day in (27, 28, 29):
        halves = unfinished(halves, "S001", day)
    put(pa.concat_tables([days(halves, 0, 30), days(whole, 30, 32)]), store)
    report = put(days(whole, 27, 30), store)  # a night that comes late
    assert change_of(report, "S001").detail == "3 unfinished bars were completed" and report.status == "OK"
    assert same(store, days(whole, 0, 32))


def test_an_unfinished_bar_beside_a_corrected_one(store, whole):
    put(days(unfinished(whole, "S001", 29), 0, 30), store)
    corrected = edited(whole, "S001", 28, volume=12345.0)
    assert change_of(put(days(corrected, 27, 31), store), "S001").kind == "revised"
    assert same(store, days(corrected, 0, 31))


@pytest.mark.parametrize("last", [30, 35])
def test_an_older_snapshot_does_not_replace_the_finished_bar(store, whole, last):
    put(days(whole, 0, last), store)
    report = put(days(unfinished(whole, "S001", 29), 27, 30), store)  # a night that comes late
    assert change_of(report, "S001").kind == "kept" and not report.changed and report.status == "OK"
    assert same(store, days(whole, 0, last))


def test_nights_out_of_order_and_sent_twice_give_the_finished_bars(store, whole):
    nights = [days(unfinished(whole, "S001", last - 1), last - 3, last) for last in (31, 32, 33, 34)]
    put(days(whole, 0, 29), store)
    for k in (1, 0, 1, 3, 2, 3, 0):
        put(nights[k], store)
    assert same(store, days(unfinished(whole, "S001", 33), 0, 34))


@pytest.mark.parametrize("factor", [0.25, 10.0, 0.985])
def test_one_overlapping_bar_of_another_scale_is_not_taken_for_an_unfinished_one(store, whole, factor):
    put(days(unfinished(whole, "S001", 29), 0, 30), store)
    assert change_of(put(days(scaled(whole, "S001", factor), 29, 31), store), "S001").kind == "refused"
    assert same(store, pa.concat_tables([days(unfinished(only(whole, "S001"), "S001", 29), 0, 30),
                                         days(without(whole, "S001"), 0, 31)]))  # fmt: skip


def test_a_split_in_the_overlap_of_an_unfinished_bar_is_a_restatement(store, whole):
    put(days(unfinished(whole, "S001", 29), 0, 30), store)
    after = scaled(whole, "S001", 0.5)
    change = change_of(put(days(after, 26, 31), store), "S001")
    assert change.kind == "restated" and change.factor == pytest.approx(0.5) and change.since == "2009-10-13"
    assert same(store, days(after, 0, 31))


def test_older_bars_that_were_not_adjusted_are_flagged_at_both_seams(store):
    calm = market(seed=3)
    put(pa.concat_tables([days(calm, 20, 26), days(calm, 32, 40)]), store)
    older = scaled(calm, "S001", 2.0)
    report = put(days(older, 0, 20), store)
    change = change_of(report, "S001")
    assert change.kind == "looks like a split" and report.status == "WARN" and len(report.changes) == 1
    assert change.detail.startswith("2009-10-03 opens at ")
    assert "of the close before, which came later: were the older bars adjusted?, and no bar overlaps" in change.detail
    between = change_of(put(days(older, 26, 32), store), "S001").detail  # a block between stored ones has two seams
    assert "2009-10-09 opens at " in between and "2009-10-15 opens at " in between


def test_adjusted_nights_around_a_split_scale_volumes_and_the_report_says_so(store, whole):
    def vendor(last, split):
        """Raw bars until a day, with a close adjusted for the splits until then."""
        raw = scaled(whole, "S001", 4.0, before=split)
        close = (whole if last > split else raw)["close"].to_numpy().astype(np.float64)
        return days(raw.append_column("adj_close", pa.array(close)), 0, last)

    options = SourceOptions(adjusted=True)
    put(vendor(30, 30), store, options)
    report = put(days(vendor(32, 30), 25, 32), store, options)
    assert change_of(report, "S001").kind == "restated" and change_of(report, "S001").detail.endswith("volumes by 4")
    assert "volumes were scaled with 1 split in adj_close / close (S001 4:1 2009-10-13)" in report.notes
    np.testing.assert_allclose(stored_panel(store).volume, panel_of(days(whole, 0, 32)).volume, rtol=1e-6)
    np.testing.assert_allclose(stored_panel(store).close, panel_of(days(whole, 0, 32)).close, rtol=1e-6)
