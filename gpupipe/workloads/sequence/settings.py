"""Settings of sequence: the labels, the estimators' sections, and the four presets of sequence networks."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

from gpupipe.config import Catalogue, Section
from gpupipe.config.checks import is_rising
from gpupipe.estimators import registry
from gpupipe.estimators.torch.settings import PRESETS as NETWORKS
from gpupipe.estimators.torch.settings import SequenceSettings
from gpupipe.workloads.equity.settings import COMMON as OF_EQUITY
from gpupipe.workloads.equity.settings import RULES, WINDOWS

DEFAULT_MODELS = ("sequence",)
SECTION = "sequence"  # the family, and its section of the settings
PRESETS = tuple(NETWORKS)
# Each symbol is trained alone; all else is as in equity, where a preset of this name exists.
COMMON: dict[str, dict[str, dict[str, Any]]] = {
    name: {**OF_EQUITY.get(name, {}), "training": {**OF_EQUITY.get(name, {}).get("training", {}), "pool": "none"}}
    for name in PRESETS
}


@dataclass(frozen=True)
class Labels:
    """What is predicted beside the direction of the next bar: labels by barriers.

    horizons: in bars.  thresholds: fractions of the close (0.01 is 1 %).
    multiples: further thresholds, of the standard deviation of the last 20 log-returns; different in every row.
    rule, window: see `tp_dd_labels`.

    >>> Labels(thresholds=(), multiples=(1.0, 2.0)).problem() is None, Labels(thresholds=()).problem()[0]
    (True, 'thresholds')
    """

    horizons: tuple[int, ...] = (1, 5)
    thresholds: tuple[float, ...] = (0.01, 0.02)
    multiples: tuple[float, ...] = ()
    rule: str = "take_profit_first"
    window: str = "bars"

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        if not (self.horizons and min(self.horizons) >= 1 and is_rising(self.horizons)):
            return "horizons", "whole bars >= 1 that rise, like 1,5"
        if not (all(0 < t < 1 for t in self.thresholds) and is_rising(self.thresholds)):
            return "thresholds", "fractions between 0 and 1 that rise, like 0.01,0.02 (0.01 is 1 %)"
        if not (all(0 < x < float("inf") for x in self.multiples) and is_rising(self.multiples)):
            return "multiples", "numbers above 0 that rise, like 1,2 (of the volatility of the last 20 bars)"
        if not self.thresholds and not self.multiples:
            return "thresholds", "at least one, or one of labels.multiples"
        if self.rule not in RULES:
            return "rule", "take_profit_first or first_touch"
        return None if self.window in WINDOWS else ("window", "bars or calendar")


def catalogue() -> Catalogue:
    """What the settings of sequence may hold: made for the estimators that are registered now.

    >>> catalogue().presets, catalogue().sections["sequence"].start("fast").length
    (('fast', 'balanced', 'quality', 'legacy'), 60)
    """
    return _catalogue(tuple(registry.ESTIMATORS.items()))


@functools.cache
def _catalogue(known: tuple[tuple[str, str], ...]) -> Catalogue:
    # The networks' section is named here, because `legacy` is a preset of this workload alone, whose datasets hold the
    # next bar's return.
    presets = {name: replace(network, return_weight=1.0) for name, network in NETWORKS.items()}
    sections = {**registry.sections(), SECTION: Section(SequenceSettings, presets)}
    return Catalogue(
        sections={"labels": Section(Labels), **sections},
        models=tuple(name for name, _ in known),
        default_models=DEFAULT_MODELS,
        common=COMMON,
        checks=(registry.check_models,),
        presets=PRESETS,
    )
