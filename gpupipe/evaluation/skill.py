"""Skill: the interval of a gain over the prior, and the gain beyond the class shares of all groups; also by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import PRIOR_ALL, Resampled
from gpupipe.evaluation.touch_direction import named


def skill_measures(
    resampled: Resampled,
    groups: Sequence[str],
    gain: float,
    drawn: np.ndarray,
    gain_all: float = 0.0,
    drawn_all: np.ndarray | float = 0.0,
) -> dict[str, Any]:
    """The measures of a gain over the prior: of a model, an average, or a whole walk-forward.

    gain: the estimate.  drawn: float64 (n_draws,), its bootstrap draws.
    gain_all, drawn_all: the gain of the prior of all groups, and its draws; 0 without one.
    Returns gain_low and gain_high, the 95 % interval; above_prior_all, the gain minus gain_all, with the lower end of
    its interval as above_prior_all_low; and skill in words. Where the gain is NaN the judged rows hold a single class,
    and skill says so ("no events").
    """
    low, high = resampled.interval(groups, gain, drawn)
    above = gain - gain_all
    above_low, _ = resampled.interval(groups, above, drawn - drawn_all)
    return {
        "gain_low": low,
        "gain_high": high,
        "above_prior_all": above,
        "above_prior_all_low": above_low,
        "skill": block_bootstrap.NO_EVENTS if np.isnan(gain) else block_bootstrap.skill(low, above_low),
    }


def skill_by_part(
    resampled: Resampled,
    groups: Sequence[str],
    label: str,
    model: str,
    gains: Mapping[str, float],
    gains_all: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """`skill_measures` of a model's gain on a label, averaged over groups, and of each part of that gain.

    gains: the estimates by part ("" for the whole loss, "touch", "direction"; see `touch_direction.gains_of`).
    gains_all: those of the prior of all groups; None without one.
    Names of a part's measures begin with it: touch_gain_low, touch_gain_high, touch_skill.
    """
    found: dict[str, Any] = {}
    for part, gain in gains.items():
        drawn = resampled.gain(groups, label, model, part)
        gain_all: float = gains_all[part] if gains_all else 0.0
        drawn_all: Any = resampled.gain(groups, label, PRIOR_ALL, part) if gains_all else 0.0
        of_part = skill_measures(resampled, groups, gain, drawn, gain_all, drawn_all)
        found |= {named(part, name): value for name, value in of_part.items()}
    return found
