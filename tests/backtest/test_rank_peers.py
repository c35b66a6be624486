"""Portfolios of ranks against vectorbt with the same weights, as recorded (make_rank_portfolio_reference.py).

Where vectorbt is installed, it is asked again.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bench.backtest import rank_portfolio as bench_portfolio
from gpupipe.backtest.rank_portfolio import rank_portfolio
from tests.support import make_rank_portfolio_reference as reference


@pytest.fixture(scope="module")
def stored():
    with np.load(reference.REFERENCE) as file:
        return dict(file)


@pytest.mark.parametrize("name", reference.RULES)
def test_equity_is_that_of_vectorbt_on_every_date(stored, name):
    for market, result in reference.results(reference.RULES[name]).items():
        theirs = stored[f"{name}; {market}"]
        assert theirs.shape == (2, result.bars.n_dates) and result.fills.n_fills > 100
        np.testing.assert_allclose(result.equity, theirs, rtol=bench_portfolio.CLOSE_ENOUGH)
        assert np.abs(theirs - 1).max() > 0.01


def test_another_cost_is_another_equity(stored):
    rules = reference.RULES["long-short"]
    dearer = dataclasses.replace(rules, fills=dataclasses.replace(rules.fills, commission_bps=7.01))
    result = reference.results(rules)["demo"]
    other = rank_portfolio(result.source, dearer)
    assert bench_portfolio.largest_difference(other, stored["long-short; demo"]) > bench_portfolio.CLOSE_ENOUGH


def test_vectorbt_says_the_same_today(stored):
    pytest.importorskip("vectorbt")
    for name, rules in reference.RULES.items():
        for market, result in reference.results(rules).items():
            np.testing.assert_allclose(reference.of_vectorbt(result), stored[f"{name}; {market}"], rtol=1e-12)
