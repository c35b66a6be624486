"""A run of bonds in sentences, for the console and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpupipe.evaluation.block_bootstrap import NO_SKILL, SKILL


def verdict(bonds: Mapping[str, Any]) -> str:
    """Whether the chosen model is better than the baselines on the sealed test."""
    row = next(row for row in bonds["measured"] if row["model"] == bonds["chosen"])
    gains = ", ".join(f"{name} {_gain(ends)}" for name, ends in row["gain_over"].items())
    found = {SKILL: "with skill", NO_SKILL: "without skill"}.get(row["skill"], f"with skill {row['skill']}")
    return (
        f"The model {bonds['chosen']}, chosen on validation, predicts the next spread {found}: gain in squared error "
        f"over {gains}, on {row['rows']:,} sealed quotes of issuers that it was not trained on"
    )


def tail_risk(bonds: Mapping[str, Any]) -> str:
    """VaR and CVaR of equal par of all bonds, with and without the issuers' correlation."""
    risk = bonds["tail_risk"]
    if not risk["scenarios"]:
        return "Tail risk: no curve move of the past is known"
    every, alone, independent = risk["all"], risk["curve alone"], risk["issuers independent"]
    return (
        f"Tail risk of one period, {risk['bonds']:,} bonds revalued under {risk['scenarios']} past moves: 95 % VaR "
        f"{100 * every['var_95%']:.2f} %, CVaR {100 * every['cvar_95%']:.2f} %; by the curve alone "
        f"{100 * alone['var_95%']:.2f} %, with independent issuers {100 * independent['var_95%']:.2f} %"
    )


def drift(bonds: Mapping[str, Any]) -> str:
    """Which inputs drifted, and what was tuned anew."""
    found = bonds["drift"]
    known = {name: of["psi"] for name, of in found["inputs"].items() if of["psi"] is not None}
    worst = sorted(known, key=lambda name: -known[name])[:3]
    named = ", ".join(f"{name} {known[name]:.2f}" for name in worst)
    return (
        f"Drift from training to test: {found['inputs_drifted']:.0%} of the inputs (PSI above 0.2; most in {named}); "
        f"tuned anew: {found['benchmark']}"
    )


def _gain(ends: Any) -> str:
    low, estimate, high = ends
    if estimate is None:
        return "not known"
    if low is None:
        return f"{100 * estimate:.1f} %"
    return f"{100 * estimate:.1f} [{100 * low:.1f}, {100 * high:.1f}] %"
