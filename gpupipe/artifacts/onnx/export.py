"""All models of a finished run to ONNX files in a folder, with a manifest of their checksums."""

from __future__ import annotations

import importlib.util
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import __version__
from gpupipe.artifacts.layout import MANIFEST, folder_of
from gpupipe.artifacts.load import Models
from gpupipe.artifacts.manifest import entry_of
from gpupipe.artifacts.onnx import checking, graphs
from gpupipe.artifacts.onnx.graphs import Ensembles
from gpupipe.estimators.boosting.hosted import HostedModel
from gpupipe.estimators.boosting.tree_model import TreeModel
from gpupipe.estimators.columns import OfColumns
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import FORMAT, StoreError, dump_json, write_atomic
from gpupipe.targets.classes import CLASSES, percent

KIND = "onnx"  # of our manifest, which tells it from that of a run
TOLERANCE = 1e-5  # of a probability: both sides add up float32 values, in orders of their own
PACKAGES = ("onnx", "onnxruntime")


@dataclass(frozen=True)
class Wanted:
    """Which models: all, where a field is None."""

    sectors: Sequence[str] | None = None
    horizons: Sequence[int] | None = None
    thresholds: Sequence[float] | None = None
    families: Sequence[str] | None = None


@dataclass(frozen=True)
class Exported:
    """files: what the manifest says of each written file, by path.  failed: the largest difference of each that was
    not written, by path."""

    files: dict[str, dict[str, Any]]
    failed: dict[str, float]

    @property
    def largest_difference(self) -> float:
        """Of all written files."""
        return max((one["largest_difference"] for one in self.files.values()), default=0.0)


def require() -> None:
    """Raise UserError, with the line that installs them, where onnx or onnxruntime is missing; imports nothing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"an export needs {' and '.join(missing)}: pip install -e '.[onnx]'")


def export(
    models: Models, to: pathlib.Path, wanted: Wanted, real_rows: Mapping[str, np.ndarray],
    advanced: Callable[[str], None] = lambda text: None,
) -> Exported:  # fmt: skip
    """Write each wanted model as TO/trained_*pct/SECTOR/HORIZONd/FAMILY.onnx, and TO/manifest.json last.

    models: artifacts.load(OUT), on the CPU.
    real_rows: by sector, float32 (n_rows, n_features) to check on beside made-up rows.
    advanced(text): told after each model.
    A file is written only where onnxruntime, given its bytes, says what the model says, within TOLERANCE. What an
    earlier export left in TO and this one does not write is removed.
    Raises UserError for a model that there is none of, and StoreError for a TO that holds another manifest.
    """
    require()
    chosen = choose(models, wanted)
    earlier = _earlier(to)
    (to / MANIFEST).unlink(missing_ok=True)
    files: dict[str, dict[str, Any]] = {}
    failed: dict[str, float] = {}
    for sector, labels in chosen.items():
        for path, content, about in _of_sector(models, sector, labels, real_rows.get(sector)):
            if about["largest_difference"] <= TOLERANCE:
                write_atomic(to / path, content)
                files[path] = {**entry_of(content), **about}
            else:
                (to / path).unlink(missing_ok=True)
                failed[path] = about["largest_difference"]
            threshold, of_sector, horizon, family = path.removesuffix(".onnx").split("/")
            advanced(f"onnx/{family}/{of_sector}/{horizon} {threshold.removeprefix('trained_')}")  # as units are named
    for path in set(earlier) - set(files):
        (to / path).unlink(missing_ok=True)
    write_atomic(to / MANIFEST, dump_json({
        "format": FORMAT, "kind": KIND, "run_key": models.manifest["run_key"], "gpupipe_version": __version__,
        "input": graphs.INPUT, "output": graphs.OUTPUT, "classes": list(CLASSES), "tolerance": TOLERANCE,
        "features": {"names": list(models.feature_names), "hash": models.features_hash}, "files": files,
    }))  # fmt: skip
    return Exported(files, failed)


def choose(models: Models, wanted: Wanted) -> dict[str, dict[tuple[int, float], list[str]]]:
    """Families by label by sector; UserError, which names what there is, where nothing is of a wanted name."""
    there = {(s, h, t, f) for s, by in models.by_sector.items() for (h, t), of in by.items() for f in of}
    for option, place, names in (
        ("sectors", 0, wanted.sectors), ("horizons", 1, wanted.horizons), ("thresholds", 2, wanted.thresholds),
        ("models", 3, wanted.families),
    ):  # fmt: skip
        known = sorted({one[place] for one in there})
        for name in names or ():
            if name not in known:
                raise UserError(f"--{option} {name}: {models.out} has {', '.join(map(str, known))}")
    asked = (wanted.sectors, wanted.horizons, wanted.thresholds, wanted.families)
    found: dict[str, dict[tuple[int, float], list[str]]] = {}
    for sector, by in models.by_sector.items():
        for (h, t), of in sorted(by.items()):
            for family in of:
                if all(a is None or v in a for a, v in zip(asked, (sector, h, t, family), strict=True)):
                    found.setdefault(sector, {}).setdefault((h, t), []).append(family)
    if not found:
        raise UserError(f"{models.out} has no model of all that was asked for together")
    return found


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


def _of_sector(
    models: Models, sector: str, labels: dict[tuple[int, float], list[str]], real: np.ndarray | None
) -> Any:  # fmt: skip
    """Path, content and what is known of it, of each model of a sector."""
    by_label, ensembles, n_features = models.by_sector[sector], Ensembles(), len(models.feature_names)
    of_sector = [model for by in by_label.values() for model in by.values()]
    _read_all(models, sector, ensembles)
    X = checking.made_rows(of_sector, n_features, ensembles)
    n_real = 0 if real is None else len(real)
    if real is not None:
        X = np.concatenate([real, X])
    families = list(dict.fromkeys(family for of in labels.values() for family in of))
    said = models.predict_rows(sector, X, families)
    for key, of in labels.items():
        for family in of:
            properties = _properties(models, sector, key, family)
            made = graphs.model_of(by_label[key][family], by_label[key], n_features, properties, ensembles)
            content = made.SerializeToString(deterministic=True)
            yield (
                f"{folder_of(sector, *key)}/{family}.onnx", content,
                {
                    "largest_difference": checking.largest_difference(content, X, said[key, family]),
                    "rows_checked": len(X), "real_rows_checked": n_real,
                },
            )  # fmt: skip


def _read_all(models: Models, sector: str, ensembles: Ensembles) -> None:
    """Read all trees of a sector; UserError, which names the model, for one that ONNX cannot hold."""
    for key, by in models.by_sector[sector].items():
        for family, model in by.items():
            inner = model.model if isinstance(model, OfColumns) else model
            if isinstance(inner, TreeModel | HostedModel):
                try:
                    ensembles.of(inner)
                except UserError as error:
                    raise UserError(f"{models.out / folder_of(sector, *key) / family}: {error}") from None


def _properties(models: Models, sector: str, key: tuple[int, float], family: str) -> dict[str, str]:
    """What a file says of itself, as text or JSON."""
    buy, sell = models.cutoffs[sector, *key, family]
    return {
        "label": f"label_{key[0]}d_{percent(key[1])}pct", "horizon": str(key[0]), "threshold": str(key[1]),
        "sector": sector, "family": family, "classes": json.dumps(list(CLASSES)),
        "cutoff_buy": str(buy), "cutoff_sell": str(sell),
        "features": json.dumps(list(models.feature_names), ensure_ascii=False),
        "features_hash": models.features_hash, "run_key": models.manifest["run_key"],
        "gpupipe_version": __version__,
    }  # fmt: skip
