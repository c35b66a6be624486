"""Stored and arriving bars become one table: what is new, restated, revised, moved, refused, and which files change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpupipe.data import validate
from gpupipe.data.bars import Bars
from gpupipe.data.ingest import restate
from gpupipe.data.ingest.rows import NEW, Rows, keys
from gpupipe.data.panel import COLUMNS
from gpupipe.data.report import time_text


@dataclass(frozen=True)
class Change:
    """What became of a symbol that was stored already, or why it was refused, as the report shows it.

    kind: one of `restate`, "moved" to another sector, or "looks like a split".  detail: a sentence.  factor: of
    prices; since: the time from which stored prices were right; both only where it was restated.
    """

    symbol: str
    kind: str
    detail: str
    factor: float | None = None
    since: str | None = None


@dataclass(frozen=True)
class Merged:
    """The table after an arrival.

    rows: all bars.  stale_parts: files that hold a bar which has changed or gone.  new_bars: bars that were not
    stored.  added: new symbols.  changes: by symbol.  unchecked: symbols with new bars and no overlapping one, so
    that a restatement cannot be seen.
    """

    rows: Rows
    stale_parts: frozenset[int]
    new_bars: int
    added: tuple[str, ...]
    changes: tuple[Change, ...]
    unchecked: tuple[str, ...]


def merge(stored: Rows, arrived: Rows) -> Merged:
    """Put the arriving bars to the stored ones; nothing of either is changed in place.

    The rules for one symbol are those of `restate.decide`. A bar that arrives again and is the same stays as it was
    stored, so that the same source twice changes nothing. A symbol that arrives with another sector takes all of its
    bars there.
    """
    names = tuple(sorted({*stored.names, *arrived.names}))
    before = dict(zip(stored.names, stored.sector, strict=True))
    now = dict(zip(arrived.names, arrived.sector, strict=True))
    sector = tuple(now.get(name) or before[name] for name in names)
    old, new = stored.renamed(names, sector), arrived.renamed(names, sector)
    old_key, new_key = keys(old, new)
    place = np.searchsorted(old_key, new_key)
    again = np.zeros(new.n_rows, bool)
    inside = place < old.n_rows
    again[inside] = old_key[place[inside]] == new_key[inside]

    work = _Work(old, new, place, again)
    work.decide()
    moved = [name for name in before.keys() & now.keys() if before[name] != now[name] and name not in work.refused]
    for name in sorted(moved):
        work.move(names.index(name))
        work.changes.append(Change(name, "moved", f"from sector {before[name]} to {now[name]}"))
    refused_sector = {name: before[name] for name in work.refused}
    sector = tuple(refused_sector.get(name, own) for name, own in zip(names, sector, strict=True))
    rows, is_new = work.result()
    changes = [*work.changes, *_split_like(rows, is_new, before, work.unchecked)]
    has_bars = set(np.unique(rows.symbol).tolist())
    kept = tuple(k for k in range(len(names)) if k in has_bars)
    rows = dataclasses.replace(
        rows, names=tuple(names[k] for k in kept), sector=tuple(sector[k] for k in kept),
        symbol=np.searchsorted(np.array(kept, np.int64), rows.symbol).astype(np.int32),
    )  # fmt: skip
    return Merged(
        rows, frozenset(work.stale_parts), int(is_new.sum()), tuple(sorted(now.keys() - before.keys())),
        tuple(sorted(changes, key=lambda change: (change.symbol, change.kind))),
        tuple(names[k] for k in work.unchecked),
    )  # fmt: skip


class _Work:
    """The decisions on each symbol as they are carried out, on copies of the stored values."""

    def __init__(self, old: Rows, new: Rows, place: np.ndarray, again: np.ndarray) -> None:
        self.old, self.new, self.place, self.again = old, new, place, again
        self.values, self.part = old.values.copy(), old.part.copy()
        self.keep_old, self.keep_new = np.ones(old.n_rows, bool), ~again
        self.stale_parts: set[int] = set()
        self.changes: list[Change] = []
        self.refused: set[str] = set()
        self.unchecked: list[int] = []

    def decide(self) -> None:
        """Decide on every symbol that both have."""
        old, new = self.old, self.new
        apart = np.zeros(new.n_rows, bool)
        both = np.flatnonzero(self.again)
        apart[both] = restate.differs(old.values[self.place[both]], new.values[both]).any(axis=1)
        old_edges, new_edges = old.edges, new.edges
        n_new = np.bincount(new.symbol[~self.again], minlength=len(new.names))
        n_again = np.bincount(new.symbol[self.again], minlength=len(new.names))
        stored = np.diff(old_edges) > 0
        self.unchecked = np.flatnonzero(stored & (n_new > 0) & (n_again == 0)).tolist()
        for k in np.unique(new.symbol[apart]):
            mine = slice(old_edges[k], old_edges[k + 1])
            arriving = slice(new_edges[k], new_edges[k + 1])
            self._carry_out(int(k), mine, arriving)

    def _carry_out(self, k: int, mine: slice, arriving: slice) -> None:
        old, new = self.old, self.new
        reaches = new.time_ns[arriving.stop - 1] >= old.time_ns[mine.stop - 1]
        covers = bool(reaches and new.time_ns[arriving.start] <= old.time_ns[mine.start])
        both = np.arange(arriving.start, arriving.stop)[self.again[arriving]]
        found = restate.decide(
            old.values[self.place[both]], new.values[both], covers=covers, reaches=bool(reaches)
        )  # fmt: skip
        name, factor, since = old.names[k], None, None
        if found.kind == restate.REFUSED:
            self.keep_new[arriving] = False
            self.refused.add(name)
            detail = f"{found.reason}; kept as it was: send all of its history, or a longer overlap"
        elif found.kind == restate.REPLACED:
            gone = np.arange(mine.start, mine.stop)
            gone = gone[~np.isin(gone, self.place[both])]
            self.keep_old[gone] = False
            self.stale_parts |= set(old.part[gone].tolist())
            self._take(both)
            detail = f"{found.bars} bars differ and the source has all its history: rewritten from it"
            detail += f", {len(gone)} bars that it does not have are gone" if len(gone) else ""
        elif found.kind == restate.REVISED:
            self._take(both)
            detail = f"{found.bars} of {len(both)} overlapping bars were corrected"
        else:
            factor, since, detail = self._scale(found, mine, arriving, both)
        self.changes.append(Change(name, found.kind, detail, factor, since))

    def _take(self, both: np.ndarray) -> None:
        """Arriving values in the place of stored ones, where they differ."""
        rows = self.place[both]
        apart = restate.differs(self.values[rows], self.new.values[both]).any(axis=1)
        rows, both = rows[apart], both[apart]
        volume = np.where(np.isnan(self.new.values[both, 4]), self.values[rows, 4], self.new.values[both, 4])
        self.values[rows] = self.new.values[both]
        self.values[rows, 4] = volume
        self.stale_parts |= set(self.old.part[rows].tolist())

    def _scale(self, found: restate.Decision, mine: slice, arriving: slice, both: np.ndarray) -> tuple:
        """Scale what did not arrive again; `(factor, since, detail)`."""
        rows = np.arange(mine.start, mine.stop)
        last = self.new.time_ns[both[found.prefix - 1]]
        earlier = rows[(self.old.time_ns[rows] <= last) & ~np.isin(rows, self.place[both])]
        scaled = self.values[earlier].astype(np.float64)
        scaled[:, :4] *= found.factor
        scaled[:, 4] *= found.volume_factor or 1.0
        self.values[earlier] = scaled.astype(np.float32)
        self.stale_parts |= set(self.old.part[earlier].tolist())
        self._take(both)
        times = self.new.time_ns[arriving]
        later = times[times > last]
        since = time_text(int(later[0])) if len(later) else None
        detail = f"{found.prefix} bars came with other prices"
        if len(earlier):
            volumes = "not their volumes: no one factor" if found.volume_factor is None else (
                f"volumes by {found.volume_factor:.6g}"
            )  # fmt: skip
            detail += f", {len(earlier)} earlier ones were scaled, {volumes}"
        return found.factor, since, detail

    def move(self, k: int) -> None:
        """All bars of a symbol leave their files."""
        edges = self.old.edges
        mine = slice(edges[k], edges[k + 1])
        self.stale_parts |= set(self.old.part[mine].tolist())
        self.part[mine] = NEW

    def result(self) -> tuple[Rows, np.ndarray]:
        """`(all rows sorted, bool (n_rows,) which of them were not stored)`."""
        old = dataclasses.replace(self.old, values=self.values, part=self.part).take(self.keep_old)
        new = self.new.take(self.keep_new)
        symbol, time_ns = np.concatenate([old.symbol, new.symbol]), np.concatenate([old.time_ns, new.time_ns])
        order = np.lexsort((time_ns, symbol))
        values, part = np.concatenate([old.values, new.values]), np.concatenate([old.part, new.part])
        rows = Rows(old.names, old.sector, symbol[order], time_ns[order], values[order], part[order])
        return rows, order >= old.n_rows


def _split_like(rows: Rows, is_new: np.ndarray, stored: Mapping[str, str], unchecked: list[int]) -> list[Change]:
    """Symbols that were stored, with a new bar that looks like the first after a split that nobody adjusted for."""
    bars = Bars(
        symbol=rows.symbol, names=rows.names, time_ns=rows.time_ns, sectors=rows.sector,
        **{name: np.ascontiguousarray(rows.values[:, j]) for j, name in enumerate(COLUMNS)},
    )  # fmt: skip
    found = {}
    for row in validate.possible_splits(bars):
        name = rows.names[rows.symbol[row]]
        if is_new[row] and name in stored:
            ratio = rows.values[row, 0] / rows.values[row - 1, 3]
            detail = f"{time_text(int(rows.time_ns[row]))} opens at {ratio:.3g} of the close before"
            detail += ", and no bar overlaps to tell: send a longer overlap" if rows.symbol[row] in unchecked else ""
            found[name] = Change(name, "looks like a split", detail)
    return list(found.values())
