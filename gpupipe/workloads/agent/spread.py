"""The spread of a market: a column of the panel, an amount, points or basis points; as a share of each fill's price."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from gpupipe.data.outside import PREFIX
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.runtime.errors import UserError

COLUMNS = ("spread", f"{PREFIX}spread")  # taken where no spread is given
MOST = 0.005  # median spread over price above which the values of a column may rather be points
_AMOUNT = re.compile(r"\s*(\d+\.?\d*(?:e-?\d+)?|\.\d+)\s*(points?|bps?)?\s*", re.IGNORECASE)
_EXPECTED = (
    "spread: a number in price units, '2 bps' of the price, '25 points' with point_size, a column of the panel "
    "('with_spread', joined by gpupipe.data.outside.join), or 0 for none"
)


def slip_of(panel: Panel, price: Any, spread: Any, point_size: float | None, slippage_bps: float) -> np.ndarray:
    """float64 (n_rows,), on the host: half the spread plus slippage, as a share of each row's fill price.

    price: float32 (n_rows,), of the fills, > 0.
    spread: as `_EXPECTED` says, or an array (n_rows,) in price units; None: a column of `COLUMNS`.
    point_size: the price of a point, such as 0.01. With it a column or an array counts points, as MetaTrader's do.

    Raises UserError where no spread is known, where it is text of another form, where points have no size, for a spread
    of a row that is not known, negative, or with the slippage as large as the price, and for a column without a
    point_size whose median is above `MOST` of the price.

        >>> from gpupipe.data import simulate
        >>> bars = simulate(n_symbols=1, n_bars=2)
        >>> slip_of(bars, np.float32([100, 50]), 0.5, None, 1.0).tolist()
        [0.0026, 0.0051]
        >>> slip_of(bars, np.float32([100, 50]), "4 bps", None, 1.0).tolist()
        [0.0003, 0.0003]
    """
    if point_size is not None and not 0 < point_size < np.inf:
        raise UserError(f"point_size {point_size}: expected the price of a point, such as 0.01")
    prices = panel.device.to_host(price).astype(np.float64)
    spread_bps, amounts = _spread(panel, spread, point_size)
    slip = np.full(panel.n_rows, (spread_bps / 2 + slippage_bps) / 1e4)
    if amounts is not None:
        by_row = np.broadcast_to(amounts, panel.n_rows)
        known = np.isfinite(by_row) & (by_row >= 0)
        _check_rows(panel, known, "the spread is not known or negative", by_row)
        if amounts.ndim and point_size is None:
            _check_unit(float(np.median(by_row / prices)))
        slip = by_row / 2 / prices + slip
    _check_rows(panel, slip < 1, "half the spread and the slippage are as large as the price", slip)
    return slip


def _spread(panel: Panel, spread: Any, point_size: float | None) -> tuple[float, np.ndarray | None]:
    """The spread in basis points of the price, and in price units, float64 () or (n_rows,), where it is in these."""
    if spread is None:
        spread = next((name for name in COLUMNS if name in panel.columns), None)
        if spread is None:
            raise UserError(f"the panel has no column of the spread and none is given; pass {_EXPECTED}")
    unit = 1.0 if point_size is None else point_size
    if isinstance(spread, str) and spread in panel.columns:
        spread = panel.columns[spread]
    elif isinstance(spread, str):
        amount = _AMOUNT.fullmatch(spread)
        if amount is None:
            raise UserError(f"spread {spread!r}: no column of the panel ({', '.join(panel.columns)}); {_EXPECTED}")
        number, kind = float(amount[1]), (amount[2] or "").lower()
        if kind.startswith("bp"):
            return number, None
        if kind and point_size is None:
            raise UserError(f"spread {spread!r}: pass point_size, the price of a point, such as 0.01")
        return 0.0, np.array(number * unit if kind else number)
    amounts = panel.device.to_host(spread).astype(np.float64)
    if amounts.ndim and amounts.shape != (panel.n_rows,):
        raise UserError(f"the spread has shape {amounts.shape}, expected ({panel.n_rows},), one for each row")
    return 0.0, amounts * unit if amounts.ndim else amounts


def _check_unit(share: float) -> None:
    """UserError where a column's median spread, as a share of the price, is more like a number of points."""
    if share > MOST:
        raise UserError(
            f"the median spread is {share:.2%} of the price: if the column counts points, pass point_size, the price "
            "of a point, such as 0.01; if these are price units, pass point_size=1"
        )


def _check_rows(panel: Panel, right: np.ndarray, problem: str, values: np.ndarray) -> None:
    """UserError with the first row for which `right` is false."""
    if not right.all():
        row = int(np.argmin(right))
        at = time_text(int(panel.device.to_host(panel.time_ns)[row]))
        raise UserError(f"{problem} in {int((~right).sum())} of {panel.n_rows} rows, first at {at}: {values[row]}")
