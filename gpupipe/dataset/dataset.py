"""Dataset: the features and labels of one sector, row-aligned; no row is dropped, only marked."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.panel import Panel, check_columns
from gpupipe.features.matrix import Features, compute_features, warm_up_of
from gpupipe.runtime.device import Device, device_of
from gpupipe.targets.triple_barrier import Labels

# A row may be used once the features of up to this many bars are warm; longer windows may be missing on it.
WARM_BARS = 61
NEVER = 2**63 - 1


@dataclass(frozen=True)
class Dataset:
    """Features and labels of one sector.

    X: float32 (n_rows, n_features), C order; NaN is missing.  names: of its columns.
    y: int8 (n_rows, n_labels): 0 SELL, 1 HOLD, 2 BUY, -1 not known.  label_names: of its columns.
    horizon_of_label, threshold_of_label: bars and fraction, for each label.
    forward_return: float32 (n_rows, n_horizons), close to close over `horizons` bars; NaN where not known.
    natr: float32 (n_rows,), NATR 14 in percent: what the volatility tables are made of.
    last_return: float32 (n_rows,), ROC 1, of the last bar, in percent: what the baseline of that name sees.
    time_ns: int64 (n_rows,), when the bar was known.
    end_time_ns: int64 (n_rows,), time of the last bar that any of the row's labels looks at; 2**63 - 1 where a
        label is not known. Purging by it is right for all labels at once, so that they share their rows.
    warm: bool (n_rows,): the columns that need at most 61 bars are all there.
    usable: bool (n_rows,): warm, and all labels known.
    weight: float32 (n_rows, n_labels), what a row counts in fitting a label; None where all count alike.

    Raises ValueError when a shape, dtype or device is not as above.
    """

    sector: str
    X: Any
    names: tuple[str, ...]
    y: Any
    label_names: tuple[str, ...]
    horizons: tuple[int, ...]
    horizon_of_label: tuple[int, ...]
    threshold_of_label: tuple[float, ...]
    forward_return: Any
    natr: Any
    last_return: Any
    time_ns: Any
    end_time_ns: Any
    warm: Any
    usable: Any
    weight: Any = None

    def __post_init__(self) -> None:
        dtypes = {
            "X": "float32", "y": "int8", "forward_return": "float32", "natr": "float32",
            "last_return": "float32", "time_ns": "int64", "end_time_ns": "int64", "warm": "bool", "usable": "bool",
        }  # fmt: skip
        check_columns({name: getattr(self, name) for name in dtypes}, dtypes)
        shapes = {"X": (len(self.names),), "y": (len(self.label_names),), "forward_return": (len(self.horizons),)}
        for name in dtypes:
            expected = (self.X.shape[0], *shapes.get(name, ()))
            if getattr(self, name).shape != expected:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {expected}")
        if self.weight is not None and self.weight.shape != self.y.shape:
            raise ValueError(f"weight has shape {self.weight.shape}, expected {self.y.shape}")

    @functools.cached_property
    def device(self) -> Device:
        """The device its arrays live on."""
        return device_of(self.X)

    @property
    def n_rows(self) -> int:
        """Number of bars, usable or not."""
        return int(self.X.shape[0])

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return len(self.label_names)


def warm_rows(features: Features, at: Any = slice(None)) -> Any:
    """bool (n_rows,), or of the rows `at` alone: the columns that need at most 61 bars are all there."""
    values = features.values[at]
    warm = features.panel.device.xp.ones(values.shape[0], dtype=bool)
    for k, name in enumerate(features.names):  # column by column: a mask of the whole matrix would be large
        if warm_up_of(name) <= WARM_BARS:
            warm &= ~features.panel.device.xp.isnan(values[:, k])
    return warm


def join(
    panel: Panel, features: Features, labels: Labels, sector: str, weighted: bool = False,
    columns: tuple[Any, Any] | None = None,
) -> Dataset:  # fmt: skip
    """The Dataset of one sector's panel, its features and its labels; nothing is copied but the marks.

    columns: natr and last_return; those of the features, or computed, if None.
    weighted: rows weigh the average uniqueness of the window that decides their label (Lopez de Prado 2018, section
        4.4), 0 where it is not known.
    """
    xp = panel.device.xp
    warm = warm_rows(features)
    known = (labels.y >= 0).all(axis=1)
    last = labels.exit_row.max(axis=1)
    end_time_ns = xp.where(known, panel.time_ns[xp.where(known, last, 0)], NEVER)
    natr, last_return = columns or (_column(panel, features, name) for name in ("natr_14", "roc_1"))
    pairs = [(h, t) for h in labels.horizons for t in labels.thresholds]
    return Dataset(
        sector=sector,
        X=features.values,
        names=features.names,
        y=labels.y,
        label_names=labels.names,
        horizons=labels.horizons,
        horizon_of_label=tuple(h for h, _ in pairs),
        threshold_of_label=tuple(t for _, t in pairs),
        forward_return=labels.forward_return,
        natr=natr,
        last_return=last_return,
        time_ns=panel.time_ns,
        end_time_ns=end_time_ns,
        warm=warm,
        usable=warm & known,
        weight=_uniqueness(labels) if weighted else None,
    )


def without_features(panel: Panel, labels: Labels, sector: str, warm_bars: int) -> Dataset:
    """The Dataset that folds can be cut from, with no columns: X is (n_rows, 0), and of weights there are none.

    A row is warm where `warm_bars` bars before it, and itself, are known; features of dirty bars may know more.
    """
    xp, n_rows = panel.device.xp, panel.n_rows
    rows = xp.arange(n_rows)
    first = panel.offsets[:-1][panel.symbol_of_row]
    known = xp.ones(n_rows, dtype=bool)
    for column in (panel.open, panel.high, panel.low, panel.close):
        known &= xp.isfinite(column) & (column > 0)
    # On the host: CuPy has no running maximum.
    unknown = np.maximum.accumulate(panel.device.to_host(xp.where(known, -1, rows)))
    last_unknown = xp.maximum(panel.device.asarray(unknown), first - 1)
    nothing = xp.zeros(n_rows, xp.float32)
    features = Features(xp.empty((n_rows, 0), xp.float32), (), (), panel)
    # Its columns are never read: what they would take is what this saves.
    plain = join(panel, features, labels, sector, columns=(nothing, nothing))
    warm = rows - last_unknown > warm_bars
    return dataclasses.replace(plain, warm=warm, usable=plain.usable & warm)


def _uniqueness(labels: Labels) -> Any:
    xp = labels.panel.device.xp
    return xp.ascontiguousarray(xp.where(xp.isnan(labels.weight), np.float32(0), labels.weight))


def _column(panel: Panel, features: Features, name: str) -> Any:
    """One of gpupipe's own columns, also when the chosen features are without it."""
    found = features if name in features.names else compute_features(panel, name)
    return panel.device.xp.ascontiguousarray(found.column(name))
