"""Ways to choose the names of a portfolio of ranks, against plain lists, at the edges, and how they are written."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpupipe.backtest.rank_selection import DEFAULT_HOLD, WAYS, Selection
from gpupipe.runtime.errors import UserError
from tests.support.rank_oracle import names_of

HOLDS = (
    "top:1", "top:4", "top:40", "top:10%", "top:35%", "quantile:2", "quantile:5", "quantile:30", "topk-dropout:4,1",
    "topk-dropout:5,2", "topk-dropout:3,3", "topk-dropout:2,5",
)  # fmt: skip


@pytest.mark.parametrize(("hold", "short"), list(itertools.product(HOLDS, (False, True))))
def test_names_are_those_of_plain_lists(hold, short):
    rng = np.random.default_rng(5)
    score = np.round(rng.uniform(-1, 1, (60, 13)), 1)  # with ties
    score[rng.random(score.shape) < 0.3] = np.nan
    score[:2] = np.nan
    score[2, 1:] = np.nan
    position = np.where(rng.random(score.shape) < 0.3, rng.choice([-1.0, 1.0], score.shape), 0)
    position = position if short else np.abs(position)
    chosen = Selection(hold).sides(score, position, short)
    assert chosen.dtype == np.int8
    for row, held, got in zip(score, position, chosen, strict=True):
        known = {k: float(value) for k, value in enumerate(row) if not np.isnan(value)}
        most = len(known) // 2 if short else len(known)
        long = names_of(hold, known, set(np.flatnonzero(held > 0).tolist()), most) if known else []
        low = {k: -known[k] for k in reversed(known)}
        below = names_of(hold, low, set(np.flatnonzero(held < 0).tolist()), most) if known and short else []
        if known:
            assert set(np.flatnonzero(got > 0)) == set(long)
            assert set(np.flatnonzero(got < 0)) == set(below) - set(long)
        if "dropout" not in hold:  # which keeps held names without a score
            assert not got[np.isnan(row)].any() and (got > 0).sum() <= most
    if "dropout" not in hold and short:
        np.testing.assert_array_equal((chosen > 0).sum(axis=1), (chosen < 0).sum(axis=1))


def test_dropout_by_hand():
    """Hold three, exchange at most one: the worst held name goes, and the best one that is not held comes."""
    score = np.array([[9.0, 8, 7, 6, 5, 4]])
    dropout = Selection("topk-dropout:3,1")
    assert dropout.sides(score, np.zeros((1, 6)), False).tolist() == [[1, 1, 1, 0, 0, 0]]
    assert dropout.sides(score, np.array([[0, 0, 0, 1, 1, 1]]), False).tolist() == [[1, 0, 0, 1, 1, 0]]
    assert dropout.sides(score, np.array([[1, 1, 1, 0, 0, 0]]), False).tolist() == [[1, 1, 1, 0, 0, 0]]
    unscored = np.array([[9.0, 8, np.nan, 6, 5, 4]])
    assert dropout.sides(unscored, np.array([[1, 1, 1, 0, 0, 0]]), False).tolist() == [[1, 1, 0, 1, 0, 0]]


def test_ties_and_counts():
    same = np.full((1, 6), 0.5)
    assert Selection("top:2").sides(same, np.zeros((1, 6)), True).tolist() == [[1, 1, 0, 0, -1, -1]]
    assert Selection("top:29%").sides(np.arange(100.0)[None], np.zeros((1, 100)), False).sum() == 29
    assert Selection("quantile:10").sides(np.arange(25.0)[None], np.zeros((1, 25)), False).sum() == 2
    empty = Selection().sides(np.zeros((0, 5)), np.zeros((0, 5)), True)
    assert empty.shape == (0, 5) and Selection().text == DEFAULT_HOLD
    assert not Selection("top:3").sides(np.full((1, 4), np.nan), np.zeros((1, 4)), True).any()


@pytest.mark.parametrize(
    "text",
    ("", "top", "top:", "top:0", "top:-3", "top:2.5", "top:0.1", "top:0%", "top:100%", "top:3,4", "top:x", "best:3",
     "quantile:10%", "topk-dropout:50", "topk-dropout:50,5,1", "topk-dropout:10%,5", "top:nan", "top:inf"),
)  # fmt: skip
def test_what_is_no_way_to_choose_is_refused(text):
    with pytest.raises(UserError, match="--hold"):
        Selection(text)


def test_every_way_has_an_example_that_is_read():
    for way in WAYS.values():
        for example in way.example.split(" or "):
            assert len(Selection(example).numbers) == way.n_numbers
