"""FoldTimes: the times that cut all groups into the parts of one fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe import config
from gpupipe.dataset.dataset import NEVER, Dataset


@dataclass(frozen=True)
class TimeBlock:
    """A run of consecutive times, int64 UTC nanoseconds: start <= time < stop.

    cutoff: `embargo_bars` distinct times before start, and as many more as a row looks back. A row before the block is
        clear of it if its labels end before.
    resume: as many times after the block's labels end. A row after the block is clear of it from then on.

        >>> block = TimeBlock(start=10, stop=20, cutoff=8, resume=25)
        >>> block.cutoff < block.start < block.stop < block.resume
        True
    """

    start: int
    stop: int
    cutoff: int
    resume: int


@dataclass(frozen=True)
class FoldTimes:
    """The times that cut all groups into the parts of one fold.

    name: "" for the single split, "origin2" for a walk-forward, "cpcv05" for a combinatorial cross-validation.
    parts: the training times, cut for out-of-fold predictions; a part has one or several blocks.
    validation, test: blocks without common times. Each block of a test is predicted separately.
    labels_before: rows whose labels end at this time or later are left out.
    forward: whether only models of earlier parts predict a part.

        >>> block = TimeBlock(start=10, stop=20, cutoff=8, resume=25)
        >>> FoldTimes("", ((block,),), (TimeBlock(25, 30, 23, 35),), (TimeBlock(35, 40, 33, 45),)).name
        ''
    """

    name: str
    parts: tuple[tuple[TimeBlock, ...], ...]
    validation: tuple[TimeBlock, ...]
    test: tuple[TimeBlock, ...]
    labels_before: int = NEVER
    forward: bool = False


def usable_times(datasets: Sequence[Dataset]) -> np.ndarray:
    """The distinct times of usable rows of all groups, int64, ascending."""
    return np.unique(np.concatenate([d.device.to_host(d.time_ns[d.usable]) for d in datasets]))


def count_shared_times(times: np.ndarray, settings: config.Split) -> int:
    """Number of times that the shares of the split refer to: all, or up to the end of settings.shares_until (UTC)."""
    if not settings.shares_until:
        return len(times)
    end = np.datetime64(settings.shares_until, "D") + np.timedelta64(1, "D")
    return int(np.searchsorted(times, end.astype("datetime64[ns]").astype(np.int64)))


def longest_horizon(datasets: Sequence[Dataset]) -> int:
    """Number of rows that the longest label looks ahead."""
    return max(datasets[0].target.horizon_rows)


def embargo_of(datasets: Sequence[Dataset], settings: config.Split) -> int:
    """Number of times before a block that no label outside of it reaches: the embargo, and the block's lookback."""
    return max(dataset.lookback_rows for dataset in datasets) + settings.embargo_bars


def reach_of(datasets: Sequence[Dataset], settings: config.Split) -> int:
    """Number of times after a block that its labels, the embargo and the lookback of later rows reach."""
    return longest_horizon(datasets) + embargo_of(datasets, settings)


def windows_words(datasets: Sequence[Dataset]) -> str:
    """The part of a sentence that names how far rows look back; "" where they do not."""
    rows = max(dataset.lookback_rows for dataset in datasets)
    return f", windows of {rows + 1} bars" if rows else ""


def block_maker(times: np.ndarray, reach: int, embargo: int) -> Callable[[int, int], TimeBlock]:
    """A function that returns the TimeBlock of times[start:stop]; positions after the last time give NEVER."""

    def time_of(k: int) -> int:
        return int(times[k]) if k < len(times) else NEVER

    return lambda start, stop: TimeBlock(
        time_of(start), time_of(stop), time_of(max(0, start - embargo)), time_of(stop + reach)
    )
