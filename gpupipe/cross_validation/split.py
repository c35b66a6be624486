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

    train, validation, test: no label of a training row overlaps in time with a label of a validation or test row, and
        no label of a validation row with a label of a test row; the embargo is kept between them.
    cross_fit: (fit, predict) pairs inside the training part. No label of a fitted row overlaps in time with a label of
        a predicted row; the embargo is kept. With stacking "kfold" models of all other parts predict a part (Lopez de
        Prado 2018, section 7.4); with "forward" models of the earlier parts do.

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
        """Rows whose labels do not overlap with the labels of the `held` rows in the blocks, embargo included."""
        clear = np.ones(len(time), dtype=bool)
        for block in blocks:
            mask = (time < block.start) & (end < block.cutoff)
            if not forward:
                # By bars and by labels: labels of a symbol with missing bars reach further than the group's calendar.
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
