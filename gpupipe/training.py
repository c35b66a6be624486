"""Training: all families, labels and sectors of a run as resumable units; pool first, then each sector."""

from __future__ import annotations

import functools
import os
import pathlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe import config, models, runlog
from gpupipe.dataset import Dataset
from gpupipe.device import Device
from gpupipe.errors import UserError
from gpupipe.models import columns, meta
from gpupipe.models.fold import N_CLASSES, Fold, gather, shuffled, with_mean_weight_1
from gpupipe.schedule import Costs, Unit, longest_first
from gpupipe.split import Split
from gpupipe.store import Store, pack_array, sha256, unpack_array

META = "meta_learner"


@dataclass(frozen=True)
class Skipped:
    """Something that was asked for and not trained, and the rule that says why. label "" stands for all labels."""

    sector: str
    label: str
    reason: str


@dataclass(frozen=True)
class Trained:
    """The models of one sector, with what they say about the rows that nobody fitted.

    labels: names of the labels trained, in order.  models: for each family, one model for each label.
    validation, test: for each family float32 (n_rows, n_labels, 3), of the split's rows.
    seconds: for each family, of its sector stages.
    """

    sector: str
    labels: tuple[str, ...]
    models: dict[str, list[Any]]
    validation: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    seconds: dict[str, float]


@dataclass
class Work:
    """What training shares: data, settings, where results are kept, and who is told.

    cache: a folder to keep bins in, where memory is short.
    fold_name: of the folds whose models are not kept, so that their units have names of their own.
    advance(text): called after each unit.  seconds: by stage, filled while training.  costs: what units have taken.
    """

    datasets: Mapping[str, Dataset]
    splits: Mapping[str, Split]
    settings: config.Config
    store: Store
    run_key: str
    device: Device
    jobs: int
    cache: pathlib.Path | None = None
    fold_name: str = ""
    advance: Callable[[str], None] = lambda text: None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    costs: Costs = field(default_factory=Costs)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spent(self, stage: str, elapsed_s: float) -> None:
        """Add to the time of a stage."""
        with self._lock:
            self.seconds[stage] += elapsed_s


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def groups(settings: config.Config, sectors: Sequence[str]) -> list[tuple[str, ...]]:
    """Sectors that are pooled together: all of them, or each alone."""
    return [tuple(sectors)] if settings.training.pool == "all" else [(sector,) for sector in sectors]


def count_units(settings: config.Config, n_sectors: int) -> int:
    """How many units a run has: one pooled and one for each sector, for each family and fold; and the meta-learners."""
    families = [name for name in settings.training.models if name != META]
    n_groups = 1 if settings.training.pool == "all" else n_sectors
    folds = settings.split.parts - (settings.split.stacking == "forward")
    rounds = 1 + folds if META in settings.training.models else 1
    return len(families) * rounds * (n_groups + n_sectors) + (n_groups if META in settings.training.models else 0)


def train(work: Work) -> tuple[list[Trained], list[Skipped]]:
    """Train every group; raises UserError if nothing can be trained."""
    from threadpoolctl import threadpool_limits

    enough, skipped = sectors_with_enough(work)
    trained: list[Trained] = []
    # One BLAS thread: more would make the last bits of a sum, and so the models, depend on the machine and on --jobs.
    with threadpool_limits(1, "blas"):
        for group in groups(work.settings, enough):
            done, missing = _train_group(work, group)
            trained += done
            skipped += missing
    if not trained:
        raise UserError("no label can be trained: " + "; ".join(dict.fromkeys(s.reason for s in skipped)))
    return trained, skipped


def sectors_with_enough(work: Work) -> tuple[list[str], list[Skipped]]:
    """Sectors that have the rows that training.min_rows asks for; raises UserError if none has."""
    skipped: list[Skipped] = []
    enough = []
    for sector, cut in work.splits.items():
        smallest = min(len(cut.train) // 4, len(cut.validation), len(cut.test))
        if smallest < work.settings.training.min_rows:
            skipped.append(Skipped(sector, "", _too_short(cut, work.settings.training.min_rows)))
        else:
            enough.append(sector)
    if not enough:
        raise UserError("no sector has enough rows to train: " + "; ".join(f"{s.sector}: {s.reason}" for s in skipped))
    return enough, skipped


def _too_short(cut: Split, minimum: int) -> str:
    return (
        f"{len(cut.train):,} training, {len(cut.validation):,} validation and {len(cut.test):,} test rows; "
        f"training.min_rows = {minimum} asks for 4 x, 1 x and 1 x that many"
    )


def _train_group(work: Work, group: tuple[str, ...]) -> tuple[list[Trained], list[Skipped]]:
    """All families on one group of sectors: the final fold, the out-of-fold rounds, then the meta-learner."""
    fold, kept, skipped = final_fold(work, group)
    if fold is None:
        return [], skipped
    settings = work.settings
    families = [models.family(name) for name in settings.training.models if name != META]
    predict = {s: {"validation": work.splits[s].validation, "test": work.splits[s].test} for s in group}
    final = _fit_families(work, fold, families, kept, predict, None)
    fold_names = fold.label_names
    del fold
    made: dict[str, dict[str, list[Any]]] = {s: {name: final[name][1][s][0] for name in final} for s in group}
    said: dict[str, dict[str, dict[str, np.ndarray]]] = {
        part: {s: {name: final[name][1][s][1][part] for name in final} for s in group}
        for part in ("validation", "test")
    }
    seconds = {s: {name: final[name][1][s][2] for name in final} for s in group}
    if META in settings.training.models:
        stacked, elapsed_s = _stack(work, group, kept, families, final)
        for s in group:
            made[s][META], seconds[s][META] = stacked[s], elapsed_s / len(group)
            for part in said.values():
                part[s][META] = _predict_meta(stacked[s], part[s], work.device)
    return [
        Trained(s, fold_names, made[s], said["validation"][s], said["test"][s], seconds[s]) for s in group
    ], skipped  # fmt: skip


def final_fold(work: Work, group: tuple[str, ...]) -> tuple[Fold | None, list[int], list[Skipped]]:
    """The training and validation rows of a group, the numbers of its labels, and those with too few positives.

    None where no label has enough.
    """
    kept, skipped = _labels_with_enough(work, group)
    rows = {s: (work.splits[s].train, work.splits[s].validation) for s in group}
    return (_fold(work, "final", rows, kept) if kept else None), kept, skipped


def _labels_with_enough(work: Work, group: tuple[str, ...]) -> tuple[list[int], list[Skipped]]:
    """Labels whose BUY and SELL rows, over the group's training parts, each reach training.min_positives."""
    first = work.datasets[group[0]]
    minimum = work.settings.training.min_positives
    y = np.concatenate([work.device.to_host(work.datasets[s].y)[work.splits[s].train] for s in group])
    kept, skipped = [], []
    for k, name in enumerate(first.label_names):
        sell, buy = int((y[:, k] == 0).sum()), int((y[:, k] == 2).sum())
        if min(sell, buy) >= minimum:
            kept.append(k)
            continue
        where = "all sectors together" if len(group) > 1 else group[0]
        reason = f"{where}: {buy} BUY and {sell} SELL rows to train on; training.min_positives = {minimum} of each"
        skipped += [Skipped(sector, name, reason) for sector in group]
    return kept, skipped


def _fold(work: Work, name: str, rows: Mapping[str, tuple[np.ndarray, np.ndarray | None]], kept: list[int]) -> Fold:
    first = next(iter(work.datasets.values()))
    started = time.perf_counter()
    training = work.settings.training
    seed, cache = work.settings.seed, work.cache
    fit = {s: gather(work.datasets[s], shuffled(fit, seed, s), kept, cache) for s, (fit, _) in rows.items()}
    fold = Fold(
        name=f"{work.fold_name}-{name}" if work.fold_name else name,
        fit=with_mean_weight_1(fit, work.device),
        validation={s: gather(work.datasets[s], v, kept, cache) for s, (_, v) in rows.items() if v is not None},
        label_names=tuple(first.label_names[k] for k in kept),
        device=work.device,
        max_bin=training.max_bin,
        class_weight=training.class_weight,
        threads=max(1, available_cores() // min(work.jobs, len(training.models))),  # as many pooled fits run at once
        seed=seed,
        ml=work.settings.ml,
        cache=cache,
    )
    if (n := work.settings.ml.feature_selection_top_n) and n < fold.n_columns:
        fold = columns.only(fold, columns.top_columns(fold, n))
    work.spent("gather", time.perf_counter() - started)
    return fold


# Of a family: its pooled models, and for each sector its models, its predictions of the rows asked for, and seconds.
Fitted = tuple[list[Any], dict[str, tuple[list[Any], dict[str, np.ndarray], float]]]


def _fit_families(
    work: Work, fold: Fold, families: Sequence[models.Family], kept: list[int],
    predict: Mapping[str, Mapping[str, np.ndarray]], like: Mapping[str, Fitted] | None,
) -> dict[str, Fitted]:  # fmt: skip
    """All families on a fold: a family's pooled stage, then those of all sectors, beside those of other families."""
    group, n_pool = "+".join(fold.sectors), sum(rows.n for rows in fold.fit.values())
    pooled: dict[str, list[Any]] = {}
    by_sector: dict[str, dict[str, Any]] = {family.name: {} for family in families}

    def fit_pool(family: models.Family) -> None:
        chosen = like[family.name][0] if like else None
        name = f"{group}/{fold.name}/{family.name}/pool"
        made = _unit(work, name, family.name, n_pool, lambda: (family.fit_pool(fold, work.settings, chosen), {}))
        work.costs.observe(f"{family.name} pool", n_pool, made[2])
        pooled[family.name] = made[0]

    def fit_sector(family: models.Family, sector: str) -> None:
        def make() -> tuple[list[Any], dict[str, np.ndarray]]:
            chosen = like[family.name][1][sector][0] if like else None
            fitted = family.fit_sector(fold, sector, work.settings, pooled[family.name], chosen)
            said = {}
            for part, rows in predict[sector].items():
                X = gather(work.datasets[sector], rows, kept).X
                said[part] = work.device.to_host(family.predict(fitted, X, work.device))
            return fitted, said

        made = _unit(work, f"{group}/{fold.name}/{family.name}/{sector}", family.name, fold.fit[sector].n, make)
        work.costs.observe(family.name, fold.fit[sector].n, made[2])
        by_sector[family.name][sector] = made

    longest_first([
        Unit(f"{f.name} pool", n_pool, functools.partial(fit_pool, f), tuple(
            Unit(f.name, fold.fit[s].n, functools.partial(fit_sector, f, s)) for s in fold.sectors
        ))
        for f in families
    ], work.costs, work.jobs)  # fmt: skip
    return {f.name: (pooled[f.name], {s: by_sector[f.name][s] for s in fold.sectors}) for f in families}


def _stack(
    work: Work, group: tuple[str, ...], kept: list[int], families: Sequence[models.Family], final: Mapping[str, Any]
) -> tuple[dict[str, list[meta.MetaModel]], float]:
    """Predict each training part by models that have not seen it, and learn from that how to combine the families."""
    nothing = np.empty((len(families), 0, len(kept), N_CLASSES), np.float32)
    collected: dict[str, list[np.ndarray]] = {s: [nothing] for s in group}
    predicted: dict[str, list[np.ndarray]] = {s: [np.empty(0, np.int64)] for s in group}
    for part in range(len(work.splits[group[0]].folds)):
        folds = {s: work.splits[s].folds[part] for s in group}
        # A sector that begins late may have nothing to learn from but the part itself.
        able = [s for s in group if len(folds[s][0]) >= work.settings.training.min_rows]
        for _ in range(len(families) * (len(group) - len(able) + (not able))):
            work.advance(f"part{part + 1}: too few rows")
        if not able:
            continue
        fold = _fold(work, f"part{part + 1}", {s: (folds[s][0], None) for s in able}, kept)
        predict = {s: {"oof": folds[s][1]} for s in able}
        fitted = _fit_families(work, fold, families, kept, predict, final)
        for s in able:
            collected[s].append(np.stack([fitted[f.name][1][s][1]["oof"] for f in families]))
            predicted[s].append(folds[s][1])
    device = work.device
    probabilities = {s: device.asarray(np.concatenate(collected[s], axis=1)) for s in group}
    y = {s: gather(work.datasets[s], np.concatenate(predicted[s]), kept).y for s in group}
    started = time.perf_counter()
    names = tuple(f.name for f in families)
    stacked = meta.fit(names, probabilities, y, work.settings.meta, device)
    elapsed_s = time.perf_counter() - started
    work.spent(META, elapsed_s)
    work.advance(META)
    return stacked, elapsed_s


def _predict_meta(stacked: Sequence[meta.MetaModel], said: Mapping[str, np.ndarray], device: Device) -> np.ndarray:
    """float32 (n_rows, n_labels, 3) on the host, from the other families' probabilities."""
    columns = []
    for k, model in enumerate(stacked):
        inputs = [device.asarray(said[name][:, k]) for name in model.families]
        columns.append(device.to_host(model.predict(inputs, device)))
    return np.stack(columns, axis=1)


def _unit(
    work: Work, name: str, stage: str, n_rows: int, make: Callable[[], tuple[list[Any], dict[str, np.ndarray]]]
) -> tuple[list[Any], dict[str, np.ndarray], float]:
    """Do a unit of work, or take it from the store if an earlier run of the same key finished it."""
    key = sha256(f"{work.run_key}/{name}".encode())[:40]
    record = work.store.finished(key)
    if record is None:
        started = time.perf_counter()
        with work.device.stage(stage, name):
            fitted, arrays = make()
        elapsed_s = time.perf_counter() - started
        made = {
            "name": name,
            "seconds": elapsed_s,
            "models": [_save_model(work.store, model) for model in fitted],
            "arrays": {part: work.store.put(pack_array(array)) for part, array in arrays.items()},
        }
        work.store.finish(key, made)
    else:
        made = record
        boosters: dict[bytes, Any] = {}
        fitted = [_load_model(work.store, about, boosters) for about in record["models"]]
        arrays = {part: unpack_array(work.store.get(digest)) for part, digest in record["arrays"].items()}
        elapsed_s = record["seconds"]
    runlog.event(
        "unit", stage=stage, unit=name, seconds=elapsed_s, rows=n_rows, reused=record is not None,
        bytes=_bytes_of(work.store, made), device=work.device.kind,
    )  # fmt: skip
    work.spent(stage, elapsed_s)
    work.advance(name)
    return fitted, arrays, elapsed_s


def _bytes_of(store: Store, record: Mapping[str, Any]) -> int:
    """What a unit keeps; models that share a booster share its bytes."""
    kept = {digest for model in record["models"] if model for digest in model["files"].values()}
    return sum(map(store.size, kept | set(record["arrays"].values())))


def _save_model(store: Store, model: Any) -> Any:
    if model is None:
        return None
    return {**model.describe(), "files": {suffix: store.put(content) for suffix, content in model.files().items()}}


def _load_model(store: Store, about: Any, boosters: dict[bytes, Any]) -> Any:
    if about is None:
        return None
    files = {suffix: store.get(digest) for suffix, digest in about["files"].items()}
    return models.from_files(files, about, boosters)
