"""Training: all families, labels and sectors of a run as resumable units; pool first, then each sector."""

from __future__ import annotations

import itertools
import pathlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from gpupipe import config
from gpupipe.artifacts.summary import Skipped
from gpupipe.cross_validation.splits import Boundaries, Split
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import registry
from gpupipe.estimators.earlier import Earlier
from gpupipe.estimators.stacking import meta_learner
from gpupipe.estimators.training_set import Fold, labels_of
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import Device
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.task_graph import Costs, Place, Unit, available_cores, run_graph
from gpupipe.store.content_store import Store
from gpupipe.targets.classes import N_CLASSES
from gpupipe.training.cache_keys import (
    META,
    Ledger,
    Readable,
    base_parts,
    digest_of_arrays,
    key_of,
    load_models,
    save_models,
)
from gpupipe.training.fold_data import Which, make_fold
from gpupipe.training.fold_tasks import Elsewhere, Made, Round

FOLDS_AT_ONCE = 2  # in memory: the one that is trained, and the next one beside its last units


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
    at: the fold in time that is trained.
    earlier(family, sectors, labels): an earlier run's models that the final fold goes on from; None for nothing. The
        run key has to hold what they are.
    plan: how memory is gone about.  turns: of tasks that may find none left.
    elsewhere: workers that fit in the place of this process.
    advance(text): called after each unit.  seconds: by stage, filled while training.  costs: what units have taken.
    ledger: which units were in the store, and which were made.
    """

    datasets: Mapping[str, Dataset]
    splits: Mapping[str, Split]
    at: Boundaries
    settings: config.Config
    store: Store
    run_key: str
    device: Device
    jobs: int
    cache: pathlib.Path | None = None
    plan: memory.Plan = memory.AS_IT_IS
    elsewhere: Elsewhere | None = None
    earlier: Callable[[str, Sequence[str], Sequence[str]], Earlier | None] = lambda family, sectors, labels: None
    advance: Callable[[str], None] = lambda text: None
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    costs: Costs = field(default_factory=Costs)
    ledger: Ledger = field(default=None)  # type: ignore[assignment]
    turns: memory.Turns = field(default_factory=memory.Turns)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.ledger = self.ledger or Ledger(self.store, self.run_key)

    @property
    def threads(self) -> int:
        """Of a pooled fit, as many of which run at once as there are families and jobs."""
        return max(1, available_cores() // min(self.jobs, len(self.settings.training.models)))

    @property
    def folds_at_once(self) -> int:
        """How many folds may be in memory."""
        return 1 if self.plan.sparing else FOLDS_AT_ONCE

    def spent(self, stage: str, elapsed_s: float) -> None:
        """Add to the time of a stage."""
        with self._lock:
            self.seconds[stage] += elapsed_s


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
    """Train every group of sectors, all as one graph of units; raises UserError if nothing can be trained."""
    from threadpoolctl import threadpool_limits

    enough, skipped = sectors_with_enough(work)
    of_groups: list[_Group] = []
    units: list[Unit] = []
    order = itertools.count()
    opened: list[Unit] = []
    for sectors in groups(work.settings, enough):
        kept, missing = _labels_with_enough(work, sectors)
        skipped += missing
        if kept:
            own = _Group(work, sectors, kept)
            of_groups.append(own)
            units += own.units(order, opened)
    # One BLAS thread: more would make the last bits of a sum, and so the models, depend on the machine and on --jobs.
    with threadpool_limits(1, "blas"):
        run_graph(units, work.costs, work.jobs, work.folds_at_once, work.elsewhere.homes if work.elsewhere else 1)
    if work.ledger.asking:
        return [], skipped
    trained = [one for own in of_groups for one in own.trained()]
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


class _Group:
    """All families on one group of sectors: the final fold, the out-of-fold rounds, then the meta-learner."""

    def __init__(self, work: Work, sectors: tuple[str, ...], kept: Sequence[int]) -> None:
        self.work, self.sectors, self.kept = work, sectors, tuple(kept)
        self.names = [name for name in work.settings.training.models if name != META]
        self.stacks = META in work.settings.training.models
        self.final = self._final()
        self.rounds = self._out_of_fold() if self.stacks else []
        self.stacked: dict[str, list[meta_learner.MetaModel]] = {}
        self.stacking_s = 0.0
        self._label_names = tuple(work.datasets[sectors[0]].label_names[k] for k in kept)

    def _final(self) -> Round:
        work, labels = self.work, [self.work.datasets[self.sectors[0]].label_names[k] for k in self.kept]
        found = {name: work.earlier(name, self.sectors, labels) for name in self.names}
        families = [registry.family(name, earlier) for name, earlier in found.items()]
        started = {name: earlier for name, earlier in found.items() if earlier}
        return Round(work, Which(work.at, self.sectors, None, self.kept), families, None, started)

    def _out_of_fold(self) -> list[Round]:
        """Each training part predicted by models of the others, with the final models' choices."""
        work, families = self.work, [registry.family(name) for name in self.names]
        rounds: list[Round] = []
        for part in range(len(work.splits[self.sectors[0]].folds)):
            fitted = {s: work.splits[s].folds[part][0] for s in self.sectors}
            # A sector that begins late may have nothing to learn from but the part itself.
            able = tuple(s for s in self.sectors if len(fitted[s]) >= work.settings.training.min_rows)
            for _ in range(len(families) * (len(self.sectors) - len(able) + (not able))):
                work.advance(f"part{part + 1}: too few rows")
            if able:
                rounds.append(Round(work, Which(work.at, able, part, self.kept), families, self.final))
        return rounds

    def units(self, order: Iterator[int], opened: list[Unit]) -> list[Unit]:
        """The group's part of the graph. order: numbers for its places.  opened: the unit that opens the last place.

        Places are opened one after the other, so that all but the first are prepared while something is trained.
        """
        found: list[Unit] = []
        shared = self.work.settings.training.pool == "all"
        for one in (self.final, *self.rounds):
            own = one.units(Place(next(order), one.close, shared), opened[-1:])
            opened.append(own[0])
            found += own
        if self.stacks:
            n_rows = sum(len(rows) for rows in self._predicted().values())
            found.append(Unit("stack", n_rows, self._stack, tuple(found), Place(next(order), shared=shared)))
        return found

    def _predicted(self) -> dict[str, np.ndarray]:
        """Of each sector the rows that have out-of-fold predictions, in the order in which they are stacked."""
        cut = self.work.splits
        return {s: np.concatenate([np.empty(0, np.int64), *(
            one.which.predicted(cut, s)["oof"] for one in self.rounds if s in one.which.sectors
        )]) for s in self.sectors}  # fmt: skip

    def trained(self) -> list[Trained]:
        """What is there once all units are done."""
        found = []
        for s in self.sectors:
            of_family = {name: cast(Made, self.final.by_sector[name][s]) for name in self.names}
            made = {name: one.models for name, one in of_family.items()}
            seconds = {name: one.seconds for name, one in of_family.items()}
            said = {part: {name: one.said[part] for name, one in of_family.items()} for part in ("validation", "test")}
            if self.stacks:
                made[META], seconds[META] = self.stacked[s], self.stacking_s / len(self.sectors)
                for part in said.values():
                    part[META] = predict_meta(self.stacked[s], part, self.work.device)
            found.append(Trained(s, self._label_names, made, said["validation"], said["test"], seconds))
        return found

    def _stack(self, home: int) -> None:
        """Learn how to combine the families from what each said of rows that its models had not seen."""
        work, name = self.work, f"{'+'.join(self.sectors)}/{self.work.at.name}/{META}"
        saids = [made for one in self.rounds for of in one.by_sector.values() for made in of.values()]
        if any(made is None or "oof" not in made.said_digests for made in saids):
            work.ledger.missing("stack", name)
            return
        predicted = self._predicted()
        y = {s: labels_of(work.datasets[s], rows, self.kept) for s, rows in predicted.items()}
        parts = {
            **base_parts(META, work.device),
            "families": self.names,
            "sectors": list(self.sectors),
            "predictions": [
                [s, [cast(Made, one.by_sector[f][s]).said_digests["oof"] for f in self.names]]
                for one in self.rounds for s in one.which.sectors
            ],
            "labels": digest_of_arrays(work.device.to_host(y[s]) for s in self.sectors),
            "settings": Readable(work.settings, META).values(None, None),
        }  # fmt: skip
        key = key_of(parts)
        record, began = work.ledger.find("stack", name, key, parts), time.perf_counter()
        if work.ledger.asking:
            return
        if record is None:
            memory.give_back()
            said = _Collected(self.sectors, self.names, self.rounds, len(self.kept), work.device)
            found = meta_learner.fit(
                tuple(self.names), said, y, cast(config.Config, Readable(work.settings, META)).meta,
                work.device,
            )  # fmt: skip
            self.stacking_s = time.perf_counter() - began
            saved = save_models(work.store, [model for s in self.sectors for model in found[s]])
            work.store.finish(key, {"name": name, "parts": parts, "seconds": self.stacking_s, "models": saved})
        else:
            loaded, self.stacking_s = load_models(work.store, record["models"], {}), record["seconds"]
            n = len(self.kept)
            found = {s: loaded[n * k : n * (k + 1)] for k, s in enumerate(self.sectors)}
        self.stacked = found
        work.spent(META, self.stacking_s)
        run_log.event(
            "unit", stage=META, unit=name, seconds=time.perf_counter() - began,
            rows=sum(map(len, predicted.values())), reused=record is not None, device=work.device.kind,
        )  # fmt: skip
        work.advance(META)


@dataclass(frozen=True)
class _Collected(Mapping[str, Any]):
    """Out-of-fold probabilities of each sector, float32 (n_families, n_rows, n_labels, 3), in the order of the rows.

    Put together when they are asked for: there is as much of them as of the features.
    """

    sectors: Sequence[str]
    families: Sequence[str]
    rounds: Sequence[Round]
    n_labels: int
    device: Device

    def __getitem__(self, sector: str) -> Any:
        nothing = np.empty((0, self.n_labels, N_CLASSES), np.float32)
        own = [one.by_sector for one in self.rounds if sector in one.which.sectors]
        by_family = [
            np.concatenate([nothing, *(cast(Made, of[family][sector]).said["oof"] for of in own)])
            for family in self.families
        ]
        return self.device.asarray(np.stack(by_family))

    def __iter__(self) -> Iterator[str]:
        return iter(self.sectors)

    def __len__(self) -> int:
        return len(self.sectors)


def final_fold(work: Work, group: tuple[str, ...]) -> tuple[Fold | None, list[int], list[Skipped]]:
    """The training and validation rows of a group, the numbers of its labels, and those with too few positives.

    None where no label has enough.
    """
    kept, skipped = _labels_with_enough(work, group)
    if not kept:
        return None, kept, skipped
    return make_fold(work, Which(work.at, group, None, tuple(kept))), kept, skipped


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


def predict_meta(
    stacked: Sequence[meta_learner.MetaModel], said: Mapping[str, np.ndarray], device: Device
) -> np.ndarray:
    """float32 (n_rows, n_labels, 3) on the host, from the other families' probabilities."""
    columns = []
    for k, model in enumerate(stacked):
        inputs = [device.asarray(said[name][:, k]) for name in model.families]
        columns.append(device.to_host(model.predict(inputs, device)))
    return np.stack(columns, axis=1)
