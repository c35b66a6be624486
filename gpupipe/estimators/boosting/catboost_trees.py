"""catboost: CatBoost's symmetric trees of one sector and one label, early-stopped on validation."""

from __future__ import annotations

import json
import pathlib
import struct
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Section
from gpupipe.estimators.boosting.hosted import FitTask, HostedEstimator, HostRows
from gpupipe.estimators.ensemble import Ensemble, EnsembleBuilder
from gpupipe.estimators.three_classes import CLASS_COUNT
from gpupipe.runtime.errors import UserError

MAGIC = b"CBM1"
HEADER = struct.Struct("<4sI")  # MAGIC, and the length of the rest: a model of numbers alone has one part


@dataclass(frozen=True)
class CatBoost:
    """Symmetric trees: all nodes of a level ask the same.

    >>> CatBoost(rounds=60).depth, CatBoost(depth=17).problem()
    (4, ('depth', '1 to 16'))
    """

    rounds: int = 200
    learning_rate: float = 0.05
    depth: int = 4
    l2: float = 5.0
    subsample: float = 0.5  # 1: all rows, with weights that CatBoost draws for each tree
    column_share: float = 0.5  # of the columns, drawn for each level

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        return None if 1 <= self.depth <= 16 else ("depth", "1 to 16")


def parameters(section: CatBoost, max_bin: int, threads: int, seed: int) -> dict[str, Any]:
    """CatBoost's parameters. With all rows it draws its own (Bayesian) row weights for each tree, as by default."""
    rows = {"bootstrap_type": "Bernoulli", "subsample": section.subsample} if section.subsample < 1 else {}
    return {
        "loss_function": "MultiClass",
        "eval_metric": "MultiClass",
        "classes_count": CLASS_COUNT,
        "learning_rate": section.learning_rate,
        "depth": section.depth,
        "l2_leaf_reg": section.l2,
        "rsm": section.column_share,
        "border_count": max_bin - 1,
        "thread_count": threads,
        "random_seed": seed,
        "allow_writing_files": False,
        "logging_level": "Silent",
        **rows,
    }


def fit(task: FitTask, section: CatBoost) -> tuple[bytes, int]:
    """Boost; the model as CatBoost's binary (cbm), and its rounds."""
    import catboost

    chosen = parameters(section, task.max_bin, task.threads, task.seed) | {"iterations": task.rounds}
    validation = None
    if task.validation is not None and task.patience:
        validation = _pool(task.validation)
        chosen |= {"od_type": "Iter", "od_wait": task.patience, "use_best_model": True}
    booster = catboost.CatBoost(chosen)
    booster.fit(_pool(_with_all_classes(task.fit)), eval_set=validation)
    return _content(booster), int(booster.tree_count_)


def _with_all_classes(part: HostRows) -> HostRows:
    """A row without weight for each class that has none: CatBoost refuses margins for classes that it does not see."""
    missing = np.setdiff1d(np.arange(CLASS_COUNT), part.label)
    if missing.size == 0:
        return part
    more = np.zeros(missing.size, dtype=np.int64)  # the first row again
    return HostRows(
        np.concatenate([part.X, part.X[more]]), np.concatenate([part.label, missing]),
        np.concatenate([part.weight, np.zeros(missing.size, np.float32)]),
        np.concatenate([part.margin, part.margin[more]]),
    )  # fmt: skip


def _pool(part: HostRows) -> Any:
    import catboost

    return catboost.Pool(part.X, label=part.label, weight=part.weight, baseline=part.margin)


def _content(booster: Any) -> bytes:
    """The file without what is not the model: a number drawn anew each time, the hour, the history of the training."""
    about = booster.get_metadata()
    for name in list(about.keys()):
        del about[name]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.cbm")
        booster.save_model(str(path), format="cbm")
        return path.read_bytes()


def load(content: bytes) -> Any:
    """A catboost.CatBoost of its binary; ValueError where that is not as long as it says.

    CatBoost believes the length that a file begins with, and reads what lies behind it in memory.
    """
    import catboost

    announced = HEADER.size + HEADER.unpack(content[: HEADER.size])[1] if len(content) >= HEADER.size else 0
    if content[:4] != MAGIC or announced != len(content):
        raise ValueError(f"not a CatBoost binary of {len(content)} bytes")
    booster = catboost.CatBoost()
    booster.load_model(blob=content)
    return booster


def ensemble(booster: Any) -> Ensemble:
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
    columns = {column["feature_index"]: column for column in model["features_info"]["float_features"]}
    scale, bias = model["scale_and_bias"]
    if scale != 1 or any(bias):
        raise UserError("a scale or a bias of CatBoost cannot be exported")
    nodes = EnsembleBuilder(CLASS_COUNT)
    for tree in model["oblivious_trees"]:
        values = np.array(tree["leaf_values"]).reshape(-1, CLASS_COUNT)
        splits = tree["splits"] or []
        nodes.begin()
        waiting: list[tuple[int, int, int | None, int]] = [(len(splits) - 1, 0, None, 0)]
        while waiting:
            level, number, parent, side = waiting.pop()
            if level < 0:
                nodes.leaf(values[number], parent, side)
                continue
            column = columns[splits[level]["float_feature_index"]]
            border, above = np.float32(splits[level]["border"]), column["nan_value_treatment"] == "AsTrue"
            at = nodes.split(column["flat_feature_index"], border, not above, parent, side)
            waiting += [(level - 1, number | 1 << level, at, 1), (level - 1, number, at, 0)]
    return nodes.ensemble()


class CatBoostTrees(HostedEstimator):
    """CatBoost's symmetric trees.

    >>> trees = CatBoostTrees()
    >>> trees.sections["catboost"].start("fast").rounds, trees.by_label, trees.suffix
    (60, True, '.cbm')
    """

    name = "catboost"
    sections = {
        "catboost": Section(
            CatBoost,
            {"fast": CatBoost(rounds=60, learning_rate=0.1), "quality": CatBoost(rounds=600, learning_rate=0.025)},
        )
    }
    package = "catboost"
    chart_style = ("m8", "triangle-right", (3, 1))
    suffix = ".cbm"
    model_kinds = ("catboost",)

    def train(self, task: FitTask, section: CatBoost) -> tuple[bytes, int]:
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
        return booster.predict(X, prediction_type="RawFormulaVal", thread_count=1)
