"""EnvironmentCache: features and scalers are computed once, for all candidates, iterations and later runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.data import data_hash
from gpupipe.data.panel import Panel
from gpupipe.estimators.torch.scaler import WindowScaler
from gpupipe.features.matrix import Features, compute_features, feature_names, hash_of
from gpupipe.store.cache import Cached, Request, ResultCache, load_array, save_array
from gpupipe.store.content_store import Store
from gpupipe.workloads.agent.market import Market
from gpupipe.workloads.agent.windows import Rows

KIND = "environment"  # of cached results
FEATURES = "agent//features"  # their names begin so
SCALER = "agent//scaler"


@dataclass
class CacheCounts:
    """What was asked of a cache, and what it cost.

    asked, found: requests, and those that were answered without computing.  seconds: of computing.
    saved: seconds that the found ones took when they were computed.

    >>> CacheCounts(asked=4, found=3, seconds=0.5).hit_rate
    0.75
    """

    asked: int = 0
    found: int = 0
    seconds: float = 0.0
    saved: float = 0.0

    @property
    def hit_rate(self) -> float | None:
        """Share of the requests that were found; None without one."""
        return self.found / self.asked if self.asked else None


class EnvironmentCache:
    """Markets of one panel with features that are computed once, and scalers that are fitted once for their rows.

    on: False computes features of all bars up to `until`, and the scaler, for every market, as a training without a
        cache does. The markets are the same to the last bit.
    store, run_key: where results are kept, by the hash of what they are computed from, for the run of this key.

    Threads may share it. The features are of the whole panel: a row's features depend on no later row.
    """

    def __init__(self, panel: Panel, settings: Config, store: Store, run_key: str, on: bool = True) -> None:
        self.panel, self.settings, self.on = panel, settings, on
        self.names = feature_names(settings.features.names)
        self._results = ResultCache(store, run_key)
        self._memory: dict[str, Cached] = {}
        self._lock = threading.Lock()
        self._data = data_hash(panel) if on else ""

    def market(self, fit: Rows, until: int, counts: CacheCounts | None = None) -> Market:
        """The market whose features are scaled by the rows `fit`.

        until: its rows from there on are not needed.  counts: to which the request is added.
        """
        counts = counts or CacheCounts()
        with self._lock:
            counts.asked += 2
            if not self.on:
                return self._computed(fit, until, counts)
            market = self._kept(FEATURES, {}, self._market, self._save_features, self._load_features, counts)

            def fitted() -> WindowScaler:
                return market.fitted(fit.begin, fit.end - 1).scaler

            rows = {"begin": fit.begin, "end": fit.end}
            scaler = self._kept(f"{SCALER}_{fit.begin}_{fit.end}", rows, fitted, _save_scaler, _load_scaler, counts)
            return market.scaled(scaler)

    def _kept(
        self,
        name: str,
        parts: dict[str, Any],
        make: Callable[[], Any],
        save: Callable[[Store, Any], dict[str, Any]],
        load: Callable[[Store, dict[str, Any]], Any],
        counts: CacheCounts,
    ) -> Any:
        """A value from memory, else from the store, else computed."""
        if name in self._memory:
            return _found(self._memory[name], counts)
        formulas = hash_of(self.names, _definitions(self.names))
        request = Request(name, {"data": self._data, "features": formulas, "device": self.panel.device.kind, **parts})
        store = self._results.store
        result = self._results.cached(
            KIND, request, make, lambda value: save(store, value), lambda record: load(store, record)
        )
        assert result is not None, "a run computes missing results"
        self._memory[name] = result
        if result.reused:
            return _found(result, counts)
        counts.seconds += result.seconds
        return result.value

    def _market(self, features: Features | None = None) -> Market:
        identity = np.zeros(len(self.names), np.float32), np.ones(len(self.names), np.float32)
        scaler = WindowScaler(*identity, *identity)
        return Market.of(
            self.panel, self.names if features is None else features, scaler=scaler, **self.settings.market.rules()
        )

    def _computed(self, fit: Rows, until: int, counts: CacheCounts) -> Market:
        """A market from nothing, of the bars before `until`; its later rows hold no features."""
        began = time.perf_counter()
        before = self.panel.take(self.panel.device.xp.arange(self.panel.n_rows) < until)
        computed = compute_features(before, self.names)
        values = self.panel.device.xp.full((self.panel.n_rows, len(self.names)), np.nan, np.float32)
        values[:until] = computed.values
        market = self._market(Features(values, computed.names, computed.definitions, self.panel))
        market = market.fitted(fit.begin, fit.end - 1)
        counts.seconds += time.perf_counter() - began
        return market

    def _save_features(self, store: Store, market: Market) -> dict[str, Any]:
        return {"arrays": {"values": save_array(store, self.panel.device.to_host(market.features.values))}}

    def _load_features(self, store: Store, record: dict[str, Any]) -> Market:
        values = self.panel.device.asarray(load_array(store, record["arrays"]["values"]))
        return self._market(Features(values, self.names, _definitions(self.names), self.panel))


def _found(result: Cached, counts: CacheCounts) -> Any:
    """The value of a result that is there, which is counted."""
    counts.found += 1
    counts.saved += result.seconds
    return result.value


def _definitions(names: tuple[str, ...]) -> tuple[str, ...]:
    from gpupipe.features.formulas import FEATURES as FORMULAS

    return tuple(FORMULAS[name].definition for name in names)


def _save_scaler(store: Store, scaler: WindowScaler) -> dict[str, Any]:
    return {"scaler": scaler.as_dict()}


def _load_scaler(store: Store, record: dict[str, Any]) -> WindowScaler:
    return WindowScaler.from_dict(record["scaler"])
