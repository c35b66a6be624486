"""Feature columns of a panel: the program of all formulas, then cross-sectional columns, then the user's functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.features.formulas.registry import Feature, PanelFunction
from gpupipe.features.lowering import Program, lower
from gpupipe.features.series import Across, Series

BLOCK = 2048  # rows of a symbol that are computed together: the registers stay in the cache
WORKERS = 512  # symbols at once, at most
SCRATCH_BYTES = 1 << 29  # memory for the registers of all workers together
MAX_OUTPUTS = 8  # of kernels.cross_section


@dataclass(frozen=True)
class Sink:
    """Where columns are written: as floats to `out`, or as bins to `bins`; the unused one has no columns.

    out: float32 (n_rows, n_columns), C order.
    bins: uint8 (n_rows, n_columns), C order: the number of the column's cuts that are at most the value, 255 for NaN.
    cuts: float32 (n_cuts,), rising within a column.  cut_offsets: int64 (n_columns + 1,); column k has the cuts
        cut_offsets[k]:cut_offsets[k + 1], at most 254.

    With the cuts [0.5, 1.0] the values 0.2, 0.5, 3.0 and NaN become the bins 0, 1, 2 and 255.

        >>> from gpupipe import simulate
        >>> sink = bin_sink(simulate(11, 30, seed=1), [np.float32([0.5, 1.0]), np.float32([30])])
        >>> sink.bins.shape, sink.out.shape, sink.cut_offsets.tolist(), sink.is_binned
        ((330, 2), (330, 0), [0, 2, 3], True)
    """

    out: Any
    bins: Any
    cuts: Any
    cut_offsets: Any

    @property
    def is_binned(self) -> bool:
        """Whether columns become bins."""
        return int(self.bins.shape[1]) > 0


def float_sink(panel: Panel, out: Any) -> Sink:
    """A sink that writes floats to `out`, float32 (n_rows, n_columns)."""
    xp = panel.device.xp
    no_bins = xp.empty((panel.n_rows, 0), np.uint8)
    return Sink(out, no_bins, xp.empty(0, np.float32), xp.zeros(1, np.int64))


def bin_sink(panel: Panel, cuts: Sequence[np.ndarray]) -> Sink:
    """A sink that allocates bins and fills them; cuts: float32, one array for each column."""
    xp, asarray = panel.device.xp, panel.device.asarray
    offsets = np.cumsum([0, *map(len, cuts)]).astype(np.int64)
    all_cuts = np.concatenate(cuts).astype(np.float32)
    bins = xp.empty((panel.n_rows, len(cuts)), np.uint8)
    return Sink(xp.empty((panel.n_rows, 0), np.float32), bins, asarray(all_cuts), asarray(offsets))


class ProgramState(NamedTuple):
    """The state of a program after a run, with which a later run resumes after the last row.

    recursions: float64 (n_symbols, n_states, 4), the state of each recursive average.
    compared: float32 (n_rows, n_sources), the series that cross-sectional columns compare.

    For rsi_14 and sector_rank_roc_5 of 11 symbols with 30 bars, two Wilder averages and one compared series:

        >>> from gpupipe import simulate
        >>> from gpupipe.features.formulas import FEATURES
        >>> state = new_state(simulate(11, 30, seed=1), [FEATURES["rsi_14"], FEATURES["sector_rank_roc_5"]])
        >>> state.recursions.shape, state.compared.shape
        ((11, 2, 4), (330, 1))
    """

    recursions: Any
    compared: Any


def compute(panel: Panel, features: Sequence[Feature], sink: Sink, compared_since: int | None = None) -> ProgramState:
    """Write every row of the columns of `features`, in their order; return the state after the last row.

    compared_since: int64 UTC ns, for float sinks only: cross-sectional columns are NaN before this time.
    """
    state = new_state(panel, features)
    if not panel.n_rows:
        return state
    run_formulas(panel, features, sink, state, panel.offsets[:-1])
    xp = panel.device.xp
    if compared_since is None:
        write_cross_sections(panel, features, sink, state, None)
    else:
        rows = rows_to_compare(panel, features, compared_since)
        write_cross_sections(panel, features, sink, state, rows)
        before = panel.time_ns < compared_since
        for column, feature in enumerate(features):
            if isinstance(feature.series, Across):
                sink.out[before, column] = np.float32(np.nan)
    for column, feature in enumerate(features):
        if isinstance(feature.series, PanelFunction):
            values = _by_group(feature.series.function, panel)
            finite = xp.where(xp.isfinite(values), values, np.float32(np.nan)).astype(np.float32)
            put(panel, finite[:, None], [column], sink)
    return state


def _by_group(function: Callable[[Panel], Any], panel: Panel) -> Any:
    """The values (n_rows,) of a user's function, which is given one group at a time, so that no other one matters."""
    if len(panel.groups) == 1:
        return function(panel)
    device = panel.device
    group_of_row = device.asarray(panel.group_of_symbol)[panel.symbol_of_row]
    groups = {k: panel.of_group(group) for k, group in enumerate(panel.groups)}
    parts = {k: function(own) for k, own in groups.items() if own.n_rows}
    values = device.xp.empty(panel.n_rows, np.result_type(*(part.dtype for part in parts.values())))
    for k, part in parts.items():
        values[group_of_row == k] = part
    return values


def new_state(panel: Panel, features: Sequence[Feature]) -> ProgramState:
    """The state of a run that starts at the first row of every symbol."""
    xp, program = panel.device.xp, program_of(features)
    n_sources = len(compared_series(features))
    recursions = xp.zeros((panel.n_symbols, max(program.n_states, 1), 4), dtype=np.float64)
    return ProgramState(recursions, xp.empty((panel.n_rows, n_sources), dtype=np.float32))


def compared_series(features: Sequence[Feature]) -> list[Series]:
    """The series that cross-sectional columns compare, without duplicates."""
    return list(dict.fromkeys(feature.series.series for feature in features if isinstance(feature.series, Across)))


def program_of(features: Sequence[Feature]) -> Program:
    """The program of all formulas and of the compared series, which are its output columns -1, -2, ..."""
    outputs = [(feature.series, k) for k, feature in enumerate(features) if isinstance(feature.series, Series)]
    outputs += [(series, -1 - k) for k, series in enumerate(compared_series(features))]
    return lower([series for series, _ in outputs], [column for _, column in outputs])


def run_formulas(panel: Panel, features: Sequence[Feature], sink: Sink, state: ProgramState, starts: Any) -> None:
    """Write the columns of formulas, and state.compared, from row starts[k] of symbol k on.

    starts: int64 (n_symbols,). Where it is not the symbol's first row, state.recursions must be that of the row before.
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
        panel.volume, panel.clock_ns, panel.offsets, starts, *_to_device(panel, program.operations, program.values,
        program.outputs), np.int64(program.halo), np.int64(BLOCK), state.recursions, sink.out, state.compared,
        sink.bins, sink.cuts, sink.cut_offsets,
    )  # fmt: skip


def write_cross_sections(panel: Panel, features: Sequence[Feature], sink: Sink, state: ProgramState, rows: Any) -> None:
    """Write the cross-sectional columns of `rows`, int64 (n,), comparing these rows only; of all rows if None."""
    from gpupipe.kernels.cross_section import cross_section, group_means

    across = {k: feature.series for k, feature in enumerate(features) if isinstance(feature.series, Across)}
    if not across:
        return
    xp, sources = panel.device.xp, compared_series(features)
    order, groups, first_group = _sector_times(panel, rows)
    n_groups = int(first_group.shape[0])
    means = xp.empty((n_groups, len(sources)), dtype=np.float32)
    group_means(n_groups * len(sources), state.compared, order, groups, means)
    # One set of output columns for each (source, number of times).
    sets: dict[tuple[int, int], np.ndarray] = {}
    for column, series in across.items():
        key = (sources.index(series.series), series.n)
        columns = sets.setdefault(key, np.full(MAX_OUTPUTS, -1, dtype=np.int64))
        columns[series.output] = column

    def run(keys: Sequence[tuple[int, int]], columns: np.ndarray, out: Any) -> None:
        arrays = _to_device(panel, np.array(keys, dtype=np.int64), columns)
        cross_section(n_groups * len(keys), state.compared, order, groups, first_group, means, *arrays, out)

    if not sink.is_binned:
        for column in across:
            sink.out[slice(None) if rows is None else rows, column] = np.float32(np.nan)
        run(list(sets), np.stack(list(sets.values())), sink.out)
        return
    for key, columns in sets.items():  # a few float columns at a time, never the whole matrix
        requested = np.flatnonzero(columns >= 0)
        places = np.full(MAX_OUTPUTS, -1, dtype=np.int64)
        places[requested] = np.arange(len(requested))
        out = xp.full((panel.n_rows, len(requested)), np.float32(np.nan))
        run([key], places[None], out)
        put(panel, out, columns[requested], sink)


def most_earlier_times(features: Sequence[Feature]) -> int:
    """How many earlier times of its sector the cross-sectional columns of a row depend on."""
    return max((feature.series.n - 1 for feature in features if isinstance(feature.series, Across)), default=0)


def rows_to_compare(panel: Panel, features: Sequence[Feature], since_ns: int) -> Any:
    """int64 (n,): rows at or after a time, and rows of the earlier times of their sector that they depend on."""
    device, n = panel.device, most_earlier_times(features)
    xp, to_host, offsets = device.xp, device.to_host, device.to_host(panel.offsets)
    later = panel.time_ns >= since_ns
    n_later = xp.concatenate([xp.zeros(1, xp.int64), xp.cumsum(later.astype(xp.int64))])[panel.offsets]
    ends = offsets[1:] - np.diff(to_host(n_later))
    # Each of the sector's last n earlier times is among the last n earlier rows of a symbol with a bar at that time.
    starts = np.maximum(offsets[:-1], ends - n)
    first = np.full(len(panel.groups), since_ns)
    for sector in range(len(panel.groups)):
        symbols = np.flatnonzero(panel.group_of_symbol == sector)
        rows = np.concatenate([np.arange(starts[k], ends[k]) for k in symbols])
        times = np.unique(to_host(panel.time_ns[device.asarray(rows)]))
        if n and len(times):
            first[sector] = times[-n:][0]
    first_of_row = device.asarray(first[panel.group_of_symbol])[panel.symbol_of_row]
    return xp.flatnonzero(panel.time_ns >= first_of_row)


def put(panel: Panel, values: Any, columns: Sequence[int] | np.ndarray, sink: Sink) -> None:
    """Write values, float32 (n_rows, n), to n columns of the sink."""
    if not sink.is_binned:
        for k, column in enumerate(columns):
            sink.out[:, column] = values[:, k]
        return
    from gpupipe.kernels.program import put_bins

    places = panel.device.asarray(np.array(columns, dtype=np.int64))
    put_bins(panel.n_rows, values, places, sink.cuts, sink.cut_offsets, sink.bins)


def _sector_times(panel: Panel, rows: Any) -> tuple[Any, Any, Any]:
    """Rows, all if None, grouped by (sector, exact time).

    Returns order int64 (n,), row numbers by sector, time, row; groups int64 (n_groups + 1,), where each group starts in
    `order`; first_group int64 (n_groups,), the first group of the same sector. Deterministic: the sort is stable.
    """
    device, xp = panel.device, panel.device.xp
    rows = xp.arange(panel.n_rows) if rows is None else rows
    sector = device.asarray(panel.group_of_symbol)[panel.symbol_of_row[rows]]
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
