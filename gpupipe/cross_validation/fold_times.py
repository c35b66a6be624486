"""FoldTimes: the times that cut all groups alike into one fold, and helpers that find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe import config
from gpupipe.dataset.dataset import NEVER, Dataset


@dataclass(frozen=True)
class TimeBlock:
    """A run of neighbouring times, int64 UTC nanoseconds: start <= time < stop.

    A row before it is clear of it if its labels end before `cutoff`, which is `embargo_bars` distinct times before
    the start; a row after it, from `resume` on, `embargo_bars` after the block's labels end.
    """

    start: int
    stop: int
    cutoff: int
    resume: int


@dataclass(frozen=True)
class FoldTimes:
    """The times that cut all groups alike into one fold.

    name: "" for the single split, "origin2" for a walk-forward, "cpcv05" for a combinatorial cross-validation.
    parts: the training time, cut for out-of-fold predictions; a part is one block, or several with others between.
    validation, test: blocks that share no time. The blocks of a test are predicted each for itself.
    labels_before: rows whose labels end then or later are left out.
    forward: whether a part may be predicted only by models of the parts before it.

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
    """How many of the times are shared out: all, or those up to the end of settings.shares_until in UTC."""
    if not settings.shares_until:
        return len(times)
    end = np.datetime64(settings.shares_until, "D") + np.timedelta64(1, "D")
    return int(np.searchsorted(times, end.astype("datetime64[ns]").astype(np.int64)))


def longest_horizon(datasets: Sequence[Dataset]) -> int:
    """Rows that the longest label looks ahead."""
    return max(datasets[0].target.horizon_rows)


def reach_of(datasets: Sequence[Dataset], settings: config.Split) -> int:
    """Times after a block's last one that its labels and the embargo reach."""
    return longest_horizon(datasets) + settings.embargo_bars


def block_maker(times: np.ndarray, reach: int, embargo: int) -> Callable[[int, int], TimeBlock]:
    """A function that makes the TimeBlock of times[start:stop]; after the last time nothing ends it."""

    def time_of(k: int) -> int:
        return int(times[k]) if k < len(times) else NEVER

    return lambda start, stop: TimeBlock(
        time_of(start), time_of(stop), time_of(max(0, start - embargo)), time_of(stop + reach)
    )
