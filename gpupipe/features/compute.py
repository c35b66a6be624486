"""Columns of features on a panel: formulas in one run of the machine, then those that need more than one symbol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.features.expressions import Across, Program, Series, lower
from gpupipe.features.formulas.registry import Feature, OnPanel

BLOCK = 2048  # rows of a symbol that are computed together: registers of the machine stay in the cache
WORKERS = 512  # symbols at once, at most
SCRATCH_BYTES = 1 << 29  # memory for registers, of all workers together
MAX_OUTPUTS = 8  # of kernels.cross_section


@dataclass(frozen=True)
class Sink:
    """Where columns go: to `out`, or as bins to `bins`; the other one has no columns.

    out: float32 (n_rows, n_columns), C order.  bins: uint8 (n_rows, n_columns), C order: how many of the column's cuts
    are not above the value, 255 where it is NaN.
    cuts: float32 (n_cuts,), rising within a column.  cut_offsets: int64 (n_columns + 1,); column k has the cuts
    cut_offsets[k]:cut_offsets[k+1], at most 254.
    """

    out: Any
    bins: Any
    cuts: Any
    cut_offsets: Any

    @property
    def binned(self) -> bool:
        """Whether columns become bins."""
        return int(self.bins.shape[1]) > 0


def floats(panel: Panel, out: Any) -> Sink:
    """Columns as float32 into `out`."""
    xp = panel.device.xp
    nothing = xp.empty((panel.n_rows, 0), np.uint8)
    return Sink(out, nothing, xp.empty(0, np.float32), xp.zeros(1, np.int64))


def binned(panel: Panel, cuts: Sequence[np.ndarray]) -> Sink:
    """Columns as bins against cuts, one array for each column."""
    xp, asarray = panel.device.xp, panel.device.asarray
    offsets = np.cumsum([0, *map(len, cuts)]).astype(np.int64)
    joined = np.concatenate(cuts).astype(np.float32)
    bins = xp.empty((panel.n_rows, len(cuts)), np.uint8)
    return Sink(xp.empty((panel.n_rows, 0), np.float32), bins, asarray(joined), asarray(offsets))


class Memory(NamedTuple):
    """What a run of the machine leaves, from which a later one goes on.

    states: float64 (n_symbols, n_states, 4), of each recursion.
    aside: float32 (n_rows, n_sources), the series that cross-sectional columns compare.
    """

    states: Any
    aside: Any


def compute(panel: Panel, features: Sequence[Feature], sink: Sink, compared_since: int | None = None) -> Memory:
    """Write the columns of `features`, in their order, for every row.

    compared_since: int64 UTC ns: cross-sectional columns are of rows from then on alone, NaN before. Of floats only.
    """
    memory = new_memory(panel, features)
    if not panel.n_rows:
        return memory
    run_formulas(panel, features, sink, memory, panel.offsets[:-1])
    xp = panel.device.xp
    if compared_since is None:
        compare(panel, features, sink, memory, None)
    else:
        rows = rows_to_compare(panel, features, compared_since)
        compare(panel, features, sink, memory, rows)
        before = panel.time_ns < compared_since
        for column, one in enumerate(features):
            if isinstance(one.series, Across):
                sink.out[before, column] = np.float32(np.nan)
    for column, one in enumerate(features):
        if isinstance(one.series, OnPanel):
            made = one.series.function(panel)
            known = xp.where(xp.isfinite(made), made, np.float32(np.nan)).astype(np.float32)
            put(panel, known[:, None], [column], sink)
    return memory


def new_memory(panel: Panel, features: Sequence[Feature]) -> Memory:
    """Memory of a run that begins with the first row of every symbol."""
    xp, program = panel.device.xp, program_of(features)
    n_sources = len(sources_of(features))
    states = xp.zeros((panel.n_symbols, max(program.n_states, 1), 4), dtype=np.float64)
    return Memory(states, xp.empty((panel.n_rows, n_sources), dtype=np.float32))


def sources_of(features: Sequence[Feature]) -> list[Series]:
    """The series that cross-sectional columns compare, each once."""
    return list(dict.fromkeys(one.series.series for one in features if isinstance(one.series, Across)))


def program_of(features: Sequence[Feature]) -> Program:
    """The program of all formulas, those that others compare included: these are columns -1, -2, ... of it."""
    wanted = [(one.series, k) for k, one in enumerate(features) if isinstance(one.series, Series)]
    wanted += [(source, -1 - k) for k, source in enumerate(sources_of(features))]
    return lower([series for series, _ in wanted], [column for _, column in wanted])


def run_formulas(panel: Panel, features: Sequence[Feature], sink: Sink, memory: Memory, starts: Any) -> None:
    """Write the formulas' columns, from row starts[k] of symbol k on, and memory.aside likewise.

    starts: int64 (n_symbols,). memory.states is that of the row before, where it is not the symbol's first.
    """
    from gpupipe.kernels.program import run_program

    program, device, xp = program_of(features), panel.device, panel.device.xp
    if not len(program.operations):
        return
    longest = int(device.to_host(panel.offsets[1:] - panel.offsets[:-1]).max())
    shape = (program.n_registers, min(longest, BLOCK + program.halo))
    workers = max(1, min(panel.n_symbols, WORKERS, SCRATCH_BYTES // (8 * shape[0] * shape[1])))
    run_program(
        panel.n_symbols, xp.empty((workers, *shape), dtype=np.float64), panel.open, panel.high, panel.low, panel.close,
        panel.volume, panel.time_ns, panel.offsets, starts, *_to_device(panel, program.operations, program.values,
        program.outputs), np.int64(program.halo), np.int64(BLOCK), memory.states, sink.out, memory.aside, sink.bins,
        sink.cuts, sink.cut_offsets,
    )  # fmt: skip


def compare(panel: Panel, features: Sequence[Feature], sink: Sink, memory: Memory, rows: Any) -> None:
    """Write the cross-sectional columns of `rows`, int64 (n,), which are compared with each other; of all if None."""
    from gpupipe.kernels.cross_section import cross_section, group_means

    across = {k: one.series for k, one in enumerate(features) if isinstance(one.series, Across)}
    if not across:
        return
    xp, sources = panel.device.xp, sources_of(features)
    order, groups, first_group = _sector_times(panel, rows)
    n_groups = int(first_group.shape[0])
    means = xp.empty((n_groups, len(sources)), dtype=np.float32)
    group_means(n_groups * len(sources), memory.aside, order, groups, means)
    sets: dict[tuple[int, int], np.ndarray] = {}
    for column, one in across.items():
        columns = sets.setdefault((sources.index(one.series), one.n), np.full(MAX_OUTPUTS, -1, dtype=np.int64))
        columns[one.output] = column

    def run(keys: Sequence[tuple[int, int]], columns: np.ndarray, out: Any) -> None:
        arrays = _to_device(panel, np.array(keys, dtype=np.int64), columns)
        cross_section(n_groups * len(keys), memory.aside, order, groups, first_group, means, *arrays, out)

    if not sink.binned:
        for column in across:
            sink.out[slice(None) if rows is None else rows, column] = np.float32(np.nan)
        run(list(sets), np.stack(list(sets.values())), sink.out)
        return
    for key, columns in sets.items():  # a few float columns at a time
        wanted = np.flatnonzero(columns >= 0)
        places = np.full(MAX_OUTPUTS, -1, dtype=np.int64)
        places[wanted] = np.arange(len(wanted))
        out = xp.full((panel.n_rows, len(wanted)), np.float32(np.nan))
        run([key], places[None], out)
        put(panel, out, columns[wanted], sink)


def rows_to_compare(panel: Panel, features: Sequence[Feature], since_ns: int) -> Any:
    """int64 (n,): rows at or after a time, and of the times of their sector before it that theirs are compared with."""
    device, n = panel.device, max((one.series.n - 1 for one in features if isinstance(one.series, Across)), default=0)
    xp, to_host, offsets = device.xp, device.to_host, device.to_host(panel.offsets)
    later = panel.time_ns >= since_ns
    n_later = xp.concatenate([xp.zeros(1, xp.int64), xp.cumsum(later.astype(xp.int64))])[panel.offsets]
    ends = offsets[1:] - np.diff(to_host(n_later))
    # Each of a sector's last n times before it is among the last n rows before it of a symbol that has a bar then.
    starts = np.maximum(offsets[:-1], ends - n)
    first = np.full(len(panel.sectors), since_ns)
    for sector in range(len(panel.sectors)):
        own = np.flatnonzero(panel.sector_of_symbol == sector)
        rows = np.concatenate([np.arange(starts[k], ends[k]) for k in own])
        times = np.unique(to_host(panel.time_ns[device.asarray(rows)]))
        if n and len(times):
            first[sector] = times[-n:][0]
    first_of_row = device.asarray(first[panel.sector_of_symbol])[panel.symbol_of_row]
    return xp.flatnonzero(panel.time_ns >= first_of_row)


def put(panel: Panel, values: Any, columns: Sequence[int] | np.ndarray, sink: Sink) -> None:
    """Write float32 (n_rows, n) to columns of the sink."""
    if not sink.binned:
        for k, column in enumerate(columns):
            sink.out[:, column] = values[:, k]
        return
    from gpupipe.kernels.program import put_bins

    places = panel.device.asarray(np.array(columns, dtype=np.int64))
    put_bins(panel.n_rows, values, places, sink.cuts, sink.cut_offsets, sink.bins)


def _sector_times(panel: Panel, rows: Any) -> tuple[Any, Any, Any]:
    """Rows, all if None, grouped by (sector, exact time).

    Returns order int64 (n,), row numbers by sector, time, row; groups int64 (n_groups + 1,), where each group
    begins in it; first_group int64 (n_groups,), the first group of the same sector. Deterministic: the sort is stable.
    """
    device, xp = panel.device, panel.device.xp
    rows = xp.arange(panel.n_rows) if rows is None else rows
    sector = device.asarray(panel.sector_of_symbol)[panel.symbol_of_row[rows]]
    time_ns = panel.time_ns[rows]
    order = xp.lexsort(xp.stack([time_ns, sector])).astype(np.int64)
    time_ns, sector = time_ns[order], sector[order]
    changes = xp.flatnonzero((time_ns[1:] != time_ns[:-1]) | (sector[1:] != sector[:-1])) + 1
    ends = device.asarray(np.array([0, len(order)], dtype=np.int64))
    groups = xp.concatenate([ends[:1], changes.astype(np.int64), ends[1:]])
    sector_of_group = sector[groups[:-1]]
    return rows[order], groups, xp.searchsorted(sector_of_group, sector_of_group, side="left").astype(np.int64)


def _to_device(panel: Panel, *arrays: np.ndarray) -> list[Any]:
    return [panel.device.asarray(array) for array in arrays]
