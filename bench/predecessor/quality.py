"""The predecessor and gpupipe judged on the same rows of the same sealed future, and what the random split had claimed.

For the judgement the predecessor is trained on rows whose labels had ended before the sealed part begins; its random
80 / 20 split is of these. gpupipe leaves out more: its validation rows, and embargoes. Both answer the same question.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.predecessor import models, rows
from bench.predecessor.models import FAMILIES, META, Clock
from bench.runs import Line, table
from gpupipe.artifacts.load import Predictions, load
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.estimators.baselines.class_shares import class_shares
from gpupipe.evaluation.metrics import log_losses
from gpupipe.targets.classes import CLASSES, percent
from gpupipe.training.prepare import prepare
from gpupipe.workloads import equity

LabelledRows = tuple[np.ndarray, np.ndarray]  # X and y


@dataclass(frozen=True)
class Question:
    """What is judged, and how: labels are (horizon, threshold) pairs, `meta` whether the predecessor makes its folds.

    known(key), add(line): lines of the predecessor from an earlier run, and those of this one.
    """

    settings: Config
    labels: Sequence[tuple[int, float]]
    trees: int
    meta: bool
    known: Callable[[Line], Line | None]
    add: Callable[[Line], None]


def accuracy(probability: np.ndarray, y: np.ndarray) -> float:
    """Share of rows whose likeliest class happened."""
    return float((probability.argmax(axis=1) == y).mean())


def majority(y: np.ndarray) -> float:
    """Share of the commonest class: the accuracy of calling it always."""
    return float(np.bincount(y).max() / len(y))


def prior_loss(fitted: np.ndarray, y: np.ndarray) -> float:
    """Log-loss on labels `y` of the class shares of `fitted`."""
    (prior,) = class_shares(fitted[:, None], len(CLASSES))
    return float(log_losses(np.tile(prior, (len(y), 1)), y).mean())


def scores(predictions: dict[str, np.ndarray], y: np.ndarray) -> dict[str, dict[str, float]]:
    """Log-loss and accuracy of each model."""
    return {
        name: {"log_loss": float(log_losses(probability, y).mean()), "accuracy": accuracy(probability, y)}
        for name, probability in predictions.items()
    }


def judge(
    path: pathlib.Path, panel: Panel, sectors: Sequence[str], out: pathlib.Path, question: Question
) -> list[Line]:
    """One line for each sector and label: log-loss and accuracy of every family on the sealed test, and the claims.

    path: the bars, read by pandas.  out: the finished run of gpupipe on `panel`.
    """
    settings = question.settings
    prepared = prepare(equity.EQUITY, panel, settings)
    begins = min(int(prepared.datasets[s].time_ns[split.test].min()) for s, split in prepared.splits.items())
    ours = load(out)
    lines = []
    for sector in sectors:
        data, split = prepared.datasets[sector], prepared.splits[sector]
        predictions = ours.predict(panel.of_group(sector))
        frame = rows.loaded(path, sector)
        features = rows.with_features(frame)
        for horizon, threshold in question.labels:
            X, y, usable = rows.merged(features, rows.with_labels(frame, horizon, threshold, settings.labels.window))
            label = f"{horizon}d_{percent(threshold)}pct"
            if (y != data.y[:, data.target.names.index(f"label_{label}")]).any():
                raise SystemExit(f"{label} of {sector}: the two ways have other labels")
            before = usable & (data.end_time_ns < begins)
            key = {
                "sector": sector, "horizon": horizon, "threshold": threshold, "rows_fitted": int(before.sum()),
                "rows": len(split.test), "sealed_from_ns": begins, "meta": question.meta,
            }  # fmt: skip
            if (old := question.known(key)) is None:
                old = key | train_and_claim((X[before], y[before]), (X[split.test], y[split.test]), question)
                question.add(old)
            lines.append({
                **{name: old[name] for name in (*key, "claimed", "claimed_majority", "claimed_prior", "old")},
                "majority": majority(y[split.test]), "prior": prior_loss(y[split.train], y[split.test]),
                "new": scores(by_family(predictions, label, split.test), y[split.test]),
            })  # fmt: skip
            print(f"judged {sector} {title(lines[-1])} on {len(split.test):,} sealed rows", flush=True)
    return lines


def by_family(predictions: Predictions, label: str, at: np.ndarray) -> dict[str, np.ndarray]:
    """Our probabilities of one label by family, of the families that have a model."""
    values = {name.removesuffix(f"_{label}"): predictions.of(name)[at] for name in predictions.names
              if name.endswith(f"_{label}")}  # fmt: skip
    return {name: probability for name, probability in values.items() if not np.isnan(probability).any()}


def train_and_claim(known: LabelledRows, future: LabelledRows, question: Question) -> Line:
    """What the predecessor claims on a random fifth of its rows (X, y), and what the future shows."""
    X, y = known
    fit_rows, test_rows = models.random_split(y)
    six = models.train(X[fit_rows], y[fit_rows], Clock(), question.trees, folds=question.meta)
    return {
        "claimed": scores(six.predict(X[test_rows]), y[test_rows]), "claimed_majority": majority(y[test_rows]),
        "claimed_prior": prior_loss(y[fit_rows], y[test_rows]), "old": scores(six.predict(future[0]), future[1]),
    }  # fmt: skip


def averages(lines: Sequence[Line]) -> list[Line]:
    """Means over sectors for each label: log-losses, accuracies, and the gain over the prior that each implies."""
    means = []
    for key in sorted({(line["horizon"], line["threshold"]) for line in lines}):
        sectors = [line for line in lines if (line["horizon"], line["threshold"]) == key]
        mean: Line = {"horizon": key[0], "threshold": key[1], "sectors": len(sectors)}
        for name in ("prior", "majority", "claimed_prior", "claimed_majority"):
            mean[name] = float(np.mean([line[name] for line in sectors]))
        for side in ("old", "new", "claimed"):
            mean[side] = {}
            for name in sectors[0][side]:
                if all(name in line[side] for line in sectors):
                    loss, share = np.mean([list(line[side][name].values()) for line in sectors], axis=0)
                    prior = mean["claimed_prior" if side == "claimed" else "prior"]
                    mean[side][name] = {"log_loss": float(loss), "accuracy": float(share), "gain": 1 - loss / prior}
        best = min(score["log_loss"] for score in mean["old"].values())
        mean["better"] = sorted(name for name, score in mean["new"].items() if score["log_loss"] < best)
        means.append(mean)
    return means


def show(means: Sequence[Line]) -> None:
    """Three tables of `averages`: gains of both on the sealed future, and the predecessor's claims against it."""
    n = means[0]["sectors"]
    over = f"averaged over {n} sectors" if n > 1 else "one sector"
    for side, owner in (("old", "The predecessor"), ("new", "gpupipe")):
        print(f"\n{owner}: gain over the class prior in sealed log-loss, percent, {over}")
        gains = ({name: 100 * score["gain"] for name, score in mean[side].items()} for mean in means)
        table([{"label": title(m), "prior": m["prior"], **gain} for m, gain in zip(means, gains, strict=True)])
    for name in dict.fromkeys(name for mean in means for name in mean["new"]):
        n_better = sum(name in mean["better"] for mean in means)
        print(f"{name}: better than the best of the predecessor on {n_better} of {len(means)} labels")
    name = META if META in means[0]["old"] else FAMILIES[0]
    print(f"\nWhat the random split claims of the predecessor's {name}, and what the sealed future shows")
    sides = {"claimed": ("claimed", "claimed_majority"), "future": ("old", "majority")}
    table([
        {"label": title(mean)} | {
            f"{when} {what}": value for when, (side, majority) in sides.items()
            for what, value in {**mean[side][name], "majority": mean[majority]}.items()
        }
        for mean in means
    ])  # fmt: skip


def title(line: Line) -> str:
    return f"{line['horizon']} d {percent(line['threshold'])} %"
