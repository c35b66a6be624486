"""The rules of position trades: where a decided position is filled, at what cost, with how much."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from gpupipe.backtest.rules import Rules
from gpupipe.runtime.errors import UserError

FILLS = ("open", "close")


@dataclass(frozen=True)
class PositionRules:
    """How a position path becomes trades. Basis points are of the value of each fill; a reversal is two fills.

    fill: "open": the position decided in a bar is filled at the open of the next bar.  "close": at the close of the
        next bar, a bar's length after the decision. Neither is a price that the decision was computed from.
    halts: "wait": no position changes in a bar in which nothing was traded (`data.halts.halted_rows`); the fill is that
        of the next bar that is traded, to the position decided last before it.  "fill": such bars are filled like any
        other, which nobody could have done.
    size: the stake of an entry over the balance, above 0; above 1 the position is borrowed. It is set at the entry and
        not restored before the exit, so that the share of the equity drifts with the price.
    commission_bps, spread_bps, slippage_bps: as in `rules.Rules`.

    Raises UserError for any other value.

        >>> rules = PositionRules(fill="close", spread_bps=4.0)
        >>> rules.slip, rules.commission, rules.at_close
        (0.0003, 0.0001, True)
    """

    fill: str = "open"
    halts: str = "wait"
    size: float = 1.0
    commission_bps: float = 1.0
    spread_bps: float = 2.0
    slippage_bps: float = 1.0

    def __post_init__(self) -> None:
        if self.fill not in FILLS:
            raise UserError(f"fill {self.fill!r}: expected {' or '.join(FILLS)} (of the bar after the decision)")
        if not (math.isfinite(self.size) and self.size > 0):
            raise UserError(f"size {self.size}: expected a multiple of the balance above 0")
        _ = self._costs  # raises for halts and costs that cannot be

    @property
    def _costs(self) -> Rules:
        return Rules(
            halts=self.halts, commission_bps=self.commission_bps, spread_bps=self.spread_bps,
            slippage_bps=self.slippage_bps,
        )  # fmt: skip

    @property
    def slip(self) -> float:
        """The cost of a fill in its price, as a fraction: half the spread and the slippage."""
        return self._costs.slip

    @property
    def commission(self) -> float:
        """Commission as a fraction of a fill."""
        return self._costs.commission

    @property
    def at_close(self) -> bool:
        """Whether fills are at the close of the next bar."""
        return self.fill == "close"

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return dataclasses.asdict(self)

    def sentences(self) -> list[str]:
        """The rules in words."""
        halts = "waits for the next traded bar" if self.halts == "wait" else "is filled, which nobody could have done"
        return [
            f"a position is filled at the {self.fill} of the next bar, with {self.size:g} times the balance at its "
            "entry; the account is marked at each close",
            f"basis points: {self.commission_bps:g} commission, {self.spread_bps:g} spread, {self.slippage_bps:g} "
            f"slippage; a fill in a halt (no volume, price unchanged) {halts}",
        ]
