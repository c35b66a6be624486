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

    from gpupipe.feature_table import Feature


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
    from gpupipe.feature_table import FEATURES

    return [FeatureInfo(f.name, f.family, f.formula, f.source, f.warm_up_bars) for f in FEATURES.values()]


def warm_up_of(name: str) -> int:
    """The first row of a symbol, counted from 0, in which the feature can be known; ValueError for an unknown name."""
    from gpupipe.feature_table import FEATURES

    if name not in FEATURES:
        raise ValueError(f"no feature {name!r}; the nearest is {_nearest(name, FEATURES)!r}")
    return FEATURES[name].warm_up_bars


def feature_names(names: str | Iterable[str] = "default") -> tuple[str, ...]:
    """The columns that `names` stands for: "default", "all", a family, a glob, a name, or a list, without repeats.

    Raises ValueError, which names the nearest, for one that is or matches none.
    """
    from gpupipe.feature_table import FAMILIES, FEATURES, NOT_DEFAULT

    chosen: dict[str, None] = {}
    for name in [names] if isinstance(names, str) else names:
        if name == "default":
            matches = [name for name in FEATURES if name not in NOT_DEFAULT]
        elif name == "all":
            matches = list(FEATURES)
        elif name in FAMILIES:
            matches = [f.name for f in FEATURES.values() if f.family == name]
        else:
            matches = fnmatch.filter(FEATURES, name)
        if not matches:
            known = ("default", "all", *FAMILIES, *FEATURES)
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
    from gpupipe.feature_table import FEATURES

    features = [FEATURES[name] for name in feature_names(names)]
    return Features(
        values=_compute(panel, features),
        names=tuple(f.name for f in features),
        definitions=tuple(f.definition for f in features),
        panel=panel,
    )


def _compute(panel: Panel, features: Sequence[Feature]) -> Any:
    """float32 (n_rows, n_features): the columns of `features`, in their order."""
    from gpupipe.feature_table import CROSS_SECTION, load_kernel

    xp = panel.device.xp
    out = xp.full((panel.n_rows, len(features)), np.nan, dtype=np.float32)
    if panel.n_rows == 0:
        return out
    groups: dict[tuple[str, tuple[str, ...]], dict[int, Feature]] = {}
    across: dict[int, Feature] = {}
    for column, feature in enumerate(features):
        if feature.kernel == CROSS_SECTION:
            across[column] = feature
        else:
            groups.setdefault((feature.kernel, feature.inputs), {})[column] = feature
    series = _series(panel, {name for _, inputs in groups for name in inputs})
    for (kernel, inputs), group in groups.items():
        sets = list(dict.fromkeys(f.periods for f in group.values()))
        periods = np.array([one or (0,) for one in sets], dtype=np.int64)
        columns = _column_numbers(group, [sets.index(f.periods) for f in group.values()], len(sets))
        arrays = [*(series[name] for name in inputs), panel.offsets, *_to_device(panel, periods, columns)]
        load_kernel(kernel)(panel.n_symbols * len(sets), *arrays, out)
    if across:
        _across(panel, across, out)
    return out


def _series(panel: Panel, names: set[str]) -> dict[str, Any]:
    """The inputs that kernels name: columns of the panel, and returns made once for many of them."""
    from gpupipe.kernels.series import returns

    derived = ("log_return", "log_gap")
    series = {name: getattr(panel, name) for name in names.difference(derived)}
    if names.intersection(derived):
        made = {name: panel.device.xp.empty(panel.n_rows, dtype=np.float32) for name in derived}
        returns(panel.n_symbols, panel.open, panel.close, panel.offsets, *made.values())
        series.update(made)
    return series


def _across(panel: Panel, features: dict[int, Feature], out: Any) -> None:
    """Write the cross-sectional columns."""
    from gpupipe.feature_table import FEATURES
    from gpupipe.kernels.cross_section import cross_section, group_means

    xp = panel.device.xp
    sources = list(dict.fromkeys(f.inputs[0] for f in features.values()))
    values = _compute(panel, [FEATURES[name] for name in sources])
    order, groups, first_group = _sector_times(panel)
    n_groups = int(first_group.shape[0])
    means = xp.empty((n_groups, len(sources)), dtype=np.float32)
    group_means(n_groups * len(sources), values, order, groups, means)
    keys = [(sources.index(f.inputs[0]), *(f.periods or (1,))) for f in features.values()]
    sets = list(dict.fromkeys(keys))
    columns = _column_numbers(features, [sets.index(key) for key in keys], len(sets))
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


def _column_numbers(features: dict[int, Feature], set_of_feature: Sequence[int], n_sets: int) -> np.ndarray:
    """int64 (n_sets, MAX_OUTPUTS): the column of each wanted output of each set of periods, -1 for the others."""
    from gpupipe.kernels.series import MAX_OUTPUTS

    columns = np.full((n_sets, MAX_OUTPUTS), -1, dtype=np.int64)
    for (column, feature), one in zip(features.items(), set_of_feature, strict=True):
        columns[one, feature.output] = column
    return columns


def _to_device(panel: Panel, *arrays: np.ndarray) -> list[Any]:
    return [panel.device.asarray(array) for array in arrays]


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
