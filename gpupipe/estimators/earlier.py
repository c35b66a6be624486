"""Models of an earlier run that the final fold goes on from, and what a model says of having done so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class WarmStart:
    """Where a model began.

    run_key: of the run that it went on from.  rounds: how many rounds of each of its stages were that run's; empty for
    a family without rounds.  trained_to: time of the newest row that its oldest rounds were fitted on, as metadata
    writes it.
    """

    run_key: str
    rounds: tuple[int, ...]
    trained_to: str

    def describe(self) -> dict[str, Any]:
        """As JSON holds it, under "warm_start" of the model's description."""
        return {"warm_start": asdict(self)}


def of_description(about: Mapping[str, Any]) -> WarmStart | None:
    """The inverse of `WarmStart.describe`; None where a model began with nothing."""
    if "warm_start" not in about:
        return None
    found = about["warm_start"]
    return WarmStart(found["run_key"], tuple(found["rounds"]), found["trained_to"])


@dataclass(frozen=True)
class Earlier:
    """One family's models of an earlier run.

    by_sector: for each sector one model for each label of the fold, in order.
    columns: int64, the columns of the feature matrix that the models were fitted on; None for all.
    trained_to: as of `WarmStart`, over all of them.
    digest: SHA-256 of the run and its models.
    """

    run_key: str
    by_sector: Mapping[str, Sequence[Any]]
    columns: np.ndarray | None
    trained_to: str
    digest: str

    def started(self, *rounds: int) -> WarmStart | None:
        """What a model says that went on from so many rounds of each stage; None where all are 0."""
        return WarmStart(self.run_key, rounds, self.trained_to) if any(rounds) or not rounds else None

    def has_columns(self, columns: np.ndarray | None) -> bool:
        """Whether the models were fitted on these columns, None for all."""
        if self.columns is None or columns is None:
            return self.columns is columns
        return np.array_equal(self.columns, columns)

    def pooled(self) -> list[Any]:
        """For each label, a model that all sectors share or that begins as such; None where no sector has one.

        A model of boosted trees of one label is shared where its scope is "pool"; other families' models, of either
        scope, begin with the pooled part.
        """
        by_label = zip(*self.by_sector.values(), strict=True)
        return [next((model for model in own if model.scope == "pool"), None) for own in by_label]
