"""Which rows have a complete window: symbols, gaps in time, weekends, one row."""

import dataclasses

import numpy as np
import pytest

from gpupipe.cross_validation.fold_times import embargo_of, reach_of
from gpupipe.cross_validation.folds import make_folds
from gpupipe.cross_validation.split import split
from gpupipe.data import simulate
from gpupipe.data.panel import BARS, NS_PER_DAY, Panel
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.lookback import Lookback
from gpupipe.dataset.window_marks import bar_ns, gap_limit, mark_windows
from gpupipe.workloads import equity
from gpupipe.workloads.equity.recipe import outline

HOUR = 3_600 * 10**9


def panel_of(*times):
    """A panel with a symbol for each list of hours."""
    time_ns = np.concatenate([np.asarray(hours, np.int64) * HOUR for hours in times])
    offsets = np.concatenate([[0], np.cumsum([len(hours) for hours in times])]).astype(np.int64)
    columns = dict.fromkeys(BARS, np.full(len(time_ns), 10, np.float32))
    symbols = tuple(f"S{k}" for k in range(len(times)))
    return Panel.of_bars(**columns, time_ns=time_ns, offsets=offsets, symbols=symbols, sector=("x",) * len(times))


def by_hand(panel, lookback, limit):
    """The definition, row by row."""
    bar = bar_ns(panel)
    complete = []
    for begin, end in zip(panel.offsets[:-1], panel.offsets[1:], strict=True):
        for row in range(begin, end):
            window = panel.time_ns[max(begin, row - lookback.rows) : row + 1]
            whole = len(window) == lookback.rows + 1
            complete.append(whole and not (np.diff(window) > limit * bar + bar // 2).any())
    return np.array(complete, bool)


@pytest.mark.parametrize("rows", [0, 1, 3, 7])
@pytest.mark.parametrize("max_gap_bars", [0, 1, 5])
def test_marks_are_those_of_the_definition(rows, max_gap_bars):
    rng = np.random.default_rng(rows)
    hours = [np.cumsum(rng.choice([1, 1, 1, 2, 4, 6, 130], n)) for n in (1, 2, 60, 90)]
    panel, lookback = panel_of(*hours), Lookback(rows, max_gap_bars)
    marks = mark_windows(panel, lookback)
    limit = gap_limit(bar_ns(panel), max_gap_bars)
    np.testing.assert_array_equal(marks.complete, by_hand(panel, lookback, limit))
    assert marks.n_short + marks.n_gaps + marks.complete.sum() == panel.n_rows
    if rows:
        assert marks.n_short == sum(min(rows, len(h)) for h in hours) and marks.gap_bars == limit
        assert marks.n_gaps > 0


def test_weekends_are_no_gaps_and_a_halt_of_weeks_is_one():
    days = [day for day in range(100) if day % 7 < 5]
    halted = [day for day in days if not 30 <= day < 60]
    panel = panel_of([24 * day for day in days], [24 * day for day in halted])
    marks = mark_windows(panel, Lookback(9))
    assert marks.gap_bars == 10 and marks.n_gaps == 9 and marks.n_short == 18
    assert mark_windows(panel, Lookback(9, max_gap_bars=2)).n_gaps > 9  # a weekend is three days


def test_a_clock_that_changes_makes_no_gap():
    times = np.arange(40, dtype=np.int64) * NS_PER_DAY
    times[20:] += HOUR  # the day of 25 hours
    panel = panel_of(times // HOUR)
    assert mark_windows(panel, Lookback(5, max_gap_bars=1)).n_gaps == 0


def test_symbols_without_two_rows_have_no_window():
    marks = mark_windows(panel_of([1], [5]), Lookback(3))
    assert not marks.complete.any() and marks.n_short == 2 and marks.n_gaps == 0


def test_folds_are_purged_by_the_window_and_the_horizon():
    panel = simulate(n_symbols=4, n_bars=600, seed=3)
    group = panel.groups[0]
    settings = equity.make("fast", settings=["split.lookback_rows=40"])
    dataset = outline(panel.of_group(group), group, settings)
    assert dataset.lookback_rows == 40 and dataset.windows.n_short == 40 * panel.of_group(group).n_symbols
    assert embargo_of([dataset], settings.split) == 45 and reach_of([dataset], settings.split) == 50
    rows = split(dataset, make_folds([dataset], settings.split).published)
    number = {time: k for k, time in enumerate(np.unique(dataset.time_ns))}
    end = max(number[time] for time in dataset.end_time_ns[rows.train])
    for earlier, later in (("train", "validation"), ("validation", "test")):
        end = max(number[time] for time in dataset.end_time_ns[getattr(rows, earlier)])
        begin = min(number[time] for time in dataset.time_ns[getattr(rows, later)])
        assert begin - end > 45  # no bar of a later row's window is one that an earlier row's label looked at
    for fit, predict in rows.cross_fit:
        predicted = dataset.time_ns[predict]
        before, after = fit[dataset.time_ns[fit] < predicted.min()], fit[dataset.time_ns[fit] > predicted.max()]
        if len(before):
            last = max(number[time] for time in dataset.end_time_ns[before])
            assert number[predicted.min()] - last > 45
        if len(after):
            last = max(number[time] for time in dataset.end_time_ns[predict])
            assert number[dataset.time_ns[after].min()] - last > 40
    unmarked = outline(panel.of_group(group), group, equity.make("fast"))
    assert (
        unmarked.windows is None and unmarked.lookback_rows == 0 and unmarked.usable.sum() == dataset.usable.sum()
    )  # 60 bars warm up


def test_the_context_of_rows_is_the_union_of_their_windows():
    rng = np.random.default_rng(0)
    values, offsets = rng.normal(size=(50, 2)).astype(np.float32), np.array([0, 1, 20, 20, 50])
    for n in (0, 1, 7, 50):
        rows = FeatureRows(values, rng.permutation(50)[:n], offsets)
        first = rows.first_of_symbol
        union = sorted(
            {k for row, begin in zip(rows.rows, first, strict=True) for k in range(max(begin, row - 6), row + 1)}
        )
        np.testing.assert_array_equal(rows.context(6), union)
        windows = rows.windows(4)
        again = FeatureRows.of_windows(windows)
        np.testing.assert_array_equal(again.X, rows.X)
        np.testing.assert_array_equal(again.windows(4), windows)
    assert dataclasses.is_dataclass(rows)
