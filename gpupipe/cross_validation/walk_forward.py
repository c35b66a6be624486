"""The single split, and walk-forward: successive origins whose test windows tile the test part."""

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


def holdout(datasets: Sequence[Dataset], settings: config.Split) -> FoldTimes:
    """The single split: cut the distinct usable times of all groups by the shares of `settings`.

    With settings.shares_until, the shares refer to the times up to that date, so that new data move no boundary.
    Raises UserError where a part would be empty after the longest label and the embargo.
    """
    return _origins(datasets, settings, 1)[0]


def walk_forward(datasets: Sequence[Dataset], settings: config.Split) -> tuple[FoldTimes, ...]:
    """Successive origins whose test windows tile the single split's test part: each test row is tested once.

    The validation part of an origin is as long as the single split's, and ends at the test window. The training part
    before it has all earlier times (window "expanding"), or as many times as the single split's ("rolling"). The first
    origin has the training and validation part of the single split.
    Raises UserError like `holdout`, and where there are fewer test times than origins.
    """
    return _origins(datasets, settings, settings.walk_forward)


def _origins(datasets: Sequence[Dataset], settings: config.Split, n_origins: int) -> tuple[FoldTimes, ...]:
    times, reach = usable_times(datasets), reach_of(datasets, settings)
    counted = count_shared_times(times, settings)
    validation_at, test_at = (round(counted * s) for s in (settings.train, settings.train + settings.validation))
    block = block_maker(times, reach, embargo_of(datasets, settings))
    folds = []
    for k in range(n_origins):
        later = round((len(times) - test_at) * k / n_origins)  # how far this origin is after the first
        first = later if settings.window == "rolling" else 0
        length = counted * settings.train + later - first
        edges = [first + round(length * part / settings.parts) for part in range(settings.parts)]
        edges += [validation_at + later, test_at + later]
        stop = test_at + round((len(times) - test_at) * (k + 1) / n_origins)
        if min([*np.diff(edges), len(times) - test_at]) <= reach:
            windows = windows_words(datasets)
            raise UserError(
                f"{len(times)} usable times are too few for {settings.parts} training parts, validation and test with "
                f"labels of {longest_horizon(datasets)} bars{windows} and an embargo of "
                f"{settings.embargo_bars}: give a longer history, or lower labels.horizons, split.parts or "
                f"split.embargo_bars{', or the length of windows' if windows else ''}"
            )
        if stop == edges[-1]:
            raise UserError(f"{len(times) - test_at} test times cannot be cut into {n_origins}: lower --walk-forward")
        pairs = list(itertools.pairwise([*edges, stop]))
        folds.append(
            FoldTimes(
                name=f"origin{k + 1}" if n_origins > 1 else "",
                parts=tuple((block(*pair),) for pair in pairs[:-2]),
                validation=(block(*pairs[-2]),),
                test=(block(*pairs[-1]),),
                forward=settings.stacking == "forward",
            )
        )
    return tuple(folds)
