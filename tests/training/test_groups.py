"""The job on a tiny market: what it trains, what it skips and why, what it leaves in OUT, and how it goes on."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpupipe.estimators.boosting.xgb_joint import XgbJoint
from gpupipe.estimators.linear.softmax_linear import SoftmaxLinear
from gpupipe.pipeline.listener import Listener
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import sha256
from gpupipe.targets.classes import CLASSES
from gpupipe.training.groups import count_tasks, pools
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, cut, in_sectors, tiny_market

META = "meta_learner"
FEW = ("training.models=xgb_joint,linear,meta_learner",)


def settings_of(*more):
    return equity.make("fast", settings=[*QUICK, *more])


def job(out, *more, panel=None, jobs=1, listener=None):
    """The summary, and whether anything had to be done."""
    return tiny.execute(panel or tiny_market(), None, settings_of(*more), out, jobs, listener)


def models_in(out, sector="*"):
    """The bytes of every model, or of those of one sector."""
    paths = [path for path in out.glob(f"trained_*/{sector}/*/*") if path.suffix != ".json"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def files_in(out):
    """All files but those that the store keeps for later runs."""
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith((".gpupipe/units", ".gpupipe/objects", ".gpupipe/runs"))}


def manifest_of(out):
    return json.loads((out / "manifest.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All six families, one job: OUT and the summary."""
    out = tmp_path_factory.mktemp("whole") / "OUT"
    summary, worked = job(out)
    assert worked
    return out, summary


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Three families: OUT and the summary."""
    out = tmp_path_factory.mktemp("few") / "OUT"
    summary, worked = job(out, *FEW)
    assert worked
    return out, summary


def test_every_sector_label_and_family_has_a_model(whole):
    out, summary = whole
    assert summary["n_models"] == summary["n_models_wanted"] == 3 * 4 * 6 and summary["skipped"] == []
    models = [row for row in summary["models"] if row["kind"] == "model"]
    keys = {(row["sector"], row["horizon"], row["threshold"], row["model"]) for row in models}
    assert len(models) == len(keys) == 72
    assert keys == {(s, h, t, f) for s in SECTORS for h in (1, 3) for t in (0.02, 0.04) for f in equity.DEFAULT_MODELS}
    for row in models:
        folder = out / f"trained_{row['threshold'] * 100:g}pct" / row["sector"] / f"{row['horizon']}d"
        assert list(folder.glob(f"{row['model']}*")) and (folder / "metadata.json").exists()
        assert row["rows_train"] >= 200 and row["test_rows"] >= 50 and np.isfinite(row["test_log_loss"])


def test_the_manifest_names_every_file_as_it_is_and_nothing_else_lies_there(whole):
    out, _ = whole
    manifest = manifest_of(out)
    for name, entry in manifest["files"].items():
        content = (out / name).read_bytes()
        assert entry == {"sha256": sha256(content), "bytes": len(content)}, name
    assert files_in(out) == {*manifest["files"], "manifest.json", "run.jsonl", ".gpupipe/lock"}
    assert {"summary.json", "summary.parquet"} < set(manifest["files"])
    assert manifest["settings"] == settings_of().as_dict()


def test_summary_files_say_what_was_returned(whole):
    out, summary = whole
    assert json.loads((out / "summary.json").read_text()) == summary
    rows = pq.read_table(out / "summary.parquet").to_pylist()
    assert len(rows) == len(summary["models"]) == 3 * 4 * (6 + 5)  # and the baselines
    for row, same in zip(rows, summary["models"], strict=True):
        assert (row["sector"], row["label"], row["model"]) == (same["sector"], same["label"], same["model"])
        assert row["test_log_loss"] == same["test_log_loss"]


def test_metadata_says_what_the_models_are(whole):
    out, summary = whole
    about = json.loads((out / "trained_4pct/energy/3d/metadata.json").read_text())
    panel = in_sectors(tiny_market(), ["energy"])
    assert (about["sector"], about["horizon"], about["threshold"]) == ("energy", 3, 0.04)
    assert about["symbols"] == list(panel.symbols) and set(about["models"]) == set(equity.DEFAULT_MODELS)
    assert about["run_key"] == summary["run_key"] == manifest_of(out)["run_key"]
    for part, shares in about["class_shares"].items():
        assert abs(sum(shares.values()) - 1) < 1e-12 and about["rows"][part] > 0
        assert about["dates"][part][0] <= about["dates"][part][1]
    assert about["dates"]["train"][1] < about["dates"]["validation"][0] < about["dates"]["test"][0]
    (row,) = (
        row for row in summary["models"]
        if (row["sector"], row["label"], row["model"]) == ("energy", about["label"], META)
    )  # fmt: skip
    assert row["test_log_loss"] == about["models"][META]["metrics"]["test"]["log_loss"]


def test_any_number_of_jobs_gives_the_same_bytes(whole, tmp_path):
    out, summary = whole
    again, _ = job(tmp_path / "OUT", jobs=2)
    assert models_in(tmp_path / "OUT") == models_in(out) and again["run_key"] == summary["run_key"]
    measures = [name for name in summary["models"][0] if name.startswith(("validation_", "test_", "cutoff_"))]
    for row, same in zip(again["models"], summary["models"], strict=True):
        assert [row[name] for name in measures] == [same[name] for name in measures]


def test_the_same_run_again_does_nothing(whole):
    out, summary = whole
    before = {name: (out / name).stat().st_mtime_ns for name in files_in(out)}
    listener = Listener(stage=lambda text: pytest.fail("a finished run began again"))
    again, worked = job(out, jobs=2, listener=listener)
    assert not worked and again == summary
    assert {name: (out / name).stat().st_mtime_ns for name in files_in(out)} == before


def test_a_listener_hears_of_every_unit(tmp_path):
    heard, stages, totals = [], [], []
    job(tmp_path, *FEW, listener=Listener(totals.append, heard.append, stages.append))
    assert stages == ["features and labels", "training", "evaluation"]
    assert len(heard) == len(set(heard)) == totals[0]["units"] == count_tasks(settings_of(*FEW), 3)
    assert (totals[0]["models"], totals[0]["labels"], totals[0]["sectors"]) == (36, 4, 3)
    assert totals[0]["rows"] == tiny_market().n_rows


def test_a_family_is_the_same_whoever_stands_beside_it(whole, few, tmp_path):
    out, summary = few
    assert summary["n_models"] == summary["n_models_wanted"] == 36
    beside = models_in(whole[0])
    for name, content in models_in(out).items():
        if META not in name:  # which learns from those that are there
            assert beside[name] == content, name
    alone, _ = job(tmp_path, "training.models=linear")
    assert alone["n_models"] == alone["n_models_wanted"] == 12
    linears = {name: content for name, content in models_in(out).items() if "linear" in name}
    assert models_in(tmp_path) == linears and len(linears) == 12
    assert [v["model"] for v in alone["verdict"]] == []  # neither judged model is there


def test_alone_a_sector_is_as_if_there_were_no_other(tmp_path):
    apart, _ = job(tmp_path / "apart", *FEW, "training.pool=none")
    assert apart["n_models"] == 36 and not apart["skipped"]
    job(tmp_path / "one", *FEW, panel=in_sectors(tiny_market(), ["utilities"]))
    assert models_in(tmp_path / "one") == models_in(tmp_path / "apart", "utilities") != {}
    assert pools(settings_of("training.pool=none"), SECTORS) == [(name,) for name in SECTORS]
    assert pools(settings_of(), SECTORS) == [SECTORS]


def late(first, sector="energy"):
    """The tiny market, one sector of which begins at bar `first`."""
    panel = tiny_market()
    return cut(panel, lambda k, bars: (bars >= first) | (panel.sector[k] != sector))


def test_a_sector_with_too_few_rows_is_skipped_and_the_rest_is_trained(tmp_path):
    summary, _ = job(tmp_path / "late", *FEW, panel=late(150))
    (skip,) = summary["skipped"]
    assert (skip["sector"], skip["label"]) == ("energy", "")
    assert "training.min_rows = 50 requires 200, 50 and 50" in skip["reason"]
    assert (summary["n_models"], summary["n_models_wanted"]) == (24, 36)
    assert {row["sector"] for row in summary["models"]} == {"technology", "utilities"}
    job(tmp_path / "two", *FEW, panel=in_sectors(tiny_market(), ["technology", "utilities"]))
    assert models_in(tmp_path / "late") == models_in(tmp_path / "two") != {}


def test_a_sector_that_begins_late_is_trained_on_what_it_has(tmp_path):
    summary, _ = job(tmp_path, *FEW, panel=late(80))
    assert summary["n_models"] == 36 and not summary["skipped"]
    rows = {row["sector"]: row["rows_train"] for row in summary["models"]}
    assert 200 <= rows["energy"] < rows["technology"] == rows["utilities"]


def test_no_sector_with_enough_rows_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"no group has enough rows to train: energy: .*; technology: .*; utilities"):
        job(tmp_path / "OUT", "training.min_rows=2000")
    assert list(tmp_path.iterdir()) == []


def test_a_label_without_positives_is_skipped_and_counted(tmp_path):
    summary, _ = job(tmp_path, *FEW, "labels.thresholds=0.02,0.9")
    assert {(s["sector"], s["label"]) for s in summary["skipped"]} == {
        (sector, f"label_{h}d_90pct") for sector in SECTORS for h in (1, 3)
    }
    for skip in summary["skipped"]:
        assert skip["reason"].startswith(f"all sectors together: 0 {CLASSES[2]} and 0 {CLASSES[0]} rows to train on; ")
        assert "training.min_positives = 20" in skip["reason"]
    families = len(settings_of(*FEW).training.models)
    assert summary["n_models"] + len(summary["skipped"]) * families == summary["n_models_wanted"] == 36
    assert not list(tmp_path.glob("trained_90pct"))
    folders = {f"trained_2pct/{sector}/{h}d" for sector in SECTORS for h in (1, 3)}
    assert {name.rpartition("/")[0] for name in models_in(tmp_path)} == folders


def test_alone_a_sector_may_lack_a_label_that_others_have(tmp_path):
    """energy's bars are made calm, so that none of them moves 4 % in three bars."""
    panel = tiny_market()
    calm = np.array([name == "energy" for name in panel.sector])[panel.symbol_of_row]
    prices = {}
    for name in ("open", "high", "low", "close"):
        price = getattr(panel, name)
        prices[name] = np.where(calm, 100 * (price / 100) ** 0.1, price).astype(np.float32)
    panel = panel.replace(**prices)
    summary, _ = job(tmp_path / "apart", *FEW, "training.pool=none", "labels.thresholds=0.04", panel=panel)
    assert {(s["sector"], s["label"]) for s in summary["skipped"]} == {("energy", f"label_{h}d_4pct") for h in (1, 3)}
    assert all(s["reason"].startswith("energy: ") for s in summary["skipped"])
    assert (summary["n_models"], summary["n_models_wanted"]) == (12, 18)
    pooled, _ = job(tmp_path / "pooled", *FEW, "labels.thresholds=0.04", panel=panel)
    assert pooled["n_models"] == 18 and not pooled["skipped"]  # it learns from the others what a rare event is like


def test_no_label_with_enough_positives_is_an_error_that_leaves_nothing(tmp_path):
    reason = f"all sectors together: 0 {CLASSES[2]} and 0 {CLASSES[0]}"
    with pytest.raises(UserError, match=f"no label can be trained: {reason}"):
        job(tmp_path / "OUT", *FEW, "labels.thresholds=0.8,0.9")
    assert list(tmp_path.iterdir()) == []


def test_other_settings_retrain_and_remove_what_they_do_not_replace(tmp_path):
    first, _ = job(tmp_path, "training.models=linear,xgb_joint")
    old = models_in(tmp_path)
    (tmp_path / "notes.txt").write_text("the user's own")
    (tmp_path / "trained_2pct" / "energy" / "1d" / "plot.png").write_bytes(b"the user's own")
    second, worked = job(tmp_path, "training.models=linear", "labels.horizons=1", "linear.l2=30.0")
    assert worked and second["run_key"] != first["run_key"]
    new = models_in(tmp_path)
    assert new.pop("trained_2pct/energy/1d/plot.png") == b"the user's own"
    expected = {f"trained_{t}pct/{sector}/1d/linear.npz" for t in (2, 4) for sector in SECTORS}
    assert set(new) == expected and all(old[name] != content for name, content in new.items())
    assert not list(tmp_path.glob("trained_*/*/3d"))
    mine = {"notes.txt", "trained_2pct/energy/1d/plot.png"}
    assert files_in(tmp_path) - mine == {*manifest_of(tmp_path)["files"], "manifest.json", "run.jsonl", ".gpupipe/lock"}


def test_an_altered_file_is_made_again(few, tmp_path):
    job(tmp_path, *FEW)
    (tmp_path / "trained_2pct/energy/1d/linear.npz").write_bytes(b"not a model")
    (tmp_path / "trained_2pct/energy/3d/linear.npz").unlink()
    _, worked = job(tmp_path, *FEW)
    assert worked and models_in(tmp_path) == models_in(few[0])


def break_once(monkeypatch, estimator, method, at):
    """Make the call number `at` of an estimator's method fail, once; returns the list of its calls."""
    calls, function = [], getattr(estimator, method)

    def sometimes(self, training_set, *arguments, **named):
        calls.append((training_set.name, arguments[0] if isinstance(arguments[0], str) else "pool"))
        if len(calls) == at:
            raise RuntimeError("the lamp fell on the keyboard")
        return function(self, training_set, *arguments, **named)

    monkeypatch.setattr(estimator, method, sometimes)
    return calls


def test_a_broken_run_goes_on_with_what_it_had_finished(few, tmp_path, monkeypatch):
    sectors_of_linear = break_once(monkeypatch, SoftmaxLinear, "fit_group", at=5)  # in the first out-of-fold round
    pools_of_joint = break_once(monkeypatch, XgbJoint, "fit_pool", at=0)
    with pytest.raises(RuntimeError, match="lamp"):
        job(tmp_path, *FEW, jobs=1)
    assert not (tmp_path / "manifest.json").exists() and models_in(tmp_path) == {}
    records = [json.loads(path.read_text()) for path in (tmp_path / ".gpupipe" / "units").iterdir()]
    done = sum("models" in record for record in records)
    # Of the final fold 2 families, pooled and 3 sectors; then joint's pool, and of linear the pool and one sector; of
    # joint's sectors those that were expected to take longer.
    assert 8 + 3 <= done <= 8 + 3 + 3 and pools_of_joint == [("final", "pool"), ("part1", "pool")]
    assert [fold for fold, _ in sectors_of_linear] == ["final"] * 3 + ["part1"] * 2
    (_, finished), (_, broken) = sectors_of_linear[3:]
    heard = []
    summary, worked = job(tmp_path, *FEW, listener=Listener(advanced=heard.append))
    assert worked and summary["n_models"] == 36
    assert pools_of_joint[2:] == [("part2", "pool"), ("part3", "pool")]
    assert {sector for fold, sector in sectors_of_linear[5:] if fold == "part1"} == {*SECTORS} - {finished} != {broken}
    assert len(sectors_of_linear) == 5 + 2 + 2 * 3
    assert len(heard) == count_tasks(settings_of(*FEW), 3)  # what is taken from the store is heard of, too
    assert models_in(tmp_path) == models_in(few[0])
    assert files_in(tmp_path) == {*manifest_of(tmp_path)["files"], "manifest.json", "run.jsonl", ".gpupipe/lock"}


def test_what_a_broken_run_left_is_made_again_when_altered(tmp_path, monkeypatch, caplog):
    break_once(monkeypatch, SoftmaxLinear, "fit_group", at=2)
    with pytest.raises(RuntimeError, match="lamp"):
        job(tmp_path / "OUT", "training.models=linear")
    altered = list((tmp_path / "OUT" / ".gpupipe" / "objects").iterdir())
    for path in altered:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    again, _ = job(tmp_path / "OUT", "training.models=linear")
    assert "linear/pool was altered or lost" in caplog.text and again["units"]["why"]["altered"] >= 1 <= len(altered)
    job(tmp_path / "other", "training.models=linear")
    assert models_in(tmp_path / "OUT") == models_in(tmp_path / "other")


def test_a_broken_run_of_other_settings_is_no_help_and_no_harm(few, tmp_path, monkeypatch):
    break_once(monkeypatch, SoftmaxLinear, "fit_group", at=2)
    with pytest.raises(RuntimeError, match="lamp"):
        job(tmp_path, *FEW, "seed=7")
    job(tmp_path, *FEW)
    assert models_in(tmp_path) == models_in(few[0])
