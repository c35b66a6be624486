"""OUT/importance.json: the share of each feature in the gain of splits, and permutation importance of families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.artifacts.layout import IMPORTANCE
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import columns, registry
from gpupipe.estimators.contract import Estimator, Model
from gpupipe.evaluation.losses import losses_of, reference_of
from gpupipe.features.formulas import FEATURES
from gpupipe.targets.target import Target
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels
from gpupipe.training.placement import stage_name

JSON = IMPORTANCE
ROWS = 500  # of each group's validation part, at most


def measure(context: TrainingContext, trained: Sequence[GroupModels]) -> dict[str, Any] | None:
    """Importance of features and of feature families for the first judged estimator that has splits; None without one.

    features: share of each feature in the total gain of the splits of all boosters, largest first.
    families: permutation importance of the columns of a family (Breiman 2001): the mean loss on validation rows after
        the family's columns were permuted together, minus the loss before, as a share of the reference's loss; mean
        over targets. Two families with the same information hide each other.
    gain: gain of the model with all columns.  rows: number of validation rows.
    """
    judged = [
        item for item in registry.estimators(context.base_models)
        if item.judged and item.model_kinds and item.lookback(context.settings) is None  # rows alone are permuted
    ]  # fmt: skip
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
    device = context.device_of(stage_name(estimator, measured[0][1].group))
    to_host = device.to_host
    for _, models in measured:
        dataset, split = context.datasets[models.group].on(device), context.splits[models.group]
        at = np.sort(rng.permutation(split.validation)[:ROWS])
        kept = tuple(dataset.target.names.index(label) for label in models.labels)
        target, view = dataset.target.take(kept), RowView(dataset, at, kept)
        y, training_y = to_host(view.y), to_host(dataset.y)[split.train][:, list(kept)]
        fitted = models.models[estimator.name]
        before = _loss(estimator, fitted, view.features, target, y)
        for family, numbers in families.items():
            X = view.X.copy()
            X[:, numbers] = view.X[device.asarray(rng.permutation(len(at)))][:, numbers]
            after = _loss(estimator, fitted, FeatureRows.of_matrix(X), target, y)
            lost[family].append((after - before) * len(at))
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


def _loss(estimator: Estimator, models: Sequence[Model], rows: FeatureRows, target: Target, y: np.ndarray) -> float:
    predictions = rows.device.to_host(columns.predict(estimator, models, rows))
    return float(np.mean([losses_of(target, predictions[:, k], y[:, k]).mean() for k in range(y.shape[1])]))


def _reference_loss(target: Target, training_y: np.ndarray, y: np.ndarray) -> float:
    by_target = []
    for k in range(y.shape[1]):
        reference = reference_of(target, training_y[:, k], len(y), None)
        by_target.append(losses_of(target, reference, y[:, k]).mean())
    return float(np.mean(by_target))


def _by_gain(estimator: Estimator, groups: Sequence[Sequence[Model]], names: Sequence[str]) -> Mapping[str, float]:
    """Share of each feature with splits in the total gain, largest first; each booster counts once."""
    total: dict[str, float] = defaultdict(float)
    seen: set[tuple[tuple[int, float], ...]] = set()
    for models in groups:
        selected = getattr(models[0], "columns", None)  # the columns that the model takes, where it takes a selection
        for gains in estimator.feature_gains(columns.unwrap(models) or []):
            # Boosters are compared by content: a resumed run reads the same booster once for each group.
            if gains in seen:
                continue
            seen.add(gains)
            for number, gain in gains:
                total[names[number if selected is None else int(selected[number])]] += gain
    whole = sum(total.values())
    return {name: gain / whole for name, gain in sorted(total.items(), key=lambda item: -item[1])} if whole else {}
