"""The predecessor's six models: five families with fixed settings, and a meta-learner on shuffled folds.

Every library has all cores. The linear model is XGBoost's gblinear, as it was: it is deprecated and still runs in 3.2
and 3.4. It gets standardised columns, which does it good; scikit-learn's multinomial logistic regression in its place
took twice the processor time and was no better. Its threads race, so that it alone differs a little from run to run.
Needs lightgbm and catboost (the extra `bench`).
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.timing import cores
from gpupipe.targets.classes import CLASSES

FAMILIES = ("lightgbm", "catboost", "xgboost", "linear", "random_forest")
META = "meta"
TREES, SEED, FOLDS, TEST_SHARE = 200, 42, 5, 0.2
# A forest gives a class that it has not seen no probability at all, and one such row would decide its log-loss.
SMALLEST_PROBABILITY = 1e-6


@dataclass
class Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


@contextmanager
def quiet(message: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield


def missing() -> list[str]:
    """What has to be installed."""
    return [name for name in ("lightgbm", "catboost", "pandas") if importlib.util.find_spec(name) is None]


def estimators(trees: int = TREES) -> dict[str, Callable[[], Any]]:
    """A maker of an unfitted model, by family; the settings are the predecessor's."""
    import catboost
    import lightgbm
    import xgboost
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    common = {"n_jobs": cores(), "random_state": SEED}
    rounds = {"n_estimators": trees, "learning_rate": 0.05}
    return {
        "lightgbm": lambda: lightgbm.LGBMClassifier(**rounds, max_depth=8, num_leaves=63, verbosity=-1, **common),
        "catboost": lambda: catboost.CatBoostClassifier(
            iterations=trees, learning_rate=0.05, depth=8, l2_leaf_reg=3, thread_count=cores(), random_seed=SEED,
            loss_function="MultiClass", verbose=False, allow_writing_files=False,
        ),
        "xgboost": lambda: xgboost.XGBClassifier(tree_method="hist", **rounds, max_depth=8, subsample=0.8, **common),
        "linear": lambda: make_pipeline(
            StandardScaler(), xgboost.XGBClassifier(booster="gblinear", **rounds, verbosity=0, **common)
        ),
        "random_forest": lambda: RandomForestClassifier(
            n_estimators=trees, max_depth=12, min_samples_split=20, min_samples_leaf=10, max_features="sqrt", **common
        ),
    }  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """A fitted model and the classes it has seen; `model` is None where it has seen one class only."""

    model: Any
    classes: np.ndarray

    def predict(self, X: np.ndarray) -> np.ndarray:
        """float64 (n_rows, 3): probabilities of the classes, each at least 1e-6 before their sum is made 1."""
        probability = np.full((len(X), len(CLASSES)), SMALLEST_PROBABILITY)
        predicted = np.ones((len(X), 1)) if self.model is None else self.model.predict_proba(X)
        probability[:, self.classes] = np.maximum(predicted, SMALLEST_PROBABILITY)
        return probability / probability.sum(axis=1, keepdims=True)


def fit(make: Callable[[], Any], X: np.ndarray, y: np.ndarray) -> Fitted:
    """Fit one model. Classes are numbered anew, as XGBoost wants none left out."""
    classes, numbered = np.unique(y, return_inverse=True)
    if len(classes) == 1:
        return Fitted(None, classes)
    with quiet("X does not have valid feature names"):  # LightGBM, of its own names
        return Fitted(make().fit(X, numbered), classes)


@dataclass(frozen=True)
class Six:
    """The five fitted families, and the meta-learner if folds were made for it."""

    base: dict[str, Fitted]
    meta: Fitted | None

    def predict(self, X: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities float64 (n_rows, 3) by family."""
        with quiet("X does not have valid feature names"):
            by_family = {name: model.predict(X) for name, model in self.base.items()}
        if self.meta is not None:
            by_family[META] = self.meta.predict(np.concatenate(list(by_family.values()), axis=1))
        return by_family


def train(X: np.ndarray, y: np.ndarray, clock: Clock, trees: int = TREES, folds: bool = True) -> Six:
    """Five families on all rows; for the meta-learner five more of each on shuffled folds, and their 15 columns."""
    base = {}
    makers = estimators(trees)
    for name, make in makers.items():
        with clock.stage(name):
            base[name] = fit(make, X, y)
    if not folds:
        return Six(base, None)
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    stacked = np.empty((len(y), len(CLASSES) * len(makers)))
    with clock.stage("five folds"), quiet("The least populated class"):
        for inside, outside in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(X, y):
            six = Six({name: fit(make, X[inside], y[inside]) for name, make in makers.items()}, None)
            stacked[outside] = np.concatenate(list(six.predict(X[outside]).values()), axis=1)
    with clock.stage(META):
        meta = fit(lambda: LogisticRegression(max_iter=1000), stacked, y)
    return Six(base, meta)


def random_split(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of 80 % to fit and 20 % to test, drawn at random with the class shares kept (seed 42)."""
    from sklearn.model_selection import train_test_split

    # A class of one row cannot be on both sides: then the shares are not kept.
    shares = y if np.unique(y, return_counts=True)[1].min() > 1 else None
    drawn = {"test_size": TEST_SHARE, "random_state": SEED, "shuffle": True, "stratify": shares}
    fit_rows, test_rows = train_test_split(np.arange(len(y)), **drawn)
    return fit_rows, test_rows
