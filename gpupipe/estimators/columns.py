"""Columns that models are trained on where these are not all: chosen, or left out as twins; picked again to predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators.boosting import gradient_boosting
from gpupipe.estimators.boosting.gradient_boosting import Target, label_scale
from gpupipe.estimators.boosting.tree_model import cuts_of
from gpupipe.estimators.training_set import Fold, Rows, whole
from gpupipe.estimators.training_set import only as of_columns
from gpupipe.runtime.device import Device

QUICK = config.Booster(rounds=50, learning_rate=0.1, depth=4, min_child_weight=50.0, l2=50.0)
FIRST_ROWS = 4096  # what cannot be told apart on these is compared on all


@dataclass(frozen=True)
class Picked:
    """A model of some columns, which takes the whole feature matrix and picks them. columns: int64, ascending."""

    columns: np.ndarray
    model: Any

    @property
    def scope(self) -> str:
        """The model's."""
        return self.model.scope

    def predict(self, X: Any, device: Device) -> Any:
        """float32 (n_rows, 3), of X float32 (n_rows, n_features) with all columns."""
        return self.model.predict(X[:, device.asarray(self.columns)], device)

    def files(self) -> dict[str, bytes]:
        """The model's."""
        return self.model.files()

    def describe(self) -> dict[str, Any]:
        """The model's, and the numbers of its columns."""
        return {**self.model.describe(), "columns": self.columns.tolist()}


def only(fold: Fold, columns: np.ndarray) -> Fold:
    """The fold with these of its columns."""
    at = fold.device.asarray(columns)

    def cut(rows: Rows) -> Rows:
        return Rows(of_columns(rows.X, at), rows.y, rows.time_ns, rows.weight)

    return dataclasses.replace(
        fold, fit={s: cut(rows) for s, rows in fold.fit.items()},
        validation={s: cut(rows) for s, rows in fold.validation.items()},
        columns=columns if fold.columns is None else fold.columns[columns],
    )  # fmt: skip


def top_columns(fold: Fold, n: int) -> np.ndarray:
    """The n columns with the largest total gain in fifty shallow trees of all labels and sectors, int64, ascending.

    Fitted rows alone are looked at: neither validation nor, in an out-of-fold round, the part that is predicted.
    Columns that no tree uses are left out, so there may be fewer than n.
    """
    bias = np.log(fold.shares()).astype(np.float32).ravel()
    target = Target(range(fold.n_labels), lambda rows: rows.tile(bias, fold.device), fold.weights(), label_scale(fold))
    quick = gradient_boosting.boost(fold, None, target, QUICK, 0, [QUICK.rounds] * fold.n_labels)
    scores = quick.booster.get_score(importance_type="total_gain")
    gains = np.zeros(next(iter(fold.fit.values())).X.shape[1])
    for name, score in scores.items():
        gains[int(name.removeprefix("f"))] = score
    best = np.argsort(-gains, kind="stable")[:n]
    return np.sort(best[gains[best] > 0])


def distinct_columns(fold: Fold) -> np.ndarray:
    """Columns whose bins are not, row for row, those of a column before them, int64, ascending.

    Trees cannot tell such twins apart, and pay for both. Of the fitted rows of all sectors.
    """
    cuts = cuts_of(fold.bins())
    first = next(iter(fold.fit.values())).slice(0, FIRST_ROWS)
    groups: dict[bytes, list[int]] = {}
    for k, codes in enumerate(_codes(first.X, range(len(cuts)), cuts, fold.device)):
        groups.setdefault(codes.tobytes(), []).append(k)
    alike = [k for group in groups.values() if len(group) > 1 for k in group]
    whole: dict[int, list[bytes]] = {k: [] for k in alike}
    for rows in fold.fit.values():
        for k, codes in zip(alike, _codes(rows.X, alike, cuts, fold.device), strict=True):
            whole[k].append(codes.tobytes())
    seen: dict[bytes, int] = {}
    first_alike = np.arange(len(cuts))
    for k in alike:
        first_alike[k] = seen.setdefault(b"".join(whole[k]), k)
    # Twins in the rows of every process that holds some.
    different = fold.total((first_alike[:, None] != first_alike).astype(np.int64))
    return np.flatnonzero(np.argmax(different == 0, axis=1) == np.arange(len(cuts)))


def _codes(X: Any, columns: Sequence[int], cuts: Sequence[np.ndarray], device: Device) -> list[np.ndarray]:
    """Bins of some columns, int16 (n_rows,) each, -1 where missing."""
    found = []
    X = whole(X)
    for k in columns:
        values = device.to_host(X[:, k])
        codes = np.searchsorted(cuts[k], values, side="right").astype(np.int16)
        found.append(np.where(np.isnan(values), np.int16(-1), codes))
    return found


def wrap(models: Sequence[Any], columns: np.ndarray | None) -> list[Any]:
    """Models of a fold that has these columns only, so that they pick them; as they are where it has all."""
    if columns is None:
        return list(models)
    return [None if model is None else Picked(columns, model) for model in models]


def unwrap(models: Sequence[Any] | None) -> list[Any] | None:
    """The inverse of `wrap`; None stays None."""
    if models is None:
        return None
    return [model.model if isinstance(model, Picked) else model for model in models]
