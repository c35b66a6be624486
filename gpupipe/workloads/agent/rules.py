"""The rules of the agent's market: fills, costs, size, stops, reward."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.kernels import environment as kernel
from gpupipe.runtime.errors import UserError

CHOICES = {"fill": ("open", "close"), "reward": ("log", "legacy")}


@dataclass(frozen=True)
class MarketRules:
    """How actions become fills, equity and rewards. Basis points are of the value of each fill.

    fill: the price of an action: "open" or "close" of the next bar. The account is marked at the next bar's close.
    commission_bps: of each fill.  slippage_bps: of each fill, on top of half the spread, which a Market has by row.
    size: the stake at an entry as a share, or a multiple, of the balance; the units do not change until it is left.
    initial_balance: the equity at the start of an episode, in the currency of the prices.
    max_drawdown: the share below its peak of the episode at which the equity, marked at a close, ends the episode: the
        position is left at the next fill. None: no such stop.
    ruin: the share of the initial balance at or below which the equity ends the episode likewise.
    reward: "log": reward_scale * (g - risk_aversion * g^2), where g is the change of log-equity after costs; 100 makes
        it percent. A step's g^2 is close to the variance of its return: log-utility has a relative risk aversion of 1,
        and the term adds 2 * risk_aversion to it.
        "legacy": a shaped reward, to compare with; see `kernels.environment.step_market`.
    held_scale: bars after which the observation no longer tells how long a position has been held.

    Raises UserError for any other value.

        >>> MarketRules(max_drawdown=0.2).array().tolist()
        [0.0, 0.0001, 1.0, 10000.0, 0.8, 0.0, 96.0, 0.0, 100.0, 1.0]
    """

    fill: str = "open"
    commission_bps: float = 1.0
    slippage_bps: float = 1.0
    size: float = 1.0
    initial_balance: float = 10_000.0
    max_drawdown: float | None = None
    ruin: float = 0.0
    reward: str = "log"
    reward_scale: float = 100.0
    risk_aversion: float = 1.0
    held_scale: int = 96

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} {getattr(self, name)!r}: expected {' or '.join(allowed)}")
        for name in ("commission_bps", "slippage_bps"):
            if not 0 <= getattr(self, name) < 10_000:
                raise UserError(
                    f"{name} {getattr(self, name)}: expected basis points of a fill, from 0 to below 10,000"
                )
        for name in ("size", "initial_balance", "reward_scale", "held_scale"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UserError(f"{name} {getattr(self, name)}: expected a number above 0")
        if self.max_drawdown is not None and not 0 < self.max_drawdown < 1:
            raise UserError(f"max_drawdown {self.max_drawdown}: expected a share between 0 and 1, or None for no stop")
        if not 0 <= self.ruin < 1:
            raise UserError(f"ruin {self.ruin}: expected a share of the initial balance, from 0 to below 1")
        if not (math.isfinite(self.risk_aversion) and self.risk_aversion >= 0):
            raise UserError(f"risk_aversion {self.risk_aversion}: expected 0 or more")

    @property
    def at_close(self) -> bool:
        """Whether actions are filled at the close of the next bar."""
        return self.fill == "close"

    def array(self) -> np.ndarray:
        """float64 (N_RULES,): the rules as kernels/environment.py reads them."""
        rules = np.empty(kernel.N_RULES)
        rules[kernel.AT_CLOSE], rules[kernel.LEGACY] = self.at_close, self.reward == "legacy"
        rules[kernel.COMMISSION], rules[kernel.SIZE] = self.commission_bps / 1e4, self.size
        rules[kernel.INITIAL_BALANCE] = self.initial_balance
        rules[kernel.KEPT_SHARE] = 0.0 if self.max_drawdown is None else 1.0 - self.max_drawdown
        rules[kernel.RUIN_EQUITY] = self.ruin * self.initial_balance
        rules[kernel.HELD_SCALE] = self.held_scale
        rules[kernel.REWARD_SCALE], rules[kernel.RISK_AVERSION] = self.reward_scale, self.risk_aversion
        return rules

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return dataclasses.asdict(self)
