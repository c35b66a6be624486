"""Labels and rows of a problem, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bench.sequence.problem import direction, parts_of, problem_of, read_series
from gpupipe.dataset.dataset import NEVER


def test_direction_of_the_next_close():
    close = np.float32([1, 2, 2, 1, np.nan, 1])
    assert direction(close).tolist() == [2, 1, 0, -1, -1, -1]
    assert direction(np.float32([1])).tolist() == [-1]


def test_parts_are_purged_by_both_windows():
    usable = np.ones(100, bool)
    usable[:10] = False
    parts = parts_of(usable, lookback=5, horizon=3)
    # Rows 10 to 13 have no five known bars. The cuts of the 86 rows from 14 on are 14 + 51 = 65 and 14 + 68 = 82.
    assert parts.training.tolist() == list(range(14, 62)), "the labels of row 61 look at row 64"
    assert parts.validation.tolist() == list(range(69, 79)), "the window of row 69 begins at row 65"
    assert parts.training[-1] + 3 < parts.validation[0] - 4


def test_parts_of_too_few_rows():
    with pytest.raises(ValueError, match="known bars"):
        parts_of(np.zeros(9, bool), 3, 1)
    with pytest.raises(ValueError, match="leave none"):
        parts_of(np.ones(9, bool), 5, 3)


def test_a_problem_has_known_labels_and_whole_windows(series):
    problem = problem_of("walk", read_series(series, 700), "core", lookback=40)
    dataset, parts = problem.dataset, problem.parts
    assert dataset.y.shape == (700, 5) and [head.name for head in problem.heads] == list(dataset.target.names)
    assert (dataset.y[parts.training] >= 0).all() and (dataset.y[parts.validation] >= 0).all()
    assert dataset.usable[parts.training[0] - 39 : parts.validation[-1]].all()
    assert (dataset.end_time_ns[~dataset.usable][-1:] == NEVER).all()
    close, rows = read_series(series, 700).close, parts.validation
    np.testing.assert_array_equal(dataset.y[rows, 0] == 2, close[rows + 1] > close[rows])
    assert (dataset.end_time_ns[rows] == dataset.time_ns[rows + 5]).all()
    with pytest.raises(ValueError, match="give more rows"):
        problem_of("walk", read_series(series, 80), "core")
