"""The split in time, by hand: two sectors with different dates and holes, purge and embargo visible in the numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe import config
from gpupipe.cross_validation.split import split
from gpupipe.cross_validation.walk_forward import holdout
from gpupipe.dataset.dataset import NEVER
from gpupipe.runtime.errors import UserError
from gpupipe.workloads import equity
from tests.support.tiny import dataset_of

# 40 days, labels of 2 bars, embargo of 1: parts begin on days 0, 8, 16, validation on 24, test on 32.
SETTINGS = config.Split(train=0.6, validation=0.2, embargo_bars=1, parts=3, stacking="kfold")
FORWARD = config.Split(train=0.6, validation=0.2, embargo_bars=1, parts=3, stacking="forward")


def every_day():
    """A bar a day; day 12 is not usable. Row k is day k, its labels end on day k + 2."""
    day = np.arange(40)
    return dataset_of(day, day + 2, day != 12)


def with_holes():
    """Starts on day 10 and has no bars from day 13 to 17, so that the labels of days 11 and 12 end on 18 and 19."""
    day = np.array([10, 11, 12, *range(18, 40)])
    return dataset_of(day, np.array([*day[2:], NEVER, NEVER]), np.arange(25) < 23)


def as_lists(found):
    return {
        "train": found.train.tolist(), "validation": found.validation.tolist(), "test": found.test.tolist(),
        "folds": [(fit.tolist(), predict.tolist()) for fit, predict in found.cross_fit],
    }  # fmt: skip


def days(first, last, without=()):
    return [day for day in range(first, last + 1) if day not in without]


def blocks_of(at):
    """The blocks of a fold, each a tuple: start, stop, one time before the start, a label and an embargo after it."""
    return {
        "parts": [[dataclasses.astuple(block) for block in part] for part in at.parts],
        "validation": [dataclasses.astuple(block) for block in at.validation],
        "test": [dataclasses.astuple(block) for block in at.test],
    }


def test_boundaries_are_shared_and_of_distinct_times():
    assert blocks_of(holdout([every_day(), with_holes()], SETTINGS)) == {
        "parts": [[(0, 8, 0, 11)], [(8, 16, 7, 19)], [(16, 24, 15, 27)]],
        "validation": [(24, 32, 23, 35)],
        "test": [(32, NEVER, 31, NEVER)],
    }


def test_days_after_the_date_that_shares_are_counted_to_are_test_and_move_nothing():
    nanoseconds = 86_400 * 10**9

    def until(n_days, settings):
        day = np.arange(n_days)
        return holdout([dataset_of(day * nanoseconds, (day + 2) * nanoseconds, day >= 0)], settings)

    pinned = dataclasses.replace(SETTINGS, shares_until="1970-02-09")  # day 39
    assert until(40, pinned) == until(40, SETTINGS) == until(60, pinned) != until(60, SETTINGS)
    assert until(60, pinned).test[0].start == 32 * nanoseconds and until(60, pinned).test[0].stop == NEVER
    made = equity.make("fast", settings=["split.shares_until=2014-12-31"])  # a date in TOML, and a text here
    assert made.split.shares_until == "2014-12-31"
    with pytest.raises(config.ConfigError, match=r"split\.shares_until = 'May': expected a date such as 2014-12-31"):
        equity.make("fast", settings=["split.shares_until=May"])


def test_every_row_of_a_sector_with_a_bar_a_day():
    found = as_lists(split(every_day(), holdout([every_day(), with_holes()], SETTINGS)))
    assert found == {
        "train": days(0, 20, {12}),  # the label of day 20 ends on 22, the last day before the embargo
        "validation": days(24, 28),
        "test": days(32, 39),
        "folds": [
            (days(11, 20, {12}), days(0, 7)),
            ([0, 1, 2, 3, 4, 19, 20], days(8, 15, {12})),
            (days(0, 11), days(16, 20)),
        ],
    }


def test_every_row_of_a_sector_with_holes():
    found = as_lists(split(with_holes(), holdout([every_day(), with_holes()], SETTINGS)))
    assert found == {
        "train": [0, 1, 2, 3, 4, 5],  # days 10, 11, 12, 18, 19, 20
        "validation": days(9, 13),  # days 24 to 28
        "test": days(17, 22),  # days 32 to 37: the last two are not known
        "folds": [
            ([1, 2, 3, 4, 5], []),
            ([5], [0, 1, 2]),  # the label of day 12 ends on day 19, so only day 20 is after it
            ([0], [3, 4, 5]),
        ],
    }


def test_forward_never_fits_on_the_future_of_what_it_predicts():
    at = holdout([every_day(), with_holes()], FORWARD)
    assert as_lists(split(every_day(), at))["folds"] == [
        ([0, 1, 2, 3, 4], days(8, 15, {12})), (days(0, 11), days(16, 20)),
    ]  # fmt: skip
    assert as_lists(split(with_holes(), at))["folds"] == [([], [0, 1, 2]), ([0], [3, 4, 5])]


def random_sector(rng):
    day = np.sort(rng.choice(120, size=rng.integers(60, 120), replace=False))
    n_bars = rng.integers(1, 6)
    end = np.full(len(day), NEVER)
    end[: len(day) - n_bars] = day[n_bars:]
    return dataset_of(day, end, (end < NEVER) & (rng.random(len(day)) < 0.95), int(n_bars))


@pytest.mark.parametrize("stacking", ["kfold", "forward"])
@pytest.mark.parametrize("seed", range(20))
def test_no_label_reaches_into_another_part(seed, stacking):
    rng = np.random.default_rng(seed)
    sectors = [random_sector(rng), random_sector(rng)]
    embargo = int(rng.integers(0, 4))
    settings = config.Split(0.6, 0.2, embargo_bars=embargo, parts=int(rng.integers(2, 5)), stacking=stacking)
    at = holdout(sectors, settings)
    times = np.unique(np.concatenate([one.time_ns[one.usable] for one in sectors]))
    for one in sectors:
        found = split(one, at)
        time, end = one.time_ns, one.end_time_ns
        assert one.usable[np.concatenate([found.train, found.validation, found.test])].all()
        for earlier, later in ((found.train, at.validation[0].start), (found.validation, at.test[0].start)):
            if len(earlier):
                assert ((times > end[earlier].max()) & (times < later)).sum() >= embargo
                assert end[earlier].max() < later
        predicted = np.concatenate([predict for _, predict in found.cross_fit])
        assert len(np.unique(predicted)) == len(predicted)
        assert stacking == "forward" or set(predicted) == set(found.train)
        for fit, predict in found.cross_fit:
            assert np.isin(fit, found.train).all() and not np.intersect1d(fit, predict).size
            if not len(fit) or not len(predict):
                continue
            before = fit[time[fit] < time[predict].min()]
            after = np.setdiff1d(fit, before)
            assert stacking == "kfold" or not len(after)
            assert not len(before) or end[before].max() < time[predict].min()
            assert not len(after) or time[after].min() > end[predict].max()


def test_a_history_that_is_too_short_is_refused_with_the_numbers():
    short = dataset_of(np.arange(14), np.arange(14) + 2, np.ones(14, bool))
    with pytest.raises(UserError, match=r"14 usable times are too few for 3 training parts.* labels of 2 bars"):
        holdout([short], SETTINGS)
    # Every part must be longer than its longest label and the embargo, or nothing is left of it to learn from.
    both = [every_day(), with_holes()]
    at = holdout(both, config.Split(0.6, 0.2, embargo_bars=5, parts=3))
    assert [part[0].start for part in at.parts] == [0, 8, 16] and at.validation[0].start == 24
    with pytest.raises(UserError, match="embargo of 6"):
        holdout(both, config.Split(0.6, 0.2, embargo_bars=6, parts=3))


def test_no_usable_row_at_all():
    with pytest.raises(UserError, match="0 usable times are too few"):
        holdout([dataset_of(np.arange(50), np.arange(50) + 2, np.zeros(50, bool))], SETTINGS)
