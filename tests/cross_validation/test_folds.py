"""Walk-forward and combinatorial folds: by hand on a dozen days, and what must hold of them on any calendar."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe import config
from gpupipe.cross_validation.combinatorial import combinatorial, paths
from gpupipe.cross_validation.folds import make_folds
from gpupipe.cross_validation.split import split
from gpupipe.cross_validation.walk_forward import holdout, walk_forward
from gpupipe.dataset.dataset import NEVER
from gpupipe.runtime.errors import UserError
from gpupipe.workloads import equity
from tests.support.tiny import dataset_of


def a_bar_a_day(n_days, horizon=1):
    """Row k is day k; its label ends on day k + horizon, and the last ones are not known."""
    day = np.arange(n_days)
    end = np.where(day + horizon < n_days, day + horizon, NEVER)
    return dataset_of(day, end, end < NEVER, horizon)


def rows_of(dataset, at):
    found = split(dataset, at)
    return found.train.tolist(), found.validation.tolist(), found.test.tolist()


def parts_of(dataset, at):
    return [(fit.tolist(), predict.tolist()) for fit, predict in split(dataset, at).cross_fit]


# 12 usable days, labels of one bar, no embargo: trained on days 0 to 5, validated on 6 and 7, tested on 8 to 11.
TWELVE = config.Split(train=0.5, validation=0.17, embargo_bars=0, parts=2)


def test_origins_of_an_expanding_window_by_hand():
    data = a_bar_a_day(13)
    at = walk_forward([data], dataclasses.replace(TWELVE, walk_forward=2))
    assert [one.name for one in at] == ["origin1", "origin2"]
    # The label of day 5 ends on day 6, that of day 7 on day 8: both are purged. The labels of day 9 and 11 are known
    # only after the window, and are tested: nobody learns from them.
    assert rows_of(data, at[0]) == ([0, 1, 2, 3, 4], [6], [8, 9])
    assert rows_of(data, at[1]) == ([0, 1, 2, 3, 4, 5, 6], [8], [10, 11])
    assert parts_of(data, at[0]) == [([4], [0, 1, 2]), ([0, 1], [3, 4])]
    assert parts_of(data, at[1]) == [([5, 6], [0, 1, 2, 3]), ([0, 1, 2], [4, 5, 6])]


def test_origins_of_a_rolling_window_forget_what_is_old():
    data = a_bar_a_day(13)
    at = walk_forward([data], dataclasses.replace(TWELVE, walk_forward=2, window="rolling"))
    assert rows_of(data, at[0]) == ([0, 1, 2, 3, 4], [6], [8, 9])
    assert rows_of(data, at[1]) == ([2, 3, 4, 5, 6], [8], [10, 11])
    assert parts_of(data, at[1]) == [([6], [2, 3, 4]), ([2, 3], [5, 6])]


def test_an_embargo_leaves_one_more_day_out_before_validation_and_before_the_test():
    data = a_bar_a_day(25)
    chosen = config.Split(train=0.5, validation=0.25, embargo_bars=1, parts=2, walk_forward=3)
    at = walk_forward([data], chosen)
    assert rows_of(data, at[0]) == ([*range(10)], [12, 13, 14, 15], [18, 19])  # 10, 11 and 16, 17 are left out
    assert rows_of(data, at[1]) == ([*range(12)], [14, 15, 16, 17], [20, 21])
    assert rows_of(data, at[2]) == ([*range(14)], [16, 17, 18, 19], [22, 23])


def test_the_first_origin_learns_what_the_single_split_does():
    data = a_bar_a_day(103, 2)
    for chosen in (config.Split(walk_forward=4), config.Split(walk_forward=4, window="rolling", stacking="forward")):
        one, first = split(data, holdout([data], chosen)), split(data, walk_forward([data], chosen)[0])
        assert (first.train == one.train).all() and (first.validation == one.validation).all()
        assert [(a.tolist(), b.tolist()) for a, b in first.cross_fit] == [
            (a.tolist(), b.tolist()) for a, b in one.cross_fit
        ]
        together = np.concatenate([split(data, at).test for at in walk_forward([data], chosen)])
        assert together.tolist() == one.test.tolist()


def test_the_folds_of_a_combinatorial_cross_validation_by_hand():
    # 20 usable days, the last four of them sealed: four groups of four days, one of which is tested.
    data = a_bar_a_day(21)
    chosen = config.Split(train=0.6, validation=0.2, embargo_bars=0, parts=2, cpcv=(4, 1))
    at = combinatorial([data], chosen)
    assert [one.name for one in at] == ["cpcv1", "cpcv2", "cpcv3", "cpcv4"]
    assert [rows_of(data, one) for one in at] == [
        # Day 3's label ends on day 4, which the first training row behind the test must not share: it begins on 5.
        ([5, 6, 7, 8, 9, 10], [12, 13, 14], [0, 1, 2, 3]),
        ([0, 1, 2, 9, 10], [12, 13, 14], [4, 5, 6, 7]),
        ([0, 1, 2, 3, 4, 5, 6], [13, 14], [8, 9, 10, 11]),
        # Tested last, so that the third group validates. Day 15's label ends in the sealed test: nobody takes it.
        ([0, 1, 2, 3, 4, 5, 6], [8, 9, 10], [12, 13, 14]),
    ]
    # The training time is cut in two by days: the first part of the second fold is the first group, and so on.
    assert parts_of(data, at[1]) == [([9, 10], [0, 1, 2]), ([0, 1, 2], [9, 10])]
    assert parts_of(data, at[2]) == [([5, 6], [0, 1, 2, 3]), ([0, 1, 2], [4, 5, 6])]


def test_an_embargo_stands_on_both_sides_of_a_tested_group():
    data = a_bar_a_day(31)
    chosen = config.Split(train=0.6, validation=0.2, embargo_bars=1, parts=2, cpcv=(4, 1))
    second = combinatorial([data], chosen)[1]
    # Six days a group; days 6 to 11 are tested. Before them 4 and 5, behind them 12 and 13 are left out, and 16 and
    # 17 before validation, which leaves out 22 and 23 before the sealed test.
    assert rows_of(data, second) == ([0, 1, 2, 3, 14, 15], [18, 19, 20, 21], [6, 7, 8, 9, 10, 11])


def test_a_symbol_with_a_hole_purges_by_its_own_labels():
    # No bars from day 12 to 14: the label of day 11, tested, ends on day 15, and day 15 must not be fitted.
    day = np.array([*range(12), *range(15, 31)])
    end = np.array([*day[1:], NEVER])
    data, other = dataset_of(day, end, end < NEVER, 1), a_bar_a_day(31)
    chosen = config.Split(train=0.6, validation=0.2, embargo_bars=0, parts=2, cpcv=(4, 1))
    at = combinatorial([data, other], chosen)[1]
    assert day[split(data, at).train].tolist() == [0, 1, 2, 3, 4, 16]
    assert split(other, at).train.tolist() == [0, 1, 2, 3, 4, 13, 14, 15, 16]


def test_paths_by_hand():
    # The folds of (3, 2) test the groups 0 1, 0 2 and 1 2.
    assert paths(3, 2).tolist() == [[0, 1], [0, 2], [1, 2]]
    assert paths(4, 1).tolist() == [[0], [1], [2], [3]]
    # Figure 12.1 and 12.2 of Lopez de Prado (2018): 15 folds of six groups, five paths.
    assert paths(6, 2).tolist() == [
        [0, 1, 2, 3, 4], [0, 5, 6, 7, 8], [1, 5, 9, 10, 11], [2, 6, 9, 12, 13], [3, 7, 10, 12, 14], [4, 8, 11, 13, 14],
    ]  # fmt: skip


@pytest.mark.parametrize("n, k", [(5, 2), (6, 3), (7, 1), (8, 4)])
def test_every_path_takes_every_group_from_a_fold_that_tests_it(n, k):
    chosen, found = list(itertools.combinations(range(n), k)), paths(n, k)
    assert found.shape == (n, math.comb(n, k) * k // n)
    for group, of_paths in enumerate(found):
        assert len(set(of_paths)) == len(of_paths) and all(group in chosen[fold] for fold in of_paths)


MARKETS = st.tuples(st.integers(0, 10_000), st.integers(1, 2), st.integers(150, 300), st.integers(1, 4))


def market(seed, n_sectors, n_days, horizon):
    """Sectors whose symbols miss days, with rows that are not usable."""
    rng = np.random.default_rng(seed)
    sectors = []
    for _ in range(n_sectors):
        time, end = [], []
        for _ in range(rng.integers(1, 4)):
            day = np.sort(rng.choice(n_days, size=int(n_days * rng.uniform(0.7, 1)), replace=False))
            time.append(day)
            end.append(np.concatenate([day[horizon:], np.full(horizon, NEVER)]))
        times, ends = np.concatenate(time), np.concatenate(end)
        sectors.append(dataset_of(times, ends, (ends < NEVER) & (rng.random(len(times)) < 0.97), horizon))
    return sectors


def overlaps(data, some, others):
    """Whether a label window of some rows shares a time with one of the others."""
    a, b = data.time_ns[some][:, None], data.end_time_ns[some][:, None]
    return bool(((a <= data.end_time_ns[others]) & (b >= data.time_ns[others])).any())


def check_clean(data, found, times, embargo):
    """No label of a fitted or validating row overlaps with a test row's, nor comes nearer than the embargo."""
    assert data.usable[np.concatenate([found.train, found.validation, found.test])].all()
    pairs = [
        (found.train, found.validation),
        (found.train, found.test),
        (found.validation, found.test),
        *found.cross_fit,
    ]
    for some, others in pairs:
        assert not overlaps(data, some, others)
        known = np.setdiff1d(data.time_ns[others], data.time_ns[some])
        assert len(known) == len(np.unique(data.time_ns[others]))
        for end in np.unique(data.end_time_ns[some]):  # the next other row is `embargo` times behind a label's end
            later = known[known > end]
            assert not len(later) or ((times > end) & (times < later.min())).sum() >= embargo


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    MARKETS, st.integers(0, 3), st.integers(2, 6), st.sampled_from(["expanding", "rolling"]),
    st.sampled_from(["kfold", "forward"]),
)  # fmt: skip
def test_walk_forward_on_any_calendar(drawn, embargo, n_origins, window, stacking):
    sectors = market(*drawn)
    chosen = config.Split(
        embargo_bars=embargo, parts=2, walk_forward=n_origins, window=window, stacking=stacking, train=0.5
    )
    times = np.unique(np.concatenate([one.time_ns[one.usable] for one in sectors]))
    at = walk_forward(sectors, chosen)
    for data in sectors:
        single = split(data, holdout(sectors, chosen))
        cut = [split(data, one) for one in at]
        assert sorted(np.concatenate([one.test for one in cut])) == single.test.tolist()  # each of them once
        for found in cut:
            check_clean(data, found, times, embargo)
            seen = np.concatenate([found.train, found.validation])
            assert not len(found.test) or data.end_time_ns[seen].max(initial=0) < data.time_ns[found.test].min()
        spans = [np.ptp(data.time_ns[found.train]) for found in cut]
        if window == "expanding":
            assert all(np.isin(a.train, b.train).all() for a, b in itertools.pairwise(cut))
        else:
            assert max(spans) < 1.25 * min(spans)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(MARKETS, st.integers(0, 3), st.sampled_from([(4, 1), (5, 2), (6, 2), (5, 3)]),
       st.sampled_from(["kfold", "forward"]))  # fmt: skip
def test_combinatorial_folds_on_any_calendar(drawn, embargo, groups, stacking):
    sectors = market(*drawn)
    chosen = config.Split(embargo_bars=embargo, parts=2, cpcv=groups, stacking=stacking)
    times = np.unique(np.concatenate([one.time_ns[one.usable] for one in sectors]))
    n, k = groups
    at = combinatorial(sectors, chosen)
    assert len(at) == math.comb(n, k)
    for data in sectors:
        single = split(data, holdout(sectors, chosen))
        tested = np.zeros(data.n_rows, int)
        for one in at:
            found = split(data, one)
            check_clean(data, found, times, embargo)
            tested[found.test] += 1
            seen = np.concatenate([found.train, found.validation, found.test])
            assert not overlaps(data, seen, single.test)  # the sealed test stays sealed
        assert set(tested[tested > 0]) <= {math.comb(n, k) * k // n}
        before = data.usable & (data.time_ns < times[round(len(times) * 0.8)])
        assert (tested[before] > 0).mean() > 0.7 and not tested[~before].any()


def test_what_a_run_trains_is_named():
    data = a_bar_a_day(103)
    chosen = config.Split(walk_forward=3, cpcv=(5, 2), parts=2)
    found = make_folds([data], chosen)
    assert found.published == found.walk_forward[-1] and len(found.cpcv) == 10
    names = [one.name for one in found.evaluation_folds]
    assert names == [*(f"cpcv{k:02d}" for k in range(1, 11)), "origin1", "origin2"]
    single = make_folds([data], config.Split(parts=2))
    assert single.published == holdout([data], config.Split(parts=2)) and single.evaluation_folds == ()


@pytest.mark.parametrize(
    "n_days, chosen, words",
    [
        (103, {"cpcv": (12, 2)}, r"82 usable times before the sealed test are too few for 12 groups"),
        (103, {"cpcv": (4, 2), "parts": 4}, r"lower the groups of --cpcv, labels.horizons, split.parts"),
        (60, {"walk_forward": 13}, r"12 test times cannot be cut into 13: lower --walk-forward"),
        (60, {"walk_forward": 2, "parts": 9}, r"59 usable times are too few for 9 training parts"),
    ],
)
def test_a_history_that_is_too_short_is_refused_with_the_fix(n_days, chosen, words):
    with pytest.raises(UserError, match=words):
        make_folds([a_bar_a_day(n_days)], config.Split(**chosen))


@pytest.mark.parametrize(
    "setting, words",
    [
        ("split.walk_forward=1", "2 to 100 origins"), ("split.walk_forward=-1", "2 to 100 origins"),
        ("split.window=sliding", "expanding or rolling"), ("split.cpcv=6", "expected N,K"),
        ("split.cpcv=6,5", "1 <= K <= N - 2"), ("split.cpcv=6,0", "expected N,K"), ("split.cpcv=6,2,1", "expected N,K"),
        ("split.cpcv=20,8", "125,970 trainings of everything"),
    ],
)  # fmt: skip
def test_settings_out_of_range(setting, words):
    with pytest.raises(config.ConfigError, match=words):
        equity.make(settings=[setting])
