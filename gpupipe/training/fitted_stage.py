"""FittedStage: the models of one stage and their predictions, put together from cached results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.estimators.contract import Model
from gpupipe.store.cache import Cached
from gpupipe.training.cache_keys import digest_of_models


@dataclass(frozen=True)
class FittedStage:
    """The models of one stage, a model for each target, with their predictions.

    digests: one for each model.  seconds: duration of the fit.
    predictions: for each part float32 (n_rows, n_targets, n_outputs).  prediction_digests: digests of their files.
    objects: digests of the models' files.  reused: whether models and predictions all came from the store.

        >>> predictions = {"validation": np.zeros((80, 2, 3), np.float32), "test": np.zeros((50, 2, 3), np.float32)}
        >>> stage = FittedStage(["model of 5 %", "model of 10 %"], ("a1", "b2"), seconds=1.5, predictions=predictions)
        >>> len(stage.models), stage.predictions["test"].shape
        (2, (50, 2, 3))
    """

    models: list[Model]
    digests: tuple[str, ...]
    seconds: float
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    prediction_digests: dict[str, str] = field(default_factory=dict)
    objects: frozenset[str] = frozenset()
    reused: bool = False

    @classmethod
    def of_blocks(cls, blocks: Sequence[Sequence[int]], results: Sequence[Cached]) -> FittedStage:
        """A stage without predictions from the cached results of its blocks, each the positions of some targets."""
        saved = {k: description for block, result in zip(blocks, results, strict=True)
                 for k, description in zip(block, result.record["models"], strict=True)}  # fmt: skip
        models = {k: model for block, result in zip(blocks, results, strict=True)
                  for k, model in zip(block, result.value or [None] * len(block), strict=True)}  # fmt: skip
        order = range(len(saved))
        return cls(
            models=[models[k] for k in order],
            digests=tuple(digest_of_models([saved[k]]) for k in order),
            seconds=sum(result.seconds for result in results),
            objects=frozenset(digest for model in saved.values() if model for digest in model["files"].values()),
            reused=all(result.reused for result in results),
        )


def models_of(stage: FittedStage | None, targets: Sequence[int]) -> list[Any] | None:
    """The models of some targets, by position; None without a stage."""
    return None if stage is None else [stage.models[k] for k in targets]
