"""RowView: rows of a Dataset in any order, gathered late, and the rows before them, never of another symbol."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import (
    LazyRows,
    RowView,
    Storage,
    gather_together,
    in_blocks,
    in_few_arrays,
    of_columns,
    take_columns,
    whole,
)
from gpupipe.runtime.device import pick
from gpupipe.targets.classes import CLASSES
from gpupipe.targets.target import Target

N_COLUMNS, OFFSETS = 3, np.array([0, 5, 5, 6, 12])  # symbols of 5, 0, 1 and 6 rows
TARGET = Target(("near", "far"), "classes", (1, 2), CLASSES)
PRICES = ("open", "high", "low", "close")


def dataset_of(device, X=None, weight=None, prices=True) -> Dataset:
    """Twelve rows; X[i, k] is i + k / 10, y is i modulo 3 and modulo 2, the time of a row its place in its symbol."""
    n_rows = int(OFFSETS[-1])
    rows = np.arange(n_rows)
    X = (rows[:, None] + np.arange(N_COLUMNS) / 10).astype(np.float32) if X is None else X
    time_ns = rows - OFFSETS[np.searchsorted(OFFSETS, rows, side="right") - 1]
    extra = {name: (100 * k + rows).astype(np.float32) for k, name in enumerate(PRICES)} if prices else {}
    columns = {
        "X": X, "y": np.stack([rows % 3, rows % 2], axis=1).astype(np.int8), "time_ns": time_ns, "end_time_ns": time_ns,
        "warm": np.ones(n_rows, bool), "usable": np.ones(n_rows, bool), "offsets": OFFSETS,
    }  # fmt: skip
    return Dataset(
        group="energy", names=tuple(f"x{k}" for k in range(N_COLUMNS)), target=TARGET,
        weight=None if weight is None else device.asarray(weight),
        extra={name: device.asarray(column) for name, column in extra.items()},
        **{name: device.asarray(column) for name, column in columns.items()},
    )  # fmt: skip


@pytest.fixture
def dataset(device):
    return dataset_of(device)


def host(view, array):
    return view.device.to_host(array)


# Gathering


def test_arrays_are_the_rows_in_their_order(dataset):
    view = RowView(dataset, np.array([7, 3, 11, 3]))
    assert view.n == 4 and view.n_targets == 2 and view.device is dataset.device
    expected = np.float32([[7, 7.1, 7.2], [3, 3.1, 3.2], [11, 11.1, 11.2], [3, 3.1, 3.2]])
    np.testing.assert_array_equal(host(view, view.X), expected)
    assert view.X.flags["C_CONTIGUOUS"] and view.X.dtype == np.float32
    assert host(view, view.y).tolist() == [[1, 1], [0, 1], [2, 1], [0, 1]] and view.y.dtype == np.int8
    assert host(view, view.time_ns).tolist() == [1, 3, 5, 3]
    assert host(view, view.extra("close")).tolist() == [307, 303, 311, 303]
    assert view.weight is None


def test_they_are_gathered_once_and_no_sooner_than_they_are_read(dataset):
    view = RowView(dataset, np.array([1, 2]))
    assert not {"X", "y", "weight", "time_ns"} & set(view.__dict__)
    assert view.X is view.X and view.y is view.y and view.time_ns is view.time_ns


@pytest.mark.parametrize("wrong", [-1, 10_000])
def test_row_numbers_that_the_dataset_does_not_have_are_refused(dataset, wrong):
    with pytest.raises(IndexError, match="row numbers outside of 0 to"):
        RowView(dataset, np.array([0, wrong]))


def test_no_rows(dataset):
    view = RowView(dataset, np.array([], np.int64))
    assert (
        view.n == 0
        and view.X.shape == (0, 3)
        and view.y.shape == (0, 2)
        and view.features.windows(4).shape == (0, 4, 3)
    )
    assert isinstance(view.digest(), str) and view.digest(2) != view.digest()


def test_prices_are_those_that_the_recipe_kept(device, dataset):
    prices = RowView(dataset, np.array([2, 10])).prices
    assert tuple(prices) == PRICES
    assert [device.to_host(prices[name]).tolist() for name in PRICES] == [[2, 10], [102, 110], [202, 210], [302, 310]]
    with pytest.raises(ValueError, match="the dataset has no open, high, low, close: let its recipe put them into"):
        _ = RowView(dataset_of(device, prices=False), np.array([2])).prices
    some = {name: dataset.extra[name] for name in ("open", "close")}
    with pytest.raises(ValueError, match="the dataset has no high, low: let"):
        _ = RowView(dataclasses.replace(dataset, extra=some), np.array([2])).prices


# Windows


def test_windows_end_at_the_row_and_begin_with_nan_before_the_symbols_first(dataset):
    view = RowView(dataset, np.array([8, 6, 5, 0, 4]))
    nan = np.nan
    expected = [[6, 7, 8], [nan, nan, 6], [nan, nan, 5], [nan, nan, 0], [2, 3, 4]]
    windows = host(view, view.features.windows(3))
    assert windows.shape == (5, 3, N_COLUMNS) and windows.dtype == np.float32
    np.testing.assert_array_equal(windows[:, :, 0], np.float32(expected))
    np.testing.assert_array_equal(np.isnan(windows).any(axis=2), np.isnan(windows).all(axis=2))
    np.testing.assert_array_equal(windows[:, -1], host(view, view.X))


def test_a_window_of_one_row_is_the_row_and_one_longer_than_the_data_is_nan_before_it(dataset):
    view = RowView(dataset, np.arange(12))
    np.testing.assert_array_equal(host(view, view.features.windows(1))[:, 0], host(view, view.X))
    windows = host(view, view.features.windows(40))
    known = ~np.isnan(windows[:, :, 0])
    np.testing.assert_array_equal(known.sum(axis=1), host(view, view.time_ns) + 1)  # the place in the symbol
    assert (np.diff(known.astype(int), axis=1) >= 0).all()  # all that is missing is older than all that is there


def test_windows_never_cross_symbols(device):
    """Other values in every other symbol change no window."""
    before = RowView(dataset_of(device), np.arange(6, 12))
    X = device.to_host(before.dataset.X).copy()
    X[:6] = -1
    after = RowView(dataset_of(device, X), np.arange(6, 12))
    for length in (1, 4, 12):
        np.testing.assert_array_equal(
            host(after, after.features.windows(length)), host(before, before.features.windows(length))
        )


def test_windows_do_not_look_ahead(device):
    before = RowView(dataset_of(device), np.array([7, 2]))
    X = device.to_host(before.dataset.X).copy()
    X[[3, 4, *range(8, 12)]] = -1
    after = RowView(dataset_of(device, X), np.array([7, 2]))
    np.testing.assert_array_equal(host(after, after.features.windows(5)), host(before, before.features.windows(5)))


def test_windows_keep_missing_values_and_leave_the_matrix_as_it_is(device):
    X = np.zeros((12, N_COLUMNS), np.float32)
    X[7, 1] = np.nan
    view = RowView(dataset_of(device, X.copy()), np.array([8, 6]))
    assert np.isnan(host(view, view.features.windows(3))).sum() == 2 * N_COLUMNS + 1
    np.testing.assert_array_equal(host(view, view.dataset.X), X)


# Parts of a view


def test_slices_and_taken_rows(dataset, device):
    view = RowView(dataset, np.array([7, 3, 11, 0]))
    part, taken = view.slice(1, 3), view.take(device.asarray(np.array([3, 0])))
    for derived, rows in ((part, [3, 11]), (taken, [0, 7])):
        plain = RowView(dataset, np.array(rows))
        assert host(derived, derived.rows).tolist() == rows
        for name in ("X", "y", "time_ns"):
            np.testing.assert_array_equal(host(derived, getattr(derived, name)), host(plain, getattr(plain, name)))
        np.testing.assert_array_equal(
            host(derived, derived.features.windows(3)), host(plain, plain.features.windows(3))
        )
        assert derived.digest(1) == plain.digest(1)
    assert view.slice(2, 99).n == 2


def test_of_targets_counts_in_this_view_and_shares_its_features(device):
    weight = np.arange(24, dtype=np.float32).reshape(12, 2)
    view = RowView(dataset_of(device, weight=weight), np.array([4, 9]))
    turned = view.of_targets([1, 0])
    assert turned.n_targets == 2 and turned.X is view.X and turned.targets == (1, 0)
    assert host(view, turned.y).tolist() == [[0, 1], [1, 0]]
    assert host(view, turned.weight).tolist() == [[9, 8], [19, 18]]
    again = turned.of_targets([1])
    assert again.targets == (0,) and host(view, again.y).tolist() == [[1], [0]]
    assert host(view, again.weight).tolist() == [[8], [18]] and again.y.flags["C_CONTIGUOUS"]
    plain = RowView(view.dataset, view.rows, targets=(0,))
    np.testing.assert_array_equal(host(view, plain.y), host(view, again.y))
    assert again.target_digests() == [view.target_digests()[0]] and again.digest() == view.digest()


def test_of_columns_counts_in_this_view(dataset):
    view = RowView(dataset, np.array([4, 9, 6]))
    some = view.of_columns(np.array([0, 2]))
    np.testing.assert_array_equal(host(view, some.X), np.float32([[4, 4.2], [9, 9.2], [6, 6.2]]))
    np.testing.assert_array_equal(
        host(view, some.features.windows(2))[:, :, 1], np.float32([[3.2, 4.2], [8.2, 9.2], [np.nan, 6.2]])
    )
    last = some.of_columns(np.array([1]))
    assert host(view, last.columns).tolist() == [2]
    np.testing.assert_array_equal(host(view, last.X), np.float32([[4.2], [9.2], [6.2]]))
    np.testing.assert_array_equal(host(view, last.y), host(view, view.y))
    assert len({view.digest(), some.digest(), last.digest()}) == 3


def test_with_weight_changes_nothing_else(device):
    view = RowView(dataset_of(device), np.array([4, 9]))
    before = view.X
    weighted = view.with_weight(device.asarray(np.float32([[1, 2], [3, 4]])))
    assert host(view, weighted.weight).tolist() == [[1, 2], [3, 4]] and weighted.X is before and view.weight is None
    assert host(view, weighted.of_targets([1]).weight).tolist() == [[2], [4]]
    assert host(view, weighted.slice(1, 2).weight).tolist() == [[3, 4]]
    assert weighted.digest() == view.digest() and weighted.target_digests() != view.target_digests()


# Views in one array


def views_in_one_array(dataset) -> list[RowView]:
    views = [RowView(dataset, np.array(rows, dtype=np.int64)) for rows in ([7, 3], [], [11, 0, 5])]
    gather_together(views)
    return views


def test_views_gathered_together_have_the_same_rows_in_one_array(dataset):
    views = views_in_one_array(dataset)
    for view in views:
        np.testing.assert_array_equal(host(view, view.X), host(view, RowView(dataset, view.rows).X))
        assert view.X.flags["C_CONTIGUOUS"]
    (joined,) = in_few_arrays(views)
    assert host(views[0], joined)[:, 0].tolist() == [7, 3, 11, 0, 5]
    gather_together([])
    assert in_few_arrays([]) == []


def test_views_of_other_targets_weights_and_columns_stay_in_one_array(dataset, device):
    views = views_in_one_array(dataset)
    (joined,) = in_few_arrays(views)
    for others in ([view.of_targets([1]) for view in views], [view.with_weight(view.y) for view in views]):
        (same,) = in_few_arrays(others)
        assert same is joined
    some = of_columns(views, np.array([2, 0]))
    (chosen,) = in_few_arrays(some)
    assert host(some[0], chosen)[:, 1].tolist() == [7, 3, 11, 0, 5]
    for view, plain in zip(some, views, strict=True):
        np.testing.assert_array_equal(host(view, view.X), host(plain, RowView(dataset, plain.rows).X)[:, [2, 0]])
        np.testing.assert_array_equal(host(view, view.y), host(plain, plain.y))
    assert of_columns([], np.array([0])) == []


def test_views_that_are_not_all_parts_in_order_have_an_array_each(dataset):
    views = views_in_one_array(dataset)
    parted = [view.slice(0, 1) for view in views]
    for others in (views[:1], views[::-1], [*views, RowView(dataset, np.array([1]))], parted, views[1:]):
        assert [len(X) for X in in_few_arrays(others)] == [view.n for view in others]
    lazy = [RowView(dataset, np.array([k]), storage=Storage(lazy=True)) for k in (4, 2)]
    gather_together(lazy)
    assert all(isinstance(X, LazyRows) for X in in_few_arrays(lazy)) and len(in_few_arrays(lazy)) == 2
    assert all(isinstance(view.X, LazyRows) for view in of_columns(lazy, np.array([1])))


# Digests


def test_a_digest_is_of_values_order_and_times(device, dataset):
    rows = np.array([7, 3, 11])
    digest = RowView(dataset, rows).digest()
    assert digest == RowView(dataset_of(device), rows).digest() and len(digest) == 64
    assert digest != RowView(dataset, rows[::-1].copy()).digest()
    X = device.to_host(dataset.X).copy()
    X[3, 1] += 1
    assert digest != RowView(dataset_of(device, X), rows).digest()
    later = dataclasses.replace(dataset, time_ns=dataset.time_ns + 1)
    assert digest != RowView(later, rows).digest()


def test_digests_are_the_same_on_every_device(device, dataset):
    view = RowView(dataset, np.array([7, 3, 11]))
    on_cpu = RowView(dataset_of(pick("cpu")), np.array([7, 3, 11]))
    assert view.digest() == on_cpu.digest() and view.digest(2) == on_cpu.digest(2)
    np.testing.assert_array_equal(dataset.row_digests, on_cpu.dataset.row_digests)
    assert len(np.unique(dataset.row_digests, axis=0)) == dataset.n_rows


def test_a_digest_covers_the_context_and_no_more(device, dataset):
    """Rows 7 and 3, and two rows before each: 6 (the first of its symbol), and 1 and 2."""
    rows = np.array([7, 3])
    view = RowView(dataset, rows)
    plain, with_context = view.digest(), view.digest(2)
    assert plain != with_context != view.digest(1) != plain
    for changed in range(12):
        X = device.to_host(dataset.X).copy()
        X[changed, 2] += 1
        other = RowView(dataset_of(device, X), rows)
        assert (other.digest() != plain) == (changed in (7, 3)), changed
        assert (other.digest(2) != with_context) == (changed in (7, 3, 6, 1, 2)), changed


def test_digests_of_targets_are_one_each(device):
    weight = np.ones((12, 2), np.float32)
    rows = np.array([7, 3])
    plain, weighted = (RowView(dataset_of(device, weight=w), rows).target_digests() for w in (None, weight))
    assert len(set(plain)) == 2 and not set(plain) & set(weighted)
    weight[3, 1] = 0.5
    changed = RowView(dataset_of(device, weight=weight), rows).target_digests()
    assert changed[0] == weighted[0] and changed[1] != weighted[1]
    weight[4] = 7  # a row that the view has not
    assert RowView(dataset_of(device, weight=weight), rows).target_digests() == changed


# Storage


@pytest.mark.parametrize("kind", ["file", "lazy"])
def test_where_features_are_kept_changes_no_value(dataset, kind, tmp_path, monkeypatch):
    monkeypatch.setattr("gpupipe.dataset.row_view.BLOCK_ROWS", 2)
    rows, storage = np.array([7, 3, 11, 0, 5]), Storage(tmp_path) if kind == "file" else Storage(lazy=True)
    plain, view = RowView(dataset, rows), RowView(dataset, rows, storage=storage)
    assert isinstance(view.X, LazyRows) == (kind == "lazy") and view.X.shape == (5, 3)
    np.testing.assert_array_equal(host(view, whole(view.X)), host(plain, plain.X))
    blocks = [host(view, block) for block in in_blocks(view.X)]
    assert len(blocks) == (3 if kind == "lazy" else 1)
    np.testing.assert_array_equal(np.concatenate(blocks), host(plain, plain.X))
    chosen = view.of_columns(np.array([2, 1])).slice(1, 4)
    np.testing.assert_array_equal(host(view, whole(chosen.X)), host(plain, plain.X)[1:4][:, [2, 1]])
    np.testing.assert_array_equal(host(view, whole(take_columns(view.X, [0]))), host(plain, plain.X)[:, [0]])
    np.testing.assert_array_equal(host(view, view.features.windows(4)), host(plain, plain.features.windows(4)))
    assert view.digest(1) == plain.digest(1)
