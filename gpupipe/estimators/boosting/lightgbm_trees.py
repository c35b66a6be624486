"""lightgbm: LightGBM's leaf-wise trees of one sector and one label, early-stopped on validation."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators.boosting.hosted import Library, Part, Task
from gpupipe.targets.classes import N_CLASSES

MOST_BINS = 255  # more would not fit a byte


def parameters(section: config.LightGBM, max_bin: int, threads: int, seed: int) -> dict[str, Any]:
    """LightGBM's parameters. `deterministic` and rows first: the trees do not depend on the number of threads."""
    return {
        "objective": "multiclass",
        "num_class": N_CLASSES,
        "metric": "multi_logloss",
        "boost_from_average": False,  # margins start where they are told to
        "learning_rate": section.learning_rate,
        "max_depth": section.depth or -1,
        "num_leaves": section.leaves,
        "min_data_in_leaf": section.min_rows,
        "lambda_l2": section.l2,
        "bagging_fraction": section.subsample,
        "bagging_freq": int(section.subsample < 1),
        "feature_fraction_bynode": section.column_share,
        "max_bin": min(max_bin, MOST_BINS),
        "num_threads": threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def fit(task: Task, section: config.LightGBM) -> tuple[bytes, int]:
    """Boost; the model as LightGBM's text, and its rounds. num_threads, which says nothing of the model, is left 0."""
    import lightgbm

    chosen = parameters(section, task.max_bin, task.threads, task.seed)
    rows = _dataset(task.fit, chosen)
    early: dict[str, Any] = {}
    if task.validation is not None and task.patience:
        early = {
            "valid_sets": [_dataset(task.validation, chosen, rows)],
            "callbacks": [lightgbm.early_stopping(task.patience, verbose=False)],
        }
    booster = lightgbm.train(chosen, rows, task.rounds, **early)
    rounds = booster.best_iteration if early else task.rounds
    text = booster.model_to_string(num_iteration=rounds)
    return re.sub(r"^\[num_threads: \d+\]$", "[num_threads: 0]", text, flags=re.MULTILINE).encode(), rounds


def _dataset(part: Part, chosen: dict[str, Any], reference: Any = None) -> Any:
    import lightgbm

    return lightgbm.Dataset(
        part.X, part.label, weight=part.weight, init_score=part.margin, reference=reference, params=chosen
    )


def load(content: bytes) -> Any:
    """A lightgbm.Booster of its text."""
    import lightgbm

    return lightgbm.Booster(model_str=content.decode())


def margin(booster: Any, X: np.ndarray) -> np.ndarray:
    """float64 (n_rows, 3)."""
    return booster.predict(X, raw_score=True, num_threads=1)


LIGHTGBM = Library("lightgbm", ".txt", fit, load, margin)
