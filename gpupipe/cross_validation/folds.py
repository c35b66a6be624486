"""Folds: the published fold of a run, and its evaluation folds."""

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
    """The folds of a run.

    published: the fold whose models are kept: the single split, or the last origin of a walk-forward.
    walk_forward, cpcv: folds of these methods; empty where the settings do not ask for them.

    With `--walk-forward 4`, walk_forward has 4 folds, published is the last, and 3 are evaluation folds:

        >>> origins = tuple(FoldTimes(f"origin{k}", (), (), ()) for k in (1, 2, 3, 4))
        >>> [fold.name for fold in Folds(origins[-1], origins, cpcv=()).evaluation_folds]
        ['origin1', 'origin2', 'origin3']
    """

    published: FoldTimes
    walk_forward: tuple[FoldTimes, ...]
    cpcv: tuple[FoldTimes, ...]

    @property
    def evaluation_folds(self) -> tuple[FoldTimes, ...]:
        """The folds whose models are scored and discarded, in the order of training."""
        return (*self.cpcv, *self.walk_forward[:-1])


def make_folds(datasets: Sequence[Dataset], settings: config.Split) -> Folds:
    """All folds of the settings; raises UserError like `holdout`, `walk_forward` and `combinatorial`."""
    origins = walk_forward(datasets, settings) if settings.walk_forward else ()
    crossed = combinatorial(datasets, settings) if settings.cpcv else ()
    return Folds(origins[-1] if origins else holdout(datasets, settings), origins, crossed)
