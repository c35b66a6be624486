"""A stack: a ridge regression on the out-of-fold predictions of other families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from gpupipe.store.content_store import pack_arrays, unpack_arrays
from gpupipe.workloads.bonds.families.contract import Model
from gpupipe.workloads.bonds.families.libraries import estimator


class StackModel(Model):
    """Members and their weights: intercept + members' predictions @ weights."""

    kind: ClassVar = "stack"

    def __init__(self, members: Mapping[str, Model], weights: np.ndarray, found: Mapping[str, Any]) -> None:
        self.members, self.weights, self.found = dict(members), weights, dict(found)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """See `Model`."""
        predictions = [model.predict(X).astype(np.float64) for model in self.members.values()]
        # Sums by einsum, so that the last bits of a row's prediction do not depend on the number of rows.
        total = np.einsum("nm,m->n", np.stack(predictions, axis=1), self.weights[1:])
        return (self.weights[0] + total).astype(np.float32)

    def files(self) -> dict[str, bytes]:
        """See `Model`."""
        found = {suffix: content for model in self.members.values() for suffix, content in model.files().items()}
        return {".stack.npz": pack_arrays({"weights": self.weights}), **found}

    def about(self) -> dict[str, Any]:
        """See `Model`."""
        weights = dict(zip(("intercept", *self.members), self.weights.tolist(), strict=True))
        members = {name: model.about() for name, model in self.members.items()}
        return {"weights": weights, "members": members, **self.found}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> StackModel:
        """See `Model`."""
        from gpupipe.workloads.bonds.families.registry import FAMILIES

        members = {}
        for name, family in FAMILIES.items():
            if own := {suffix: content for suffix, content in files.items() if suffix.startswith(f".{name}.")}:
                members[name] = family.model.load(own)
        return cls(members, unpack_arrays(files[".stack.npz"])["weights"], {})


def meta_weights(predictions: Sequence[np.ndarray], y: np.ndarray, l2: float, device: str) -> np.ndarray:
    """float64 (1 + n_members,): intercept and weights of a ridge regression on out-of-fold predictions.

    No weight is negative: members whose errors are alike would else get large weights of opposite signs, which fit the
    folds and not what comes. The member with the most negative weight is left out until there is none.
    predictions: float32 (n,) of each member.  l2: the penalty, in variances of the predictions times rows.
    Source: Breiman (1996), Stacked Regressions.
    """
    columns, target = np.stack(predictions, axis=1).astype(np.float64), y.astype(np.float64)
    alpha = l2 * len(y) * float(columns.var(axis=0).mean())
    members, weights = list(range(columns.shape[1])), np.zeros(1 + columns.shape[1])
    weights[0] = target.mean()
    while members:
        ridge = estimator("ridge", device, alpha=alpha)
        ridge.fit(columns[:, members], target)
        own = np.asarray(ridge.coef_, np.float64).ravel()
        if own.min() >= 0:
            weights[0] = float(ridge.intercept_)
            weights[[1 + k for k in members]] = own
            break
        members.pop(int(own.argmin()))
    return weights
