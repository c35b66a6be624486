"""Merge incoming bars into the stored ones: new, restated, revised, moved or refused, and the files that change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data import jumps
from gpupipe.data.bars import Bars
from gpupipe.data.ingest import restate
from gpupipe.data.ingest.bar_table import NEW, BarTable, concatenate, keys
from gpupipe.data.panel import BARS
from gpupipe.data.report import time_text

KEPT = "kept"


@dataclass(frozen=True)
class Change:
    """A change of a symbol that was stored before, or the reason why its incoming bars were refused.

    kind: a kind of `restate`, "moved" to another sector, "looks like a split", or "kept" of a stored bar that came
    again as an older snapshot.  detail: a sentence.
    factor: multiplies the earlier prices; since: time of the first bar that was not restated. Both only if restated.

    >>> Change("AAA", "moved", "from sector energy to utilities").factor is None
    True
    """

    symbol: str
    kind: str
    detail: str
    factor: float | None = None
    since: str | None = None


@dataclass(frozen=True)
class MergeResult:
    """The bars after a merge.

    bars: all bars.  stale_files: positions of files with a bar that was changed, moved or removed.  new_bars: number
    of bars that were not stored before.  added: new symbols.  changes: sorted by symbol.  unchecked: symbols with
    new bars but no overlapping bar, so that a restatement cannot be detected.

    >>> from gpupipe.data.ingest.bar_table import empty
    >>> values = np.float32([[10, 11, 9, 10, 500]])
    >>> incoming = BarTable(("A",), ("energy",), np.int32([0]), np.int64([0]), values, np.int32([NEW]))
    >>> result = merge(empty(), incoming)
    >>> result.new_bars, result.added, result.unchecked
    (1, ('A',), ())
    """

    bars: BarTable
    stale_files: frozenset[int]
    new_bars: int
    added: tuple[str, ...]
    changes: tuple[Change, ...]
    unchecked: tuple[str, ...]


def merge(stored: BarTable, incoming: BarTable) -> MergeResult:
    """Merge two tables; neither is modified.

    `restate.decide` has the rules for one symbol. An incoming bar that equals the stored one leaves it as it was
    stored, so ingesting a source twice changes nothing. A symbol that comes with another sector moves there with all
    its bars.
    """
    names = tuple(sorted({*stored.names, *incoming.names}))
    old_sector = dict(zip(stored.names, stored.sectors, strict=True))
    new_sector = dict(zip(incoming.names, incoming.sectors, strict=True))
    sectors = tuple(new_sector.get(name) or old_sector[name] for name in names)
    merger = _Merger(stored.with_names(names, sectors), incoming.with_names(names, sectors))
    merger.decide()
    both = old_sector.keys() & new_sector.keys()
    for name in sorted(name for name in both if old_sector[name] != new_sector[name] and name not in merger.refused):
        merger.move(names.index(name))
        merger.changes.append(Change(name, "moved", f"from sector {old_sector[name]} to {new_sector[name]}"))
    refused_sector = {name: old_sector[name] for name in merger.refused}
    sectors = tuple(refused_sector.get(name, sector) for name, sector in zip(names, sectors, strict=True))
    bars, is_new = merger.result()
    changes = [*merger.changes, *_possible_splits(bars, is_new, old_sector, merger.unchecked)]
    return MergeResult(
        bars=dataclasses.replace(bars, sectors=sectors).without_unused_names(),
        stale_files=frozenset(merger.stale_files),
        new_bars=int(is_new.sum()),
        added=tuple(sorted(new_sector.keys() - old_sector.keys())),
        changes=tuple(sorted(changes, key=lambda change: (change.symbol, change.kind))),
        unchecked=tuple(names[k] for k in merger.unchecked),
    )


class _Merger:
    """Decides on each symbol and applies the decisions to copies of the stored values."""

    def __init__(self, old: BarTable, new: BarTable) -> None:
        """old, new: stored and incoming bars with the same names."""
        old_key, new_key = keys(old, new)
        self.old, self.new = old, new
        self.old_row = np.searchsorted(old_key, new_key)  # of each new row, where `overlaps`
        self.overlaps = np.zeros(new.n_rows, bool)
        inside = self.old_row < old.n_rows
        self.overlaps[inside] = old_key[self.old_row[inside]] == new_key[inside]
        self.values, self.file = old.values.copy(), old.file.copy()
        self.keep_old, self.keep_new = np.ones(old.n_rows, bool), ~self.overlaps
        self.compared = np.ones(new.n_rows, bool)  # not older snapshots of stored bars
        self.stale_files: set[int] = set()
        self.local_ns = old.local_ns
        self.changes: list[Change] = []
        self.refused: set[str] = set()
        self.unchecked: list[int] = []

    def decide(self) -> None:
        """Decide on every symbol that both tables have."""
        old, new = self.old, self.new
        different = np.zeros(new.n_rows, bool)
        rows = np.flatnonzero(self.overlaps)
        different[rows] = restate.differs(old.values[self.old_row[rows]], new.values[rows]).any(axis=1)
        self._keep_finished(np.flatnonzero(different))
        different &= self.compared
        n_new = np.bincount(new.symbol[~self.overlaps], minlength=len(new.names))
        n_overlapping = np.bincount(new.symbol[self.overlaps], minlength=len(new.names))
        old_offsets, new_offsets = old.offsets, new.offsets
        is_stored = np.diff(old_offsets) > 0
        self.unchecked = np.flatnonzero(is_stored & (n_new > 0) & (n_overlapping == 0)).tolist()
        self._fill_clock(rows)
        for k in np.unique(new.symbol[different]):
            old_rows = slice(old_offsets[k], old_offsets[k + 1])
            new_rows = slice(new_offsets[k], new_offsets[k + 1])
            self._apply(int(k), old_rows, new_rows)

    def _fill_clock(self, rows: np.ndarray) -> None:
        """Give stored bars whose clock is UTC the exchange's clock of the overlapping incoming bars `rows`."""
        old, new = self.old, self.new
        if new.local_ns is None:
            return
        stored = self.old_row[rows]
        filled = (old.clock_ns[stored] == old.time_ns[stored]) & (new.local_ns[rows] != new.time_ns[rows])
        if filled.any():
            self.local_ns = old.clock_ns.copy()
            self.local_ns[stored[filled]] = new.local_ns[rows[filled]]
            self.stale_files |= set(old.file[stored[filled]].tolist())

    def _keep_finished(self, rows: np.ndarray) -> None:
        """Keep stored bars that come again as older snapshots: the last bar of the source, or of the store.

        rows: of incoming bars that differ from the stored ones. If the source goes on after the last stored bar, that
        bar is finished there, unless its close shows that it is another state.
        """
        old_row = self.old_row[rows]
        is_last_new = np.isin(rows + 1, self.new.offsets)
        is_last_old = np.isin(old_row + 1, self.old.offsets)
        other_close = restate.differs(self.old.values[old_row], self.new.values[rows])[:, 3]
        rows = rows[is_last_new | (is_last_old & other_close)]
        rows = rows[restate.is_older_snapshot(self.old.values[self.old_row[rows]], self.new.values[rows])]
        self.compared[rows] = False
        for row in rows:
            day = time_text(int(self.new.time_ns[row]))
            detail = f"the bar of {day} came as an older snapshot of the stored one, which stays"
            self.changes.append(Change(self.new.names[self.new.symbol[row]], KEPT, detail))

    def _apply(self, k: int, old_rows: slice, new_rows: slice) -> None:
        """Decide on symbol k, whose overlapping bars differ, and apply the decision."""
        old, new = self.old, self.new
        reaches = bool(new.time_ns[new_rows.stop - 1] >= old.time_ns[old_rows.stop - 1])
        covers = bool(reaches and new.time_ns[new_rows.start] <= old.time_ns[old_rows.start])
        overlap = np.arange(new_rows.start, new_rows.stop)[self.overlaps[new_rows] & self.compared[new_rows]]
        old_values, new_values = old.values[self.old_row[overlap]], new.values[overlap]
        at_end = bool(self.old_row[overlap[-1]] == old_rows.stop - 1)
        decision = restate.decide(old_values, new_values, covers=covers, reaches=reaches, at_end=at_end)
        name, factor, since = old.names[k], None, None
        if decision.kind == restate.REFUSED:
            self.keep_new[new_rows] = False
            self.refused.add(name)
            detail = f"{decision.reason}; stored bars kept: send all of its history, or a longer overlap"
        elif decision.kind == restate.REPLACED:
            removed = np.arange(old_rows.start, old_rows.stop)
            removed = removed[~np.isin(removed, self.old_row[new_rows][self.overlaps[new_rows]])]
            self.keep_old[removed] = False
            self.stale_files |= set(old.file[removed].tolist())
            self._overwrite(overlap)
            detail = f"{decision.bars} bars differ and the source has all its history: rewritten from it"
            detail += f", {len(removed)} bars that it does not have were removed" if len(removed) else ""
        elif decision.kind == restate.REVISED:
            self._overwrite(overlap)
            corrected = decision.bars - decision.completed
            detail = f"{corrected} of {len(overlap)} overlapping bars were corrected" if corrected else ""
        else:
            factor = decision.factor
            since, detail = self._scale(decision, old_rows, new_rows, overlap)
        if decision.completed:
            were = "bar was" if decision.completed == 1 else "bars were"
            detail += f"{', and ' if detail else ''}{decision.completed} unfinished {were} completed"
        self.changes.append(Change(name, decision.kind, detail, factor, since))

    def _overwrite(self, overlap: np.ndarray) -> None:
        """Overwrite stored values with the incoming ones where they differ; an incoming NaN volume is ignored."""
        rows = self.old_row[overlap]
        different = restate.differs(self.values[rows], self.new.values[overlap]).any(axis=1)
        rows, overlap = rows[different], overlap[different]
        new_volume = self.new.values[overlap, 4]
        volume = np.where(np.isnan(new_volume), self.values[rows, 4], new_volume)
        self.values[rows] = self.new.values[overlap]
        self.values[rows, 4] = volume
        self.stale_files |= set(self.old.file[rows].tolist())

    def _scale(
        self, decision: restate.Decision, old_rows: slice, new_rows: slice, overlap: np.ndarray
    ) -> tuple[str | None, str]:
        """Scale the earlier stored bars that the source did not send again; `(since, detail)`."""
        rows = np.arange(old_rows.start, old_rows.stop)
        last = self.new.time_ns[overlap[decision.prefix - 1]]
        earlier = rows[(self.old.time_ns[rows] <= last) & ~np.isin(rows, self.old_row[overlap])]
        scaled = self.values[earlier].astype(np.float64)
        scaled[:, :4] *= decision.factor
        scaled[:, 4] *= decision.volume_factor or 1.0
        self.values[earlier] = scaled.astype(np.float32)
        self.stale_files |= set(self.old.file[earlier].tolist())
        self._overwrite(overlap)
        times = self.new.time_ns[new_rows]
        later = times[times > last]
        since = time_text(int(later[0])) if len(later) else None
        detail = f"{decision.prefix} bars came with other prices"
        if len(earlier):
            factor = decision.volume_factor
            volumes = "but not their volumes: no common factor" if factor is None else f"volumes by {factor:.6g}"
            detail += f", {len(earlier)} earlier ones were scaled, {volumes}"
        return since, detail

    def move(self, k: int) -> None:
        """Remove all bars of a symbol from their files."""
        offsets = self.old.offsets
        rows = slice(offsets[k], offsets[k + 1])
        self.stale_files |= set(self.old.file[rows].tolist())
        self.file[rows] = NEW

    def result(self) -> tuple[BarTable, np.ndarray]:
        """`(all rows sorted, bool (n_rows,), whether a row was not stored before)`."""
        old = dataclasses.replace(self.old, values=self.values, file=self.file, local_ns=self.local_ns)
        old = old.take(self.keep_old)
        bars, order = concatenate(old, self.new.take(self.keep_new))
        return bars, order >= old.n_rows


def _possible_splits(
    bars: BarTable, is_new: np.ndarray, stored: Mapping[str, str], unchecked: list[int]
) -> list[Change]:
    """Stored symbols with a jump that looks like an unadjusted split at a new bar or at a seam.

    A seam is between a new bar and a stored one, in either order: older bars may be sent later.
    """
    columns: dict[str, Any] = {name: np.ascontiguousarray(bars.values[:, j]) for j, name in enumerate(BARS)}
    details: dict[str, list[str]] = {}
    prices = Bars(bars.symbol, bars.names, bars.time_ns, **columns, sectors=bars.sectors)
    for row in jumps.possible_splits(prices, jumps.gaps(prices)):
        name = bars.names[bars.symbol[row]]
        if (is_new[row] or is_new[row - 1]) and name in stored:
            ratio = bars.values[row, 0] / bars.values[row - 1, 3]
            detail = f"{time_text(int(bars.time_ns[row]))} opens at {ratio:.3g} of the close before"
            if not is_new[row]:
                detail += ", which came later: were the older bars adjusted?"
            if bars.symbol[row] in unchecked:
                detail += ", and no bar overlaps to check it: send a longer overlap"
            details.setdefault(name, []).append(detail)
    return [Change(name, "looks like a split", "; ".join(found[:2])) for name, found in details.items()]
