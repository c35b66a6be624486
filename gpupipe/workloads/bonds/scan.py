"""Rich and cheap bonds of a finished run, or of new quotes by its model."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from gpupipe.artifacts import summary
from gpupipe.artifacts.manifest import altered_files, read_manifest
from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import Store, unpack_arrays
from gpupipe.workloads.bonds import columns, expectations, fair_values, intervals, recipe, results, signals
from gpupipe.workloads.bonds.families import registry
from gpupipe.workloads.bonds.models import scale_of


def convention_of(out: str | os.PathLike[str]) -> str:
    """The convention of a finished run; UserError where OUT holds none of bonds."""
    return str(_manifest(out)["settings"]["bonds"]["convention"])


def summary_of(out: str | os.PathLike[str]) -> dict[str, Any]:
    """The summary of a finished run; UserError where OUT holds none of bonds."""
    _manifest(out)
    return summary.read(Store(out).out)


def of_run(out: str | os.PathLike[str]) -> Any:
    """The Arrow table of the run's own last date, see `signals.table`."""
    import pyarrow.parquet as pq

    _manifest(out)
    return pq.read_table(Store(out).out / results.SIGNALS)


def of_panel(out: str | os.PathLike[str], panel: Panel) -> Any:
    """The Arrow table of the last date of new quotes, by the run's chosen model, or by the curve fit without one.

    Raises UserError where no bond has a value on it, or the curve has other tenors than the run's and the model reads
    columns of factors.
    """
    store, convention = Store(out), convention_of(out)
    name = summary.read(store.out)["bonds"]["chosen"]
    fair = fair_values.fair_values(panel, convention)
    last = signals.latest(panel.device.to_host(panel.time_ns), np.isfinite(fair.spread))
    if not len(last):
        raise UserError("no bond has a price and a curve on the last date of the quotes")
    rows = columns.rows_of(panel, fair)
    if name is None:
        change = expectations.change_by_curve(fair_values.on_host(panel), fair, rows)
    else:
        change = np.full(panel.n_rows, np.nan, np.float32)
        change[last] = _by_model(store, name, rows, fair, last)
    kept = intervals.read(json.loads((store.out / results.INTERVALS).read_text(encoding="utf-8")))
    return results.arrow(signals.table(panel, last, fair, change, kept, convention))


def _by_model(
    store: Store, name: str, rows: columns.BondRows, fair: fair_values.FairValues, last: np.ndarray
) -> np.ndarray:  # fmt: skip
    """float32 (n_last,), percent: the change of the spread that a model of the run predicts for some rows."""
    about = json.loads((store.out / results.FOLDER / "models" / f"{name}.json").read_text(encoding="utf-8"))
    known = dict(zip(rows.names, rows.X.T, strict=True))
    if any(column not in known for column in about["columns"]):
        known |= recipe.state_columns(unpack_arrays((store.out / results.STATES).read_bytes()), rows, fair)
    files = {
        path.name.removeprefix(name): path.read_bytes()
        for path in (store.out / results.FOLDER / "models").glob(f"{name}.*")
        if path.suffix != ".json"
    }
    model = registry.load(about["kind"], files)
    X = np.stack([known[column][last] for column in about["columns"]], axis=1)
    change: np.ndarray = scale_of(fair.spread[last]) * model.predict(np.ascontiguousarray(X, np.float32))
    return change


def _manifest(out: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a finished run of bonds whose files are as they were written; UserError for any other OUT."""
    manifest = read_manifest(Store(out).out)
    if not manifest or results.SIGNALS not in manifest["files"]:
        raise UserError(f"{out} holds no finished run of bonds: run `gpupipe bonds --out {out}`")
    if altered := altered_files(Store(out).out, manifest):
        raise UserError(
            f"{out} was altered since it was written ({', '.join(altered[:3])}): the command that made it mends it"
        )
    return manifest
