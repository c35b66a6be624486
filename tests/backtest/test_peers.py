"""The backtest's trades against those of Backtesting.py and vectorbt, as recorded (make_backtest_reference.py).

Where a peer is installed, it is asked again.
"""

from __future__ import annotations

import numpy as np
import pytest

from bench.backtest import comparison as bench_backtest
from gpupipe.backtest import backtest
from gpupipe.backtest.engine import REASONS
from tests.support import backtesting_py
from tests.support import make_backtest_reference as reference


@pytest.fixture(scope="module")
def stored():
    with np.load(reference.REFERENCE) as file:
        return dict(file)


@pytest.fixture(scope="module")
def panel(stored):
    return reference.panel_of(stored["symbols"].tolist())


def records_of(stored):
    """vectorbt's trades as it gives them."""
    columns = [stored[f"vectorbt_{name}"] for name in reference.RECORDS]
    return np.rec.fromarrays(columns, names=list(reference.RECORDS))


def test_every_trade_is_that_of_backtesting_py(stored, panel):
    result = backtest(reference.source_of(panel, stored["calls"]), backtesting_py.SAME)
    assert backtesting_py.same(backtesting_py.ours(result), stored["backtesting"])
    ends = {REASONS[reason] for reason in result.trades.reason}
    assert len(stored["backtesting"]) > 700 and ends == {"target", "stop", "time", "end of data"}
    assert {1.0, 2.0} == set(stored["backtesting"][:, 3])  # long and short


def test_every_trade_is_that_of_vectorbt(stored, panel):
    few, kept = bench_backtest.thinned(reference.source_of(panel, stored["calls"]))
    np.testing.assert_array_equal(kept, stored["kept"])
    result = backtest(few, bench_backtest.SAME)
    counts = bench_backtest.differences(result, records_of(stored))
    assert counts["ours"] == counts["theirs"] == counts["same"] + counts["left_open"] > 200
    assert counts["same"] > 0.95 * counts["ours"]


def test_a_trade_that_is_another_is_found(stored, panel):
    ours = backtesting_py.ours(backtest(reference.source_of(panel, stored["calls"]), backtesting_py.SAME))
    for column, step in ((2, 1), (4, 1e-3), (6, 1e-9)):
        other = stored["backtesting"].copy()
        other[7, column] += step
        assert not backtesting_py.same(ours, other)


def test_backtesting_py_says_the_same_today(stored, panel):
    pytest.importorskip("backtesting", reason="Backtesting.py is a peer of the benchmarks alone, under the AGPL")
    np.testing.assert_array_equal(reference.of_backtesting(panel, stored["calls"]), stored["backtesting"])


def test_vectorbt_says_the_same_today(stored, panel):
    pytest.importorskip("vectorbt")
    kept, records = reference.of_vectorbt(panel, stored["calls"])
    np.testing.assert_array_equal(kept, stored["kept"])
    for name in ("col", "entry_idx", "exit_idx", "status"):
        np.testing.assert_array_equal(records[name], stored[f"vectorbt_{name}"])
