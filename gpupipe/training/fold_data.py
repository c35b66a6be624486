"""Folding: which rows a round of fitting has, and how they are gathered and fitted; the same here and on a worker."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from gpupipe import config
from gpupipe.cross_validation.splits import Boundaries, Split
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import columns, registry
from gpupipe.estimators.training_set import Fold, alone, gather, shuffled, with_mean_weight_1
from gpupipe.runtime import memory
from gpupipe.runtime.device import Device
from gpupipe.targets.classes import N_CLASSES
from gpupipe.training.cache_keys import Readable, digest_of_columns


class Data(Protocol):
    """What rounds are made of.

    splits: of each sector.  cache: a folder for columns and bins, where memory is short.  threads: of a pooled fit.
    """

    @property
    def datasets(self) -> Mapping[str, Dataset]:
        """Of each sector."""
        ...

    @property
    def splits(self) -> Mapping[str, Split]:
        """Of each sector."""
        ...

    @property
    def settings(self) -> config.Config:
        """Of the run."""
        ...

    @property
    def device(self) -> Device:
        """Where the datasets are."""
        ...

    @property
    def cache(self) -> pathlib.Path | None:
        """None where there is enough memory."""
        ...

    @property
    def plan(self) -> memory.Plan:
        """How memory is gone about."""
        ...

    @property
    def threads(self) -> int:
        """At least 1."""
        ...


@dataclass(frozen=True)
class Which:
    """Which rows a round of fitting has: all that a worker needs to know of it, beside the run's data.

    at: the fold in time.  sectors: pooled together.  part: number of the out-of-fold part that is left out; None in the
    final round.  kept: numbers of the round's labels in the datasets.
    """

    at: Boundaries
    sectors: tuple[str, ...]
    part: int | None
    kept: tuple[int, ...]

    @property
    def name(self) -> str:
        """final, or part1, part2, ...; behind the name of the fold in time, where it has one."""
        own = "final" if self.part is None else f"part{self.part + 1}"
        return f"{self.at.name}-{own}" if self.at.name else own

    def rows(self, splits: Mapping[str, Split]) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """Of each sector the numbers of the rows that are fitted, and of those that choose rounds."""
        if self.part is None:
            return {s: (splits[s].train, splits[s].validation) for s in self.sectors}
        return {s: (splits[s].folds[self.part][0], None) for s in self.sectors}

    def predicted(self, splits: Mapping[str, Split], sector: str) -> dict[str, np.ndarray]:
        """Numbers of the rows of a sector that its models are asked about, by the name of the part."""
        cut = splits[sector]
        if self.part is None:
            return {"validation": cut.validation, "test": cut.test}
        return {"oof": cut.folds[self.part][1]}


def shares(n_rows: Mapping[str, int], n_processes: int) -> list[tuple[str, ...]]:
    """The sectors that each of so many processes holds: the largest first, each to the one with the fewest rows.

    Only those that have some are returned; the order of a process's sectors is that of n_rows.
    """
    held = [0] * n_processes
    home: dict[str, int] = {}
    for sector in sorted(n_rows, key=lambda sector: -n_rows[sector]):
        home[sector] = int(np.argmin(held))
        held[home[sector]] += n_rows[sector]
    found = [tuple(sector for sector in n_rows if home[sector] == k) for k in range(n_processes)]
    return [own for own in found if own]


def make_fold(
    data: Data, which: Which, total: Callable[[np.ndarray], np.ndarray] = alone, pooled: Sequence[str] = ()
) -> Fold:  # fmt: skip
    """Gather the rows of a round, those of each sector in random order.

    total, pooled: where other processes hold other sectors of the round, as of Fold, and the sectors of all of them.
    """
    settings, rows = data.settings, which.rows(data.splits)
    training, kept, kind = settings.training, which.kept, (data.cache, data.plan.late)
    memory.give_back()  # what the fold before this one held
    fit = {s: gather(data.datasets[s], shuffled(own, settings.seed, s), kept, *kind) for s, (own, _) in rows.items()}
    names = data.datasets[which.sectors[0]].label_names
    fold = Fold(
        name=which.name,
        fit=with_mean_weight_1(fit, data.device, total),
        validation={s: gather(data.datasets[s], v, kept, *kind) for s, (_, v) in rows.items() if v is not None},
        label_names=tuple(names[k] for k in kept),
        device=data.device,
        max_bin=training.max_bin,
        class_weight=training.class_weight,
        threads=data.threads,
        seed=settings.seed,
        ml=settings.ml,
        cache=data.cache,
        sparing=data.plan.sparing,
        total=total,
    )
    if pooled:
        counted = np.zeros((len(pooled), fold.n_labels, N_CLASSES), np.int64)
        for sector, own in fold.counts.items():
            counted[pooled.index(sector)] = own
        fold = dataclasses.replace(fold, everywhere=dict(zip(pooled, total(counted), strict=True)))
    if (n := settings.ml.feature_selection_top_n) and n < fold.n_columns:
        fold = columns.only(fold, columns.top_columns(fold, n))
    return fold


def digests_of_predicted(data: Data, which: Which, sector: str) -> dict[str, str]:
    """Of each part of a sector that its models are asked about, the digest of X's rows."""
    parts = which.predicted(data.splits, sector)
    return {part: digest_of_columns(data.datasets[sector], at) for part, at in parts.items()}


def fit(
    family: registry.Family, fold: Fold, sector: str | None, labels: Sequence[int], settings: config.Config,
    pooled: Sequence[Any] | None, like: Sequence[Any] | None,
) -> list[Any]:  # fmt: skip
    """Models of some labels of a fold, by number: of a sector, going on from those pooled, or the pooled ones.

    pooled, like: of the same labels; like as in `models.Family`.
    """
    own, readable = fold.of_labels(labels), cast(config.Config, Readable(settings, family.name))
    if sector is None:
        return family.fit_pool(own, readable, like)
    return family.fit_sector(own, sector, readable, pooled, like)


def say(family: registry.Family, data: Data, which: Which, sector: str, part: str, fitted: Sequence[Any]) -> np.ndarray:
    """What the models of a sector say of one part, float32 (n_rows, n_labels, 3), on the host."""
    rows = which.predicted(data.splits, sector)[part]
    X = gather(data.datasets[sector], rows, which.kept).X
    return data.device.to_host(family.predict(fitted, X, data.device))
