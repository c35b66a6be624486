"""Valuation of many bonds at once: columns of a table, terms, prices, yields, risk, and curves."""

from gpupipe.workloads.bonds.valuation.curves import Curve
from gpupipe.workloads.bonds.valuation.pricing import BondWarning, key_rate_durations, value
from gpupipe.workloads.bonds.valuation.result import STATUS, Valuation
from gpupipe.workloads.bonds.valuation.terms import Terms, prepare

__all__ = ["STATUS", "BondWarning", "Curve", "Terms", "Valuation", "key_rate_durations", "prepare", "value"]
