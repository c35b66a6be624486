"""The registry of estimators: names and where their classes are. A new estimator is one line here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gpupipe.config import Config, ConfigError, Section
from gpupipe.dataset.lookback import Lookback
from gpupipe.estimators.contract import Estimator, EstimatorSettings, Model
from gpupipe.runtime.errors import UserError

# In the order in which they are trained and shown. Loaded when they are first asked for.
ESTIMATORS = {
    "xgb_joint": "gpupipe.estimators.boosting.xgb_joint:XgbJoint",
    "xgb_hist": "gpupipe.estimators.boosting.xgb_by_label:XgbHist",
    "xgb_leafwise": "gpupipe.estimators.boosting.xgb_by_label:XgbLeafwise",
    "random_forest": "gpupipe.estimators.boosting.random_forest:RandomForest",
    "linear": "gpupipe.estimators.linear.softmax_linear:SoftmaxLinear",
    "meta_learner": "gpupipe.estimators.stacking.meta_learner:MetaLearner",
    "direction": "gpupipe.estimators.linear.direction:Direction",
    "lightgbm": "gpupipe.estimators.boosting.lightgbm_trees:LightGBMTrees",
    "catboost": "gpupipe.estimators.boosting.catboost_trees:CatBoostTrees",
    "sequence": "gpupipe.estimators.torch.sequence:SequenceNetwork",
}


def estimator(name: str) -> Estimator:
    """The estimator of that name; ConfigError for an unknown name."""
    if name not in ESTIMATORS:
        raise ConfigError(f"unknown model family {name!r}; known: {', '.join(ESTIMATORS)}")
    return _load(ESTIMATORS[name])


@functools.cache
def _load(place: str) -> Estimator:
    module, _, class_name = place.partition(":")
    item = getattr(importlib.import_module(module), class_name)()
    assert isinstance(item, Estimator), place
    return item


def estimators(names: Iterable[str] = ()) -> list[Estimator]:
    """The estimators of these names; all of them for none."""
    return [estimator(name) for name in (tuple(names) or ESTIMATORS)]


def module_of(name: str) -> str:
    """The dotted name of the module whose code an estimator is."""
    return ESTIMATORS[name].partition(":")[0]


def sections(names: Sequence[str] = ()) -> dict[str, Section]:
    """The sections of the settings of these estimators, or of all."""
    return {key: section for item in estimators(names) for key, section in item.sections.items()}


def optional(names: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the estimators that need a package of their own."""
    return tuple(item.name for item in estimators(names) if item.package)


def judged(names: Sequence[str]) -> tuple[str, ...]:
    """Names of those among these that the verdict judges."""
    return tuple(item.name for item in estimators(names) if item.judged) if names else ()


def stacking(names: Sequence[str]) -> str | None:
    """The estimator among these that learns from the others' predictions; None without one."""
    return next((item.name for item in estimators(names) if item.stacks), None) if names else None


def ranker(names: Sequence[str]) -> str:
    """The estimator among these whose log-odds order symbols by their return; "" without one."""
    return next((item.name for item in estimators(names) if item.ranks_returns), "") if names else ""


def lookback(settings: Config) -> Lookback:
    """The rows before a row that estimators of a run read, or that its settings ask for; none with `rows` 0."""
    wanted = [item.lookback(settings) for item in estimators(settings.training.models)]
    return Lookback.longest([Lookback(settings.split.lookback_rows), *(item for item in wanted if item is not None)])


def reads_rows(settings: Config) -> bool:
    """Whether an estimator of a run reads rows of features by themselves, and not windows alone."""
    base = [item for item in estimators(settings.training.models) if not item.stacks]
    selects = settings.ml.feature_selection_top_n > 0
    return selects or any(item.lookback(settings) is None for item in base)


def check_models(settings: Config) -> None:
    """ConfigError for estimators that cannot be trained together."""
    models = settings.training.models
    if not models or all(item.stacks for item in estimators(models)):
        stacked = next(item.name for item in estimators() if item.stacks)
        raise ConfigError(f"training.models: the {stacked} needs at least one other family to learn from")
    if not settings.training.spread:
        return
    for item in estimators(models):
        if not item.spreads and settings.training.pool == "all":
            raise ConfigError(
                f"training.spread: {item.name} cannot be fitted by several workers together: leave it out of "
                "training.models, or train every sector alone (training.pool=none)"
            )
    plain = {"feature_selection_top_n": 0, "gradient_sampling": False, "use_quantile_dmatrix": True}
    for name, value in plain.items():
        if getattr(settings.ml, name) != value:
            raise ConfigError(f"training.spread does not go with ml.{name}: set it to {str(value).lower()}")


def require(names: Sequence[str]) -> None:
    """Raise UserError, with the line that installs it, where the package of an optional estimator is missing."""
    for item in estimators(names):
        require_package(item)


def require_package(item: Estimator) -> None:
    """UserError where an estimator's package is missing; imports nothing."""
    if item.package and importlib.util.find_spec(item.package) is None:
        raise UserError(
            f"the model family {item.name} needs the package {item.package}, which is not installed: pip install -e "
            f"'.[{item.extra}]', or leave it out of --models"
        )


def load_model(files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> Model:
    """A saved model of any estimator; `boosters` is shared between calls, so that equal files are loaded once.

    ValueError, or the library's own error, for a file that is no model.
    """
    from gpupipe.estimators.columns import ColumnSubsetModel

    if "columns" in description:
        rest = {key: value for key, value in description.items() if key != "columns"}
        return ColumnSubsetModel(np.array(description["columns"], dtype=np.int64), load_model(files, rest, boosters))
    for item in estimators():
        if description["kind"] in item.model_kinds:
            for suffix, content in files.items():
                if (form := item.file_forms.get(f".{suffix.rpartition('.')[2]}")) is not None:
                    form.check(suffix, content)
            return item.load(files, description, boosters)
    raise ValueError(f"unknown kind of model {description['kind']!r}: it was written by a newer gpupipe")


def readable(settings: Config, name: str) -> EstimatorSettings:
    """The settings that an estimator may read."""
    return EstimatorSettings(settings, estimator(name))
