"""Windows of the walk-forward, checked by hand: parts follow each other, tests tile the bars and are seen by none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpupipe.runtime.errors import UserError
from gpupipe.workloads.agent.windows import Rows, iterations


def rows_of(rows):
    return set(range(rows.begin, rows.end))


def test_three_iterations_by_hand():
    found = iterations(first=2, n_rows=20, initial_window=10, step=4, validation_share=0.3)
    assert [(it.train, it.validation, it.test) for it in found] == [
        (Rows(2, 9), Rows(9, 12), Rows(12, 16)),
        (Rows(6, 13), Rows(13, 16), Rows(16, 20)),
    ]
    assert [it.name for it in found] == ["iteration_000", "iteration_001"]


@pytest.mark.parametrize("seed", range(20))
def test_tests_tile_the_bars_and_no_choice_has_seen_them(seed):
    rng = np.random.default_rng(seed)
    first, window, step = int(rng.integers(0, 90)), int(rng.integers(10, 300)), int(rng.integers(2, 120))
    n_rows = first + window + step + int(rng.integers(0, 900))
    found = iterations(first, n_rows, window, step, float(rng.uniform(0.1, 0.5)))
    for it in found:
        assert it.train.n + it.validation.n == window and it.train.begin == first + it.number * step
        assert it.train.end == it.validation.begin and it.validation.end == it.test.begin
    for before, after in itertools.pairwise(found):
        assert before.test.end == after.test.begin
    seen: set[int] = set()
    for it in found:  # whatever chose a policy up to this iteration
        seen |= rows_of(it.train) | rows_of(it.validation)
        assert not seen & rows_of(it.test)
    left = n_rows - found[-1].test.end
    assert 0 <= left < max(2, step // 4 + 1) and all(it.test.n == step for it in found[:-1])


def test_too_few_bars_are_named():
    with pytest.raises(UserError, match=r"2,559 usable bars .*2,500 and 60 bars.*--initial-window"):
        iterations(first=61, n_rows=2_620, initial_window=2_500, step=240, validation_share=0.2)


def test_parts_of_a_validation():
    parts = Rows(100, 111).parts(4)
    assert [part.n for part in parts] == [2, 3, 3, 3] and parts[0].begin == 100 and parts[-1].end == 111
    assert Rows(5, 7).parts(4) == (Rows(5, 6), Rows(6, 7))
