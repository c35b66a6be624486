"""Features that go on: from what was kept yesterday and today's bars, today's rows alone, the same to the last bit."""

from __future__ import annotations

import io
import json
import os
import pathlib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.data.panel import COLUMNS, Panel
from gpupipe.features import compute
from gpupipe.features.expressions import Across
from gpupipe.features.formulas.registry import FEATURES, Feature, OnPanel
from gpupipe.features.matrix import Features, feature_names, hash_of
from gpupipe.runtime.device import Device, pick
from gpupipe.store.content_store import StoreError, write_atomic

FORMAT = 1
_ARRAYS = (*COLUMNS, "time_ns", "offsets")


def begin_features(panel: Panel, names: str | Iterable[str] = "default") -> tuple[Features, FeatureState]:
    """`compute_features` of a whole history, and the state from which `FeatureState.advance` goes on.

    Raises ValueError for a feature that a function of the whole panel makes: nobody knows what it looks back on.
    """
    features = [FEATURES[name] for name in feature_names(names)]
    for one in features:
        if isinstance(one.series, OnPanel):
            raise ValueError(f"feature {one.name} is a function of the whole panel and cannot go on; leave it out")
    out = panel.device.xp.empty((panel.n_rows, len(features)), dtype=np.float32)
    memory = compute.compute(panel, features, compute.floats(panel, out))
    made = _made(out, features, panel)
    return made, _kept(panel, features, memory)


@dataclass(frozen=True)
class FeatureState:
    """What is kept of a history so that features go on.

    names: the columns.  hash: of their definitions, as `Features.hash`.
    tail: the last bars of every symbol, as many as any formula looks back on, and those of the last times of its
        sector that a cross-sectional column looks back on.
    memory: where each recursion stands, and the compared series on the rows of the tail.
    """

    names: tuple[str, ...]
    hash: str
    tail: Panel = field(repr=False)
    memory: compute.Memory = field(repr=False)

    def advance(self, bars: Panel) -> tuple[Features, FeatureState]:
        """The features of new bars, equal bit for bit to those of the whole history, and the state after them.

        bars: the new bars alone, any number for each symbol, of new symbols too. They come after what was there: each
        later than its symbol's last bar, and, with cross-sectional columns, later than its sector's.
        Raises ValueError for bars that do not, and for a symbol that has changed its sector.
        """
        features = [FEATURES[name] for name in self.names]
        self._check(bars, features)
        both, is_new = _joined(self.tail, bars)
        xp, asarray = both.device.xp, both.device.asarray
        n_before = _rows_of(self.tail, both.symbols)
        memory = compute.new_memory(both, features)
        there = set(self.tail.symbols)
        memory.states[asarray(np.flatnonzero([symbol in there for symbol in both.symbols]))] = self.memory.states
        memory.aside[xp.flatnonzero(~is_new)] = self.memory.aside
        sink = compute.floats(both, xp.empty((both.n_rows, len(features)), dtype=np.float32))
        compute.run_formulas(both, features, sink, memory, both.offsets[:-1] + asarray(n_before))
        recent = xp.flatnonzero(is_new | _in_last_times(both, features, ~is_new))
        compute.compare(both, features, sink, memory, recent)
        made = _made(sink.out[xp.flatnonzero(is_new)], features, bars)
        return made, _kept(both, features, memory)

    def _check(self, bars: Panel, features: Sequence[Feature]) -> None:
        if not isinstance(bars, Panel):
            raise ValueError(f"the bars are a {type(bars).__name__}, expected a Panel; read(frame) makes one")
        tail, to_host = self.tail, self.tail.device.to_host
        if bars.device.kind != tail.device.kind:
            raise ValueError(f"the bars are on {bars.device.kind} and the state on {tail.device.kind}; use Panel.to")
        sector_of = dict(zip(tail.symbols, tail.sector, strict=True))
        for symbol, sector in zip(bars.symbols, bars.sector, strict=True):
            if sector_of.get(symbol, sector) != sector:
                raise ValueError(f"{symbol} was of {sector_of[symbol]}, and is of {sector} now; begin with its history")
        compares = any(isinstance(one.series, Across) for one in features)
        last_of_symbol = _of_symbols(to_host(tail.time_ns), to_host(tail.offsets), tail.symbols, -1)
        first_of_symbol = _of_symbols(to_host(bars.time_ns), to_host(bars.offsets), bars.symbols, 0)
        last_of_sector: dict[str, int] = {}
        for symbol, time_ns in last_of_symbol.items():
            last_of_sector[sector_of[symbol]] = max(time_ns, last_of_sector.get(sector_of[symbol], time_ns))
        for symbol, sector in zip(bars.symbols, bars.sector, strict=True):
            if symbol not in first_of_symbol:
                continue
            last = last_of_symbol.get(symbol)
            if compares and sector in last_of_sector:
                last = last_of_sector[sector]
            if last is not None and first_of_symbol[symbol] <= last:
                times = np.array([first_of_symbol[symbol], last]).astype("datetime64[ns]").astype("datetime64[s]")
                raise ValueError(
                    f"{symbol} has a bar of {times[0]}, and the state is of {times[1]} already: "
                    "give later bars only, or begin again with the whole history"
                )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, whole or not at all: arrays of numbers, and JSON; no pickle."""
        to_host, buffer = self.tail.device.to_host, io.BytesIO()
        about = {
            "format": FORMAT, "names": self.names, "hash": self.hash, "symbols": self.tail.symbols,
            "sector": self.tail.sector,
        }  # fmt: skip
        arrays = {name: to_host(getattr(self.tail, name)) for name in _ARRAYS}
        arrays |= {"states": to_host(self.memory.states), "aside": to_host(self.memory.aside)}
        np.savez(buffer, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        write_atomic(pathlib.Path(path), buffer.getvalue())


def load_state(path: str | os.PathLike[str], device: str | Device = "auto") -> FeatureState:
    """A state that was saved, on `device`: "auto", "cpu", "cuda" or a Device.

    Raises StoreError if the file cannot be read, or was made by formulas that are others now.
    """
    try:
        with np.load(io.BytesIO(pathlib.Path(path).read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in (*_ARRAYS, "states", "aside")}
            about = json.loads(stored["about"].tobytes())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except (EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} is no state of features, or not whole; begin again with the whole history") from error
    device = device if isinstance(device, Device) else pick(device)
    names = tuple(about["names"])
    known = about["format"] == FORMAT and all(name in FEATURES for name in names)
    if not known or _hash([FEATURES[name] for name in names]) != about["hash"]:
        raise StoreError(f"{path} was made by other formulas than this gpupipe has; begin again with the whole history")
    moved = {name: device.asarray(array) for name, array in arrays.items()}
    memory = compute.Memory(moved.pop("states"), moved.pop("aside"))
    tail = Panel.of_bars(**moved, symbols=tuple(about["symbols"]), sector=tuple(about["sector"]))
    return FeatureState(names, about["hash"], tail, memory)


def _made(out: Any, features: Sequence[Feature], panel: Panel) -> Features:
    return Features(out, tuple(one.name for one in features), tuple(one.definition for one in features), panel)


def _hash(features: Sequence[Feature]) -> str:
    return hash_of([one.name for one in features], [one.definition for one in features])


def _kept(panel: Panel, features: Sequence[Feature], memory: compute.Memory) -> FeatureState:
    """The state after the last rows of a panel."""
    xp, n = panel.device.xp, max(1, compute.program_of(features).halo)
    ends = panel.offsets[1:][panel.symbol_of_row]
    keep = (ends - xp.arange(panel.n_rows) <= n) | _in_last_times(panel, features, xp.ones(panel.n_rows, dtype=bool))
    kept_before = xp.concatenate([xp.zeros(1, xp.int64), xp.cumsum(keep).astype(xp.int64)])
    tail = Panel.of_bars(
        **{name: getattr(panel, name)[keep] for name in (*COLUMNS, "time_ns")}, offsets=kept_before[panel.offsets],
        symbols=panel.symbols, sector=panel.sector,
    )  # fmt: skip
    names = tuple(one.name for one in features)
    return FeatureState(names, _hash(features), tail, compute.Memory(memory.states, memory.aside[keep]))


def _in_last_times(panel: Panel, features: Sequence[Feature], among: Any) -> Any:
    """bool (n_rows,): rows of those last times of their sector, `among` some rows, that a next row is compared with."""
    xp = panel.device.xp
    n = max((one.series.n - 1 for one in features if isinstance(one.series, Across)), default=0)
    chosen = xp.zeros(panel.n_rows, dtype=bool)
    if n == 0:
        return chosen
    sector_of_row = panel.device.asarray(panel.sector_of_symbol)[panel.symbol_of_row]
    for sector in range(len(panel.sectors)):
        rows = among & (sector_of_row == sector)
        times = xp.unique(panel.time_ns[rows])
        if len(times):
            chosen |= rows & (panel.time_ns >= times[-min(n, len(times))])
    return chosen


def _joined(old: Panel, new: Panel) -> tuple[Panel, Any]:
    """The rows of two panels, each symbol's old before its new ones; and bool (n_rows,), which are new."""
    xp, asarray = old.device.xp, old.device.asarray
    sector_of = dict(zip((*old.symbols, *new.symbols), (*old.sector, *new.sector), strict=True))
    symbols = tuple(sorted(sector_of))
    place = {symbol: k for k, symbol in enumerate(symbols)}
    codes = [
        asarray(np.array([place[symbol] for symbol in panel.symbols], dtype=np.int64))[panel.symbol_of_row]
        for panel in (old, new)
    ]
    code = xp.concatenate(codes)
    order = xp.lexsort(xp.stack([xp.arange(len(code)), code]))
    n_rows = sum(_rows_of(panel, symbols) for panel in (old, new))
    both = Panel.of_bars(
        **{
            name: xp.concatenate([getattr(old, name), getattr(new, name)])[order] for name in (*COLUMNS, "time_ns")
        },
        offsets=asarray(np.concatenate([[0], np.cumsum(n_rows)]).astype(np.int64)),
        symbols=symbols, sector=tuple(sector_of[symbol] for symbol in symbols),
    )  # fmt: skip
    return both, order >= old.n_rows


def _rows_of(panel: Panel, symbols: Sequence[str]) -> np.ndarray:
    """int64 (len(symbols),): how many rows each symbol has in a panel."""
    n_rows = dict(zip(panel.symbols, np.diff(panel.device.to_host(panel.offsets)).tolist(), strict=True))
    return np.array([n_rows.get(symbol, 0) for symbol in symbols], dtype=np.int64)


def _of_symbols(time_ns: np.ndarray, offsets: np.ndarray, symbols: Sequence[str], which: int) -> dict[str, int]:
    """The first (0) or last (-1) time of every symbol that has one."""
    parts = zip(symbols, offsets[:-1], offsets[1:], strict=True)
    return {symbol: int(time_ns[a:b][which]) for symbol, a, b in parts if b > a}
