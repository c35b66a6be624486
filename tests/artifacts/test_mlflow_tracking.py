"""MLflow is told of a finished run once, with its settings, measures, hashes and manifest; without MLflow, one line."""

from __future__ import annotations

import json

import pytest

from gpupipe.artifacts import mlflow_tracking
from gpupipe.cli import run
from gpupipe.runtime.errors import UserError
from tests.support.tiny import JOB

OPTIONS = [*JOB, "--models", "linear", "--quiet"]


def test_without_the_package_nothing_is_begun(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mlflow_tracking.importlib.util, "find_spec", lambda name: None)
    assert run.main([*OPTIONS, "--out", str(tmp_path / "OUT"), "--mlflow"]) == 2
    assert capsys.readouterr().err == (
        "gpupipe: --mlflow sqlite:///mlflow.db needs mlflow, sqlalchemy, alembic, not installed here: "
        "pip install -e '.[mlflow]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_none(monkeypatch):
    monkeypatch.setattr(mlflow_tracking.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="expected an address such as sqlite"):
        mlflow_tracking.require("mlruns")


@pytest.mark.filterwarnings("ignore")  # of MLflow's own making
@pytest.mark.parametrize("scheme", ["file:{}/mlruns", "sqlite:///{}/mlflow.db"])
def test_a_run_is_told_once(tmp_path, monkeypatch, scheme):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (pip install -e '.[mlflow]')")
    monkeypatch.chdir(tmp_path)
    out, uri = tmp_path / "OUT", scheme.format(tmp_path)
    for _ in range(2):  # the second has nothing to do, and nothing to tell
        assert run.main([*OPTIONS, "--out", str(out), "--mlflow", uri]) == 0
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    (told,) = client.search_runs([client.get_experiment_by_name("gpupipe").experiment_id])
    manifest = json.loads((out / "manifest.json").read_text())
    assert told.info.status == "FINISHED" and told.data.tags["gpupipe.run_key"] == manifest["run_key"]
    assert all(len(told.data.tags[f"gpupipe.{name}"]) == 64 for name in ("data", "code", "settings", "manifest"))
    assert told.data.params["training.models"] == "['linear']" and told.data.params["labels.horizons"] == "[1]"
    rows = [row for row in json.loads((out / "summary.json").read_text())["models"] if row["model"] == "linear"]
    mean = sum(row["test_log_loss"] for row in rows) / len(rows)
    assert told.data.metrics["test_log_loss.linear"] == pytest.approx(mean)
    assert {one.path for one in client.list_artifacts(told.info.run_id)} == {
        "manifest.json", "summary.json", "run.jsonl"
    }  # fmt: skip
