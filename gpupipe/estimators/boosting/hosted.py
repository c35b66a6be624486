"""Boosted trees of other libraries, one of a sector and a label: what LightGBM and CatBoost share. In host memory."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.boosting.xgb_by_label import too_few
from gpupipe.estimators.training_set import Fold, Rows, whole
from gpupipe.runtime.device import Device
from gpupipe.runtime.errors import UserError
from gpupipe.targets.classes import N_CLASSES


@dataclass(frozen=True)
class Part:
    """Rows of one label as these libraries take them, all known.

    X: float32 (n, n_features), host memory.  label: int64 (n,).  weight: float32 (n,).
    margin: float64 (n, 3), where boosting starts.
    """

    X: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    margin: np.ndarray


@dataclass(frozen=True)
class Task:
    """One fit. patience: rounds without a better validation log-loss; 0, or no validation, to grow all rounds."""

    fit: Part
    validation: Part | None
    rounds: int
    patience: int
    max_bin: int
    threads: int
    seed: int


@dataclass(frozen=True)
class Library:
    """A library of boosted trees.

    name: of the family, and of the package.  suffix: of the file that holds a model.
    fit(task, section): the content of that file, and the number of rounds in it. Threads change no byte of it.
    load(content): a booster.  margin(booster, X): float (n_rows, 3), rounds added up, of host rows.
    """

    name: str
    suffix: str
    fit: Callable[[Task, Any], tuple[bytes, int]]
    load: Callable[[bytes], Any]
    margin: Callable[[Any, np.ndarray], np.ndarray]


def require(name: str) -> None:
    """Raise UserError with the line that installs it where an optional family's package is missing; imports nothing."""
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f"the model family {name} needs the package {name}, which is not installed: pip install -e '.[boosters]', "
            "or leave it out of --models"
        )


@dataclass(frozen=True)
class HostedModel:
    """Probabilities of one label: softmax(bias + the booster's margin), corrected for class weights.

    content: the file, of which `booster` was loaded, so that what predicts is what was saved.
    bias, class_weight, scope: as in TreeModel.
    """

    library: Library
    booster: Any
    content: bytes
    rounds: int
    bias: np.ndarray
    class_weight: np.ndarray
    scope: str

    def predict(self, X: Any, device: Device) -> Any:
        """float32 (n_rows, 3): probabilities of SELL, HOLD, BUY."""
        return predict_hosted([self], X, device)[:, 0]

    def files(self) -> dict[str, bytes]:
        """What to write: one file in the library's own format."""
        return {self.library.suffix: self.content}

    def describe(self) -> dict[str, Any]:
        """What `from_files` needs beside the file, as JSON holds it."""
        return {
            "kind": self.library.name,
            "scope": self.scope,
            "bias": [float(v) for v in self.bias],
            "class_weight": [float(v) for v in self.class_weight],
            "rounds": [self.rounds],
        }


def from_files(
    library: Library, files: dict[str, bytes], about: dict[str, Any], boosters: dict[bytes, Any]
) -> HostedModel:
    """A saved model again; UserError where the library is not installed."""
    require(library.name)
    content = files[library.suffix]
    if content not in boosters:
        boosters[content] = library.load(content)
    bias, class_weight = (np.array(about[name], dtype=np.float32) for name in ("bias", "class_weight"))
    return HostedModel(
        library, boosters[content], content, about["rounds"][0], bias, class_weight, about["scope"]
    )  # fmt: skip


def predict_hosted(models: Sequence[HostedModel], X: Any, device: Device) -> Any:
    """float32 (n_rows, n_models, 3) on `device`; the rows are copied to the host once."""
    xp = device.xp
    out = xp.empty((X.shape[0], len(models), N_CLASSES), dtype=xp.float32)
    if X.shape[0] == 0:
        return out
    host = device.to_host(X)
    for k, model in enumerate(models):
        # CatBoost gives columns one after the other, and kernels take rows.
        margin = np.ascontiguousarray(model.bias + model.library.margin(model.booster, host), dtype=np.float32)
        out[:, k] = tree_model.to_probability(device.asarray(margin), "softmax", model.class_weight, device)
    return out


def fit_pool(
    library: Library, section: Any, patience: int, minimum: int, fold: Fold, like: Sequence[HostedModel | None] | None
) -> list[HostedModel | None]:
    """Over all sectors, the labels of which some sector has too few positives; None for the others.

    minimum, like: as in single.fit_pool.
    """
    require(library.name)
    if like:
        needed = [model is not None for model in like]
    else:
        few = [too_few(fold, sector, minimum) for sector in fold.sectors]
        needed = [len(fold.sectors) > 1 and any(column) for column in zip(*few, strict=True)]
    if not any(needed):
        return [None] * fold.n_labels
    fit, validation = _host(list(fold.fit.values()), fold), _host(list(fold.validation.values()), fold)
    shares, weights = fold.shares(), fold.weights()
    return [
        _fit(library, section, patience, fold, k, fit, validation, shares[k], weights[k], fold.threads, like, "pool")
        if needed[k]
        else None
        for k in range(fold.n_labels)
    ]


def fit_sector(
    library: Library, section: Any, patience: int, minimum: int, fold: Fold, sector: str,
    pooled: Sequence[HostedModel | None], like: Sequence[HostedModel] | None,
) -> list[HostedModel]:  # fmt: skip
    """One model for each label of a sector: its own, or the pooled one where it has too few positives."""
    few = [model.scope == "pool" for model in like] if like else too_few(fold, sector, minimum)
    fit = _host([fold.fit[sector]], fold)
    validation = _host([fold.validation[sector]] if fold.validation else [], fold)
    shares, weights = fold.shares([sector]), fold.weights([sector])
    models: list[HostedModel] = []
    for k, shared in enumerate(pooled):
        if few[k] and shared is not None:
            models.append(shared)
        else:
            models.append(
                _fit(library, section, patience, fold, k, fit, validation, shares[k], weights[k], 1, like, "sector")
            )
    return models


def _host(parts: Sequence[Rows], fold: Fold) -> Rows | None:
    """Row blocks as one in host memory; None of no blocks."""
    if not parts:
        return None

    def together(name: str) -> np.ndarray:
        blocks = [fold.device.to_host(whole(getattr(rows, name))) for rows in parts]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    weight = None if parts[0].weight is None else together("weight")
    return Rows(together("X"), together("y"), together("time_ns"), weight)


def _fit(
    library: Library, section: Any, patience: int, fold: Fold, label: int, fit: Any, validation: Any,
    shares: np.ndarray, weight: np.ndarray, threads: int, like: Sequence[HostedModel | None] | None, scope: str,
) -> HostedModel:  # fmt: skip
    """Fit one label on its known rows, and load what was saved."""
    bias = np.log(shares).astype(np.float32)
    weighted = bias + np.log(weight)
    chosen = like[label] if like else None
    # Validated without weights: that is the loss of the corrected probabilities.
    validated = None
    if validation is not None:
        plain = dataclasses.replace(validation, weight=None)
        validated = _part(plain, label, bias, np.ones(N_CLASSES, np.float32))
    task = Task(
        _part(fit, label, weighted, weight), validated, chosen.rounds if chosen else section.rounds, patience,
        fold.max_bin, threads, fold.seed,
    )  # fmt: skip
    content, rounds = library.fit(task, section)
    return HostedModel(library, library.load(content), content, rounds, weighted, weight, scope)


def _part(rows: Rows, label: int, bias: np.ndarray, class_weight: np.ndarray) -> Part:
    """Rows that have a label and a weight; the others are left out, as these libraries count even rows of no weight."""
    known = rows.y[:, label] >= 0
    if rows.weight is not None:
        known &= rows.weight[:, label] > 0
    classes = rows.y[known, label].astype(np.int64)
    weight = class_weight[classes]
    if rows.weight is not None:
        weight = weight * rows.weight[known, label]
    margin = np.tile(bias.astype(np.float64), (len(classes), 1))
    X = whole(rows.X)
    return Part(X if known.all() else X[known], classes, weight, margin)
