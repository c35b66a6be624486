"""Rows, folds and rank ICs of the comparison of rankers, by hand."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from bench.ranking import __main__ as ranking
from bench.ranking.rank_ic import interval, rank_ic_by_date
from bench.ranking.rows import rows_of, shifted
from gpupipe.artifacts.manifest import read_manifest
from gpupipe.artifacts.out_of_sample_store import read
from gpupipe.backtest.calling.calls import rankings
from gpupipe.backtest.sources import walked
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, tiny_market


def test_rank_ic_is_spearmans_of_each_day():
    rng = np.random.default_rng(3)
    time_ns = np.repeat([30, 10, 20], [40, 25, 19])
    score, forward = rng.integers(0, 6, 84).astype(float), rng.normal(size=84)
    times, ic = rank_ic_by_date(score, forward, time_ns)
    assert times.tolist() == [10, 20, 30]
    for k, time in enumerate((10, 30)):
        own = time_ns == time
        assert ic[[0, 2][k]] == pytest.approx(spearmanr(score[own], forward[own])[0])
    assert np.isnan(ic[1]), "19 rows are too few"


def test_unknown_scores_count_as_the_median_and_unknown_returns_not_at_all():
    score, forward, time_ns = np.arange(30.0), np.arange(30.0), np.zeros(30, int)
    assert rank_ic_by_date(np.append(score, 0), np.append(forward, np.nan), np.zeros(31, int))[1][0] == 1
    with_gap = np.where(np.arange(30) < 10, np.nan, score)
    filled = np.where(np.arange(30) < 10, np.median(score[10:]), score)
    assert rank_ic_by_date(with_gap, forward, time_ns)[1] == rank_ic_by_date(filled, forward, time_ns)[1]
    assert rank_ic_by_date(np.full(30, np.nan), forward, time_ns)[1] == [0], "nothing is claimed"
    assert rank_ic_by_date(np.zeros(30), forward, time_ns)[1] == [0]
    assert np.isnan(rank_ic_by_date(score, np.zeros(30), time_ns)[1][0]), "there was nothing to rank"


def test_the_interval_of_a_difference_is_paired():
    rng = np.random.default_rng(1)
    times, shared = np.arange(200), rng.normal(size=200)
    mean, low, high = interval(times, shared + 0.1 - shared, horizon=1)
    assert mean == pytest.approx(0.1) and low == pytest.approx(0.1) and high == pytest.approx(0.1)
    _, low, high = interval(times, shared, horizon=1)
    assert low < shared.mean() < high


def test_shifts_stay_within_a_symbol():
    values, symbol = np.arange(5.0), np.array([0, 0, 0, 1, 1])
    np.testing.assert_array_equal(shifted(values, symbol, 2), [2, np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(shifted(values, symbol, -1), [np.nan, 0, 1, np.nan, 3])


def test_rows_and_folds_are_those_of_a_run():
    panel = tiny_market()
    settings = equity.make("fast", settings=[*QUICK, "split.walk_forward=2"])
    rows = rows_of(panel, settings, ("roc_1", "natr_14"), (1, 5))
    assert rows.X.shape == (panel.n_rows, 2) and len(np.unique(rows.symbol)) == panel.n_symbols
    known = np.isfinite(rows.forward[1])
    assert known.sum() == panel.n_rows - panel.n_symbols
    close_1 = rows.forward[1][:-1][known[:-1]]  # the next row's return over one bar
    np.testing.assert_allclose(close_1, rows.X[1:, 0][known[:-1]] / 100, rtol=1e-3, atol=1e-6)
    two = ~np.isnan(rows.label)
    expected = (1 + shifted(rows.forward[1], rows.symbol, 1)) - 1
    np.testing.assert_allclose(rows.label[two], expected[two], rtol=1e-6, atol=1e-9)
    assert [fold.name for fold in rows.folds] == ["origin1", "origin2"]
    for fold in rows.folds:
        ends = [rows.time_ns[part].max() for part in (fold.train, fold.validation)]
        assert ends[0] < rows.time_ns[fold.validation].min() and ends[1] < rows.time_ns[fold.test].min()
        reach = np.unique(rows.time_ns)
        gap = np.searchsorted(reach, rows.time_ns[fold.validation].min()) - np.searchsorted(reach, ends[0])
        assert gap > 3, "the longest label is purged"


def test_scores_of_a_run_are_put_to_the_rows_that_they_belong_to(tmp_path):
    panel = tiny_market()
    settings = equity.make(
        "fast", settings=[*QUICK, "split.walk_forward=2", "training.models=linear,meta_learner", "labels.horizons=1"]
    )
    tiny.execute(panel, None, settings, tmp_path / "OUT", 1)
    rows = rows_of(panel, settings, ("roc_1",), (1, 2, 5))
    test = np.concatenate([fold.test for fold in rows.folds])
    scores = ranking.of_families(tmp_path / "OUT", panel, rows, ["linear"], test)
    assert list(scores) == [f"linear 1d {size} {kind}" for size in ("2%", "4%") for kind in ("net", "side")]
    symbols = [symbol for group in panel.groups for symbol in panel.of_group(group).symbols]
    table = pq.read_table(tmp_path / "OUT" / "walk_forward" / "energy.parquet")
    expected = {
        (symbol, time): buy - sell
        for symbol, time, sell, buy in zip(
            table["symbol"].to_pylist(), table["time"].cast("int64").to_pylist(),
            table["linear_1d_2pct_sell"].to_pylist(), table["linear_1d_2pct_buy"].to_pylist(), strict=True,
        )
    }  # fmt: skip
    energy = [k for k, row in enumerate(test) if (symbols[rows.symbol[row]], int(rows.time_ns[row])) in expected]
    assert len(energy) == (rows.sector[test] == panel.groups.index("energy")).sum() > 100
    for k in energy:
        key = symbols[rows.symbol[test[k]]], int(rows.time_ns[test[k]])
        assert scores["linear 1d 2% net"][k] == pytest.approx(expected[key])
    found, calibrated = ranking.of_expected_returns(tmp_path / "OUT", panel, rows, ["linear"], test)
    assert list(found) == ["linear 1d 2% expected", "linear 1d 4% expected"]
    assert [line["name"] for line in calibrated] == ["linear 1d 2%", "linear 1d 4%"]
    source = walked(read(tmp_path / "OUT", read_manifest(tmp_path / "OUT")), panel, ["linear"])
    whole = rankings(source)[:, 0]
    of_row = {(panel.symbols[s], int(t)): r for s, t, r in zip(panel.symbol_of_row, panel.time_ns, whole, strict=True)}
    for k, row in enumerate(test):
        other = of_row[symbols[rows.symbol[row]], int(rows.time_ns[row])]
        assert found["linear 1d 2% expected"][k] == pytest.approx(other, nan_ok=True, abs=1e-9)
    assert np.isfinite(found["linear 1d 2% expected"]).any() and sum(calibrated[0]["rows"]) > 100
    line = ranking.judged("linear", scores["linear 1d 2% net"], rows, test, scores["linear 1d 2% net"])
    assert list(line) == ["name", *(f"{c}{over}" for c in ("1d", "2d", "5d", "next") for over in ("", " over Qlib"))]
    assert line["5d over Qlib"] == [0, 0, 0] and line["1d"][1] < line["1d"][0] < line["1d"][2]
    with pytest.raises(ValueError, match="walk-forward"):
        plain = equity.make("fast", settings=[*QUICK, "training.models=linear", "labels.horizons=1"])
        tiny.execute(panel, None, plain, tmp_path / "PLAIN", 1)
        ranking.of_families(tmp_path / "PLAIN", panel, rows, ["linear"], test)
