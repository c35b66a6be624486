"""The peers that the benchmarks time give the answers that they are timed for."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from bench.kernels import comparison as kernels
from bench.kernels import feature_peers, label_peers
from bench.kernels.label_peers import FIELDS, numpy_label_cube
from bench.kernels.talib_columns import OUR_COLUMNS
from gpupipe.features.matrix import compute_features
from gpupipe.runtime.device import pick
from gpupipe.targets.triple_barrier import barrier_classes, tp_dd_labels
from tests.support.panels import random_panel

MODULES = sorted(
    ".".join(path.relative_to(kernels.ROOT).with_suffix("").parts)
    for path in (kernels.ROOT / "bench").glob("**/[a-z]*.py")
)
HORIZONS, THRESHOLDS = (1, 3, 7), (0.01, 0.03, 0.05)


@pytest.fixture(scope="module")
def panel():
    return random_panel((300, 1, 40, 120, 2, 6))


@pytest.fixture(scope="module")
def panel_with_gaps(panel):
    """The same with prices that are not known, or 0."""
    import dataclasses

    rng = np.random.default_rng(1)
    columns = {name: getattr(panel, name).copy() for name in ("high", "low", "close")}
    for values in columns.values():
        values[rng.integers(0, panel.n_rows, 6)] = np.nan
    columns["close"][[17, 301, 350]] = 0.0
    return dataclasses.replace(panel, **columns)


def loop_over_rows(panel, horizons, thresholds):
    """All fields of the labels, one row, horizon and threshold after the other."""
    one, n, n_labels = np.float32(1), panel.n_rows, len(horizons) * len(thresholds)
    out = {
        "y": np.full((n, n_labels), -1, np.int8), "touch": np.full((n, n_labels), -1, np.int8),
        "touch_bars": np.zeros((n, n_labels), np.int16), "realised_return": np.full((n, n_labels), np.nan, np.float32),
        "exit_row": np.zeros((n, len(horizons)), np.int64),
        **{name: np.full((n, len(horizons)), np.nan, np.float32) for name in ("tp", "dd", "forward_return")},
    }  # fmt: skip
    for i in range(n):
        stop = panel.offsets[panel.symbol_of_row[i] + 1]
        entry = panel.close[i]
        for k, h in enumerate(horizons):
            out["exit_row"][i, k] = min(i + h, stop - 1)
            window = slice(i + 1, i + 1 + h)
            bars = np.stack([panel.high[window], panel.low[window], panel.close[window]])
            if i + h >= stop or not entry > 0 or np.isnan(bars).any():
                continue
            highs, lows, closes = bars
            out["tp"][i, k], out["dd"][i, k] = highs.max() / entry - one, lows.min() / entry - one
            out["forward_return"][i, k] = closes[-1] / entry - one
            for m, t in enumerate(thresholds):
                column = k * len(thresholds) + m
                up, down = entry * np.float32(1 + t), entry * np.float32(1 - t)
                out["y"][i, column] = 2 if highs.max() >= up else 0 if lows.min() <= down else 1
                out["touch"][i, column] = 0
                out["realised_return"][i, column] = out["forward_return"][i, k]
                for j in range(h):
                    touch = int(highs[j] >= up) + 2 * int(lows[j] <= down)
                    if touch:
                        out["touch"][i, column], out["touch_bars"][i, column] = touch, j + 1
                        out["realised_return"][i, column] = (up if touch == 1 else down) / entry - one
                        break
    return out


@pytest.mark.parametrize("block_rows", [5, 64, 10_000])
def test_the_cube_in_numpy_equals_a_loop_over_rows(panel_with_gaps, block_rows):
    expected = loop_over_rows(panel_with_gaps, HORIZONS, THRESHOLDS)
    made = numpy_label_cube(panel_with_gaps, FIELDS, HORIZONS, THRESHOLDS, block_rows)
    assert set(made) == set(expected)
    assert set(np.unique(expected["touch"])) == {-1, 0, 1, 2, 3} and set(np.unique(expected["y"])) == {-1, 0, 1, 2}
    for name, values in expected.items():
        assert made[name].dtype == values.dtype, name
        np.testing.assert_array_equal(made[name], values, err_msg=name)


def test_labels_in_numpy_equal_ours_where_prices_are_not_known(panel_with_gaps):
    np.testing.assert_array_equal(label_peers.numpy_labels(panel_with_gaps), barrier_classes(panel_with_gaps))


def test_the_cube_in_numpy_equals_ours(panel_with_gaps):
    made = numpy_label_cube(panel_with_gaps, FIELDS, HORIZONS, THRESHOLDS)
    ours = tp_dd_labels(panel_with_gaps, HORIZONS, THRESHOLDS)
    for name in FIELDS:
        np.testing.assert_array_equal(made[name], getattr(ours, name), err_msg=name)


@pytest.mark.parametrize("make", label_peers.CLASSES_ELSEWHERE)
def test_labels_of_peers_equal_ours(panel, make):
    try:
        peer = make(panel)
    except label_peers.SkippedError as error:
        pytest.skip(str(error))
    np.testing.assert_array_equal(peer.matrix(peer.run()), barrier_classes(panel))


@pytest.mark.parametrize("make", feature_peers.COLUMNS_ELSEWHERE[1:])  # the pool has TA-Lib's own answers
def test_columns_of_peers_equal_ours(make):
    panel = random_panel((300, 260, 40, 1, 2))
    values = compute_features(panel, OUR_COLUMNS).values
    try:
        with make(panel) as peer:
            agrees = kernels.same_columns(peer.name, panel, values, np.nanstd(values, axis=0))
            assert f"{len(OUR_COLUMNS)} columns of every symbol" in agrees(peer.matrix(peer.run()))
    except label_peers.SkippedError as error:
        pytest.skip(str(error))


def test_a_wrong_answer_ends_it(panel):
    y = barrier_classes(panel)
    wrong = y.copy()
    wrong[3, 2] = (wrong[3, 2] + 1) % 3
    with pytest.raises(SystemExit, match="a peer says otherwise"):
        kernels.same_labels("a peer", y)(wrong)
    values = compute_features(panel, OUR_COLUMNS).values.copy()
    spread = np.nanstd(values, axis=0)
    values[250, OUR_COLUMNS.index("cci_20")] += 1
    with feature_peers.talib_loop(panel) as peer, pytest.raises(SystemExit, match="cci_20 of S000: TA-Lib"):
        kernels.same_columns(peer.name, panel, values, spread)(peer.matrix(peer.run()))


def test_a_line_has_rates_and_its_check(panel):
    run = kernels.Run(panel, panel.to(pick("cpu")), 2, 1.0, 1e9)
    first, *_ = kernels.classes(run, label_peers.FASTEST)
    assert first["check"] == "all labels are the same" and first["equal"] and first["times"] == 2
    np.testing.assert_allclose(first["values_per_s"], 6 * first["rows_per_s"])
    np.testing.assert_allclose(first["gb_per_s"] * 1e9 * first["seconds"], panel.n_rows * 18)
    (line,) = kernels.whole_set(run, "default")
    assert "computed alone have the same bits" in line["check"] and "ratio" not in line


def test_alpha158_is_checked_against_the_stored_values():
    assert "158 columns of Qlib, largest relative error" in kernels.same_as_stored()


def test_the_picture_has_a_row_for_each_side(panel, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra bench)")
    from bench import pictures as picture

    run = kernels.Run(panel, panel, 1, 1.0, 1e9)
    about = {"data": "bars.parquet", "device": "a CPU", "cores": 2, "date": "2026-01-01"}
    lines = [{**line, **about} for line in (*kernels.classes(run, label_peers.FASTEST), *kernels.everything(run))]
    names = [row.get("heading", row.get("name")) for row in picture.rows_of(lines)]
    assert names.count("gpupipe") == 2 and sum(name.startswith(("numpy", "polars")) for name in names) == 4
    picture.draw(lines + [{**line, "data": "simulated"} for line in lines], tmp_path / "kernels.svg")
    assert "<svg" in (tmp_path / "kernels.svg").read_text()
    with pytest.raises(SystemExit, match="no comparison to draw"):
        picture.draw([], tmp_path / "none.svg")


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_can_be_loaded(name):
    """Those that run in another interpreter import their library when they are run."""
    assert importlib.import_module(name).__doc__
