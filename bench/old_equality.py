"""Where the old way and the new one do the same, they say the same: labels, shared columns, XGBoost's predictions."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from gpupipe import config, models
from gpupipe.device import pick
from gpupipe.features import compute_features
from gpupipe.labels import percent, tp_dd_labels
from gpupipe.models.fold import N_CLASSES, Fold, Rows
from gpupipe.models.trees import Stage, TreeModel
from gpupipe.panel import Panel

COLUMN_BOUND = 1e-5  # of a column's spread: float32 against float64 of pandas' running sums
SAME_MATRIX_BOUND = 1e-6  # of a probability, where both harnesses train XGBoost on the same matrix
OWN_MATRIX_BOUND = 1e-4  # of a probability, on average, each on its own columns: a last bit can change a leaf
ROUNDS, LEARNING_RATE, DEPTH = 20, 0.05, 8


def equality(path: pathlib.Path, panel: Panel, window: str, labels: Any) -> dict[str, Any]:
    """Compare on one sector's panel, which `path` holds too; SystemExit where a bound is not kept.

    labels: (horizon, threshold) pairs.
    """
    from bench import old_way

    frame = old_way.loaded(path, panel.sectors[0])
    features = old_way.with_features(frame)
    found: dict[str, Any] = {"sector": panel.sectors[0], "rows": panel.n_rows}
    for horizon, threshold in labels:
        made = old_way.with_labels(frame, horizon, threshold, window)
        ours = tp_dd_labels(panel, (horizon,), (threshold,), window=window).y[:, 0]
        if differ := int((made["label"].to_numpy() != ours).sum()):
            raise SystemExit(f"{differ} labels of {horizon} d, {percent(threshold)} % differ")
    n_labels = panel.n_rows * len(labels)
    print(f"labels: {n_labels:,} of {panel.sectors[0]} ({len(labels)} kinds), all the same")

    names = tuple(features.columns.drop(["symbol", "time"]))
    ours = compute_features(panel, names).values
    theirs = features[list(names)].to_numpy(np.float64)
    if (places := np.isnan(ours) != np.isnan(theirs)).any():
        raise SystemExit(f"column {names[int(places.any(axis=0).argmax())]} is not known on the same rows")
    furthest = np.nanmax(np.abs(ours - theirs), axis=0) / np.nanstd(ours, axis=0)
    worst = int(furthest.argmax())
    if not furthest[worst] <= COLUMN_BOUND:
        raise SystemExit(f"column {names[worst]} differs by {furthest[worst]:.2g} of its spread")
    print(f"columns: {len(names)} shared, known on the same rows, at most {furthest[worst]:.1g} of their spread apart "
          f"({names[worst]}; bound {COLUMN_BOUND:g})")  # fmt: skip

    X, y, usable = old_way.merged(features, made)
    own = np.where(np.isnan(ours), np.float32(0), ours)
    same, apart = _predictions(X[usable], own[usable], y[usable])
    if same > SAME_MATRIX_BOUND or apart > OWN_MATRIX_BOUND:
        raise SystemExit(f"XGBoost's predictions differ by {same:.2g} on one matrix, by {apart:.2g} on average on two")
    print(f"XGBoost, the same {int(usable.sum()):,} rows and settings through both: probabilities at most {same:.1g} "
          f"apart on the same matrix (bound {SAME_MATRIX_BOUND:g}), {apart:.1g} on average each on its own (bound "
          f"{OWN_MATRIX_BOUND:g})", flush=True)  # fmt: skip
    return found | {
        "labels": n_labels, "columns": len(names), "furthest_of_spread": float(furthest[worst]),
        "predictions_same_matrix": same, "predictions_own_matrix_mean": apart,
    }  # fmt: skip


def _predictions(theirs: np.ndarray, ours: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Largest difference of probabilities on one matrix, and the mean one with each harness's own columns."""
    import xgboost

    counts = np.bincount(y, minlength=N_CLASSES) + 0.5
    shares = (counts / counts.sum()).astype(np.float64)
    bias = np.log(shares).astype(np.float32)
    # Ours takes the number of rounds from a model that is there, as in out-of-fold rounds, and no early stopping.
    like = TreeModel((Stage(None, ROUNDS, 0, N_CLASSES),), bias, "softmax", np.ones(N_CLASSES, np.float32), "sector")
    stage = config.Booster(ROUNDS, LEARNING_RATE, DEPTH, min_child_weight=1.0, l2=1.0, subsample=1.0, column_share=1.0)
    settings = config.Config(hist=stage, training=config.Training(max_bin=256))
    fold = Fold(
        name="part1", fit={"one": Rows(ours, y[:, None], np.zeros(len(y), np.int64))}, validation={},
        label_names=("label",), device=pick("cpu"), max_bin=256, class_weight="none", threads=1, seed=42,
    )  # fmt: skip
    family = models.family("xgb_hist")
    fitted = family.fit_sector(fold, "one", settings, [None], [like])
    new = family.predict(fitted, ours, fold.device)[:, 0]
    margin = np.tile(fold.shares(["one"])[0], (len(y), 1))
    margin = np.log(margin).astype(np.float32)

    def usual(X: np.ndarray) -> np.ndarray:
        model = xgboost.XGBClassifier(
            tree_method="hist", n_estimators=ROUNDS, learning_rate=LEARNING_RATE, max_depth=DEPTH, n_jobs=1,
            random_state=42, max_bin=256, base_score=0.0,
        )  # fmt: skip
        return model.fit(X, y, base_margin=margin).predict_proba(X, base_margin=margin)

    return float(np.abs(usual(ours) - new).max()), float(np.abs(usual(theirs) - new).mean())
