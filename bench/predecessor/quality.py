"""Old and new judged on the same rows of the same sealed future, and what the random split had claimed.

For the judgement the old way is trained on rows whose labels had ended before the sealed part begins; its random
80 / 20 split is of these. The new way leaves out more: what it validates on, and embargoes. Both answer one question.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.predecessor import models as old_models
from bench.predecessor.models import FAMILIES, META, N_CLASSES, Clock
from gpupipe import config
from gpupipe.artifacts.load import load
from gpupipe.data.panel import Panel
from gpupipe.evaluation.metrics import log_losses
from gpupipe.targets.classes import percent
from gpupipe.training import prepare

Line = dict[str, Any]


def accuracy(probability: np.ndarray, y: np.ndarray) -> float:
    """Share of rows whose likeliest class happened."""
    return float((probability.argmax(axis=1) == y).mean())


def majority(y: np.ndarray) -> float:
    """Share of the commonest class: the accuracy of calling it always."""
    return float(np.bincount(y, minlength=N_CLASSES).max() / len(y))


@dataclass(frozen=True)
class Question:
    """What is judged, and how: labels are (horizon, threshold) pairs, `meta` whether the old way's folds are made."""

    settings: config.Config
    labels: Sequence[tuple[int, float]]
    trees: int
    meta: bool


def judge(
    path: pathlib.Path, job: Panel, sectors: Sequence[str], out: pathlib.Path, question: Question,
    known: Callable[[Line], Line | None], add: Callable[[Line], None],
) -> list[Line]:  # fmt: skip
    """One line for each sector and label: log-loss and accuracy of every family on the sealed test, and the claims.

    path: the bars, read by pandas.  out: the finished run of the new way on `job`.
    known(key), add(line): what the old way said in an earlier run, and what it says now.
    """
    from bench.predecessor import comparison as old_way

    settings = question.settings
    prepared = prepare.prepare(job, settings)
    tested = [prepared.datasets[s].time_ns[cut.test] for s, cut in prepared.splits.items()]
    begins = int(np.concatenate(tested).min())
    new = load(out)
    lines = []
    for sector in sectors:
        data, cut = prepared.datasets[sector], prepared.splits[sector]
        ours = new.predict(job.of_sector(sector))
        frame = old_way.loaded(path, sector)
        features = old_way.with_features(frame)
        for horizon, threshold in question.labels:
            made = old_way.with_labels(frame, horizon, threshold, settings.labels.window)
            X, y, usable = old_way.merged(features, made)
            label = f"{horizon}d_{percent(threshold)}pct"
            if (y != data.y[:, data.label_names.index(f"label_{label}")]).any():
                raise SystemExit(f"{label} of {sector}: the two ways have other labels")
            before = usable & (data.end_time_ns < begins)
            key = {
                "sector": sector, "horizon": horizon, "threshold": threshold, "rows_fitted": int(before.sum()),
                "rows": len(cut.test), "sealed_from_ns": begins, "meta": question.meta,
            }  # fmt: skip
            if (old := known(key)) is None:
                old = key | of_old(X[before], y[before], X[cut.test], y[cut.test], question.trees, question.meta)
                add(old)
            counts = np.bincount(y[cut.train], minlength=N_CLASSES) + 0.5
            prior = np.tile(counts / counts.sum(), (len(cut.test), 1))
            said = {
                name.removesuffix(f"_{label}"): ours.values[cut.test, k]
                for k, name in enumerate(ours.names) if name.endswith(f"_{label}")
            }  # fmt: skip
            line = {
                **{name: old[name] for name in (*key, "claimed", "claimed_majority", "claimed_prior", "old")},
                "majority": majority(y[cut.test]), "prior": of_model(prior, y[cut.test])["log_loss"],
                "new": {n: of_model(values, y[cut.test]) for n, values in said.items() if not np.isnan(values).any()},
            }  # fmt: skip
            lines.append(line)
            print(in_words(line), flush=True)
    return lines


def of_model(probability: np.ndarray, y: np.ndarray) -> dict[str, float]:
    return {"log_loss": float(log_losses(probability, y).mean()), "accuracy": accuracy(probability, y)}


def of_old(
    X: np.ndarray, y: np.ndarray, X_future: np.ndarray, y_future: np.ndarray, trees: int, meta: bool
) -> Line:  # fmt: skip
    """What the old way claims on a random fifth of its rows, and what the future shows."""
    fit_rows, test_rows = old_models.random_split(y)
    six = old_models.train(X[fit_rows], y[fit_rows], Clock(), trees, folds=meta)
    counts = np.bincount(y[fit_rows], minlength=N_CLASSES) + 0.5
    prior = np.tile(counts / counts.sum(), (len(test_rows), 1))
    return {
        "claimed": {name: of_model(said, y[test_rows]) for name, said in six.predict(X[test_rows]).items()},
        "claimed_majority": majority(y[test_rows]), "claimed_prior": float(log_losses(prior, y[test_rows]).mean()),
        "old": {name: of_model(said, y_future) for name, said in six.predict(X_future).items()},
    }  # fmt: skip


def in_words(line: Line) -> str:
    """A line for who watches: both log-losses of each side's best, and the prior's."""
    words = f"{line['sector']} {title(line)}: {line['rows']:,} sealed rows, log-loss of the prior {line['prior']:.4f}"
    for side in ("old", "new"):
        if line[side]:
            name = min(line[side], key=lambda name: line[side][name]["log_loss"])
            words += f", {side} {name} {line[side][name]['log_loss']:.4f}"
    return words


def averages(lines: Sequence[Line]) -> list[Line]:
    """Means over sectors for each label: log-losses, accuracies, and the gain over the prior that each implies."""
    found = []
    for key in sorted({(line["horizon"], line["threshold"]) for line in lines}):
        own = [line for line in lines if (line["horizon"], line["threshold"]) == key]
        average: Line = {"horizon": key[0], "threshold": key[1], "sectors": len(own)}
        for name in ("prior", "majority", "claimed_prior", "claimed_majority"):
            average[name] = float(np.mean([line[name] for line in own]))
        for side in ("old", "new", "claimed"):
            names = [name for name in own[0][side] if all(name in line[side] for line in own)]
            prior = average["claimed_prior" if side == "claimed" else "prior"]
            average[side] = {}
            for name in names:
                of = {what: float(np.mean([line[side][name][what] for line in own]))
                      for what in ("log_loss", "accuracy")}  # fmt: skip
                average[side][name] = of | {"gain": 1 - of["log_loss"] / prior}
        average["better"] = sorted(
            name for name, of in average["new"].items()
            if of["log_loss"] < min(other["log_loss"] for other in average["old"].values())
        )  # fmt: skip
        found.append(average)
    return found


def show(means: Sequence[Line]) -> None:
    """Three tables of `averages`: gains on the sealed future of old and new, and claims beside what came."""
    n = means[0]["sectors"]
    over = f"averaged over {n} sectors" if n > 1 else "one sector"
    for side in ("old", "new"):
        names = list(dict.fromkeys(name for mean in means for name in mean[side]))
        print(f"\nThe {side} way: gain over the class prior in sealed log-loss, percent, {over}")
        print("  ".join([f"{'label':>8}", f"{'prior':>7}", *(f"{name:>13}" for name in names)]))
        for mean in means:
            of = mean[side]
            gains = (f"{100 * of[name]['gain']:13.1f}" if name in of else f"{'-':>13}" for name in names)
            print("  ".join([f"{title(mean):>8}", f"{mean['prior']:7.4f}", *gains]))
    for name in dict.fromkeys(name for mean in means for name in mean["new"]):
        labels = [title(mean) for mean in means if name in mean["better"]]
        print(f"{name}: better than the best of the old on {len(labels)} of {len(means)} labels")
    name = META if META in means[0]["old"] else FAMILIES[0]
    print(f"\nWhat the random split claims of the old way's {name}, and what the sealed future shows, percent")
    heads = ("claimed: accuracy", "majority", "gain", "future: accuracy", "majority", "gain")
    print("  ".join([f"{'label':>8}", *(f"{head:>17}" for head in heads)]))
    for mean in means:
        claim, future = mean["claimed"][name], mean["old"][name]
        shares = (claim["accuracy"], mean["claimed_majority"], claim["gain"], future["accuracy"], mean["majority"],
                  future["gain"])  # fmt: skip
        print("  ".join([f"{title(mean):>8}", *(f"{100 * share:17.2f}" for share in shares)]))


def title(line: Line) -> str:
    return f"{line['horizon']} d {percent(line['threshold'])} %"
