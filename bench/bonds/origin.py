"""The eleven steps in the usual way: one after the other, each from the panel again.

Every step converts the panel to a table of its own three times over (Arrow, pandas, numpy), values all quotes again in
a loop over bonds (usual_values.py), and makes its columns and baselines again. Nothing stops early: a forest has all
of its trees, boosting all rounds, a network all epochs (`FULL`), every trial of a search is trained on all folds, and
step 2 tries every depth. Models use as many threads as their libraries do by default, and so does BLAS, which has one
in our steps.

What decides quality is ours and the same on both sides: columns, split, seeds, settings, spaces and the sampler of the
searches, the stack's regression, and the code of the steps that fit no family (regimes, factors, tail risk, which so is
revalued by our kernel here too, evaluation, drift). A step is handed what earlier steps found. Models and results are
not saved.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import numpy as np

from bench.bonds import usual_values
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.estimators.fit_context import NO_CONTEXT
from gpupipe.pipeline.steps import Step
from gpupipe.workloads.bonds import recipe, schema
from gpupipe.workloads.bonds.families import registry
from gpupipe.workloads.bonds.families.contract import Family, FitRows, Model
from gpupipe.workloads.bonds.families.standard import FARTHEST
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.steps import enhanced

STAGES = ("conversion", "fair values", "columns", "work")


class FullModel(Model):
    """A model of a library as it is. kind: the name of its family."""

    kind: ClassVar[str] = "full"

    def __init__(self, kind: str, predict: Any) -> None:
        self.kind, self._predict = kind, predict

    def predict(self, X: np.ndarray) -> np.ndarray:
        """See `Model`."""
        return np.asarray(self._predict(X), np.float32)

    def files(self) -> dict[str, bytes]:
        """None are kept."""
        return {}

    def about(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Model:
        """See `files`."""
        raise NotImplementedError


class _Full(Family):
    """A family that trains in full: the spaces of ours."""

    model: ClassVar = FullModel

    def __init__(self, ours: Family, train: Any) -> None:
        self.name, self._ours, self._train = ours.name, ours, train

    def space(self, trial: Any) -> dict[str, Any]:
        """See `Family`."""
        return self._ours.space(trial)

    def fit(self, rows: FitRows, settings: Any, report: Any = None) -> FullModel:
        """Fit on the training rows; validation stops nothing."""
        return FullModel(self.name, self._train(rows, settings))


def _forest(rows: FitRows, settings: Any) -> Any:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    forest = RandomForestRegressor(
        settings.n_trees, max_depth=settings.max_depth, max_features=settings.max_features,
        max_samples=settings.max_samples, min_samples_leaf=settings.least_leaf, random_state=rows.seed,
    )  # fmt: skip
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    return make_pipeline(imputer, forest).fit(rows.X, rows.y).predict


def _boosting(rows: FitRows, settings: Any) -> Any:
    import xgboost

    parameters = {
        "max_depth": settings.max_depth, "eta": settings.learning_rate, "subsample": settings.subsample,
        "colsample_bynode": settings.colsample, "lambda": settings.l2, "min_child_weight": settings.least_leaf,
        "seed": rows.seed, "tree_method": "hist", "base_score": float(rows.y.mean()),
    }  # fmt: skip
    booster = xgboost.train(parameters, xgboost.DMatrix(rows.X, rows.y), settings.rounds)
    return lambda X: booster.predict(xgboost.DMatrix(X))


def _network(rows: FitRows, settings: Any) -> Any:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    batch = min(settings.batch, len(rows.X))
    network = MLPRegressor(
        hidden_layer_sizes=(settings.width,) * settings.layers, alpha=settings.l2, batch_size=batch,
        learning_rate_init=settings.learning_rate, random_state=rows.seed, max_iter=settings.epochs,
        n_iter_no_change=settings.epochs,
    )  # fmt: skip
    clipped = FunctionTransformer(np.clip, kw_args={"a_min": -FARTHEST, "a_max": FARTHEST})
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    whole = TransformedTargetRegressor(
        make_pipeline(imputer, StandardScaler(), clipped, network), transformer=StandardScaler()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # all epochs were used, as they should
        return whole.fit(rows.X, rows.y).predict


def _linear(rows: FitRows, settings: Any) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    clipped = FunctionTransformer(np.clip, kw_args={"a_min": -FARTHEST, "a_max": FARTHEST})
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    ridge = Ridge(alpha=settings.l2 * len(rows.X))
    return make_pipeline(imputer, StandardScaler(), clipped, ridge).fit(rows.X, rows.y).predict


_TRAIN = {"forest": _forest, "boosting": _boosting, "network": _network, "linear": _linear}
FULL = {name: _Full(family, _TRAIN[name]) for name, family in registry.FAMILIES.items()}


@contextlib.contextmanager
def searched_in_full() -> Iterator[None]:
    """No trial is pruned, and step 2 tries every depth."""
    import optuna

    unpruned = mock.patch.object(optuna.pruners, "MedianPruner", lambda *_: optuna.pruners.NopPruner())
    with unpruned, mock.patch.object(enhanced, "PATIENCE", 10**9):
        yield


def converted(panel: Panel) -> tuple[Any, np.ndarray]:
    """The panel with its bonds' attributes as a pandas frame, and its numbers as a matrix: Arrow, pandas, numpy."""
    import pandas as pd

    quotes = panel.to_arrow().drop_columns([panel.group_by]).to_pandas()
    quotes["time"] = quotes["time"].dt.tz_localize(None)
    bonds = pd.DataFrame(
        {"symbol": list(panel.symbols), **{name: list(panel.attributes[name]) for name in schema.ATTRIBUTES}}
    )
    frame = quotes.astype({"symbol": "str"}).merge(bonds, on="symbol", how="left")
    return frame, frame.select_dtypes("number").to_numpy(np.float64)


def on_all_threads(step: Step) -> Any:
    """How a step of ours is made, without our limit of BLAS to one thread."""
    return vars(step.make)["__wrapped__"]


def run(panel: Panel, settings: Config) -> tuple[dict[str, Found], dict[str, dict[str, float]]]:
    """What each of the eleven steps finds, and its seconds by stage."""
    steps = {step.name: step for step in recipe.steps(panel, settings)}
    context = SimpleNamespace(panel=panel, settings=settings, fit=NO_CONTEXT, jobs=1)
    found: dict[str, Found] = {}
    seconds: dict[str, dict[str, float]] = {}
    with mock.patch.dict(registry.FAMILIES, FULL), searched_in_full():
        for name in recipe.NAMES.values():
            clock = [time.perf_counter()]
            frame, _ = converted(panel)
            clock.append(time.perf_counter())
            fair = usual_values.fair_values(frame, schema.reference_rate(panel))
            clock.append(time.perf_counter())
            values = {recipe.VALUES: Found(fair.arrays())}
            values[recipe.ROWS] = on_all_threads(steps[recipe.ROWS])(context, values)
            clock.append(time.perf_counter())
            found[name] = on_all_threads(steps[name])(context, {**found, **values})
            clock.append(time.perf_counter())
            seconds[name] = dict(zip(STAGES, np.diff(clock).tolist(), strict=True))
    return found, seconds
