"""Scorers: the measures of a model on a part of the rows, by the kind of its target."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from gpupipe.evaluation import losses, metrics
from gpupipe.targets.target import Target


class Scorer(Protocol):
    """The measures of a model's predictions.

    >>> scorer = scorer_of(Target(("next_return",), "value", (1,), loss="squared_error", reference="last_value"))
    >>> type(scorer).__name__, scorer.cutoffs(np.zeros((2, 1)), np.zeros(2))
    ('ValueScorer', {})
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
    """Measures of class probabilities; see `metrics.measures`.

    >>> probability, y = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]]), np.array([0, 2], np.int8)
    >>> cutoffs = ClassScorer().cutoffs(probability, y)
    >>> prior = np.full((2, 3), 1 / 3)
    >>> measures = ClassScorer().measures(probability, y, prior, cutoffs, forward_return=np.float32([-0.02, 0.05]))
    >>> cutoffs, measures["calls_buy"], round(measures["gain_over_prior"], 3)
    ({'buy': 0.6, 'sell': 0.6}, 1, 0.535)
    """

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
    """Measures of predicted values.

    >>> prediction, y = np.array([[0.5], [2.0]]), np.array([1.0, 2.0])
    >>> reference = np.zeros((2, 1))
    >>> measures = ValueScorer().measures(prediction, y, reference, {}, forward_return=np.zeros(2, np.float32))
    >>> measures["squared_error"], measures["prior_squared_error"], measures["gain_over_prior"]
    (0.125, 2.5, 0.95)
    """

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
