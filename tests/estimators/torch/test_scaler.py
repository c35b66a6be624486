"""WindowScaler: fitted on the given rows alone, of several matrices; what cannot be scaled is 0 everywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.row_view import RowView, Storage
from gpupipe.estimators.torch.scaler import BLOCK_ROWS, WindowScaler, fit_scaler
from tests.support.matrices import dataset_of


def view_of(X, rows=None, **options) -> FeatureRows:
    return RowView(
        dataset_of(np.asarray(X, np.float32)), np.arange(len(X)) if rows is None else rows, **options
    ).features


def random_matrix(n_rows=500, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1, (n_rows, 4)) * [1, 100, 1e-3, 5] + [0, 1e4, 3, -7]).astype(np.float32)


def test_standard_equals_numpy_on_the_rows_of_all_views():
    matrices = random_matrix(), random_matrix(300, 1)
    matrices[0][::7, 2] = np.nan
    rows = np.arange(5, 400), np.array([7, 3, 250])
    scaler = fit_scaler([view_of(X, r) for X, r in zip(matrices, rows, strict=True)], "standard", 3.0)
    fitted = np.concatenate([X[r] for X, r in zip(matrices, rows, strict=True)]).astype(float)
    np.testing.assert_allclose(scaler.offset, np.nanmean(fitted, axis=0), rtol=1e-6)
    np.testing.assert_allclose(scaler.scale, np.nanstd(fitted, axis=0), rtol=1e-6)
    assert (scaler.low == -3).all() and (scaler.high == 3).all()
    scaled = scaler.scaled(matrices[0])
    assert not scaled[::7, 2].any() and np.abs(scaled).max() <= 3


def test_minmax_spans_0_to_1_on_the_fitted_rows_and_clips_the_others():
    X = random_matrix()
    scaler = fit_scaler([view_of(X, np.arange(100))], "minmax")
    fitted = scaler.scaled(X[:100])
    np.testing.assert_allclose(fitted.min(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(fitted.max(axis=0), 1, atol=1e-6)
    assert scaler.scaled(np.full((1, 4), -1e9, np.float32)).tolist() == [[-1] * 4]
    assert scaler.scaled(np.full((1, 4), 1e9, np.float32)).tolist() == [[2] * 4]


def test_other_rows_change_nothing():
    X = random_matrix()
    before = fit_scaler([view_of(X, np.arange(100))])
    X[100:] *= 1000
    assert fit_scaler([view_of(X, np.arange(100))]).as_dict() == before.as_dict()


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_columns_without_a_spread_are_0_everywhere(scaling):
    X = random_matrix()
    X[:, 0] = 0.1  # a constant whose mean in float64 need not be the constant
    X[:, 1] = np.nan
    X[:, 2] = np.where(np.arange(500) % 2, np.inf, -np.inf)
    X[:, 3] = np.where(np.arange(500) % 2, 1e-45, 0)  # its deviation is 0 in float32
    scaler = fit_scaler([view_of(X)], scaling)
    dead = slice(3 if scaling == "minmax" else 4)  # the spread of minmax is the smallest float32 above 0
    scaled = scaler.scaled(np.float32([[5, 5, 5, 5], [np.inf, -np.inf, np.inf, np.nan], [1e30] * 4]))
    assert not scaled[:, dead].any() and scaled.max() <= 2


def test_infinite_values_are_ignored_and_clipped():
    X = np.float32([[0], [2], [np.inf], [-np.inf], [np.nan]])
    scaler = fit_scaler([view_of(X)], clip=4.0)
    assert scaler.scaled(X).ravel().tolist() == [-1, 1, 4, -4, 0]


def test_lazy_rows_columns_and_blocks_give_the_same():
    X = np.tile(random_matrix(), (BLOCK_ROWS // 250, 1))
    expected = fit_scaler([view_of(np.ascontiguousarray(X[:, [3, 1]]))]).as_dict()
    view = view_of(X, storage=Storage(lazy=True)).take_columns(np.array([3, 1]))
    assert fit_scaler([view]).as_dict() == expected
    halves = [view_of(X[: BLOCK_ROWS // 2]), view_of(X[BLOCK_ROWS // 2 :])]
    np.testing.assert_allclose(fit_scaler(halves).scale[[3, 1]], expected["scale"], rtol=1e-6)


@pytest.mark.parametrize("scaling", ["standard", "minmax"])
def test_one_row_and_no_row_give_zeros(scaling):
    for rows in (np.array([3]), np.array([], np.int64)):
        scaler = fit_scaler([view_of(random_matrix(), rows)], scaling)
        assert not scaler.scaled(random_matrix()).any()


def test_json_gives_the_same_bits():
    scaler = fit_scaler([view_of(random_matrix())])
    again = WindowScaler.from_dict(json.loads(json.dumps(scaler.as_dict())))
    for name in ("offset", "scale", "low", "high"):
        assert getattr(again, name).tobytes() == getattr(scaler, name).tobytes()


@pytest.mark.parametrize(
    "broken",
    [
        {"offset": None},
        {"scale": [1.0]},
        {"scale": [0.0] * 4},
        {"low": [float("nan")] * 4},
        {"low": [9.0] * 4},
        {"high": "x"},
    ],
)
def test_a_broken_description_is_refused(broken):
    description = fit_scaler([view_of(random_matrix())]).as_dict()
    with pytest.raises(ValueError):
        WindowScaler.from_dict({**description, **broken})
    with pytest.raises(ValueError, match="no description of a scaler"):
        WindowScaler.from_dict({})


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="expected standard or minmax"):
        fit_scaler([view_of(random_matrix())], "robust")
    with pytest.raises(ValueError, match="one number of columns"):
        fit_scaler([])
    with pytest.raises(ValueError, match="one number of columns"):
        fit_scaler([view_of(random_matrix()), view_of(random_matrix()[:, :2])])
