"""The files of a finished run for those who serve its networks: ONNX, int8 weights, and a folder for each version."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.artifacts.layout import MANIFEST
from gpupipe.artifacts.load import Models
from gpupipe.artifacts.manifest import entry_of
from gpupipe.artifacts.onnx import export
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.data.report import counted
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.runtime.device import pick
from gpupipe.store.content_store import FORMAT, dump_json, write_atomic
from gpupipe.targets.target import folder_name
from gpupipe.workloads.sequence import recipe
from gpupipe.workloads.sequence.settings import SECTION as NETWORK

ONNX = "onnx"  # the folder of OUT with ONNX files
REAL_WINDOWS = 500  # of each symbol, spread over its time, on which files are checked


@dataclass(frozen=True)
class OnnxFiles:
    """The ONNX files of a run.

    contents: by path below OUT/onnx.  sentences: for people.  failed: files that were not written, because they differ
    from their model.

    >>> OnnxFiles({"direction/BTC/1d/sequence.onnx": b""}).failed
    ()
    """

    contents: Mapping[str, bytes] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def write_onnx(models: Models, panel: Panel, settings: Config, quantize: bool) -> OnnxFiles:
    """Export every model to OUT/onnx, checked on windows of the panel; with `quantize` networks with int8 weights too.

    panel: the run's, with its columns from outside.
    What int8 weights cost is measured on the rows of the sealed test whose label is known, and is in the manifest.
    UserError where onnx or onnxruntime is missing.
    """
    export.require()
    into, panel = models.out / ONNX, models.grouped(panel.to(pick("cpu")))
    rows = {group: models.warm_rows(panel.of_group(group)) for group in models.known_groups(panel)}
    real = {}
    for group, warm in rows.items():
        spread = np.unique(np.linspace(0, warm.n - 1, min(REAL_WINDOWS, warm.n)).astype(int))
        real[group] = models.inputs(warm.take(spread))
    exported = export.export(models, into, export.Wanted(), real)
    size = sum(entry["bytes"] for entry in exported.files.values())
    sentences = [
        f"ONNX: {counted(len(exported.files), 'file')} in {into}, {size / 2**20:.1f} MiB; onnxruntime predicts what "
        f"the models predict, to {exported.largest_difference:.1e}, on real and made-up windows."
    ]
    sentences += [
        f"{path} differs from its model by {difference:.2g} (at most {export.TOLERANCE:g} is allowed), and was not "
        "written."
        for path, difference in exported.failed.items()
    ]
    paths = list(exported.files)
    if quantize:
        added, told = _write_int8(models, panel, settings, rows, into)
        paths, sentences = paths + added, sentences + told
    contents = {path: (into / path).read_bytes() for path in paths}
    return OnnxFiles(contents, tuple(sentences), tuple(exported.failed))


def _write_int8(
    models: Models, panel: Panel, settings: Config, rows: Mapping[str, FeatureRows], into: pathlib.Path
) -> tuple[list[str], list[str]]:
    """Write NAME_int8.onnx beside the file of each network; their paths, and sentences on what they cost."""
    from gpupipe.estimators.torch import quantize

    manifest = json.loads((into / MANIFEST).read_bytes())
    added: dict[str, dict[str, Any]] = {}
    sentences = []
    for group, warm in rows.items():
        tested, y = _sealed_test(models, panel, settings, group, warm)
        for label in (label for label in models.by_group[group] if NETWORK in models.by_group[group][label]):
            column = models.target.names.index(label)
            path = f"{models.target.folder(column, group)}/{NETWORK}.onnx"
            if path not in manifest["files"]:
                continue
            content = (into / path).read_bytes()
            smaller = quantize.quantized(content)
            cost = quantize.compare(content, smaller, _Windows(tested, models.lookback.rows + 1), y[:, column])
            name = path.removesuffix(".onnx") + "_int8.onnx"
            write_atomic(into / name, smaller)
            added[name] = {**entry_of(smaller), "largest_difference": cost.largest_difference,
                           "int8": dataclasses.asdict(cost)}  # fmt: skip
            sentences.append(
                f"int8, {group} {label.removeprefix('label_')}: loss {cost.quantized_loss:.4f} in the place of "
                f"{cost.loss:.4f} on the sealed test, {cost.times_smaller:.1f} times smaller."
            )
    manifest["files"] |= added
    write_atomic(into / MANIFEST, dump_json(manifest))
    return list(added), sentences


def _sealed_test(
    models: Models, panel: Panel, settings: Config, group: str, warm: FeatureRows
) -> tuple[FeatureRows, np.ndarray]:
    """The warm rows of a group's sealed test, and their classes, -1 where not known."""
    from gpupipe.backtest.sources import time_ns_of

    bars = panel.of_group(group)
    begin = time_ns_of(models.metadata[group]["dates"]["test"][0])
    tested = warm.take(np.flatnonzero(bars.time_ns[warm.rows] >= begin))
    return tested, recipe.outline(bars, group, settings).y[tested.rows]


@dataclass(frozen=True)
class _Windows:
    """Raw windows that are gathered when they are sliced."""

    rows: FeatureRows
    length: int

    def __len__(self) -> int:
        return self.rows.n

    def __getitem__(self, part: slice) -> np.ndarray:
        windows: np.ndarray = self.rows.take(np.arange(self.rows.n)[part]).windows(self.length)
        return windows


def version_of(models: Models, onnx_files: OnnxFiles) -> dict[str, bytes]:
    """The contents of a version's folder (`artifacts.latest`); empty where the run trained no network.

    Of each symbol, in a folder of its own where there are several: model.safetensors, scaler.json (how a column is
    scaled before it is clipped: (x - offset) / scale), metadata.json, history.parquet (a row for each epoch), and
    model_LABEL.onnx, model_LABEL_int8.onnx where they were made.
    """
    contents: dict[str, bytes] = {}
    for group, by_label in models.by_group.items():
        networks = {label: fitted[NETWORK] for label, fitted in by_label.items() if NETWORK in fitted}
        if not networks:
            continue
        folder = "" if len(models.by_group) == 1 else f"{folder_name(group)}/"
        for name, content in _files_of(models, group, networks).items():
            contents[f"{folder}{name}"] = content
        for label in networks:
            path = f"{models.target.folder(models.target.names.index(label), group)}/{NETWORK}"
            for ending in (".onnx", "_int8.onnx"):
                if f"{path}{ending}" in onnx_files.contents:
                    name = f"{folder}model_{label.removeprefix('label_')}{ending}"
                    contents[name] = onnx_files.contents[f"{path}{ending}"]
    return contents


def _files_of(models: Models, group: str, networks: Mapping[str, Any]) -> dict[str, bytes]:
    """What the labels of a group share: their network, its scaler, its history, and what the run says of each label."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gpupipe.estimators.torch.sequence import network_of

    first = next(iter(networks.values()))
    network, columns = network_of(first), getattr(first, "columns", None)
    names = models.feature_names if columns is None else tuple(models.feature_names[k] for k in columns)
    labels = {}
    for label in networks:
        folder = models.target.folder(models.target.names.index(label), group)
        about = json.loads((models.out / folder / "metadata.json").read_bytes())
        labels[label] = {**models.parameters(label), **about["models"][NETWORK]}
    shared = models.metadata[group]
    metadata = {
        "format": FORMAT, "symbol": group, "run_key": models.manifest["run_key"], "network": network.architecture,
        "length": network.length, "columns": list(names), "features_hash": models.features_hash,
        "heads": [[head.name, head.n_outputs] for head in network.heads], "classes": list(models.target.class_names),
        **{name: shared[name] for name in ("rows", "dates", "settings", "versions")}, "labels": labels,
    }  # fmt: skip
    epochs = pa.table({name: network.history[:, k] for k, name in enumerate(network.columns)})
    buffer = io.BytesIO()
    pq.write_table(epochs, buffer, compression="zstd")
    return {
        "model.safetensors": network.content,
        "scaler.json": dump_json({"columns": list(names), **network.scaler.as_dict()}),
        "metadata.json": dump_json(metadata),
        "history.parquet": buffer.getvalue(),
    }
