"""The registry of calling rules: names, where their classes are, and their help. A new rule is one line here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from gpupipe.backtest.calling.contract import CallingRule

DEFAULT = "score"
# By name: the class, how it is written, and which rows it calls. Classes are loaded when they are first asked for.
RULES = {
    "score": (
        "gpupipe.backtest.calling.score:Score", "score[:MARGIN]",
        "expected net return MARGIN standard errors (default 1) above 0, and above that of its peers, symbols of "
        "similar volatility, by the costs and as many",
    ),
    "top": (
        "gpupipe.backtest.calling.top:Top", "top:K, top:5%[/sector]",
        "the K or 5 % best-ranked symbols of each date (and sector), where they are expected to earn",
    ),
    "topk-dropout": (
        "gpupipe.backtest.calling.topk_dropout:TopkDropout", "topk-dropout:HOLD,DROP",
        "Qlib's TopkDropout, long only: HOLD symbols, of which at most DROP are exchanged at each date",
    ),
    "f1": (
        "gpupipe.backtest.calling.cutoff:BestF1", "f1",
        "the probability reaches the cutoff with the best F1 on validation, chosen without regard to costs",
    ),
    "profit": (
        "gpupipe.backtest.calling.cutoff:BestProfit", "profit",
        "the probability reaches the cutoff that paid best on validation after costs, or never",
    ),
}  # fmt: skip


def rule(text: str) -> CallingRule:
    """The rule that `--call TEXT` asks for, such as "score", "top:5%" or "top 20"; UserError for another text.

    >>> rule("top 20").text
    'top:20'
    """
    name, _, argument = text.strip().replace(" ", ":", 1).partition(":")
    if name not in RULES:
        raise UserError(f"--call {text}: expected one of {', '.join(usage for _, usage, _ in RULES.values())}")
    module, _, attribute = RULES[name][0].partition(":")
    rule_class: type[CallingRule] = getattr(importlib.import_module(module), attribute)
    try:
        return rule_class.parse(argument.strip())
    except ValueError as error:
        raise UserError(f"--call {text}: expected {error}") from None


def rule_help() -> str:
    """The rules, for the help of `--call`."""
    return "which rows are called. " + "; ".join(f"{usage}: {about}" for _, usage, about in RULES.values())
