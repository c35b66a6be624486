"""Forests at equal quality: `python -m bench.boosters.forests [--data FILE --sector-map FILE] [--sectors energy]`.

random_forest of gpupipe, XGBoost's num_parallel_tree and scikit-learn's RandomForestClassifier, each one forest of all
labels; LightGBM's rf mode, two forests for each label; where it is installed cuML's RandomForestClassifier, one for
each label. Each sector alone, on the same float32 rows and all cores, which bind, with the same least rows of a leaf
and share of columns a node. For one label and for all: every depth and number of trees is tried, the target is the
worst of the contenders' best validation log-losses (mean of the labels), and each contender is timed, in turns, at the
setting that reached the target soonest. Beside the times stands the sealed log-loss. The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench import runs
from bench.boosters.world import Matrix, World, read_world
from bench.runs import library
from bench.timing import alternate, cores, timed
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.estimators import columns, registry
from gpupipe.estimators.boosting.tree_model import SMALLEST_PROBABILITY
from gpupipe.estimators.three_classes import CLASS_COUNT, LOWER, UPPER

SAMPLED = 0.632  # of the rows, distinct ones: what a bootstrap sample holds; random_forest makes a half of it
TIME_LIMIT_S = 300.0

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Grown:
    """What is searched, and what is not: rows in a leaf at least, and the share of columns that a node draws."""

    depth: int
    trees: int
    min_rows: int
    column_share: float
    seed: int = 42


class Contender(NamedTuple):
    """fit(sector, labels, setting) gives X -> probabilities (n, len(labels), 3)."""

    name: str
    fit: Callable[[str, Sequence[int], Grown], Predict]


def ours(world: World) -> Contender:
    """random_forest of gpupipe on one sector: XGBoost's trees with vector leaves on samples in turn."""
    _, name = library("xgboost", "XGBoost")
    estimator = registry.estimator("random_forest")

    def fit(sector: str, labels: Sequence[int], setting: Grown) -> Predict:
        training_set = world.training_set([sector], labels)
        forest = dataclasses.replace(
            world.settings.forest, trees=setting.trees, depth=setting.depth, min_rows=float(setting.min_rows),
            column_share=setting.column_share, subsample=SAMPLED,
        )  # fmt: skip
        settings = registry.readable(world.settings.replace(forest=forest), estimator.name)
        fitted = columns.fit_pool(estimator, training_set, settings, None)
        return lambda X: columns.predict(estimator, fitted, FeatureRows.of_matrix(X))

    return Contender(f"random_forest on {name}, all labels at once", fit)


def xgboost_forest(world: World) -> Contender:
    """One round of XGBoost's num_parallel_tree with vector leaves: squared error on one-hot classes of all labels."""
    xgboost, name = library("xgboost", "XGBoost")

    def fit(sector: str, labels: Sequence[int], setting: Grown) -> Predict:
        matrix, max_bin = world.matrices[sector], world.settings.training.max_bin
        prior = np.exp(matrix.prior[list(labels)]).ravel().astype(np.float32)
        one_hot = (matrix.train.y[:, list(labels), None] == np.arange(CLASS_COUNT)).reshape(len(matrix.train.y), -1)
        rows = xgboost.QuantileDMatrix(
            matrix.train.X, one_hot.astype(np.float32), max_bin=max_bin, nthread=cores(),
            base_margin=np.tile(prior, (len(one_hot), 1)),
        )  # fmt: skip
        booster = xgboost.train({
            "objective": "reg:squarederror", "multi_strategy": "multi_output_tree", "tree_method": "hist", "eta": 1.0,
            "max_depth": setting.depth, "min_child_weight": setting.min_rows, "lambda": 1e-5, "subsample": SAMPLED,
            "colsample_bynode": setting.column_share, "num_parallel_tree": setting.trees, "max_bin": max_bin,
            "nthread": cores(), "seed": setting.seed,
        }, rows, 1)  # fmt: skip

        def predict(X: np.ndarray) -> np.ndarray:
            start = np.tile(prior, (len(X), 1))
            return booster.inplace_predict(X, base_margin=start).reshape(len(X), len(labels), CLASS_COUNT)

        return predict

    return Contender(f"{name}, num_parallel_tree, all labels at once", fit)


def lightgbm_forest(world: World) -> Contender:
    """LightGBM's boosting=rf on one Dataset: shares of the lower and of the upper class by squared error.

    With its multiclass objective a leaf takes a Newton step from the class prior, far too long where a class is
    rare: on real stocks its log-loss was three times that of the others.
    """
    lightgbm, name = library("lightgbm", "LightGBM")
    data_settings = {"max_bin": world.settings.training.max_bin - 1, "verbosity": -1, "feature_pre_filter": False}

    def fit(sector: str, labels: Sequence[int], setting: Grown) -> Predict:
        matrix = world.matrices[sector]
        rows = lightgbm.Dataset(matrix.train.X, params=data_settings).construct()
        chosen = {
            **data_settings, "boosting": "rf", "objective": "regression", "num_leaves": 2**setting.depth,
            "max_depth": setting.depth, "min_data_in_leaf": setting.min_rows, "bagging_fraction": SAMPLED,
            "bagging_freq": 1, "feature_fraction_bynode": setting.column_share, "num_threads": cores(),
            "seed": setting.seed,
        }  # fmt: skip
        forests = []
        for label in labels:
            for c in (LOWER, UPPER):
                rows.set_label((matrix.train.y[:, label] == c).astype(np.float32))
                forests.append(lightgbm.train(chosen, rows, setting.trees))

        def predict(X: np.ndarray) -> np.ndarray:
            lower, upper = (np.stack([f.predict(X) for f in forests[c::2]], axis=1) for c in (0, 1))
            return np.stack([lower, 1 - lower - upper, upper], axis=2)

        return predict

    return Contender(f"{name}, rf", fit)


def sklearn_forest(world: World) -> Contender:
    """scikit-learn's RandomForestClassifier, one forest of several outputs."""
    _, name = library("sklearn", "scikit-learn")

    def fit(sector: str, labels: Sequence[int], setting: Grown) -> Predict:
        from sklearn.ensemble import RandomForestClassifier

        train, several = world.matrices[sector].train, len(labels) > 1
        forest = RandomForestClassifier(
            setting.trees, max_depth=setting.depth, min_samples_leaf=setting.min_rows,
            max_features=setting.column_share, n_jobs=cores(), random_state=setting.seed,
        ).fit(train.X, train.y[:, list(labels)].squeeze())  # fmt: skip
        classes = forest.classes_ if several else [forest.classes_]
        return lambda X: _all_classes(forest.predict_proba(X) if several else [forest.predict_proba(X)], classes)

    return Contender(f"{name}, all labels at once", fit)


def cuml_forest(world: World) -> Contender:
    """cuML's RandomForestClassifier, a forest for each label; missing values, which it does not take, become 0."""
    cuml, name = library("cuml", "cuML")

    def fit(sector: str, labels: Sequence[int], setting: Grown) -> Predict:
        train = world.matrices[sector].train
        forests = [
            cuml.ensemble.RandomForestClassifier(
                n_estimators=setting.trees, max_depth=setting.depth, min_samples_leaf=setting.min_rows,
                max_features=setting.column_share, n_bins=world.settings.training.max_bin, random_state=setting.seed,
                output_type="numpy",
            ).fit(np.nan_to_num(train.X), train.y[:, label].astype(np.int32))
            for label in labels
        ]  # fmt: skip
        classes = [np.asarray(f.classes_) for f in forests]
        return lambda X: _all_classes([f.predict_proba(np.nan_to_num(X)) for f in forests], classes)

    return Contender(name, fit)


CONTENDERS = {
    "random_forest": ours, "xgboost": xgboost_forest, "lightgbm": lightgbm_forest, "sklearn": sklearn_forest,
    "cuml": cuml_forest,
}  # fmt: skip


def _all_classes(by_label: Sequence[np.ndarray], classes: Sequence[Any]) -> np.ndarray:
    """(n, n_labels, 3), with zeros for classes that a label never had."""
    out = np.zeros((len(by_label[0]), len(by_label), CLASS_COUNT))
    for k, (probability, seen) in enumerate(zip(by_label, classes, strict=True)):
        out[:, k, np.asarray(seen, dtype=np.int64)] = probability
    return out


def mean_loss(probability: np.ndarray, y: np.ndarray) -> float:
    """Log-loss of probabilities (n, n_labels, 3), none below 1e-6, mean of rows and labels."""
    bounded = np.clip(probability.astype(np.float64), SMALLEST_PROBABILITY, None)
    bounded /= bounded.sum(axis=2, keepdims=True)
    return float(-np.log(np.take_along_axis(bounded, y.astype(np.int64)[:, :, None], axis=2)).mean())


class Tried(NamedTuple):
    """A setting of a contender: seconds of its fit, mean log-losses of the labels on validation and sealed rows."""

    seconds: float
    validation: float
    test: float
    setting: Grown


def attempt(contender: Contender, sector: str, labels: Sequence[int], matrix: Matrix, setting: Grown) -> Tried:
    seconds, predict = timed(lambda: contender.fit(sector, labels, setting))
    losses = (mean_loss(predict(part.X), part.y[:, list(labels)]) for part in (matrix.validation, matrix.test))
    return Tried(seconds, *losses, setting)


def compare(
    world: World, sector: str, labels: Sequence[int], contenders: dict[str, Contender], options: argparse.Namespace
) -> dict[str, Any]:
    """All settings of all contenders, the target, and the time of each at the setting that reaches it soonest."""
    settings = [Grown(depth, trees, options.min_rows, options.column_share)
                for depth in options.depths for trees in options.trees]  # fmt: skip
    attempts_by_name = {
        name: [attempt(contender, sector, labels, world.matrices[sector], setting) for setting in settings]
        for name, contender in contenders.items()
    }
    best = {name: min(attempts, key=lambda tried: tried.validation) for name, attempts in attempts_by_name.items()}
    target = max(tried.validation for tried in best.values())
    chosen = {
        name: min((tried for tried in attempts if tried.validation <= target), key=lambda tried: tried.seconds)
        for name, attempts in attempts_by_name.items()
    }
    sides = {name: partial(contenders[name].fit, sector, labels, tried.setting) for name, tried in chosen.items()}
    seconds, done = alternate(options.times, sides, limit_s=TIME_LIMIT_S)
    return {
        "sector": sector, "labels": world.names(labels), "target": target, "times": done,
        "contenders": {
            name: {
                "seconds": seconds[name], "depth": tried.setting.depth, "trees": tried.setting.trees,
                "validation": tried.validation, "test": tried.test, "validation_at_best": best[name].validation,
                "test_at_best": best[name].test, "depth_at_best": best[name].setting.depth,
                "trees_at_best": best[name].setting.trees,
            }
            for name, tried in chosen.items()
        },
    }  # fmt: skip


def main() -> int:
    parser = runs.options(__doc__, data="demo", sectors="all", preset="fast", set=[], times=3)
    parser.add_argument("--labels", help="all, or as label_1d_5pct,label_5d_10pct; the first is the one label")
    parser.add_argument("--depths", type=runs.numbers(), default=[6, 9])
    parser.add_argument("--trees", type=runs.numbers(), default=[15, 45])
    parser.add_argument("--min-rows", type=int, default=50)
    parser.add_argument("--column-share", type=float, default=0.25)
    parser.add_argument("--contenders", type=runs.numbers(str), default=list(CONTENDERS))
    options = parser.parse_args()
    panel, world = read_world(options)
    contenders = runs.installed(CONTENDERS, options.contenders, world)
    lines = []
    for sector in world.matrices if options.sectors == "all" else options.sectors.split(","):
        kept = world.matrices[sector].kept
        for labels in [kept[:1], kept][: min(2, len(kept))]:
            lines.append(compare(world, sector, labels, contenders, options))
            text = "  ".join(
                f"{name} {side['seconds']:.2f} s (depth {side['depth']}, {side['trees']} trees; {side['test']:.4f})"
                for name, side in lines[-1]["contenders"].items()
            )
            print(f"{sector:24s} {len(labels)} labels to {lines[-1]['target']:.4f}: {text}", flush=True)
    names = {name: contender.name for name, contender in contenders.items()}
    print("\nmedian of the sectors, seconds:")
    for title, several in (("one label", False), ("all labels", True)):
        if sides := [line["contenders"] for line in lines if (len(line["labels"]) > 1) == several]:
            medians = {name: statistics.median(by_name[name]["seconds"] for by_name in sides) for name in names}
            print(f"{title:12s} " + "  ".join(f"{names[name]}: {seconds:.2f}" for name, seconds in medians.items()))
    return runs.finish(
        "forests", lines=lines, names=names, rows=panel.n_rows, symbols=panel.n_symbols,
        options=vars(options),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
