"""lightgbm: LightGBM's leaf-wise trees of one sector and one label, early-stopped on validation."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Section
from gpupipe.estimators.boosting.hosted import FitTask, HostedEstimator, HostRows
from gpupipe.estimators.contract import FileForm
from gpupipe.estimators.ensemble import Ensemble, EnsembleBuilder
from gpupipe.estimators.three_classes import CLASS_COUNT
from gpupipe.runtime.errors import UserError

MOST_BINS = 255  # more would not fit a byte
ALMOST_ZERO = np.float32(1e-35)  # LightGBM's kZeroThreshold


@dataclass(frozen=True)
class LightGBM:
    """Leaf-wise trees up to `leaves` and `depth` (0: any); with min_rows in each leaf.

    >>> LightGBM(rounds=60).leaves, LightGBM(leaves=1).problem()
    (8, ('leaves', '2 or more'))
    """

    rounds: int = 200
    learning_rate: float = 0.05
    depth: int = 0
    leaves: int = 8
    min_rows: int = 40
    l2: float = 10.0
    subsample: float = 0.5
    column_share: float = 0.5  # of the columns, drawn for each node

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        return None if self.leaves >= 2 else ("leaves", "2 or more")


def parameters(section: LightGBM, max_bin: int, threads: int, seed: int) -> dict[str, Any]:
    """LightGBM's parameters. `deterministic` and rows first: the trees do not depend on the number of threads."""
    return {
        "objective": "multiclass",
        "num_class": CLASS_COUNT,
        "metric": "multi_logloss",
        "boost_from_average": False,  # margins start at init_score
        "learning_rate": section.learning_rate,
        "max_depth": section.depth or -1,
        "num_leaves": section.leaves,
        "min_data_in_leaf": section.min_rows,
        "lambda_l2": section.l2,
        "bagging_fraction": section.subsample,
        "bagging_freq": int(section.subsample < 1),
        "feature_fraction_bynode": section.column_share,
        "max_bin": min(max_bin, MOST_BINS),
        "num_threads": threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


class ThreadGate:
    """Lets calls run at the same time that ask for the same number of threads; another number waits for them.

    LightGBM keeps one number for the whole process (LGBM_DEFAULT_NUM_THREADS), and sizes buffers by it that it fills
    later: a fit of one thread beside one of four could write behind their end.

        >>> gate = ThreadGate()
        >>> with gate.threads(2), gate.threads(2):
        ...     gate.users
        2
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._threads, self.users = 0, 0

    @contextlib.contextmanager
    def threads(self, number: int) -> Iterator[None]:
        """A call that uses so many threads. It must not wait for one with another number."""
        with self._changed:
            self._changed.wait_for(lambda: self.users == 0 or self._threads == number)
            self._threads, self.users = number, self.users + 1
        try:
            yield
        finally:
            with self._changed:
                self.users -= 1
                self._changed.notify_all()


_gate = ThreadGate()


def fit(task: FitTask, section: LightGBM) -> tuple[bytes, int]:
    """Boost; the model as LightGBM's text, and its rounds. num_threads, which is no part of the model, is set to 0."""
    with _gate.threads(task.threads):
        return _fit(task, section)


def _fit(task: FitTask, section: LightGBM) -> tuple[bytes, int]:
    import lightgbm

    chosen = parameters(section, task.max_bin, task.threads, task.seed)
    rows = _dataset(task.fit, chosen)
    early: dict[str, Any] = {}
    if task.validation is not None and task.patience:
        early = {
            "valid_sets": [_dataset(task.validation, chosen, rows)],
            "callbacks": [lightgbm.early_stopping(task.patience, verbose=False)],
        }
    booster = lightgbm.train(chosen, rows, task.rounds, **early)
    rounds = booster.best_iteration if early else task.rounds
    text = booster.model_to_string(num_iteration=rounds)
    return re.sub(r"^\[num_threads: \d+\]$", "[num_threads: 0]", text, flags=re.MULTILINE).encode(), rounds


def _dataset(part: HostRows, chosen: dict[str, Any], reference: Any = None) -> Any:
    import lightgbm

    return lightgbm.Dataset(
        part.X, part.label, weight=part.weight, init_score=part.margin, reference=reference, params=chosen
    )


def load(content: bytes) -> Any:
    """A lightgbm.Booster of its text."""
    import lightgbm

    return lightgbm.Booster(model_str=content.decode())


def ensemble(booster: Any) -> Ensemble:
    """All trees of a lightgbm.Booster of three classes.

    LightGBM compares float64 values, x <= split: for x in float32 that is x <= the largest float32 not above split.
    It takes values within 1e-35 of 0 for 0, which moves splits as near to 0 as that. NaN goes to the side of training,
    or is taken for 0 where there was none in training.
    Raises UserError for categories, or where zeros are taken for missing, neither of which gpupipe trains.
    """
    nodes = EnsembleBuilder(CLASS_COUNT)
    for k, tree in enumerate(booster.dump_model()["tree_info"]):
        waiting: list[tuple[dict[str, Any], int | None, int]] = [(tree["tree_structure"], None, 0)]
        nodes.begin()
        while waiting:
            node, parent, side = waiting.pop()
            if "split_feature" not in node:
                value = np.zeros(CLASS_COUNT)
                value[k % CLASS_COUNT] = node["leaf_value"]
                nodes.leaf(value, parent, side)
                continue
            if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
                raise UserError("categories, or zeros for missing, cannot be exported")
            threshold = float(node["threshold"])
            missing_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0
            at = nodes.split(node["split_feature"], _split_of_lightgbm(threshold), missing_left, parent, side)
            waiting += [(node["right_child"], at, 1), (node["left_child"], at, 0)]
    return nodes.ensemble()


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


class LightGBMTrees(HostedEstimator):
    """LightGBM's leaf-wise trees.

    >>> trees = LightGBMTrees()
    >>> trees.sections["lightgbm"].start("quality").rounds, trees.by_label, trees.suffix
    (600, True, '.txt')
    """

    name = "lightgbm"
    sections = {
        "lightgbm": Section(
            LightGBM,
            {"fast": LightGBM(rounds=60, learning_rate=0.1), "quality": LightGBM(rounds=600, learning_rate=0.025)},
        )
    }
    package = "lightgbm"
    chart_style = ("m7", "triangle-left", (5, 1))
    suffix = ".txt"
    model_kinds = ("lightgbm",)
    file_forms = {".txt": FileForm(b"tree\n", b"\nend of parameters\n\npandas_categorical:null\n")}

    def train(self, task: FitTask, section: LightGBM) -> tuple[bytes, int]:
        """See `fit`."""
        return fit(task, section)

    def load_booster(self, content: bytes) -> Any:
        """See `load`."""
        return load(content)

    def ensemble(self, booster: Any) -> Ensemble:
        """See `ensemble`."""
        return ensemble(booster)

    def margin(self, booster: Any, X: np.ndarray) -> np.ndarray:
        """float64 (n_rows, 3)."""
        with _gate.threads(1):
            return booster.predict(X, raw_score=True, num_threads=1)
