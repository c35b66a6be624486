"""Every fold of a run: the one whose models are published, and those that only evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpupipe import config
from gpupipe.cross_validation.combinatorial import combinatorial
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.cross_validation.walk_forward import holdout, walk_forward
from gpupipe.dataset.dataset import Dataset


@dataclass(frozen=True)
class Folds:
    """Every fold of a run. `published` is the one whose models are kept: the single split, or the last origin."""

    published: FoldTimes
    walk_forward: tuple[FoldTimes, ...]
    cpcv: tuple[FoldTimes, ...]

    @property
    def evaluation_folds(self) -> tuple[FoldTimes, ...]:
        """The folds whose models are measured and discarded, in the order in which they are trained."""
        return (*self.cpcv, *self.walk_forward[:-1])


def make_folds(datasets: Sequence[Dataset], settings: config.Split) -> Folds:
    """All folds that `settings` ask for; raises UserError like the functions that make them."""
    origins = walk_forward(datasets, settings) if settings.walk_forward else ()
    crossed = combinatorial(datasets, settings) if settings.cpcv else ()
    return Folds(origins[-1] if origins else holdout(datasets, settings), origins, crossed)
