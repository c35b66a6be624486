"""Halted bars: nothing was traded, so nothing is filled there."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.data.panel import Panel


def halted_rows(panel: Panel) -> Any:
    """int8 (n_rows,), on the panel's device: 1 where nothing was traded, else 0.

    A bar is halted if its volume is 0 and open, high, low and close equal the close of the symbol's previous bar.
    An unknown volume (NaN) is no halt, and a symbol that never has a volume above 0 (an index, a currency) has no
    halts.

    >>> from gpupipe.data import simulate
    >>> panel = simulate(n_symbols=1, n_bars=4)
    >>> for name in ("open", "high", "low", "close"):
    ...     getattr(panel, name)[2] = panel.close[1]
    >>> panel.volume[2] = 0
    >>> halted_rows(panel).tolist()
    [0, 0, 1, 0]
    """
    xp, symbol, close = panel.device.xp, panel.symbol_of_row, panel.close
    has_volume = xp.zeros(panel.n_symbols, bool)
    has_volume[symbol[panel.volume > 0]] = True
    halted = (panel.volume == 0) & has_volume[symbol]
    for name in ("open", "high", "low"):
        halted &= getattr(panel, name) == close
    halted[:1] = False
    halted[1:] &= (close[1:] == close[:-1]) & (symbol[1:] == symbol[:-1])
    return halted.astype(np.int8)
