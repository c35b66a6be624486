"""Features: scale-free columns of a panel, written by our own kernels into one float32 matrix, or as bins."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpupipe.data.panel import Panel, check_columns, row_table
from gpupipe.kernels.operations import MISSING

if TYPE_CHECKING:
    import pyarrow

    from gpupipe.features.formulas import Feature


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
        return hash_of(self.names, self.definitions)

    def column(self, name: str) -> Any:
        """float32 (n_rows,): one column, a view."""
        if name not in self.names:
            raise ValueError(f"no feature {name!r} here; the nearest is {_nearest(name, self.names)!r}")
        return self.values[:, self.names.index(name)]

    def to_arrow(self) -> pyarrow.Table:
        """A table with columns symbol (dictionary), time (timestamp[ns, UTC]), then one for each feature."""
        host = self.panel.device.to_host(self.values)
        return row_table(self.panel, {name: np.ascontiguousarray(host[:, k]) for k, name in enumerate(self.names)})


def hash_of(names: Iterable[str], definitions: Iterable[str]) -> str:
    """SHA-256, in hex, of names and definitions of features in order."""
    lines = (f"{name}: {definition}\n" for name, definition in zip(names, definitions, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class FeatureInfo(NamedTuple):
    """One line of the feature table; rows 0 to warm_up_bars - 1 of a symbol are NaN."""

    name: str
    family: str
    formula: str
    source: str
    warm_up_bars: int


def feature_table() -> list[FeatureInfo]:
    """Every feature there is, in the order of "all"."""
    from gpupipe.features.formulas import FEATURES

    return [FeatureInfo(f.name, f.family, f.formula, f.source, f.warm_up_bars) for f in FEATURES.values()]


def warm_up_of(name: str) -> int:
    """The first row of a symbol, counted from 0, in which the feature can be known; ValueError for an unknown name."""
    from gpupipe.features.formulas import FEATURES

    if name not in FEATURES:
        raise ValueError(f"no feature {name!r}; the nearest is {_nearest(name, FEATURES)!r}")
    return FEATURES[name].warm_up_bars


def feature_names(names: str | Iterable[str] = "default") -> tuple[str, ...]:
    """The columns that `names` stands for: "default", "core", "all", a family, a glob, a name, or a list of these.

    Raises ValueError, which names the nearest, for one that is or matches none.
    """
    from gpupipe.features.formulas import CORE, FAMILIES, FEATURES

    chosen: dict[str, None] = {}
    for name in [names] if isinstance(names, str) else names:
        if name == "default":
            matches = [name for name, one in FEATURES.items() if one.default]
        elif name == "core":
            matches = CORE
        elif name == "all":
            matches = list(FEATURES)
        elif name in FEATURES:
            matches = [name]
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


def compute_features(
    panel: Panel, names: str | Iterable[str] = "default", out: Any = None, compared_since: int | None = None
) -> Features:
    """The features of every row, on the panel's device; `names` as in `feature_names`.

    A row's values depend on rows of its symbol up to it, and the cross-sectional ones also on rows of its sector up
    to its time: never on what comes later. They do not depend on which other sectors are in the panel.

    out: float32 (n_rows, n_features), C order, on the panel's device, to be written to and held by the Features; a new
    matrix if None. Writing where memory is there already saves the time in which the system provides it.
    compared_since: int64 UTC ns: where only rows from then on are wanted, cross-sectional columns, which cost more the
    more symbols a sector has, are of these alone; on rows before they are NaN. The bits of the rows are the same.
    """
    from gpupipe.features import compute

    features = _chosen(names)
    if out is None:
        out = panel.device.xp.empty((panel.n_rows, len(features)), dtype=np.float32)
    made = Features(out, tuple(f.name for f in features), tuple(f.definition for f in features), panel)
    compute.compute(panel, features, compute.floats(panel, out), compared_since)
    return made


@dataclass(frozen=True)
class Bins:
    """Features of every row of a panel as bins, on the panel's device: a quarter of the memory, all that trees need.

    values: uint8 (n_rows, n_features), C order; how many of the column's cuts are not above the value, 0 to 254;
        255 where the feature is NaN.
    names: one for each column.  cuts: the cuts of each column, float32, rising.
    """

    values: Any
    names: tuple[str, ...]
    cuts: tuple[np.ndarray, ...] = field(repr=False)
    panel: Panel = field(repr=False)


def compute_bins(panel: Panel, names: str | Iterable[str], cuts: Sequence[Any]) -> Bins:
    """The features of every row as bins; no float matrix of them is made. `names` as in `feature_names`.

    cuts: for each feature, in the order of `feature_names(names)`, at most 254 float32 that rise, such as
        np.unique(np.nanquantile(column, np.linspace(0, 1, 65)[1:-1]).astype("float32")), or those of
        estimators.boosting.tree_model.cuts_of(matrix); a value equal to a cut is in the bin above it, as in XGBoost.
    Train on it with `xgboost.QuantileDMatrix(bins.values, missing=255, max_bin=256)`.
    Raises ValueError for cuts that are not as above.
    """
    from gpupipe.features import compute

    features = _chosen(names)
    if not hasattr(cuts, "__len__"):
        raise ValueError(f"cuts are {type(cuts).__name__}, expected a list with an array for each feature")
    checked = [np.asarray(of_column, dtype=np.float32) for of_column in cuts]
    if len(checked) != len(features):
        raise ValueError(f"cuts of {len(checked)} columns for {len(features)} features")
    for one, of_column in zip(features, checked, strict=True):
        rises = of_column.ndim == 1 and bool((of_column[1:] > of_column[:-1]).all() and not np.isnan(of_column).any())
        if not rises or len(of_column) >= MISSING:
            raise ValueError(
                f"cuts of {one.name}: expected at most {MISSING - 1} numbers that rise, none of them twice "
                "(numpy.unique sees to it) and none NaN"
            )
    sink = compute.binned(panel, checked)
    compute.compute(panel, features, sink)
    return Bins(sink.bins, tuple(f.name for f in features), tuple(checked), panel)


def _chosen(names: str | Iterable[str]) -> list[Feature]:
    from gpupipe.features.formulas import FEATURES

    return [FEATURES[name] for name in feature_names(names)]


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
