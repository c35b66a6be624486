"""Trees of XGBoost, LightGBM and CatBoost in one form: that of ONNX, whose values are float32."""

from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.estimators.boosting.tree_model import learner_of
from gpupipe.runtime.errors import UserError
from gpupipe.targets.classes import N_CLASSES

ALMOST_ZERO = np.float32(1e-35)  # LightGBM's kZeroThreshold


@dataclass(frozen=True)
class Ensemble:
    """Trees whose leaves' values add up.

    offsets: int64 (n_trees + 1,): tree k has the nodes offsets[k] : offsets[k + 1], its root first; a node's number in
        its tree is its place there.
    feature: int64 (n_nodes,).  split: float32 (n_nodes,).  left, right: int64 (n_nodes,), numbers in the tree, 0 of a
        leaf.  missing_left: bool (n_nodes,), where NaN goes.  leaf: int64 (n_nodes,), row of `values`, -1 of a split.
    values: float32 (n_leaves, n_outputs).
    inclusive: left is x <= split (LightGBM, CatBoost), else x < split (XGBoost).
    """

    offsets: np.ndarray
    feature: np.ndarray
    split: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    leaf: np.ndarray
    values: np.ndarray
    inclusive: bool

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.offsets) - 1

    def part(self, n_trees: int, outputs: slice) -> Ensemble:
        """The first trees, and some of the outputs."""
        offsets = self.offsets[: n_trees + 1]
        nodes = slice(0, offsets[-1])
        leaf = self.leaf[nodes]
        return Ensemble(
            offsets, self.feature[nodes], self.split[nodes], self.left[nodes], self.right[nodes],
            self.missing_left[nodes], leaf, self.values[: leaf.max(initial=-1) + 1, outputs], self.inclusive,
        )  # fmt: skip

    def splits_of(self) -> tuple[np.ndarray, np.ndarray]:
        """Features and values of all splits: int64 and float32 (n_splits,)."""
        inner = self.leaf < 0
        return self.feature[inner], self.split[inner]


def of_xgboost(booster: Any) -> tuple[Ensemble, np.ndarray]:
    """All trees of a booster with vector leaves, and of which tree each round begins, int64 (n_rounds + 1,).

    XGBoost compares float32 values, x < split.  Raises UserError for a booster of another kind.
    Source: XGBoost's JSON model (doc/model.schema), of 3.2 to 3.4.
    """
    learner = learner_of(booster)
    model = learner["gradient_booster"]["model"]
    n_outputs = int(learner["learner_model_param"]["num_target"])
    columns: dict[str, list[np.ndarray]] = {}
    n_leaves, counts = 0, [0]
    for tree in model["trees"]:
        about = tree["tree_param"]
        if int(about["size_leaf_vector"]) != n_outputs or n_outputs < 2 or int(about["num_deleted"]):
            raise UserError("leaves that hold no vectors cannot be exported: train again with this gpupipe")
        left, right = (np.array(tree[name], dtype=np.int64) for name in ("left_children", "right_children"))
        is_leaf = left < 0
        values = np.array(tree["leaf_weights"], dtype=np.float32).reshape(-1, n_outputs)
        for name, one in (
            ("feature", np.array(tree["split_indices"], dtype=np.int64)),
            ("split", np.array(tree["split_conditions"], dtype=np.float32)),
            ("left", np.where(is_leaf, 0, left)),
            ("right", np.where(is_leaf, 0, right)),
            ("missing_left", np.array(tree["default_left"], dtype=bool)),
            ("leaf", np.where(is_leaf, right + n_leaves, -1)),  # of a leaf, the right child is its row
            ("values", values),
        ):
            columns.setdefault(name, []).append(one)
        n_leaves += len(values)
        counts.append(len(left))
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    rounds = np.array(model["iteration_indptr"], dtype=np.int64)
    return Ensemble(offsets=np.cumsum(counts), inclusive=False, **whole), rounds


def of_lightgbm(booster: Any) -> Ensemble:
    """All trees of a lightgbm.Booster of three classes.

    LightGBM compares float64 values, x <= split: for x in float32 that is x <= the largest float32 not above split.
    It takes what is within 1e-35 of 0 for 0, which moves splits as near to 0 as that. NaN goes where it was told to,
    or is taken for 0 where there was none in training.
    Raises UserError for categories, or where zeros are taken for missing, neither of which gpupipe trains.
    """
    rows = _Rows()
    for k, tree in enumerate(booster.dump_model()["tree_info"]):
        waiting: list[tuple[dict[str, Any], int | None, int]] = [(tree["tree_structure"], None, 0)]
        rows.begin()
        while waiting:
            node, parent, side = waiting.pop()
            if "split_feature" not in node:
                value = np.zeros(N_CLASSES)
                value[k % N_CLASSES] = node["leaf_value"]
                rows.leaf(value, parent, side)
                continue
            if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
                raise UserError("categories, or zeros for missing, cannot be exported")
            threshold = float(node["threshold"])
            missing_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0
            at = rows.split(node["split_feature"], _split_of_lightgbm(threshold), missing_left, parent, side)
            waiting += [(node["right_child"], at, 1), (node["left_child"], at, 0)]
    return rows.ensemble()


def _split_of_lightgbm(threshold: float) -> np.float32:
    """The float32 for which x <= it is what LightGBM decides, for every float32 x that is not missing."""
    if threshold >= 0:
        return max(round_down(threshold), ALMOST_ZERO)
    return min(round_down(threshold), np.nextafter(-ALMOST_ZERO, np.float32(-np.inf)))


def round_down(value: float) -> np.float32:
    """The largest float32 that is not above a float64."""
    with np.errstate(over="ignore"):
        near = np.float32(value)
    return np.nextafter(near, np.float32(-np.inf)) if float(near) > value else near


def of_catboost(booster: Any) -> Ensemble:
    """All trees of a catboost.CatBoost of three classes, on numbers, with symmetric trees, as binary ones.

    A symmetric tree asks the same in all nodes of a level: bit k of a leaf's number is x > the border of split k.
    A missing value is above all borders or below them, as the column's `nan_value_treatment` says.
    Source: CatBoost's JSON model (catboost/docs/apply_model_from_json).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.json")
        booster.save_model(str(path), format="json")
        model = json.loads(path.read_bytes())
    if "oblivious_trees" not in model or set(model["features_info"]) != {"float_features"}:
        raise UserError("other than symmetric trees on numbers cannot be exported")
    columns = {one["feature_index"]: one for one in model["features_info"]["float_features"]}
    scale, bias = model["scale_and_bias"]
    if scale != 1 or any(bias):
        raise UserError("a scale or a bias of CatBoost cannot be exported")
    rows = _Rows()
    for tree in model["oblivious_trees"]:
        values = np.array(tree["leaf_values"]).reshape(-1, N_CLASSES)
        splits = tree["splits"] or []
        rows.begin()
        waiting: list[tuple[int, int, int | None, int]] = [(len(splits) - 1, 0, None, 0)]
        while waiting:
            level, number, parent, side = waiting.pop()
            if level < 0:
                rows.leaf(values[number], parent, side)
                continue
            column = columns[splits[level]["float_feature_index"]]
            border, above = np.float32(splits[level]["border"]), column["nan_value_treatment"] == "AsTrue"
            at = rows.split(column["flat_feature_index"], border, not above, parent, side)
            waiting += [(level - 1, number | 1 << level, at, 1), (level - 1, number, at, 0)]
    return rows.ensemble()


class _Rows:
    """Nodes put one below the other, tree by tree; each is told its parent's number and its side: 0 left, 1 right."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._nodes: list[tuple[int, float, bool, int]] = []  # feature, split, missing_left, leaf
        self._children: list[list[int]] = []
        self._values: list[np.ndarray] = []

    def begin(self) -> None:
        """A new tree."""
        self._first.append(len(self._nodes))

    def split(self, feature: int, value: Any, missing_left: bool, parent: int | None, side: int) -> int:
        """A node that splits; its number."""
        return self._add((feature, float(value), bool(missing_left), -1), parent, side)

    def leaf(self, value: Sequence[float] | np.ndarray, parent: int | None, side: int) -> None:
        """A leaf."""
        self._add((0, 0.0, False, len(self._values)), parent, side)
        self._values.append(np.asarray(value, dtype=np.float32))

    def _add(self, node: tuple[int, float, bool, int], parent: int | None, side: int) -> int:
        number = len(self._nodes) - self._first[-1]
        self._nodes.append(node)
        self._children.append([0, 0])
        if parent is not None:
            self._children[self._first[-1] + parent][side] = number
        return number

    def ensemble(self) -> Ensemble:
        """All of it."""
        feature, split, missing_left, leaf = zip(*self._nodes, strict=True) if self._nodes else ((), (), (), ())
        children = np.array(self._children, dtype=np.int64).reshape(-1, 2)
        return Ensemble(
            np.array([*self._first, len(self._nodes)], dtype=np.int64), np.array(feature, dtype=np.int64),
            np.array(split, dtype=np.float32), children[:, 0], children[:, 1], np.array(missing_left, dtype=bool),
            np.array(leaf, dtype=np.int64), np.array(self._values, dtype=np.float32).reshape(-1, N_CLASSES), True,
        )  # fmt: skip
