"""Halted bars: nothing was traded, so nothing is filled there."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.data.panel import Panel

_ROUNDING = np.float32(1e-3)


def halted_rows(panel: Panel) -> Any:
    """int8 (n_rows,), on the panel's device: 1 where nothing was traded, else 0.

    A bar is halted if its volume is 0 and its prices did not move: open, high, low and close are the close of the
    symbol's previous bar, to a thousandth, as a vendor may round or adjust them; or all four are those of the previous
    bar, as where a vendor repeats it. An unknown volume (NaN) is no halt, and a symbol that never has a volume above 0
    (an index, a currency) has no halts.

    >>> from gpupipe.data import simulate
    >>> panel = simulate(n_symbols=1, n_bars=4)
    >>> for name in ("open", "high", "low", "close"):
    ...     getattr(panel, name)[2] = panel.close[1]
    >>> panel.volume[2] = 0
    >>> halted_rows(panel).tolist()
    [0, 0, 1, 0]
    """
    xp, symbol = panel.device.xp, panel.symbol_of_row
    has_volume = xp.zeros(panel.n_symbols, bool)
    has_volume[symbol[panel.volume > 0]] = True
    flat, repeated = xp.zeros(panel.n_rows, bool), xp.zeros(panel.n_rows, bool)
    flat[1:] = repeated[1:] = symbol[1:] == symbol[:-1]
    flat[1:] &= xp.abs(panel.close[1:] - panel.close[:-1]) <= panel.close[:-1] * _ROUNDING
    for column in (panel.open, panel.high, panel.low, panel.close):
        flat &= column == panel.close
        repeated[1:] &= column[1:] == column[:-1]
    return ((panel.volume == 0) & has_volume[symbol] & (flat | repeated)).astype(np.int8)
