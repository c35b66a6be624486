"""The registry of calling rules: names and where their classes are. A new rule is one line here."""

from __future__ import annotations

import importlib

from gpupipe.backtest.calling.contract import CallingRule
from gpupipe.runtime.errors import UserError

DEFAULT = "score"
RULES = {
    "score": "gpupipe.backtest.calling.score:Score",
    "top": "gpupipe.backtest.calling.top:Top",
    "topk-dropout": "gpupipe.backtest.calling.topk_dropout:TopkDropout",
    "f1": "gpupipe.backtest.calling.cutoff:BestF1",
    "profit": "gpupipe.backtest.calling.cutoff:BestProfit",
}


def rule_class(name: str) -> type[CallingRule]:
    """The class of a rule; KeyError for an unknown name."""
    module, _, attribute = RULES[name].partition(":")
    found: type[CallingRule] = getattr(importlib.import_module(module), attribute)
    return found


def rule(text: str) -> CallingRule:
    """The rule that `--call TEXT` asks for, such as "score", "top:5%" or "top 20"; UserError for another text.

    >>> rule("top 20").text
    'top:20'
    """
    name, _, argument = text.strip().replace(" ", ":", 1).partition(":")
    if name not in RULES:
        usages = ", ".join(rule_class(known).usage for known in RULES)
        raise UserError(f"--call {text}: expected one of {usages}")
    try:
        return rule_class(name).parse(argument.strip())
    except ValueError as error:
        raise UserError(f"--call {text}: expected {error}") from None


def rule_help() -> str:
    """The rules, for the help of `--call`."""
    rules = [rule_class(name) for name in RULES]
    return "which rows are called: " + "; ".join(f"{known.usage}: {known.about}" for known in rules)
