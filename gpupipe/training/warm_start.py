"""Warm start: the final fold starts from the models of an earlier finished run, where data and settings match."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.artifacts.layout import MANIFEST, model_files
from gpupipe.artifacts.load import Models, load
from gpupipe.config import Config
from gpupipe.cross_validation.split import Split
from gpupipe.data.report import time_text
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import registry
from gpupipe.estimators.columns import ColumnSubsetModel, unwrap
from gpupipe.estimators.earlier import EarlierModels
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import Store, StoreError, sha256, write_atomic

log = logging.getLogger("gpupipe")

# Largest share of fitted rows that a model's oldest rounds have not seen; above it, it is trained from nothing.
NEW_ROWS = 0.05
SHARED = ("pool", "sample_weight", "class_weight", "min_positives", "max_bin")  # of [training]


@dataclass(frozen=True)
class EarlierRun:
    """A finished run that a warm start resumes, in memory.

    digest: SHA-256 over its run key and the files of its models.

        >>> from types import SimpleNamespace
        >>> earlier = EarlierRun(SimpleNamespace(manifest={"run_key": "ab12"}), digest="cd34")
        >>> earlier.run_key, len(earlier.key("ef56")), earlier.key("ef56") == earlier.key("0000")
        ('ab12', 64, False)
    """

    models: Models
    digest: str

    @property
    def run_key(self) -> str:
        """The run key of the earlier run."""
        return str(self.models.manifest["run_key"])

    def key(self, cold_key: str) -> str:
        """The key of a run that starts from this run. cold_key: its key without a warm start."""
        return sha256(f"{cold_key}/{self.digest}".encode())


def read(source: str | os.PathLike[str], store: Store) -> EarlierRun:
    """The finished run in `source`, every file checked against its manifest.

    Where `source` is the folder of the store, and a warm run was killed while it replaced the earlier files, the
    earlier files are read from `store.replaced`.
    Raises UserError where there is no finished run, or a file is missing or altered.
    """
    root = pathlib.Path(source)
    if root.resolve() == store.out.resolve() and not (root / MANIFEST).exists() and store.replaced.exists():
        root = store.replaced
    if not (root / MANIFEST).exists():
        raise UserError(
            f"--warm-start {source}: {root / MANIFEST} is missing, so the folder holds no finished "
            "run; name the folder of a finished run, or leave --warm-start out to train from nothing"
        )
    try:
        models = load(root)
    except StoreError as error:
        raise UserError(f"--warm-start {source}: {error} (without --warm-start)") from None
    files = models.manifest["files"]
    parts = [models.manifest["run_key"]]
    parts += [f"{name} {files[name]['sha256']}" for name in model_files(files)]
    return EarlierRun(models, sha256("\n".join(parts).encode()))


def keep_replaced(earlier: EarlierRun, store: Store) -> None:
    """Keep the earlier files of OUT until the warm run is complete, so that a killed run can resume from them.

    Does nothing where the earlier run is in another folder, or is kept already.
    """
    if earlier.models.out.resolve() != store.out.resolve():
        return
    shutil.rmtree(store.replaced, ignore_errors=True)
    for name in earlier.models.manifest["files"]:
        target = store.replaced / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(store.out / name, target)  # files are replaced by renaming, never written over
        except OSError:
            shutil.copyfile(store.out / name, target)
    write_atomic(store.replaced / MANIFEST, (store.out / MANIFEST).read_bytes())


@dataclass(frozen=True)
class Starting:
    """Decides which estimators start from an earlier run's models; the `earlier` of a TrainingContext.

    The other estimators are trained from nothing, and a warning names the difference and the fix.

        >>> from types import SimpleNamespace
        >>> from gpupipe.workloads.equity import EQUITY
        >>> earlier = EarlierRun(SimpleNamespace(manifest={"run_key": "ab12"}, out="OUT"), digest="cd34")
        >>> starting = Starting(earlier, EQUITY.settings("fast"), {}, {}, "")
        >>> starting("linear", ["energy"], ["label_1d_5pct"]) is None  # it has no rounds to go on with
        True
    """

    earlier: EarlierRun
    settings: Config
    datasets: Mapping[str, Dataset]
    splits: Mapping[str, Split]
    features_hash: str

    def __call__(self, family: str, groups: Sequence[str], labels: Sequence[str]) -> EarlierModels | None:
        """The earlier models of an estimator for these groups and labels (names); None to train it from nothing."""
        estimator, out = registry.estimator(family), self.earlier.models.out
        if not estimator.warm_startable:
            return None
        if problem := self._differs(family, groups, labels) or self._looks_ahead(groups):
            log.warning("%s is trained from nothing, not from %s: %s", family, out, problem)
            return None
        models = {group: [self._model(group, label, family) for label in labels] for group in groups}
        inner = {group: unwrap(group_models) or [] for group, group_models in models.items()}
        oldest = min(
            (model.warm.trained_to if model.warm else self._dates(group, "train")[1])
            for group, group_models in inner.items()
            for model in group_models
        )
        seen = [self._times(group, "train") for group in groups]
        new = float(np.mean(np.concatenate(seen) > _time_ns(oldest)))
        if new > NEW_ROWS:
            log.warning(
                "%s is trained from nothing, not from %s: its oldest rounds have not seen %.1f %% of the training "
                "rows, more than %.0f %%; no fix is needed, and the next run can start from this run",
                family, out, 100 * new, 100 * NEW_ROWS,
            )  # fmt: skip
            return None
        if not estimator.resumable([model for group_models in inner.values() for model in group_models]):
            log.warning(
                "%s is trained from nothing, not from %s: the resumed rounds of that run hold a tree for each output, "
                "as an older gpupipe grew them; no fix is needed",
                family, out,
            )  # fmt: skip
            return None
        columns = {
            tuple(model.columns) if isinstance(model, ColumnSubsetModel) else None
            for group_models in models.values()
            for model in group_models
        }
        assert len(columns) == 1  # an estimator's models come from one training set
        (selected,) = columns
        numbers = None if selected is None else np.array(selected, dtype=np.int64)
        return EarlierModels(self.earlier.run_key, inner, numbers, oldest, self.earlier.digest)

    def _model(self, sector: str, label: str, family: str) -> Any:
        """The earlier model of a sector, label and estimator; None if it is missing."""
        return self.earlier.models.by_group.get(sector, {}).get(label, {}).get(family)

    def _differs(self, family: str, sectors: Sequence[str], labels: Sequence[str]) -> str:
        """The first difference between the earlier run and this run, with the fix; "" without a difference."""
        there, here = self.earlier.models.settings, self.settings.as_dict()
        dataset = self.datasets[sectors[0]]
        again = "train once without --warm-start, and start from that run"
        old, new = self.earlier.models.feature_names, dataset.names
        if old != new:
            changed = sorted({*old} ^ {*new})
            listed = f"{', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''}" if changed else "their order"
            return f"the features differ ({listed}): give the same features.names, or {again}"
        if self.earlier.models.features_hash != self.features_hash:
            return f"the features have the same names and other formulas: {again}"
        if set(self.earlier.models.by_group) != set(self.datasets):
            changed = sorted(set(self.earlier.models.by_group) ^ set(self.datasets))
            return f"the sectors differ ({', '.join(changed)}): give the same --sectors, or {again}"
        sections = ["labels", "ml", *registry.estimator(family).sections]
        free = ("ml.use_rmm", *registry.estimator(family).free_when_warm)
        pairs: list[tuple[str, Any, Any]] = [(f"{name}.{key}", there.get(name, {}).get(key), here[name][key])
                 for name in sections for key in here[name] if f"{name}.{key}" not in free]  # fmt: skip
        pairs += [(f"training.{key}", there["training"].get(key), here["training"][key]) for key in SHARED]
        tuned_sections = tuple(registry.estimator(family).sections)
        pairs.append(("tuned", _tuned(there, tuned_sections), _tuned(here, tuned_sections)))
        for name, was, now in pairs:
            if was != now:
                shown = "" if name == "tuned" else f" was {json.dumps(was)} and is {json.dumps(now)}"
                return f"{name}{shown or ' values differ'}: set it as it was, or {again}"
        for sector in sectors:
            trained = {label for label in dataset.target.names if self._model(sector, label, family) is not None}
            if trained != set(labels):
                changed = sorted(trained ^ set(labels))
                return f"{family} was trained there on other labels of {sector} ({', '.join(changed)}): {again}"
        return ""

    def _looks_ahead(self, sectors: Sequence[str]) -> str:
        """The first look-ahead of the earlier run into this run's parts, with the fix; "" without one.

        A training part ends before the validation part begins, labels and embargo included, and the validation part
        before the test part. So where no part begins earlier than in the earlier run, no row that was fitted there is
        a validation or test row now, and no row that stopped its rounds is a test row now.
        """
        fix = "start from a run on less data, or leave --warm-start out"
        last = time_text(int(max(self._times(s, "train").max() for s in sectors)))
        there = max((self._dates(s, "train")[1] for s in sectors), key=_time_ns)
        if _time_ns(there) > _time_ns(last):
            return f"it was fitted on rows until {there}, and the training part ends at {last}: {fix}"
        for part in ("validation", "test"):
            first = time_text(int(min(self._times(s, part).min() for s in sectors)))
            there = min((self._dates(s, part)[0] for s in sectors), key=_time_ns)
            if _time_ns(there) > _time_ns(first):
                return f"its {part} part began at {there}, and this run's begins at {first}: {fix}"
        return ""

    def _dates(self, sector: str, part: str) -> list[str]:
        return list(self.earlier.models.metadata[sector]["dates"][part])

    def _times(self, sector: str, part: str) -> np.ndarray:
        dataset = self.datasets[sector]
        return dataset.device.to_host(dataset.time_ns)[getattr(self.splits[sector], part)]


def _time_ns(text: str) -> int:
    """The inverse of `time_text`."""
    return int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))


def _tuned(settings: Mapping[str, Any], sections: Sequence[str]) -> list[Any]:
    return [item for item in settings.get("tuned", []) if item["section"] in sections]


def counts(earlier: EarlierRun, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The warm start of a run for its summary: the earlier run, and numbers of warm models and old rounds by family.

    rows: the results of the summary, one row for each model.
    """
    families = {}
    for name in dict.fromkeys(row["model"] for row in rows if row["kind"] == "model"):
        family_rows = [row for row in rows if row["model"] == name]
        started = [row["warm_start_rounds"] for row in family_rows if row["warm_start_run"]]
        pooled = [int(text.split("+")[0]) for text in started if text]
        families[name] = {
            "models": len(family_rows), "warm": len(started),
            "old_rounds": float(np.median(pooled)) if pooled else None,
        }  # fmt: skip
    return {"run_key": earlier.run_key, "digest": earlier.digest, "families": families}
