"""Where values start: the presets, and the predecessor's parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from gpupipe.config.sections import (
    Booster,
    CatBoost,
    Config,
    Forest,
    LightGBM,
    Linear,
    Meta,
    Split,
    Training,
    joint,
    joint_sector,
)


def _fast() -> Config:
    return Config(
        preset="fast",
        training=Training(max_bin=32, early_stopping=8),
        joint=joint(80, 0.15),
        joint_sector=joint_sector(20, 0.1),
        hist=Booster(rounds=60, learning_rate=0.1),
        leafwise=Booster(rounds=60, learning_rate=0.1, depth=0, leaves=8),
        lightgbm=LightGBM(rounds=60, learning_rate=0.1),
        catboost=CatBoost(rounds=60, learning_rate=0.1),
        forest=Forest(trees=30, sector_trees=15, depth=6),
        linear=Linear(max_iterations=12),
    )


def _quality() -> Config:
    return Config(
        preset="quality",
        split=Split(parts=5),
        training=Training(max_bin=128, early_stopping=50),
        joint=joint(800, 0.025),
        joint_sector=joint_sector(150, 0.025),
        hist=Booster(rounds=600, learning_rate=0.025),
        leafwise=Booster(rounds=600, learning_rate=0.025, depth=0, leaves=8),
        lightgbm=LightGBM(rounds=600, learning_rate=0.025),
        catboost=CatBoost(rounds=600, learning_rate=0.025),
        forest=Forest(trees=300, sector_trees=150, depth=8),
        linear=Linear(max_iterations=100),
    )


PRESETS: dict[str, Callable[[], Config]] = {"fast": _fast, "balanced": Config, "quality": _quality}


def turbomode(config: Config) -> Config:
    """The predecessor's parameters for its six families, and what they imply, whatever the preset says of them.

    What it did not state are its libraries' defaults. Of the forest's, a split of 20 rows follows from leaves of 10,
    a bootstrap sample holds 63.2 % of the rows, and shares are not shrunk. (XGBoost's trees take 4/5 of the rows,
    and the forest's half of them: see `cut`.) It trained each sector alone, all rounds.
    Its linear booster is gone upstream: `linear` takes its place, with the preset's penalties.
    """
    return dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, pool="none", early_stopping=0),
        hist=Booster(200, 0.05, depth=8, min_child_weight=1.0, l2=1.0, subsample=0.8, column_share=1.0),
        lightgbm=LightGBM(200, 0.05, depth=8, leaves=63, min_rows=20, l2=0.0, subsample=1.0, column_share=1.0),
        catboost=CatBoost(200, 0.05, depth=8, l2=3.0, subsample=1.0, column_share=1.0),
        forest=dataclasses.replace(
            config.forest, trees=200, depth=12, min_rows=10.0, subsample=0.632, column_share=0.0, shrink_rows=0.0
        ),
        meta=Meta(inputs="probabilities", l2=1.0, max_iterations=config.meta.max_iterations),
    )
