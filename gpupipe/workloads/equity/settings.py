"""Settings of equity: the labels, the estimators' sections, the presets, and the predecessor's parameters."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpupipe import config
from gpupipe.config import Alias, Catalogue, Config, Section
from gpupipe.config.checks import is_rising
from gpupipe.estimators import registry

RULES, WINDOWS = ("take_profit_first", "first_touch"), ("bars", "calendar")
DEFAULT_MODELS = ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest", "linear", "meta_learner")
TURBOMODE = ("lightgbm", "catboost", "xgb_hist", "linear", "random_forest", "meta_learner")
COMMON: dict[str, dict[str, dict[str, Any]]] = {
    "fast": {"training": {"max_bin": 32, "early_stopping": 8}},
    "quality": {"split": {"parts": 5}, "training": {"max_bin": 128, "early_stopping": 50}},
}


@dataclass(frozen=True)
class Labels:
    """What is predicted: horizons in bars, thresholds as fractions of the close (0.05 is 5 %).

    >>> labels = Labels(horizons=(1, 5), thresholds=(0.05,))
    >>> labels.rule, Labels(horizons=(5, 1)).problem()
    ('take_profit_first', ('horizons', 'whole bars >= 1 that rise, like 1,2,5'))
    """

    horizons: tuple[int, ...] = (1, 2, 5)
    thresholds: tuple[float, ...] = (0.05, 0.10)
    rule: str = "take_profit_first"
    window: str = "bars"

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        if not (self.horizons and min(self.horizons) >= 1 and is_rising(self.horizons)):
            return "horizons", "whole bars >= 1 that rise, like 1,2,5"
        if not (self.thresholds and all(0 < t < 1 for t in self.thresholds) and is_rising(self.thresholds)):
            return "thresholds", "fractions between 0 and 1 that rise, like 0.05,0.10 (0.05 is 5 %)"
        if self.rule not in RULES:
            return "rule", "take_profit_first or first_touch"
        return None if self.window in WINDOWS else ("window", "bars or calendar")


def with_turbomode(settings: Config) -> Config:
    """The predecessor's parameters for its six families, and what they imply, whatever the preset is.

    What it did not state are its libraries' defaults. Of the forest's, a split of 20 rows follows from leaves of 10,
    a bootstrap sample holds 63.2 % of the rows, and shares are not shrunk. (XGBoost's trees take 4/5 of the rows,
    and the forest's half of them: see `boosting.sampling.cut`.) It trained each sector alone, all rounds.
    Its linear booster is gone upstream: `linear` takes its place, with the preset's penalties.
    """
    from gpupipe.estimators.boosting.catboost_trees import CatBoost
    from gpupipe.estimators.boosting.lightgbm_trees import LightGBM
    from gpupipe.estimators.boosting.settings import Booster
    from gpupipe.estimators.stacking.meta_learner import Meta

    return settings.replace(
        training=dataclasses.replace(settings.training, pool="none", early_stopping=0),
        hist=Booster(200, 0.05, depth=8, min_child_weight=1.0, l2=1.0, subsample=0.8, column_share=1.0),
        lightgbm=LightGBM(200, 0.05, depth=8, leaves=63, min_rows=20, l2=0.0, subsample=1.0, column_share=1.0),
        catboost=CatBoost(200, 0.05, depth=8, l2=3.0, subsample=1.0, column_share=1.0),
        forest=dataclasses.replace(
            settings.forest, trees=200, depth=12, min_rows=10.0, subsample=0.632, column_share=0.0, shrink_rows=0.0
        ),
        meta=Meta(inputs="probabilities", l2=1.0, max_iterations=settings.meta.max_iterations),
    )


def catalogue() -> Catalogue:
    """What the settings of equity may hold: made for the estimators that are registered now."""
    return _catalogue(tuple(registry.ESTIMATORS.items()))


@functools.cache
def _catalogue(known: tuple[tuple[str, str], ...]) -> Catalogue:
    return Catalogue(
        sections={"labels": Section(Labels), **registry.sections()},
        models=tuple(name for name, _ in known),
        default_models=DEFAULT_MODELS,
        common=COMMON,
        aliases={"turbomode": Alias(TURBOMODE, with_turbomode)},
        checks=(registry.check_models,),
    )


def make(
    preset: str | None = None,
    file: str | pathlib.Path | Sequence[str | pathlib.Path] | None = None,
    settings: Iterable[str] = (),
    **overrides: Any,
) -> Config:
    """The settings of an equity run; see `config.make`."""
    return config.make(catalogue(), preset, file, settings, **overrides)


def with_table(settings: Config, table: dict[str, Any]) -> Config:
    """The settings changed by the tables of a gpupipe.toml; see `config.with_table`."""
    return config.with_table(catalogue(), settings, table)
