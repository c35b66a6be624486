"""direction: which symbols of a time will do better than the others, as a side for the moves that trees expect."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config, Section
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import onnx_graph
from gpupipe.estimators.boosting import gradient_boosting, tree_model, tree_onnx
from gpupipe.estimators.boosting.gradient_boosting import Stopping
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.boosting.tree_estimator import boosted_bytes
from gpupipe.estimators.boosting.tree_model import TreeModel
from gpupipe.estimators.boosting.xgb_joint import XgbJoint, pooled_models
from gpupipe.estimators.contract import NPZ, Estimator, EstimatorSettings, Shape
from gpupipe.estimators.ensemble import TreeReader
from gpupipe.estimators.linear.direction_slope import sides_of_ranks, sides_of_touches, slope_of
from gpupipe.estimators.linear.rank_regression import moments_of, parts_in_time, ranks_within
from gpupipe.estimators.linear.softmax_linear import Scaler, scaled_columns, scaler_of
from gpupipe.estimators.linear.softmax_regression import Weights
from gpupipe.estimators.onnx_graph import CriticalValues, OnnxGraph
from gpupipe.estimators.three_classes import CLASS_COUNT, LOWER, MIDDLE, UPPER
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.features.expressions import Across
from gpupipe.features.formulas import FEATURES
from gpupipe.features.formulas.cross_sectional import RANK
from gpupipe.runtime.device import Device
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.placement import SAME_BITS

TOUCH = np.zeros((CLASS_COUNT, 1), np.float32)  # probability of either outer class, from those of three
TOUCH[[LOWER, UPPER]] = 1
N_PARTS = 5  # of the fitted times: the slope is measured on each part with a score that was fitted on the others
NO_MOVE = np.float32(-1e30)  # a margin whose class has probability 0


@dataclass(frozen=True)
class DirectionScore:
    """The regression of a row's rank within its time; penalties are in shares of the fitted rows.

    A column of variance 1 that no other explains keeps 1 / (1 + penalty) of its coefficient. Columns that are ranks
    within the sector have a penalty of their own: they hold nothing that all symbols share, and last longer.

        >>> DirectionScore().rank_l2, DirectionScore(l2=3.0).clip
        (1.0, 4.0)
    """

    l2: float = 10.0
    rank_l2: float = 1.0
    clip: float = 4.0  # standardised columns are clipped at this many standard deviations

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it: columns may explain one another fully."""
        return next(((name, "more than 0") for name in ("l2", "rank_l2") if not getattr(self, name) > 0), None)


@dataclass(frozen=True)
class DirectionModel:
    """Probabilities of one target: of a touch by trees, and of its side by the score.

    P(upper) = P(touch) * p and P(lower) = P(touch) * (1 - p), with p = 1 / (1 + exp(-(log_odds + slope * score))).
    So the log-odds of the upper against the lower class rank rows as the score does, where the slope is above 0.

    touch: the model whose outer classes together are a touch.
    coefficients: float32 (n_inputs,), of the scaler's columns; the score has a standard deviation of 1 on fitted rows.
    log_odds: of the upper class against the lower one among the fitted rows.
    slope: >= 0, log-odds for one standard deviation of the score.

        >>> from gpupipe.runtime.device import pick
        >>> bias, ones = np.log(np.float32([0.1, 0.8, 0.1])), np.ones(3, np.float32)
        >>> touch = TreeModel((), bias, "softmax", ones, "pool")
        >>> scaler = Scaler(np.zeros(1, np.float32), np.ones(1, np.float32), np.array([], int), clip=4.0)
        >>> model = DirectionModel(touch, scaler, np.ones(1, np.float32), log_odds=0.0, slope=0.5)
        >>> predict_direction([model], np.float32([[0], [2]]), pick("cpu"))[:, 0].round(3)
        array([[0.1  , 0.8  , 0.1  ],
               [0.054, 0.8  , 0.146]], dtype=float32)
    """

    touch: TreeModel
    scaler: Scaler
    coefficients: np.ndarray
    log_odds: float
    slope: float

    @property
    def scope(self) -> str:
        """Of the trees; the score is fitted on the same rows."""
        return self.touch.scope

    def files(self) -> dict[str, bytes]:
        """The trees, and one `.npz` file of the score, numpy arrays without objects."""
        buffer = io.BytesIO()
        np.savez(
            buffer, coefficients=self.coefficients, mean=self.scaler.mean, scale=self.scaler.scale,
            flagged=self.scaler.flagged, clip=np.float64(self.scaler.clip),
        )  # fmt: skip
        return {**self.touch.files(), ".npz": buffer.getvalue()}

    def describe(self) -> dict[str, Any]:
        """What `Direction.load` needs in addition to the files."""
        touch = self.touch.describe()
        return {
            "kind": "direction", "scope": self.scope, "rounds": touch["rounds"], "log_odds": self.log_odds,
            "slope": self.slope, "touch": touch,
        }  # fmt: skip

    def score(self, X: Any, device: Device) -> Any:
        """float32 (n_rows,), on the device."""
        weights = Weights(self.coefficients[:, None].astype(np.float64), np.zeros(1))
        return self.scaler.margin(X, weights, device)[:, 0]


def predict_direction(models: Sequence[DirectionModel], X: Any, device: Device) -> Any:
    """Probabilities float32 (n_rows, n_models, 3); models that share a score compute it once."""
    xp, ones = device.xp, np.ones(CLASS_COUNT, np.float32)
    out = tree_model.predict_trees([model.touch for model in models], X, device)
    scores: dict[bytes, Any] = {}
    for k, model in enumerate(models):
        key = model.coefficients.tobytes() + model.scaler.mean.tobytes() + model.scaler.scale.tobytes()
        if key not in scores:
            scores[key] = model.score(X, device)
        half = np.float32(0.5) * (np.float32(model.log_odds) + np.float32(model.slope) * scores[key])
        margin = xp.full((X.shape[0], CLASS_COUNT), NO_MOVE, dtype=xp.float32)
        margin[:, LOWER], margin[:, UPPER] = -half, half
        side = tree_model.to_probability(margin, "softmax", ones, device)
        touch = out[:, k, LOWER] + out[:, k, UPPER]
        for side_class in (LOWER, UPPER):
            out[:, k, side_class] = touch * side[:, side_class]
    return out


class Direction(Estimator):
    """P(touch) of trees over all groups, and its side by a score that ranks the symbols of each time.

    The score is fitted on the rank of the return over the shortest horizon among all rows of its time: what moves all
    symbols together is no part of it. One slope turns it into the log-odds of the side; it is measured on the touched
    rows of the validation part, for all targets together, and shrunk by its standard error: to 0 where there is none.

    >>> direction = Direction()
    >>> direction.sections["direction"].start("fast").l2, direction.sections["direction_touch"].start("fast").rounds
    (10.0, 80)
    """

    name = "direction"
    ranks_returns = True
    sections = {
        "direction": Section(DirectionScore, {}),
        "direction_touch": Section(Booster, {
            name: XgbJoint.sections["joint"].start(name) for name in ("fast", "balanced", "quality")
        }),
    }  # fmt: skip
    shared_settings = ("early_stopping",)
    uses_bins = True
    spreads = False
    pooled_sample = "direction_touch"
    chart_style = ("m7", "arrow", (5, 2))
    first_cost_us = (85.0, 0.1)
    on_host = SAME_BITS
    kernels = (*gradient_boosting.KERNELS, "linear.scaled_margin")
    model_kinds = ("direction",)
    file_forms = {**XgbJoint.file_forms, **NPZ}

    def fit_pool(
        self, training_set: TrainingSet, settings: EstimatorSettings, frozen_choices: Sequence[DirectionModel] | None
    ) -> list[DirectionModel]:
        """One model for each target; the number of rounds and the slope are choices of the final fit.

        UserError for a dataset without the return of the shortest horizon.
        """
        rounds = [model.touch.stages[0].rounds for model in frozen_choices] if frozen_choices else None
        touch = pooled_models(training_set, settings.direction_touch, Stopping(settings.early_stopping, rounds))
        scaler, coefficients, slope = _fit_score(training_set, settings.direction)
        shares = training_set.shares()
        log_odds = np.log(shares[:, UPPER] / shares[:, LOWER])
        models = [
            DirectionModel(trees, scaler, coefficients, float(odds), 0.0)
            for trees, odds in zip(touch, log_odds, strict=True)
        ]
        if frozen_choices:
            slope = frozen_choices[0].slope
        elif _contradicted(training_set, models):
            slope = 0.0
        return [dataclasses.replace(model, slope=slope) for model in models]

    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[DirectionModel],
        frozen_choices: Sequence[DirectionModel] | None,
    ) -> list[DirectionModel]:
        """The pooled models: a sector alone has too few rows to tell its own direction."""
        return list(pooled)

    def predict(self, models: Sequence[DirectionModel], rows: FeatureRows) -> Any:
        """Probabilities float32 (n_rows, n_models, 3)."""
        return predict_direction(models, rows.X, rows.device)

    def load(self, files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> DirectionModel:
        """A saved model again."""
        with np.load(io.BytesIO(files[".npz"]), allow_pickle=False) as saved:
            scaler = Scaler(saved["mean"], saved["scale"], saved["flagged"], float(saved["clip"]))
            coefficients = saved["coefficients"]
        touch = TreeModel.from_files(files, description["touch"], boosters)
        return DirectionModel(touch, scaler, coefficients, description["log_odds"], description["slope"])

    def to_onnx(self, model: DirectionModel, graph: OnnxGraph) -> str:
        """The trees' probabilities, with the touch split by the sigmoid of the score."""
        probabilities = tree_onnx.probabilities(graph, model.touch)
        touch = graph.add("MatMul", [probabilities, TOUCH])
        columns, slope = scaled_columns(graph, model.scaler), np.float32(model.slope)
        odds = onnx_graph.linear(graph, columns, model.coefficients[:, None] * slope, np.array([model.log_odds]))
        upper, lower = graph.add("Sigmoid", [odds]), graph.add("Sigmoid", [graph.add("Neg", [odds])])
        middle = graph.add("Gather", [probabilities, np.array([MIDDLE])], axis=1)
        parts = {
            LOWER: graph.add("Mul", [touch, lower]), MIDDLE: middle, UPPER: graph.add("Mul", [touch, upper])
        }  # fmt: skip
        return graph.add("Concat", [parts[k] for k in range(CLASS_COUNT)], axis=1)

    def critical_values(self, model: DirectionModel, reader: TreeReader) -> CriticalValues:
        """The splits of the trees, and the scales of the columns."""
        trees = tree_onnx.critical_values(tree_onnx.stages(model.touch, reader))
        return dataclasses.replace(trees, mean=model.scaler.mean, scale=model.scaler.scale)

    def sampled_shares(self, settings: Config) -> tuple[list[float], list[float]]:
        """The share of the trees."""
        return [settings.direction_touch.subsample], []

    def fit_bytes(self, shape: Shape, settings: Config, sparing: bool) -> float:
        """What the trees hold, or the scaled columns of the largest group, twice."""
        trees = boosted_bytes(shape, settings.direction_touch.subsample)
        return max(trees, 8.0 * shape.fit * shape.largest * (shape.n_features + shape.late_columns))

    def feature_gains(self, models: Sequence[DirectionModel]) -> list[tuple[tuple[int, float], ...]]:
        """Of the trees."""
        return XgbJoint().feature_gains([model.touch for model in models])


def _fit_score(training_set: TrainingSet, section: DirectionScore) -> tuple[Scaler, np.ndarray, float]:
    """(scaler, coefficients float32 (n_inputs,), slope): of a score with deviation 1 on the fitted rows; 0 for none."""
    device, parts, horizon = training_set.device, list(training_set.fit.values()), min(training_set.target.horizon_rows)
    scaler = scaler_of([rows.X for rows in parts], section.clip, device, training_set.total)
    ends = np.cumsum([rows.n for rows in parts])[:-1]
    time_ns = _joined(parts)
    rank = ranks_within(_joined(parts, _return(training_set)), time_ns)
    part = parts_in_time(time_ns, N_PARTS, horizon)
    penalty = np.full(scaler.n_inputs, section.l2)
    penalty[np.flatnonzero(_are_ranks(training_set))] = section.rank_l2
    moments = moments_of(
        (scaler.transform(rows.X, device) for rows in parts), np.split(rank, ends), np.split(part, ends), N_PARTS + 1,
        device,
    )  # fmt: skip
    whole = moments.ridge(penalty, range(N_PARTS + 1))
    out_of_fold = [moments.ridge(penalty, [k for k in range(N_PARTS) if k != left_out]) for left_out in range(N_PARTS)]
    weights = Weights(np.stack([*out_of_fold, whole], axis=1), np.zeros(N_PARTS + 1))
    scores = np.concatenate([device.to_host(scaler.margin(rows.X, weights, device)) for rows in parts])
    deviation = float(scores[:, N_PARTS].std(dtype=np.float64))
    if not deviation > 0:
        return scaler, np.zeros(scaler.n_inputs, np.float32), 0.0
    inside = part < N_PARTS
    unseen = scores[inside, part[inside]] / deviation
    slope = slope_of(sides_of_ranks(unseen, rank[inside], time_ns[inside]), horizon)
    return scaler, (whole / deviation).astype(np.float32), slope.shrunk


def _return(training_set: TrainingSet) -> str:
    """The name of the extra column of the return over the shortest horizon; UserError where the data lack it."""
    # Cache keys cover X and y, not this column: it cannot change alone, as other closes change X of later rows.
    name = f"forward_return_{min(training_set.target.horizon_rows)}"
    if any(name not in rows.dataset.extra for rows in training_set.fit.values()):
        raise UserError(f"direction learns from the column {name!r}, which this workload's datasets do not hold")
    return name


def _joined(parts: Sequence[RowView], name: str = "") -> np.ndarray:
    """An extra column of several blocks of rows on the host, or (no name) their times."""
    columns = [rows.device.to_host(rows.extra(name) if name else rows.time_ns) for rows in parts]
    return np.concatenate(columns)


def _are_ranks(training_set: TrainingSet) -> np.ndarray:
    """bool (n_columns,): whether a column is a rank within the sector."""
    names: Any = next(iter(training_set.fit.values())).dataset.names
    if training_set.columns is not None:
        names = [names[k] for k in training_set.columns]
    series = [FEATURES[name].series if name in FEATURES else None for name in names]
    return np.array([isinstance(column, Across) and column.output == RANK for column in series])


def _contradicted(training_set: TrainingSet, models: Sequence[DirectionModel]) -> bool:
    """Whether the touches of the validation part clearly go against the score; False without one."""
    device, parts = training_set.device, list(training_set.validation.values())
    if not parts:
        return False
    score = np.concatenate([device.to_host(models[0].score(rows.X, device)) for rows in parts])
    y = np.concatenate([device.to_host(rows.y) for rows in parts])
    sides = sides_of_touches(score, y, _joined(parts), np.array([model.log_odds for model in models]))
    return slope_of(sides, max(training_set.target.horizon_rows)).is_reversed
