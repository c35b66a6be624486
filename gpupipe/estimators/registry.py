"""The model families: a name, how to fit it for all sectors and for one, and how to predict."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators.earlier import Earlier
from gpupipe.estimators.training_set import Fold

log = logging.getLogger("gpupipe")

CAN_GO_ON = ("xgb_joint", "xgb_hist", "xgb_leafwise")  # from an earlier run's models
BY_BINS = ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest")  # families that see bins and no values
POOLED = {"xgb_joint": "joint", "random_forest": "forest"}  # families that always fit all sectors, and their sections


@dataclass(frozen=True)
class Family:
    """One model family; every function takes and gives a list with one model for each label.

    fit_pool(fold, settings, like): fitted on all sectors; an entry is None where no sector needs it.
    fit_sector(fold, sector, settings, pooled, like): for one sector.
    predict(models, X, device): probabilities float32 (n_rows, n_models, 3) of SELL, HOLD, BUY.

    `like` is None in the final fold, which chooses rounds and scope on validation; an out-of-fold round takes
    the choices of the final fold's models. A model has `files()`, `describe()`, `predict(X, device)` and a `scope`.
    """

    name: str
    fit_pool: Callable[[Fold, config.Config, Any], list[Any]]
    fit_sector: Callable[[Fold, str, config.Config, Any, Any], list[Any]]
    predict: Callable[[Sequence[Any], Any, Any], Any]


def family(name: str, earlier: Earlier | None = None) -> Family:
    """The family of that name (not meta_learner, which learns from the others: see meta.py).

    Its models take the whole feature matrix, also where the fold they were fitted on has some of its columns only.
    earlier: models that it goes on from, of one of CAN_GO_ON; the labels and sectors are those of the folds.
    """
    from gpupipe.estimators import columns

    inner = _family(name, earlier)
    from_nothing = _family(name)

    def from_earlier(fold: Fold) -> Family:
        return inner if earlier and earlier.has_columns(fold.columns) else from_nothing

    def fit_pool(fold: Fold, settings: config.Config, like: Any) -> list[Any]:
        fold = seen(name, fold)
        if earlier and not earlier.has_columns(fold.columns):
            log.warning(
                "%s is trained from nothing: it is fitted on other columns than the earlier run's (%s of them, there "
                "%s), as other ones are chosen or are twins in these data; nothing needs to be mended", name,
                *("all" if found is None else len(found) for found in (fold.columns, earlier.columns)),
            )  # fmt: skip
        inner = from_earlier(fold)
        return columns.wrap(inner.fit_pool(fold, settings, columns.unwrap(like)), fold.columns)

    def fit_sector(fold: Fold, sector: str, settings: config.Config, pooled: Any, like: Any) -> list[Any]:
        fold = seen(name, fold)
        made = from_earlier(fold).fit_sector(fold, sector, settings, columns.unwrap(pooled), columns.unwrap(like))
        return columns.wrap(made, fold.columns)

    def predict(fitted: Sequence[Any], X: Any, device: Any) -> Any:
        picked = [model.columns for model in fitted if isinstance(model, columns.Picked)]
        if not picked:
            return inner.predict(fitted, X, device)
        # Models of one family and sector come of one fold, and so have the same columns.
        assert len(picked) == len(fitted) and all((one == picked[0]).all() for one in picked)
        return inner.predict(columns.unwrap(fitted) or [], X[:, device.asarray(picked[0])], device)

    return Family(name, fit_pool, fit_sector, predict)


def seen(name: str, fold: Fold) -> Fold:
    """The fold that a family is fitted on: without columns that are twins to it. Made once."""
    from gpupipe.estimators import columns

    return fold.without_twins(columns.distinct_columns, columns.only) if name in BY_BINS else fold


def prepare(names: Sequence[str], fold: Fold, settings: config.Config) -> None:
    """Make what families of trees share of a fold, so that they find it: bins, twins, the samples of pooled fits."""
    for name in names:
        own = seen(name, fold)
        own.bins()
        if name in POOLED and not fold.ml.gradient_sampling:  # which draws rows anew
            own.samples(getattr(settings, POOLED[name]).subsample)


def _family(name: str, earlier: Earlier | None = None) -> Family:
    from gpupipe.estimators.boosting import (
        catboost_trees,
        hosted,
        lightgbm_trees,
        random_forest,
        tree_model,
        xgb_by_label,
        xgb_joint,
    )
    from gpupipe.estimators.linear import softmax_linear

    def boosted(field: str) -> Family:
        def shared(settings: config.Config) -> tuple[int, int]:
            return settings.training.early_stopping, settings.training.min_positives

        return Family(
            name,
            lambda fold, settings, like: xgb_by_label.fit_pool(
                fold, getattr(settings, field), *shared(settings), like, earlier
            ),
            lambda fold, sector, settings, pooled, like: xgb_by_label.fit_sector(
                fold,
                sector,
                [settings.stage(field, sector, label) for label in fold.label_names],
                *shared(settings),
                pooled,
                like,
                earlier,
            ),
            tree_model.predict_trees,
        )

    def of_library(library: hosted.Library) -> Family:
        def shared(settings: config.Config) -> tuple[hosted.Library, Any, int, int]:
            training = settings.training
            return library, getattr(settings, name), training.early_stopping, training.min_positives

        return Family(
            name,
            lambda fold, settings, like: hosted.fit_pool(*shared(settings), fold, like),
            lambda fold, sector, settings, pooled, like: hosted.fit_sector(
                *shared(settings), fold, sector, pooled, like
            ),
            hosted.predict_hosted,
        )

    known: dict[str, Callable[[], Family]] = {
        "xgb_joint": lambda: Family(
            name,
            functools.partial(xgb_joint.fit_pool, earlier=earlier),
            functools.partial(xgb_joint.fit_sector, earlier=earlier),
            tree_model.predict_trees,
        ),
        "xgb_hist": lambda: boosted("hist"),
        "xgb_leafwise": lambda: boosted("leafwise"),
        "random_forest": lambda: Family(
            name,
            lambda fold, settings, like: random_forest.fit_pool(fold, settings),
            random_forest.fit_sector,
            tree_model.predict_trees,
        ),
        "linear": lambda: Family(
            name,
            lambda fold, settings, like: softmax_linear.fit_pool(fold, settings),
            softmax_linear.fit_sector,
            softmax_linear.predict_linear,
        ),
        "lightgbm": lambda: of_library(lightgbm_trees.LIGHTGBM),
        "catboost": lambda: of_library(catboost_trees.CATBOOST),
    }
    return known[name]()


def require(families: Sequence[str]) -> None:
    """Raise UserError, with the line that installs it, where the package of an optional family is missing."""
    from gpupipe.estimators.boosting import hosted

    for name in families:
        if name in config.OPTIONAL_FAMILIES:
            hosted.require(name)


def from_files(files: dict[str, bytes], about: dict[str, Any], boosters: dict[bytes, Any]) -> Any:
    """A saved model of any family again; `boosters` is shared between calls, so that equal files are loaded once.

    ValueError, or the library's own error, for what is no file of its.
    """
    from gpupipe.estimators import columns
    from gpupipe.estimators.boosting import catboost_trees, hosted, lightgbm_trees, tree_model
    from gpupipe.estimators.linear import softmax_linear
    from gpupipe.estimators.stacking import meta_learner

    for suffix, content in files.items():
        _check_form(suffix, content)
    if "columns" in about:
        rest = {key: value for key, value in about.items() if key != "columns"}
        return columns.Picked(np.array(about["columns"], dtype=np.int64), from_files(files, rest, boosters))
    if about["kind"] == "trees":
        return tree_model.TreeModel.from_files(files, about, boosters)
    if about["kind"] == "linear":
        return softmax_linear.LinearModel.from_files(files, about)
    if about["kind"] == "meta":
        return meta_learner.MetaModel.from_files(files, about)
    for library in (lightgbm_trees.LIGHTGBM, catboost_trees.CATBOOST):
        if about["kind"] == library.name:
            return hosted.from_files(library, files, about, boosters)
    raise ValueError(f"unknown kind of model {about['kind']!r}: it was written by a newer gpupipe")


# How the files of each kind begin and end. XGBoost and LightGBM end the process where there is nothing or half a file,
# and so does CatBoost, whose files say how long they are: catboost_trees.load asks for it.
_FORMS = {
    ".ubj": (b"{", b"}"), ".npz": (b"PK\3\4", b""),
    ".txt": (b"tree\n", b"\nend of parameters\n\npandas_categorical:null\n"),
}  # fmt: skip


def _check_form(suffix: str, content: bytes) -> None:
    kind = f".{suffix.rpartition('.')[2]}"
    first, last = _FORMS.get(kind, (b"", b""))
    # The last that XGBoost writes is its version; a brace alone could end half a file.
    whole = kind != ".ubj" or b"version[" in content[-48:]
    if not (content.startswith(first) and content.endswith(last) and whole):
        raise ValueError(f"{len(content)} bytes that do not begin or end as a whole file {kind} does")
