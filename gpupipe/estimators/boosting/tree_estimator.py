"""What the estimators of XGBoost trees share: bins, loading, prediction, search ranges and estimates of memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.estimators.boosting import tree_onnx
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.boosting.tree_model import TreeModel, has_a_tree_a_round, predict_trees
from gpupipe.estimators.contract import Estimator, FileForm, Range, Shape
from gpupipe.estimators.ensemble import TreeReader
from gpupipe.estimators.onnx_graph import CriticalValues, OnnxGraph
from gpupipe.runtime.placement import Size, Work

# What is searched. Rounds are not: early stopping finds them, up to the section's own `rounds`.
BOOSTER_RANGES = {
    "learning_rate": Range(0.02, 0.3, log=True),
    "min_child_weight": Range(1.0, 300.0, log=True),
    "l2": Range(0.3, 300.0, log=True),
    "subsample": Range(0.25, 1.0, among=(0.25, 1 / 3, 0.5, 1.0)),  # trees take 4, 3 or 2 samples of the rows in turn
    "column_share": Range(0.1, 1.0),
}
DEPTH_WISE = {"depth": Range(2, 8, whole=True), **BOOSTER_RANGES}
LEAF_WISE = {"leaves": Range(4, 64, log=True, whole=True), **BOOSTER_RANGES}


def tree_ranges(values: Booster) -> Mapping[str, Range]:
    """What is searched of a booster's settings: its depth, or its leaves where depth is 0."""
    return DEPTH_WISE if values.depth else LEAF_WISE


def boosted_bytes(shape: Shape, subsample: float) -> float:
    """Bytes of margins and derivatives of a pooled booster of all targets, whose trees see `subsample` of the rows."""
    outputs = 2 * shape.n_targets
    # Margins of three classes, two derivatives of each output, XGBoost's copy of these for a sample.
    fitted = shape.fit * (12 * shape.n_targets + 8 * outputs) + shape.fit * 8 * outputs * subsample
    return fitted + shape.validation * 20 * shape.n_targets


def boosting_work(stage: Booster, size: Size, share: float, together: bool) -> Work:
    """The rounds of a booster, whose trees see a share of the rows; together: all targets in one booster, else each."""
    levels = stage.depth or math.log2(stage.leaves) + 1  # leaf-wise, a split looks at the smaller half of its rows
    outputs = 2 * (size.targets if together else 1)
    boosters = 1 if together else size.targets
    return Work("boosting", stage.rounds * boosters, size.rows * size.columns * outputs * levels, share)


class TreeEstimator(Estimator):
    """An estimator whose models are `TreeModel`s.

    >>> from gpupipe.estimators import registry
    >>> [item.name for item in registry.estimators() if isinstance(item, TreeEstimator)]
    ['xgb_joint', 'xgb_hist', 'xgb_leafwise', 'random_forest']
    """

    uses_bins = True
    model_kinds = ("trees",)
    file_forms = {".ubj": FileForm(b"{", b"}", near_end=b"version[")}  # a brace alone could end half a file

    def predict(self, models: Sequence[TreeModel], rows: FeatureRows) -> Any:
        """Probabilities float32 (n_rows, n_models, 3)."""
        return predict_trees(models, rows.X, rows.device)

    def load(self, files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> TreeModel:
        """A saved model again."""
        return TreeModel.from_files(files, description, boosters)

    def to_onnx(self, model: TreeModel, graph: OnnxGraph) -> str:
        """See `tree_onnx.probabilities`."""
        return tree_onnx.probabilities(graph, model)

    def critical_values(self, model: TreeModel, reader: TreeReader) -> CriticalValues:
        """All splits."""
        return tree_onnx.critical_values(tree_onnx.stages(model, reader))

    def resumable(self, models: Sequence[TreeModel]) -> bool:
        """Whether boosters that started from another run's were grown with one tree a round, as they are now."""
        stages = [stage for model in models if model.warm for stage in model.stages]
        boosters = {id(stage.booster): stage.booster for stage in stages}
        return all(map(has_a_tree_a_round, boosters.values()))

    def feature_gains(self, models: Sequence[TreeModel]) -> list[tuple[tuple[int, float], ...]]:
        """For each stage of the models: (column, total gain of its splits)."""
        return [
            tuple(
                (int(name.removeprefix("f")), float(np.sum(gain)))
                for name, gain in stage.booster.get_score(importance_type="total_gain").items()
            )
            for model in models
            for stage in model.stages
        ]
