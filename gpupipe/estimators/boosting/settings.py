"""Settings of a boosted-tree stage, shared by the XGBoost estimators."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Booster:
    """A boosted-tree stage; depth 0 grows leaf-wise up to `leaves`.

    >>> Booster(rounds=60, learning_rate=0.1).depth, Booster(depth=0).problem()
    (3, ('depth', '1 or more, or leaves >= 2'))
    """

    rounds: int = 200
    learning_rate: float = 0.1
    depth: int = 3
    leaves: int = 0
    min_child_weight: float = 5.0
    l2: float = 5.0
    subsample: float = 0.5
    column_share: float = 0.5  # of the columns, drawn for each node

    def problem(self) -> tuple[str, str] | None:
        """The field that does not go with another, and what is expected of it."""
        return None if self.depth >= 1 or self.leaves >= 2 else ("depth", "1 or more, or leaves >= 2")
