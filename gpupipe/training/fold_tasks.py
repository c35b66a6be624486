"""Fitting: all families on one fold, unit by unit; what the store has of the same inputs is taken from there."""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpupipe.estimators import registry
from gpupipe.estimators.earlier import Earlier
from gpupipe.estimators.training_set import Fold
from gpupipe.runtime import run_log
from gpupipe.runtime.task_graph import Place, Unit
from gpupipe.training import fold_data
from gpupipe.training.cache_keys import (
    Held,
    Inputs,
    Readable,
    base_parts,
    blocks_of,
    digest_of_models,
    key_of,
    load_array,
    load_models,
    save_array,
    save_models,
)
from gpupipe.training.fold_data import Which, digests_of_predicted, make_fold, shares

if TYPE_CHECKING:
    from gpupipe.dataset.dataset import Dataset
    from gpupipe.training.groups import Work


class Holders(Protocol):
    """Workers of whom each holds the rows of some sectors, where this process has the features of none."""

    def dataset(self, sector: str) -> tuple[Dataset, str, dict[str, float]]:
        """As `preparing.dataset_of`; rows of X are fetched when they are asked for."""
        ...

    def inputs(self, which: Which) -> dict[str, tuple[Held, dict[str, str]]]:
        """Of each sector of a round what its fold holds, and digests of X's rows in each part that is predicted."""
        ...


class Elsewhere(Protocol):
    """Workers that fit and predict in the place of this process; `home` is the number of one, below `homes`.

    What they give is what this process would have made, to the last bit.
    """

    @property
    def homes(self) -> int:
        """How many there are."""
        ...

    @property
    def holders(self) -> Holders | None:
        """None where each of them can have all rows, and this process has them too."""
        ...

    def home_of(self, sector: str | None, home: int) -> int | None:
        """The number of the worker that fits a sector's stage (None: the pooled one), asked for from `home`."""
        ...

    def open(self, which: Which, home: int) -> None:
        """Let a worker prepare a round, without waiting for it."""
        ...

    def close(self, which: Which) -> None:
        """Let go of a round."""
        ...

    def fit(
        self, which: Which, family: str, sector: str | None, labels: Sequence[int], pooled: Sequence[Any] | None,
        like: Sequence[Any] | None, earlier: Earlier | None, home: int,
    ) -> list[Any]:  # fmt: skip
        """As `folding.fit`, of the family that goes on from `earlier`."""
        ...

    def say(self, which: Which, family: str, sector: str, part: str, fitted: Sequence[Any], home: int) -> np.ndarray:
        """As `folding.say`."""
        ...


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


@dataclass(frozen=True)
class _Opened:
    """A round whose rows were gathered: the fold, where it is fitted here, and what its units are known by."""

    fold: Fold | None
    inputs: Inputs
    rows: dict[str, dict[str, str]]


class Round:
    """All families on one fold: a family's pooled stage, then those of all sectors, beside those of other families.

    like: the final fold's round, whose choices an out-of-fold round takes; None in the final one.
    started: the earlier run's models, of the families that go on from some.
    pooled, by_sector: what was made, by family; None where a unit is not there and was only asked for.
    """

    def __init__(
        self, work: Work, which: Which, families: Sequence[registry.Family], like: Round | None = None,
        started: Mapping[str, Earlier] = types.MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.work, self.which, self.families, self.like, self.started = work, which, families, like, started
        self.pooled: dict[str, Made | None] = {}
        self.by_sector: dict[str, dict[str, Made | None]] = {family.name: {} for family in families}
        names = work.datasets[which.sectors[0]].label_names
        self._labels = tuple(names[k] for k in which.kept)
        self._n_fit = {s: len(fitted) for s, (fitted, _) in which.rows(work.splits).items()}
        self._name = f"{'+'.join(which.sectors)}/{which.name}"
        self._open: _Opened | None = None
        self._units: dict[tuple[str, str | None], Unit] = {}

    def units(self, place: Place, after: Sequence[Unit]) -> list[Unit]:
        """The units of the round, each behind those that it needs.

        after: what is to be done before the round's rows are gathered.
        """
        n_pool = sum(self._n_fit.values())
        opening = Unit("prepare", n_pool, self._prepare, tuple(after), place, opens=True)
        of_trees = [family.name for family in self.families if family.name in registry.BY_BINS]
        chosen = [self.like._units[name, None] for name in of_trees] if self.like else []
        binning = Unit("bins", n_pool, self._bin, (opening, *chosen), place, ahead=True)
        found = [opening, binning]
        for family in self.families:
            needs: tuple[Unit, ...] = (binning if family.name in registry.BY_BINS else opening,)
            for sector in (None, *self.which.sectors):
                chosen = [self.like._units[family.name, sector]] if self.like else []
                n_rows = n_pool if sector is None else self._n_fit[sector]
                work = functools.partial(self._work, family, sector)
                unit = Unit(_kind(family, sector), n_rows, work, (*needs, *chosen), place)
                self._units[family.name, sector] = unit
                found.append(unit)
                if sector is None:
                    needs = (unit,)
        return found

    def close(self) -> None:
        """Let go of the rows and their bins."""
        self._open = None
        if self.work.elsewhere:
            self.work.elsewhere.close(self.which)

    def _prepare(self, home: int) -> None:
        """Gather the rows, and say what they are by digests."""
        began, work, fold, columns = time.perf_counter(), self.work, None, None
        if holders := work.elsewhere.holders if work.elsewhere else None:
            held = holders.inputs(self.which)
            work.spent("gather", time.perf_counter() - began)
        else:
            fold = make_fold(work, self.which)
            columns = fold.columns
            work.spent("gather", time.perf_counter() - began)
            if work.elsewhere and not work.ledger.asking:
                work.elsewhere.open(self.which, home)
            hashing = time.perf_counter()
            held = {s: (Held.of(fold, s), digests_of_predicted(work, self.which, s)) for s in self.which.sectors}
            work.spent("hashing", time.perf_counter() - hashing)
        n_rows = {s: dataset.n_rows for s, dataset in work.datasets.items()}
        spread = shares(n_rows, work.settings.training.spread) if work.settings.training.spread else []
        ours = [own for of in spread if (own := [s for s in of if s in self.which.sectors])]
        inputs = Inputs.of({s: own for s, (own, _) in held.items()}, work.settings, columns, ours)
        self._open = _Opened(None if work.elsewhere else fold, inputs, {s: parts for s, (_, parts) in held.items()})
        self._prepared("prepare", began)

    def _bin(self, home: int) -> None:
        """Make the bins that families of trees share, where some of them has something to fit."""
        began, fold = time.perf_counter(), self._opened.fold
        if fold is None or self.work.ledger.asking:
            return
        needed = [family.name for family in self.families if family.name in registry.BY_BINS and self._is_new(family)]
        if needed:
            registry.prepare(needed, fold, self.work.settings)
            self.work.spent("bins", time.perf_counter() - began)
            self._prepared("bins", began)

    def _is_new(self, family: registry.Family) -> bool:
        """Whether some of a family's pooled models are not in the store."""
        like = self.like.pooled[family.name] if self.like else None
        keys = (self._key(family, None, block, None, like)[0] for block in self._blocks(family))
        return any(self.work.store.finished(key) is None for key in keys)

    def _prepared(self, what: str, began: float) -> None:
        elapsed_s, n_rows = time.perf_counter() - began, sum(self._n_fit.values())
        self.work.costs.observe(what, n_rows, elapsed_s)
        if not self.work.ledger.asking:
            run_log.event(
                "prepared", stage=what, unit=f"{self._name}/{what}", seconds=elapsed_s, rows=n_rows,
                device=self.work.device.kind,
            )  # fmt: skip

    @property
    def _opened(self) -> _Opened:
        assert self._open is not None, "a round's units come after its rows"
        return self._open

    def _work(self, family: registry.Family, sector: str | None, home: int) -> None:
        """A family's stage of a sector, or the pooled one: taken from the store or made, with what it says."""
        began = time.perf_counter()
        pooled = None if sector is None else self.pooled[family.name]
        like = None
        if self.like:
            like = self.like.pooled[family.name] if sector is None else self.like.by_sector[family.name][sector]
        made = self._fit(family, sector, pooled, like, home)
        name = f"{self._name}/{family.name}/{sector or 'pool'}"
        if sector is None:
            self.pooled[family.name] = made
        else:
            made = self.by_sector[family.name][sector] = self._with_predictions(family, sector, name, made, home)
        n_rows = sum(self._n_fit.values()) if sector is None else self._n_fit[sector]
        if made:
            self.work.costs.observe(_kind(family, sector), n_rows, made.seconds)
            self.work.spent(family.name, made.seconds)
        if made and not self.work.ledger.asking:
            kept = made.objects | set(made.said_digests.values())
            run_log.event(
                "unit", stage=family.name, unit=name, seconds=time.perf_counter() - began, rows=n_rows,
                reused=made.reused, bytes=sum(map(self.work.store.size, kept)), device=self.work.device.kind,
                worker=self.work.elsewhere.home_of(sector, home) if self.work.elsewhere else None,
            )  # fmt: skip
        self.work.advance(name)

    def _blocks(self, family: registry.Family) -> list[list[int]]:
        """Numbers of the labels that are kept together."""
        everything = list(range(len(self._labels)))
        # Models that others go on from are those of all labels.
        return [everything] if family.name in self.started else blocks_of(family.name, everything, self.work.settings)

    def _fit(
        self, family: registry.Family, sector: str | None, pooled: Made | None, like: Made | None, home: int
    ) -> Made | None:  # fmt: skip
        """A stage's models: those that are in the store, and the others made at once."""
        work, n_labels = self.work, len(self._labels)
        name, blocks = f"{self._name}/{family.name}/{sector or 'pool'}", self._blocks(family)
        names = [name if len(block) == n_labels else f"{name}/{self._labels[block[0]]}" for block in blocks]
        if (sector is not None and pooled is None) or (self.like is not None and like is None):
            for one in names:  # asked for alone, and what they wait for is not there
                work.ledger.missing("model", one)
            return None
        found: dict[int, Any] = {}
        saved: dict[int, Any] = {}
        seconds, missing = 0.0, []
        boosters: dict[bytes, Any] = {}
        for block, own in zip(blocks, names, strict=True):
            key, parts = self._key(family, sector, block, pooled, like)
            record = work.ledger.find("model", own, key, parts)
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
                made = self._make(family, sector, labels, _some(pooled, labels), _some(like, labels), home)
            found |= dict(zip(labels, made, strict=True))
            elapsed_s = time.perf_counter() - started
            seconds += elapsed_s
            for block, own, key, parts in missing:
                kept = save_models(work.store, [found[k] for k in block])
                share_s = elapsed_s * len(block) / len(labels)
                work.store.finish(key, {"name": own, "parts": parts, "seconds": share_s, "models": kept})
                saved |= dict(zip(block, kept, strict=True))
        order = range(n_labels)
        digests = tuple(digest_of_models([saved[k]]) for k in order)
        objects = frozenset(digest for model in saved.values() if model for digest in model["files"].values())
        return Made([found.get(k) for k in order], digests, seconds, objects=objects, reused=not missing)

    def _make(
        self, family: registry.Family, sector: str | None, labels: Sequence[int], pooled: list[Any] | None,
        like: list[Any] | None, home: int,
    ) -> list[Any]:  # fmt: skip
        if self.work.elsewhere:
            earlier = self.started.get(family.name)
            return self.work.elsewhere.fit(self.which, family.name, sector, labels, pooled, like, earlier, home)
        fold = self._opened.fold
        assert fold is not None
        task = functools.partial(fold_data.fit, family, fold, sector, labels, self.work.settings, pooled, like)
        name = f"{self._name}/{family.name}/{sector or 'pool'}"
        return self.work.turns.run(task, fold.let_go, name)

    def _key(
        self, family: registry.Family, sector: str | None, block: Sequence[int], pooled: Made | None, like: Made | None
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """The key of a unit, and all that its models depend on."""
        inputs, settings = self._opened.inputs, Readable(self.work.settings, family.name)
        values = dict(inputs.fixed)
        for k in block:
            for name, value in settings.values(sector, self._labels[k]).items():
                # Where labels have values of their own, each stands under its place among the unit's labels.
                same = values.setdefault(name, value) == value
                values |= {} if same else {f"{name} of label {block.index(k)}": value}
        parts = {
            **base_parts(family.name, self.work.device),
            "family": family.name,
            "stage": sector or "pool",
            "data": inputs.rows,
            "labels": [inputs.labels[k] for k in block],
            "settings": values,
            "pooled models": pooled and [pooled.digests[k] for k in block],
            "models of the final fold": like and [like.digests[k] for k in block],
            "what it starts from": self.started[family.name].digest if family.name in self.started else "",
        }
        return key_of(parts), parts

    def _with_predictions(
        self, family: registry.Family, sector: str, name: str, made: Made | None, home: int
    ) -> Made | None:  # fmt: skip
        """What a sector's models say of each part, float32 (n_rows, n_labels, 3)."""
        work, said, digests = self.work, dict[str, np.ndarray](), dict[str, str]()
        seconds, reused = (made.seconds, made.reused) if made else (0.0, False)
        for part, rows in self._opened.rows[sector].items():
            own = f"{name}/{part}"
            if made is None:
                work.ledger.missing("prediction", own)
                continue
            parts = {
                **base_parts(family.name, work.device), "family": family.name, "models": list(made.digests),
                "data": rows,
            }  # fmt: skip
            key = key_of(parts)
            record = work.ledger.find("prediction", own, key, parts)
            if record is None and work.ledger.asking:
                continue
            if record is None:
                started, reused = time.perf_counter(), False
                with work.device.stage(family.name, own):
                    said[part] = (
                        work.elsewhere.say(self.which, family.name, sector, part, made.models, home)
                        if work.elsewhere else
                        fold_data.say(family, work, self.which, sector, part, made.models)
                    )  # fmt: skip
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


def _kind(family: registry.Family, sector: str | None) -> str:
    """What the cost of a stage is remembered by."""
    return f"{family.name} pool" if sector is None else family.name


def _some(made: Made | None, labels: Sequence[int]) -> list[Any] | None:
    return None if made is None else [made.models[k] for k in labels]
