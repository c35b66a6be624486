"""Incremental features: compute today's rows from a saved state and today's bars, bit for bit as a full recomputation.

features, state = begin_features(history)
features, state = state.advance(new_bars)
"""

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

from gpupipe.data.panel import BARS, Panel
from gpupipe.features import compute
from gpupipe.features.formulas.registry import FEATURES, Feature, PanelFunction
from gpupipe.features.matrix import Features, feature_names, hash_of
from gpupipe.features.series import Across
from gpupipe.runtime.device import Device, pick
from gpupipe.store.content_store import StoreError, write_atomic

FORMAT = 1
_ARRAYS = (*BARS, "time_ns", "offsets")


def begin_features(panel: Panel, names: str | Iterable[str] = "default") -> tuple[Features, FeatureState]:
    """`compute_features` of a whole history, and the state from which `FeatureState.advance` resumes.

    Raises ValueError for unknown names and for a feature that is a function of a panel: its look-back is not
    known, so it cannot be updated.
    """
    features = [FEATURES[name] for name in feature_names(names)]
    for feature in features:
        if isinstance(feature.series, PanelFunction):
            raise ValueError(
                f"feature {feature.name} is a function of a panel and cannot be updated incrementally: leave it out"
            )
    out = panel.device.xp.empty((panel.n_rows, len(features)), dtype=np.float32)
    program_state = compute.compute(panel, features, compute.float_sink(panel, out))
    return _features(out, features, panel), _state_after(panel, features, program_state)


@dataclass(frozen=True)
class FeatureState:
    """Everything a later update needs to know of a history.

    names: the columns.  hash: of their definitions, as `Features.hash`.
    tail: the last bars of every symbol: as many as the longest formula looks back, and all bars of the last times of
        its sector that a cross-sectional column looks back on.
    program_state: the state of each recursive average, and the compared series on the rows of the tail.

        >>> from gpupipe import begin_features, simulate
        >>> features, state = begin_features(simulate(11, 300, seed=1), ["roc_5", "rsi_14"])
        >>> features.n_rows, state.tail.n_rows  # of 300 bars for each of 11 symbols, 5 are kept
        (3300, 55)
    """

    names: tuple[str, ...]
    hash: str
    tail: Panel = field(repr=False)
    program_state: compute.ProgramState = field(repr=False)

    def advance(self, bars: Panel) -> tuple[Features, FeatureState]:
        """The features of new bars, bit for bit those of the whole history, and the state after them.

        bars: the new bars only, any number for each symbol; new symbols are allowed. Each must be later than its
            symbol's last bar and, with cross-sectional columns, later than its sector's last bar.
        Raises ValueError for earlier bars, for bars on another device, and for a symbol that has changed its sector.
        """
        features = [FEATURES[name] for name in self.names]
        self._check(bars, features)
        both, is_new = _joined(self.tail, bars)
        xp, asarray = both.device.xp, both.device.asarray
        n_before = _rows_of(self.tail, both.symbols)
        state = compute.new_state(both, features)
        known = set(self.tail.symbols)
        earlier = asarray(np.flatnonzero([symbol in known for symbol in both.symbols]))
        state.recursions[earlier] = self.program_state.recursions
        state.compared[xp.flatnonzero(~is_new)] = self.program_state.compared
        sink = compute.float_sink(both, xp.empty((both.n_rows, len(features)), dtype=np.float32))
        compute.run_formulas(both, features, sink, state, both.offsets[:-1] + asarray(n_before))
        recent = xp.flatnonzero(is_new | _in_last_times(both, features, ~is_new))
        compute.write_cross_sections(both, features, sink, state, recent)
        new_rows = sink.out[xp.flatnonzero(is_new)]
        return _features(new_rows, features, bars), _state_after(both, features, state)

    def _check(self, bars: Panel, features: Sequence[Feature]) -> None:
        if not isinstance(bars, Panel):
            raise ValueError(f"the bars are a {type(bars).__name__}, expected a Panel; read(frame) makes one")
        tail, to_host = self.tail, self.tail.device.to_host
        if bars.device.kind != tail.device.kind:
            raise ValueError(f"the bars are on {bars.device.kind}, the state is on {tail.device.kind}; use Panel.to")
        sector_of = dict(zip(tail.symbols, tail.sector, strict=True))
        for symbol, sector in zip(bars.symbols, bars.sector, strict=True):
            if sector_of.get(symbol, sector) != sector:
                raise ValueError(
                    f"{symbol} was in sector {sector_of[symbol]} and is in {sector} now; begin again with its history"
                )
        is_cross_sectional = any(isinstance(feature.series, Across) for feature in features)
        last_of_symbol = _times_by_symbol(to_host(tail.time_ns), to_host(tail.offsets), tail.symbols, -1)
        first_of_symbol = _times_by_symbol(to_host(bars.time_ns), to_host(bars.offsets), bars.symbols, 0)
        last_of_sector: dict[str, int] = {}
        for symbol, time_ns in last_of_symbol.items():
            last_of_sector[sector_of[symbol]] = max(time_ns, last_of_sector.get(sector_of[symbol], time_ns))
        for symbol, sector in zip(bars.symbols, bars.sector, strict=True):
            if symbol not in first_of_symbol:
                continue
            last = last_of_symbol.get(symbol)
            if is_cross_sectional and sector in last_of_sector:
                last = last_of_sector[sector]
            if last is not None and first_of_symbol[symbol] <= last:
                times = np.array([first_of_symbol[symbol], last]).astype("datetime64[ns]").astype("datetime64[s]")
                raise ValueError(
                    f"{symbol} has a bar at {times[0]}, but the state already covers {times[1]}: "
                    "pass later bars only, or begin again with the whole history"
                )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to one file, atomically, as numpy arrays and JSON; nothing is pickled."""
        to_host, buffer = self.tail.device.to_host, io.BytesIO()
        header = {
            "format": FORMAT, "names": self.names, "hash": self.hash, "symbols": self.tail.symbols,
            "sector": self.tail.sector,
        }  # fmt: skip
        arrays = {name: to_host(getattr(self.tail, name)) for name in _ARRAYS}
        if self.tail.local_ns is not None:
            arrays["local_ns"] = to_host(self.tail.local_ns)
        arrays |= {"states": to_host(self.program_state.recursions), "aside": to_host(self.program_state.compared)}
        np.savez(buffer, about=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        write_atomic(pathlib.Path(path), buffer.getvalue())


def load_state(path: str | os.PathLike[str], device: str | Device = "auto") -> FeatureState:
    """Read a saved state onto `device`: "auto", "cpu", "cuda" or a Device.

    Raises StoreError if the file cannot be read, is incomplete, or was written with other formulas.
    """
    try:
        with np.load(io.BytesIO(pathlib.Path(path).read_bytes()), allow_pickle=False) as stored:
            optional = ["local_ns"] if "local_ns" in stored else []
            arrays = {name: stored[name] for name in (*_ARRAYS, *optional, "states", "aside")}
            header = json.loads(stored["about"].tobytes())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except (EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StoreError(
            f"{path} is no state of features, or is incomplete; begin again with the whole history"
        ) from error
    device = device if isinstance(device, Device) else pick(device)
    names = tuple(header["names"])
    known = header["format"] == FORMAT and all(name in FEATURES for name in names)
    if not known or _hash([FEATURES[name] for name in names]) != header["hash"]:
        raise StoreError(
            f"{path} was written with other formulas than this gpupipe has; begin again with the whole history"
        )
    moved = {name: device.asarray(array) for name, array in arrays.items()}
    program_state = compute.ProgramState(moved.pop("states"), moved.pop("aside"))
    tail = Panel.of_bars(**moved, symbols=tuple(header["symbols"]), sector=tuple(header["sector"]))
    return FeatureState(names, header["hash"], tail, program_state)


def _features(out: Any, features: Sequence[Feature], panel: Panel) -> Features:
    names = tuple(feature.name for feature in features)
    return Features(out, names, tuple(feature.definition for feature in features), panel)


def _hash(features: Sequence[Feature]) -> str:
    return hash_of([feature.name for feature in features], [feature.definition for feature in features])


def _state_after(panel: Panel, features: Sequence[Feature], state: compute.ProgramState) -> FeatureState:
    """The state after the last row of every symbol of the panel."""
    xp, n = panel.device.xp, max(1, compute.program_of(features).halo)
    ends = panel.offsets[1:][panel.symbol_of_row]
    keep = (ends - xp.arange(panel.n_rows) <= n) | _in_last_times(panel, features, xp.ones(panel.n_rows, dtype=bool))
    tail = panel.take(keep, keep_empty=True)
    names = tuple(feature.name for feature in features)
    kept_state = compute.ProgramState(state.recursions, state.compared[keep])
    return FeatureState(names, _hash(features), tail, kept_state)


def _in_last_times(panel: Panel, features: Sequence[Feature], among: Any) -> Any:
    """bool (n_rows,): of the rows `among`, bool (n_rows,), those that cross-sections of a next row depend on."""
    xp, n = panel.device.xp, compute.most_earlier_times(features)
    selected = xp.zeros(panel.n_rows, dtype=bool)
    if n == 0:
        return selected
    sector_of_row = panel.device.asarray(panel.group_of_symbol)[panel.symbol_of_row]
    for sector in range(len(panel.groups)):
        rows = among & (sector_of_row == sector)
        times = xp.unique(panel.time_ns[rows])
        if len(times):
            selected |= rows & (panel.time_ns >= times[-min(n, len(times))])
    return selected


def _joined(old: Panel, new: Panel) -> tuple[Panel, Any]:
    """One panel of the rows of both, each symbol's old rows first; and bool (n_rows,), whether a row is new."""
    xp, asarray = old.device.xp, old.device.asarray
    sector_of = dict(zip((*old.symbols, *new.symbols), (*old.sector, *new.sector), strict=True))
    symbols = tuple(sorted(sector_of))
    position = {symbol: k for k, symbol in enumerate(symbols)}
    codes = [
        asarray(np.array([position[symbol] for symbol in panel.symbols], dtype=np.int64))[panel.symbol_of_row]
        for panel in (old, new)
    ]
    code = xp.concatenate(codes)
    order = xp.lexsort(xp.stack([xp.arange(len(code)), code]))
    n_rows = sum(_rows_of(panel, symbols) for panel in (old, new))
    clock_ns = xp.concatenate([old.clock_ns, new.clock_ns])[order]
    both = Panel.of_bars(
        **{
            name: xp.concatenate([getattr(old, name), getattr(new, name)])[order] for name in (*BARS, "time_ns")
        },
        local_ns=None if old.local_ns is None and new.local_ns is None else clock_ns,
        offsets=asarray(np.concatenate([[0], np.cumsum(n_rows)]).astype(np.int64)),
        symbols=symbols, sector=tuple(sector_of[symbol] for symbol in symbols),
    )  # fmt: skip
    return both, order >= old.n_rows


def _rows_of(panel: Panel, symbols: Sequence[str]) -> np.ndarray:
    """int64 (len(symbols),): the number of rows of each symbol in a panel."""
    n_rows = dict(zip(panel.symbols, np.diff(panel.device.to_host(panel.offsets)).tolist(), strict=True))
    return np.array([n_rows.get(symbol, 0) for symbol in symbols], dtype=np.int64)


def _times_by_symbol(time_ns: np.ndarray, offsets: np.ndarray, symbols: Sequence[str], index: int) -> dict[str, int]:
    """The first (index 0) or last (index -1) time of every symbol that has rows."""
    ranges = zip(symbols, offsets[:-1], offsets[1:], strict=True)
    return {symbol: int(time_ns[start:stop][index]) for symbol, start, stop in ranges if stop > start}
