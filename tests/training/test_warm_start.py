"""A run that goes on from last night's: what it gains, what it refuses, and that nothing depends on luck."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import xgboost

import bench.quality.warm_start
from gpupipe import config
from gpupipe.artifacts import publish
from gpupipe.artifacts.layout import model_files
from gpupipe.artifacts.load import load
from gpupipe.artifacts.manifest import altered_files, read_manifest
from gpupipe.cli import run
from gpupipe.estimators import columns, registry
from gpupipe.estimators.boosting import gradient_boosting, tree_estimator, tree_model
from gpupipe.estimators.boosting.binned_matrix import binned
from gpupipe.estimators.boosting.gradient_boosting import EarlierBooster
from gpupipe.estimators.contract import EstimatorSettings
from gpupipe.estimators.earlier import EarlierModels
from gpupipe.pipeline.listener import Listener
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import Store
from gpupipe.training import warm_start
from gpupipe.workloads import equity
from tests.support import kill, tiny
from tests.support.tiny import QUICK, SECTORS, SOURCE, cut, fold_of, in_sectors, planted, tiny_market

FAMILIES = ("xgb_joint", "xgb_hist", "xgb_leafwise")
FEW = ("training.models=xgb_joint,xgb_hist", "labels.horizons=1", "labels.thresholds=0.02", "split.parts=2",
       "hist.rounds=30", "joint.rounds=30")  # fmt: skip


def yesterday(days=1):
    return cut(tiny_market(), lambda k, bars: bars < 260 - days)


def job(out, *settings, panel=None, source=None, jobs=1, listener=None):
    chosen = equity.make("fast", settings=[*QUICK, *FEW, *settings])
    return tiny.execute(panel or tiny_market(), None, chosen, out, jobs, listener, warm_start=source)


def models_in(out):
    files = json.loads((out / "manifest.json").read_text())["files"]
    return {name: files[name]["sha256"] for name in model_files(files)}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """Last night's run."""
    out = tmp_path_factory.mktemp("old") / "OUT"
    job(out, panel=yesterday())
    return out


@pytest.fixture(scope="module")
def tonight(old, tmp_path_factory):
    """(OUT, summary) of the run that went on from it."""
    out = tmp_path_factory.mktemp("tonight") / "OUT"
    return out, job(out, source=old)[0]


@pytest.fixture
def a_fold():
    fit = {name: planted(600, seed)[0] for seed, name in enumerate(("energy", "utilities"))}
    return fold_of(fit, {name: planted(300, seed + 10)[0] for seed, name in enumerate(fit)})


def settings_of(*more):
    return equity.make("fast", settings=[*QUICK, "joint.rounds=60", "hist.rounds=60", "leafwise.rounds=60", *more])


def fit_pool(estimator, training_set, settings):
    return columns.fit_pool(estimator, training_set, EstimatorSettings(settings, estimator), None)


def fitted(estimator, training_set, settings):
    """The models of every group."""
    readable, pooled = EstimatorSettings(settings, estimator), fit_pool(estimator, training_set, settings)
    return {
        group: columns.fit_group(estimator, training_set, group, readable, pooled, None)
        for group in training_set.groups
    }


def starting_from(name, models, numbers=None):
    """An estimator that starts from these models of each group. numbers: of the columns that they were fitted on."""
    return registry.estimator(name).starting_from(EarlierModels("key", models, numbers, "2020-01-01", "digest"))


def loss(estimator, by_group, training_set):
    """Validation log-loss, float64 (n_targets,)."""
    total, n = np.zeros(training_set.n_targets), 0
    for group, rows in training_set.validation.items():
        predictions = columns.predict(estimator, by_group[group], rows.features)
        for k in range(training_set.n_targets):
            total[k] -= np.log(predictions[np.arange(rows.n), k, rows.y[:, k]]).sum()
        n += rows.n
    return total / n


@pytest.mark.parametrize("name", FAMILIES)
def test_on_the_same_rows_it_is_as_good_and_does_not_grow(name, a_fold):
    settings = settings_of()
    cold = fitted(registry.estimator(name), a_fold, settings)
    one, first = cold, loss(registry.estimator(name), cold, a_fold).mean()
    for _ in range(2):
        again = starting_from(name, one)
        one = fitted(again, a_fold, settings)
        assert loss(again, one, a_fold).mean() <= first * 1.003
        stages = [(model, k) for own in one.values() for model in own for k in range(len(model.stages))]
        assert max(model.stages[k].rounds for model, k in stages) <= 60
        assert any(model.warm and model.warm.rounds[0] > 0 for model, _ in stages)
        for model, k in stages:
            assert model.warm is None or model.warm.rounds[k] <= model.stages[k].rounds


def test_old_rounds_are_kept_as_they_were_and_the_last_ones_are_grown_again(a_fold):
    settings = settings_of("training.early_stopping=0", "joint.rounds=40")
    cold = fitted(registry.estimator("xgb_joint"), a_fold, settings)
    resumed = starting_from("xgb_joint", cold)
    pooled = fit_pool(resumed, a_fold, settings)
    was, now = cold["energy"][0].stages[0], pooled[0].stages[0]
    X = a_fold.validation["energy"].X
    assert now.rounds == was.rounds == 40 and pooled[0].warm.rounds == (36,)
    same = [b.inplace_predict(X, iteration_range=(0, 36), predict_type="margin") for b in (was.booster, now.booster)]
    assert np.array_equal(*same)
    after = [b.inplace_predict(X, iteration_range=(36, 40), predict_type="margin") for b in (was.booster, now.booster)]
    assert not np.array_equal(*after)


def test_rounds_that_are_kept_and_evaluated():
    earlier = EarlierBooster(None, (3, 57, 40))
    assert earlier.kept == 51 and EarlierBooster(None, (2, 1)).kept == 0 and EarlierBooster(None, (3,)).kept == 1
    assert earlier.evaluated(0, 51) == [3, 10, 20, 30, 40, 50, 51] and earlier.evaluated(51, 57) == [57]


def test_a_gradient_sampled_booster_goes_on_too(a_fold):
    fold = dataclasses.replace(a_fold, ml=config.Ml(gradient_sampling=True))
    settings = settings_of("joint.subsample=0.5")
    cold = fitted(registry.estimator("xgb_joint"), fold, settings)
    again = starting_from("xgb_joint", cold)
    assert loss(again, fitted(again, fold, settings), fold).mean() < 1.01 * loss(again, cold, fold).mean()


def test_other_columns_are_said_and_trained_from_nothing(a_fold, caplog):
    settings = settings_of()
    cold = fitted(registry.estimator("xgb_joint"), a_fold, settings)
    other = starting_from("xgb_joint", cold, np.array([0, 1]))
    assert not any(model.warm for model in fit_pool(other, a_fold, settings))
    assert "other columns" in caplog.text


def test_summary_metadata_and_files_say_what_was_gone_on_from(old, tonight):
    out, summary = tonight
    key = json.loads((old / "manifest.json").read_text())["run_key"]
    assert summary["warm_start"]["run_key"] == key
    rows = [row for row in summary["models"] if row["kind"] == "model"]
    started = [row for row in rows if row["warm_start_run"]]
    assert {row["model"] for row in started} == {"xgb_joint", "xgb_hist"}
    assert {row["warm_start_run"] for row in started} == {key}
    for row in started:
        now, was = ([int(r) for r in row[name].split("+")] for name in ("rounds", "warm_start_rounds"))
        assert len(now) == len(was) and any(was) and all(b <= a for a, b in zip(now, was, strict=True))
    for name, one in summary["warm_start"]["families"].items():
        assert one["models"] == 3 and one["warm"] == sum(row["model"] == name for row in started)
    row = started[0]
    about = json.loads((out / f"trained_2pct/{row['sector']}/1d/metadata.json").read_text())
    told = about["models"][row["model"]]["warm_start"]
    before = json.loads((old / f"trained_2pct/{row['sector']}/1d/metadata.json").read_text())
    assert told["run_key"] == key and told["trained_to"] == before["dates"]["train"][1]
    (again,) = (m.describe() for m in [load(out).by_group[row["sector"]]["label_1d_2pct"][row["model"]]])
    assert json.loads(json.dumps(again))["warm_start"] == told


def test_its_rounds_are_trees_of_all_outputs_as_the_first_ones_are(tonight, monkeypatch, caplog):
    """XGBoost forgets in a file how trees are grown; a run that went on with a tree for each output is not believed."""
    found = load(tonight[0]).by_group
    stages = [s for by_label in found.values() for own in by_label.values() for f in ("xgb_joint", "xgb_hist")
              for s in columns.unwrap([own[f]])[0].stages]  # fmt: skip
    assert all(tree_model.has_a_tree_a_round(stage.booster) for stage in stages)
    assert all(f is not None for f in list(going_on(tonight[0]).values())[:2])
    monkeypatch.setattr(tree_estimator, "has_a_tree_a_round", lambda booster: False)
    caplog.clear()
    assert not any(going_on(tonight[0]).values()) and "a tree for each output" in caplog.text


@pytest.mark.parametrize("forgets", [False, True])
def test_a_booster_that_was_loaded_goes_on_as_it_was_grown(a_fold, forgets):
    estimator = registry.estimator("xgb_hist")
    readable = EstimatorSettings(settings_of(), estimator)
    model = columns.fit_group(estimator, a_fold, "energy", readable, [None] * a_fold.n_targets, None)[0]
    loaded = xgboost.Booster(model_file=bytearray(model.files()[".ubj"]))
    parameters = tree_model.parameters(settings_of().hist, a_fold.device, a_fold.max_bin, 1, 0)
    grown = tree_model.resume(loaded, 2, parameters)
    if forgets:
        grown = loaded[:2]
        grown.set_param({name: value for name, value in parameters.items() if name != "base_score"})
    (sample,) = binned(a_fold).samples(1.0, "energy")
    gradient = np.ones((sample.bins.num_row(), 2), np.float32)
    grown.boost(sample.bins, 2, grad=gradient, hess=gradient)
    assert grown.num_boosted_rounds() == 3 and tree_model.has_a_tree_a_round(grown) != forgets


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_jobs(old, tonight, tmp_path):
    out, summary = tonight
    again, _ = job(tmp_path / "OUT", source=old, jobs=2)
    assert models_in(tmp_path / "OUT") == models_in(out) and again["run_key"] == summary["run_key"]


def test_in_its_own_folder_it_takes_the_place_of_last_night_once(old, tonight, tmp_path, caplog):
    out = tmp_path / "OUT"
    shutil.copytree(old, out)
    assert job(out, source=out)[1]
    assert models_in(out) == models_in(tonight[0]) and not caplog.records
    assert not (out / ".gpupipe" / "replaced").exists() and kill.unaccounted(out) == []
    assert not job(out, source=out)[1]  # the same night again: nothing to do


def test_killed_while_it_replaces_what_it_went_on_from(old, tonight, tmp_path, monkeypatch):
    """The manifest is gone and half of the models are new: the next run finds the old ones, and all units finished."""
    out = tmp_path / "OUT"
    shutil.copytree(old, out)
    real, done = publish.publish, []

    def dies(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(real(*arguments))
        return done[-1]

    with monkeypatch.context() as patched:
        patched.setattr("gpupipe.artifacts.publish.publish", dies)
        with pytest.raises(KeyboardInterrupt):
            job(out, source=out)
    assert not (out / "manifest.json").exists() and models_in(out / ".gpupipe/replaced") == models_in(old)
    with monkeypatch.context() as patched:
        patched.setattr(gradient_boosting, "boost", lambda *a, **b: pytest.fail("something was trained again"))
        assert job(out, source=out)[1]
    assert models_in(out) == models_in(tonight[0]) and kill.unaccounted(out) == []


def test_killed_while_it_trains(old, tonight, tmp_path):
    out = tmp_path / "OUT"
    shutil.copytree(old, out)
    heard = []

    def dies(name):
        heard.append(name)
        if len(heard) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job(out, source=out, listener=Listener(advanced=dies))
    assert models_in(out) == models_in(old) and altered_files(out, read_manifest(out)) == []
    assert job(out, source=out)[1] and models_in(out) == models_in(tonight[0])


def test_what_it_went_on_from_is_in_the_key(old, tmp_path):
    there = warm_start.read(old, Store(tmp_path))
    other = dataclasses.replace(there, digest="0" * 64)
    assert there.key("a") != there.key("b") and there.key("a") != other.key("a")
    assert there.digest == warm_start.read(old, Store(old)).digest


def test_a_file_that_was_altered_and_a_folder_without_a_run_are_refused(old, tmp_path):
    with pytest.raises(UserError, match=r"manifest.json is missing.*leave --warm-start out"):
        job(tmp_path / "OUT", source=tmp_path / "none")
    assert not (tmp_path / "OUT").exists()
    copied = tmp_path / "copied"
    shutil.copytree(old, copied)
    name = next(iter(models_in(copied)))
    (copied / name).write_bytes((copied / name).read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"altered.*without --warm-start"):
        job(tmp_path / "OUT", source=copied)
    (copied / name).unlink()
    with pytest.raises(UserError, match="gone"):
        job(copied, source=copied)


def test_the_command_line_says_it_in_one_line(tmp_path, capsys):
    arguments = ["--data", SOURCE, "--sectors", ",".join(SECTORS), "--quiet", "--out", str(tmp_path / "OUT")]
    assert run.main([*arguments, "--warm-start", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gpupipe: --warm-start {tmp_path}: ") and "no finished run" in line


def going_on(source, *settings, panel=None):
    chosen = equity.make("fast", settings=[*QUICK, *FEW, *settings])
    prepared = tiny.prepare(panel or tiny_market(), chosen)
    there = warm_start.read(source, Store(source))
    asked = warm_start.Starting(there, chosen, prepared.datasets, prepared.splits, prepared.features_hash)
    sectors = tuple(prepared.datasets)
    return {f: asked(f, sectors, prepared.datasets[sectors[0]].target.names) for f in (*FAMILIES, "linear")}


def test_what_is_the_same_is_gone_on_from(old, caplog):
    found = going_on(old)
    assert [found[f] is not None for f in (*FAMILIES, "linear")] == [True, True, False, False]
    (record,) = caplog.records  # of the one that was not trained there
    assert record.getMessage().startswith("xgb_leafwise is trained from nothing") and "other labels" in caplog.text
    pooled = found["xgb_hist"].pooled()
    assert len(pooled) == 1 and set(found["xgb_joint"].by_group) == set(SECTORS)


@pytest.mark.parametrize(("setting", "said"), [
    ("features.names=momentum,natr_14", "the features differ"),
    ("labels.thresholds=0.03", "labels.thresholds was [0.02] and is [0.03]"),
    ("labels.rule=first_touch", 'labels.rule was "take_profit_first" and is "first_touch"'),
    ("labels.window=calendar", "labels.window"),
    ("training.pool=none", "training.pool"),
    ("training.class_weight=balanced", "training.class_weight"),
    ("training.max_bin=32", "training.max_bin was 16 and is 32"),
    ("ml.subsample=0.3", "ml.subsample"),
])  # fmt: skip
def test_what_differs_for_all_is_refused_by_name(old, caplog, setting, said):
    assert not any(going_on(old, setting).values())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3 and all(said in line and "train once without --warm-start" in line for line in lines)


def test_what_differs_for_one_family_leaves_the_other(old, caplog):
    found = going_on(old, "hist.depth=2")
    assert found["xgb_joint"] and not found["xgb_hist"] and "hist.depth was 3 and is 2" in caplog.text


def test_other_sectors_are_refused(old, caplog):
    assert not any(going_on(old, panel=in_sectors(tiny_market(), SECTORS[:2])).values())
    assert f"the sectors differ ({SECTORS[2]})" in caplog.text


def test_features_computed_otherwise_are_refused(old, caplog, monkeypatch):
    there = warm_start.read(old, Store(old))
    other = dataclasses.replace(there, models=dataclasses.replace(there.models, features_hash="another"))
    monkeypatch.setattr(warm_start, "read", lambda *a: other)
    assert not any(going_on(old).values()) and "the same names and other formulas" in caplog.text


def test_rows_that_were_fitted_may_not_be_validation_or_test_rows_now(old, tonight, caplog):
    """Go on from a run that has seen more: of all parts the borders lie later there."""
    ahead = cut(tiny_market(), lambda k, bars: bars < 250)
    assert not any(going_on(old, panel=ahead).values())
    assert "it was fitted on rows until" in caplog.text
    caplog.clear()
    # The same days, cut elsewhere: the training part ends later and validation begins later, the test begins earlier.
    assert not any(going_on(old, "split.train=0.65", "split.validation=0.1").values())
    assert "its test part began at" in caplog.text
    caplog.clear()
    assert not any(going_on(old, "split.embargo_bars=0", "split.train=0.59", "split.validation=0.25").values())
    assert "part began at" in caplog.text or "fitted on rows until" in caplog.text


def test_a_row_fitted_there_is_never_validated_here(old):
    """By row numbers: what last night's split fitted lies in tonight's training part or is purged there."""
    chosen = equity.make("fast", settings=[*QUICK, *FEW])
    before, now = (tiny.prepare(panel, chosen) for panel in (yesterday(), tiny_market()))
    for s in SECTORS:
        keys = [
            {part: {(int(t), float(x)) for t, x in zip(
                one.datasets[s].time_ns[at], one.datasets[s].X[at, 0], strict=True)}
             for part in ("train", "validation", "test") for at in [getattr(one.splits[s], part)]}
            for one in (before, now)
        ]  # fmt: skip
        assert keys[0]["train"] and not keys[0]["train"] & (keys[1]["validation"] | keys[1]["test"])
        assert not keys[0]["validation"] & keys[1]["test"]


def test_when_too_much_is_new_it_is_trained_from_nothing(tmp_path, caplog):
    job(tmp_path / "long ago", "training.models=xgb_joint", panel=yesterday(40))
    assert going_on(tmp_path / "long ago")["xgb_joint"] is None
    assert "its oldest rounds have not seen" in caplog.text
    # The age is that of the oldest rounds, however often a run went on from them.
    found = going_on(tmp_path / "long ago", panel=yesterday(38))["xgb_joint"]
    model = dataclasses.replace(found.by_group["energy"][0], warm=found.started(5))
    assert model.warm.trained_to == found.trained_to


def test_the_benchmark_compares_both_night_after_night(capsys):
    quick = [f"--set={one}" for one in (*QUICK, *FEW[1:], "features.names=momentum")]
    arguments = ["--data", SOURCE, "--sectors", "energy,utilities", "--models", "xgb_joint", "--times", "1"]
    assert bench.quality.warm_start.main([*arguments, "--nights", "2", "--days", "2", *quick]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["nights"]) == 2 and found["days"] == 2
    for one in found["nights"]:
        assert one["warm_models"] == {"xgb_joint": [2, 2]} and one["rounds"]["warm"]["xgb_joint"]["largest"] <= 30
        (own, every) = one["test"]
        assert (own["label"], every["label"]) == ("label_1d_2pct", "all")
        for name in ("cold", "warm", "difference", "low", "high"):
            assert own[name] == pytest.approx(every[name], abs=1e-12)  # of a single label
        assert own["low"] <= own["difference"] <= own["high"]
        assert own["difference"] == pytest.approx(own["warm"] - own["cold"])
        assert set(one["seconds"]["warm"]) == {"xgb_joint", "whole run"}
