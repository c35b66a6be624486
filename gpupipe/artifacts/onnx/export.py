"""All models of a finished run to ONNX files in a folder, with a manifest of their checksums."""

from __future__ import annotations

import importlib.util
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe import __version__
from gpupipe.artifacts.layout import MANIFEST
from gpupipe.artifacts.load import Models
from gpupipe.artifacts.manifest import entry_of
from gpupipe.artifacts.onnx import checking, graphs
from gpupipe.estimators import registry
from gpupipe.estimators.ensemble import TreeReader
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import FORMAT, StoreError, dump_json, write_atomic

KIND = "onnx"  # of the manifest, which tells an export from a run
TOLERANCE = 1e-5  # of a probability: the two add up float32 values in different orders
PACKAGES = ("onnx", "onnxruntime")


@dataclass(frozen=True)
class Wanted:
    """Which models to export: all, where a field is None.

    parameters: values by the name of a label's parameter, such as {"horizon": [1, 5]}.

        >>> Wanted(groups=["energy"], parameters={"horizon": [5]}).families is None
        True
    """

    groups: Sequence[str] | None = None
    parameters: Mapping[str, Sequence[Any] | None] = field(default_factory=dict)
    families: Sequence[str] | None = None


@dataclass(frozen=True)
class Exported:
    """An export.

    files: the manifest's entry of each written file, by path.
    failed: by path, the largest difference of each file that was not written, as it differs from its model.

        >>> export = Exported({"a.onnx": {"largest_difference": 2e-07}, "b.onnx": {"largest_difference": 0.0}}, {})
        >>> export.largest_difference
        2e-07
    """

    files: dict[str, dict[str, Any]]
    failed: dict[str, float]

    @property
    def largest_difference(self) -> float:
        """Of all written files."""
        return max((entry["largest_difference"] for entry in self.files.values()), default=0.0)


def require() -> None:
    """Raise UserError, with the line that installs them, where onnx or onnxruntime is missing; imports nothing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"an export needs {' and '.join(missing)}: pip install -e '.[onnx]'")


def export(
    models: Models,
    to: pathlib.Path,
    wanted: Wanted,
    real_rows: Mapping[str, np.ndarray],
    advanced: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write each wanted model as TO/trained_*pct/SECTOR/HORIZONd/FAMILY.onnx, and TO/manifest.json last.

    models: artifacts.load(OUT), on the CPU.
    real_rows: by group, inputs of `Models.predict_rows` to check on beside made-up rows.
    advanced(text): called after each model.
    A file is written only where onnxruntime predicts from its bytes what the model predicts, within TOLERANCE. Files
    of an earlier export in TO that this one does not write are removed.
    Raises UserError for a model that does not exist or has no ONNX form, and StoreError for a TO that holds another
    manifest.
    """
    require()
    chosen = choose(models, wanted)
    earlier = _earlier(to)
    (to / MANIFEST).unlink(missing_ok=True)
    files: dict[str, dict[str, Any]] = {}
    failed: dict[str, float] = {}
    for group, labels in chosen.items():
        for graph in _graphs_of(models, group, labels, real_rows.get(group)):
            if graph.about["largest_difference"] <= TOLERANCE:
                write_atomic(to / graph.path, graph.content)
                files[graph.path] = {**entry_of(graph.content), **graph.about}
            else:
                (to / graph.path).unlink(missing_ok=True)
                failed[graph.path] = graph.about["largest_difference"]
            advanced(f"onnx/{graph.family}/{group}/{graph.label.removeprefix('label_')}")
    for path in set(earlier) - set(files):
        (to / path).unlink(missing_ok=True)
    write_atomic(to / MANIFEST, dump_json({
        "format": FORMAT, "kind": KIND, "run_key": models.manifest["run_key"], "gpupipe_version": __version__,
        "input": graphs.INPUT, "input_of_windows": graphs.WINDOWS, "output": graphs.OUTPUT,
        "classes": list(models.target.class_names),
        "tolerance": TOLERANCE, "features": {"names": list(models.feature_names), "hash": models.features_hash},
        "files": files,
    }))  # fmt: skip
    return Exported(files, failed)


def choose(models: Models, wanted: Wanted) -> dict[str, dict[str, list[str]]]:
    """Estimators by label by group; UserError, which names what there is, where a wanted value does not occur."""
    there = [
        (group, label, family)
        for group, labels in models.by_group.items()
        for label in models.target.names if label in labels
        for family in labels[label]
    ]  # fmt: skip
    label_parameters = {label: models.parameters(label) for label in models.target.names}
    _check("sectors", wanted.groups, {group for group, _, _ in there}, models.out)
    for name, values in wanted.parameters.items():
        known = {parameters[name] for parameters in label_parameters.values() if name in parameters}
        _check(f"{name}s", values, known, models.out)
    _check("models", wanted.families, {family for _, _, family in there}, models.out)
    chosen: dict[str, dict[str, list[str]]] = {}
    for group, label, family in there:
        pairs: list[tuple[Sequence[Any] | None, Any]] = [(wanted.groups, group), (wanted.families, family)]
        pairs += [(values, label_parameters[label].get(name)) for name, values in wanted.parameters.items()]
        if all(values is None or value in values for values, value in pairs):
            chosen.setdefault(group, {}).setdefault(label, []).append(family)
    if not chosen:
        raise UserError(f"{models.out} has no model for this combination of options")
    return chosen


def _check(option: str, wanted: Sequence[Any] | None, known: set[Any], out: pathlib.Path) -> None:
    for value in wanted or ():
        if value not in known:
            raise UserError(f"--{option} {value}: {out} has {', '.join(map(str, sorted(known)))}")


def _earlier(to: pathlib.Path) -> list[str]:
    """The files that an earlier export wrote; StoreError where the manifest in TO is not an export's."""
    path = to / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND or not isinstance(manifest.get("files"), dict):
        raise StoreError(f"{path} is not of an export: choose another --to, such as {to / 'onnx'}")
    root = to.resolve()
    ours = [name for name in manifest["files"] if name.endswith(".onnx")]
    return [name for name in ours if (root / name).resolve().is_relative_to(root)]


@dataclass(frozen=True)
class _Graph:
    """The graph of one model: where it is written, its bytes, and what the manifest has of its check."""

    label: str
    family: str
    path: str
    content: bytes
    about: dict[str, Any]


def _graphs_of(
    models: Models, group: str, labels: dict[str, list[str]], real_rows: np.ndarray | None
) -> Iterator[_Graph]:
    """The graph of each wanted model of a group."""
    by_label, reader = models.by_group[group], TreeReader()
    X = _check_rows(models, group, reader)
    n_real = 0 if real_rows is None else len(real_rows)
    if real_rows is not None:
        X = np.concatenate([real_rows, X])
    families = list(dict.fromkeys(family for label_families in labels.values() for family in label_families))
    predictions = models.predict_rows(group, X, families)
    shape = len(models.feature_names), models.target.n_outputs
    for label, label_families in labels.items():
        for family in label_families:
            properties = _properties(models, group, label, family)
            graph = graphs.graph_of(family, by_label[label], shape, properties, reader)
            content = graph.SerializeToString(deterministic=True)
            difference = checking.largest_difference(content, X, predictions[label, family])
            about = {"largest_difference": difference, "rows_checked": len(X), "real_rows_checked": n_real}
            yield _Graph(label, family, f"{_folder(models, group, label)}/{family}.onnx", content, about)


def _check_rows(models: Models, group: str, reader: TreeReader) -> np.ndarray:
    """Rows to check on; UserError, which names the model, where trees have a form that ONNX cannot hold."""
    pairs = []
    for label, by_family in models.by_group[group].items():
        for family, model in by_family.items():
            try:
                registry.estimator(family).critical_values(graphs.split_selection(model)[0], reader)
            except UserError as error:
                raise UserError(f"{models.out / _folder(models, group, label) / family}: {error}") from None
            pairs.append((family, model))
    n_features = len(models.feature_names)
    if models.lookback.rows:
        return checking.check_windows(pairs, n_features, reader, models.lookback.rows + 1)
    return checking.check_rows(pairs, n_features, reader)


def _folder(models: Models, group: str, label: str) -> str:
    return models.target.folder(models.target.names.index(label), group)


def _properties(models: Models, group: str, label: str, family: str) -> dict[str, str]:
    """The metadata of a file, as text or JSON."""
    cutoffs = dict(
        zip(("cutoff_buy", "cutoff_sell"), map(str, models.cutoffs.get((group, label, family), ())), strict=False)
    )
    learned = models.expected_returns.get((group, label, family))
    expected = {} if learned is None else {"expected_return": json.dumps(learned.as_dict())}
    return {
        "label": label, **{name: str(value) for name, value in models.parameters(label).items()},
        "sector": group, "family": family, "classes": json.dumps(list(models.target.class_names)),
        **cutoffs,
        **expected,
        "features": json.dumps(list(models.feature_names), ensure_ascii=False),
        "features_hash": models.features_hash, "run_key": models.manifest["run_key"],
        "gpupipe_version": __version__,
    }  # fmt: skip
