"""Tree models: probabilities of one target from XGBoost boosters whose margins add up."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.row_view import LazyRows, in_blocks
from gpupipe.estimators.boosting.device_memory import use_driver_pool
from gpupipe.estimators.boosting.settings import Booster
from gpupipe.estimators.earlier import WarmStart, warm_start_of
from gpupipe.estimators.three_classes import CLASS_COUNT, LOWER, MIDDLE, UPPER
from gpupipe.kernels.softmax import softmax_probability
from gpupipe.runtime.device import Device, DeviceError, device_of

SMALLEST_PROBABILITY = 1e-6
N_OUTPUTS = 2  # of a booster for each of its labels: activity and direction (see add_activity)
SUFFIXES = (".ubj", ".sector.ubj")  # of a model's first stage and of its second


@dataclass(frozen=True)
class Stage:
    """The first `rounds` rounds of a booster, whose outputs of this label begin at `column`: activity, direction.

    >>> booster = None  # an xgboost.Booster with two outputs for each of three targets
    >>> [Stage(booster, rounds, N_OUTPUTS * k).column for k, rounds in enumerate((40, 12, 30))]
    [0, 2, 4]
    """

    booster: Any
    rounds: int
    column: int


@dataclass(frozen=True)
class TreeModel:
    """Probabilities of one target: link(bias + sum of the stages' margins), corrected for class weights.

    The link "softmax" needs differences of margins only, and with "identity" the three are shares that add up to 1:
    so a stage of two outputs leaves nothing out.

    bias: float32 (3,), log shares for link "softmax", shares for link "identity".
    class_weight: float32 (3,); training with weights w makes probabilities proportional to w * p, so they are
        divided by w and put back to a sum of 1.
    scope: "pool" if it was fitted on all groups, "sector" if some or all of it is the group's own.
    warm: where its first stage started from an earlier run's model.

        >>> from gpupipe.runtime.device import pick
        >>> bias, ones = np.log(np.float32([0.2, 0.5, 0.3])), np.ones(3, np.float32)
        >>> model = TreeModel((Stage(None, rounds=0, column=0),), bias, "softmax", class_weight=ones, scope="pool")
        >>> model.predict(np.zeros((2, 5), np.float32), pick("cpu")).round(2)[0]
        array([0.2, 0.5, 0.3], dtype=float32)
    """

    stages: tuple[Stage, ...]
    bias: np.ndarray
    link: str
    class_weight: np.ndarray
    scope: str
    warm: WarmStart | None = None

    def predict(self, X: Any, device: Device) -> Any:
        """float32 (n_rows, 3): probabilities of the lower, middle and upper class."""
        return predict_trees([self], X, device)[:, 0]

    def files(self) -> dict[str, bytes]:
        """The files to write: `.ubj` for the first stage, `.sector.ubj` for a second."""
        return {SUFFIXES[k]: _saved(stage.booster) for k, stage in enumerate(self.stages)}

    def describe(self) -> dict[str, Any]:
        """What `from_files` needs in addition to the files, as JSON holds it."""
        return {
            "kind": "trees",
            "scope": self.scope,
            "link": self.link,
            "bias": [float(v) for v in self.bias],
            "class_weight": [float(v) for v in self.class_weight],
            "rounds": [stage.rounds for stage in self.stages],
            "column": [stage.column for stage in self.stages],
            **(self.warm.describe() if self.warm else {}),
        }

    @classmethod
    def from_files(cls, files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> TreeModel:
        """The model again. `boosters` remembers loaded boosters by content, so that equal files are loaded once."""
        import xgboost

        stages = []
        for k, (rounds, column) in enumerate(zip(description["rounds"], description["column"], strict=True)):
            content = files[SUFFIXES[k]]
            if content not in boosters:
                boosters[content] = xgboost.Booster(model_file=bytearray(content))
            stages.append(Stage(boosters[content], rounds, column))
        return cls(
            tuple(stages),
            np.array(description["bias"], dtype=np.float32),
            description["link"],
            np.array(description["class_weight"], dtype=np.float32),
            description["scope"],
            warm_start_of(description),
        )


_placed: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_placing = threading.Lock()
_saved_bytes: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()


def _saved(booster: Any) -> bytes:
    """A booster in XGBoost's UBJSON; made once, as all targets and groups share the pooled ones."""
    content = _saved_bytes.get(booster)
    if content is None:
        content = _saved_bytes[booster] = bytes(booster.save_raw("ubj"))
    return content


def limit_threads(boosters: Iterable[Any], threads: int) -> None:
    """Set the number of threads that loaded XGBoost boosters predict with; other libraries' are left alone."""
    import xgboost

    for booster in boosters:
        if isinstance(booster, xgboost.Booster):
            booster.set_param({"nthread": threads})


def predict_trees(models: Sequence[TreeModel], X: Any, device: Device) -> Any:
    """float32 (n_rows, n_models, 3), of models with one link that may share boosters; see `TreeModel`."""
    if not models or X.shape[0] == 0:
        return device.xp.empty((X.shape[0], len(models), CLASS_COUNT), dtype=device.xp.float32)
    (link,) = {model.link for model in models}
    margin_of_stage = iter(margins([stage for model in models for stage in model.stages], X))
    total = device.xp.tile(device.asarray(np.concatenate([model.bias for model in models])), (X.shape[0], 1))
    for k, model in enumerate(models):
        for _ in model.stages:
            if (margin := next(margin_of_stage)) is not None:
                add_activity(total[:, CLASS_COUNT * k : CLASS_COUNT * (k + 1)], margin)
    probability = to_probability(total, link, np.concatenate([model.class_weight for model in models]), device)
    return probability.reshape(X.shape[0], len(models), CLASS_COUNT)


def margins(stages: Sequence[Stage], X: Any) -> list[Any]:
    """The margins of each stage, float32 (n_rows, 2), where X is; None for a stage of no rounds.

    A booster that stages share walks each of its trees once, whatever their numbers of rounds.
    """
    boosters = {id(stage.booster): stage.booster for stage in stages}
    margin_of: dict[tuple[int, int], Any] = {}
    for key, booster in boosters.items():
        done, total = 0, None
        for rounds in sorted({stage.rounds for stage in stages if id(stage.booster) == key} - {0}):
            grown = stage_margin(booster, X, done, rounds)
            total = grown if total is None else total + grown
            margin_of[key, rounds], done = total, rounds
    return [
        margin_of[id(stage.booster), stage.rounds][:, stage.column : stage.column + N_OUTPUTS] if stage.rounds else None
        for stage in stages
    ]


def stage_margin(booster: Any, X: Any, first: int, last: int) -> Any:
    """Margins of rounds [first, last) alone, float32 (n_rows, n_outputs), where X is."""
    device = device_of(X.values if isinstance(X, LazyRows) else X)
    use_driver_pool(device.kind)
    with _placing:
        # A loaded or cut booster forgets its device, and would copy X to the host without a word.
        if _placed.get(booster, "cpu") != device.kind:
            booster.set_param({"device": device.kind})
            _placed[booster] = device.kind
    blocks = [
        booster.inplace_predict(block, iteration_range=(first, last), predict_type="margin").reshape(len(block), -1)
        for block in in_blocks(X)
    ]
    return blocks[0] if len(blocks) == 1 else device.xp.concatenate(blocks)


def add_activity(total: Any, margin: Any) -> None:
    """Add activity u and direction d (n_rows, 2 * n_targets) to total (n_rows, 3 * n_targets): u - d, 0, u + d."""
    activity, direction = margin[:, 0::N_OUTPUTS], margin[:, 1::N_OUTPUTS]
    total[:, LOWER::CLASS_COUNT] += activity - direction
    total[:, UPPER::CLASS_COUNT] += activity + direction


def to_probability(margin: Any, link: str, class_weight: np.ndarray, device: Device) -> Any:
    """Probabilities float32 (n_rows, 3 * n_labels) of margins (link softmax) or of shares (link identity).

    Of shares, those of the outer classes are read, and the middle class has what they leave.
    class_weight: float32 (3 * n_labels,), or (3,).
    """
    xp = device.xp
    if link == "identity":
        shares = margin.reshape(margin.shape[0], -1, CLASS_COUNT).copy()
        shares[:, :, MIDDLE] = 1 - shares[:, :, LOWER] - shares[:, :, UPPER]
        grouped = xp.clip(shares, SMALLEST_PROBABILITY, None) / device.asarray(class_weight).reshape(-1, CLASS_COUNT)
        # Added in the order of the classes: the order in which a library sums an axis may change.
        total = grouped[:, :, LOWER] + grouped[:, :, MIDDLE] + grouped[:, :, UPPER]
        return (grouped / total[:, :, None]).reshape(margin.shape)
    corrected = margin - device.asarray(np.log(class_weight))
    probability = xp.empty_like(corrected)
    softmax_probability(margin.shape[0], corrected, probability)
    return probability


def parameters(stage: Booster, device: Device, max_bin: int, threads: int, seed: int) -> dict[str, Any]:
    """XGBoost parameters of a stage; `stage.subsample` is not among them: see BinnedMatrix.samples."""
    growth = {"max_depth": stage.depth} if stage.depth else {"max_depth": 0, "max_leaves": stage.leaves}
    return {
        "tree_method": "hist",
        "device": device.xgboost,
        "grow_policy": "depthwise" if stage.depth else "lossguide",
        **growth,
        "eta": stage.learning_rate,
        "min_child_weight": stage.min_child_weight,
        "lambda": stage.l2,
        "colsample_bynode": stage.column_share,
        "max_bin": max_bin,
        "nthread": threads,
        "seed": seed,
        "base_score": 0.0,
    }


class Grower:
    """Adds rounds to one booster; all rounds of gpupipe are added here.

    XGBoost's CUDA updater reads the rows and bins of the first matrix that it meets and keeps them until a parameter
    is set (GPUHistMaker in src/tree/updater_gpu_hist.cu, 3.2 and later): a round on another matrix would be fitted on
    those of the first. There, samples that rounds take in turn are rows of one matrix (`binned_matrix.one_matrix`).
    Where a round is fitted on another matrix than the one before all the same, a parameter is set on CUDA, to the
    value that it has. The CPU updater looks at the matrix of every round, and nothing is set.

        >>> import xgboost
        >>> from gpupipe.runtime.device import pick
        >>> matrices = [xgboost.QuantileDMatrix(np.float32([[0], [1]]) + k, max_bin=64) for k in range(2)]
        >>> stage = Booster(depth=1, min_child_weight=0.0)
        >>> booster = vector_leaf(parameters(stage, pick("cpu"), 64, threads=1, seed=1), 1, matrices[0])
        >>> grower, gradient = Grower(booster, pick("cpu")), np.float32([[1, 0], [-1, 0]])
        >>> for k in range(3):
        ...     grower.boost(matrices[k % 2], k, gradient, np.ones((2, 2), np.float32))
        >>> booster.num_boosted_rounds()
        3
    """

    def __init__(self, booster: Any, device: Device) -> None:
        use_driver_pool(device.kind)
        self.booster, self._device = booster, device
        self._last: Callable[[], Any] | None = (
            None  # the matrix of the last round: a weak reference, as it may be large
        )
        with _placing:
            _placed[booster] = device.kind

    def boost(self, bins: Any, k: int, gradient: Any, hessian: Any) -> None:
        """Add round k, fitted on a matrix; gradient, hessian: float32 (n_rows, n_outputs), where the booster is."""
        if self._device.kind == "cuda" and self._last is not None and self._last() is not bins:
            self.booster.set_param({"device": self._device.xgboost})
        self._last = weakref.ref(bins)
        self.booster.boost(bins, k, grad=gradient, hess=hessian)


def refuse_silent_cpu(booster: Any, device: Device) -> None:
    """Raise DeviceError if XGBoost was asked for CUDA and silently trained on the CPU."""
    used = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    if not used.startswith(device.xgboost):
        raise DeviceError(
            f"XGBoost was asked to train on {device.xgboost} and trained on {used}: this build or this driver has no "
            "CUDA (gpupipe doctor shows the build); run with --device cpu if that is what you want"
        )


def vector_leaf(booster_parameters: dict[str, Any], n_labels: int, bins: Any) -> Any:
    """An empty booster whose leaves hold activity and direction of each label, to be trained on `bins`."""
    import xgboost

    return xgboost.Booster(
        {**booster_parameters, "multi_strategy": "multi_output_tree", "num_target": N_OUTPUTS * n_labels}, [bins]
    )


def resume(booster: Any, rounds: int, booster_parameters: dict[str, Any]) -> Any:
    """The first `rounds` rounds of a finished booster, to be trained further, also on other bins.

    Its trees hold values, not bins, so its predictions do not change.
    """
    grown = booster[:rounds]
    # XGBoost begins its random numbers anew: from another seed, or the columns of the first rounds come again.
    again = {**booster_parameters, "seed": booster_parameters["seed"] + rounds}
    # A file does not say how trees are grown, and a loaded booster would go on with a tree for each output.
    again["multi_strategy"] = "multi_output_tree"
    grown.set_param({name: value for name, value in again.items() if name != "base_score"})  # which it has
    return grown


def has_a_tree_a_round(booster: Any) -> bool:
    """Whether every round is one tree, with all outputs in its leaves."""
    return len(learner_of(booster)["gradient_booster"]["model"]["trees"]) == booster.num_boosted_rounds()


def learner_of(booster: Any) -> dict[str, Any]:
    """The learner in XGBoost's JSON of a booster (doc/model.schema)."""
    return json.loads(bytes(booster.save_raw("json")))["learner"]


def first_rounds(booster: Any, rounds: Iterable[int]) -> Any:
    """The booster cut after the largest of `rounds` (at least one): no target uses more."""
    cut = booster[: max(1, *rounds)]
    with _placing:
        if _placed.get(booster, "cpu") != "cpu":  # whether a cut booster keeps its device depends on XGBoost's version
            _placed[cut] = ""
    return cut
