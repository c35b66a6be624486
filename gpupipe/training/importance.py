"""OUT/importance.json: which features a model splits on, and what it loses without a family of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.artifacts.layout import IMPORTANCE
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import columns, registry
from gpupipe.estimators.contract import Estimator
from gpupipe.evaluation.losses import losses_of, reference_of
from gpupipe.features.formulas import FEATURES
from gpupipe.targets.target import Target
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels

JSON = IMPORTANCE
ROWS = 500  # of each group's validation part, at most


def measure(context: TrainingContext, trained: Sequence[GroupModels]) -> dict[str, Any] | None:
    """Importance of features and of families of them for the first estimator with splits that is judged.

    None where there is none.
    features: share of the total gain of the splits of all boosters, by feature, largest first.
    families: mean loss on validation rows when the columns of a family are those of other rows (all columns of the
        family from the same row), less that of the columns as they are, as a share of the reference's loss; mean
        over targets (permutation importance, Breiman 2001, of groups of columns; two families with the same information
        hide each other).  gain: that of the model with all columns.  rows: how many rows.
    """
    judged = [item for item in registry.estimators(context.base_models) if item.judged and item.model_kinds]
    measured = [(item, models) for item in judged[:1] for models in trained if item.name in models.models]
    if not measured:
        return None
    estimator = measured[0][0]
    names = context.datasets[measured[0][1].group].names
    family_of = {name: FEATURES[name].family for name in names}
    rng = np.random.default_rng(context.settings.seed)
    families = {
        family: [k for k, name in enumerate(names) if family_of[name] == family]
        for family in sorted({*family_of.values()})
    }
    lost: dict[str, list[float]] = defaultdict(list)
    losses, reference_losses, rows = [], [], []
    to_host = context.device.to_host
    for _, models in measured:
        dataset, split = context.datasets[models.group], context.splits[models.group]
        at = np.sort(rng.permutation(split.validation)[:ROWS])
        kept = tuple(dataset.target.names.index(label) for label in models.labels)
        target, view = dataset.target.take(kept), RowView(dataset, at, kept)
        y, training_y = to_host(view.y), to_host(dataset.y)[split.train][:, list(kept)]
        fitted = models.models[estimator.name]
        before = _loss(estimator, fitted, view.X, target, y)
        for family, numbers in families.items():
            X = view.X.copy()
            X[:, numbers] = view.X[context.device.asarray(rng.permutation(len(at)))][:, numbers]
            lost[family].append((_loss(estimator, fitted, X, target, y) - before) * len(at))
        losses.append(before * len(at))
        reference_losses.append(_reference_loss(target, training_y, y) * len(at))
        rows.append(len(at))
    reference = sum(reference_losses)
    by_family = {family: sum(values) / reference for family, values in lost.items()}
    all_models = [models.models[estimator.name] for _, models in measured]
    return {
        "model": estimator.name, "rows": sum(rows), "gain": 1 - sum(losses) / reference, "family_of": family_of,
        "families": dict(sorted(by_family.items(), key=lambda item: -item[1])),
        "features": _by_gain(estimator, all_models, names),
    }  # fmt: skip


def _loss(estimator: Estimator, models: Sequence[Any], X: Any, target: Target, y: np.ndarray) -> float:
    from gpupipe.runtime.device import device_of

    device = device_of(X)
    predictions = device.to_host(columns.predict(estimator, models, X, device))
    return float(np.mean([losses_of(target, predictions[:, k], y[:, k]).mean() for k in range(y.shape[1])]))


def _reference_loss(target: Target, training_y: np.ndarray, y: np.ndarray) -> float:
    by_target = []
    for k in range(y.shape[1]):
        reference = reference_of(target, training_y[:, k], len(y), None)
        by_target.append(losses_of(target, reference, y[:, k]).mean())
    return float(np.mean(by_target))


def _by_gain(estimator: Estimator, groups: Sequence[Sequence[Any]], names: Sequence[str]) -> Mapping[str, float]:
    """Share of the total gain by feature, of every booster once, largest first; features of no split are left out."""
    total: dict[str, float] = defaultdict(float)
    seen: set[tuple[tuple[int, float], ...]] = set()
    for models in groups:
        of_column = getattr(models[0], "columns", None)  # of a model that takes some columns alone
        for gains in estimator.feature_gains(columns.unwrap(models) or []):
            # Not the object: those of a run that was killed are read from the store, one for each group.
            if gains in seen:
                continue
            seen.add(gains)
            for number, gain in gains:
                total[names[number if of_column is None else int(of_column[number])]] += gain
    whole = sum(total.values())
    return {name: gain / whole for name, gain in sorted(total.items(), key=lambda item: -item[1])} if whole else {}
