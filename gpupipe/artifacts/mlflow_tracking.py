"""MLflow: what a finished run was asked, what it measured, and which data, code and files it stands for."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from gpupipe.artifacts import summary
from gpupipe.artifacts.layout import MANIFEST
from gpupipe.artifacts.manifest import read_manifest
from gpupipe.runtime import run_log
from gpupipe.runtime.errors import UserError

DEFAULT = "sqlite:///mlflow.db"  # MLflow's default, in the working directory; artifacts lie in mlruns/ beside it
EXPERIMENT = "gpupipe"
MEASURES = ("test_log_loss", "validation_log_loss")
FILES = (MANIFEST, summary.JSON, run_log.FILE)
_MOST_AT_ONCE = 100  # parameters that a server takes in one request


def require(uri: str) -> None:
    """Raise UserError, with the line that installs it, where MLflow or what it needs for this address is missing."""
    needed = ["mlflow", *(["sqlalchemy", "alembic"] if uri.startswith("sqlite:") else [])]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise UserError(f"--mlflow {uri} needs {', '.join(missing)}, not installed here: pip install -e '.[mlflow]'")
    if not uri.startswith(("sqlite:", "http:", "https:", "file:")):
        raise UserError(f"--mlflow {uri}: expected an address such as {DEFAULT}, http://127.0.0.1:5000 or file:mlruns")


def track(uri: str, out: str | os.PathLike[str], whole: dict[str, Any]) -> str:
    """Log a finished run to MLflow and return its id there. A run whose key MLflow already has is not logged again.

    Parameters are all settings; metrics are log-losses of each family, averaged over its models, and the seconds of
    each stage; tags are the run key, the hashes of data and code, and the manifest's own; the manifest, the summary and
    the log are kept as artifacts. The models are not copied: the manifest names them. UserError if MLflow refuses.
    """
    require(uri)
    if uri.startswith("file:"):  # MLflow keeps folders for those who say that they want one
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would tell its makers what of it is used
    import mlflow
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    root, manifest = pathlib.Path(out), read_manifest(out)
    assert manifest is not None  # the run is finished
    key = manifest["run_key"]
    try:
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        existing = client.get_experiment_by_name(EXPERIMENT)
        experiment = existing.experiment_id if existing else client.create_experiment(EXPERIMENT)
        if runs := client.search_runs([experiment], f"tags.`gpupipe.run_key` = '{key}' and status = 'FINISHED'"):
            return runs[0].info.run_id
        run = client.create_run(experiment, run_name=key[:12]).info
        parameters = [Param(name, text[:500]) for name, text in _flat(manifest["settings"])]
        for k in range(0, len(parameters), _MOST_AT_ONCE):
            client.log_batch(run.run_id, params=parameters[k : k + _MOST_AT_ONCE])
        tags = {"gpupipe.run_key": key, **{f"gpupipe.{name}": text for name, text in _hashes(root).items()}}
        client.log_batch(
            run.run_id, tags=[RunTag(name, text) for name, text in tags.items()],
            metrics=[Metric(name, value, run.start_time, 0) for name, value in _metrics(whole).items()],
        )  # fmt: skip
        for name in FILES:
            if (root / name).exists():
                client.log_artifact(run.run_id, str(root / name))
        client.set_terminated(run.run_id)
    except (MlflowException, OSError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--mlflow {uri}: {problem}; the run itself is finished, in {out}") from error
    return run.run_id


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _hashes(root: pathlib.Path) -> dict[str, str]:
    """Data, code and settings of the run, as its log has them, and of its manifest."""
    from gpupipe.store.content_store import sha256

    events = run_log.read(root / run_log.FILE) if (root / run_log.FILE).exists() else []
    start: dict[str, Any] = next((event for event in reversed(events) if event.get("event") == "start"), {})
    named: tuple[str, ...] = ("data", "code", "settings")
    tags = {name: str(start[name]) for name in named if name in start}
    return {**tags, "manifest": sha256((root / MANIFEST).read_bytes())}


def _metrics(whole: dict[str, Any]) -> dict[str, float]:
    measures: dict[str, float] = {f"seconds.{name}": float(value) for name, value in whole["seconds"].items()}
    for measure in MEASURES:
        values: dict[str, list[float]] = {}
        for row in whole["models"]:
            if row.get(measure) is not None:
                values.setdefault(row["model"], []).append(float(row[measure]))
        measures |= {f"{measure}.{name}": sum(some) / len(some) for name, some in values.items()}
    return measures
