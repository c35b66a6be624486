"""A random forest: scikit-learn's on a CPU, cuML's on a GPU; kept as arrays, walked by the kernel of trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gpupipe.kernels.trees import leaves_of_trees
from gpupipe.store.content_store import pack_arrays, unpack_arrays
from gpupipe.workloads.bonds.families.contract import Family, FitRows, Imputer, Model, Report, mean_squared
from gpupipe.workloads.bonds.families.libraries import estimator
from gpupipe.workloads.bonds.settings import ForestSettings

ROWS_AT_ONCE = 1 << 16  # rows whose leaves are held together
NODES = ("root", "column", "below", "left", "right", "value")


class ForestModel(Model):
    """Trees as arrays. root int32 (n_trees,); column, left, right int32, below, value float32 (n_nodes,).

    A node tests X[column] < below; in a leaf column is -1, and value is the prediction.
    """

    kind: ClassVar = "forest"

    def __init__(self, nodes: Mapping[str, np.ndarray], median: np.ndarray, found: Mapping[str, Any]) -> None:
        self.nodes, self.imputer, self.found = dict(nodes), Imputer(median), dict(found)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """See `Model`."""
        nodes, filled = self.nodes, self.imputer(X)
        unknown_left = np.zeros(len(nodes["column"]), np.int8)  # nothing is unknown
        total = np.empty(len(X), np.float32)
        for begin in range(0, len(X), ROWS_AT_ONCE):
            some = np.ascontiguousarray(filled[begin : begin + ROWS_AT_ONCE])
            leaf = np.empty((len(some), len(nodes["root"])), np.int32)
            leaves_of_trees(
                len(some), some, nodes["root"], nodes["column"], nodes["below"], nodes["left"], nodes["right"],
                unknown_left, leaf,
            )  # fmt: skip
            total[begin : begin + len(some)] = nodes["value"][leaf].mean(axis=1, dtype=np.float64)
        return total

    def files(self) -> dict[str, bytes]:
        """See `Model`."""
        return {".forest.npz": pack_arrays({**self.nodes, "median": self.imputer.median})}

    def about(self) -> dict[str, Any]:
        """See `Model`."""
        return {"trees": len(self.nodes["root"]), **self.found}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> ForestModel:
        """See `Model`."""
        arrays = unpack_arrays(files[".forest.npz"])
        median = arrays.pop("median")
        return cls(arrays, median, {})


class Forest(Family):
    """The family."""

    name: ClassVar = "forest"
    model: ClassVar = ForestModel

    def space(self, trial: Any) -> dict[str, Any]:
        """See `Family`."""
        return {
            "max_depth": trial.suggest_int("max_depth", 3, 14),
            "max_features": trial.suggest_float("max_features", 0.15, 1.0),
            "least_leaf": trial.suggest_int("least_leaf", 5, 200, log=True),
        }

    def fit(self, rows: FitRows, settings: ForestSettings, report: Report | None = None) -> ForestModel:
        """See `Family`. cuML adds no trees to a forest, so that there all are fitted at once."""
        imputer = Imputer.of(rows.X)
        X, y = imputer(rows.X), rows.y.astype(np.float64)
        step = settings.n_trees if rows.device == "cuda" else min(settings.trees_at_once, settings.n_trees)
        forest = estimator(
            "forest", rows.device, n_estimators=step, max_depth=settings.max_depth, random_state=rows.seed,
            max_features=settings.max_features,
            max_samples=samples_of_a_tree(settings.max_samples, len(X), rows.device),
            min_samples_leaf=settings.least_leaf, n_jobs=rows.threads, warm_start=True,
        )  # fmt: skip
        losses: list[float] = []
        best = 0
        while True:
            forest.fit(X, y)
            model = ForestModel(_nodes_of(forest), imputer.median, {"validation_losses": losses})
            losses.append(mean_squared(model.predict(rows.validation_x), rows.validation_y))
            if report is not None:
                report(len(losses), losses[-1])
            best = int(np.argmin(losses))
            if forest.n_estimators >= settings.n_trees or len(losses) - 1 - best >= settings.patience:
                break
            forest.set_params(n_estimators=min(forest.n_estimators + step, settings.n_trees))
        return _first_trees(model, min((best + 1) * step, settings.n_trees))


def samples_of_a_tree(share: float, n_rows: int, device: str) -> float:
    """The rows that a tree sees, at least one, as the device's library takes them: a number, or for cuML a share.

    >>> samples_of_a_tree(0.3, 10, "cpu"), samples_of_a_tree(0.3, 10, "cuda"), samples_of_a_tree(0.3, 2, "cpu")
    (3, 0.325, 1)
    """
    count = max(1, int(share * n_rows))
    # A quarter of a row more, so that rounding, down or to the nearest number, gives the rows again.
    return min(1.0, (count + 0.25) / n_rows) if device == "cuda" else count


def _nodes_of(forest: Any) -> dict[str, np.ndarray]:
    """The arrays of a fitted forest; children are numbered across trees."""
    if hasattr(forest, "as_sklearn"):
        forest = forest.as_sklearn()
    trees = [tree.tree_ for tree in forest.estimators_]
    begin = np.cumsum([0, *(tree.node_count for tree in trees)])
    leaf = np.concatenate([tree.children_left < 0 for tree in trees])
    numbers = np.arange(begin[-1])

    def child(name: str) -> np.ndarray:
        shifted = np.concatenate([getattr(tree, name) + at for tree, at in zip(trees, begin, strict=False)])
        return np.where(leaf, numbers, shifted).astype(np.int32)

    threshold = np.concatenate([tree.threshold for tree in trees])
    return {
        "root": begin[:-1].astype(np.int32),
        "column": np.where(leaf, -1, np.concatenate([tree.feature for tree in trees])).astype(np.int32),
        "below": np.where(leaf, 0, _below(threshold)).astype(np.float32),
        "left": child("children_left"),
        "right": child("children_right"),
        "value": np.concatenate([tree.value[:, 0, 0] for tree in trees]).astype(np.float32),
    }


def _below(threshold: np.ndarray) -> np.ndarray:
    """float32: x < below is x <= threshold for every float32 x, where the threshold is float64."""
    nearest = threshold.astype(np.float32)
    floor = np.where(nearest > threshold, np.nextafter(nearest, np.float32(-np.inf)), nearest)
    return np.nextafter(floor, np.float32(np.inf))


def _first_trees(model: ForestModel, n: int) -> ForestModel:
    """The model with its first n trees, which validation chose."""
    nodes = model.nodes
    end = nodes["root"][n] if n < len(nodes["root"]) else len(nodes["column"])
    kept = {name: nodes[name][: n if name == "root" else end] for name in NODES}
    return ForestModel(kept, model.imputer.median, model.found)
