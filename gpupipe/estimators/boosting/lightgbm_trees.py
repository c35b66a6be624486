"""lightgbm: LightGBM's leaf-wise trees of one sector and one label, early-stopped on validation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Section
from gpupipe.estimators.boosting.hosted import FitTask, HostedEstimator, HostRows
from gpupipe.estimators.three_classes import CLASS_COUNT

MOST_BINS = 255  # more would not fit a byte


@dataclass(frozen=True)
class LightGBM:
    """Leaf-wise trees up to `leaves` and `depth` (0: any); with min_rows in each leaf."""

    rounds: int = 200
    learning_rate: float = 0.05
    depth: int = 0
    leaves: int = 8
    min_rows: int = 40
    l2: float = 10.0
    subsample: float = 0.5
    column_share: float = 0.5  # of the columns, drawn for each node

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        return None if self.leaves >= 2 else ("leaves", "2 or more")


def parameters(section: LightGBM, max_bin: int, threads: int, seed: int) -> dict[str, Any]:
    """LightGBM's parameters. `deterministic` and rows first: the trees do not depend on the number of threads."""
    return {
        "objective": "multiclass",
        "num_class": CLASS_COUNT,
        "metric": "multi_logloss",
        "boost_from_average": False,  # margins start at init_score
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


def fit(task: FitTask, section: LightGBM) -> tuple[bytes, int]:
    """Boost; the model as LightGBM's text, and its rounds. num_threads, which is no part of the model, is set to 0."""
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


def _dataset(part: HostRows, chosen: dict[str, Any], reference: Any = None) -> Any:
    import lightgbm

    return lightgbm.Dataset(
        part.X, part.label, weight=part.weight, init_score=part.margin, reference=reference, params=chosen
    )


def load(content: bytes) -> Any:
    """A lightgbm.Booster of its text."""
    import lightgbm

    return lightgbm.Booster(model_str=content.decode())


class LightGBMTrees(HostedEstimator):
    """LightGBM's leaf-wise trees."""

    name = "lightgbm"
    sections = {
        "lightgbm": Section(
            LightGBM,
            {"fast": LightGBM(rounds=60, learning_rate=0.1), "quality": LightGBM(rounds=600, learning_rate=0.025)},
        )
    }
    package = "lightgbm"
    chart_style = ("m7", "triangle-left", (5, 1))
    suffix = ".txt"
    model_kinds = ("lightgbm",)

    def train(self, task: FitTask, section: LightGBM) -> tuple[bytes, int]:
        """See `fit`."""
        return fit(task, section)

    def load_booster(self, content: bytes) -> Any:
        """See `load`."""
        return load(content)

    def margin(self, booster: Any, X: np.ndarray) -> np.ndarray:
        """float64 (n_rows, 3)."""
        return booster.predict(X, raw_score=True, num_threads=1)
