"""The account of one position: fills, marks and costs, in one place: the agent's market and the backtest use it.

The account is three numbers beside the position (1 long, 0 flat, -1 short): `balance`, the equity that is realised,
after all commissions so far; `stake`, the value at the entry fill; `paid`, the entry fill. Flat, stake is 0 and paid
1. All arithmetic is float64.
"""

from __future__ import annotations

import numpy as np

from .compile import inline

FLAT_STAKE, FLAT_PAID = np.float64(0.0), np.float64(1.0)


@inline
def filled(price, direction, slip):
    """The price paid (direction 1) or received (-1); slip: half the spread plus slippage, as a share of the price."""
    return np.float64(price) * (np.float64(1.0) + direction * slip)


@inline
def profit(paid, got, direction, commission):
    """Net return of a trade on its stake: direction * (got / paid - 1) - commission of both fills."""
    return direction * (got - paid) / paid - commission * (np.float64(1.0) + got / paid)


@inline
def equity(balance, stake, paid, direction, price):
    """Equity with the open position marked at a price, without the costs of leaving it."""
    return balance + stake * (direction * (np.float64(price) - paid) / paid)


@inline
def entered(balance, direction, price, slip, commission, size):
    """Balance, stake and entry fill after a position of `size` times the balance is opened; its commission is paid."""
    stake = size * balance
    return balance - commission * stake, stake, filled(price, direction, slip)


@inline
def left(balance, stake, paid, direction, price, slip, commission):
    """Balance after the open position is closed at a price; the commission of the exit fill is paid."""
    got = filled(price, -direction, slip)
    return balance + stake * (direction * (got - paid) / paid - commission * (got / paid))


@inline
def turned(balance, stake, paid, position, target, price, slip, commission, size):
    """Balance, stake and entry fill after the position becomes the target at one price; a reversal is two fills.

    A position that is the target already is kept as it is: its number of units does not change until it is closed.
    A balance of 0 or less opens nothing; the caller ends the account there (see kernels.environment).
    """
    if position != target:
        if position != 0:
            balance = left(balance, stake, paid, position, price, slip, commission)
        stake, paid = FLAT_STAKE, FLAT_PAID
        if target != 0 and balance > np.float64(0.0):
            balance, stake, paid = entered(balance, target, price, slip, commission, size)
    return balance, stake, paid
