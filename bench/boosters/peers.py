"""LightGBM, XGBoost and CatBoost used directly, on the rows of one sector: what bench.boosters.equal_loss
compares with.

All get the same float32 rows, begin at the class prior (so that no round is spent on it), use all cores, and report
the validation log-loss of every round.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.kernels.label_peers import SkippedError
from bench.timing import cores

N_CLASSES = 3


@dataclass(frozen=True)
class Part:
    """X float32 (n, n_features), y int8 (n, n_labels), every label known."""

    X: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Matrix:
    """One sector's rows, and the logarithms of its class shares in the training part, (n_labels, 3)."""

    train: Part
    validation: Part
    test: Part
    prior: np.ndarray


@dataclass(frozen=True)
class Setting:
    """What is searched; the rest is the same for all: half of the rows and columns, l2 5, the bins of `max_bin`."""

    depth: int
    rate: float
    max_bin: int
    seed: int = 42


@dataclass(frozen=True)
class Fitted:
    """curve: float64 (rounds,), validation log-loss after each. margin(X, rounds): float (n, 3), without the prior.

    staged(X): the margins after each round of the curve.  before_s: seconds of the fit before its first round.
    """

    curve: np.ndarray
    margin: Callable[[np.ndarray, int], np.ndarray]
    staged: Callable[[np.ndarray], Iterator[np.ndarray]]
    before_s: float = 0.0


@dataclass(frozen=True)
class Booster:
    """A peer. build(matrix, setting): its own matrices, once a sector; fit(built, label, setting, rounds, patience)."""

    name: str
    build: Callable[[Matrix, Setting], Any]
    fit: Callable[[Any, int, Setting, int, int], Fitted]


def starts(part: Part, prior: np.ndarray, label: int) -> np.ndarray:
    """float64 (n, 3): the prior for every row."""
    return np.tile(prior[label].astype(np.float64), (len(part.X), 1))


def summed(parts: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Running sums of margins of single rounds, float64."""
    total: Any = 0.0
    for part in parts:
        total = total + part.astype(np.float64)
        yield total


def installed(module: str, title: str) -> tuple[Any, str]:
    """A module, and its title with the version; SkippedError where it is not installed."""
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise SkippedError(f"{title} is not installed ({error})") from error
    return found, f"{title} {found.__version__}"


def xgboost_peer() -> Booster:
    """xgboost.train with depth-wise trees on shared QuantileDMatrix."""
    xgboost, name = installed("xgboost", "XGBoost")

    def build(matrix: Matrix, setting: Setting) -> Any:
        train = xgboost.QuantileDMatrix(matrix.train.X, max_bin=setting.max_bin, nthread=cores())
        validation = xgboost.QuantileDMatrix(matrix.validation.X, ref=train, max_bin=setting.max_bin, nthread=cores())
        return matrix, train, validation

    def fit(built: Any, label: int, setting: Setting, rounds: int, patience: int) -> Fitted:
        matrix, train, validation = built
        for on, part in ((train, matrix.train), (validation, matrix.validation)):
            on.set_info(label=part.y[:, label].astype(np.float32), base_margin=starts(part, matrix.prior, label))
        chosen = {
            "objective": "multi:softprob", "num_class": N_CLASSES, "eval_metric": "mlogloss", "tree_method": "hist",
            "max_depth": setting.depth, "eta": setting.rate, "min_child_weight": 5, "lambda": 5, "subsample": 0.5,
            "colsample_bynode": 0.5, "max_bin": setting.max_bin, "nthread": cores(), "seed": setting.seed,
        }  # fmt: skip
        said: dict[str, Any] = {}
        booster = xgboost.train(
            chosen, train, rounds, evals=[(validation, "validation")], evals_result=said, verbose_eval=False,
            early_stopping_rounds=patience,
        )  # fmt: skip

        def between(X: np.ndarray, first: int, last: int) -> np.ndarray:
            zero = np.zeros((len(X), N_CLASSES), np.float32)
            return booster.inplace_predict(X, iteration_range=(first, last), predict_type="margin", base_margin=zero)

        curve = np.array(said["validation"]["mlogloss"])
        rounds_of = range(len(curve))
        return Fitted(
            curve, lambda X, n: between(X, 0, n), lambda X: summed(between(X, r, r + 1) for r in rounds_of)
        )  # fmt: skip

    return Booster(name, build, fit)


def lightgbm_peer() -> Booster:
    """lightgbm.train with leaf-wise trees of 2 ** depth leaves on shared Datasets."""
    lightgbm, name = installed("lightgbm", "LightGBM")

    def parameters(setting: Setting) -> dict[str, Any]:
        return {
            "objective": "multiclass", "num_class": N_CLASSES, "metric": "multi_logloss", "boost_from_average": False,
            "num_leaves": 2**setting.depth, "learning_rate": setting.rate, "lambda_l2": 5, "bagging_fraction": 0.5,
            "bagging_freq": 1, "feature_fraction_bynode": 0.5, "max_bin": setting.max_bin - 1, "num_threads": cores(),
            "seed": setting.seed, "verbosity": -1, "feature_pre_filter": False,
        }  # fmt: skip

    def build(matrix: Matrix, setting: Setting) -> Any:
        of_data = {name: parameters(setting)[name] for name in ("max_bin", "feature_pre_filter", "verbosity")}
        train = lightgbm.Dataset(matrix.train.X, params=of_data).construct()
        return matrix, train, lightgbm.Dataset(matrix.validation.X, reference=train, params=of_data).construct()

    def fit(built: Any, label: int, setting: Setting, rounds: int, patience: int) -> Fitted:
        matrix, train, validation = built
        for on, part in ((train, matrix.train), (validation, matrix.validation)):
            on.set_label(part.y[:, label].astype(np.float32))
            on.set_init_score(starts(part, matrix.prior, label))
        said: dict[str, Any] = {}
        booster = lightgbm.train(
            parameters(setting), train, rounds, valid_sets=[validation], valid_names=["validation"],
            callbacks=[lightgbm.early_stopping(patience, verbose=False), lightgbm.record_evaluation(said)],
            keep_training_booster=True,  # else it is written and read again, cut after its best round
        )  # fmt: skip

        def between(X: np.ndarray, first: int, last: int) -> np.ndarray:
            return booster.predict(X, raw_score=True, start_iteration=first, num_iteration=last - first)

        curve = np.array(said["validation"]["multi_logloss"])
        rounds_of = range(len(curve))
        return Fitted(
            curve, lambda X, n: between(X, 0, n), lambda X: summed(between(X, r, r + 1) for r in rounds_of)
        )  # fmt: skip

    return Booster(name, build, fit)


def catboost_peer() -> Booster:
    """CatBoost with symmetric trees; a Pool holds one label, so each fit makes its own."""
    catboost, name = installed("catboost", "CatBoost")

    def fit(matrix: Matrix, label: int, setting: Setting, rounds: int, patience: int) -> Fitted:
        began = time.perf_counter()
        pools = [
            catboost.Pool(part.X, part.y[:, label].astype(np.int64), baseline=starts(part, matrix.prior, label))
            for part in (matrix.train, matrix.validation)
        ]
        pools[0].quantize(border_count=setting.max_bin - 1)
        before_s = time.perf_counter() - began
        booster = catboost.CatBoost({
            "loss_function": "MultiClass", "eval_metric": "MultiClass", "iterations": rounds, "depth": setting.depth,
            "learning_rate": setting.rate, "l2_leaf_reg": 5, "bootstrap_type": "Bernoulli", "subsample": 0.5,
            "rsm": 0.5, "border_count": setting.max_bin - 1, "thread_count": cores(), "random_seed": setting.seed,
            "od_type": "Iter", "od_wait": patience, "use_best_model": False, "allow_writing_files": False,
            "logging_level": "Silent",
        })  # fmt: skip
        booster.fit(pools[0], eval_set=pools[1])
        return Fitted(
            np.array(booster.get_evals_result()["validation"]["MultiClass"]),
            lambda X, n: booster.predict(X, prediction_type="RawFormulaVal", ntree_end=n),
            lambda X: booster.staged_predict(X, prediction_type="RawFormulaVal"), before_s,
        )  # fmt: skip

    return Booster(name, lambda matrix, setting: matrix, fit)


PEERS = {"xgboost": xgboost_peer, "lightgbm": lightgbm_peer, "catboost": catboost_peer}


def log_loss(margin: np.ndarray, y: np.ndarray) -> float:
    """Mean log-loss of margins (n, 3) of classes y, in float64: the one measure for all."""
    shifted = margin.astype(np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    chosen = np.take_along_axis(shifted, y.astype(np.int64)[:, None], axis=1)[:, 0]
    return float((np.log(np.exp(shifted).sum(axis=1)) - chosen).mean())


def first_reaching(curve: np.ndarray, target: float) -> int | None:
    """Rounds after which a curve is first at or below the target; None if it never is."""
    reached = np.flatnonzero(curve <= target)
    return int(reached[0]) + 1 if reached.size else None
