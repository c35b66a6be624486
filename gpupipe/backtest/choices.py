"""What a user may choose for a backtest beside its rules, and what each choice means; imports no numpy."""

from __future__ import annotations

SEALED, WALKED, CROSSED = "sealed-test", "walk-forward", "cpcv"  # whose out-of-sample rows
HALTS = ("unfilled", "waited")  # columns: calls that a halt left without an entry, exits that waited for its end
BUY_AND_HOLD = "buy_and_hold"  # stands in the place of a model's name

RULE_HELP = {
    "entry": "at the open after the call, or (optimistic) at the close that it was computed from",
    "side": "long acts on BUY calls, short on SELL calls",
    "both_in_bar": "a bar that reaches target and stop",
    "halts": "no order is filled in a bar without volume whose price did not move; fill: as in any other bar",
    "sizing": "shares of the equity: one for each symbol, or all of it over open positions",
}
SOURCE_HELP = (
    "whose out-of-sample rows: the sealed test's, or those of all folds of a run with --walk-forward, each by models "
    f"that have not seen it; {CROSSED} is refused"
)
