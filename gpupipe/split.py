"""One split in time: row numbers of train, validation, sealed test and the out-of-fold parts, purged and embargoed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.dataset import Dataset
from gpupipe.errors import UserError


@dataclass(frozen=True)
class Boundaries:
    """The times that cut all sectors alike, int64 UTC nanoseconds.

    A part's rows have start <= time < the next start. A row of an earlier part is kept only if its labels end
    before `cutoff`, which lies `embargo_bars` distinct times before the start. Where a part is predicted by models
    that have also seen later rows, these begin at its `resume`, `embargo_bars` after its labels end.

    starts, cutoffs: (n_parts + 2,) for the training parts 0..n_parts-1, validation, test.
    resumes: (n_parts,), for each training part; empty if no model may see what comes after the part it predicts.
    """

    starts: tuple[int, ...]
    cutoffs: tuple[int, ...]
    resumes: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """Row numbers into a Dataset, int64, ascending, on the host.

    train, validation, test: no label of train ends after validation starts, none of validation after test starts.
    folds: (fit, predict) pairs inside the training part. No label of a fitted row overlaps in time with one of a
        predicted row, nor lies within the embargo of it. With stacking "kfold" each part is predicted by models of
        all others (Lopez de Prado 2018, section 7.4); with "forward" by models of the parts before it.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]


def boundaries(datasets: Sequence[Dataset], settings: config.Split) -> Boundaries:
    """Cut the distinct usable times of all sectors by the shares of `settings`.

    Raises UserError when there are too few times for every part to hold some after the longest label and the embargo.
    """
    usable_times = [d.device.to_host(d.time_ns[d.usable]) for d in datasets]
    times = np.unique(np.concatenate(usable_times))
    shares = [settings.train * k / settings.parts for k in range(settings.parts)]
    shares += [settings.train, settings.train + settings.validation]
    at = [round(len(times) * share) for share in shares]
    lengths = np.diff([*at, len(times)])
    kfold, reach = settings.stacking == "kfold", max(datasets[0].horizons) + settings.embargo_bars
    if min(lengths) <= reach:
        raise UserError(
            f"{len(times)} usable times are too few for {settings.parts} training parts, validation and test with "
            f"labels of {max(datasets[0].horizons)} bars and an embargo of {settings.embargo_bars}: give a longer "
            "history, or lower labels.horizons, split.parts or split.embargo_bars"
        )
    return Boundaries(
        starts=tuple(int(times[k]) for k in at),
        cutoffs=tuple(int(times[max(0, k - settings.embargo_bars)]) for k in at),
        resumes=tuple(int(times[min(k + reach, len(times) - 1)]) for k in at[1:-1]) if kfold else (),
    )


def split(dataset: Dataset, at: Boundaries) -> Split:
    """Cut one sector's usable rows at the boundaries that all sectors share."""
    to_host = dataset.device.to_host
    time, end = to_host(dataset.time_ns), to_host(dataset.end_time_ns)
    usable = to_host(dataset.usable)
    return _split_rows(time, end, usable, at)


def _split_rows(time: Any, end: Any, usable: Any, at: Boundaries) -> Split:
    validation_at, test_at = at.starts[-2], at.starts[-1]
    validation_cutoff, test_cutoff = at.cutoffs[-2], at.cutoffs[-1]
    train = usable & (time < validation_at) & (end < validation_cutoff)
    validation = usable & (time >= validation_at) & (time < test_at) & (end < test_cutoff)
    test = usable & (time >= test_at)
    folds = []
    for k in range(0 if at.resumes else 1, len(at.starts) - 2):
        predict = train & (time >= at.starts[k]) & (time < at.starts[k + 1])
        fit = train & (time < at.starts[k]) & (end < at.cutoffs[k])
        if at.resumes:
            # By bars and by labels: a symbol with holes looks further ahead than its sector's calendar says.
            ends = end[predict].max(initial=0)
            fit |= train & (time >= at.resumes[k]) & (time > ends)
        folds.append((np.flatnonzero(fit), np.flatnonzero(predict)))
    return Split(np.flatnonzero(train), np.flatnonzero(validation), np.flatnonzero(test), tuple(folds))
