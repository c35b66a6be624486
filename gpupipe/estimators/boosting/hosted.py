"""Boosted trees of other libraries, of one group and one target: what LightGBM and CatBoost share. In host memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.config import Config
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.row_view import RowView, whole
from gpupipe.estimators.boosting import tree_model, tree_onnx
from gpupipe.estimators.boosting.xgb_by_label import needs_pool, too_few
from gpupipe.estimators.contract import Estimator, EstimatorSettings, Shape
from gpupipe.estimators.ensemble import Ensemble, TreeReader
from gpupipe.estimators.onnx_graph import CriticalValues, OnnxGraph, softmax
from gpupipe.estimators.registry import require_package
from gpupipe.estimators.three_classes import CLASS_COUNT
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime.device import Device
from gpupipe.runtime.placement import HOST_LIBRARY


@dataclass(frozen=True)
class HostRows:
    """Rows of one target as these libraries take them, all known.

    X: float32 (n, n_features), host memory.  label: int64 (n,).  weight: float32 (n,).
    margin: float64 (n, 3), where boosting starts.

        >>> margin = np.log([[0.2, 0.5, 0.3]] * 2)
        >>> rows = HostRows(np.zeros((2, 5), np.float32), np.array([0, 2]), np.ones(2, np.float32), margin)
        >>> rows.X.shape, rows.margin.shape
        ((2, 5), (2, 3))
    """

    X: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    margin: np.ndarray


@dataclass(frozen=True)
class FitTask:
    """One fit. patience: rounds without a better validation log-loss; 0, or no validation, grows all rounds.

    >>> rows = HostRows(np.zeros((2, 5), np.float32), np.array([0, 2]), np.ones(2, np.float32), np.zeros((2, 3)))
    >>> task = FitTask(rows, validation=None, rounds=60, patience=8, max_bin=64, threads=1, seed=1)
    >>> task.fit.X.shape, task.rounds
    ((2, 5), 60)
    """

    fit: HostRows
    validation: HostRows | None
    rounds: int
    patience: int
    max_bin: int
    threads: int
    seed: int


@dataclass(frozen=True)
class HostedModel:
    """Probabilities of one target: softmax(bias + the booster's margin), corrected for class weights.

    library: the estimator that fitted it.
    content: the file from which `booster` was loaded, so that what predicts is what was saved.
    bias, class_weight, scope: see TreeModel.

        >>> from gpupipe.estimators import registry
        >>> library, bias = registry.estimator("lightgbm"), np.log(np.float32([0.2, 0.5, 0.3]))
        >>> model = HostedModel(library, None, b"tree", 60, bias, np.ones(3, np.float32), "sector")
        >>> model.files(), model.describe()["kind"], model.describe()["rounds"]
        ({'.txt': b'tree'}, 'lightgbm', [60])
    """

    library: HostedEstimator
    booster: Any
    content: bytes
    rounds: int
    bias: np.ndarray
    class_weight: np.ndarray
    scope: str

    def files(self) -> dict[str, bytes]:
        """One file in the library's own format."""
        return {self.library.suffix: self.content}

    def describe(self) -> dict[str, Any]:
        """What `load` needs in addition to the file, as JSON holds it."""
        return {
            "kind": self.library.name,
            "scope": self.scope,
            "bias": [float(v) for v in self.bias],
            "class_weight": [float(v) for v in self.class_weight],
            "rounds": [self.rounds],
        }


@dataclass(frozen=True)
class _HostBlock:
    """The rows of several views, one after the other, in host memory; weight may be None."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None


class HostedEstimator(Estimator):
    """An estimator of another library of boosted trees.

    suffix: of the file that holds a model. Its settings are the section of its own name.

        >>> from gpupipe.estimators import registry
        >>> [(item.name, item.suffix) for item in registry.estimators() if isinstance(item, HostedEstimator)]
        [('lightgbm', '.txt'), ('catboost', '.cbm')]
    """

    suffix: ClassVar[str]
    shared_settings = ("early_stopping", "min_positives")
    by_label = True
    kernels = ("softmax.softmax_probability",)
    spreads = False
    on_host = HOST_LIBRARY

    @abstractmethod
    def train(self, task: FitTask, section: Any) -> tuple[bytes, int]:
        """The content of a model's file, and the number of rounds in it. Threads change no byte of it."""

    @abstractmethod
    def load_booster(self, content: bytes) -> Any:
        """The library's booster of a file's content."""

    @abstractmethod
    def ensemble(self, booster: Any) -> Ensemble:
        """All trees of a booster; UserError for a booster that the form cannot hold."""

    @abstractmethod
    def margin(self, booster: Any, X: np.ndarray) -> np.ndarray:
        """float (n_rows, 3): all rounds added up, of host rows."""

    def fit_pool(
        self,
        training_set: TrainingSet,
        settings: EstimatorSettings,
        frozen_choices: Sequence[HostedModel | None] | None,
    ) -> list[HostedModel | None]:
        """Over all groups, the targets of which some group has too few positives; None for the others."""
        require_package(self)
        needed = needs_pool(training_set, settings.min_positives, frozen_choices)
        if not any(needed):
            return [None] * training_set.n_targets
        device = training_set.device
        blocks = tuple(_on_host(list(rows.values()), device) for rows in (training_set.fit, training_set.validation))
        return [
            self._fit(training_set, None, k, settings, blocks, frozen_choices) if needed[k] else None
            for k in range(training_set.n_targets)
        ]

    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[HostedModel | None],
        frozen_choices: Sequence[HostedModel] | None,
    ) -> list[HostedModel]:
        """One model for each target of a group: its own, or the pooled one where it has too few positives."""
        few = (
            [model.scope == "pool" for model in frozen_choices]
            if frozen_choices
            else too_few(training_set, group, settings.min_positives)
        )
        validation = [training_set.validation[group]] if training_set.validation else []
        blocks = tuple(_on_host(rows, training_set.device) for rows in ([training_set.fit[group]], validation))
        return [
            shared
            if few[k] and shared is not None
            else self._fit(training_set, group, k, settings, blocks, frozen_choices)
            for k, shared in enumerate(pooled)
        ]

    def _fit(
        self,
        training_set: TrainingSet,
        group: str | None,
        target: int,
        settings: EstimatorSettings,
        blocks: tuple[_HostBlock | None, ...],
        frozen_choices: Sequence[HostedModel | None] | None,
    ) -> HostedModel:
        """Fit one target on its known rows, and load what was saved. blocks: fitted and validation rows."""
        fit, validation = blocks
        assert fit is not None
        groups = None if group is None else [group]
        weight = training_set.weights(groups)[target]
        bias = np.log(training_set.shares(groups)[target]).astype(np.float32)
        weighted = bias + np.log(weight)
        frozen = frozen_choices[target] if frozen_choices else None
        section = getattr(settings, self.name)
        # Validated without weights: that is the loss of the corrected probabilities.
        validated = None
        if validation is not None:
            plain = _HostBlock(validation.X, validation.y, None)
            validated = _known_rows(plain, target, bias, np.ones(CLASS_COUNT, np.float32))
        task = FitTask(
            _known_rows(fit, target, weighted, weight),
            validated,
            frozen.rounds if frozen else section.rounds,
            settings.early_stopping,
            training_set.max_bin,
            training_set.threads if group is None else 1,
            training_set.seed,
        )
        content, rounds = self.train(task, section)
        scope = "pool" if group is None else "sector"
        return HostedModel(self, self.load_booster(content), content, rounds, weighted, weight, scope)

    def predict(self, models: Sequence[HostedModel], rows: FeatureRows) -> Any:
        """Probabilities float32 (n_rows, n_models, 3) on the rows' device; the rows are copied to the host once."""
        X, device = rows.X, rows.device
        xp = device.xp
        out = xp.empty((X.shape[0], len(models), CLASS_COUNT), dtype=xp.float32)
        if X.shape[0] == 0:
            return out
        host = device.to_host(X)
        for k, model in enumerate(models):
            # CatBoost gives columns one after the other, and kernels take rows.
            margin = np.ascontiguousarray(model.bias + self.margin(model.booster, host), dtype=np.float32)
            out[:, k] = tree_model.to_probability(device.asarray(margin), "softmax", model.class_weight, device)
        return out

    def load(self, files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> HostedModel:
        """A saved model again; UserError where the library is not installed."""
        require_package(self)
        content = files[self.suffix]
        if content not in boosters:
            boosters[content] = self.load_booster(content)
        bias, class_weight = (np.array(description[name], dtype=np.float32) for name in ("bias", "class_weight"))
        return HostedModel(
            self, boosters[content], content, description["rounds"][0], bias, class_weight, description["scope"]
        )

    def to_onnx(self, model: HostedModel, graph: OnnxGraph) -> str:
        """The softmax of the bias and the booster's margin."""
        ensemble = graph.reader.read(model.booster, self.ensemble)
        return softmax(graph, tree_onnx.margin(graph, [ensemble], model.bias), model.class_weight)

    def critical_values(self, model: HostedModel, reader: TreeReader) -> CriticalValues:
        """All splits."""
        return tree_onnx.critical_values([reader.read(model.booster, self.ensemble)])

    def fit_bytes(self, shape: Shape, settings: Config, sparing: bool) -> float:
        """Floats of the largest group, twice: the library bins them itself."""
        return 4.0 * (shape.fit + shape.validation) * shape.n_features * 2 * shape.largest


def _on_host(parts: Sequence[RowView], device: Device) -> _HostBlock | None:
    """Row blocks as one in host memory; None for no blocks."""
    if not parts:
        return None

    def joined(name: str) -> np.ndarray:
        blocks = [device.to_host(whole(getattr(rows, name))) for rows in parts]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    return _HostBlock(joined("X"), joined("y"), None if parts[0].weight is None else joined("weight"))


def _known_rows(rows: _HostBlock, target: int, bias: np.ndarray, class_weight: np.ndarray) -> HostRows:
    """Rows with a label and a weight; the others are left out, as these libraries count even rows of weight 0."""
    known = rows.y[:, target] >= 0
    if rows.weight is not None:
        known &= rows.weight[:, target] > 0
    classes = rows.y[known, target].astype(np.int64)
    weight = class_weight[classes]
    if rows.weight is not None:
        weight = weight * rows.weight[known, target]
    margin = np.tile(bias.astype(np.float64), (len(classes), 1))
    return HostRows(rows.X if known.all() else rows.X[known], classes, weight, margin)
