"""OUT/importance.json: which features a model splits on, and what it loses without a family of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.artifacts.layout import IMPORTANCE
from gpupipe.estimators import columns, registry
from gpupipe.estimators.training_set import gather
from gpupipe.evaluation.metrics import log_losses
from gpupipe.features.formulas import FEATURES
from gpupipe.training.groups import Trained, Work

JSON = IMPORTANCE
MODEL = "xgb_joint"
ROWS = 500  # of each sector's validation part, at most


def measure(work: Work, trained: Sequence[Trained]) -> dict[str, Any] | None:
    """Importance of features and of families of them for xgb_joint; None where it was not trained.

    features: share of the total gain of the splits of all boosters, by feature, largest first.
    families: mean log-loss on validation rows when the columns of a family are those of other rows (all columns of
        the family from the same row), less that of the columns as they are, as a share of the prior's log-loss; mean
        over labels (permutation importance, Breiman 2001, of groups of columns; two families that know the same hide
        each other).  gain: that of the model as it is.  rows: how many rows.
    """
    trained = [one for one in trained if MODEL in one.models]
    if not trained:
        return None
    names = work.datasets[trained[0].sector].names
    family_of = {name: FEATURES[name].family for name in names}
    rng = np.random.default_rng(work.settings.seed)
    groups = {
        family: [k for k, name in enumerate(names) if family_of[name] == family]
        for family in sorted({*family_of.values()})
    }
    lost: dict[str, list[float]] = defaultdict(list)
    losses, priors, rows = [], [], []
    for one in trained:
        dataset, cut = work.datasets[one.sector], work.splits[one.sector]
        at = np.sort(rng.permutation(cut.validation)[:ROWS])
        kept = [dataset.label_names.index(label) for label in one.labels]
        found = gather(dataset, at, kept)
        y = work.device.to_host(found.y)
        counted = work.device.to_host(dataset.y)[cut.train][:, kept]
        before = _loss(one, found.X, y, work)
        for family, own in groups.items():
            X = found.X.copy()
            X[:, own] = found.X[work.device.asarray(rng.permutation(len(at)))][:, own]
            lost[family].append((_loss(one, X, y, work) - before) * len(at))
        losses.append(before * len(at))
        priors.append(_prior_loss(counted, y) * len(at))
        rows.append(len(at))
    prior = sum(priors)
    by_family = {family: sum(values) / prior for family, values in lost.items()}
    return {
        "model": MODEL, "rows": sum(rows), "gain": 1 - sum(losses) / prior, "family_of": family_of,
        "families": dict(sorted(by_family.items(), key=lambda item: -item[1])),
        "features": _by_gain(trained, names),
    }  # fmt: skip


def _loss(one: Trained, X: Any, y: np.ndarray, work: Work) -> float:
    said = work.device.to_host(registry.family(MODEL).predict(one.models[MODEL], X, work.device))
    return float(np.mean([log_losses(said[:, k], y[:, k]).mean() for k in range(y.shape[1])]))


def _prior_loss(fitted: np.ndarray, y: np.ndarray) -> float:
    found = []
    for k in range(y.shape[1]):
        counts = np.bincount(fitted[fitted[:, k] >= 0, k], minlength=3) + 0.5
        found.append(log_losses(np.broadcast_to(counts / counts.sum(), (len(y), 3)), y[:, k]).mean())
    return float(np.mean(found))


def _by_gain(trained: Sequence[Trained], names: Sequence[str]) -> Mapping[str, float]:
    """Share of the total gain by feature, of every booster once, largest first; features of no split are left out."""
    total: dict[str, float] = defaultdict(float)
    seen: set[tuple[tuple[str, float], ...]] = set()
    for one in trained:
        fitted = one.models[MODEL]
        of_column = getattr(fitted[0], "columns", None)  # of a model that takes some columns alone
        for model in columns.unwrap(fitted) or []:
            for stage in model.stages:
                score = stage.booster.get_score(importance_type="total_gain").items()
                gains = tuple((name, float(np.sum(gain))) for name, gain in score)
                # Not the object: those of a run that was killed are read from the store, one for each sector.
                if gains in seen:
                    continue
                seen.add(gains)
                for name, gain in gains:
                    number = int(name.removeprefix("f"))
                    total[names[number if of_column is None else int(of_column[number])]] += gain
    whole = sum(total.values())
    return {name: gain / whole for name, gain in sorted(total.items(), key=lambda item: -item[1])} if whole else {}
