"""Folds in time, purged and embargoed: the single split, walk-forward, combinatorial purged cross-validation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.dataset.dataset import NEVER, Dataset
from gpupipe.runtime.errors import UserError


@dataclass(frozen=True)
class Block:
    """A run of neighbouring times, int64 UTC nanoseconds: start <= time < stop.

    A row before it is clear of it if its labels end before `cutoff`, which lies `embargo_bars` distinct times before
    the start; a row after it, from `resume` on, `embargo_bars` after the block's labels end.
    """

    start: int
    stop: int
    cutoff: int
    resume: int


@dataclass(frozen=True)
class Boundaries:
    """The times that cut all sectors alike into one fold.

    name: "" for the single split, "origin2" of a walk-forward, "cpcv05" of a combinatorial cross-validation.
    parts: the training time, cut for out-of-fold predictions; a part is one block, or several with others between.
    validation, test: blocks that hold no other's times. Those of a test are predicted each for itself.
    labels_before: rows whose labels end then or later are left out.
    forward: a part may be predicted by models of the parts before it only.
    """

    name: str
    parts: tuple[tuple[Block, ...], ...]
    validation: tuple[Block, ...]
    test: tuple[Block, ...]
    labels_before: int = NEVER
    forward: bool = False


@dataclass(frozen=True)
class Split:
    """Row numbers into a Dataset, int64, ascending, on the host.

    train, validation, test: no label of train overlaps in time with one of validation or test, none of validation
        with one of test, nor lies within the embargo of it.
    folds: (fit, predict) pairs inside the training part. No label of a fitted row overlaps in time with one of a
        predicted row, nor lies within the embargo of it. With stacking "kfold" each part is predicted by models of
        all others (Lopez de Prado 2018, section 7.4); with "forward" by models of the parts before it.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]


@dataclass(frozen=True)
class Folds:
    """Every fold of a run. `published` is the one whose models are kept: the single split, or the last origin."""

    published: Boundaries
    walk_forward: tuple[Boundaries, ...]
    cpcv: tuple[Boundaries, ...]

    @property
    def rehearsals(self) -> tuple[Boundaries, ...]:
        """The folds whose models are measured and thrown away, in the order in which they are trained."""
        return (*self.cpcv, *self.walk_forward[:-1])


def folds(datasets: Sequence[Dataset], settings: config.Split) -> Folds:
    """All that `settings` ask for; raises UserError as the functions below."""
    origins = walk_forward(datasets, settings) if settings.walk_forward else ()
    crossed = combinatorial(datasets, settings) if settings.cpcv else ()
    return Folds(origins[-1] if origins else boundaries(datasets, settings), origins, crossed)


def boundaries(datasets: Sequence[Dataset], settings: config.Split) -> Boundaries:
    """The single split: cut the distinct usable times of all sectors by the shares of `settings`.

    With settings.shares_until, shares are of the times up to that date, so that a longer history moves no boundary.
    Raises UserError when there are too few times for every part to hold some after the longest label and the embargo.
    """
    return _origins(datasets, settings, 1)[0]


def walk_forward(datasets: Sequence[Dataset], settings: config.Split) -> tuple[Boundaries, ...]:
    """Successive origins, whose test windows tile the single split's test part: every row of it is tested once.

    Each has a validation part as long as the single split's just before its window, and before that its training
    part: all that came earlier (window "expanding"), or as many times as the single split's ("rolling"). The first
    origin has the training and validation part of the single split.
    Raises UserError as `boundaries`, and when there are fewer test times than origins.
    """
    return _origins(datasets, settings, settings.walk_forward)


def combinatorial(datasets: Sequence[Dataset], settings: config.Split) -> tuple[Boundaries, ...]:
    """Combinatorial purged cross-validation (Lopez de Prado 2018, section 12.4) of what lies before the sealed test.

    With settings.cpcv = (N, K), the times before the single split's test part are cut into N groups; each choice of
    K of them is the test of one fold, in the order of itertools.combinations. Of the other groups the last are
    validation (the share of `settings`, at least one), the others training. The rows of every group are tested by
    C(N - 1, K - 1) folds: as many paths lead through all groups, see `paths`.
    Raises UserError when a group is too short to hold any row between two tests.
    """
    n_groups, n_test = settings.cpcv
    times, reach = _usable_times(datasets), _reach(datasets, settings)
    last = round(_n_shared(times, settings) * (settings.train + settings.validation))
    edges = [round(last * k / n_groups) for k in range(n_groups + 1)]
    shortest = min(np.diff(edges))
    share = settings.validation / (settings.train + settings.validation)
    n_validation = min(max(1, round((n_groups - n_test) * share)), n_groups - n_test - 1)
    part = (n_groups - n_test - n_validation) * shortest // settings.parts
    if shortest <= 2 * reach or part <= reach:
        raise UserError(
            f"{last} usable times before the sealed test are too few for {n_groups} groups, of which the training ones "
            f"are cut into {settings.parts} parts, with labels of {max(datasets[0].horizons)} bars and an embargo of "
            f"{settings.embargo_bars} on both sides: give a longer history, or lower the groups of --cpcv, "
            "labels.horizons, split.parts or split.embargo_bars"
        )
    block = _blocks_of(times, reach, settings.embargo_bars)
    chosen = list(itertools.combinations(range(n_groups), n_test))
    found = []
    for number, tests in enumerate(chosen, 1):
        others = [k for k in range(n_groups) if k not in tests]
        fitted = [np.arange(edges[k], edges[k + 1]) for k in others[:-n_validation]]
        parts = [_runs(part) for part in np.array_split(np.concatenate(fitted), settings.parts)]
        found.append(
            Boundaries(
                name=f"cpcv{number:0{len(str(len(chosen)))}}",
                parts=tuple(tuple(block(*run) for run in part) for part in parts),
                validation=tuple(block(edges[k], edges[k + 1]) for k in others[-n_validation:]),
                test=tuple(block(edges[k], edges[k + 1]) for k in tests),
                labels_before=int(times[max(0, last - settings.embargo_bars)]),
                forward=settings.stacking == "forward",
            )
        )
    return tuple(found)


def paths(n_groups: int, n_test: int) -> np.ndarray:
    """int64 (n_groups, n_paths): the number of the fold of `combinatorial` that tests a group on a path.

    A path takes every group from one of the folds that test it, and no two paths take a group from the same one.
    """
    chosen = list(itertools.combinations(range(n_groups), n_test))
    return np.array([[k for k, tests in enumerate(chosen) if group in tests] for group in range(n_groups)])


def split(dataset: Dataset, at: Boundaries) -> Split:
    """Cut one sector's usable rows at the boundaries that all sectors share."""
    to_host = dataset.device.to_host
    time, end = to_host(dataset.time_ns), to_host(dataset.end_time_ns)
    usable = to_host(dataset.usable) & (end < at.labels_before)

    def inside(blocks: Iterable[Block]) -> Any:
        found = np.zeros(len(time), dtype=bool)
        for block in blocks:
            found |= (time >= block.start) & (time < block.stop)
        return found

    def clear_of(blocks: Iterable[Block], held: Any, forward: bool = False) -> Any:
        """Rows whose labels do not overlap with those of the rows held in the blocks, embargo included."""
        clear = np.ones(len(time), dtype=bool)
        for block in blocks:
            found = (time < block.start) & (end < block.cutoff)
            if not forward:
                # By bars and by labels: a symbol with holes looks further ahead than its sector's calendar says.
                ends = end[held & inside([block])].max(initial=0)
                found |= (time >= block.resume) & (time > ends)
            clear &= found
        return clear

    test = usable & inside(at.test)
    validation = usable & inside(at.validation) & clear_of(at.test, test)
    train = usable & inside(itertools.chain(*at.parts)) & clear_of(at.test, test) & clear_of(at.validation, validation)
    rounds = []
    for part in at.parts[1:] if at.forward else at.parts:
        predict = train & inside(part)
        fit = train & clear_of(part, predict, at.forward)
        rounds.append((np.flatnonzero(fit), np.flatnonzero(predict)))
    return Split(np.flatnonzero(train), np.flatnonzero(validation), np.flatnonzero(test), tuple(rounds))


def _origins(datasets: Sequence[Dataset], settings: config.Split, n_origins: int) -> tuple[Boundaries, ...]:
    times, reach = _usable_times(datasets), _reach(datasets, settings)
    counted = _n_shared(times, settings)
    validation_at, test_at = (round(counted * s) for s in (settings.train, settings.train + settings.validation))
    block = _blocks_of(times, reach, settings.embargo_bars)
    found = []
    for k in range(n_origins):
        later = round((len(times) - test_at) * k / n_origins)  # how far this origin lies behind the first
        first = later if settings.window == "rolling" else 0
        length = counted * settings.train + later - first
        at = [first + round(length * part / settings.parts) for part in range(settings.parts)]
        at += [validation_at + later, test_at + later]
        stop = test_at + round((len(times) - test_at) * (k + 1) / n_origins)
        if min([*np.diff(at), len(times) - test_at]) <= reach:
            raise UserError(
                f"{len(times)} usable times are too few for {settings.parts} training parts, validation and test with "
                f"labels of {max(datasets[0].horizons)} bars and an embargo of {settings.embargo_bars}: give a longer "
                "history, or lower labels.horizons, split.parts or split.embargo_bars"
            )
        if stop == at[-1]:
            raise UserError(f"{len(times) - test_at} test times cannot be cut into {n_origins}: lower --walk-forward")
        edges = list(itertools.pairwise([*at, stop]))
        found.append(
            Boundaries(
                name=f"origin{k + 1}" if n_origins > 1 else "",
                parts=tuple((block(*edge),) for edge in edges[:-2]),
                validation=(block(*edges[-2]),),
                test=(block(*edges[-1]),),
                forward=settings.stacking == "forward",
            )
        )
    return tuple(found)


def _usable_times(datasets: Sequence[Dataset]) -> np.ndarray:
    return np.unique(np.concatenate([d.device.to_host(d.time_ns[d.usable]) for d in datasets]))


def _n_shared(times: np.ndarray, settings: config.Split) -> int:
    """How many of the times the shares are of: all, or those up to the end of settings.shares_until in UTC."""
    if not settings.shares_until:
        return len(times)
    end = np.datetime64(settings.shares_until, "D") + np.timedelta64(1, "D")
    return int(np.searchsorted(times, end.astype("datetime64[ns]").astype(np.int64)))


def _reach(datasets: Sequence[Dataset], settings: config.Split) -> int:
    """Times that a block's labels and the embargo reach behind its last."""
    return max(datasets[0].horizons) + settings.embargo_bars


def _blocks_of(times: np.ndarray, reach: int, embargo: int) -> Callable[[int, int], Block]:
    """What makes the Block of times[start:stop]; behind the last time nothing ends it."""

    def time_of(k: int) -> int:
        return int(times[k]) if k < len(times) else NEVER

    return lambda start, stop: Block(
        time_of(start), time_of(stop), time_of(max(0, start - embargo)), time_of(stop + reach)
    )


def _runs(positions: np.ndarray) -> list[tuple[int, int]]:
    """Where neighbours among ascending positions begin and end: [1, 2, 3, 7, 8] gives (1, 4) and (7, 9)."""
    runs = np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)
    return [(int(run[0]), int(run[-1]) + 1) for run in runs]
