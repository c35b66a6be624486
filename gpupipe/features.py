"""Features: scale-free columns of a panel, written by our own kernels into one float32 matrix."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpupipe.panel import Panel, check_columns, row_table

if TYPE_CHECKING:
    import pyarrow

    from gpupipe.expressions import Across, Series
    from gpupipe.formulas import Feature
    from gpupipe.formulas.registry import OnPanel


BLOCK = 2048  # rows of a symbol that are computed together: registers of the machine stay in the cache
WORKERS = 512  # symbols at once, at most
MAX_OUTPUTS = 8  # of kernels.cross_section


@dataclass(frozen=True)
class Features:
    """Features of every row of a panel, on the panel's device.

    values: float32 (n_rows, n_features), C order; NaN in warm-up rows and where a price that is needed is not known,
        never infinite.
    names: one for each column, without duplicates.
    definitions: what fixes each column's values (formula, inputs, periods, hash of the kernel's code); see `hash`.

    `values` hands itself over by DLPack or __cuda_array_interface__ without a copy. Treat it as immutable.
    Raises ValueError when a shape, dtype, order or device is not as above.
    """

    values: Any
    names: tuple[str, ...]
    definitions: tuple[str, ...] = field(repr=False)
    panel: Panel = field(repr=False)

    def __post_init__(self) -> None:
        check_columns({"values": self.values, "close": self.panel.close}, {"values": "float32", "close": "float32"})
        expected = (self.panel.n_rows, len(self.names))
        if self.values.shape != expected:
            raise ValueError(f"values has shape {self.values.shape}, expected {expected}: bars by names")
        if not self.values.flags["C_CONTIGUOUS"]:
            raise ValueError("values is not in C order; pass numpy.ascontiguousarray(values)")
        if len(set(self.names)) != len(self.names):
            raise ValueError("names of features must be without duplicates")
        if len(self.definitions) != len(self.names):
            raise ValueError(f"{len(self.definitions)} definitions for {len(self.names)} names")

    @property
    def n_rows(self) -> int:
        """Number of bars."""
        return int(self.values.shape[0])

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.names)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256, in hex, of names and definitions in order: equal hashes mean equal columns."""
        lines = (f"{name}: {definition}\n" for name, definition in zip(self.names, self.definitions, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def column(self, name: str) -> Any:
        """float32 (n_rows,): one column, a view."""
        if name not in self.names:
            raise ValueError(f"no feature {name!r} here; the nearest is {_nearest(name, self.names)!r}")
        return self.values[:, self.names.index(name)]

    def to_arrow(self) -> pyarrow.Table:
        """A table with columns symbol (dictionary), time (timestamp[ns, UTC]), then one for each feature."""
        host = self.panel.device.to_host(self.values)
        return row_table(self.panel, {name: np.ascontiguousarray(host[:, k]) for k, name in enumerate(self.names)})


class FeatureInfo(NamedTuple):
    """One line of the feature table; rows 0 to warm_up_bars - 1 of a symbol are NaN."""

    name: str
    family: str
    formula: str
    source: str
    warm_up_bars: int


def feature_table() -> list[FeatureInfo]:
    """Every feature there is, in the order of "all"."""
    from gpupipe.formulas import FEATURES

    return [FeatureInfo(f.name, f.family, f.formula, f.source, f.warm_up_bars) for f in FEATURES.values()]


def warm_up_of(name: str) -> int:
    """The first row of a symbol, counted from 0, in which the feature can be known; ValueError for an unknown name."""
    from gpupipe.formulas import FEATURES

    if name not in FEATURES:
        raise ValueError(f"no feature {name!r}; the nearest is {_nearest(name, FEATURES)!r}")
    return FEATURES[name].warm_up_bars


def feature_names(names: str | Iterable[str] = "default") -> tuple[str, ...]:
    """The columns that `names` stands for: "default", "core", "all", a family, a glob, a name, or a list of these.

    Raises ValueError, which names the nearest, for one that is or matches none.
    """
    from gpupipe.formulas import CORE, FAMILIES, FEATURES

    chosen: dict[str, None] = {}
    for name in [names] if isinstance(names, str) else names:
        if name == "default":
            matches = [name for name, one in FEATURES.items() if one.default]
        elif name == "core":
            matches = CORE
        elif name == "all":
            matches = list(FEATURES)
        elif name in FAMILIES:
            matches = [f.name for f in FEATURES.values() if f.family == name]
        else:
            matches = fnmatch.filter(FEATURES, name)
        if not matches:
            known = ("default", "core", "all", *FAMILIES, *FEATURES)
            raise ValueError(f"no feature or family {name!r}; the nearest is {_nearest(name, known)!r}")
        chosen.update(dict.fromkeys(matches))
    if not chosen:
        raise ValueError("no feature is asked for; expected 'default', a family, a glob, a name or a list of these")
    return tuple(chosen)


def compute_features(panel: Panel, names: str | Iterable[str] = "default") -> Features:
    """The features of every row, on the panel's device; `names` as in `feature_names`.

    A row's values depend on rows of its symbol up to it, and the cross-sectional ones also on rows of its sector up
    to its time: never on what comes later. They do not depend on which other sectors are in the panel.
    """
    from gpupipe.formulas import FEATURES

    features = [FEATURES[name] for name in feature_names(names)]
    return Features(
        values=_compute(panel, features),
        names=tuple(f.name for f in features),
        definitions=tuple(f.definition for f in features),
        panel=panel,
    )


def _compute(panel: Panel, features: Sequence[Feature]) -> Any:
    """float32 (n_rows, n_features): the columns of `features`, in their order."""
    from gpupipe.expressions import Across, Series
    from gpupipe.formulas.registry import OnPanel

    xp = panel.device.xp
    out = xp.empty((panel.n_rows, len(features)), dtype=np.float32)
    across = {k: f.series for k, f in enumerate(features) if isinstance(f.series, Across)}
    sources = list(dict.fromkeys(one.series for one in across.values()))
    aside = xp.empty((panel.n_rows, len(sources)), dtype=np.float32)
    if panel.n_rows == 0:
        return out
    alone = {k: f.series for k, f in enumerate(features) if isinstance(f.series, OnPanel)}
    wanted = [(f.series, k) for k, f in enumerate(features) if isinstance(f.series, Series)]
    wanted += [(source, -1 - k) for k, source in enumerate(sources)]
    if wanted:
        _run(panel, wanted, out, aside)
    if across:
        _across(panel, across, sources, aside, out)
    for column, made in alone.items():
        out[:, column] = _made_by_function(panel, features[column].name, made)
    return out


def _made_by_function(panel: Panel, name: str, made: OnPanel) -> Any:
    """The column of a function of the panel, infinities NaN; ValueError if it is not one."""
    values = made.function(panel)
    if getattr(values, "shape", None) != (panel.n_rows,):
        shape = getattr(values, "shape", type(values).__name__)
        raise ValueError(f"feature {name} gave {shape}, expected an array of ({panel.n_rows},)")
    xp = panel.device.xp
    return xp.where(xp.isfinite(values), values, np.float32(np.nan)).astype(np.float32)


def _run(panel: Panel, wanted: Sequence[tuple[Series, int]], out: Any, aside: Any) -> None:
    """Compute series into columns of `out`, or of `aside` where the column number is negative."""
    from gpupipe.expressions import lower
    from gpupipe.kernels.program import run_program

    device, xp = panel.device, panel.device.xp
    program = lower([series for series, _ in wanted], [column for _, column in wanted])
    longest = int(device.to_host(panel.offsets[1:] - panel.offsets[:-1]).max())
    workers = min(panel.n_symbols, WORKERS)
    scratch = xp.empty((workers, program.n_registers, min(longest, BLOCK + program.halo)), dtype=np.float64)
    states = xp.zeros((panel.n_symbols, max(program.n_states, 1), 4), dtype=np.float64)
    run_program(
        panel.n_symbols, scratch, panel.open, panel.high, panel.low, panel.close, panel.volume, panel.time_ns,
        panel.offsets, panel.offsets[:-1], *_to_device(panel, program.operations, program.values, program.outputs),
        np.int64(program.halo), np.int64(BLOCK), states, out, aside,
    )  # fmt: skip


def _across(panel: Panel, across: dict[int, Across], sources: Sequence[Series], values: Any, out: Any) -> None:
    """Write the cross-sectional columns of `sources`, whose values are the columns of `values`."""
    from gpupipe.kernels.cross_section import cross_section, group_means

    xp = panel.device.xp
    for column in across:
        out[:, column] = np.float32(np.nan)
    order, groups, first_group = _sector_times(panel)
    n_groups = int(first_group.shape[0])
    means = xp.empty((n_groups, len(sources)), dtype=np.float32)
    group_means(n_groups * len(sources), values, order, groups, means)
    keys = [(sources.index(one.series), one.n) for one in across.values()]
    sets = list(dict.fromkeys(keys))
    columns = np.full((len(sets), MAX_OUTPUTS), -1, dtype=np.int64)
    for (column, one), key in zip(across.items(), keys, strict=True):
        columns[sets.index(key), one.output] = column
    arrays = _to_device(panel, np.array(sets, dtype=np.int64), columns)
    cross_section(n_groups * len(sets), values, order, groups, first_group, means, *arrays, out)


def _sector_times(panel: Panel) -> tuple[Any, Any, Any]:
    """Rows grouped by (sector, exact time).

    Returns order int64 (n_rows,), row numbers by sector, time, row; groups int64 (n_groups + 1,), where each group
    begins in it; first_group int64 (n_groups,), the first group of the same sector. Deterministic: the sort is stable.
    """
    device, xp = panel.device, panel.device.xp
    sector_of_symbol = np.array([panel.sectors.index(name) for name in panel.sector], dtype=np.int64)
    sector = device.asarray(sector_of_symbol)[panel.symbol_of_row]
    order = xp.lexsort(xp.stack([panel.time_ns, sector])).astype(np.int64)
    time_ns, sector = panel.time_ns[order], sector[order]
    changes = xp.flatnonzero((time_ns[1:] != time_ns[:-1]) | (sector[1:] != sector[:-1])) + 1
    ends = device.asarray(np.array([0, panel.n_rows], dtype=np.int64))
    groups = xp.concatenate([ends[:1], changes.astype(np.int64), ends[1:]])
    sector_of_group = sector[groups[:-1]]
    return order, groups, xp.searchsorted(sector_of_group, sector_of_group, side="left").astype(np.int64)


def _to_device(panel: Panel, *arrays: np.ndarray) -> list[Any]:
    return [panel.device.asarray(array) for array in arrays]


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
