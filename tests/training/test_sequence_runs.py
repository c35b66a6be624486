"""Runs with the family sequence in every surrounding: alone, on workers, within limits, tuned, on chosen columns."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest

from gpupipe.artifacts.layout import model_files
from gpupipe.artifacts.load import load
from gpupipe.cli import main
from gpupipe.config import ConfigError
from gpupipe.dataset.lookback import Lookback
from gpupipe.estimators import registry
from gpupipe.runtime.device import pick
from gpupipe.runtime.errors import UserError
from gpupipe.serving.scan import scan
from gpupipe.store.content_store import StoreError, sha256
from gpupipe.training.memory_estimate import ladder
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.dask_warnings import OF_DASK
from tests.support.tiny import QUICK, SECTORS, SOURCE, listen_to_training, tiny_market
from tests.training.test_sealed_test_unseen import for_use, with_another_future

pytest.importorskip("torch", reason="the family sequence trains with Torch")

SMALL = (
    *QUICK, "sequence.network=fast", "sequence.length=12", "sequence.epochs=2", "sequence.step_rows=256",
    "labels.horizons=1", "labels.thresholds=0.02", "split.parts=2",
)  # fmt: skip
OPTIONS = [
    "--data", SOURCE, "--sectors", ",".join(SECTORS), "--preset", "fast", "--jobs", "2", "--quiet",
    *(f"--set={setting}" for setting in SMALL),
]  # fmt: skip


def run(out, *more, models="linear,sequence,meta_learner", panel=None, **options):
    chosen = equity.make("fast", settings=[*SMALL, f"training.models={models}", *more])
    tiny.execute(panel or tiny_market(), None, chosen, out, options.pop("jobs", 2), **options)
    return load(out)


def files_of(out):
    """Bytes of every model."""
    names = model_files(json.loads((out / "manifest.json").read_text())["files"])
    return {name: (out / name).read_bytes() for name in names if not name.endswith("metadata.json")}


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """The models of a run with enough memory, in one process."""
    out = tmp_path_factory.mktemp("usual") / "OUT"
    run(out)
    return files_of(out)


def test_it_is_trained_alone(tmp_path):
    with pytest.MonkeyPatch.context() as patched:
        by_sector = listen_to_training(patched)
        models = run(tmp_path, models="sequence")
    assert set(models.families) == {"sequence"} and models.lookback == Lookback(11)
    assert not list(tmp_path.glob("trained_*/*/*/linear*"))
    predictions = models.predict(tiny_market())
    for sector, (fitted, split) in by_sector.items():
        rows = np.flatnonzero(np.array(tiny_market().sector)[tiny_market().symbol_of_row] == sector)
        of_panel = predictions.of("sequence_1d_2pct")[rows[split.test]]
        assert np.array_equal(of_panel, fitted.test["sequence"][:, 0])
    assert len(scan(models, tiny_market(), "sequence").signals) == tiny_market().n_symbols


def test_every_sector_alone(tmp_path):
    """Without a pool each sector has a network of its own."""
    models = run(tmp_path, "training.pool=none", models="sequence")
    networks = {id(labels["label_1d_2pct"]["sequence"].network) for labels in models.by_group.values()}
    assert len(networks) == len(SECTORS)
    assert all(labels["label_1d_2pct"]["sequence"].scope == "sector" for labels in models.by_group.values())


def test_a_memory_plan_changes_no_byte(usual, tmp_path):
    """The plans that gather rows late or keep them in files: the windows come from the matrix in each."""
    panel = tiny_market()
    chosen = equity.make("fast", settings=[*SMALL, "training.models=linear,sequence,meta_learner"])
    estimates = ladder(equity.EQUITY, panel, chosen, 2)
    for estimate in estimates[1:]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(equity.EQUITY.__class__, "memory_plan", lambda *a, plan=estimate.plan: (plan, "a test"))
            out = tmp_path / estimate.plan.name.replace(" ", "_")
            run(out)
        assert files_of(out) == usual, estimate.plan.name


def test_rows_that_nobody_reads_are_not_counted_in_the_memory_estimate(monkeypatch):
    panel, chosen = tiny_market(), equity.make("fast", settings=[*SMALL, "training.models=sequence"])
    n_features = 89

    def first():
        return ladder(equity.EQUITY, panel, chosen, 1)[0].host

    windows_alone = first()
    monkeypatch.setattr(registry, "reads_rows", lambda settings: True)
    n_rows = (first() - windows_alone) / (4 * n_features)
    assert 0.5 * panel.n_rows < n_rows < panel.n_rows


def test_limits_that_nothing_meets_are_refused_in_a_line(tmp_path, capsys):
    assert main.main(["run", *OPTIONS, "--models", "sequence", "--memory", "100MB", "--out", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "--memory" in line


def test_a_spread_run_is_refused_in_a_line(tmp_path, capsys):
    options = ["run", *OPTIONS, "--models", "linear,sequence", "--workers", "2", "--spread", "--out", str(tmp_path)]
    assert main.main(options) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "sequence cannot be fitted by several workers together" in line
    with pytest.raises(ConfigError, match=r"training\.pool=none"):
        registry.check_models(equity.make("fast", settings=["training.models=sequence", "training.spread=2"]))


@pytest.mark.filterwarnings(*OF_DASK)
def test_workers_of_a_cluster_train_the_same_bytes(usual, tmp_path):
    pytest.importorskip("distributed", reason="a cluster needs Dask")
    from gpupipe.training.distributed.cluster import cluster

    with cluster(pick("cpu"), workers=2, jobs=2) as workers:
        run(tmp_path, workers=workers, jobs=None)
    assert files_of(tmp_path) == usual


def tune(out, models, family):
    words = [*OPTIONS, f"--set=training.models={models}", "--family", family, "--trials", "1", "--out", str(out)]
    return main.main(["tune", *words])


@pytest.mark.parametrize("models", ["linear,sequence", "sequence"])
def test_settings_of_others_are_tuned_beside_it(tmp_path, capsys, models):
    pytest.importorskip("optuna", reason="tuning needs Optuna")
    assert tune(tmp_path, models, "linear") == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "tuning.json").read_text())
    assert found["studies"] and (tmp_path / "tuned.toml").exists()


def test_it_is_not_tuned_itself_and_says_so(tmp_path, capsys):
    pytest.importorskip("optuna", reason="tuning needs Optuna")
    assert tune(tmp_path, "linear,sequence", "sequence") == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "sequence" in line


def test_chosen_columns_and_a_longer_lookback(tmp_path):
    """Windows of selected columns, among rows that have more rows before them than a window needs."""
    models = run(tmp_path / "OUT", "ml.feature_selection_top_n=20", "split.lookback_rows=20")
    assert models.lookback == Lookback(20)
    model = models.by_group["energy"]["label_1d_2pct"]["sequence"]
    assert len(model.columns) <= 20 and model.model.network.scaler.n_columns == len(model.columns)
    whole = models.predict(tiny_market())
    signals = scan(models, tiny_market(), "sequence").signals
    for signal in signals:
        at = int(tiny_market().offsets[tiny_market().symbols.index(signal.symbol) + 1]) - 1
        assert [signal.p_sell, signal.p_hold, signal.p_buy] == whole.of("sequence_1d_2pct")[at].tolist()
    pytest.importorskip("onnx", reason="an export writes with onnx")
    from gpupipe.artifacts.onnx import export

    real = {group: models.inputs(models.warm_rows(tiny_market().of_group(group)))[-20:] for group in models.by_group}
    exported = export.export(models, tmp_path / "onnx", export.Wanted(), real)
    assert exported.failed == {} and len(exported.files) == 3 * 3


def test_weights_of_rows_and_classes(tmp_path):
    """Rows by uniqueness, classes balanced: probabilities are those of the rows as they are."""
    with pytest.MonkeyPatch.context() as patched:
        by_sector = listen_to_training(patched)
        run(
            tmp_path, "training.class_weight=balanced", "training.sample_weight=uniqueness", "sequence.epochs=6",
            "labels.horizons=3", models="linear,sequence",
        )  # fmt: skip
    for sector, (fitted, split) in by_sector.items():
        shares = fitted.validation["linear"][:, 0].mean(axis=0)
        np.testing.assert_allclose(fitted.validation["sequence"][:, 0].mean(axis=0), shares, atol=0.05, err_msg=sector)
        assert len(split.validation) > 200


def test_labels_that_nobody_can_learn_are_left_out(tmp_path):
    models = run(tmp_path, "labels.thresholds=0.02,0.9", models="sequence")
    assert {label for labels in models.by_group.values() for label in labels} == {"label_1d_2pct"}


def test_too_few_bars_for_a_window_is_one_line(tmp_path, capsys):
    assert (
        main.main(["run", *OPTIONS, "--models", "sequence", "--set=sequence.length=200", "--out", str(tmp_path)]) == 2
    )
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "window" in line


@pytest.mark.parametrize("setting", ["sequence.network=fastest", "sequence.length=1", "sequence.precision=int4"])
def test_settings_that_cannot_be_used_are_one_line(setting, tmp_path, capsys):
    assert main.main(["run", *OPTIONS, "--models", "sequence", f"--set={setting}", "--out", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and setting.split("=")[0].split(".")[1] in line


def test_other_bars_from_the_sealed_test_on_change_no_model(tmp_path):
    """Windows of rows before the sealed test hold no bar of it."""
    panel, chosen = tiny_market(), equity.make("fast", settings=[*SMALL, "training.models=linear,sequence"])
    first = tiny.execute(panel, None, chosen, tmp_path / "a", 1)[0]
    begin = np.datetime64(first["split"]["test_from"], "ns").astype(np.int64)
    tiny.execute(with_another_future(panel, begin), None, chosen, tmp_path / "b", 2)
    assert for_use(tmp_path / "a") == for_use(tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.filterwarnings(*OF_DASK)
def test_sectors_that_are_spread_alone_have_the_networks_of_one_process(tmp_path):
    pytest.importorskip("distributed", reason="a cluster needs Dask")
    from gpupipe.training.distributed.cluster import cluster

    alone = ("training.pool=none",)
    run(tmp_path / "one", *alone, models="linear,sequence", jobs=1)
    with cluster(pick("cpu"), workers=2, jobs=2) as workers:
        run(tmp_path / "spread", *alone, "training.spread=2", models="linear,sequence", workers=workers, jobs=None)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "spread")


def test_a_damaged_network_is_one_line(tmp_path):
    run(tmp_path, models="sequence")
    (path, *_) = sorted(tmp_path.glob("trained_*/*/*/sequence.safetensors"))
    content = path.read_bytes()
    path.unlink()  # it is a link
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"sequence\.safetensors is gone or was altered"):
        load(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"][path.relative_to(tmp_path).as_posix()]["sha256"] = sha256(path.read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="cannot be read as a model of sequence"):
        load(tmp_path)


def test_each_setting_of_a_network_changes_its_keys_and_the_length_those_of_all(tmp_path):
    """Windows decide which rows all families have; all other settings concern the network alone."""
    run(tmp_path, models="linear,sequence")
    others = {"network": "legacy", "precision": "fp32", "scaling": "minmax", "max_gap_bars": 4}
    values = dataclasses.asdict(equity.make("fast", settings=SMALL).sequence)
    for name, value in values.items():
        if name == "return_weight":  # equity has no such column: a run of it is refused
            continue
        changed = others[name] if name in others else value + 1 if isinstance(value, int) else value * 0.5
        asked = tiny.survey(
            tiny_market(),
            equity.make("fast", settings=[*SMALL, "training.models=linear,sequence", f"sequence.{name}={changed}"]),
            tmp_path,
        )
        states = {
            family: {state for unit, state in asked.states.items() if unit.split("/")[2] == family}
            for family in ("linear", "sequence")
        }
        assert "done" not in states["sequence"], name
        # No gap of this market is longer than 4 bars.
        assert ("done" not in states["linear"]) if name == "length" else (states["linear"] == {"done"}), name


def test_a_run_is_not_loaded_without_torch_and_the_line_installs_it(tmp_path, monkeypatch):
    run(tmp_path, models="sequence")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"^the model family sequence needs .*pip install -e '\.\[torch"):
        load(tmp_path)
