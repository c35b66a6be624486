"""sequence: one convolutional and recurrent network over the windows of all groups, with a head for each label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpupipe.config import Config, Section
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.lookback import Lookback
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import onnx_graph
from gpupipe.estimators.contract import NPZ, Estimator, EstimatorSettings, FileForm, Shape
from gpupipe.estimators.earlier import warm_start_of
from gpupipe.estimators.linear import softmax_regression
from gpupipe.estimators.linear.softmax_regression import RegressionRows, Weights
from gpupipe.estimators.onnx_graph import CriticalValues, OnnxGraph
from gpupipe.estimators.three_classes import CLASS_COUNT
from gpupipe.estimators.torch import onnx
from gpupipe.estimators.torch.architecture import ARCHITECTURES, Head
from gpupipe.estimators.torch.scaler import WindowScaler, fit_scaler
from gpupipe.estimators.torch.sequence_model import BIAS, FittedNetwork, SequenceModel, load_head, predict_sequence
from gpupipe.estimators.torch.settings import HOW_TRAINED, PRESETS, SequenceSettings
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.evaluation.paired_test import clearly_better
from gpupipe.kernels.softmax import softmax_log_loss
from gpupipe.runtime.errors import UserError

LOG_RETURN = "log_return_1"  # the head, and the extra column, of the next bar's log-return
WARM_RATE = 0.25  # share of the rate with which a network of an earlier run is trained on
HEAD_ITERATIONS = 50  # of a group's own heads, at most
STAR = "M0,-1L.3,-.4L1,-.3L.5,.2L.6,.9L0,.6L-.6,.9L-.5,.2L-1,-.3L-.3,-.4Z"  # of its points in charts, as a path


class SequenceNetwork(Estimator):
    """One network over all groups, with a head for each label, and heads of a group's own where they clearly help.

    The network reads a window of scaled features: convolutions over time, recurrent layers, dense layers (see
    `architecture`), trained with early stopping on validation rows. A group's heads are softmax regressions on the
    outputs of the network's last layer, pulled to the pooled heads.

    >>> from gpupipe.workloads import equity
    >>> SequenceNetwork().lookback(equity.make("fast"))
    Lookback(rows=59, max_gap_bars=0)
    """

    name = "sequence"
    sections = {"sequence": Section(SequenceSettings, PRESETS)}
    kinds = ("classes", "value")
    spreads = False
    warm_startable = True
    free_when_warm = tuple(f"sequence.{name}" for name in HOW_TRAINED)
    judged = True
    package = "torch"
    extra = "torch"
    chart_style = ("m8", STAR, (10, 3))
    first_cost_us = (4_000.0, 60.0)
    kernels = (
        "windows.column_moments", "windows.scaled_windows", "linear.linear_margin", "softmax.softmax_gradient",
        "softmax.softmax_log_loss", "softmax.softmax_probability",
    )  # fmt: skip
    model_kinds = ("sequence",)
    file_forms = {**NPZ, ".safetensors": FileForm(b"", b"")}  # safetensors checks the lengths that its header states

    def lookback(self, settings: Config) -> Lookback:
        """The rows of a window before its last."""
        return Lookback(settings.sequence.length - 1, settings.sequence.max_gap_bars)

    def fit_pool(
        self, training_set: TrainingSet, settings: EstimatorSettings, frozen_choices: Sequence[SequenceModel] | None
    ) -> list[SequenceModel]:
        """One model for each target, all on one network. The epochs, with their rates, are choices of the final fit."""
        if (n_classes := training_set.target.n_classes) > CLASS_COUNT:
            raise UserError(f"{self.name} predicts values, or two or three classes, not {n_classes}: leave it out")
        begun = next(iter(self.earlier.by_group.values()))[0].network if self.earlier else None
        rates = frozen_choices[0].network.rates if frozen_choices else None
        network = self._network(training_set, settings.sequence, begun, rates)
        warm = self.earlier.started() if self.earlier else None
        return [
            SequenceModel(network, k, training_set.weights()[k], training_set.pool_scope, warm=warm)
            for k in range(training_set.n_targets)
        ]

    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[SequenceModel],
        frozen_choices: Sequence[SequenceModel] | None,
    ) -> list[SequenceModel]:
        """One model for each target: the pooled one, with a head of the group's own where it clearly helps."""
        use_own = [model.own is not None for model in frozen_choices] if frozen_choices else None
        three_classes = training_set.target.n_classes == CLASS_COUNT  # as the regression has them
        if len(training_set.groups) == 1 or not three_classes or (use_own is not None and not any(use_own)):
            return list(pooled)
        tuned = _tuned_heads(training_set, group, settings.sequence, pooled)
        if use_own is None:
            use_own = _worthwhile(training_set, group, pooled, tuned)
        return [
            replace(model, own=own, scope="sector") if use else model
            for model, own, use in zip(pooled, tuned, use_own, strict=True)
        ]

    def predict(self, models: Sequence[SequenceModel], rows: FeatureRows) -> Any:
        """Probabilities float32 (n_rows, n_models, n_classes), or values (n_rows, n_models, 1)."""
        return predict_sequence(models, rows)

    def load(self, files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> SequenceModel:
        """A saved model again; models of equal files share a network."""
        from gpupipe.estimators.registry import require_package

        require_package(self)
        content = files[".safetensors"]
        if content not in boosters:
            boosters[content] = FittedNetwork.from_content(content)
        return SequenceModel(
            boosters[content], description["head"], np.array(description["class_weight"], np.float32),
            description["scope"], load_head(files[".npz"]) if ".npz" in files else None, warm_start_of(description),
        )  # fmt: skip

    def to_onnx(self, model: SequenceModel, graph: OnnxGraph) -> str:
        """Windows are scaled, go through the layers, and through the model's head."""
        [name] = add_heads([model], graph).values()
        return name

    def critical_values(self, model: SequenceModel, reader: Any) -> CriticalValues:
        """The scales of the columns."""
        scaler = model.network.scaler
        return CriticalValues(mean=scaler.offset, scale=scaler.scale)

    def fit_bytes(self, shape: Shape, settings: Config, sparing: bool) -> float:
        """Batches of windows, and what the layers keep of a step for its gradient."""
        section = settings.sequence
        layers = ARCHITECTURES[section.network]
        widths = sum(layer.channels for layer in layers.convolutions) + 8 * sum(cell.width for cell in layers.recurrent)
        return 4.0 * section.rows_of_step * section.length * (3 * shape.n_features + 3 * widths)

    def _network(
        self,
        training_set: TrainingSet,
        section: SequenceSettings,
        begun: FittedNetwork | None,
        rates: Sequence[float] | None,
    ) -> FittedNetwork:
        """Train a network on the rows of all groups. rates: of each epoch, if they are given; else validation stops."""
        import torch

        from gpupipe.estimators.torch.checkpoint import Checkpoint
        from gpupipe.estimators.torch.network import Network, arrays_of, load_arrays
        from gpupipe.estimators.torch.training import TrainingPlan, train
        from gpupipe.runtime.device import torch_on

        device, learned = training_set.device, _learned(training_set, section)
        torch_on(device.kind)
        scaler = begun.scaler if begun else fit_scaler(
            [rows.features for rows in training_set.fit.values()], section.scaling, section.clip
        )  # fmt: skip
        generator = torch.Generator().manual_seed(training_set.seed)
        n_columns = scaler.n_columns
        network = Network(ARCHITECTURES[section.network], section.length, n_columns, learned.heads, generator)
        arrays = begun.arrays if begun else {**arrays_of(network), BIAS: learned.first_biases}
        load_arrays(network, arrays)
        network = network.to(device.kind)
        plan = TrainingPlan.of(section, training_set.seed, from_start=begun is not None)
        if begun:
            plan = replace(plan, rate=plan.rate * WARM_RATE)
        if rates is not None:
            plan = replace(plan, epochs=len(rates), rates=tuple(rates))
        context = self.context
        checkpoint = None if context.checkpoints is None else Checkpoint(context.checkpoints, context.key)
        fit = learned.windows(training_set.fit, section, scaler, weighted=True)
        validated: tuple[Any, Any] = (None, None)
        if rates is None:
            validated = learned.windows(_thinned(training_set.validation, section), section, scaler, weighted=False)
        trained = train(
            network, fit[0], fit[1], validated[0], validated[1], learned.losses, plan, checkpoint,
            lambda result: context.detail(_words(result, plan.epochs, rates is None)), threads=training_set.threads,
        )  # fmt: skip
        columns = tuple(trained.history[0].row) if trained.history else ("epoch",)
        history = np.array([[_number(row[name]) for name in columns] for row in (r.row for r in trained.history)])
        return FittedNetwork(
            section.network, section.length, learned.heads, arrays_of(network), scaler, learned.centre,
            learned.deviation, (*(begun.rates if begun else ()), *trained.rates),
            history.reshape(len(trained.history), len(columns)), columns,
        )  # fmt: skip


def _words(result: Any, epochs: int, stops: bool) -> str:
    """How far a training is, for a person."""
    of = f"epoch {result.epoch} of {'at most ' if stops else ''}{epochs}"
    validation = "" if result.validation_loss is None else f", on validation {result.validation_loss:.4f}"
    return f"{of}, loss {result.loss:.4f}{validation}"


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


@dataclass(frozen=True)
class _Learned:
    """What a network learns: its heads, how each is measured, and where their biases begin."""

    heads: tuple[Head, ...]
    losses: Sequence[Any]
    centre: np.ndarray
    deviation: np.ndarray
    first_biases: np.ndarray
    columns: Callable[[RowView], list[Any]]

    def windows(
        self, parts: Mapping[str, RowView], section: SequenceSettings, scaler: WindowScaler, weighted: bool
    ) -> tuple[Any, Any]:
        """Windows of the rows of all groups, and their targets; only rows that are fitted have weights."""
        from gpupipe.estimators.torch.losses import HeadTargets
        from gpupipe.estimators.torch.windows import Windows

        views = list(parts.values())
        windows = Windows([view.features for view in views], section.length, scaler)
        xp = views[0].device.xp
        columns = [xp.concatenate(column) for column in zip(*map(self.columns, views), strict=True)]
        n_values = len(self.heads) - views[0].n_targets
        weights: list[Any] = [None] * len(self.heads)
        if weighted and views[0].weight is not None:
            joined = xp.concatenate([view.weight for view in views])
            weights = [*(joined[:, k] for k in range(joined.shape[1])), *[None] * n_values]
        return windows, HeadTargets.of(columns, weights, windows.torch_device)


def _learned(training_set: TrainingSet, section: SequenceSettings) -> _Learned:
    """The heads: one for each target, and one of the next bar's log-return where the settings ask for it."""
    from gpupipe.estimators.torch.losses import HeadLoss

    target, to_host = training_set.target, training_set.device.to_host
    heads = [Head(name, target.n_outputs) for name in target.names]
    losses, centre, deviation, biases = [], np.zeros(len(heads)), np.ones(len(heads)), []
    views = list(training_set.fit.values())
    if target.kind == "classes":
        shares, weights = training_set.shares(), training_set.weights()
        for head, share, weight in zip(heads, shares, weights, strict=True):
            balanced = tuple(weight.tolist()) if training_set.class_weight != "none" else None
            losses.append(HeadLoss(head, head_weight(share), balanced))
            biases.append(np.log(share * weight))
    else:
        y = np.concatenate([to_host(view.y) for view in views]).astype(np.float64)
        for k, head in enumerate(heads):
            centre[k], deviation[k] = _moments(y[:, k])
            losses.append(HeadLoss(head, 1.0, None, centre[k], deviation[k]))
            biases.append(np.zeros(1))
    returns = section.return_weight > 0
    if returns:
        if any(LOG_RETURN not in view.dataset.extra for view in views):
            raise UserError(
                f"sequence.return_weight = {section.return_weight:g}: this workload's datasets hold no {LOG_RETURN}; "
                "set it to 0, or use gpupipe sequence"
            )
        mean, spread = _moments(np.concatenate([to_host(view.extra(LOG_RETURN)) for view in views]).astype(np.float64))
        head = Head(LOG_RETURN, 1)
        heads.append(head)
        losses.append(HeadLoss(head, section.return_weight, None, mean, spread))
        centre, deviation = np.append(centre, mean), np.append(deviation, spread)
        biases.append(np.zeros(1))

    def columns(view: RowView) -> list[Any]:
        known = [view.y[:, k] for k in range(view.n_targets)]
        return [*known, view.extra(LOG_RETURN)] if returns else known

    return _Learned(tuple(heads), losses, centre, deviation, np.concatenate(biases).astype(np.float32), columns)


def head_weight(share: np.ndarray) -> float:
    """The weight of a class head's loss: 1 / sqrt(entropy of the class shares), nats.

    Log-losses add up as likelihoods do, by which a label of rare events counts next to nothing; divided by its entropy
    each label would count alike, and one of rare events would bring its noise. The root lies between the two.

        >>> round(head_weight(np.array([0.01, 0.98, 0.01])), 2), round(head_weight(np.full(3, 1 / 3)), 2)
        (2.99, 0.95)
    """
    return float(1 / np.sqrt(max(-(share * np.log(share)).sum(), 1e-3)))


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of the finite values; 0 and 1 where there is no spread."""
    values = values[np.isfinite(values)]
    mean, spread = (float(values.mean()), float(values.std())) if len(values) else (0.0, 0.0)
    return (mean, spread) if spread > 0 else (mean, 1.0)


def _thinned(validation: Mapping[str, RowView], section: SequenceSettings) -> Mapping[str, RowView]:
    """Validation rows at equal distances, at most `validation_rows` of them in all."""
    total = sum(view.n for view in validation.values())
    if not section.validation_rows or total <= section.validation_rows:
        return validation
    step = -(-total // section.validation_rows)
    return {
        group: RowView(view.dataset, view.rows[::step], view.targets, view.columns, view.storage)
        for group, view in validation.items()
    }


def _tuned_heads(
    training_set: TrainingSet, group: str, section: SequenceSettings, pooled: Sequence[SequenceModel]
) -> list[Weights]:
    """A head for each target: softmax regression on the outputs of the last layer, pulled to the pooled head."""
    from gpupipe.estimators.linear.softmax_linear import entropy

    rows, device = training_set.fit[group], training_set.device
    network = pooled[0].network
    Z = network.layer_outputs(rows.features)
    # Penalties are meant for columns of variance 1: one factor for all columns keeps what the network weighs.
    size = float(device.to_host(device.xp.sqrt((Z * Z).mean(dtype=device.xp.float64)))) or 1.0
    centre = softmax_regression.together([model.weights for model in pooled])
    fitted = softmax_regression.fit(
        RegressionRows([Z / np.float32(size)], [rows.y], training_set.weights(), [rows.weight]),
        Weights(centre.coefficients * size, centre.intercept), section.head_l2 * entropy(training_set),
        HEAD_ITERATIONS, device,
    )  # fmt: skip
    tuned = Weights(fitted.coefficients / size, fitted.intercept)
    return [softmax_regression.target_columns(tuned, k) for k in range(training_set.n_targets)]


def _worthwhile(
    training_set: TrainingSet, group: str, pooled: Sequence[SequenceModel], tuned: Sequence[Weights]
) -> list[bool]:
    """For each target, whether its own head is clearly better than the pooled one on the group's validation rows."""
    rows, device, xp = training_set.validation[group], training_set.device, training_set.device.xp
    Z = pooled[0].network.layer_outputs(rows.features)
    losses = []
    for weights in (tuned, [model.weights for model in pooled]):
        margin = softmax_regression.together(weights).margin(Z, device)
        margin = margin - device.asarray(np.log(training_set.weights().ravel()))
        loss = xp.empty(rows.y.shape, dtype=xp.float32)
        softmax_log_loss(rows.n, margin, rows.y, loss)
        losses.append(device.to_host(loss))
    time_ns = device.to_host(rows.time_ns)
    return [clearly_better(losses[0][:, k], losses[1][:, k], time_ns) for k in range(training_set.n_targets)]


def add_heads(models: Sequence[SequenceModel], graph: OnnxGraph) -> dict[str, str]:
    """Add a network with the heads of models that share it; the names of their predictions, by the heads' names."""
    network = models[0].network
    heads = [network.heads[model.head] for model in models]
    arrays = dict(network.arrays)
    for model in models:
        arrays |= replace(network, arrays=arrays).with_head(model.head, model.weights)
    margins = onnx.add_network(
        graph, graph.windows(network.length), arrays, network.layers, network.length, network.heads,
        [model.head for model in models], network.scaler,
    )  # fmt: skip
    names, begin = {}, 0
    for model, head in zip(models, heads, strict=True):
        end = begin + head.n_outputs
        margin = graph.add("Slice", [margins, np.array([begin]), np.array([end]), np.array([1])])
        begin = end
        if head.is_value:
            scaled = graph.add("Mul", [margin, np.float32(network.deviation[model.head])])
            names[head.name] = graph.add("Add", [scaled, np.float32(network.centre[model.head])])
        else:
            names[head.name] = onnx_graph.softmax(graph, margin, model.class_weight)
    return names


def network_of(model: Any) -> FittedNetwork:
    """The network of a model of this estimator, also of one that picks columns."""
    inner = getattr(model, "model", model)
    network: FittedNetwork = inner.network
    return network
