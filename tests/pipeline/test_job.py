"""The job's measures and verdicts, the key it is known by, and the odd markets that it must not fall over."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpupipe import load
from gpupipe.pipeline import job as pipeline
from gpupipe.pipeline.listener import Listener
from gpupipe.store import fingerprint
from gpupipe.targets.classes import CLASSES
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, cut, tiny_market

TABLES = ("volatility_table_sector", "volatility_table_all")
BASELINES = {*TABLES, "prior_all", "momentum_table", "reversal_table"}


def job(out, *settings, panel=None, listener=None):
    """The summary of a job on one thread."""
    chosen = equity.make("fast", settings=[*QUICK, *settings])
    return tiny.execute(panel or tiny_market(), None, chosen, out, 1, listener)[0]


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return job(tmp_path_factory.mktemp("whole"))


def test_every_measure_stands_for_every_model_and_baseline_on_both_parts(summary):
    measures = ["rows", "log_loss", "prior_log_loss", "gain_over_prior", "balanced_accuracy", "return_buy_and_hold"]
    measures += [
        f"{m}_{c}" for m in ("share", "calls", "precision", "recall", "pr_auc", "calibration_error", "return_when")
        for c in ("buy", "sell")
    ]  # fmt: skip
    assert {row["model"] for row in summary["models"]} == {*equity.DEFAULT_MODELS, *BASELINES}
    for row in summary["models"]:
        for part in ("validation", "test"):
            found = {name: row[f"{part}_{name}"] for name in measures}
            assert 0 < found["log_loss"] < 3 and found["rows"] >= 50 and 0 <= found["balanced_accuracy"] <= 1
            assert found["gain_over_prior"] == pytest.approx(1 - found["log_loss"] / found["prior_log_loss"])
            assert all(0 <= found[f"calibration_error_{side}"] <= 1 for side in ("buy", "sell"))


def test_intervals_and_skill_stand_with_every_row_and_in_the_metadata(summary, tmp_path):
    for row in (*summary["models"], *summary["averages"]):
        low, high = row["test_gain_low"], row["test_gain_high"]
        assert low <= row["test_gain_over_prior"] <= high
        skill = low > 0 and row["test_above_prior_all_low"] > 0
        assert row["test_skill"] == ("skill" if skill else "no skill"), row["model"]
    assert {row["test_skill"] for row in summary["models"]} == {"skill", "no skill"}
    assert summary["intervals"]["block"] == 10 and summary["intervals"]["draws"] == 2000
    again = job(tmp_path, "training.models=linear")
    kept = {(r["sector"], r["label"]): r for r in again["models"] if r["model"] == "linear"}
    for row in summary["models"]:
        if row["model"] == "linear":  # alone or among others: the same draws
            assert row["test_gain_low"] == kept[row["sector"], row["label"]]["test_gain_low"]
    about = json.loads((tmp_path / "trained_2pct/energy/1d/metadata.json").read_bytes())
    row = kept["energy", about["label"]]
    told = about["models"]["linear"]["metrics"]["test"]
    assert (told["skill"], told["gain_low"]) == (row["test_skill"], row["test_gain_low"])
    assert set(about["baselines"]) == BASELINES


@pytest.mark.parametrize(("table", "bars"), [("momentum_table", 60), ("reversal_table", 5)])
def test_the_tables_of_returns_and_buy_and_hold_are_what_they_say(summary, table, bars):
    """A table learned here again, from closes alone; and the mean forward return of all test rows."""
    panel, settings = tiny_market(), equity.make("fast", settings=QUICK)
    prepared = tiny.prepare(panel, settings)
    close = {s: panel.of_group(s).close for s in SECTORS}
    # No usable row is among the first 60 of its symbol.
    before = {s: np.append(np.full(bars, np.nan, np.float32), close[s][:-bars]) for s in SECTORS}
    returns = {s: close[s] / before[s] - 1 for s in SECTORS}
    cut = prepared.splits
    train = np.concatenate([returns[s][cut[s].train] for s in SECTORS])
    y = np.concatenate([prepared.datasets[s].y[cut[s].train, 0] for s in SECTORS])
    edges = np.quantile(train, np.arange(1, 20) / 20)
    overall = np.bincount(y, minlength=3) + 0.5
    for s in SECTORS:
        row = next(r for r in summary["models"] if (r["sector"], r["model"]) == (s, table))
        test, happened = cut[s].test, prepared.datasets[s].y[cut[s].test, 0]
        bins = np.searchsorted(edges, returns[s][test])
        counts = np.array([np.bincount(y[np.searchsorted(edges, train) == b], minlength=3) for b in range(20)])
        shares = counts + 10 * overall / overall.sum()
        shares /= shares.sum(axis=1, keepdims=True)
        loss = -np.log(shares[bins, happened]).mean()
        assert row["test_log_loss"] == pytest.approx(loss, rel=5e-3)  # float32 edges: a row may change its bin
        held = prepared.datasets[s].extra["forward_return_1"][test].mean(dtype=np.float64)
        assert row["test_return_buy_and_hold"] == pytest.approx(held, rel=1e-9)


def test_touch_and_direction_add_up_everywhere(summary):
    """In every row, average and family, on both parts: to rounding. And each part has an interval and skill."""
    rows = [(row, part) for row in (*summary["models"], *summary["averages"]) for part in ("test_", "validation_")]
    for row, part in rows:
        found = row[f"{part}touch_gain"] + row[f"{part}direction_gain"]
        assert found == pytest.approx(row[f"{part}gain_over_prior"], abs=1e-13)
    for family in summary["families"]:
        assert family["touch_gain"] + family["direction_gain"] == pytest.approx(family["gain"], abs=1e-13)
        assert 0 <= family["touch_with_skill"] <= family["runs"] == 12
    for verdict in summary["verdict"]:
        assert verdict["touch_gain"] + verdict["direction_gain"] == pytest.approx(verdict["above_prior"], abs=1e-13)
    for row in (*summary["models"], *summary["averages"]):
        for part in ("touch", "direction"):
            low, high = row[f"test_{part}_gain_low"], row[f"test_{part}_gain_high"]
            assert low <= row[f"test_{part}_gain"] <= high
            skill = min(low, row[f"test_{part}_above_prior_all_low"]) > 1e-6
            assert row[f"test_{part}_skill"] == ("skill" if skill else "no skill")


def test_the_planted_signal_is_found(summary):
    """Not by how much, on so few rows: but most models of most sectors gain over the prior on the sealed test."""
    gains = np.array([row["test_gain_over_prior"] for row in summary["models"] if row["kind"] == "model"])
    assert len(gains) == 72 and (gains > 0).mean() > 0.8 and gains.mean() > 0.01


def test_the_verdict_is_of_losses_averaged_over_sectors(summary):
    mean = {(a["label"], a["model"]): a["test_log_loss"] for a in summary["averages"]}
    for (label, model), value in mean.items():
        own = [r["test_log_loss"] for r in summary["models"] if (r["label"], r["model"]) == (label, model)]
        assert len(own) == 3 and value == pytest.approx(np.mean(own), rel=1e-12)
    found = {(v["label"], v["model"]): v["beats_all"] for v in summary["verdict"]}
    assert set(found) == {key for key in mean if key[1] in ("xgb_joint", "meta_learner")} and len(found) == 8
    for (label, model), beats in found.items():
        prior = np.mean([r["test_prior_log_loss"] for r in summary["models"] if r["label"] == label])
        assert beats == (mean[label, model] < min(prior, *(mean[label, table] for table in TABLES)))


def test_the_key_is_of_data_settings_code_versions_and_device(monkeypatch):
    device, settings = tiny_market().device, equity.make("fast")
    key = pipeline.run_key("data", settings, device)
    assert key == pipeline.run_key("data", settings, device) and len(key) == 64
    assert key != pipeline.run_key("other data", settings, device)
    assert key != pipeline.run_key("data", equity.make("fast", seed=1), device)
    with monkeypatch.context() as patched:
        patched.setattr(fingerprint, "versions", lambda: {"xgboost": "0"})
        assert key != pipeline.run_key("data", settings, device)
    with monkeypatch.context() as patched:
        patched.setattr(fingerprint, "code_hash", lambda *arguments: "another")
        assert key != pipeline.run_key("data", settings, device)
    assert key == pipeline.run_key("data", settings, device)


@pytest.mark.parametrize("pool", ["all", "none"])
@pytest.mark.parametrize("stacking", ["kfold", "forward"])
def test_a_sector_that_begins_late_does_not_stop_any_family(tmp_path, pool, stacking):
    """Its rows lie in the last part of the training time: out of fold there is nothing to learn from but this part."""
    market = tiny_market()
    late = cut(market, lambda k, bars: bars >= (80 if market.sector[k] == "energy" else 0))
    totals, heard = [], []
    found = job(
        tmp_path, f"training.pool={pool}", f"split.stacking={stacking}", "training.min_positives=5", panel=late,
        listener=Listener(totals.append, heard.append),
    )  # fmt: skip
    assert found["n_models"] == 72 and found["skipped"] == []
    assert len(heard) == totals[0]["units"]  # what is left out counts as done
    assert all(np.isfinite(row["test_log_loss"]) for row in found["models"])
    said = load(tmp_path).predict(late).of("meta_learner_1d_2pct")
    assert not np.isnan(said[np.array(late.sector)[late.symbol_of_row] == "energy"]).all()


def test_a_symbol_listed_yesterday_and_a_sector_of_one_symbol(tmp_path):
    market = tiny_market()
    alone = market.symbols[market.sector.index("utilities")]
    odd = market.where([s != "utilities" or n == alone for n, s in zip(market.symbols, market.sector, strict=True)])
    new = odd.sector.index("technology")
    odd = cut(odd, lambda k, bars: bars >= (259 if k == new else 0))
    found = job(tmp_path, "training.models=xgb_joint,xgb_hist,linear,meta_learner", "training.min_rows=10", panel=odd)
    assert found["n_models"] == 3 * 4 * 4
    predictions = load(tmp_path).predict(odd)
    assert np.isnan(predictions.values[odd.offsets[new]]).all()


def test_a_sector_with_too_few_positives_borrows_the_pooled_trees(tmp_path):
    found = job(tmp_path, "training.min_positives=100", "training.models=xgb_hist,linear")
    scopes = {(r["label"], r["sector"]): r["scope"] for r in found["models"] if r["model"] == "xgb_hist"}
    assert set(scopes.values()) == {"sector", "pool"} and len(scopes) == 12
    for path in tmp_path.glob("trained_*/*/*/metadata.json"):
        about = json.loads(path.read_bytes())
        fewest = min(about["class_shares"]["train"][c] for c in (CLASSES[0], CLASSES[2])) * about["rows"]["train"]
        assert scopes[about["label"], about["sector"]] == ("pool" if fewest < 99.5 else "sector")


def test_calendar_windows_and_first_touch_run_too(tmp_path):
    settings = ("training.models=linear", "labels.window=calendar", "labels.rule=first_touch", "labels.horizons=3")
    assert job(tmp_path, *settings)["n_models"] == 6


def test_chosen_features_run_and_load_without_the_others(tmp_path):
    job(tmp_path, "training.models=linear,xgb_joint", "features.names=momentum,rsi_14")
    models = load(tmp_path)
    assert 2 < len(models.feature_names) < 40 and "rsi_14" in models.feature_names
    assert np.isfinite(models.predict(tiny_market()).of("linear_1d_2pct")).any()


def test_balanced_classes_stay_calibrated(summary, tmp_path):
    balanced = job(tmp_path, "training.class_weight=balanced")
    for model in set(equity.DEFAULT_MODELS):
        plain, weighted = (
            np.mean([a["test_log_loss"] for a in one["averages"] if a["model"] == model]) for one in (summary, balanced)
        )
        assert weighted < 1.1 * plain, model


def test_the_plan_names_what_will_be_done():
    plan = tiny.plan(tiny_market(), equity.make("fast", settings=QUICK))
    assert [one["sector"] for one in plan["sectors"]] == list(SECTORS) and plan["models"] == 72
    assert sum(one["symbols"] for one in plan["sectors"]) == 30
    assert plan["units"] == 5 * (1 + 3) * (1 + 3) + 1  # five families, three parts and the whole, pool and sectors
