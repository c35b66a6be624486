"""Scorers: the measures of a model on a part of the rows, by the kind of its target."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from gpupipe.evaluation import losses, metrics
from gpupipe.targets.target import Target


class Scorer(Protocol):
    """The measures of a model's predictions.

    Example: `scorer_of(target).cutoffs(prediction, y)` is {"buy": 0.41, "sell": 0.38} for classes and {} for values.
    """

    def cutoffs(self, prediction: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Predictions from which a row is called, by side, chosen on validation rows; empty without calls."""
        ...

    def measures(
        self,
        prediction: np.ndarray,
        y: np.ndarray,
        reference: np.ndarray,
        cutoffs: dict[str, float],
        forward_return: np.ndarray,
    ) -> dict[str, Any]:
        """All measures of a part, by name, including `gain_over_prior`.

        prediction: (n, n_outputs).  y: (n,), all known.  reference: float64 (n, n_outputs), of the target's reference.
        forward_return: float32 (n,), NaN where not known.
        """
        ...


class ClassScorer:
    """Measures of class probabilities; see `metrics.measures`."""

    def cutoffs(self, prediction: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """See `Scorer`."""
        return metrics.call_cutoffs(prediction, y)

    def measures(
        self,
        prediction: np.ndarray,
        y: np.ndarray,
        reference: np.ndarray,
        cutoffs: dict[str, float],
        forward_return: np.ndarray,
    ) -> dict[str, Any]:
        """See `Scorer`."""
        prior = reference[0] if len(reference) else np.full(prediction.shape[1], 1 / prediction.shape[1])
        return metrics.measures(prediction, y, prior, cutoffs, forward_return)


class ValueScorer:
    """Measures of predicted values."""

    def cutoffs(self, prediction: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """See `Scorer`."""
        return {}

    def measures(
        self,
        prediction: np.ndarray,
        y: np.ndarray,
        reference: np.ndarray,
        cutoffs: dict[str, float],
        forward_return: np.ndarray,
    ) -> dict[str, Any]:
        """Squared error of the prediction and of the reference, and the gain."""
        if not len(y):
            return {"rows": 0, "squared_error": np.nan, "prior_squared_error": np.nan, "gain_over_prior": np.nan}
        loss = float(losses.squared_error(prediction, y).mean())
        reference_loss = float(losses.squared_error(reference, y).mean())
        return {
            "rows": len(y),
            "squared_error": loss,
            "prior_squared_error": reference_loss,
            "gain_over_prior": losses.gain(loss, reference_loss),
        }


_SCORERS: dict[str, Scorer] = {"classes": ClassScorer(), "value": ValueScorer()}


def scorer_of(target: Target) -> Scorer:
    """The scorer of a target's kind."""
    return _SCORERS[target.kind]
