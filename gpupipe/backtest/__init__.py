"""Backtest: what acting on out-of-sample probabilities would have come to, for every model at once."""

from gpupipe.backtest.engine import Backtest, Trades, backtest
from gpupipe.backtest.rules import Rules
from gpupipe.backtest.sources import OutOfSample, sealed_test, walked

__all__ = ["Backtest", "OutOfSample", "Rules", "Trades", "backtest", "sealed_test", "walked"]
