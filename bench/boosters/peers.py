"""LightGBM, XGBoost and CatBoost used directly, on the rows of one matrix: the peers of bench.boosters.equal_loss.

All get the same float32 rows, begin at the class prior (so that no round is spent on it), use all cores, and report
the validation log-loss of every round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.boosters.world import Matrix
from bench.runs import library
from bench.timing import cores, timed
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators.three_classes import CLASS_COUNT


@dataclass(frozen=True)
class Setting:
    """What is searched; the rest is the same for all: half of the rows and columns, l2 5, the bins of `max_bin`."""

    depth: int
    rate: float
    max_bin: int
    seed: int = 42


@dataclass(frozen=True)
class Fitted:
    """A fitted booster of one label.

    curve: float64 (rounds,), validation log-loss after each.  between(X, first, last): float (n, 3), margins of these
    rounds alone, without the prior.  before_s: seconds of the fit before its first round.
    """

    curve: np.ndarray
    between: Callable[[np.ndarray, int, int], np.ndarray]
    before_s: float = 0.0

    def staged(self, X: np.ndarray) -> Iterator[np.ndarray]:
        """float64 (n, 3): the margins after each round of the curve."""
        margin = np.zeros((len(X), CLASS_COUNT))
        for r in range(len(self.curve)):
            margin = margin + self.between(X, r, r + 1)
            yield margin


@dataclass(frozen=True)
class Booster:
    """A peer. build(matrix, setting): its matrices; fit(built, label, setting, rounds, patience): one label."""

    name: str
    build: Callable[[Matrix, Setting], Any]
    fit: Callable[[Any, int, Setting, int, int], Fitted]


def starts(part: RowView, prior: np.ndarray, label: int) -> np.ndarray:
    """float64 (n, 3): the prior for every row."""
    return np.tile(prior[label].astype(np.float64), (len(part.X), 1))


def xgboost_peer() -> Booster:
    """xgboost.train with depth-wise trees on shared QuantileDMatrix."""
    xgboost, name = library("xgboost", "XGBoost")

    def build(matrix: Matrix, setting: Setting) -> Any:
        train = xgboost.QuantileDMatrix(matrix.train.X, max_bin=setting.max_bin, nthread=cores())
        validation = xgboost.QuantileDMatrix(matrix.validation.X, ref=train, max_bin=setting.max_bin, nthread=cores())
        return matrix, train, validation

    def fit(built: Any, label: int, setting: Setting, rounds: int, patience: int) -> Fitted:
        matrix, train, validation = built
        for on, part in ((train, matrix.train), (validation, matrix.validation)):
            on.set_info(label=part.y[:, label].astype(np.float32), base_margin=starts(part, matrix.prior, label))
        chosen = {
            "objective": "multi:softprob", "num_class": CLASS_COUNT, "eval_metric": "mlogloss", "tree_method": "hist",
            "max_depth": setting.depth, "eta": setting.rate, "min_child_weight": 5, "lambda": 5, "subsample": 0.5,
            "colsample_bynode": 0.5, "max_bin": setting.max_bin, "nthread": cores(), "seed": setting.seed,
        }  # fmt: skip
        losses: dict[str, Any] = {}
        booster = xgboost.train(
            chosen, train, rounds, evals=[(validation, "validation")], evals_result=losses, verbose_eval=False,
            early_stopping_rounds=patience,
        )  # fmt: skip

        def between(X: np.ndarray, first: int, last: int) -> np.ndarray:
            zero = np.zeros((len(X), CLASS_COUNT), np.float32)
            return booster.inplace_predict(X, iteration_range=(first, last), predict_type="margin", base_margin=zero)

        return Fitted(np.array(losses["validation"]["mlogloss"]), between)

    return Booster(name, build, fit)


def lightgbm_peer() -> Booster:
    """lightgbm.train with leaf-wise trees of 2 ** depth leaves on shared Datasets."""
    lightgbm, name = library("lightgbm", "LightGBM")

    def parameters(setting: Setting) -> dict[str, Any]:
        return {
            "objective": "multiclass", "num_class": CLASS_COUNT, "metric": "multi_logloss", "boost_from_average": False,
            "num_leaves": 2**setting.depth, "learning_rate": setting.rate, "lambda_l2": 5, "bagging_fraction": 0.5,
            "bagging_freq": 1, "feature_fraction_bynode": 0.5, "max_bin": setting.max_bin - 1, "num_threads": cores(),
            "seed": setting.seed, "verbosity": -1, "feature_pre_filter": False,
        }  # fmt: skip

    def build(matrix: Matrix, setting: Setting) -> Any:
        data_settings = {name: parameters(setting)[name] for name in ("max_bin", "feature_pre_filter", "verbosity")}
        train = lightgbm.Dataset(matrix.train.X, params=data_settings).construct()
        return matrix, train, lightgbm.Dataset(matrix.validation.X, reference=train, params=data_settings).construct()

    def fit(built: Any, label: int, setting: Setting, rounds: int, patience: int) -> Fitted:
        matrix, train, validation = built
        for on, part in ((train, matrix.train), (validation, matrix.validation)):
            on.set_label(part.y[:, label].astype(np.float32))
            on.set_init_score(starts(part, matrix.prior, label))
        losses: dict[str, Any] = {}
        booster = lightgbm.train(
            parameters(setting), train, rounds, valid_sets=[validation], valid_names=["validation"],
            callbacks=[lightgbm.early_stopping(patience, verbose=False), lightgbm.record_evaluation(losses)],
            keep_training_booster=True,  # else it is written and read again, cut after its best round
        )  # fmt: skip

        def between(X: np.ndarray, first: int, last: int) -> np.ndarray:
            return booster.predict(X, raw_score=True, start_iteration=first, num_iteration=last - first)

        return Fitted(np.array(losses["validation"]["multi_logloss"]), between)

    return Booster(name, build, fit)


def catboost_peer() -> Booster:
    """CatBoost with symmetric trees; a Pool holds one label, so each fit makes two."""
    catboost, name = library("catboost", "CatBoost")

    def fit(matrix: Matrix, label: int, setting: Setting, rounds: int, patience: int) -> Fitted:
        def pools_of_label() -> list[Any]:
            pools = [
                catboost.Pool(part.X, part.y[:, label].astype(np.int64), baseline=starts(part, matrix.prior, label))
                for part in (matrix.train, matrix.validation)
            ]
            pools[0].quantize(border_count=setting.max_bin - 1)
            return pools

        before_s, pools = timed(pools_of_label)
        booster = catboost.CatBoost({
            "loss_function": "MultiClass", "eval_metric": "MultiClass", "iterations": rounds, "depth": setting.depth,
            "learning_rate": setting.rate, "l2_leaf_reg": 5, "bootstrap_type": "Bernoulli", "subsample": 0.5,
            "rsm": 0.5, "border_count": setting.max_bin - 1, "thread_count": cores(), "random_seed": setting.seed,
            "od_type": "Iter", "od_wait": patience, "use_best_model": False, "allow_writing_files": False,
            "logging_level": "Silent",
        })  # fmt: skip
        booster.fit(pools[0], eval_set=pools[1])

        def between(X: np.ndarray, first: int, last: int) -> np.ndarray:
            return booster.predict(X, prediction_type="RawFormulaVal", ntree_start=first, ntree_end=last)

        return Fitted(np.array(booster.get_evals_result()["validation"]["MultiClass"]), between, before_s)

    return Booster(name, lambda matrix, setting: matrix, fit)


PEERS = {"xgboost": xgboost_peer, "lightgbm": lightgbm_peer, "catboost": catboost_peer}


def log_loss(margin: np.ndarray, y: np.ndarray) -> float:
    """Mean log-loss of margins (n, 3) of classes y, in float64: the same measure for all."""
    shifted = margin.astype(np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    chosen = np.take_along_axis(shifted, y.astype(np.int64)[:, None], axis=1)[:, 0]
    return float((np.log(np.exp(shifted).sum(axis=1)) - chosen).mean())


def first_reaching(curve: np.ndarray, target: float) -> int | None:
    """Rounds after which a curve is first at or below the target; None if it never is."""
    reached = np.flatnonzero(curve <= target)
    return int(reached[0]) + 1 if reached.size else None
