"""Cached results: each is made once for its inputs, kept in OUT, and taken from there as long as the inputs stay."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.store.content_store import KEY_LENGTH, Store, dump_json, pack_array, sha256, unpack_array

log = logging.getLogger("gpupipe")

NEW = "not there before"
WAITS = "what it learns from is made again"
LEARNED_FROM = ("models", "pooled models", "models of the final fold", "predictions")


@dataclass(frozen=True)
class Wanted:
    """One result that is asked for.

    name: for people, and to tell which older result it replaces.
    parts: all that it depends on, as JSON holds it; its key is their hash.
    """

    name: str
    parts: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The key of a result with these parts."""
        return sha256(dump_json(dict(self.parts)))[:KEY_LENGTH]


@dataclass(frozen=True)
class Cached:
    """A result that is there.

    value: as `make` or `load` gave it; None where it was only asked for.
    record: what the store holds of it: name, parts, seconds, and what `save` gave.
    reused: whether it was there before.
    """

    value: Any
    record: dict[str, Any]
    reused: bool

    @property
    def seconds(self) -> float:
        """How long making it took."""
        return float(self.record["seconds"])


@dataclass
class ResultCache:
    """The cached results of one run in a store, with counts of what was reused and what was made, and why.

    run_key: of the run that needs the results.
    asking: nothing is made; results that are not there are counted as missing.
    reused, made: by kind ("model", "prediction", "stack"), how many.  why: how often each reason.
    states: for each result's name, "done", "stale" (there is one of that name, of other inputs) or "missing".

        >>> results = ResultCache(Store(folder), "run")                                     # doctest: +SKIP
        >>> results.cached("sum", Wanted("1 + 1", {"terms": [1, 1]}), lambda: 2,            # doctest: +SKIP
        ...                save=lambda value: {"value": value}, load=lambda record: record["value"]).value
        2
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

    def cached(
        self,
        kind: str,
        wanted: Wanted,
        make: Callable[[], Any],
        save: Callable[[Any], dict[str, Any]],
        load: Callable[[dict[str, Any]], Any],
    ) -> Cached | None:
        """The result: loaded where it is there, else made and saved; None where it is only asked for and missing.

        save(value): what to record of it, as JSON holds it; contents that it puts into the store are named there under
            "arrays" or "models" (see `objects_of`).  load(record): the value again.
        """
        results = self.cached_together(kind, [wanted], lambda missing: [make()], save, load)
        return results[0] if results else None

    def cached_together(
        self,
        kind: str,
        wanted: Sequence[Wanted],
        make: Callable[[list[int]], Sequence[Any]],
        save: Callable[[Any], dict[str, Any]],
        load: Callable[[dict[str, Any]], Any],
    ) -> list[Cached] | None:
        """Several results, of which those that are missing are made by one call.

        make(missing): values of the results with these positions. See `cached`.
        """
        results: dict[int, Cached] = {}
        missing = []
        for k, one in enumerate(wanted):
            record = self.find(kind, one)
            if record is None:
                missing.append(k)
            else:
                results[k] = Cached(None if self.asking else load(record), record, True)
        if missing and self.asking:
            return None
        if missing:
            began = time.perf_counter()
            values = make(missing)
            seconds = (time.perf_counter() - began) / len(missing)
            for k, value in zip(missing, values, strict=True):
                parts = dict(wanted[k].parts)
                record = {"name": wanted[k].name, "parts": parts, "seconds": seconds, **save(value)}
                self.store.finish(wanted[k].key, record)
                results[k] = Cached(value, record, False)
        return [results[k] for k in range(len(wanted))]

    def is_there(self, wanted: Wanted) -> bool:
        """Whether a result is in the store; nothing is counted."""
        return self.store.finished(wanted.key) is not None

    def find(self, kind: str, wanted: Wanted) -> dict[str, Any] | None:
        """The record of a result that is done, counted; its contents are intact, or it is not done."""
        record = self.store.finished(wanted.key)
        if record is not None and (bad := self.store.unsound(objects_of(record))):
            log.warning("%s was altered or lost in %s: it is made again", wanted.name, self.store.out)
            if not self.asking:
                self.store.drop(bad)
            record = None
        if not self.asking:
            self.store.refer(self.run_key, wanted.key)
        reason = "" if record else self._reason(wanted)
        with self._lock:
            (self.reused if record else self.made)[kind] += 1
            self.states[wanted.name] = "done" if record else "missing" if reason == NEW else "stale"
            if not record:
                self.why[reason] += 1
        return record

    def count_waiting(self, kind: str, name: str) -> None:
        """Count a result that waits for one that is missing."""
        with self._lock:
            self.made[kind] += 1
            self.states[name] = "stale" if name in self._known() else "missing"
            self.why[WAITS] += 1

    def _known(self) -> dict[str, list[dict[str, Any]]]:
        if self._by_name is None:
            by_name: dict[str, list[dict[str, Any]]] = {}
            for _, record in self.store.units():
                by_name.setdefault(record["name"], []).append(record["parts"])
            self._by_name = by_name
        return self._by_name

    def _reason(self, wanted: Wanted) -> str:
        """What differs from the most similar result of the same name."""
        with self._lock:
            others = self._known().get(wanted.name, [])
        plain = json.loads(dump_json(dict(wanted.parts)))
        changes = [changed(other, plain) for other in others]
        fewest: list[str] = min(changes, key=len, default=[NEW])
        return ", ".join(fewest)

    def counts(self) -> dict[str, Any]:
        """For the summary: {"model": {"reused", "made"}, ..., "why": {reason: times}}."""
        kinds = dict.fromkeys([*self.reused, *self.made])
        counts = {kind: {"reused": self.reused[kind], "made": self.made[kind]} for kind in kinds}
        return {**counts, "why": dict(self.why.most_common())}


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between the parts of two results: settings and libraries by name; models if nothing else does."""
    names = []
    for part in sorted({*before, *now} - {*LEARNED_FROM}):
        old, new = before.get(part), now.get(part)
        if old != new and isinstance(old, dict) and isinstance(new, dict):
            names += [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        elif old != new:
            names.append(part)
    return names or ([WAITS] if before != now else ["altered"])


def objects_of(record: dict[str, Any]) -> list[str]:
    """Digests of the contents that a result's record names."""
    digests = list(record.get("arrays", {}).values())
    for model in record.get("models", []):
        digests += [] if model is None else model["files"].values()
    return list(dict.fromkeys(digests))


def save_array(store: Store, array: np.ndarray) -> str:
    """Keep an array as a content; its digest."""
    return store.put(pack_array(array))


def load_array(store: Store, digest: str) -> np.ndarray:
    """The array again."""
    return unpack_array(store.get(digest))
