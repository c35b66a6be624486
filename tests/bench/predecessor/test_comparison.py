"""The predecessor agrees with gpupipe where it should, and its sums are right."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import pictures, runs
from bench.predecessor import comparison, equality, features, ladder, models, quality, rows
from gpupipe.features.matrix import compute_features, feature_names, feature_table
from gpupipe.targets.triple_barrier import tp_dd_labels
from tests.support.panels import random_panel
from tests.support.tiny import QUICK, in_sectors, tiny_market

LABELS = ((3, 0.02), (3, 0.04))


def frame_of(panel):
    frame = panel.to_arrow().to_pandas()
    return frame.assign(symbol=frame["symbol"].astype(str))


@pytest.fixture(scope="module")
def market():
    energy = tiny_market().of_group("energy")
    return energy.where([k < 4 for k in range(energy.n_symbols)])  # what is compared with is slow


@pytest.mark.parametrize("window", ["calendar", "bars"])
@pytest.mark.parametrize("horizon, threshold", [(1, 0.01), (2, 0.02), (5, 0.05), (7, 0.06)])
def test_labels_row_by_row_are_ours(market, window, horizon, threshold):
    for panel in (market, random_panel()):
        pandas_way = rows.with_labels(frame_of(panel), horizon, threshold, window)["label"].to_numpy()
        ours = tp_dd_labels(panel, (horizon,), (threshold,), window=window).y[:, 0]
        np.testing.assert_array_equal(pandas_way, ours)
        assert {0, 1, 2} <= set(ours) and (-1 in ours) == (window == "bars")


def test_columns_of_pandas_are_ours(market):
    pandas_way = rows.with_features(frame_of(market)).drop(columns=["symbol", "time"])
    families = {info.name: info.family for info in feature_table()}
    assert set(pandas_way) == {name for name in feature_names() if families[name] != "cross_sectional"}
    ours = compute_features(market, list(pandas_way)).values
    np.testing.assert_array_equal(np.isnan(pandas_way.to_numpy()), np.isnan(ours))
    apart = np.nanmax(np.abs(pandas_way.to_numpy() - ours), axis=0) / np.nanstd(ours, axis=0)
    assert apart.max() < equality.COLUMN_BOUND


def test_a_symbol_shorter_than_its_windows_has_columns_all_the_same():
    (bars,) = [frame_of(random_panel((5,)))]
    columns = features.features_of_symbol(bars)
    assert columns.shape == (5, 172) and columns["sma_ratio_5"].notna().sum() == 1 and columns["adx_14"].isna().all()


def test_equality_holds_and_says_what_differs(market, tmp_path, monkeypatch, capsys):
    import pyarrow.parquet as pq

    path = tmp_path / "bars.parquet"
    pq.write_table(market.to_arrow(), path)
    monkeypatch.setattr(equality, "ROUNDS", 4)
    monkeypatch.setattr(equality, "DEPTH", 4)
    result = equality.equality(path, market, "calendar", LABELS)
    assert result["labels"] == 2 * market.n_rows and 0 <= result["predictions_same_matrix"] <= 1e-6
    assert "all the same" in capsys.readouterr().out
    monkeypatch.setattr(equality, "COLUMN_BOUND", 1e-12)
    with pytest.raises(SystemExit, match=r"differs by .* of its spread"):
        equality.equality(path, market, "calendar", LABELS)
    true = rows.labels_of_symbol
    monkeypatch.setattr(rows, "labels_of_symbol", lambda *given: np.where(true(*given) == 0, 1, true(*given)))
    with pytest.raises(SystemExit, match="labels of 3 d, 2 % differ"):
        equality.equality(path, market, "calendar", LABELS)


def run_of(sector, rows, load, fit, label=(2, 0.05)):
    return comparison.OldRun(sector, *label, rows, {"load": load, "features": 2.0, "labels": 1.0, "xgboost": fit}, {})


def test_what_was_not_timed_is_extrapolated_by_rows():
    runs = [run_of("energy", 100, 1.0, 10.0), run_of("energy", 100, 3.0, 30.0, (5, 0.10))]
    result = ladder.stages(runs, {"energy": 100, "utilities": 50}, 6)
    # six runs of 20 s on average in energy, and six of half the rows in utilities; reading is of the whole file
    assert result == {"load": 12 * 2.0, "features": 12 + 6, "labels": 6 + 3, "xgboost": 120 + 60}
    assert ladder.stages(runs, {"energy": 100}, 2)["xgboost"] == 40


def test_the_ladder_marks_what_is_extrapolated_and_refuses_a_ratio_of_less_work():
    runs = [run_of("energy", 100, 1.0, 10.0), run_of("energy", 100, 3.0, 30.0, (5, 0.10))]
    ours = {"features": 0.5, "labels": 0.25}
    new = [{"name": name, "seconds": s, "models": 12, "models_wanted": 12, "stages": ours} for name, s in
           (("alone", 8.0), ("2 jobs", 5.0))]  # fmt: skip
    whole = ladder.ladder(runs, {"energy": 100}, 2, new, full=True)
    assert [step["seconds"] for step in whole["steps"]] == [50.0, 50 - 2 - 2, 46 - 2 - 2 + 0.75, 8.0, 5.0]
    assert whole["ratio"] == 10.0 and not whole["extrapolated"] and "measured" in whole["steps"][0]["basis"]
    assert whole["models"] == whole["models_wanted"] == 12
    part = ladder.ladder(runs, {"energy": 100, "utilities": 50}, 2, new, full=False)
    assert part["ratio"] is None and part["extrapolated"] and "2 of 4 runs timed" in part["steps"][0]["basis"]
    assert all(step["times_faster"] is None for step in part["steps"])


def test_the_random_split_keeps_the_shares_of_the_classes():
    y = np.repeat([0, 1, 2], [50, 400, 50]).astype(np.int8)
    fit_rows, test_rows = models.random_split(y)
    assert sorted([*fit_rows, *test_rows]) == list(range(500))
    assert np.bincount(y[test_rows]).tolist() == [10, 80, 10] and not np.array_equal(test_rows, np.sort(test_rows))
    fit_rows, test_rows = models.random_split(np.array([0] + [1] * 9, np.int8))
    assert len(fit_rows) == 8 and len(test_rows) == 2


@pytest.mark.skipif(bool(models.missing()), reason=f"not installed: {', '.join(models.missing())}")
def test_the_six_models_learn_and_know_what_they_have_not_seen():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)).astype(np.float32)
    y = np.where(X[:, 0] > 0, 2, 1).astype(np.int8)  # nothing falls
    clock = models.Clock()
    six = models.train(X, y, clock, trees=3)
    predictions = six.predict(X)
    assert list(predictions) == [*models.FAMILIES, models.META]
    assert set(clock.seconds) == {*predictions, "five folds"}
    for name, probability in predictions.items():
        np.testing.assert_allclose(probability.sum(axis=1), 1)
        assert 0 < probability[:, 0].max() < 1e-5, name
        assert quality.accuracy(probability, y) > 0.6, name
    only = models.train(X, np.ones(300, np.int8), clock, trees=3, folds=False)
    assert only.meta is None and all(p[:, 1].min() > 0.99 for p in only.predict(X).values())


def test_averages_over_sectors_are_of_log_losses():
    def line(sector, old, new):
        of = {name: {"log_loss": loss, "accuracy": 0.9} for name, loss in (("a", old), ("b", old + 1))}
        return {
            "sector": sector, "horizon": 2, "threshold": 0.05, "rows": 10, "prior": 1.0, "majority": 0.9,
            "claimed_prior": 2.0, "claimed_majority": 0.8, "old": of, "claimed": of,
            "new": {"good": {"log_loss": new, "accuracy": 0.8}, "bad": {"log_loss": 2.0, "accuracy": 0.8}},
        }  # fmt: skip

    (average,) = quality.averages([line("energy", 1.0, 0.5), line("utilities", 2.0, 0.7)])
    assert average["sectors"] == 2 and average["old"]["a"]["log_loss"] == 1.5
    np.testing.assert_allclose(average["new"]["good"]["gain"], 0.4)
    np.testing.assert_allclose([average["old"]["a"]["gain"], average["claimed"]["a"]["gain"]], [-0.5, 0.25])
    assert average["better"] == ["good"]


def in_this_process(options, out):
    """A job without a new interpreter."""
    from gpupipe.cli import run

    if status := run.main([*options, "--quiet", "--out", str(out)]):
        raise SystemExit(f"the job failed with status {status}")
    return runs.Run(1.0, 0, 0, out)


@pytest.mark.skipif(bool(models.missing()), reason=f"not installed: {', '.join(models.missing())}")
def test_the_whole_benchmark_on_a_tiny_market(tmp_path, monkeypatch, capsys):
    import pyarrow.parquet as pq

    pq.write_table(in_sectors(tiny_market(), ("energy", "technology")).to_arrow(), tmp_path / "market.parquet")
    monkeypatch.setattr(comparison, "LABELS", LABELS)
    monkeypatch.setattr(runs, "run_job", in_this_process)
    monkeypatch.setattr(equality, "ROUNDS", 2)
    monkeypatch.setattr(equality, "DEPTH", 3)
    lines = tmp_path / "lines.jsonl"
    quick = [word for setting in QUICK if not setting.startswith("labels") for word in ("--set", setting)]
    options = ["--data", str(tmp_path / "market.parquet"), "--sectors", "all", "--timed", "energy", "--runs", "1",
               "--trees", "1", "--no-meta", "--out", str(lines)]  # fmt: skip
    assert comparison.main([*options, *quick]) == 0
    printed = capsys.readouterr().out
    assert (
        "no ratio is given" in printed and "extrapolated: 1 of 4 runs timed" in printed and "sectors pooled" in printed
    )
    result = json.loads(printed.splitlines()[-1])
    assert result["kind"] == "result" and result["ratio"] is None and result["extrapolated"]
    assert [(mean["horizon"], mean["threshold"]) for mean in result["averages"]] == list(LABELS)
    for mean in result["averages"]:
        assert set(mean["old"]) == set(models.FAMILIES) == set(mean["claimed"])
        assert len(mean["new"]) == 6
        assert all(0 < of["log_loss"] < 3 for of in (*mean["new"].values(), *mean["old"].values()))
    kinds = [json.loads(line)["kind"] for line in lines.read_text().splitlines()]
    assert kinds == ["run", "judged", "judged", "result"]

    # A second time the old way is not run again, and the sealed log-loss of the new one is the same.
    monkeypatch.setattr(models, "train", None)
    monkeypatch.setattr(comparison, "equality", lambda *given: {})
    assert comparison.main([*options, *quick, "--last-step"]) == 0
    printed = capsys.readouterr().out
    assert "measured earlier" in printed and "all of gpupipe" in printed and "labels together" not in printed
    assert json.loads(printed.splitlines()[-1])["averages"] == result["averages"]

    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra bench)")
    pictures.draw_predecessor([json.loads(line) for line in lines.read_text().splitlines()], tmp_path / "old-way.svg")
    assert "<svg" in (tmp_path / "old-way.svg").read_text()
    with pytest.raises(SystemExit, match="no result to draw"):
        pictures.draw_predecessor([], tmp_path / "none.svg")


def test_a_sector_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(models, "missing", lambda: [])
    monkeypatch.setattr(comparison.importlib.metadata, "version", str)
    with pytest.raises(SystemExit, match="no sector farming here; there are "):
        comparison.main(["--data", "simulated:symbols=20,bars=50", "--sectors", "farming"])
