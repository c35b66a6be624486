"""Backtest: what acting on out-of-sample probabilities would have come to, for every model at once.

Names are loaded when they are first used: the rules alone need no numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {
    "Backtest": "gpupipe.backtest.engine",
    "OutOfSample": "gpupipe.backtest.sources",
    "PositionBacktest": "gpupipe.backtest.position_trades",
    "PositionPath": "gpupipe.backtest.position_trades",
    "PositionRules": "gpupipe.backtest.position_rules",
    "RankBacktest": "gpupipe.backtest.rank_portfolio",
    "RankRules": "gpupipe.backtest.rank_rules",
    "Rules": "gpupipe.backtest.rules",
    "Trades": "gpupipe.backtest.engine",
    "backtest": "gpupipe.backtest.engine",
    "backtest_positions": "gpupipe.backtest.position_trades",
    "position_statistics": "gpupipe.backtest.position_measures",
    "sealed_test": "gpupipe.backtest.sources",
    "walked": "gpupipe.backtest.sources",
}
__all__ = [
    "Backtest",
    "OutOfSample",
    "PositionBacktest",
    "PositionPath",
    "PositionRules",
    "RankBacktest",
    "RankRules",
    "Rules",
    "Trades",
    "backtest",
    "backtest_positions",
    "position_statistics",
    "sealed_test",
    "walked",
]

if TYPE_CHECKING:
    from gpupipe.backtest.engine import Backtest as Backtest
    from gpupipe.backtest.engine import Trades as Trades
    from gpupipe.backtest.engine import backtest as backtest
    from gpupipe.backtest.position_measures import position_statistics as position_statistics
    from gpupipe.backtest.position_rules import PositionRules as PositionRules
    from gpupipe.backtest.position_trades import PositionBacktest as PositionBacktest
    from gpupipe.backtest.position_trades import PositionPath as PositionPath
    from gpupipe.backtest.position_trades import backtest_positions as backtest_positions
    from gpupipe.backtest.rank_portfolio import RankBacktest as RankBacktest
    from gpupipe.backtest.rank_rules import RankRules as RankRules
    from gpupipe.backtest.rules import Rules as Rules
    from gpupipe.backtest.sources import OutOfSample as OutOfSample
    from gpupipe.backtest.sources import sealed_test as sealed_test
    from gpupipe.backtest.sources import walked as walked


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gpupipe.backtest' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
