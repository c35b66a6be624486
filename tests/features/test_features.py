"""Features as a whole: names, warm-up, no look-ahead, scale invariance, sectors, and the container."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from gpupipe.data import simulate
from gpupipe.data.panel import BARS, Panel
from gpupipe.dataset.audit import audit
from gpupipe.features.formulas import CORE, FAMILIES, FEATURES, SET_APART
from gpupipe.features.matrix import Features, compute_features, feature_names, feature_table, warm_up_of
from tests.support import market
from tests.support.panels import random_panel

N_BARS = 320  # more than the longest window


def panel_with_holes(seed: int = 1) -> Panel:
    """Four symbols of two sectors, 320 days; the third lacks some days, so that cross-sections differ in size."""
    return drop_rows(random_panel((N_BARS,) * 4, seed), 2 * N_BARS + np.array([5, 6, 130, 200, 201, 202]))


def drop_rows(panel: Panel, rows: np.ndarray) -> Panel:
    keep = np.ones(panel.n_rows, dtype=bool)
    keep[rows] = False
    return panel.take(keep, keep_empty=True)


def changed_rows(panel: Panel, rows: np.ndarray, factor: np.ndarray) -> Panel:
    """The panel with prices and volume of `rows` multiplied by `factor` (len(rows), 5)."""
    columns = {}
    for k, name in enumerate(BARS):
        columns[name] = getattr(panel, name).copy()
        columns[name][rows] *= factor[:, k].astype(np.float32)
    return panel.replace(**columns)


def test_the_default_set_is_large_and_covers_every_family():
    names = feature_names()
    assert len(names) >= 150 and set(CORE) <= set(names)
    assert {FEATURES[name].family for name in names} == set(FAMILIES) - {"alpha158"}
    assert {f.family for f in FEATURES.values()} - set(SET_APART) == set(FAMILIES)
    assert len(feature_names("alpha158")) == 158
    assert all(info.formula and info.source for info in feature_table())
    assert sum(warm_up_of(name) > 60 for name in CORE) <= 8  # one year of data is enough for the others


def test_names_are_families_globs_and_lists():
    assert feature_names("rsi_14") == ("rsi_14",)
    assert feature_names("rsi_*") == ("rsi_7", "rsi_14", "rsi_21")
    assert feature_names(["roc_5", "rsi_*", "roc_5"]) == ("roc_5", "rsi_7", "rsi_14", "rsi_21")
    assert set(feature_names("volume")) == {f.name for f in FEATURES.values() if f.family == "volume"}
    built_in = {f.name for f in FEATURES.values() if f.family not in SET_APART}
    assert set(feature_names("all")) == built_in == set(feature_names("*"))


def test_atb9_is_prices_volume_averages_and_wilders_rsi():
    assert feature_names("atb9") == (
        "level_open", "level_high", "level_low", "level_close", "level_volume", "level_sma_7", "level_sma_14",
        "level_sma_30", "rsi_14",
    )  # fmt: skip
    levels = {f.name for f in FEATURES.values() if f.family == "level"}
    assert levels == set(feature_names("level")) == set(feature_names("level_*")) == set(feature_names("atb9")[:-1])
    assert not levels & {*feature_names("all"), *feature_names("default"), *feature_names("core")}
    panel = simulate(n_symbols=2, n_bars=50, seed=4)
    values = compute_features(panel, "atb9").values
    for k, name in enumerate(("open", "high", "low", "close", "volume")):
        np.testing.assert_array_equal(values[:, k], getattr(panel, name))
    for k, n in ((5, 7), (6, 14), (7, 30)):
        assert np.isnan(values[n - 2, k]) and np.isnan(values[50 + n - 2, k])  # nothing of the symbol before
        np.testing.assert_allclose(values[n - 1, k], panel.close[:n].mean(dtype=np.float64), rtol=1e-6)
        np.testing.assert_allclose(values[99, k], panel.close[100 - n : 100].mean(dtype=np.float64), rtol=1e-6)


def test_atb9_does_not_look_ahead():
    findings = audit(random_panel((120, 120)), feature_names("atb9"), (1,), (0.02,))
    assert len(findings) == 9 + 2 and all(finding.clean for finding in findings)


@pytest.mark.parametrize(
    "wanted, nearest",
    [("macd_lin_ratio", "macd_line_ratio"), ("momentun", "momentum"), (["roc_1", "xatr_14"], "natr_14")],
)
def test_unknown_names_are_refused_with_the_nearest(wanted, nearest):
    with pytest.raises(ValueError, match=f"nearest is '{nearest}"):
        compute_features(random_panel((30,)), wanted)


def test_a_given_matrix_is_written_to(device):
    panel = random_panel((60, 50)).to(device)
    names = ("rsi_14", "cross_sectional")
    fresh = compute_features(panel, names)
    out = device.xp.full((110, fresh.n_features), np.float32(7))
    given = compute_features(panel, names, out=out)
    assert given.values is out
    np.testing.assert_array_equal(device.to_host(out), device.to_host(fresh.values))
    with pytest.raises(ValueError, match=r"values has shape \(110, 2\)"):
        compute_features(panel, names, out=device.xp.empty((110, 2), np.float32))


def test_an_empty_list_and_an_unknown_warm_up_are_refused():
    with pytest.raises(ValueError, match="no feature is selected"):
        feature_names([])
    with pytest.raises(ValueError, match="nearest is 'natr_14'"):
        warm_up_of("natr_15")


def test_warm_up_is_what_the_table_says():
    values = compute_features(random_panel((N_BARS,) * 2), "all").values
    for k, name in enumerate(feature_names("all")):
        for rows in (values[:N_BARS, k], values[N_BARS:, k]):
            known = np.flatnonzero(~np.isnan(rows))
            assert known[0] == warm_up_of(name), name
            assert len(known) == N_BARS - warm_up_of(name), name


def test_a_column_does_not_depend_on_the_other_selected_columns(device):
    panel = panel_with_holes().to(device)
    everything = compute_features(panel, "all")
    for name in feature_names("all"):
        alone = compute_features(panel, name)
        assert alone.names == (name,)
        np.testing.assert_array_equal(device.to_host(alone.values[:, 0]), device.to_host(everything.column(name)), name)


@pytest.mark.parametrize("day", [0, 1, 2, 17, 59, 60, 150, 200, 255, 300, N_BARS - 2])
def test_no_feature_changes_when_the_future_does(day):
    panel = panel_with_holes()
    base = compute_features(panel, "all").values
    past = panel.time_ns <= panel.time_ns[day]
    future = np.flatnonzero(~past)
    rng = np.random.default_rng(day)

    scrambled = changed_rows(panel, future, rng.uniform(0.2, 5, (len(future), 5)))
    np.testing.assert_array_equal(compute_features(scrambled, "all").values[past], base[past])
    blanked = changed_rows(panel, future, np.full((len(future), 5), np.nan))
    np.testing.assert_array_equal(compute_features(blanked, "all").values[past], base[past])
    truncated = drop_rows(panel, future)
    np.testing.assert_array_equal(compute_features(truncated, "all").values, base[past])


def test_every_feature_reads_the_present():
    """The converse of the test above: a change of the present row moves every feature."""
    panel = panel_with_holes()
    rows = np.flatnonzero(panel.time_ns >= panel.time_ns[270])
    factor = np.random.default_rng(3).uniform(0.2, 5, (len(rows), 5))
    base, changed = (compute_features(p, "all").values[rows] for p in (panel, changed_rows(panel, rows, factor)))
    for k, name in enumerate(feature_names("all")):
        if FEATURES[name].family != "calendar":
            assert not np.array_equal(base[:, k], changed[:, k]), name


# Qlib adds 1e-12 to ranges and 1 to volumes; all other columns have no such constants.
SCALE_FREE = [name for name in feature_names("all") if FEATURES[name].family != "alpha158"]


def test_neither_price_level_nor_volume_level_matters():
    """Powers of two scale without rounding, so the columns are equal bit for bit."""
    panel = panel_with_holes()
    symbol = panel.symbol_of_row
    price, volume = 2.0 ** np.array([-9, 3, 0, 11])[symbol], 2.0 ** np.array([4, -6, 0, 9])[symbol]
    scaled = changed_rows(panel, np.arange(panel.n_rows), np.column_stack([price] * 4 + [volume]))
    base = compute_features(panel, SCALE_FREE).values
    np.testing.assert_array_equal(compute_features(scaled, SCALE_FREE).values, base)


def test_a_sector_alone_has_the_columns_it_has_among_others():
    panel = panel_with_holes()
    rows = np.isin(panel.symbol_of_row, [k for k, name in enumerate(panel.sector) if name == "energy"])
    alone = compute_features(panel.of_group("energy"), "all").values
    np.testing.assert_array_equal(alone, compute_features(panel, "all").values[rows])


def test_the_container_checks_its_arrays():
    features = compute_features(random_panel((30, 20)), ["roc_1", "roc_5"])
    assert (features.n_rows, features.n_features) == (50, 2)
    broken = {
        "dtype": {"values": features.values.astype(np.float64)},
        "shape": {"values": features.values[:-1]},
        "C order": {"values": np.asfortranarray(features.values)},
        "without duplicates": {"names": ("roc_1", "roc_1")},
        "definitions": {"definitions": ("x",)},
    }
    for message, change in broken.items():
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(features, **change)
    with pytest.raises(ValueError, match="no feature 'roc_6' here; the nearest is 'roc_5'"):
        features.column("roc_6")


def test_hash_follows_names_order_and_definitions():
    panel = random_panel((30,))
    features = compute_features(panel, ["roc_1", "roc_5"])
    assert features.hash == compute_features(random_panel((40,), 7), ["roc_1", "roc_5"]).hash
    others = [
        compute_features(panel, ["roc_5", "roc_1"]),
        compute_features(panel, ["roc_1", "roc_10"]),
        dataclasses.replace(features, definitions=(features.definitions[0], "another formula")),
    ]
    assert len({features.hash, *(other.hash for other in others)}) == 4
    assert len(set(compute_features(panel, "all").definitions)) == len(feature_names("all"))


def test_arrow_has_symbol_time_and_the_columns():
    panel = random_panel((30, 20))
    features = compute_features(panel, ["roc_1", "sector_rank_roc_1"])
    table = features.to_arrow()
    assert table.column_names == ["symbol", "time", "roc_1", "sector_rank_roc_1"]
    assert table.schema.field("time").type == pa.timestamp("ns", "UTC")
    np.testing.assert_array_equal(table["roc_1"].to_numpy(), features.column("roc_1"))
    np.testing.assert_array_equal(np.from_dlpack(features.values), features.values)


def test_features_import_without_numba():
    code = "import sys, gpupipe.features.matrix; assert 'numba' not in sys.modules and 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_features_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        compute_features(random_panel((30,)), "roc_1").names = ()
    assert Features.__dataclass_params__.frozen


def last_rows_of(panel: Panel, n_bars: int) -> Panel:
    """The last `n_bars` bars of every symbol."""
    kept = [np.arange(max(a, b - n_bars), b) for a, b in zip(panel.offsets[:-1], panel.offsets[1:], strict=True)]
    return drop_rows(panel, np.setdiff1d(np.arange(panel.n_rows), np.concatenate(kept)))


@pytest.mark.parametrize("n_bars", [504, 620])
def test_the_last_row_does_not_depend_on_where_the_data_starts(n_bars):
    """Two years of history against five: equal within 1e-4 standard deviations, for every default column."""
    check_start(random_panel((1260,) * 6, 11), n_bars)


def test_the_last_row_of_real_stocks_does_not_depend_on_where_the_data_starts(sp500_folder):
    panel = market.sp500_panel(sp500_folder)
    check_start(panel.where((np.diff(panel.offsets) == 1259).tolist()), 504)


def check_start(panel: Panel, n_bars: int) -> None:
    short = last_rows_of(panel, n_bars)
    of_long, of_short = compute_features(panel), compute_features(short)
    spread = np.nanstd(of_long.values, axis=0)
    a, b = of_long.values[panel.offsets[1:] - 1], of_short.values[short.offsets[1:] - 1]
    assert not np.isnan(a).any()
    error = (np.abs(a - b) / np.maximum(np.abs(a), spread)).max(axis=0)
    wrong = {name: float(e) for name, e in zip(of_long.names, error, strict=True) if not e < 1e-4}
    assert not wrong
