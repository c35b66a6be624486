"""Skill: the interval of a gain over the prior, and the gain beyond the class shares of all groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import Resampled


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
