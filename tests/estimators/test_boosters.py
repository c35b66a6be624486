"""The optional families in the whole job, and `--models turbomode`."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time

import numpy as np
import pytest

from gpupipe.artifacts.load import load
from gpupipe.cli.run import main
from gpupipe.config import ConfigError
from gpupipe.estimators import registry
from gpupipe.estimators.boosting.lightgbm_trees import ThreadGate
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.equity.settings import TURBOMODE, make
from tests.support import tiny
from tests.support.fitting import BOOSTERS, SETTINGS, as_bytes, both, fit_all, fit_pool, predict, world
from tests.support.tiny import QUICK, SECTORS, SOURCE, tiny_market, view_of

SHORT = (
    *QUICK, "lightgbm.rounds=6", "catboost.rounds=6", "hist.rounds=3", "forest.trees=3", "forest.depth=4",
    "catboost.depth=3", "hist.depth=3", "split.parts=2", "training.early_stopping=0",
)  # fmt: skip


def models_in(out):
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.glob("trained_*/*/*/*") if p.suffix != ".json"}


@pytest.fixture(scope="module")
def turbo(tmp_path_factory):
    """The predecessor's six, cut short: (OUT, summary)."""
    out = tmp_path_factory.mktemp("turbo") / "OUT"
    settings = make("fast", settings=SHORT, training__models="turbomode")
    return out, tiny.execute(tiny_market(), None, settings, out, 1)[0]


@both
def test_the_six_are_trained_published_and_predict(turbo):
    out, summary = turbo
    assert summary["n_models"] == summary["n_models_wanted"] == 3 * 4 * 6, summary["skipped"]
    folder = out / "trained_4pct/energy/3d"
    assert {"lightgbm.txt", "catboost.cbm", "xgb_hist.ubj", "linear.npz", "random_forest.ubj", "meta_learner.npz"} == {
        path.name for path in folder.iterdir()
    } - {"metadata.json"}
    about = json.loads((folder / "metadata.json").read_text())
    assert {"lightgbm", "catboost"} <= set(about["versions"])
    assert about["models"]["lightgbm"]["rounds"] == about["models"]["catboost"]["rounds"] == [6]  # all, none stopped
    assert about["models"]["meta_learner"]["inputs"] == "probabilities"
    with np.load(folder / "meta_learner.npz") as saved:
        assert saved["coefficients"].shape == (15, 3)
    predictions = load(out).predict(tiny_market())
    assert len(predictions.names) == 4 * 6
    for name in predictions.names:
        known = predictions.of(name)[~np.isnan(predictions.of(name)[:, 0])]
        assert len(known) > 1000
        np.testing.assert_allclose(known.sum(axis=1), 1, atol=2e-6)
    again = load(out).predict(tiny_market(), ["meta_learner"])  # needs the five, loaded for it alone
    np.testing.assert_array_equal(again.of("meta_learner_3d_4pct"), predictions.of("meta_learner_3d_4pct"))


@both
def test_two_jobs_give_the_same_bytes_and_other_families_take_their_place(turbo, tmp_path):
    out = tmp_path / "OUT"
    options = ["--data", SOURCE, "--sectors", ",".join(SECTORS), "--preset", "fast", "--quiet", "--out", str(out)]
    short = [part for setting in SHORT for part in ("--set", setting)]
    assert main([*options, *short, "--models", "turbomode", "--jobs", "2"]) == 0
    assert models_in(out) == models_in(turbo[0]) and len(models_in(out)) == 72
    assert main([*options, *short, "--models", "linear"]) == 0
    assert {path.rpartition("/")[2] for path in models_in(out)} <= {"linear.npz"}


@pytest.mark.parametrize("name", registry.optional())
def test_a_missing_package_is_one_line_that_installs_it(name, monkeypatch, capsys, tmp_path):
    estimator = registry.estimator(name)
    monkeypatch.setitem(sys.modules, estimator.package, None)
    out = tmp_path / "OUT"
    options = ["--data", SOURCE, "--sectors", "energy", "--preset", "fast", "--quiet", "--out", str(out)]
    for more in ([], ["--dry-run"]):
        assert main([*options, "--models", name, *more]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and name in line and f"pip install -e '.[{estimator.extra}]'" in line
    assert not out.exists()
    with pytest.raises(UserError, match=estimator.extra):
        registry.load_model({}, {"kind": name}, {})


def test_turbomode_sets_the_predecessors_parameters_and_what_is_named_wins(tmp_path):
    turbo = make("fast", training__models="turbomode")
    assert turbo.training.models == TURBOMODE and turbo.preset == "fast"
    assert (turbo.training.pool, turbo.training.early_stopping) == ("none", 0)
    for booster in (turbo.hist, turbo.lightgbm, turbo.catboost):
        assert (booster.rounds, booster.learning_rate, booster.depth) == (200, 0.05, 8)
    assert (turbo.lightgbm.leaves, turbo.catboost.l2, turbo.hist.subsample) == (63, 3.0, 0.8)
    forest = turbo.forest
    assert (forest.trees, forest.depth, forest.min_rows, forest.column_share) == (200, 12, 10.0, 0.0)
    assert turbo.meta.inputs == "probabilities" and turbo.linear == make("fast").linear
    assert turbo.digest() != make("fast", training__models=TURBOMODE).digest()
    file = tmp_path / "gpupipe.toml"
    file.write_text('preset = "fast"\n[training]\nmodels = ["turbomode"]\npool = "all"\n[hist]\nrounds = 7\n')
    own = make(file=file, settings=["catboost.depth=4"])
    assert (own.hist.rounds, own.catboost.depth, own.training.pool, own.hist.depth) == (7, 4, "all", 8)
    assert make(file=file, training__models=["linear"]).hist.depth == make("fast").hist.depth  # not turbomode after all
    more = make(settings=["training.models=xgb_joint,turbomode,linear"]).training.models
    assert more == ("xgb_joint", *TURBOMODE)
    with pytest.raises(ConfigError, match="unknown model family 'turbomod'; did you mean 'turbomode'"):
        make(settings=["training.models=turbomod"])


@pytest.mark.parametrize("name", ["xgb_hist", "xgb_leafwise", "xgb_joint", *BOOSTERS])
def test_without_early_stopping_all_rounds_are_kept(name):
    if name in BOOSTERS:
        pytest.importorskip(name)
    field = {"xgb_hist": "hist", "xgb_leafwise": "leafwise", "xgb_joint": "joint"}.get(name, name)
    rates = [f"{field}.rounds=30", f"{field}.learning_rate=0.9", "joint_sector.rounds=7"]
    fold = world()[0]
    pooled, by_sector = fit_all(name, fold, make("fast", settings=[*rates, "training.early_stopping=0"]))
    stopped = fit_all(name, fold, make("fast", settings=[*rates, "training.early_stopping=3"]))[1]
    for sector, models in by_sector.items():
        if name == "xgb_joint":
            assert {model.describe()["rounds"][0] for model in pooled} == {30}
            assert {tuple(model.describe()["rounds"]) for model in models} <= {(30,), (30, 7)}
        else:
            assert [model.describe()["rounds"] for model in models] == [[30], [30]]
        assert all(model.describe()["rounds"][0] < 30 for model in stopped[sector])


@both
@pytest.mark.parametrize("name", BOOSTERS)
def test_a_fold_without_a_class_is_fitted_all_the_same(name):
    """An out-of-fold part may hold no row of a class that the whole has; its rounds are those of the final models."""
    fold = world()[0]
    frozen = fit_all(name, fold, SETTINGS)
    half = {s: view_of(rows.X, np.where(rows.y == 2, np.int8(1), rows.y), rows.time_ns) for s, rows in fold.fit.items()}
    part = dataclasses.replace(fold, name="part1", fit=half, validation={})
    models = fit_all(name, part, SETTINGS, frozen)[1]
    for sector, rows in half.items():
        predictions = predict(name, models[sector], rows.X)
        assert np.isfinite(predictions).all() and (predictions[:, :, 2] < 0.05).all()


@both
def test_the_forest_draws_the_square_root_of_the_columns():
    fold = world()[0]
    files = {}
    for share in ("0.0", f"{6**-0.5}", "1.0"):
        settings = make("fast", settings=["forest.trees=4", f"forest.column_share={share}"])
        files[share] = as_bytes(fit_pool("random_forest", fold, settings))
    assert files["0.0"] == files[f"{6**-0.5}"] != files["1.0"]


@both
@pytest.mark.parametrize("name", BOOSTERS)
def test_rows_weigh_what_they_are_given_in_fitting_and_nothing_in_validation(name):
    fold = world()[0]

    def weighted(part, value):
        return {s: rows.with_weight(np.full(rows.y.shape, value, np.float32)) for s, rows in part.items()}

    plain = as_bytes(fit_all(name, fold, SETTINGS)[1]["a"])
    ones = dataclasses.replace(fold, fit=weighted(fold.fit, 1), validation=weighted(fold.validation, 7))
    assert as_bytes(fit_all(name, ones, SETTINGS)[1]["a"]) == plain
    uneven = weighted(fold.fit, 1)
    uneven["a"].weight[: uneven["a"].n // 2, 1] = 0.1  # of the second label alone
    models = as_bytes(fit_all(name, dataclasses.replace(ones, fit=uneven), SETTINGS)[1]["a"])
    assert models[0] == plain[0] and models[1] != plain[1]


def test_the_share_of_rows_for_all_stages_is_also_theirs():
    settings = make("fast", settings=["ml.subsample=0.25"])
    assert settings.lightgbm.subsample == settings.catboost.subsample == settings.hist.subsample == 0.25


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_lightgbm_runs_with_one_number_of_threads_at_a_time():
    gate, entered, done = ThreadGate(), [], threading.Event()

    def call(number):
        with gate.threads(number):
            entered.append(number)
            done.wait(30)

    first, second, other = (threading.Thread(target=call, args=(number,)) for number in (1, 1, 4))
    first.start()
    wait_until(lambda: entered == [1])
    other.start()
    second.start()
    wait_until(lambda: entered == [1, 1])
    assert gate.users == 2
    done.set()
    for thread in (first, second, other):
        thread.join(30)
    assert entered == [1, 1, 4] and gate.users == 0
