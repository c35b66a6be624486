"""Training: all families, labels and sectors of a run as resumable units; pool first, then each sector."""

from __future__ import annotations

import os
import pathlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from gpupipe import config, memory, models, runlog
from gpupipe.dataset import Dataset
from gpupipe.device import Device
from gpupipe.errors import UserError
from gpupipe.fitting import Fitted, Made, fit_families
from gpupipe.models import columns, meta
from gpupipe.models.earlier import Earlier
from gpupipe.models.fold import N_CLASSES, Fold, gather, shuffled, with_mean_weight_1
from gpupipe.schedule import Costs
from gpupipe.split import Split
from gpupipe.store import Store
from gpupipe.units import META, Ledger, Readable, base_parts, digest_of_arrays, load_models, save_models


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

    cache: a folder to keep bins in, where memory is short.  plan: what else is done then; as it is, if None.
    fold_name: of the folds whose models are not kept, so that their units have names of their own.
    earlier(family, sectors, labels): an earlier run's models that the final fold goes on from; None for nothing. The
        run key has to hold what they are.
    advance(text): called after each unit.  seconds: by stage, filled while training.  costs: what units have taken.
    ledger: which units were in the store, and which were made.
    """

    datasets: Mapping[str, Dataset]
    splits: Mapping[str, Split]
    settings: config.Config
    store: Store
    run_key: str
    device: Device
    jobs: int
    cache: pathlib.Path | None = None
    plan: memory.Plan = memory.AS_IT_IS
    fold_name: str = ""
    earlier: Callable[[str, Sequence[str], Sequence[str]], Earlier | None] = lambda family, sectors, labels: None
    advance: Callable[[str], None] = lambda text: None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    costs: Costs = field(default_factory=Costs)
    ledger: Ledger = field(default=None)  # type: ignore[assignment]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.ledger = self.ledger or Ledger(self.store, self.run_key)

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
    if not trained and not work.ledger.asking:
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
    going_on = {f.name: work.earlier(f.name, group, fold.label_names) for f in families}
    warm = [models.family(name, earlier) for name, earlier in going_on.items()]
    started = {name: earlier.digest for name, earlier in going_on.items() if earlier}
    final = fit_families(work, fold, warm, kept, predict, None, started)
    fold_names = fold.label_names
    del fold
    if work.ledger.asking:
        if META in settings.training.models:
            _stack(work, group, kept, families, final)
        return [], skipped
    of_sector = {s: {name: cast(Made, made[1][s]) for name, made in final.items()} for s in group}
    made = {s: {name: one.models for name, one in own.items()} for s, own in of_sector.items()}
    said = {
        part: {s: {name: one.said[part] for name, one in own.items()} for s, own in of_sector.items()}
        for part in ("validation", "test")
    }
    seconds = {s: {name: one.seconds for name, one in own.items()} for s, own in of_sector.items()}
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
    seed, cache, late = work.settings.seed, work.cache, work.plan.late
    memory.give_back()  # what the fold before this one held
    fit = {s: gather(work.datasets[s], shuffled(fit, seed, s), kept, cache, late) for s, (fit, _) in rows.items()}
    fold = Fold(
        name=f"{work.fold_name}-{name}" if work.fold_name else name,
        fit=with_mean_weight_1(fit, work.device),
        validation={s: gather(work.datasets[s], v, kept, cache, late) for s, (_, v) in rows.items() if v is not None},
        label_names=tuple(first.label_names[k] for k in kept),
        device=work.device,
        max_bin=training.max_bin,
        class_weight=training.class_weight,
        threads=max(1, available_cores() // min(work.jobs, len(training.models))),  # as many pooled fits run at once
        seed=seed,
        ml=work.settings.ml,
        cache=cache,
        sparing=work.plan.sparing,
    )
    if (n := work.settings.ml.feature_selection_top_n) and n < fold.n_columns:
        fold = columns.only(fold, columns.top_columns(fold, n))
    work.spent("gather", time.perf_counter() - started)
    return fold


def _stack(
    work: Work, group: tuple[str, ...], kept: list[int], families: Sequence[models.Family], final: Mapping[str, Fitted]
) -> tuple[dict[str, list[meta.MetaModel]], float]:
    """Predict each training part by models that have not seen it, and learn from that how to combine the families.

    Nothing where units are only asked for.
    """
    rounds = _out_of_fold(work, group, kept, families, final)
    memory.give_back()
    name = f"{'+'.join(group)}/{work.fold_name}/{META}"
    saids = [made for able, _ in rounds for of_sector in able.values() for made in of_sector]
    if any(made is None or "oof" not in made.said_digests for made in saids):
        work.ledger.missing("stack", name)
        return {}, 0.0
    predicted = {s: np.concatenate([np.empty(0, np.int64), *(rows[s] for able, rows in rounds if s in able)])
                 for s in group}  # fmt: skip
    y = {s: gather(work.datasets[s], rows, kept).y for s, rows in predicted.items()}
    parts = {
        **base_parts(META, work.device),
        "families": [f.name for f in families],
        "sectors": list(group),
        "predictions": [
            [s, [made.said_digests["oof"] for made in able[s] if made]] for able, _ in rounds for s in able
        ],
        "labels": digest_of_arrays(work.device.to_host(y[s]) for s in group),
        "settings": Readable(work.settings, META).values(None, None),
    }  # fmt: skip
    key, record = work.ledger.find("stack", name, parts)
    n_labels, began = len(kept), time.perf_counter()
    if record is None and not work.ledger.asking:
        started = time.perf_counter()
        stacked = meta.fit(
            tuple(f.name for f in families), _Collected(group, rounds, len(families), n_labels, work.device), y,
            cast(config.Config, Readable(work.settings, META)).meta, work.device,
        )  # fmt: skip
        elapsed_s = time.perf_counter() - started
        saved = save_models(work.store, [model for s in group for model in stacked[s]])
        work.store.finish(key, {"name": name, "parts": parts, "seconds": elapsed_s, "models": saved})
    elif record is not None and not work.ledger.asking:
        loaded, elapsed_s = load_models(work.store, record["models"], {}), record["seconds"]
        stacked = {s: loaded[n_labels * k : n_labels * (k + 1)] for k, s in enumerate(group)}
    else:
        return {}, 0.0
    work.spent(META, elapsed_s)
    runlog.event(
        "unit", stage=META, unit=name, seconds=time.perf_counter() - began, rows=sum(map(len, predicted.values())),
        reused=record is not None, device=work.device.kind,
    )  # fmt: skip
    work.advance(META)
    return stacked, elapsed_s


# Of an out-of-fold round: for each sector that had enough rows what each family made, and the rows predicted.
Round = tuple[dict[str, list[Made | None]], dict[str, np.ndarray]]


def _out_of_fold(
    work: Work, group: tuple[str, ...], kept: list[int], families: Sequence[models.Family], final: Mapping[str, Fitted]
) -> list[Round]:
    """Each training part predicted by models of the others, with the final models' choices."""
    rounds: list[Round] = []
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
        fitted = fit_families(work, fold, families, kept, predict, final)
        rounds.append(
            ({s: [fitted[f.name][1][s] for f in families] for s in able}, {s: folds[s][1] for s in able})
        )  # fmt: skip
    return rounds


@dataclass(frozen=True)
class _Collected(Mapping[str, Any]):
    """Out-of-fold probabilities of each sector, float32 (n_families, n_rows, n_labels, 3), in the order of the rows.

    Put together when they are asked for: there is as much of them as of the features.
    """

    group: Sequence[str]
    rounds: Sequence[Round]
    n_families: int
    n_labels: int
    device: Device

    def __getitem__(self, sector: str) -> Any:
        nothing = np.empty((self.n_families, 0, self.n_labels, N_CLASSES), np.float32)
        own = [[made.said["oof"] for made in able[sector] if made] for able, _ in self.rounds if sector in able]
        by_family = [np.concatenate([nothing[k], *(said[k] for said in own)]) for k in range(self.n_families)]
        return self.device.asarray(np.stack(by_family))

    def __iter__(self) -> Iterator[str]:
        return iter(self.group)

    def __len__(self) -> int:
        return len(self.group)


def _predict_meta(stacked: Sequence[meta.MetaModel], said: Mapping[str, np.ndarray], device: Device) -> np.ndarray:
    """float32 (n_rows, n_labels, 3) on the host, from the other families' probabilities."""
    columns = []
    for k, model in enumerate(stacked):
        inputs = [device.asarray(said[name][:, k]) for name in model.families]
        columns.append(device.to_host(model.predict(inputs, device)))
    return np.stack(columns, axis=1)
