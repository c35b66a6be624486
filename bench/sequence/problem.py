"""Problem: one series, its labels and its rows for training and validation, the same for both ways and all presets."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, replace

import numpy as np

from gpupipe import compute_features, read, tp_dd_labels
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import NEVER, Dataset, warm_rows
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.estimators.torch.architecture import Head
from gpupipe.estimators.torch.settings import PRESETS
from gpupipe.targets.classes import BUY, CLASSES, HOLD, SELL, UNKNOWN
from gpupipe.targets.target import Target

HORIZONS, THRESHOLDS = (1, 5), (0.01, 0.02)
LOOKBACK = max(settings.length for settings in PRESETS.values())  # all presets judge and learn from the same rows
TRAINING, VALIDATION = 0.6, 0.8  # ends of the parts, as shares of the usable rows; the sealed rest is never read


@dataclass(frozen=True)
class Parts:
    """Row numbers, int64, rising: those fitted, and those that choose the epoch.

    No label window of the first reaches into a feature window of the second, and none of the second into the rest.
    """

    training: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True, eq=False)
class Problem:
    """What is learned: the labels of one series, from windows of its features.

    dataset: float32 features (n_rows, n_columns) and int8 labels (n_rows, n_labels) in the classes SELL, HOLD and BUY:
        the direction of the next close, then take-profit and stop at 1 % and 2 % within 1 and 5 bars.
    parts: its rows.
    """

    name: str
    dataset: Dataset
    parts: Parts

    @property
    def heads(self) -> tuple[Head, ...]:
        """One for each label."""
        return tuple(Head(name, len(CLASSES)) for name in self.dataset.target.names)

    @property
    def training(self) -> FeatureRows:
        """Features of the rows that are fitted."""
        return self.features(self.parts.training)

    @property
    def validation(self) -> FeatureRows:
        """Features of the rows that choose the epoch."""
        return self.features(self.parts.validation)

    def features(self, rows: np.ndarray) -> FeatureRows:
        """Features of some rows, by number."""
        return FeatureRows(self.dataset.X, self.dataset.device.asarray(rows), self.dataset.offsets)

    def with_training(self, rows: np.ndarray) -> Problem:
        """The same problem, learned from other rows."""
        return replace(self, parts=Parts(rows, self.parts.validation))


def read_series(path: pathlib.Path, n_rows: int | None = None) -> Panel:
    """The bars of a file of one symbol; the first `n_rows` of them."""
    panel = read(path, no_sector="other")
    if panel.n_symbols != 1:
        raise ValueError(f"{path.name} holds {panel.n_symbols} symbols, expected one")
    return panel if n_rows is None else panel.take(np.arange(panel.n_rows) < n_rows)


def direction(close: np.ndarray) -> np.ndarray:
    """int8 (n_rows,): SELL where the next close is lower, HOLD where it is the same, BUY where it is higher.

    close: float32 (n_rows,), of one symbol. UNKNOWN in the last row and where either close is NaN.
    """
    label = np.full(len(close), UNKNOWN, np.int8)
    now, then = close[:-1], close[1:]
    for relation, number in ((then < now, SELL), (then == now, HOLD), (then > now, BUY)):
        label[:-1][relation] = number
    return label


def parts_of(usable: np.ndarray, lookback: int, horizon: int) -> Parts:
    """Cut the usable rows of one symbol in time, purged by the windows of features and of labels on both sides.

    usable: bool (n_rows,).  lookback: bars of the longest window.  horizon: bars that labels look ahead.
    ValueError where a part is left without a row.
    """
    rows = np.flatnonzero(usable)
    rows = rows[rows >= rows[0] + lookback - 1] if len(rows) else rows
    if not len(rows):
        raise ValueError(f"no row has {lookback} known bars: give more rows")
    first, last = rows[0], rows[-1] + 1
    split, end = (first + int(share * (last - first)) for share in (TRAINING, VALIDATION))
    training = rows[rows + horizon < split]
    validation = rows[(rows - lookback + 1 >= split) & (rows + horizon < end)]
    if not len(training) or not len(validation):
        raise ValueError(f"{last - first} rows leave none for training or validation: give more rows")
    return Parts(training, validation)


def problem_of(name: str, panel: Panel, features: str, lookback: int = LOOKBACK) -> Problem:
    """The problem of one series with a named feature set of gpupipe, such as "core" or "atb9"."""
    computed = compute_features(panel, features)
    labels = tp_dd_labels(panel, horizons=HORIZONS, thresholds=THRESHOLDS)
    y = np.concatenate([direction(panel.close)[:, None], labels.y], axis=1)
    known = (y >= 0).all(axis=1)
    warm, horizon = warm_rows(computed), max(HORIZONS)
    end_time_ns = np.where(known, panel.time_ns[np.minimum(np.arange(panel.n_rows) + horizon, panel.n_rows - 1)], NEVER)
    horizons = (1, *(h for h in HORIZONS for _ in THRESHOLDS))
    dataset = Dataset(
        group=name, X=computed.values, names=computed.names, y=y,
        target=Target(("direction_1d", *labels.names), "classes", horizons, CLASSES),
        time_ns=panel.time_ns, end_time_ns=end_time_ns, warm=warm, usable=warm & known, offsets=panel.offsets,
    )  # fmt: skip
    return Problem(name, dataset, parts_of(dataset.usable, lookback, horizon))
