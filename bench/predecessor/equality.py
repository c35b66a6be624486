"""Where the predecessor and gpupipe compute the same, they agree: labels, shared columns, XGBoost's predictions."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from bench.predecessor import rows
from gpupipe.data.panel import Panel
from gpupipe.estimators.boosting.binned_matrix import quantile_matrix
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.boosting.tree_model import parameters
from gpupipe.features.matrix import compute_features
from gpupipe.runtime.device import pick
from gpupipe.targets.classes import CLASSES, percent
from gpupipe.targets.triple_barrier import tp_dd_labels

COLUMN_BOUND = 1e-5  # of a column's spread: float32 against float64 of pandas' running sums
SAME_MATRIX_BOUND = 1e-6  # of a probability, where both harnesses train XGBoost on the same matrix
OWN_MATRIX_BOUND = 1e-4  # of a probability, on average, each on its columns: a last bit can change a leaf
ROUNDS, LEARNING_RATE, DEPTH = 20, 0.05, 8


def equality(path: pathlib.Path, panel: Panel, window: str, labels: Any) -> dict[str, Any]:
    """Compare on one sector's panel, which `path` holds too; SystemExit where a bound is not kept.

    labels: (horizon, threshold) pairs.
    """
    frame = rows.loaded(path, panel.groups[0])
    features = rows.with_features(frame)
    for horizon, threshold in labels:
        labelled = rows.with_labels(frame, horizon, threshold, window)
        ours = tp_dd_labels(panel, (horizon,), (threshold,), window=window).y[:, 0]
        if differ := int((labelled["label"].to_numpy() != ours).sum()):
            raise SystemExit(f"{differ} labels of {horizon} d, {percent(threshold)} % differ")
    names = rows.names_of(features)
    ours = compute_features(panel, names).values
    furthest, where = furthest_apart(names, ours, features[names].to_numpy(np.float64))
    X, y, usable = rows.merged(features, labelled)
    same, apart = _predictions(X[usable], np.where(np.isnan(ours), np.float32(0), ours)[usable], y[usable])
    if same > SAME_MATRIX_BOUND or apart > OWN_MATRIX_BOUND:
        raise SystemExit(f"XGBoost's predictions differ by {same:.2g} on one matrix, by {apart:.2g} on average on two")
    n_labels = panel.n_rows * len(labels)
    print(f"labels: {n_labels:,} of {panel.groups[0]} ({len(labels)} kinds), all the same\n"
          f"columns: {len(names)}, known on the same rows, at most {furthest:.1g} of their spread apart, {where}\n"
          f"XGBoost, the same {int(usable.sum()):,} rows and settings: probabilities at most {same:.1g} apart on one "
          f"matrix, {apart:.1g} on average on two", flush=True)  # fmt: skip
    return {
        "sector": panel.groups[0], "rows": panel.n_rows, "labels": n_labels, "columns": len(names),
        "furthest_of_spread": furthest, "predictions_same_matrix": same, "predictions_own_matrix_mean": apart,
    }  # fmt: skip


def furthest_apart(names: list[str], ours: np.ndarray, theirs: np.ndarray) -> tuple[float, str]:
    """The largest difference, as a share of its column's spread, and the column; SystemExit beyond COLUMN_BOUND."""
    if (places := np.isnan(ours) != np.isnan(theirs)).any():
        raise SystemExit(f"column {names[int(places.any(axis=0).argmax())]} is not known on the same rows")
    apart = np.nanmax(np.abs(ours - theirs), axis=0) / np.nanstd(ours, axis=0)
    worst = int(apart.argmax())
    if not apart[worst] <= COLUMN_BOUND:
        raise SystemExit(f"column {names[worst]} differs by {apart[worst]:.2g} of its spread")
    return float(apart[worst]), names[worst]


def _predictions(theirs: np.ndarray, ours: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Largest difference of probabilities on one matrix, and the mean one with each harness's columns.

    Both train three outputs a round, as the predecessor does; gpupipe's boosters have two, which it has not.
    Ours is bins and parameters as gpupipe makes them.
    """
    import xgboost

    stage = Booster(ROUNDS, LEARNING_RATE, DEPTH, min_child_weight=1.0, l2=1.0, subsample=1.0, column_share=1.0)
    bins = quantile_matrix([ours], 256, 1)
    bins.set_info(label=y.astype(np.float32))
    settings = parameters(stage, pick("cpu"), 256, 1, 42) | {"objective": "multi:softprob", "num_class": len(CLASSES)}
    new = xgboost.train(settings, bins, num_boost_round=ROUNDS).inplace_predict(ours)
    usual = {"n_estimators": ROUNDS, "learning_rate": LEARNING_RATE, "max_depth": DEPTH, "random_state": 42}
    old = (xgboost.XGBClassifier(tree_method="hist", n_jobs=1, base_score=0.0, **usual).fit(X, y).predict_proba(X)
           for X in (ours, theirs))  # fmt: skip
    same, apart = (np.abs(probability - new) for probability in old)
    return float(same.max()), float(apart.mean())
