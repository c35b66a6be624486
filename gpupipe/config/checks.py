"""Checks of the values of a configuration."""

from __future__ import annotations

import dataclasses
import datetime
import math
from typing import Any

from gpupipe.config.catalogue import Catalogue
from gpupipe.config.errors import ConfigError, nearest, require
from gpupipe.config.sections import Config, Ml, Split, Training

LARGEST_CPCV = 500  # folds of a combinatorial cross-validation


def check(config: Config, catalogue: Catalogue) -> None:
    """Raise ConfigError for an unknown model, a value out of range, or settings that the workload excludes."""
    _check_models(config.training.models, catalogue)
    check_values(config)
    for check_of_workload in catalogue.checks:
        check_of_workload(config)


def check_values(config: Config) -> None:
    """Raise ConfigError for a value out of range; these checks need no catalogue."""
    _check_split(config.split)
    _check_training(config.training)
    require(config.seed >= 0, "seed", config.seed, "0 or more")
    _check_sections(config)
    _check_ml(config.ml)


def _check_split(split: Split) -> None:
    require(0 < split.train < 1, "split.train", split.train, "a share between 0 and 1")
    require(0 < split.validation < 1 - split.train, "split.validation", split.validation, "to leave a test part")
    require(
        not split.shares_until or _is_date(split.shares_until), "split.shares_until", split.shares_until,
        "a date such as 2014-12-31, or nothing for shares of all times",
    )  # fmt: skip
    require(split.embargo_bars >= 0, "split.embargo_bars", split.embargo_bars, "0 or more")
    require(split.lookback_rows >= 0, "split.lookback_rows", split.lookback_rows, "0 or more")
    require(2 <= split.parts <= 20, "split.parts", split.parts, "2 to 20")
    require(split.stacking in ("kfold", "forward"), "split.stacking", split.stacking, "kfold or forward")
    require(
        0 <= split.walk_forward <= 100 and split.walk_forward != 1, "split.walk_forward", split.walk_forward,
        "2 to 100 origins, or 0 for the single split",
    )  # fmt: skip
    require(split.window in ("expanding", "rolling"), "split.window", split.window, "expanding or rolling")
    _check_cpcv(split.cpcv)


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


def _check_models(models: tuple[str, ...], catalogue: Catalogue) -> None:
    for name in models:
        if name not in catalogue.models:
            raise ConfigError(f"unknown model family {name!r}{nearest(name, (*catalogue.models, *catalogue.aliases))}")


def _check_training(training: Training) -> None:
    require(training.pool in ("all", "none"), "training.pool", training.pool, "all or none")
    require(
        training.class_weight in ("none", "balanced"), "training.class_weight", training.class_weight,
        "none or balanced",
    )  # fmt: skip
    require(
        training.sample_weight in ("none", "uniqueness"), "training.sample_weight", training.sample_weight,
        "none or uniqueness",
    )  # fmt: skip
    require(training.min_positives >= 1, "training.min_positives", training.min_positives, "1 or more")
    require(training.min_rows >= 1, "training.min_rows", training.min_rows, "1 or more")
    require(2 <= training.max_bin <= 256, "training.max_bin", training.max_bin, "2 to 256")
    require(training.spread >= 0, "training.spread", training.spread, "a number of workers, or 0")
    require(training.early_stopping >= 0, "training.early_stopping", training.early_stopping, "0 or more")


def _check_ml(ml: Ml) -> None:
    require(
        ml.feature_selection_top_n >= 0, "ml.feature_selection_top_n", ml.feature_selection_top_n,
        "a number of columns, or 0 for all",
    )  # fmt: skip
    require(
        ml.subsample == 0 or 0.1 <= ml.subsample <= 1, "ml.subsample", ml.subsample,
        "0.1 to 1, or 0 for the share of each stage",
    )  # fmt: skip


def _check_sections(config: Config) -> None:
    """Check every section, and every section with the tuned values of a group or label."""
    sections = dict(config.sections)
    for tuned in config.tuned:
        name = ".".join(filter(None, ("tuned", tuned.sector, tuned.label, tuned.section)))
        sections[name] = config.for_label(tuned.section, tuned.sector, tuned.label)
    for name, section in sections.items():
        if hasattr(section, "problem") and (problem := section.problem()):
            field, expected = problem
            require(False, f"{name}.{field}", getattr(section, field), expected)
        may_be_zero = getattr(section, "MAY_BE_ZERO", ())
        for item in dataclasses.fields(section):
            value = getattr(section, item.name)
            if not isinstance(value, (int, float)) or (item.name in may_be_zero and value == 0):
                continue
            met, expected = _in_range(item.name, value)
            require(met, f"{name}.{item.name}", value, expected)


def _in_range(field_name: str, value: float) -> tuple[bool, str]:
    """Whether a number of an estimator's section is in its range, and the range in words."""
    if field_name in ("learning_rate", "subsample", "column_share"):
        return 0 < value <= 1, "more than 0, up to 1"
    if field_name in ("rounds", "trees", "sector_trees", "max_iterations", "epochs", "batch", "patience", "length"):
        return value >= 1, "1 or more"
    if field_name == "clip":
        return 0 < value < float("inf"), "more than 0"
    return 0 <= value < float("inf"), "0 or more"


def _is_date(text: str) -> bool:
    try:
        return bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


def is_rising(values: Any) -> bool:
    """Whether numbers rise, also as rounded in names, where 0.05 and 0.0500000001 are equal."""
    return list(values) == sorted(set(values)) and len({f"{v * 100:g}" for v in values}) == len(values)
