"""The rules of a portfolio of ranks: which names, how often, in which shares, at what cost."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from gpupipe.backtest.rank_selection import DEFAULT_HOLD, Selection
from gpupipe.backtest.rules import COSTS, Rules
from gpupipe.runtime.errors import UserError

LONG_ONLY, LONG_SHORT = "long", "long-short"
EQUAL, INVERSE = "equal", "inverse-volatility"
SIDES, WEIGHTINGS = (LONG_ONLY, LONG_SHORT), (EQUAL, INVERSE)
FILLS = ("entry", "halts", *COSTS)  # the fields of Rules that a portfolio of ranks obeys


@dataclass(frozen=True)
class RankRules:
    """How scores become a portfolio.

    side: "long": the best names, all of the equity. "long-short": half of the equity in the best names and as much
        short in the worst, so that the net exposure is 0 at each rebalance (dollar neutral) and the gross exposure 1.
    hold: which names, see `rank_selection.WAYS`.
    rebalance: dates between two decisions; None is the horizon of each model's label.
    weighting: shares within a side: "equal", or "inverse-volatility": in proportion to 1 / the standard deviation of
        the last 20 returns; a name without that value gets no share.
    volume_share: for the capacity: the largest share of a symbol's median daily dollar volume that a fill may be.
    fills: its entry, halts and costs apply, no other field. Entry "open": decisions from a date's scores are filled at
        the open of each symbol's next bar. Entry "close": at the very close from which the scores were computed:
        optimistic, for comparison alone. A bar in which nothing was traded fills nothing, unless halts is "fill": an
        exit then waits for the symbol's next traded bar, any other order lapses.

    Raises UserError for any other value.

        >>> RankRules(hold="top:50", rebalance=5).gross
        {1: 1.0}
        >>> RankRules(side="long-short").gross
        {1: 0.5, -1: 0.5}
    """

    side: str = LONG_ONLY
    hold: str = DEFAULT_HOLD
    rebalance: int | None = None
    weighting: str = EQUAL
    volume_share: float = 0.01
    fills: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        for name, allowed in (("side", SIDES), ("weighting", WEIGHTINGS)):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} {getattr(self, name)!r}: expected {', '.join(allowed)}")
        Selection(self.hold)
        if self.rebalance is not None and self.rebalance < 1:
            raise UserError(f"--rebalance {self.rebalance}: expected a number of dates, 1 or more")
        if not (math.isfinite(self.volume_share) and 0 < self.volume_share <= 1):
            raise UserError(f"--volume-share {self.volume_share:g}: expected a share above 0 and at most 1, as 1%")
        others = {
            name: value for name, value in self.fills.as_dict().items()
            if name not in FILLS and value != getattr(Rules(), name)
        }  # fmt: skip
        if others:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in others)
            raise UserError(f"{named}: goes with calls, not with --portfolio; entry, halts and costs go with both")

    @property
    def short(self) -> bool:
        """Whether the worst names are held short."""
        return self.side == LONG_SHORT

    @property
    def gross(self) -> dict[int, float]:
        """The share of the equity of each side, 1 for long and -1 for short."""
        return {1: 0.5, -1: 0.5} if self.short else {1: 1.0}

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them, of `fills` those that apply."""
        fills = self.fills.as_dict()
        own = ("side", "hold", "rebalance", "weighting", "volume_share")
        return {**{name: getattr(self, name) for name in own}, **{name: fills[name] for name in FILLS}}

    @classmethod
    def of_dict(cls, content: dict[str, Any]) -> RankRules:
        """The rules of `as_dict`."""
        fills = Rules(**{name: content[name] for name in FILLS})
        return cls(fills=fills, **{name: value for name, value in content.items() if name not in FILLS})

    def digest(self) -> str:
        """SHA-256 of the fields that decide returns, so that another share of volume is no other trial."""
        fields = {name: value for name, value in self.as_dict().items() if name != "volume_share"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def sentences(self) -> list[str]:
        """The rules in words."""
        fills = self.fills
        sides = "half of the equity long, half short, dollar neutral" if self.short else "all of the equity long"
        every = f"every {self.rebalance} dates" if self.rebalance else "every horizon of the label"
        entry = "next open" if fills.entry == "open" else "close of the scores' bar, which is optimistic"
        halts = "fills nothing" if fills.halts == "wait" else "is filled, which nobody could have done"
        return [
            f"{sides}; {self.hold} ({self.weighting}), decided {every}, filled at the {entry}; shares drift in between",
            f"basis points: {fills.commission_bps:g} commission, {fills.spread_bps:g} spread, "
            f"{fills.slippage_bps:g} slippage; a halt (no volume, price unchanged) {halts}",
        ]
