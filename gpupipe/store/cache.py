"""ResultCache: results are computed once for their inputs, kept in OUT, and loaded while the inputs stay equal."""

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

from gpupipe.store.content_store import KEY_LENGTH, Store, dump_json, pack_array, sha256_of, unpack_array

log = logging.getLogger("gpupipe")

NEW = "not there before"
WAITS = "an input is computed again"
INPUT_MODELS = ("models", "pooled models", "models of the final fold", "predictions")


@dataclass(frozen=True)
class Request:
    """The request for one result.

    name: for people; an older result of the same name is the result that this one replaces.
    parts: all inputs of the result, in the types of JSON; the cache key is their hash.

        >>> Request("sum", {"terms": [1, 1]}).key == Request("total", {"terms": [1, 1]}).key
        True
    """

    name: str
    parts: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The cache key: a SHA-256 over the parts, cut to KEY_LENGTH digits."""
        return sha256_of(dict(self.parts))[:KEY_LENGTH]


@dataclass(frozen=True)
class Cached:
    """A cached result.

    value: from `make` or `load`; None where it was only looked up.
    record: its record in the store: name, parts, seconds, and the fields from `save`.
    reused: whether the store had it before.

        >>> Cached(2, {"name": "sum", "parts": {}, "seconds": 0.5, "value": 2}, reused=True).seconds
        0.5
    """

    value: Any
    record: dict[str, Any]
    reused: bool

    @property
    def seconds(self) -> float:
        """Duration of the computation."""
        return float(self.record["seconds"])


@dataclass
class ResultCache:
    """The cached results of one run in a store, with counts of reused and computed results, and reasons.

    run_key: of the run that needs the results.
    lookup_only: for --dry-run and status: missing results are counted, and nothing is computed.
    reused, computed: number of reused and computed results by kind ("model", "prediction", "stack").
    why: how often each reason led to a computation.
    states: "done", "stale" (the store has a result of that name with other inputs) or "missing", by result name.

        >>> import tempfile
        >>> results = ResultCache(Store(tempfile.mkdtemp()), "run")
        >>> request = Request("1 + 1", {"terms": [1, 1]})
        >>> save, load = (lambda value: {"value": value}), (lambda record: record["value"])
        >>> [results.cached("sum", request, lambda: 2, save, load).reused for attempt in range(2)]
        [False, True]
    """

    store: Store
    run_key: str
    lookup_only: bool = False
    reused: Counter[str] = field(default_factory=Counter)
    computed: Counter[str] = field(default_factory=Counter)
    why: Counter[str] = field(default_factory=Counter)
    states: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _by_name: dict[str, list[dict[str, Any]]] | None = None

    def cached(
        self,
        kind: str,
        request: Request,
        make: Callable[[], Any],
        save: Callable[[Any], dict[str, Any]],
        load: Callable[[dict[str, Any]], Any],
    ) -> Cached | None:
        """Load a result from the store, or compute and save it; None where it is only looked up and missing.

        save(value): the fields of its record, in the types of JSON. Contents that save puts into the store are named
            there under "arrays" or "models" (see `objects_of`).
        load(record): the value.
        """
        results = self.cached_together(kind, [request], lambda missing: [make()], save, load)
        return results[0] if results else None

    def cached_together(
        self,
        kind: str,
        requests: Sequence[Request],
        make: Callable[[list[int]], Sequence[Any]],
        save: Callable[[Any], dict[str, Any]],
        load: Callable[[dict[str, Any]], Any],
    ) -> list[Cached] | None:
        """Load several results, and compute all missing ones in one call; see `cached`.

        make(missing): computes the values of the results at these positions.
        """
        results: dict[int, Cached] = {}
        missing = []
        for k, request in enumerate(requests):
            record = self.find(kind, request)
            if record is None:
                missing.append(k)
            else:
                results[k] = Cached(None if self.lookup_only else load(record), record, True)
        if missing and self.lookup_only:
            return None
        if missing:
            began = time.perf_counter()
            values = make(missing)
            seconds = (time.perf_counter() - began) / len(missing)
            for k, value in zip(missing, values, strict=True):
                parts = dict(requests[k].parts)
                record = {"name": requests[k].name, "parts": parts, "seconds": seconds, **save(value)}
                self.store.finish(requests[k].key, record)
                results[k] = Cached(value, record, False)
        return [results[k] for k in range(len(requests))]

    def is_there(self, request: Request) -> bool:
        """Whether the store has a result; nothing is counted."""
        return self.store.finished(request.key) is not None

    def find(self, kind: str, request: Request) -> dict[str, Any] | None:
        """Look up and count a result; its record, or None where it is missing or its contents are damaged."""
        record = self.store.finished(request.key)
        if record is not None and (bad := self.store.unsound(objects_of(record))):
            log.warning("%s was altered or lost in %s: it is computed again", request.name, self.store.out)
            if not self.lookup_only:
                self.store.drop(bad)
            record = None
        if not self.lookup_only:
            self.store.refer(self.run_key, request.key)
        reason = "" if record else self._reason(request)
        with self._lock:
            (self.reused if record else self.computed)[kind] += 1
            self.states[request.name] = "done" if record else "missing" if reason == NEW else "stale"
            if not record:
                self.why[reason] += 1
        return record

    def count_waiting(self, kind: str, name: str) -> None:
        """Count a result as missing because an input is missing."""
        with self._lock:
            self.computed[kind] += 1
            self.states[name] = "stale" if name in self._known() else "missing"
            self.why[WAITS] += 1

    def _known(self) -> dict[str, list[dict[str, Any]]]:
        if self._by_name is None:
            by_name: dict[str, list[dict[str, Any]]] = {}
            for _, record in self.store.units():
                by_name.setdefault(record["name"], []).append(record["parts"])
            self._by_name = by_name
        return self._by_name

    def _reason(self, request: Request) -> str:
        """The differences from the most similar result of the same name."""
        with self._lock:
            others = self._known().get(request.name, [])
        plain = json.loads(dump_json(dict(request.parts)))
        changes = [changed(other, plain) for other in others]
        fewest: list[str] = min(changes, key=len, default=[NEW])
        return ", ".join(fewest)

    def counts(self) -> dict[str, Any]:
        """Counts for the summary: {"model": {"reused", "made"}, ..., "why": {reason: times}}."""
        kinds = dict.fromkeys([*self.reused, *self.computed])
        counts = {kind: {"reused": self.reused[kind], "made": self.computed[kind]} for kind in kinds}
        return {**counts, "why": dict(self.why.most_common())}


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of the differences between the parts of two results; input models count if nothing else differs.

    >>> changed({"settings": {"depth": 4, "seed": 1}}, {"settings": {"depth": 6, "seed": 1}})
    ['depth']
    """
    names = []
    for part in sorted({*before, *now} - {*INPUT_MODELS}):
        old, new = before.get(part), now.get(part)
        if old != new and isinstance(old, dict) and isinstance(new, dict):
            names += [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        elif old != new:
            names.append(part)
    return names or ([WAITS] if before != now else ["altered"])


def objects_of(record: dict[str, Any]) -> list[str]:
    """Digests of the contents that a record names."""
    digests = list(record.get("arrays", {}).values())
    for model in record.get("models", []):
        digests += [] if model is None else model["files"].values()
    return list(dict.fromkeys(digests))


def save_array(store: Store, array: np.ndarray) -> str:
    """Put an array into the store; returns its digest."""
    return store.put(pack_array(array))


def load_array(store: Store, digest: str) -> np.ndarray:
    """Load an array from the store."""
    return unpack_array(store.get(digest))
