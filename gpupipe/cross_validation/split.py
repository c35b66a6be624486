"""Split: the purged and embargoed row numbers of one group in one fold."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.cross_validation.fold_times import FoldTimes, TimeBlock
from gpupipe.dataset.dataset import Dataset


@dataclass(frozen=True)
class Split:
    """Row numbers into a Dataset, int64, ascending, on the host.

    train, validation, test: no label of train overlaps in time with one of validation or test, none of validation
        with one of test, nor lies within the embargo of it.
    cross_fit: (fit, predict) pairs inside the training part. No label of a fitted row overlaps in time with one of a
        predicted row, nor lies within the embargo of it. With stacking "kfold" each part is predicted by models of
        all others (Lopez de Prado 2018, section 7.4); with "forward" by models of the parts before it.

        >>> Split(np.arange(60), np.arange(65, 80), np.arange(85, 100), ()).test[0]
        np.int64(85)
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    cross_fit: tuple[tuple[np.ndarray, np.ndarray], ...]


def split(dataset: Dataset, times: FoldTimes) -> Split:
    """Cut one group's usable rows at the times that all groups share."""
    to_host = dataset.device.to_host
    time, end = to_host(dataset.time_ns), to_host(dataset.end_time_ns)
    usable = to_host(dataset.usable) & (end < times.labels_before)

    def inside(blocks: Iterable[TimeBlock]) -> Any:
        mask = np.zeros(len(time), dtype=bool)
        for block in blocks:
            mask |= (time >= block.start) & (time < block.stop)
        return mask

    def clear_of(blocks: Iterable[TimeBlock], held: Any, forward: bool = False) -> Any:
        """Rows whose labels do not overlap with those of the rows held in the blocks, embargo included."""
        clear = np.ones(len(time), dtype=bool)
        for block in blocks:
            mask = (time < block.start) & (end < block.cutoff)
            if not forward:
                # By bars and by labels: a symbol with holes looks further ahead than its group's calendar says.
                ends = end[held & inside([block])].max(initial=0)
                mask |= (time >= block.resume) & (time > ends)
            clear &= mask
        return clear

    test = usable & inside(times.test)
    validation = usable & inside(times.validation) & clear_of(times.test, test)
    train = (
        usable
        & inside(itertools.chain(*times.parts))
        & clear_of(times.test, test)
        & clear_of(times.validation, validation)
    )
    cross_fit = []
    for part in times.parts[1:] if times.forward else times.parts:
        predict = train & inside(part)
        fit = train & clear_of(part, predict, times.forward)
        cross_fit.append((np.flatnonzero(fit), np.flatnonzero(predict)))
    return Split(np.flatnonzero(train), np.flatnonzero(validation), np.flatnonzero(test), tuple(cross_fit))
