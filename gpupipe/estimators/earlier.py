"""Models of an earlier run that the final fit starts from, and how a model records that it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class WarmStart:
    """Where a model started.

    run_key: of the run that it started from.  rounds: how many rounds of each of its stages are that run's; empty for
    an estimator without rounds.  trained_to: time of the newest row that its oldest rounds were fitted on, as metadata
    writes it.

        >>> WarmStart("0a1b", (40, 0), "2017-01-31").describe()["warm_start"]["rounds"]
        (40, 0)
    """

    run_key: str
    rounds: tuple[int, ...]
    trained_to: str

    def describe(self) -> dict[str, Any]:
        """As JSON holds it, under "warm_start" of the model's description."""
        return {"warm_start": asdict(self)}


def warm_start_of(description: Mapping[str, Any]) -> WarmStart | None:
    """The inverse of `WarmStart.describe`; None for a model that started from nothing."""
    if "warm_start" not in description:
        return None
    started = description["warm_start"]
    return WarmStart(started["run_key"], tuple(started["rounds"]), started["trained_to"])


@dataclass(frozen=True)
class EarlierModels:
    """The models of one estimator in an earlier run.

    by_group: for each group one model for each target of the training set, in order.
    columns: int64, the columns of the feature matrix that the models were fitted on; None for all.
    trained_to: see `WarmStart`; the oldest of all models.
    digest: SHA-256 of the run and its models.

        >>> earlier = EarlierModels("0a1b", {"energy": ()}, np.array([0, 4]), "2017-01-31", digest="f00d")
        >>> earlier.started(40, 0).rounds, earlier.started(0, 0), earlier.has_columns(None)
        ((40, 0), None, False)
    """

    run_key: str
    by_group: Mapping[str, Sequence[Any]]
    columns: np.ndarray | None
    trained_to: str
    digest: str

    def started(self, *rounds: int) -> WarmStart | None:
        """The record of a model that kept so many rounds of each stage; None where all are 0."""
        return WarmStart(self.run_key, rounds, self.trained_to) if any(rounds) or not rounds else None

    def has_columns(self, columns: np.ndarray | None) -> bool:
        """Whether the models were fitted on these columns, None for all."""
        if self.columns is None or columns is None:
            return self.columns is columns
        return np.array_equal(self.columns, columns)

    def pooled(self) -> list[Any]:
        """For each target, a pooled model, or a group model that was initialised from it; None where there is none.

        A boosted model of one target is pooled where its scope is "pool"; models of other estimators, of either scope,
        begin with the pooled part.
        """
        by_target = zip(*self.by_group.values(), strict=True)
        return [next((model for model in models if model.scope == "pool"), None) for models in by_target]
