"""Features: scale-free columns of a panel, written by the project's kernels into one float32 matrix or uint8 bins."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
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

    values: float32 (n_rows, n_features), C order, never infinite. NaN in warm-up rows, and where the value depends on
        an unknown price or volume.
    names: one for each column, without duplicates.
    definitions: one for each column, the text that determines its values (formula, operations, hash of the kernel's
        code); see `hash`.
    beside: further features of the same rows, which no model reads; None where there are none.

    `values` is exchanged without a copy by DLPack or __cuda_array_interface__. Treat it as immutable.
    Raises ValueError when a shape, dtype, order or device is not as above.

        >>> from gpupipe import compute_features, simulate
        >>> features = compute_features(simulate(11, 30, seed=1), ["roc_5", "rsi_14"])
        >>> features.values.shape, features.names
        ((330, 2), ('roc_5', 'rsi_14'))
    """

    values: Any
    names: tuple[str, ...]
    definitions: tuple[str, ...] = field(repr=False)
    panel: Panel = field(repr=False)
    beside: Features | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_columns({"values": self.values, "time_ns": self.panel.time_ns}, {"values": "float32", "time_ns": "int64"})
        expected = (self.panel.n_rows, len(self.names))
        if self.values.shape != expected:
            raise ValueError(f"values has shape {self.values.shape}, expected {expected}: (rows, names)")
        if not self.values.flags["C_CONTIGUOUS"]:
            raise ValueError("values is not in C order; pass numpy.ascontiguousarray(values)")
        if len(set(self.names)) != len(self.names):
            raise ValueError("names of features must be without duplicates")
        if len(self.definitions) != len(self.names):
            raise ValueError(f"{len(self.definitions)} definitions for {len(self.names)} names")

    @property
    def n_rows(self) -> int:
        """Number of rows, one for each bar of the panel."""
        return int(self.values.shape[0])

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.names)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256, in hex, over names and definitions in order: equal hashes mean columns with the same formulas."""
        return hash_of(self.names, self.definitions)

    def column(self, name: str) -> Any:
        """float32 (n_rows,): one column, as a view; ValueError for an unknown name."""
        if name not in self.names:
            raise ValueError(f"no feature {name!r} here; the nearest is {_nearest(name, self.names)!r}")
        return self.values[:, self.names.index(name)]

    def part(self, rows: slice, panel: Panel) -> Features:
        """The features of consecutive rows, as a view; panel: that of these rows."""
        beside = None if self.beside is None else self.beside.part(rows, panel)
        return replace(self, values=self.values[rows], panel=panel, beside=beside)

    def to_arrow(self) -> pyarrow.Table:
        """A table with the columns symbol (dictionary), time (timestamp[ns, UTC]) and every feature."""
        host = self.panel.device.to_host(self.values)
        return row_table(self.panel, {name: np.ascontiguousarray(host[:, k]) for k, name in enumerate(self.names)})


def hash_of(names: Iterable[str], definitions: Iterable[str]) -> str:
    """SHA-256, in hex, over the names and definitions of features, in order."""
    lines = (f"{name}: {definition}\n" for name, definition in zip(names, definitions, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class FeatureInfo(NamedTuple):
    """One line of the feature table.

    warm_up_bars: rows 0 to warm_up_bars - 1 of a symbol are NaN.

        >>> [(info.family, info.warm_up_bars) for info in feature_table() if info.name == "roc_5"]
        [('momentum', 5)]
    """

    name: str
    family: str
    formula: str
    source: str
    warm_up_bars: int


def feature_table() -> list[FeatureInfo]:
    """Every registered feature, in the order of "all"."""
    from gpupipe.features.formulas import FEATURES

    return [FeatureInfo(f.name, f.family, f.formula, f.source, f.warm_up_bars) for f in FEATURES.values()]


def warm_up_of(name: str) -> int:
    """The first row of a symbol, counted from 0, in which the feature is not NaN; ValueError for an unknown name."""
    from gpupipe.features.formulas import FEATURES

    if name not in FEATURES:
        raise ValueError(f"no feature {name!r}; the nearest is {_nearest(name, FEATURES)!r}")
    return FEATURES[name].warm_up_bars


def feature_names(names: str | Iterable[str] = "default") -> tuple[str, ...]:
    """The columns that `names` selects: "default", a set below, a family, a glob, a name, or a list of these.

    "core": what presets train on.  "atb9": prices, volume, averages.  "session": for trading within the day.
    "all": all but the families "level" (prices as they are), "intraday" (of bars within a day) and "outside".

    Raises ValueError with the nearest name for an entry that matches no feature, and for an empty list.
    """
    from gpupipe.features.formulas import ATB9, CORE, FAMILIES, FEATURES, SESSION, SET_APART

    sets = {"core": CORE, "atb9": ATB9, "session": SESSION}
    chosen: dict[str, None] = {}
    for name in [names] if isinstance(names, str) else names:
        if name == "default":
            matches = [name for name, feature in FEATURES.items() if feature.default]
        elif name == "all":
            matches = [name for name, feature in FEATURES.items() if feature.family not in SET_APART]
        elif name in sets:
            matches = sets[name]
        elif name in FEATURES:
            matches = [name]
        elif name in (*FAMILIES, *SET_APART):
            matches = [f.name for f in FEATURES.values() if f.family == name]
        else:
            named = [name for name, feature in FEATURES.items() if feature.family not in SET_APART]
            matches = fnmatch.filter(named, name) or fnmatch.filter(FEATURES, name)
        if not matches:
            known = ("default", "all", *sets, *FAMILIES, *FEATURES)
            raise ValueError(f"no feature or family {name!r}; the nearest is {_nearest(name, known)!r}")
        chosen.update(dict.fromkeys(matches))
    if not chosen:
        raise ValueError("no feature is selected; expected 'default', a family, a glob, a name or a list of these")
    return tuple(chosen)


def compute_features(
    panel: Panel, names: str | Iterable[str] = "default", out: Any = None, compared_since: int | None = None
) -> Features:
    """Compute features of every row, on the panel's device; `names` as in `feature_names`.

    A row's values depend on earlier rows of its symbol and on the row itself. Cross-sectional columns also depend on
    rows of its sector up to its time. Nothing depends on later rows, or on which other sectors the panel holds.

    out: float32 (n_rows, n_features), C order, on the panel's device: the matrix to write to; a new one if None.
        Reusing a matrix saves the time in which the operating system provides memory.
    compared_since: int64 UTC ns. Cross-sectional columns cost more the more symbols a sector has: with this time they
        are computed from it on only, with the same bits, and are NaN in earlier rows.
    Raises ValueError for unknown names and for an `out` of another shape, dtype or order; FeatureError where a
        function of the user's fails.
    """
    from gpupipe.features import compute

    features = _selected(names)
    if out is None:
        out = panel.device.xp.empty((panel.n_rows, len(features)), dtype=np.float32)
    matrix = Features(out, tuple(f.name for f in features), tuple(f.definition for f in features), panel)
    compute.compute(panel, features, compute.float_sink(panel, out), compared_since)
    return matrix


@dataclass(frozen=True)
class Bins:
    """Features of every row of a panel as bins, on the panel's device: all that trees need, in a quarter of the memory.

    values: uint8 (n_rows, n_features), C order; the number of the column's cuts that are at most the value, 0 to 254;
        255 where the feature is NaN.
    names: one for each column.  cuts: the cuts of each column, float32, rising.

    With the cuts [30, 70] an rsi_14 of 25, 30, 80 and NaN becomes 0, 1, 2 and 255.

        >>> from gpupipe import simulate
        >>> bins = compute_bins(simulate(11, 30, seed=1), ["rsi_14"], [[30, 70]])
        >>> bins.values.shape, np.unique(bins.values).tolist()
        ((330, 1), [0, 1, 2, 255])
    """

    values: Any
    names: tuple[str, ...]
    cuts: tuple[np.ndarray, ...] = field(repr=False)
    panel: Panel = field(repr=False)


def compute_bins(panel: Panel, names: str | Iterable[str], cuts: Sequence[Any]) -> Bins:
    """Compute features of every row as bins, without a float matrix; `names` as in `feature_names`.

    cuts: for each feature, in the order of `feature_names(names)`, at most 254 rising float32, such as
        np.unique(np.nanquantile(column, np.linspace(0, 1, 65)[1:-1]).astype("float32")), or those of
        estimators.boosting.binned_matrix.cuts_of(matrix). A value equal to a cut is in the bin above it, as in XGBoost.
    Train with `xgboost.QuantileDMatrix(bins.values, missing=255, max_bin=256)`.
    Raises ValueError for cuts that are not as above.
    """
    from gpupipe.features import compute

    features = _selected(names)
    if not hasattr(cuts, "__len__"):
        raise ValueError(f"cuts are {type(cuts).__name__}, expected a list with an array for each feature")
    checked = [np.asarray(column_cuts, dtype=np.float32) for column_cuts in cuts]
    if len(checked) != len(features):
        raise ValueError(f"cuts of {len(checked)} columns for {len(features)} features")
    for feature, edges in zip(features, checked, strict=True):
        rises = edges.ndim == 1 and bool((edges[1:] > edges[:-1]).all() and not np.isnan(edges).any())
        if not rises or len(edges) >= MISSING:
            raise ValueError(
                f"cuts of {feature.name}: expected at most {MISSING - 1} numbers that rise, without duplicates "
                "(numpy.unique removes them) and without NaN"
            )
    sink = compute.bin_sink(panel, checked)
    compute.compute(panel, features, sink)
    return Bins(sink.bins, tuple(f.name for f in features), tuple(checked), panel)


def _selected(names: str | Iterable[str]) -> list[Feature]:
    from gpupipe.features.formulas import FEATURES

    return [FEATURES[name] for name in feature_names(names)]


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
