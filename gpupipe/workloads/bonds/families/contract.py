"""The contract of a family: fit on rows with validation rows beside, predict, files without pickles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True)
class FitRows:
    """What a fit sees.

    X: float32 (n, n_columns), NaN is missing.  y: float32 (n,).
    validation_x, validation_y: rows that stop training early; they are not fitted on.
    seed: below 2**32, see `seeds.seed_of`.  threads: that a fit may use.  device: "cpu" or "cuda".

        >>> FitRows(np.zeros((2, 1)), np.zeros(2), np.zeros((1, 1)), np.zeros(1), seed=1).device
        'cpu'
    """

    X: np.ndarray
    y: np.ndarray
    validation_x: np.ndarray
    validation_y: np.ndarray
    seed: int
    threads: int = 1
    device: str = "cpu"


class Model(ABC):
    """A fitted model."""

    kind: ClassVar[str]

    @abstractmethod
    def predict(self, X: np.ndarray) -> np.ndarray:
        """float32 (n,), from X float32 (n, n_columns)."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """Contents by suffix, in formats that load without running code."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What was found while it was fitted, in the types of JSON: rounds, epochs or trees, and validation losses."""

    @classmethod
    @abstractmethod
    def load(cls, files: Mapping[str, bytes]) -> Model:
        """The model of `files`."""


Report = Callable[[int, float], None]  # of a validation loss after so many rounds; may raise, to stop the fit


class Family(ABC):
    """A family of models. Settings are a frozen dataclass, the section of its name."""

    name: ClassVar[str]
    model: ClassVar[type[Model]]

    @abstractmethod
    def space(self, trial: Any) -> dict[str, Any]:
        """Values of settings that an Optuna trial suggests; each is used."""

    @abstractmethod
    def fit(self, rows: FitRows, settings: Any, report: Report | None = None) -> Model:
        """Fit, and stop early where validation no longer gains."""


@dataclass(frozen=True)
class Imputer:
    """Fills missing values with the median of the column in training; 0 where all are missing.

    >>> Imputer.of(np.array([[1.0, np.nan], [3.0, np.nan]], np.float32)).median.tolist()
    [2.0, 0.0]
    """

    median: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray) -> Imputer:
        """Fitted on X."""
        known = np.where(np.isfinite(X), X, np.nan)
        some = np.isfinite(known).any(axis=0)
        median = np.zeros(X.shape[1], np.float32)
        median[some] = np.nanmedian(known[:, some], axis=0)
        return cls(median)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """X float32, without NaN and infinity."""
        return np.where(np.isfinite(X), X, self.median).astype(np.float32)


def mean_squared(prediction: np.ndarray, y: np.ndarray) -> float:
    """The loss that validation judges."""
    return float(np.mean((prediction.astype(np.float64) - y) ** 2))
