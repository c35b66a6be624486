"""An exported model says in onnxruntime what the model itself says: every family, at splits and where values miss."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest

from gpupipe.artifacts.load import load
from gpupipe.artifacts.onnx import checking, export
from gpupipe.cli import main
from gpupipe.estimators.boosting import catboost_trees, lightgbm_trees, tree_model
from gpupipe.estimators.boosting.lightgbm_trees import ALMOST_ZERO, round_down
from gpupipe.estimators.boosting.xgb_by_label import XgbHist
from gpupipe.estimators.columns import ColumnSubsetModel
from gpupipe.estimators.linear.softmax_regression import Weights
from gpupipe.estimators.stacking import meta_learner
from gpupipe.store.content_store import sha256
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.fitting import BOOSTERS, CPU, FAMILIES, both, fit_all, fitted, predict, predict_model, world
from tests.support.onnx_files import exported, hard_rows, hosted_model, splits_of, trees_of
from tests.support.tiny import QUICK, SOURCE, in_sectors, tiny_market

onnx = pytest.importorskip("onnx")
if importlib.util.find_spec("onnxruntime") is None:  # imported where it is used, which tells it to report nothing
    pytest.skip("onnxruntime is not installed", allow_module_level=True)

EIGHT = (*equity.DEFAULT_MODELS, *BOOSTERS)
ODD = {"energy": "Öl & Gas 'x'", "technology": "新技术"}  # files name sectors as the second
EPSILON = 2e-6  # what float32 leaves, and well below what is allowed


@pytest.fixture
def content_of(tmp_path):
    """content_of(name, model): the ONNX file of a model, exported as a run with this model alone would be."""

    def content(name, model, n_features=6, others=None) -> bytes:
        (content,) = exported(tmp_path, name, [model], n_features, others)
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
        return content

    return content


# Families


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_at_its_splits_beside_them_and_where_values_miss(name, content_of):
    models = fitted(name)[1]["c"]
    X = np.concatenate([hard_rows([(name, model) for model in models]), world()[1]["c"].X[:300]])
    assert np.isnan(X[0]).all() and 0.02 < np.isnan(X).mean() < 0.1
    for model in models:
        expected, content = predict_model(name, model, X), content_of(name, model)
        assert checking.largest_difference(content, X, expected) < EPSILON
        assert np.ptp(expected[:, 2]) > 0.1  # they are no constants
        assert checking.scored(content, X[:0]).shape == (0, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_chosen_columns_and_class_weights_are_in_the_graph(name, content_of):
    fold = world("balanced")[0].of_columns(np.array([0, 1, 4]))
    quick = equity.make("fast", settings=[*QUICK, "lightgbm.rounds=5", "catboost.rounds=5"])
    models = fit_all(name, fold, quick)[1]["a"]
    assert isinstance(models[0], ColumnSubsetModel) and (models[0].model.class_weight != 1).any()
    X = hard_rows([(name, model) for model in models])
    for model in models:
        expected, content = predict_model(name, model, X), content_of(name, model)
        assert checking.largest_difference(content, X, expected) < EPSILON
        if name == "linear":
            continue
        compared = {int(f) for one in trees_of(content) for f in one["nodes_featureids"][splits_of(one)]}
        assert compared == {*(0, 1, 4)[: len(compared)]}  # the model counts among the chosen; the graph moves them


@pytest.mark.parametrize("inputs", ["log_odds", "probabilities"])
def test_a_meta_learner_scores_by_itself(inputs, content_of):
    families = ("xgb_joint", "linear", "random_forest")
    others = {name: fitted(name)[1]["a"][1] for name in families}
    rng = np.random.default_rng(0)
    n = len(families) * (2 if inputs == "log_odds" else 3)
    model = meta_learner.MetaModel(families, Weights(rng.normal(size=(n, 3)), rng.normal(size=3)), inputs)
    X = hard_rows(others.items())
    expected = model.predict([predict_model(name, base, X) for name, base in others.items()], CPU)
    content = content_of("meta_learner", model, others=others)
    assert checking.largest_difference(content, X, expected) < 5 * EPSILON  # its weights are larger than learned ones
    assert [one.name for one in onnx.load_from_string(content).graph.input] == ["features"]


def test_a_model_without_rounds_and_trees_without_splits(content_of):
    shares = np.array([0.2, 0.5, 0.3], np.float32)
    model = fitted("xgb_joint")[1]["a"][0]
    none = dataclasses.replace(model, bias=np.log(shares), stages=(dataclasses.replace(model.stages[0], rounds=0),))
    X = hard_rows([("xgb_joint", model)])
    content = content_of("xgb_joint", none)
    np.testing.assert_allclose(checking.scored(content, X), np.tile(shares, (len(X), 1)), atol=EPSILON)
    fold = world()[0]
    stiff = equity.make("fast", settings=["hist.rounds=3", "hist.min_child_weight=1e9", "training.early_stopping=0"])
    for model in fit_all("xgb_hist", fold, stiff)[1]["a"]:
        content = content_of("xgb_hist", model)
        (ensemble,) = trees_of(content)
        assert len(ensemble["nodes_treeids"]) >= 1 and not splits_of(ensemble).any()
        assert checking.largest_difference(content, X, predict_model("xgb_hist", model, X)) < EPSILON


def test_a_booster_is_read_once_however_many_labels_share_it(monkeypatch, tmp_path):
    import xgboost

    read, save_raw = [], xgboost.Booster.save_raw

    def counted(self, raw_format="ubj"):
        read.append(raw_format)
        return save_raw(self, raw_format)

    pooled = fitted("xgb_joint")[0]
    monkeypatch.setattr(xgboost.Booster, "save_raw", counted)
    contents = exported(tmp_path, "xgb_joint", pooled)
    for model, content in zip(pooled, contents, strict=True):
        (part,) = trees_of(content)
        assert part["n_targets"] == tree_model.N_OUTPUTS
        assert len(np.unique(part["nodes_treeids"])) == model.stages[0].rounds
    assert len(pooled) == 2 and read == ["json"]


# What each library makes of a value


def test_a_split_in_float64_is_rounded_down():
    for value in (0.1, -0.1, 1 / 3, 0.5, 1e300, -1e300, 2.0**-160, -(2.0**-160)):
        down = round_down(value)
        with np.errstate(over="ignore"):
            above = np.nextafter(down, np.float32(np.inf))
        assert down.dtype == np.float32 and float(down) <= value < float(above)


@both
@pytest.mark.parametrize("missing", [False, True])
def test_lightgbm_next_to_splits_to_zero_and_to_missing(missing, content_of):
    """With zeros in the rows, LightGBM splits at +-1e-35, and takes what is nearer to 0 for 0."""
    import lightgbm

    rng = np.random.default_rng(1)
    X = rng.normal(size=(900, 3)).astype(np.float32)
    X[rng.random(X.shape) < 0.4] = 0
    if missing:
        X[rng.random(X.shape) < 0.1] = np.nan
    y = np.where(X[:, 0] > 0, 2, np.where(X[:, 1] < 0, 0, 1))
    chosen = lightgbm_trees.parameters(lightgbm_trees.LightGBM(min_rows=5), 15, 1, 0)
    booster = lightgbm_trees.load(lightgbm.train(chosen, lightgbm.Dataset(X, y), 6).model_to_string().encode())
    model = hosted_model("lightgbm", booster)
    near = np.array([0, -0.0, 1e-45, 1e-36, ALMOST_ZERO, 2e-35, np.nan, np.inf], np.float32)
    near = np.concatenate([near, -near, np.nextafter(near, np.float32(1)), np.nextafter(near, np.float32(-1))])
    X = np.concatenate(
        [hard_rows([("lightgbm", model)], 3), np.stack(np.meshgrid(near, near, near[:7]), -1).reshape(-1, 3)]
    )
    content = content_of("lightgbm", model, 3)
    assert checking.largest_difference(content, X, predict_model("lightgbm", model, X)) < EPSILON
    (ensemble,) = trees_of(content)
    splits = splits_of(ensemble)
    assert (np.abs(ensemble["nodes_values"][splits]) < 2e-35).any()
    assert (ensemble["nodes_modes"][splits] == b"BRANCH_LEQ").all()


@both
@pytest.mark.parametrize("mode", ["Min", "Max", "Forbidden"])
def test_catboost_puts_missing_values_where_it_was_told(mode, content_of):
    import catboost

    rng = np.random.default_rng(2)
    X = rng.normal(size=(600, 3)).astype(np.float32)
    y = (X[:, 0] > 0.2).astype(int) + (X[:, 1] > 0)
    if mode != "Forbidden":
        X[::3, 0] = np.nan
    chosen = catboost_trees.parameters(catboost_trees.CatBoost(depth=3), 15, 1, 0) | {"nan_mode": mode, "iterations": 5}
    booster = catboost.CatBoost(chosen)
    booster.fit(catboost.Pool(X, y))
    booster = catboost_trees.load(catboost_trees._content(booster))
    model = hosted_model("catboost", booster)
    X = hard_rows([("catboost", model)], 3)
    X[:40, :2] = np.nan
    content = content_of("catboost", model, 3)
    assert checking.largest_difference(content, X, predict_model("catboost", model, X)) < EPSILON
    (ensemble,) = trees_of(content)
    of_first = (ensemble["nodes_featureids"] == 0) & splits_of(ensemble)
    at_zero = ensemble["nodes_missing_value_tracks_true"][of_first]
    assert len(at_zero) and (at_zero == (mode != "Max")).all()


# The whole job


@pytest.fixture(scope="module")
def market():
    panel = in_sectors(tiny_market(), tuple(ODD))
    return panel.replace(sector=tuple(ODD[name] for name in panel.sector))


@pytest.fixture(scope="module")
def finished(market, tmp_path_factory):
    """OUT with all families there are here, on chosen columns, in sectors of odd names."""
    families = [name for name in EIGHT if name in FAMILIES or name == "meta_learner" or name in installed()]
    out = tmp_path_factory.mktemp("export") / "ÖUT 1"
    settings = equity.make("fast", settings=[
        *QUICK, "labels.horizons=1", f"training.models={','.join(families)}", "lightgbm.rounds=4", "catboost.rounds=4",
        "ml.feature_selection_top_n=30", "split.parts=2",
    ])  # fmt: skip
    tiny.execute(market, None, settings, out, 1)
    return out


def installed() -> set[str]:
    from importlib.util import find_spec

    return {name for name in BOOSTERS if find_spec(name) is not None}


def test_all_models_of_a_run_say_what_the_run_says_of_every_bar(finished, market, tmp_path):
    loaded = load(finished)
    done = export.export(loaded, tmp_path, export.Wanted(), {})
    assert len(done.files) == 2 * 2 * len(loaded.families) and not done.failed
    assert done.largest_difference < export.TOLERANCE
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["files"].keys() == {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.onnx")}
    predictions = loaded.predict(market)
    for sector in market.groups:
        X = loaded.warm_rows(market.of_group(sector)).X
        warm = ~np.isnan(predictions.values[:, 0, 0]) & (np.array(market.sector) == sector)[market.symbol_of_row]
        assert len(X) == warm.sum() > 500
        for family in loaded.families:
            for threshold in ("2", "4"):
                path = f"trained_{threshold}pct/{sector}/1d/{family}.onnx"
                content = (tmp_path / path).read_bytes()
                assert manifest["files"][path]["sha256"] == sha256(content)
                expected = predictions.of(f"{family}_1d_{threshold}pct")[warm]
                np.testing.assert_allclose(checking.scored(content, X), expected, atol=EPSILON, err_msg=path)
                model_proto = onnx.load_from_string(content)
                about = {one.key: one.value for one in model_proto.metadata_props}
                assert (about["sector"], about["family"]) == (sector, family)
                assert about["label"] == f"label_1d_{threshold}pct" and about["run_key"] == manifest["run_key"]
                assert tuple(json.loads(about["features"])) == loaded.feature_names
                assert about["features_hash"] == loaded.features_hash and json.loads(about["classes"])[0] == "SELL"


def test_the_same_run_gives_the_same_bytes_and_what_is_not_wanted_any_more_goes(finished, tmp_path):
    loaded, all_of_them = load(finished), export.Wanted()
    first = export.export(loaded, tmp_path / "a", all_of_them, {}).files
    assert export.export(load(finished), tmp_path / "b", all_of_them, {}).files == first
    (tmp_path / "a" / "mine.onnx").write_bytes(b"the user's own")
    fewer = export.export(
        loaded,
        tmp_path / "a",
        export.Wanted([ODD["energy"]], {"horizon": [1], "threshold": [0.02]}, ["linear", "meta_learner"]),
        {},
    )
    folder = f"trained_2pct/{ODD['energy']}/1d"
    assert sorted(fewer.files) == [f"{folder}/linear.onnx", f"{folder}/meta_learner.onnx"]
    left = {p.relative_to(tmp_path / "a").as_posix() for p in (tmp_path / "a").rglob("*.onnx")}
    assert left == {*fewer.files, "mine.onnx"}


def test_a_file_that_says_something_else_is_not_left_behind(finished, tmp_path, monkeypatch, capsys):
    asked = ["export", str(finished), "--to", str(tmp_path), "--models", "xgb_hist,linear", "--thresholds", "0.02"]
    assert main.main(asked) == 0
    path = tmp_path / f"trained_2pct/{ODD['energy']}/1d/xgb_hist.onnx"
    assert path.exists() and "4 of 4 models" in capsys.readouterr().out
    predict_unaltered = XgbHist.predict

    def altered(self, models, rows):
        predictions = predict_unaltered(self, models, rows)
        predictions[::2] += 0.01
        return predictions

    monkeypatch.setattr(XgbHist, "predict", altered)
    assert main.main(asked) == 1
    printed = capsys.readouterr()
    assert "2 of 4 models" in printed.out
    assert printed.err.count("\n") == 2 and "xgb_hist.onnx differs from its model by 0.0" in printed.err
    assert not path.exists() and path.with_name("linear.onnx").exists()
    files = json.loads((tmp_path / "manifest.json").read_text())["files"]
    assert len(files) == 2 and all(name.endswith("/linear.onnx") for name in files)


def test_nan_where_the_model_has_none_is_a_difference(content_of):
    model = fitted("linear")[1]["a"][0]
    X = hard_rows([("linear", model)])
    expected = predict_model("linear", model, X)
    expected[3, 1] = np.nan
    assert checking.largest_difference(content_of("linear", model), X, expected) == np.inf


def test_the_command_checks_on_real_rows_and_prints_json(finished, market, tmp_path, capsys):
    pyarrow.parquet.write_table(market.to_arrow(), tmp_path / "bars.parquet")
    asked = ["export", str(finished), "--to", str(tmp_path / "to"), "--models", "random_forest", "--json"]
    for data, rows in ([], 0), (["--data", str(tmp_path / "bars.parquet")], 500):
        assert main.main([*asked, *data]) == 0
        files = json.loads(capsys.readouterr().out)["files"]
        of_second = [one for path, one in files.items() if ODD["technology"] in path]
        assert len(files) == 4 and len(of_second) == 2
        assert all(one["real_rows_checked"] >= rows for one in of_second)
        assert all(one["rows_checked"] == one["real_rows_checked"] + checking.CHECK_ROWS for one in files.values())
    assert main.main([*asked, "--data", SOURCE]) == 2
    assert "no row to check on" in capsys.readouterr().err  # its symbols lie in sectors that the run has no models of


def test_what_the_user_must_mend_is_one_line(finished, tmp_path, capsys, monkeypatch):
    import shutil

    (tmp_path / "file").write_text("")
    bad = shutil.copytree(finished, tmp_path / "bad")
    broken = next(bad.glob("trained_2pct/*/1d/xgb_hist.ubj"))
    broken.unlink()  # it is a link to an object of both
    broken.write_bytes(b"{" + bytes(500) + b"}")
    fine, to = str(finished), str(tmp_path / "to")
    for arguments, words in (
        ([fine, "--to", fine], "is not of an export"), ([fine, "--to", str(tmp_path / "file")], "is a file"),
        ([fine, "--to", to, "--sectors", "gold"], "--sectors gold"),
        ([fine, "--to", to, "--models", "x"], "--models x"), ([fine, "--to", to, "--horizons", "7"], "--horizons 7"),
        ([fine, "--to", to, "--thresholds", "a"], "a: expected"),
        ([fine, "--to", to, "--timeframe", "1d"], "--timeframe is for --data"),
        ([str(tmp_path / "none"), "--to", to], "no manifest.json"), ([str(bad), "--to", to], "was altered"),
    ):  # fmt: skip
        assert main.main(["export", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
    assert not (tmp_path / "to").exists() and (finished / "manifest.json").exists()
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else sys)
    assert main.main(["export", fine, "--to", to]) == 2
    assert "needs onnxruntime: pip install -e '.[onnx]'" in capsys.readouterr().err


def test_an_exports_folder_is_not_taken_for_a_runs(finished, tmp_path, capsys):
    to = tmp_path / "ONNX"
    assert main.main(["export", str(finished), "--to", str(to), "--models", "linear"]) == 0
    capsys.readouterr()
    for command in (["verify", str(to)], ["status", str(to)], ["run", "--data", SOURCE, "--quiet", "--out", str(to)]):
        assert main.main(command) == 2
        error = capsys.readouterr().err
        assert "is of an export, not of a run" in error and error.count("\n") == 1, (command, error)


def test_nothing_is_reported_home(tmp_path):
    """A folder of its own in the user's caches is where a version that reports begins."""
    program = (
        "import numpy, onnx, os\nfrom gpupipe.artifacts.onnx import checking, graphs\n"
        "h = onnx.helper\n"
        "x, y = (h.make_tensor_value_info(n, 1, [None, 3]) for n in (graphs.INPUT, graphs.OUTPUT))\n"
        "g = h.make_graph([h.make_node('Softmax', [graphs.INPUT], [graphs.OUTPUT])], 'g', [x], [y])\n"
        "m = h.make_model(g, opset_imports=[h.make_opsetid('', 17)], ir_version=8)\n"
        "predictions = checking.scored(m.SerializeToString(), numpy.zeros((1, 3), numpy.float32))\n"
        "print(predictions.shape, os.environ['ORT_DISABLE_TELEMETRY'])\n"
    )
    hidden = {"ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME"}
    home = {**{name: text for name, text in os.environ.items() if name not in hidden}, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=home, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("(1, 3) 1\n", 0), done.stderr
    folders = [str(path) for path in pathlib.Path(tmp_path).glob("**/*") if "icrosoft" in str(path)]
    assert folders == []


def test_models_still_predict_rows_as_a_panel(finished, market):
    loaded = load(finished)
    sector = market.groups[0]
    X = loaded.warm_rows(market.of_group(sector)).X[:50]
    predictions = loaded.predict_rows(sector, X, ["meta_learner"])
    assert predictions.keys() >= {("label_1d_2pct", "meta_learner"), ("label_1d_4pct", "meta_learner")}
    both_labels = predict("linear", [by["linear"] for by in loaded.by_group[sector].values()], X)
    np.testing.assert_array_equal(predictions["label_1d_2pct", "linear"], both_labels[:, 0])
