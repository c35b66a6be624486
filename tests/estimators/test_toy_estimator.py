"""A new estimator is one file and one line of the registry: all that a job does with models works for it."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from gpupipe import load
from gpupipe.cli import main
from gpupipe.config import ConfigError
from gpupipe.estimators import registry
from gpupipe.estimators.contract import Estimator
from gpupipe.pipeline import upkeep
from gpupipe.serving.scan import scan
from gpupipe.workloads import equity
from tests.support import fitting, tiny
from tests.support.fitting import world
from tests.support.tiny import JOB, QUICK, SECTORS, tiny_market
from tests.support.toy_estimator import PLACE, SignShares

MODELS = ("toy_signs", "linear", "meta_learner")


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The one line that registers the estimator."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(registry.ESTIMATORS, "toy_signs", PLACE)
        yield


def run(out, *settings):
    """The summary, and whether anything had to be done."""
    models = f"training.models={','.join(MODELS)}"
    chosen = equity.make("fast", settings=[*QUICK, models, "labels.thresholds=0.02", *settings])
    return tiny.execute(tiny_market(), None, chosen, out, 1)


@pytest.fixture(scope="module")
def finished(registered, tmp_path_factory):
    """(OUT, summary, the trained models and the split of each sector)."""
    out = tmp_path_factory.mktemp("finished") / "OUT"
    with pytest.MonkeyPatch.context() as patched:
        trained = tiny.listen_to_training(patched)
        summary, worked = run(out)
    assert worked
    return out, summary, trained


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "OUT")


def models_in(out, name="*"):
    paths = [path for path in out.glob(f"trained_*/*/*/{name}") if path.name != "metadata.json"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def no_fit(monkeypatch):
    """From here on the toy cannot be fitted."""

    def fail(*_):
        pytest.fail("it was fitted again")

    monkeypatch.setattr(SignShares, "fit_pool", fail)
    monkeypatch.setattr(SignShares, "fit_group", fail)


def test_it_is_published_in_every_sector_and_horizon(finished):
    out, summary, _ = finished
    assert summary["n_models"] == summary["n_models_wanted"] == 3 * 2 * 3 and not summary["skipped"]
    paths = {f"trained_2pct/{sector}/{h}d/toy_signs.signs.json" for sector in SECTORS for h in (1, 3)}
    assert set(models_in(out, "toy_signs*")) == paths < set(json.loads((out / "manifest.json").read_text())["files"])
    metadata = json.loads((out / "trained_2pct/energy/3d/metadata.json").read_text())
    assert set(metadata["models"]) == set(MODELS) and metadata["models"]["toy_signs"]["kind"] == "toy_signs"
    assert metadata["settings"]["toy_signs"] == {"column": 0, "pseudo_rows": 100.0}
    assert metadata["models"]["meta_learner"]["families"] == ["toy_signs", "linear"]


def test_the_summary_names_it(finished):
    rows = [row for row in finished[1]["models"] if row["model"] == "toy_signs"]
    assert (
        len(rows) == 6 and {row["kind"] for row in rows} == {"model"} and {row["scope"] for row in rows} == {"sector"}
    )
    assert all(np.isfinite(row["test_log_loss"]) and row["test_rows"] >= 50 for row in rows)
    assert {average["model"] for average in finished[1]["averages"]} > set(MODELS)
    assert "toy_signs" not in {judged["model"] for judged in finished[1]["verdict"]}  # its class does not ask for it


def test_loaded_models_predict_what_the_job_predicted(finished):
    out, _, trained = finished
    panel = tiny_market()
    predictions = load(out).predict(panel)
    sector_of_row = np.array(panel.sector)[panel.symbol_of_row]
    assert set(trained) == set(SECTORS)
    for sector, (models, split) in trained.items():
        rows = np.flatnonzero(sector_of_row == sector)
        for part, at in (("validation", split.validation), ("test", split.test)):
            for name, reported in getattr(models, part).items():
                for k, label in enumerate(models.labels):
                    loaded = predictions.of(f"{name}{label.removeprefix('label')}")[rows[at]]
                    np.testing.assert_array_equal(loaded, reported[:, k], err_msg=f"{sector} {name} {label}")


def test_its_models_are_the_shares_by_sign(finished):
    """Counted again from the rows of the training part, by column and class."""
    _, _, trained = finished
    panel, settings = tiny_market(), equity.make("fast", settings=[*QUICK, "labels.thresholds=0.02"])
    prepared = tiny.prepare(panel, settings)
    pooled = np.full((2, 3, 3), 0.5)
    counts = {}
    for sector, (_, split) in trained.items():
        dataset = prepared.datasets[sector]
        cell = np.where(np.isnan(dataset.X[split.train, 0]), 2, dataset.X[split.train, 0] >= 0)
        counts[sector] = np.zeros((2, 3, 3))
        for k in range(2):
            np.add.at(counts[sector][k], (cell, dataset.y[split.train, k]), 1)
        pooled += counts[sector]
    for sector, (models, _) in trained.items():
        for k, model in enumerate(models.models["toy_signs"]):
            added = counts[sector][k] + 100 * pooled[k] / pooled[k].sum(axis=1, keepdims=True)
            np.testing.assert_allclose(model.shares, added / added.sum(axis=1, keepdims=True))


def test_a_finished_run_is_left_and_a_broken_one_resumes_without_a_fit(out, finished, monkeypatch):
    before = models_in(out)
    no_fit(monkeypatch)
    again, worked = run(out)
    assert not worked and again == finished[1]
    (out / "manifest.json").unlink()
    _, worked = run(out)
    assert worked and models_in(out) == before


def test_only_its_own_settings_fit_it_again(out, finished, monkeypatch):
    changed, worked = run(out, "toy_signs.pseudo_rows=1.0")
    assert worked and "toy_signs.pseudo_rows" in changed["units"]["why"]
    (begun,) = {unit["run"] for unit in tiny.units_of(out)} - {unit["run"] for unit in tiny.units_of(finished[0])}
    reused = {(unit["stage"], unit["reused"]) for unit in tiny.units_of(out) if unit["run"] == begun}
    assert {("toy_signs", False), ("linear", True)} < reused
    assert not reused & {("toy_signs", True), ("linear", False)}
    changed_files, files = (models_in(folder, "toy_signs*") for folder in (out, finished[0]))
    assert changed_files.keys() == files.keys() and all(changed_files[name] != files[name] for name in files)
    no_fit(monkeypatch)
    _, worked = run(out, "toy_signs.pseudo_rows=1.0", "linear.l2=30.0")
    assert worked and models_in(out, "linear*") != models_in(finished[0], "linear*")


def test_an_unknown_setting_of_its_section_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown configuration key 'toy_signs.pseudo_row'.*toy_signs.pseudo_rows"):
        equity.make(settings=["toy_signs.pseudo_row=2"])
    with pytest.raises(ConfigError, match=r"toy_signs.pseudo_rows = -1.0: expected 0 or more"):
        equity.make(settings=["toy_signs.pseudo_rows=-1.0"])
    with pytest.raises(ConfigError, match="unknown model family 'toy_sign'; did you mean 'toy_signs'"):
        equity.make(settings=["training.models=toy_sign"])
    assert equity.make("quality").toy_signs.pseudo_rows == 1000.0


def test_a_setting_that_its_cache_keys_do_not_hold_is_an_error():
    readable = registry.readable(equity.make("fast"), "toy_signs")
    assert readable.toy_signs.column == 0
    for name in ("linear", "early_stopping"):
        with pytest.raises(AttributeError, match=f"toy_signs reads the setting '{name}', which is no part"):
            getattr(readable, name)


def test_status_verify_and_scan_know_it(out):
    status = upkeep.status(out)
    assert status.finished and {name for name in status.stages if "toy_signs" in name} == {
        "toy_signs final", "toy_signs part1", "toy_signs part2", "toy_signs part3",
    }  # fmt: skip
    assert upkeep.verify(out).wrong == {}
    scanned = scan(load(out), tiny_market(), "toy_signs")
    assert {signal.model for signal in scanned.signals} == {"toy_signs"} and len(scanned.signals) == 2 * 30
    path = next(out.glob("trained_2pct/*/1d/toy_signs.signs.json"))
    path.unlink()  # it may be a link to the kept result
    path.write_bytes(b"[]")
    assert set(upkeep.verify(out).wrong) == {path.relative_to(out).as_posix()}
    _, worked = run(out)
    assert worked and upkeep.verify(out).wrong == {}


def test_the_report_is_a_page_that_shows_it(finished):
    pytest.importorskip("altair", reason="the report's charts need altair")
    from gpupipe import report

    page = re.sub(r"<script>.*?</script>", "", report.write(finished[0]).read_text(), flags=re.DOTALL)
    assert "toy_signs" in page and "NaN" not in page and '"wedge"' in page  # in the tables, and as its class draws it


def test_the_command_line_shows_it_under_its_short_name(tmp_path, capsys):
    out = tmp_path / "OUT"
    asked = ["run", *JOB, "--models", "toy_signs,linear", "--out", str(out), "--jobs", "1"]
    assert main.main([*asked, "--set=toy_signs.column=1"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\blinear +signs *\n", printed)  # headings of a table, in the order of the registry
    assert json.loads((out / "summary.json").read_text())["settings"]["toy_signs"]["column"] == 1
    assert main.main([*asked, "--set=toy_signs.colum=1"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'toy_signs.column'" in error and error.count("\n") == 1


def test_an_export_says_that_it_has_no_onnx_form(finished, tmp_path, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    asked = ["export", str(finished[0]), "--to", str(tmp_path / "onnx")]
    for models, n_files in (("toy_signs", 0), ("linear", 6)):
        assert main.main([*asked, "--models", models]) == (0 if n_files else 2)
        printed = capsys.readouterr()
        assert ("toy_signs has no ONNX form" in printed.err) == (not n_files)
        assert len(list((tmp_path / "onnx").rglob("*.onnx"))) == n_files


@pytest.mark.parametrize("option", ["training.pool=none", "ml.feature_selection_top_n=5", "split.walk_forward=2"])
def test_options_of_training_work_with_it(option, tmp_path):
    summary, _ = run(tmp_path / "OUT", option, "training.min_rows=20", "split.parts=2")
    assert summary["n_models"] == 18
    predictions = load(tmp_path / "OUT").predict(tiny_market(), ["toy_signs"])
    assert len(predictions.names) == 2 and np.isfinite(predictions.values).any()


def test_it_is_complete_without_the_job():
    training_set, tests, _ = world()
    settings = equity.make("fast", settings=["toy_signs.pseudo_rows=0.0"])
    _, by_sector = fitting.fit_all("toy_signs", training_set, settings)
    for sector, rows in tests.items():
        predictions = fitting.predict("toy_signs", by_sector[sector], rows.X)
        assert predictions.shape == (rows.n, 2, 3) and predictions.dtype == np.float32
        prior = np.broadcast_to(training_set.shares([sector]), predictions.shape)
        assert (fitting.log_loss(predictions, rows.y) < 0.97 * fitting.log_loss(prior, rows.y)).all()
    assert issubclass(SignShares, Estimator) and not SignShares.__abstractmethods__


def test_its_stages_are_in_the_log(finished):
    units = [unit["unit"] for unit in tiny.units_of(finished[0]) if unit["stage"] == "toy_signs"]
    assert len(units) == 4 * (1 + len(SECTORS)) and all("/toy_signs/" in name for name in units)
