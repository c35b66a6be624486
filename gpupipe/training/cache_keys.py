"""Units: what each piece of training is known by, so that what nothing changed for is taken and not made again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import registry
from gpupipe.estimators.training_set import Fold, Rows, in_blocks
from gpupipe.runtime.device import Device
from gpupipe.store import fingerprint
from gpupipe.store.content_store import KEY_LENGTH, Store, dump_json, pack_array, sha256, unpack_array

log = logging.getLogger("gpupipe")

META = "meta_learner"
BLOCK_ROWS = 65536  # as many are put together at once to be hashed
# What runs every unit, whatever its family: these files count, and what they import does not.
DRIVERS = (
    "gpupipe.training.groups", "gpupipe.training.fold_tasks", "gpupipe.training.fold_data",
    "gpupipe.training.cache_keys", "gpupipe.estimators.registry", "gpupipe.estimators.columns",
)  # fmt: skip
# Of each family its module, and the settings that it may read: no other can be read by it (`Readable`).
MODULES = {
    "xgb_joint": "boosting.xgb_joint", "xgb_hist": "boosting.xgb_by_label", "xgb_leafwise": "boosting.xgb_by_label",
    "random_forest": "boosting.random_forest", "linear": "linear.softmax_linear",
    "lightgbm": "boosting.lightgbm_trees", "catboost": "boosting.catboost_trees", META: "stacking.meta_learner",
}  # fmt: skip
_STOPPED, _ALONE = ("training.early_stopping",), ("training.early_stopping", "training.min_positives")
READS = {
    "xgb_joint": ("joint", "joint_sector", *_STOPPED), "xgb_hist": ("hist", *_ALONE),
    "xgb_leafwise": ("leafwise", *_ALONE), "random_forest": ("forest",), "linear": ("linear",),
    "lightgbm": ("lightgbm", *_ALONE), "catboost": ("catboost", *_ALONE), META: ("meta",),
}  # fmt: skip
# Families that fit each label by itself, so that a label which nothing changed for is kept when another does change.
# The others fit all labels of the run together, and depend on each of them.
BY_LABEL = ("xgb_hist", "xgb_leafwise", "lightgbm", "catboost")


class Readable:
    """Settings of which a family sees what is part of its units' keys, and nothing else.

    Any other is an error: a setting that a model depends on and its key does not name would let a stale model pass.
    """

    def __init__(self, settings: config.Config, family: str) -> None:
        self._settings, self._family = settings, family

    def __getattr__(self, name: str) -> Any:
        reads = READS[self._family]
        if name in reads:
            return getattr(self._settings, name)
        fields = [one.partition(".")[2] for one in reads if one.startswith(f"{name}.")]
        if not fields:
            raise AttributeError(
                f"{self._family} reads the setting {name!r}, which is no part of its units' keys: add it to units.READS"
            )
        section = getattr(self._settings, name)
        return types.SimpleNamespace(**{one: getattr(section, one) for one in fields})

    def stage(self, section: str, sector: str, label: str) -> config.Booster:
        """As of Config, of a section that may be read."""
        getattr(self, section)
        return self._settings.stage(section, sector, label)

    def values(self, sector: str | None, label: str | None) -> dict[str, Any]:
        """All that may be read by the unit of a sector (None: the pool) and label (None: all), by "section.field"."""
        found: dict[str, Any] = {}
        for name in READS[self._family]:
            if "." in name:
                found[name] = getattr(getattr(self, name.partition(".")[0]), name.partition(".")[2])
                continue
            section = getattr(self._settings, name)
            if name in config.BY_SECTOR and sector is not None:
                section = self._settings.stage(name, sector, label or "")
            found |= {f"{name}.{one}": value for one, value in dataclasses.asdict(section).items()}
        return found


def blocks_of(family: str, labels: Sequence[int], settings: config.Config) -> list[list[int]]:
    """Numbers of the labels that are kept together: each alone, or all."""
    # Drawn rows depend on a label's place among the others.
    apart = family in BY_LABEL and not settings.ml.gradient_sampling
    return [[k] for k in labels] if apart else [list(labels)]


def key_of(parts: dict[str, Any]) -> str:
    """The key of a unit that depends on these parts."""
    return sha256(dump_json(parts))[:KEY_LENGTH]


@dataclass(frozen=True)
class Inputs:
    """What a fold holds, as digests. rows: of X and times, of all parts and sectors in order. labels: of each label."""

    rows: str
    labels: tuple[str, ...]
    fixed: dict[str, Any]

    @classmethod
    def of(
        cls, held: Mapping[str, Held], settings: config.Config, columns: np.ndarray | None,
        spread: Sequence[Sequence[str]] = (),
    ) -> Inputs:  # fmt: skip
        """Of a fold, by what it holds of each sector, in pooled order.

        columns: as of Fold.  spread: the sectors of each process, where several hold the fold: sums depend on it.
        """
        chosen = None if columns is None else columns.tolist()
        rows = sha256(dump_json([chosen, [[s, *own.rows] for s, own in held.items()]]))
        of_labels = zip(*(own.labels for own in held.values()), strict=True)
        labels = tuple(sha256(dump_json([[s, *own] for s, own in zip(held, one, strict=True)])) for one in of_labels)
        ml = {f"ml.{name}": value for name, value in dataclasses.asdict(settings.ml).items() if name != "use_rmm"}
        fixed = {
            "training.max_bin": settings.training.max_bin, "training.class_weight": settings.training.class_weight,
            "seed": settings.seed, **ml,
        }  # fmt: skip
        if len(spread) > 1:
            fixed["training.spread"] = [list(sectors) for sectors in spread]
        return cls(rows, labels, fixed)


@dataclass(frozen=True)
class Held:
    """What a fold holds of one sector, as digests of its parts: of X and times, and of each label by part."""

    rows: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, fold: Fold, sector: str) -> Held:
        """Of a fold's arrays, which are copied to the host for it."""
        to_host = fold.device.to_host
        parts = [by_sector[sector] for by_sector in (fold.fit, fold.validation) if sector in by_sector]
        rows = tuple(sha256(f"{_digest_of_rows(own.X, to_host)} {digest_of_arrays([to_host(own.time_ns)])}".encode())
                     for own in parts)  # fmt: skip
        labels = zip(*(_labels(own, to_host) for own in parts), strict=True)
        return cls(rows, tuple(labels))


def _digest_of_rows(X: Any, to_host: Callable[[Any], np.ndarray]) -> str:
    """Of a matrix, or of rows that nobody has copied together yet: the same for the same values."""
    digest = hashlib.sha256(f"{tuple(X.shape)}\n".encode())
    for block in in_blocks(X):
        digest.update(_bytes(to_host(block)))
    return digest.hexdigest()


def _labels(rows: Rows, to_host: Callable[[Any], np.ndarray]) -> list[str]:
    columns = [to_host(one) for one in (rows.y, rows.weight) if one is not None]
    return [digest_of_arrays(column[:, k] for column in columns) for k in range(rows.y.shape[1])]


def digest_of_columns(dataset: Dataset, rows: np.ndarray) -> str:
    """SHA-256 of the feature matrix's rows with these numbers."""
    digest = hashlib.sha256(f"{len(rows)} {dataset.X.shape[1]}\n".encode())
    for first in range(0, len(rows), BLOCK_ROWS):
        at = dataset.device.asarray(rows[first : first + BLOCK_ROWS])
        digest.update(_bytes(dataset.device.to_host(dataset.X[at])))
    return digest.hexdigest()


def digest_of_arrays(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 of arrays, their types and shapes, in order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"\n{array.dtype} {array.shape}\n".encode())
        digest.update(_bytes(array))
    return digest.hexdigest()


def _bytes(array: np.ndarray) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def base_parts(family: str, device: Device) -> dict[str, Any]:
    """What every unit of a family depends on: its code, the libraries that it runs, the kind of device."""
    roots = [f"gpupipe.estimators.{MODULES[family]}"]
    alone = [fingerprint.module(name).digest for name in DRIVERS]
    return {
        "code": sha256(dump_json([alone, fingerprint.code_hash([*roots, "gpupipe.estimators.columns"])])),
        "libraries": {
            name: version for name, version in fingerprint.libraries(roots).items()
            if device.kind == "cuda" or name not in ("cupy", "rmm")
        },
        "device": device.kind,
    }  # fmt: skip


@dataclass
class Ledger:
    """What was taken from the store and what was made, and why it was; filled while training.

    asking: nothing is made; units that are not there are counted as missing.
    reused, made: of each kind of unit ("model", "prediction", "stack"), how many. why: how often each reason.
    states: for each unit's name, "done", "stale" (there is one of that name, of other inputs) or "missing".
    """

    store: Store
    run_key: str
    asking: bool = False
    reused: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    why: Counter[str] = field(default_factory=Counter)
    states: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _by_name: dict[str, list[dict[str, Any]]] | None = None

    def find(self, kind: str, name: str, key: str, parts: dict[str, Any]) -> dict[str, Any] | None:
        """The record of the unit with that key where it is done. Its objects are sound, or it is not done."""
        record = self.store.finished(key)
        if record is not None and (bad := self.store.unsound(objects_of(record))):
            log.warning("%s was altered or lost in %s: it is made again", name, self.store.out)
            if not self.asking:
                self.store.drop(bad)
            record = None
        if not self.asking:
            self.store.refer(self.run_key, key)
        reason = "" if record else self._reason(name, parts)
        with self._lock:
            (self.reused if record else self.made)[kind] += 1
            self.states[name] = "done" if record else "missing" if reason == NEW else "stale"
            if not record:
                self.why[reason] += 1
        return record

    def missing(self, kind: str, name: str) -> None:
        """A unit that waits for one that is not there."""
        with self._lock:
            self.made[kind] += 1
            self.states[name] = "stale" if name in self._known() else "missing"
            self.why[WAITS] += 1

    def _known(self) -> dict[str, list[dict[str, Any]]]:
        if self._by_name is None:
            found: dict[str, list[dict[str, Any]]] = {}
            for _, record in self.store.units():
                found.setdefault(record["name"], []).append(record["parts"])
            self._by_name = found
        return self._by_name

    def _reason(self, name: str, parts: dict[str, Any]) -> str:
        """What differs from the most similar unit of the same name."""
        with self._lock:
            others = self._known().get(name, [])
        plain = json.loads(dump_json(parts))
        changes = [changed(one, plain) for one in others]
        fewest: list[str] = min(changes, key=len, default=[NEW])
        return ", ".join(fewest)

    def about(self) -> dict[str, Any]:
        """For the summary: {"model": {"reused", "made"}, ..., "why": {reason: times}}."""
        kinds = dict.fromkeys([*self.reused, *self.made])
        counts = {kind: {"reused": self.reused[kind], "made": self.made[kind]} for kind in kinds}
        return {**counts, "why": dict(self.why.most_common())}


NEW = "not there before"
WAITS = "what it learns from is made again"
LEARNED_FROM = ("models", "pooled models", "models of the final fold", "predictions")


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between the parts of two units: settings and libraries each by name; what was made, only if all."""
    found = []
    for part in sorted({*before, *now} - {*LEARNED_FROM}):
        old, new = before.get(part), now.get(part)
        if old != new and isinstance(old, dict) and isinstance(new, dict):
            found += [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        elif old != new:
            found.append(part)
    return found or ([WAITS] if before != now else ["altered"])


def objects_of(record: dict[str, Any]) -> list[str]:
    """Digests of the objects that a unit's record names."""
    found = list(record.get("arrays", {}).values())
    for model in record.get("models", []):
        found += [] if model is None else model["files"].values()
    return list(dict.fromkeys(found))


def save_models(store: Store, fitted: Sequence[Any]) -> list[Any]:
    """Models as a record holds them; their files are kept as objects."""
    return [
        None if model is None else
        {**model.describe(), "files": {suffix: store.put(content) for suffix, content in model.files().items()}}
        for model in fitted
    ]  # fmt: skip


def load_models(store: Store, saved: Sequence[Any], boosters: dict[bytes, Any]) -> list[Any]:
    """Models of a record again; `boosters` is shared between calls, so that equal files are loaded once."""
    return [
        None if about is None else
        registry.from_files({suffix: store.get(digest) for suffix, digest in about["files"].items()}, about, boosters)
        for about in saved
    ]  # fmt: skip


def digest_of_models(saved: Sequence[Any]) -> str:
    """SHA-256 of models as a record holds them: what depends on them does so by their content."""
    return sha256(dump_json(list(saved)))


def save_array(store: Store, array: np.ndarray) -> str:
    """Keep an array as an object; its digest."""
    return store.put(pack_array(array))


def load_array(store: Store, digest: str) -> np.ndarray:
    """The array again."""
    return unpack_array(store.get(digest))
