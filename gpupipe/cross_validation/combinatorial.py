"""Combinatorial purged cross-validation (Lopez de Prado 2018, section 12.4) of the times before the sealed test."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from gpupipe import config
from gpupipe.cross_validation.fold_times import (
    FoldTimes,
    block_maker,
    count_shared_times,
    embargo_of,
    longest_horizon,
    reach_of,
    usable_times,
    windows_words,
)
from gpupipe.dataset.dataset import Dataset
from gpupipe.runtime.errors import UserError


def combinatorial(datasets: Sequence[Dataset], settings: config.Split) -> tuple[FoldTimes, ...]:
    """The folds of combinatorial purged cross-validation: one for each choice of K test groups of time among N.

    settings.cpcv = (N, K) cuts the times before the single split's test part into N groups. Each choice of K groups is
    the test of one fold, in the order of itertools.combinations. The last of the other groups are the validation part
    (the share of `settings`, at least one group), and the rest is the training part. C(N - 1, K - 1) folds test each
    group, and the same number of paths leads through all groups (`paths`).
    Raises UserError where a group is too short to keep a row between two tests.
    """
    n_groups, n_test = settings.cpcv
    times, reach = usable_times(datasets), reach_of(datasets, settings)
    last = round(count_shared_times(times, settings) * (settings.train + settings.validation))
    edges = [round(last * k / n_groups) for k in range(n_groups + 1)]
    shortest = min(np.diff(edges))
    share = settings.validation / (settings.train + settings.validation)
    n_validation = min(max(1, round((n_groups - n_test) * share)), n_groups - n_test - 1)
    part = (n_groups - n_test - n_validation) * shortest // settings.parts
    if shortest <= 2 * reach or part <= reach:
        windows = windows_words(datasets)
        raise UserError(
            f"{last} usable times before the sealed test are too few for {n_groups} groups, of which the training ones "
            f"are cut into {settings.parts} parts, with labels of {longest_horizon(datasets)} bars{windows} and an "
            f"embargo of {settings.embargo_bars} on both sides: give a longer history, or lower the groups of --cpcv, "
            "labels.horizons, split.parts or split.embargo_bars"
        )
    embargo = embargo_of(datasets, settings)
    block = block_maker(times, reach, embargo)
    choices = list(itertools.combinations(range(n_groups), n_test))
    folds = []
    for number, tests in enumerate(choices, 1):
        others = [k for k in range(n_groups) if k not in tests]
        fitted = [np.arange(edges[k], edges[k + 1]) for k in others[:-n_validation]]
        parts = [_runs(part) for part in np.array_split(np.concatenate(fitted), settings.parts)]
        folds.append(
            FoldTimes(
                name=f"cpcv{number:0{len(str(len(choices)))}}",
                parts=tuple(tuple(block(*run) for run in part) for part in parts),
                validation=tuple(block(edges[k], edges[k + 1]) for k in others[-n_validation:]),
                test=tuple(block(edges[k], edges[k + 1]) for k in tests),
                labels_before=int(times[max(0, last - embargo)]),
                forward=settings.stacking == "forward",
            )
        )
    return tuple(folds)


def paths(n_groups: int, n_test: int) -> np.ndarray:
    """int64 (n_groups, n_paths): the number of the fold of `combinatorial` that tests a group on a path.

    On a path, one fold tests each group; no two paths have the same fold for a group.

        >>> paths(4, 2).tolist()
        [[0, 1, 2], [0, 3, 4], [1, 3, 5], [2, 4, 5]]
    """
    choices = list(itertools.combinations(range(n_groups), n_test))
    return np.array([[k for k, tests in enumerate(choices) if group in tests] for group in range(n_groups)])


def _runs(positions: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of each run of consecutive positions: [1, 2, 3, 7, 8] gives (1, 4) and (7, 9)."""
    runs = np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)
    return [(int(run[0]), int(run[-1]) + 1) for run in runs]
