"""Tree models: one label's probabilities from XGBoost boosters whose margins add up."""

from __future__ import annotations

import itertools
import json
import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators.earlier import WarmStart, of_description
from gpupipe.estimators.training_set import Late, in_blocks
from gpupipe.kernels.softmax import softmax_probability
from gpupipe.runtime.device import Device, DeviceError, device_of
from gpupipe.targets.classes import BUY, HOLD, N_CLASSES, SELL

SMALLEST_PROBABILITY = 1e-6
N_OUTPUTS = 2  # of a booster for each of its labels: activity and direction (see add_activity)
SUFFIXES = (".ubj", ".sector.ubj")  # of a model's first stage and of its second


def cuts_of(matrix: Any) -> list[np.ndarray]:
    """The cuts of an xgboost.QuantileDMatrix between the bins of each column, float32, for `gpupipe.compute_bins`."""
    pointers, values = matrix.get_quantile_cut()
    # The first value of a column is below all of its values and the last above them.
    return [values[a + 1 : b - 1] for a, b in itertools.pairwise(pointers)]


@dataclass(frozen=True)
class Stage:
    """The first `rounds` rounds of a booster, whose outputs of this label begin at `column`: activity, direction."""

    booster: Any
    rounds: int
    column: int


@dataclass(frozen=True)
class TreeModel:
    """Probabilities of one label: link(bias + sum of the stages' margins), corrected for class weights.

    The link "softmax" needs differences of margins only, and with "identity" the three are shares that add up to 1:
    so a stage of two outputs leaves nothing out.

    bias: float32 (3,), log shares for link "softmax", shares for link "identity".
    class_weight: float32 (3,); training with weights w makes probabilities proportional to w * p, so they are
        divided by w and put back to a sum of 1.
    scope: "pool" if it was fitted on all sectors, "sector" if some or all of it is the sector's own.
    warm: of its first stage, where that went on from an earlier run's.
    """

    stages: tuple[Stage, ...]
    bias: np.ndarray
    link: str
    class_weight: np.ndarray
    scope: str
    warm: WarmStart | None = None

    def predict(self, X: Any, device: Device) -> Any:
        """float32 (n_rows, 3): probabilities of SELL, HOLD, BUY."""
        return predict_trees([self], X, device)[:, 0]

    def files(self) -> dict[str, bytes]:
        """What to write: `.ubj` for the first stage, `.sector.ubj` for a second."""
        return {SUFFIXES[k]: _saved(stage.booster) for k, stage in enumerate(self.stages)}

    def describe(self) -> dict[str, Any]:
        """What `from_files` needs beside the files, as JSON holds it."""
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
    def from_files(cls, files: dict[str, bytes], about: dict[str, Any], boosters: dict[bytes, Any]) -> TreeModel:
        """The model again. `boosters` remembers loaded boosters by content, so that equal files are loaded once."""
        import xgboost

        stages = []
        for k, (rounds, column) in enumerate(zip(about["rounds"], about["column"], strict=True)):
            content = files[SUFFIXES[k]]
            if content not in boosters:
                boosters[content] = xgboost.Booster(model_file=bytearray(content))
            stages.append(Stage(boosters[content], rounds, column))
        return cls(
            tuple(stages),
            np.array(about["bias"], dtype=np.float32),
            about["link"],
            np.array(about["class_weight"], dtype=np.float32),
            about["scope"],
            of_description(about),
        )


_placed: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_placing = threading.Lock()
_saved_bytes: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()


def _saved(booster: Any) -> bytes:
    """A booster in XGBoost's UBJSON; made once, as all labels and sectors share the pooled ones."""
    content = _saved_bytes.get(booster)
    if content is None:
        content = _saved_bytes[booster] = bytes(booster.save_raw("ubj"))
    return content


def limit_threads(boosters: Iterable[Any], threads: int) -> None:
    """Let XGBoost's own among loaded boosters predict with so many threads."""
    import xgboost

    for booster in boosters:
        if isinstance(booster, xgboost.Booster):
            booster.set_param({"nthread": threads})


def predict_trees(models: Sequence[TreeModel], X: Any, device: Device) -> Any:
    """float32 (n_rows, n_models, 3), of models that may share boosters."""
    out = device.xp.empty((X.shape[0], len(models), N_CLASSES), dtype=device.xp.float32)
    if X.shape[0] == 0:
        return out
    said = iter(margins([stage for model in models for stage in model.stages], X))
    for k, model in enumerate(models):
        total = device.xp.tile(device.asarray(model.bias), (X.shape[0], 1))
        for _ in model.stages:
            if (margin := next(said)) is not None:
                add_activity(total, margin)
        out[:, k] = to_probability(total, model.link, model.class_weight, device)
    return out


def margins(stages: Sequence[Stage], X: Any) -> list[Any]:
    """The margins of each stage, float32 (n_rows, 2), where X is; None of a stage of no rounds.

    A booster that stages share walks each of its trees once, whatever their numbers of rounds.
    """
    boosters = {id(stage.booster): stage.booster for stage in stages}
    found: dict[tuple[int, int], Any] = {}
    for key, booster in boosters.items():
        done, total = 0, None
        for rounds in sorted({stage.rounds for stage in stages if id(stage.booster) == key} - {0}):
            grown = stage_margin(booster, X, done, rounds)
            total = grown if total is None else total + grown
            found[key, rounds], done = total, rounds
    return [
        found[id(one.booster), one.rounds][:, one.column : one.column + N_OUTPUTS] if one.rounds else None
        for one in stages
    ]


def stage_margin(booster: Any, X: Any, first: int, last: int) -> Any:
    """Margins of rounds [first, last) alone, float32 (n_rows, n_outputs), where X is."""
    kind = device_of(X.values if isinstance(X, Late) else X).kind
    with _placing:
        # A loaded or cut booster forgets its device, and would copy X to the host without a word.
        if _placed.get(booster, "cpu") != kind:
            booster.set_param({"device": kind})
            _placed[booster] = kind
    found = [
        booster.inplace_predict(block, iteration_range=(first, last), predict_type="margin").reshape(len(block), -1)
        for block in in_blocks(X)
    ]
    return found[0] if len(found) == 1 else device_of(found[0]).xp.concatenate(found)


def add_activity(total: Any, margin: Any) -> None:
    """Add activity u and direction d (n_rows, 2 * n_labels) to total (n_rows, 3 * n_labels): SELL u - d, BUY u + d."""
    activity, direction = margin[:, 0::N_OUTPUTS], margin[:, 1::N_OUTPUTS]
    total[:, SELL::N_CLASSES] += activity - direction
    total[:, BUY::N_CLASSES] += activity + direction


def to_probability(margin: Any, link: str, class_weight: np.ndarray, device: Device) -> Any:
    """Probabilities float32 (n_rows, 3 * n_labels) of margins (link softmax) or of shares (link identity).

    Of shares those of SELL and BUY are read, and HOLD's is what they leave.
    class_weight: float32 (3 * n_labels,), or (3,).
    """
    xp = device.xp
    if link == "identity":
        shares = margin.reshape(margin.shape[0], -1, N_CLASSES).copy()
        shares[:, :, HOLD] = 1 - shares[:, :, SELL] - shares[:, :, BUY]
        grouped = xp.clip(shares, SMALLEST_PROBABILITY, None) / device.asarray(class_weight).reshape(-1, N_CLASSES)
        # Added in the order of the classes: how a library adds up an axis is its own affair, and may change.
        total = grouped[:, :, SELL] + grouped[:, :, HOLD] + grouped[:, :, BUY]
        return (grouped / total[:, :, None]).reshape(margin.shape)
    corrected = margin - xp.log(device.asarray(class_weight))
    probability = xp.empty_like(corrected)
    softmax_probability(margin.shape[0], corrected, probability)
    return probability


def parameters(stage: config.Booster, device: Device, max_bin: int, threads: int, seed: int) -> dict[str, Any]:
    """XGBoost parameters of a stage; `stage.subsample` is not among them: see Fold.samples."""
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


def refuse_silent_cpu(booster: Any, device: Device) -> None:
    """Raise DeviceError if XGBoost was asked for CUDA and trained on the CPU, which it does without a word."""
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


def go_on(booster: Any, rounds: int, booster_parameters: dict[str, Any]) -> Any:
    """The first `rounds` rounds of a finished booster, to be trained further, on other bins too.

    Its trees hold values, not bins, so what it says does not change.
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
    """What XGBoost's JSON of a booster holds as its learner (doc/model.schema)."""
    return json.loads(bytes(booster.save_raw("json")))["learner"]


def first_rounds(booster: Any, rounds: Iterable[int]) -> Any:
    """The booster cut after the largest of `rounds` (at least one), as nothing asks for more."""
    return booster[: max(1, *rounds)]
