"""Fitting: all families on one fold, unit by unit; what the store has of the same inputs is taken from there."""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpupipe import config, memory, models, runlog
from gpupipe.models.fold import Fold, gather
from gpupipe.schedule import Unit, longest_first
from gpupipe.units import (
    Inputs,
    Readable,
    base_parts,
    blocks_of,
    digest_of_columns,
    digest_of_models,
    load_array,
    load_models,
    save_array,
    save_models,
)

if TYPE_CHECKING:
    from gpupipe.training import Work


@dataclass(frozen=True)
class Made:
    """The models of one stage, one for each label, with digests of them; and what they say of the rows asked for.

    said: of each part float32 (n_rows, n_labels, 3).  said_digests: of the objects that hold these.
    objects: digests of the models' files.  reused: whether all of it was in the store.
    """

    models: list[Any]
    digests: tuple[str, ...]
    seconds: float
    said: dict[str, np.ndarray] = field(default_factory=dict)
    said_digests: dict[str, str] = field(default_factory=dict)
    objects: frozenset[str] = frozenset()
    reused: bool = False


# Of a family: its pooled stage, and that of each sector; None where a unit is not there and was only asked for.
Fitted = tuple[Made | None, dict[str, Made | None]]


def fit_families(
    work: Work, fold: Fold, families: Sequence[models.Family], kept: Sequence[int],
    predict: Mapping[str, Mapping[str, np.ndarray]], like: Mapping[str, Fitted] | None,
    started: Mapping[str, str] = types.MappingProxyType({}),
) -> dict[str, Fitted]:  # fmt: skip
    """All families on a fold: a family's pooled stage, then those of all sectors, beside those of other families.

    kept: numbers of the fold's labels in the datasets.  predict: rows to predict, by sector and name of the part.
    like: what the final fold made, whose choices an out-of-fold round takes.
    started: of the families that go on from an earlier run's models, the digest of these.
    """
    one_round = _Round(work, fold, kept, predict, like, started)
    pooled: dict[str, Made | None] = {}
    by_sector: dict[str, dict[str, Made | None]] = {family.name: {} for family in families}
    n_pool = sum(rows.n for rows in fold.fit.values())

    def fit_pool(family: models.Family) -> None:
        made = pooled[family.name] = one_round.pool(family)
        if made:
            work.costs.observe(f"{family.name} pool", n_pool, made.seconds)

    def fit_sector(family: models.Family, sector: str) -> None:
        made = by_sector[family.name][sector] = one_round.sector(family, sector, pooled[family.name])
        if made:
            work.costs.observe(family.name, fold.fit[sector].n, made.seconds)

    longest_first([
        Unit(f"{f.name} pool", n_pool, functools.partial(fit_pool, f), tuple(
            Unit(f.name, fold.fit[s].n, functools.partial(fit_sector, f, s)) for s in fold.sectors
        ))
        for f in families
    ], work.costs, work.jobs)  # fmt: skip
    return {f.name: (pooled[f.name], {s: by_sector[f.name][s] for s in fold.sectors}) for f in families}


class _Round:
    """One fold, and what its units are known by."""

    def __init__(
        self, work: Work, fold: Fold, kept: Sequence[int], predict: Mapping[str, Mapping[str, np.ndarray]],
        like: Mapping[str, Fitted] | None, started: Mapping[str, str],
    ) -> None:  # fmt: skip
        began = time.perf_counter()
        self.work, self.fold, self.kept, self.predict, self.like = work, fold, kept, predict, like
        self.started, self.turns = started, memory.Turns()
        self.inputs = Inputs.of(fold)
        self.rows = {
            s: {part: digest_of_columns(work.datasets[s], at) for part, at in parts.items()}
            for s, parts in predict.items()
        }
        self.name = f"{'+'.join(fold.sectors)}/{fold.name}"
        work.spent("hashing", time.perf_counter() - began)

    def pool(self, family: models.Family) -> Made | None:
        """The pooled stage."""
        like = self.like[family.name][0] if self.like else None

        def make(labels: Sequence[int], settings: config.Config) -> list[Any]:
            return family.fit_pool(self.fold.of_labels(labels), settings, _some(like, labels))

        began = time.perf_counter()
        made = self._fit(family, None, None, like, make)
        n_rows = sum(rows.n for rows in self.fold.fit.values())
        return self._finished(family, f"{self.name}/{family.name}/pool", made, began, n_rows)

    def sector(self, family: models.Family, sector: str, pooled: Made | None) -> Made | None:
        """The stage of a sector, and what its models say of the rows asked for."""
        like = self.like[family.name][1][sector] if self.like else None

        def make(labels: Sequence[int], settings: config.Config) -> list[Any]:
            fold, from_pool = self.fold.of_labels(labels), _some(pooled, labels)
            return family.fit_sector(fold, sector, settings, from_pool, _some(like, labels))

        began = time.perf_counter()
        made = self._fit(family, sector, pooled, like, make)
        name = f"{self.name}/{family.name}/{sector}"
        made = self._with_predictions(family, sector, name, made)
        return self._finished(family, name, made, began, self.fold.fit[sector].n)

    def _finished(
        self, family: models.Family, name: str, made: Made | None, began: float, n_rows: int
    ) -> Made | None:
        """Tell of a unit that is there now; `began` and now span what this run did for it."""
        if made and not self.work.ledger.asking:
            kept = made.objects | set(made.said_digests.values())
            runlog.event(
                "unit", stage=family.name, unit=name, seconds=time.perf_counter() - began, rows=n_rows,
                reused=made.reused, bytes=sum(map(self.work.store.size, kept)), device=self.work.device.kind,
            )  # fmt: skip
        if made:
            self.work.spent(family.name, made.seconds)
        self.work.advance(name)
        return made

    def _fit(
        self, family: models.Family, sector: str | None, pooled: Made | None, like: Made | None,
        make: Callable[[Sequence[int], config.Config], list[Any]],
    ) -> Made | None:  # fmt: skip
        """A stage's models: those that are in the store, and the others made at once."""
        work, fold = self.work, self.fold
        name = f"{self.name}/{family.name}/{sector or 'pool'}"
        settings = Readable(work.settings, family.name)
        # Models that others go on from are those of all labels.
        blocks = [range(fold.n_labels)] if family.name in self.started else blocks_of(family.name, fold)
        names = [name if len(block) == fold.n_labels else f"{name}/{fold.label_names[block[0]]}" for block in blocks]
        if (sector is not None and pooled is None) or (self.like is not None and like is None):
            for one in names:  # asked for alone, and what they wait for is not there
                work.ledger.missing("model", one)
            return None
        found: dict[int, Any] = {}
        saved: dict[int, Any] = {}
        seconds, missing = 0.0, []
        boosters: dict[bytes, Any] = {}
        for block, own in zip(blocks, names, strict=True):
            parts = self._parts(family.name, sector, block, settings, pooled, like)
            key, record = work.ledger.find("model", own, parts)
            if record is None:
                missing.append((block, own, key, parts))
                continue
            seconds += record["seconds"]
            saved |= dict(zip(block, record["models"], strict=True))
            if not work.ledger.asking:
                found |= dict(zip(block, load_models(work.store, record["models"], boosters), strict=True))
        if missing and work.ledger.asking:
            return None
        if missing:
            labels = sorted(k for block, *_ in missing for k in block)
            started = time.perf_counter()
            with work.device.stage(family.name, name):
                task = functools.partial(make, labels, cast(config.Config, settings))
                found |= dict(zip(labels, self.turns.run(task, fold.let_go, name), strict=True))
            elapsed_s = time.perf_counter() - started
            seconds += elapsed_s
            for block, own, key, parts in missing:
                kept = save_models(work.store, [found[k] for k in block])
                share_s = elapsed_s * len(block) / len(labels)
                work.store.finish(key, {"name": own, "parts": parts, "seconds": share_s, "models": kept})
                saved |= dict(zip(block, kept, strict=True))
        order = range(fold.n_labels)
        digests = tuple(digest_of_models([saved[k]]) for k in order)
        objects = frozenset(digest for model in saved.values() if model for digest in model["files"].values())
        return Made([found.get(k) for k in order], digests, seconds, objects=objects, reused=not missing)

    def _parts(
        self, family: str, sector: str | None, block: Sequence[int], settings: Readable, pooled: Made | None,
        like: Made | None,
    ) -> dict[str, Any]:  # fmt: skip
        """All that a unit's models depend on."""
        values = dict(self.inputs.fixed)
        for k in block:
            label = self.fold.label_names[k]
            for name, value in settings.values(sector, label).items():
                # Where labels have values of their own, each stands under its place among the unit's labels.
                same = values.setdefault(name, value) == value
                values |= {} if same else {f"{name} of label {block.index(k)}": value}
        return {
            **base_parts(family, self.work.device),
            "family": family,
            "stage": sector or "pool",
            "data": self.inputs.rows,
            "labels": [self.inputs.labels[k] for k in block],
            "settings": values,
            "pooled models": pooled and [pooled.digests[k] for k in block],
            "models of the final fold": like and [like.digests[k] for k in block],
            "what it starts from": self.started.get(family, ""),
        }

    def _with_predictions(self, family: models.Family, sector: str, name: str, made: Made | None) -> Made | None:
        """What a sector's models say of each part, float32 (n_rows, n_labels, 3)."""
        work, said, digests = self.work, dict[str, np.ndarray](), dict[str, str]()
        seconds, reused = (made.seconds, made.reused) if made else (0.0, False)
        for part, rows in self.predict[sector].items():
            own = f"{name}/{part}"
            if made is None:
                work.ledger.missing("prediction", own)
                continue
            parts = {
                **base_parts(family.name, work.device), "family": family.name, "models": list(made.digests),
                "data": self.rows[sector][part],
            }  # fmt: skip
            key, record = work.ledger.find("prediction", own, parts)
            if record is None and work.ledger.asking:
                continue
            if record is None:
                started, reused = time.perf_counter(), False
                with work.device.stage(family.name, own):
                    X = gather(work.datasets[sector], rows, self.kept).X
                    said[part] = work.device.to_host(family.predict(made.models, X, work.device))
                record = {
                    "name": own, "parts": parts, "seconds": time.perf_counter() - started,
                    "arrays": {"said": save_array(work.store, said[part])},
                }  # fmt: skip
                work.store.finish(key, record)
            elif not work.ledger.asking:
                said[part] = load_array(work.store, record["arrays"]["said"])
            digests[part] = record["arrays"]["said"]
            seconds += record["seconds"]
        return made and Made(made.models, made.digests, seconds, said, digests, made.objects, reused)


def _some(made: Made | None, labels: Sequence[int]) -> list[Any] | None:
    return None if made is None else [made.models[k] for k in labels]
