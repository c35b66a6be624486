"""Features and labels put together: which rows may be used, and when their labels end."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import NEVER, WARM_BARS, Dataset, warm_rows
from gpupipe.features.matrix import compute_features, feature_table, warm_up_of
from gpupipe.targets.triple_barrier import tp_dd_labels
from gpupipe.workloads.equity.recipe import join
from tests.support.market import DAY_NS
from tests.support.panels import random_panel

LENGTHS = (300, 1, 40, 120)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return random_panel(LENGTHS, sectors=("energy",))


@pytest.fixture(scope="module")
def dataset(panel) -> Dataset:
    return join(panel, compute_features(panel), tp_dd_labels(panel, (1, 2, 5), (0.05, 0.10)), "energy")


def bar_of_row(panel):
    return np.arange(panel.n_rows) - panel.offsets[panel.symbol_of_row]


def test_it_is_row_aligned_and_drops_nothing(panel, dataset):
    assert dataset.n_rows == panel.n_rows and dataset.X.shape == (panel.n_rows, len(dataset.names))
    assert len(dataset.names) >= 60
    assert dataset.target.names == tuple(f"label_{h}d_{p}pct" for h in (1, 2, 5) for p in (5, 10))
    assert dataset.target.horizon_rows == (1, 1, 2, 2, 5, 5)
    parameters = [{"horizon": h, "threshold": t} for h in (1, 2, 5) for t in (0.05, 0.10)]
    assert list(dataset.target.parameters) == parameters
    assert dataset.time_ns is panel.time_ns
    natr = compute_features(panel, "natr_14").column("natr_14")
    np.testing.assert_array_equal(dataset.extra["natr"], natr)


def test_rows_are_warm_once_the_columns_of_sixty_one_bars_are_and_no_later(panel, dataset):
    bar = bar_of_row(panel)
    needed = max(warm_up_of(name) for name in dataset.names if warm_up_of(name) <= WARM_BARS)
    assert 50 < needed <= WARM_BARS
    np.testing.assert_array_equal(dataset.warm, bar >= needed)
    long = [k for k, name in enumerate(dataset.names) if warm_up_of(name) > WARM_BARS]
    assert long, "the default set has windows longer than 61 bars"
    first = np.flatnonzero(dataset.warm)[0]
    assert np.isnan(dataset.X[first, long]).any() and dataset.usable[first]  # missing there, and usable all the same


def test_a_row_is_usable_when_it_is_warm_and_all_its_labels_are_known(panel, dataset):
    bar = bar_of_row(panel)
    left = np.array(LENGTHS)[panel.symbol_of_row] - 1 - bar
    np.testing.assert_array_equal(dataset.usable, dataset.warm & (left >= 5))
    assert 0 < dataset.usable.sum() == (300 - 61 - 5) + (120 - 61 - 5) + 2 * (61 - np.flatnonzero(dataset.warm)[0])


def test_the_labels_end_with_the_longest_and_never_where_one_is_not_known(panel, dataset):
    bar = bar_of_row(panel)
    left = np.array(LENGTHS)[panel.symbol_of_row] - 1 - bar
    known = left >= 5
    np.testing.assert_array_equal(dataset.end_time_ns[known], panel.time_ns[known] + 5 * DAY_NS)
    assert np.iinfo(np.int64).max == NEVER and (dataset.end_time_ns[~known] == NEVER).all()


def test_a_missing_price_makes_unknown_what_depends_on_it(panel):
    close = panel.close.copy()
    close[200] = np.nan
    with_gap = panel.replace(close=close)
    dataset = join(with_gap, compute_features(with_gap), tp_dd_labels(with_gap), "energy")
    assert (dataset.end_time_ns[195:201] == NEVER).all() and dataset.end_time_ns[194] < NEVER
    assert not dataset.usable[195:201].any() and dataset.usable[194]


def test_holes_in_time_are_seen_in_the_end_of_labels():
    panel = random_panel((100,), sectors=("energy",))
    time_ns = panel.time_ns.copy()
    time_ns[80:] += 30 * DAY_NS
    panel = panel.replace(time_ns=time_ns)
    dataset = join(panel, compute_features(panel), tp_dd_labels(panel, (2,), (0.05,)), "energy")
    assert dataset.end_time_ns[77] == 79 * DAY_NS
    assert dataset.end_time_ns[78] == 110 * DAY_NS and dataset.end_time_ns[79] == 111 * DAY_NS


def test_chosen_features_only(panel):
    names = ("rsi_14",) if "rsi_14" in {f.name for f in feature_table()} else (feature_table()[0].name,)
    features = compute_features(panel, names)
    dataset = join(panel, features, tp_dd_labels(panel), "energy")
    assert dataset.names == names and not np.isnan(dataset.extra["natr"][100])  # which the tables read
    np.testing.assert_array_equal(dataset.warm, bar_of_row(panel) >= warm_up_of(names[0]))
    np.testing.assert_array_equal(dataset.warm, warm_rows(features))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"X": np.zeros((461, 2), np.float32)}, r"X has shape \(461, 2\), expected \(461, "),
        ({"usable": np.ones(3, bool)}, r"usable has shape \(3,\), expected \(461,\)"),
        ({"y": np.zeros((461, 6), np.int64)}, "column 'y' has dtype int64, expected int8"),
        ({"extra": {"natr": np.zeros(460, np.float32)}}, r"natr has shape \(460,\), expected \(461,\)"),
        ({"extra": {"forward_return_1": np.zeros((461, 1), np.float32)}}, r"forward_return_1 has shape \(461, 1\)"),
        ({"weight": np.ones(461, np.float32)}, r"weight has shape \(461,\), expected \(461, 6\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(dataset, change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(dataset, **change)
