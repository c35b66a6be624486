"""Returns of the trade that a call opens: barriers as target and stop, the horizon as the time limit, before costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.halts import halted_rows
from gpupipe.data.panel import Panel
from gpupipe.targets.barriers import factors

NOTHING, LONG, SHORT = 0, 1, 2  # as kernels.backtest has them, which loads a compiler
SIDES = (LONG, SHORT)  # the order of the last axis of every array of two
END_OF_DATA = 5  # kernels.backtest.END


@dataclass(frozen=True)
class TradeReturns:
    """Profit of a trade opened after each row, for each label and side; arrays on the panel's device.

    gross: float32 (n_rows, n_labels, 2), the last axis long and short, as a share of the stake, before costs. NaN where
        there is no trade, or one that the end of the data closed before its horizon.
    end_time_ns: int64 (n_rows, n_labels), the time of the later exit of the two; the row's own time without a trade.

    >>> returns = TradeReturns(np.float32([[[0.02, -0.02]]]), np.array([[10]]))
    >>> returns.gross.shape
    (1, 1, 2)
    """

    gross: Any
    end_time_ns: Any


def trade_returns(panel: Panel, horizons: Sequence[int], thresholds: Sequence[float]) -> TradeReturns:
    """Profit of a long and of a short trade opened after each row.

    The trade is that of `gpupipe backtest` under its default rules: it enters at the open of the next bar and leaves at
    target, stop (a bar that reaches both is left at the stop), at the open of a bar that opens beyond one of them, or
    at the close of the horizon's last bar; halted bars fill nothing. Costs are an affine function of this return
    (`backtest.rules.Rules.net`), so that one column serves all costs.

    horizons, thresholds: one of each for every label.
    Reads the future of a row, up to the exit of its trade: a target, never a feature.

    >>> from gpupipe.data import simulate
    >>> panel = simulate(n_symbols=1, n_bars=6)
    >>> gross = trade_returns(panel, (1,), (0.5,)).gross
    >>> bool(np.isclose(gross[0, 0, 0], panel.close[1] / panel.open[1] - 1)), bool(np.isnan(gross[-1]).all())
    (True, True)
    """
    from gpupipe.kernels.backtest import trade_outcomes

    xp, asarray, n = panel.device.xp, panel.device.asarray, panel.n_rows
    pairs = sorted(set(zip(horizons, thresholds, strict=True)))
    entry = xp.empty(n, xp.float32)
    shape = (len(SIDES) * len(pairs), n)
    exit_row, exit_price, reason = (xp.empty(shape, dtype) for dtype in (xp.int64, xp.float32, xp.int8))
    trade_outcomes(
        n, panel.open, panel.high, panel.low, panel.close, halted_rows(panel), panel.symbol_of_row, panel.offsets,
        asarray(np.array([h for h, _ in pairs], np.int64)), *factors(panel.device, [t for _, t in pairs]),
        asarray(np.array(SIDES, np.int8)), np.int64(0), np.int64(0), entry, exit_row, exit_price, reason,
    )  # fmt: skip
    gross = xp.empty((n, len(horizons), len(SIDES)), xp.float32)
    last_row = xp.repeat(xp.arange(n)[:, None], len(horizons), axis=1)
    for k, pair in enumerate(zip(horizons, thresholds, strict=True)):
        for s, sign in enumerate((1.0, -1.0)):
            at = len(SIDES) * pairs.index(pair) + s
            profit = (exit_price[at] / entry - 1) * np.float32(sign)
            gross[:, k, s] = xp.where(reason[at] == END_OF_DATA, np.float32(np.nan), profit)
            last_row[:, k] = xp.maximum(last_row[:, k], exit_row[at])
    return TradeReturns(gross, panel.time_ns[last_row])
