"""The rules of a backtest: when to enter and leave, at what cost, with how much."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from gpupipe.runtime.errors import UserError

CHOICES = {
    "entry": ("open", "close"),
    "side": ("long", "short", "both"),
    "sizing": ("equal", "concentrated", "inverse_volatility"),
    "both_in_bar": ("stop", "target"),
    "halts": ("wait", "fill"),
}
COSTS = ("commission_bps", "spread_bps", "slippage_bps")


@dataclass(frozen=True)
class Rules:
    """How calls become trades. Basis points are of the value of each fill; every trade has two fills.

    entry: "open": the open of the bar after the call, the first price that was available. "close": the close of the
        bar from which the call was computed: optimistic, for comparison alone.
    side: "long" opens positions on BUY calls, "short" on SELL calls, "both" on either. Under "long" a SELL call opens
        nothing: it predicts that the price falls by the threshold first, and closes a position only with
        exit_on_opposite. "short" mirrors this.
    exit_on_opposite: an opposite call closes an open position at the next open (with entry "close" at that close).
    both_in_bar: the exit in a bar that reaches both target and stop, whose high and low do not show which came first:
        "stop" (conservative) or "target".
    halts: "wait": nothing is filled in a bar in which nothing was traded (`data.halts.halted_rows`). A call of such a
        bar, or one that would enter in it, opens nothing; an exit waits for the open of the next bar that is traded.
        "fill": such bars are filled like any other, which nobody could have done.
    overlapping: a call opens a position even while another of the same symbol is open. Else a symbol has at most one
        position.
    sizing: a position's share of the equity, restored at every close (the dates' returns compound):
        "equal": 1 / symbols of the portfolio with a bar on that date, divided by the horizon under overlapping, so that
        the shares never add up to more than 1; the rest is cash without interest. Buy and hold of all symbols is the
        same portfolio with every position open.
        "concentrated": 1 / open positions, so that all is invested while any position is open: the calendar-time
        portfolio (Jaffe 1974; Fama 1998).
        "inverse_volatility": in proportion to 1 / the standard deviation of the last 20 returns up to the call, all
        invested as under "concentrated"; without that value the position has no weight.
    commission_bps: of each fill.  spread_bps: between bid and ask; each fill pays half of it.  slippage_bps: of each
        fill, the target too, though a limit order would not slip.

    Raises UserError for any other value.

        >>> rules = Rules(side="both", spread_bps=4.0)
        >>> rules.sides, rules.slip  # half the spread and the slippage
        ((1, 2), 0.0003)
    """

    entry: str = "open"
    side: str = "long"
    sizing: str = "equal"
    both_in_bar: str = "stop"
    halts: str = "wait"
    overlapping: bool = False
    exit_on_opposite: bool = False
    commission_bps: float = 1.0
    spread_bps: float = 2.0
    slippage_bps: float = 1.0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} {getattr(self, name)!r}: expected {', '.join(allowed)}")
        for name in COSTS:
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value < 10_000):
                raise UserError(f"{name} {value}: expected basis points of a fill, from 0 to below 10,000")
        if self.slip >= 1:
            raise UserError(f"spread_bps / 2 + slippage_bps is {self.slip * 1e4:g}: expected below 10,000")

    @property
    def slip(self) -> float:
        """The cost of a fill in its price, as a fraction: half the spread and the slippage."""
        return (self.spread_bps / 2 + self.slippage_bps) / 1e4

    @property
    def commission(self) -> float:
        """Commission as a fraction of a fill."""
        return self.commission_bps / 1e4

    @property
    def sides(self) -> tuple[int, ...]:
        """LONG, SHORT or both in this order, as the kernels have them."""
        return {"long": (1,), "short": (2,), "both": (1, 2)}[self.side]

    @property
    def at_close(self) -> bool:
        """Whether positions open at the close of the bar of the call."""
        return self.entry == "close"

    def net(self, gross: Any, side: int) -> Any:
        """The net return of a trade on its stake after costs, of its return before them; float, or an array.

        An affine function of `gross`, so that it also turns expected returns. side: LONG (1) or SHORT (2).
        The trade is that of kernels.backtest.trade_returns: `gross` is its result without costs.

        >>> round(Rules().net(0.05, 1), 6), round(Rules().net(0.0, 1), 6)
        (0.049375, -0.0006)
        """
        sign = 1 if side == 1 else -1
        received = (1 + sign * gross) * (1 - sign * self.slip) / (1 + sign * self.slip)
        return sign * (received - 1) - self.commission * (1 + received)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """SHA-256 of the fields."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def sentences(self) -> list[str]:
        """The rules in words."""
        entry = "next open" if self.entry == "open" else "close of the calling bar, which is optimistic"
        other = {"long": "SELL", "short": "BUY"}.get(self.side, "opposite")
        opposite = f"{other} calls close positions" if self.exit_on_opposite else f"{other} calls close nothing"
        both = f"a bar that reaches both is left at the {self.both_in_bar}"
        costs = f"{self.commission_bps:g} commission, {self.spread_bps:g} spread, {self.slippage_bps:g} slippage"
        halts = "waits for the next trade" if self.halts == "wait" else "is filled, which nobody could have done"
        return [
            f"{self.side}; in at the {entry}; out at target, stop or horizon, {both}; {opposite}",
            f"{'overlapping positions' if self.overlapping else 'one position a symbol'}; sizing {self.sizing}; "
            f"basis points: {costs}",
            f"an exit in a halt (no volume, price unchanged) {halts}"
            + ("; a call in one opens nothing" if self.halts == "wait" else ""),
        ]
