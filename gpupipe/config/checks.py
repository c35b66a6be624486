"""What values a configuration may have."""

from __future__ import annotations

import dataclasses
import datetime
import math
from typing import TYPE_CHECKING, Any

from gpupipe.config.names import (
    BOOSTERS,
    FAMILIES,
    OPTIONAL_FAMILIES,
    RULES,
    SAMPLING,
    TURBOMODE,
    WINDOWS,
    ConfigError,
    nearest,
)

if TYPE_CHECKING:
    from gpupipe.config.sections import Config

LARGEST_CPCV = 500  # folds of a combinatorial cross-validation


def check(config: Config) -> None:
    """Raise ConfigError for a value out of range."""

    def require(condition: bool, key: str, value: Any, expected: str) -> None:
        if not condition:
            raise ConfigError(f"{key} = {value!r}: expected {expected}")

    labels, split, training = config.labels, config.split, config.training
    require(
        bool(labels.horizons) and min(labels.horizons) >= 1 and _rising(labels.horizons),
        "labels.horizons", labels.horizons, "whole bars >= 1 that rise, like 1,2,5",
    )  # fmt: skip
    require(
        bool(labels.thresholds) and all(0 < t < 1 for t in labels.thresholds) and _rising(labels.thresholds),
        "labels.thresholds", labels.thresholds, "fractions between 0 and 1 that rise, like 0.05,0.10 (0.05 is 5 %)",
    )  # fmt: skip
    require(labels.rule in RULES, "labels.rule", labels.rule, "take_profit_first or first_touch")
    require(labels.window in WINDOWS, "labels.window", labels.window, "bars or calendar")
    require(0 < split.train < 1, "split.train", split.train, "a share between 0 and 1")
    require(0 < split.validation < 1 - split.train, "split.validation", split.validation, "to leave a test part")
    require(not split.shares_until or _is_date(split.shares_until), "split.shares_until", split.shares_until,
            "a date such as 2014-12-31, or nothing for shares of all times")  # fmt: skip
    require(split.embargo_bars >= 0, "split.embargo_bars", split.embargo_bars, "0 or more")
    require(2 <= split.parts <= 20, "split.parts", split.parts, "2 to 20")
    require(split.stacking in ("kfold", "forward"), "split.stacking", split.stacking, "kfold or forward")
    require(0 <= split.walk_forward <= 100 and split.walk_forward != 1, "split.walk_forward", split.walk_forward,
            "2 to 100 origins, or 0 for the single split")  # fmt: skip
    require(split.window in ("expanding", "rolling"), "split.window", split.window, "expanding or rolling")
    _check_cpcv(split.cpcv)
    for family in training.models:
        if family not in FAMILIES + OPTIONAL_FAMILIES:
            known = (*FAMILIES, *OPTIONAL_FAMILIES, TURBOMODE)
            raise ConfigError(f"unknown model family {family!r}{nearest(family, known)}")
    if not training.models or set(training.models) == {"meta_learner"}:
        raise ConfigError("training.models: the meta_learner needs at least one other family to learn from")
    require(training.pool in ("all", "none"), "training.pool", training.pool, "all or none")
    require(training.class_weight in ("none", "balanced"), "training.class_weight", training.class_weight,
            "none or balanced")  # fmt: skip
    require(training.sample_weight in ("none", "uniqueness"), "training.sample_weight", training.sample_weight,
            "none or uniqueness")  # fmt: skip
    require(training.min_positives >= 1, "training.min_positives", training.min_positives, "1 or more")
    require(training.min_rows >= 1, "training.min_rows", training.min_rows, "1 or more")
    require(2 <= training.max_bin <= 256, "training.max_bin", training.max_bin, "2 to 256")
    require(training.spread >= 0, "training.spread", training.spread, "a number of workers, or 0")
    _check_spread(config)
    require(training.early_stopping >= 0, "training.early_stopping", training.early_stopping, "0 or more")
    require(config.seed >= 0, "seed", config.seed, "0 or more")
    inputs = config.meta.inputs
    require(inputs in ("log_odds", "probabilities"), "meta.inputs", inputs, "log_odds or probabilities")
    sections = {name: getattr(config, name) for name in BOOSTERS}
    for own in config.tuned:
        name = ".".join(filter(None, ("tuned", own.sector, own.label, own.section)))
        sections[name] = config.stage(own.section, own.sector, own.label)
    for name, stage in sections.items():
        require(stage.depth >= 1 or stage.leaves >= 2, f"{name}.depth", stage.depth, "1 or more, or leaves >= 2")
    others = {name: getattr(config, name) for name in (*SAMPLING, "linear", "meta") if name not in sections}
    for name, section in {**sections, **others}.items():
        for item in dataclasses.fields(section):
            value = getattr(section, item.name)
            if isinstance(value, str) or (name, item.name, value) == ("forest", "column_share", 0):
                continue
            met, expected = _in_range(item.name, value)
            require(met, f"{name}.{item.name}", value, expected)
    ml = config.ml
    require(ml.feature_selection_top_n >= 0, "ml.feature_selection_top_n", ml.feature_selection_top_n,
            "a number of columns, or 0 for all")  # fmt: skip
    require(ml.subsample == 0 or 0.1 <= ml.subsample <= 1, "ml.subsample", ml.subsample,
            "0.1 to 1, or 0 for what each stage says")  # fmt: skip
    require(config.forest.depth >= 1, "forest.depth", config.forest.depth, "1 or more")
    require(config.lightgbm.leaves >= 2, "lightgbm.leaves", config.lightgbm.leaves, "2 or more")
    require(1 <= config.catboost.depth <= 16, "catboost.depth", config.catboost.depth, "1 to 16")


def _check_spread(config: Config) -> None:
    """What workers cannot fit together."""
    if not config.training.spread:
        return
    for family in OPTIONAL_FAMILIES:
        if family in config.training.models and config.training.pool == "all":
            raise ConfigError(
                f"training.spread: {family} cannot be fitted by several workers together: leave it out of "
                "training.models, or train every sector alone (training.pool=none)"
            )
    plain = {"feature_selection_top_n": 0, "gradient_sampling": False, "use_quantile_dmatrix": True}
    for name, value in plain.items():
        if getattr(config.ml, name) != value:
            raise ConfigError(f"training.spread does not go with ml.{name}: set it to {str(value).lower()}")


def _is_date(text: str) -> bool:
    try:
        return bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


def _check_cpcv(cpcv: tuple[int, ...]) -> None:
    if not cpcv:
        return
    if len(cpcv) != 2 or not 1 <= cpcv[1] <= cpcv[0] - 2:
        raise ConfigError(f"split.cpcv = {cpcv!r}: expected N,K with 1 <= K <= N - 2, like 6,2 (2 of 6 groups tested)")
    if math.comb(*cpcv) > LARGEST_CPCV:
        raise ConfigError(
            f"split.cpcv = {cpcv!r}: {math.comb(*cpcv):,} trainings of everything, expected {LARGEST_CPCV} or fewer; "
            "6,2 has 15 and 10,2 has 45"
        )


def _rising(values: tuple[int, ...] | tuple[float, ...]) -> bool:
    """Also as they stand in the names of labels, which tell 0.05 and 0.0500000001 not apart."""
    return list(values) == sorted(set(values)) and len({f"{v * 100:g}" for v in values}) == len(values)


def _in_range(field_name: str, value: float) -> tuple[bool, str]:
    """Whether a field of a model's section has a value that can be used, and which have."""
    if field_name in ("learning_rate", "subsample", "column_share"):
        return 0 < value <= 1, "more than 0, up to 1"
    if field_name in ("rounds", "trees", "sector_trees", "max_iterations"):
        return value >= 1, "1 or more"
    if field_name == "clip":
        return 0 < value < float("inf"), "more than 0"
    return 0 <= value < float("inf"), "0 or more"
