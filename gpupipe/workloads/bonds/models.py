"""The rows that models are fitted on, and fits that several steps share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds.dates import less_mean_of_date
from gpupipe.workloads.bonds.families.contract import FitRows, Model, Report, mean_squared
from gpupipe.workloads.bonds.families.registry import FAMILIES
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.seeds import seed_of
from gpupipe.workloads.bonds.split import BondSplit, Fold, folds_in_time, forward_folds

LEAST_SCALE = 0.25  # percent: the scale of smaller and negative spreads


@dataclass(frozen=True)
class ModelRows:
    """Rows with their target, and the split.

    X: float32 (n_rows, n_columns).  names: of its columns.
    spread: float64 (n_rows,), percent, the last value.  change: float32 (n_rows,), the next spread less this one; NaN
        where the next one is not known.
    date, next_row, share: as in `split.split_rows`.
    judged: int64, the rows of all dates from validation on, for which models predict.
    device: "cpu" or "cuda".  threads: that a fit may use, on which no model depends.

        >>> row = np.zeros(1, np.int64)
        >>> ModelRows(np.zeros((1, 1)), ("spread",), np.zeros(1), np.zeros(1), row, row, np.zeros(1), row,
        ...     BondSplit(row, row, row, (1, 2)), 7, "cpu").seed
        7
    """

    X: np.ndarray
    names: tuple[str, ...]
    spread: np.ndarray
    change: np.ndarray
    date: np.ndarray
    next_row: np.ndarray
    share: np.ndarray
    judged: np.ndarray
    split: BondSplit
    seed: int
    device: str
    threads: int = 1

    @property
    def scale(self) -> np.ndarray:
        """float64 (n_rows,): in what units of percent models predict changes, see `scale_of`."""
        return scale_of(self.spread)

    def target(self, rows: np.ndarray) -> np.ndarray:
        """float32 (n,): what models are fitted on, the change of each row in units of its scale less its date's mean.

        rows: int64 (n,), of one part; the mean is of these rows. The change that all bonds of a date share is most of
        a change, and is one number for each date: a history has too few of them to learn it from, and a model that
        tries predicts each date of training. So models predict how a bond moves against the others, and of the shared
        change nothing.
        """
        return self.moves(self.change, rows).astype(np.float32)

    def moves(self, change: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """float64 (n,): changes, float (n_rows,) in percent, of some rows in the unit and against the mean of `target`.

        rows: int64 (n,), of one part.
        """
        return less_mean_of_date(change[rows] / self.scale[rows], self.date[rows])

    def horizon(self, rows: np.ndarray) -> int:
        """Dates from a row of these to its target, at most: over so many dates errors of one bond share moves."""
        return int((self.date[self.next_row[rows]] - self.date[rows]).max(initial=1))

    def with_columns(self, columns: Mapping[str, np.ndarray]) -> ModelRows:
        """The same rows with further columns, float (n_rows,) each."""
        more = np.stack([np.asarray(column, np.float32) for column in columns.values()], axis=1)
        return dataclasses.replace(self, X=np.hstack([self.X, more]), names=(*self.names, *columns))

    def with_only(self, names: Sequence[str]) -> ModelRows:
        """The same rows with some of the columns, by name."""
        if tuple(names) == self.names:
            return self
        at = [self.names.index(name) for name in names]
        return dataclasses.replace(self, X=np.ascontiguousarray(self.X[:, at]), names=tuple(names))

    def fit_rows(self, fit: np.ndarray, validation: np.ndarray, step: int) -> FitRows:
        """What a fit sees. step: of the eleven, which has seeds of its own."""
        return FitRows(
            self.X[fit], self.target(fit), self.X[validation], self.target(validation),
            seed=seed_of(self.seed, step), threads=self.threads, device=self.device,
        )  # fmt: skip

    def folds(self, n_folds: int) -> list[Fold]:
        """Blocks of training dates for out-of-fold predictions; UserError where no block has both sides."""
        split = self.split
        return _some(folds_in_time(split.train, self.date, self.next_row, self.share, n_folds))

    def forward(self, n_folds: int) -> list[Fold]:
        """Blocks of training dates that are predicted from earlier ones, for searches; UserError without any."""
        return _some(forward_folds(self.split.train, self.date, self.next_row, self.share, n_folds))


def _some(folds: Iterable[Fold]) -> list[Fold]:
    """The folds that have rows on both sides."""
    kept = [fold for fold in folds if len(fold.fit) and len(fold.predict)]
    if not kept:
        raise UserError(
            "no block of training dates can be predicted from other dates and other issuers; give more quotes, or "
            "raise the shares bonds.train and bonds.issuers_train"
        )
    return kept


def scale_of(spread: np.ndarray) -> np.ndarray:
    """float64 like spread: the spread, at least LEAST_SCALE.

    Changes of spreads are about in proportion to them, so that a squared error in percent would be one of the bonds
    with the widest spreads, and little else.
    """
    return np.maximum(spread, LEAST_SCALE)


def fit(
    rows: ModelRows, name: str, settings: Config, step: int, values: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Model:  # fmt: skip
    """Fit a family on all training rows; values replace those of its section."""
    own = dataclasses.replace(getattr(settings, name), **(values or {}))
    return FAMILIES[name].fit(rows.fit_rows(rows.split.train, rows.split.validation, step), own, report)


def judged(rows: ModelRows, model: Model, **facts: Any) -> Found:
    """A step's result: the model, and the change it predicts in the judged rows, NaN in the others."""
    moves = np.full(len(rows.X), np.nan, np.float32)
    moves[rows.judged] = model.predict(rows.X[rows.judged])
    change, validation = (rows.scale * moves).astype(np.float32), rows.split.validation
    loss = mean_squared(moves[validation], rows.target(validation))  # validation rows are among the judged ones
    about = {"kind": model.kind, "columns": list(rows.names), "validation_loss": loss, **model.about()}
    return Found({"change": change}, {**about, **facts}, model.files())


def out_of_fold(
    rows: ModelRows, names: Sequence[str], settings: Config, step: int, n_folds: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows, and for each family the predictions of models that saw neither their issuers nor their dates."""
    at: list[np.ndarray] = []
    predictions: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for fold in rows.folds(n_folds):
        at.append(fold.predict)
        for name in names:
            model = FAMILIES[name].fit(rows.fit_rows(fold.fit, rows.split.validation, step), getattr(settings, name))
            predictions[name].append(model.predict(rows.X[fold.predict]))
    return np.concatenate(at), {name: np.concatenate(blocks) for name, blocks in predictions.items()}
