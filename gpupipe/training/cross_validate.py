"""The same training at several places in time: walk-forward and combinatorial purged cross-validation, measured."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.artifacts import out_of_sample_store
from gpupipe.artifacts.out_of_sample_store import FoldPredictions
from gpupipe.artifacts.summary import Skipped
from gpupipe.cross_validation.combinatorial import paths
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.cross_validation.folds import Folds
from gpupipe.cross_validation.split import Split, split
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.dataset.dataset import Dataset
from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import NO_SKILL, PRIOR, PRIOR_ALL
from gpupipe.evaluation.losses import losses_of
from gpupipe.evaluation.skill import skill_measures
from gpupipe.runtime.errors import UserError
from gpupipe.training import out_of_sample
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels, train
from gpupipe.training.recipe import Recipe
from gpupipe.training.score import Baselines, reference_predictions

ON_EVERY_PATH = "above the prior on every path"


@dataclass(frozen=True)
class BlockLoss:
    """What one model lost on the test rows of one block of a fold, in nats, summed; and what the prior lost there.

    block: its place among the fold's test blocks.  prior: class shares of the sector's training part of this fold.
    """

    fold: str
    block: int
    sector: str
    label: str
    model: str
    rows: int
    loss: float
    prior: float


@dataclass(frozen=True)
class FoldScores:
    """A fold that was trained: its description, for the summary, and the losses of its models.

    by_time: the same losses by target and group, added up by time: what intervals are drawn from.
    predictions: of its models, for the test window, by group; of the origins of a walk-forward alone.
    """

    description: dict[str, Any]
    losses: list[BlockLoss]
    by_time: dict[tuple[str, str], block_bootstrap.Losses] = field(default_factory=dict)
    predictions: list[FoldPredictions] = field(default_factory=list)


def title(times: FoldTimes) -> str:
    """A fold as a person reads it: "origin 2", "cpcv 05", or "single split"."""
    return times.name.replace("origin", "origin ").replace("cpcv", "cpcv ") or "single split"


def evaluate_folds(
    workload: Recipe, context: TrainingContext, folds: Folds, stage: Callable[[str], None]
) -> list[FoldScores]:
    """Train and measure every fold whose models are not kept, one after the other.

    Results of a fold are resumable like those of the published one; models live until their fold is measured.
    Raises UserError, naming the fold, where nothing of it can be trained.
    """
    scored = []
    for times in folds.evaluation_folds:
        stage(f"training, {title(times)}")
        splits = {group: split(dataset, times) for group, dataset in context.datasets.items()}
        of_fold = dataclasses.replace(context, splits=splits, times=times)
        try:
            trained, skipped = train(of_fold)
        except UserError as error:
            fix = "fewer origins or a larger split.train" if times.name.startswith("origin") else "fewer groups"
            raise UserError(f"{title(times)}: {error}; {fix} would give it more") from None
        scores = score_fold(workload, of_fold, times, trained, skipped)
        predictions = out_of_sample.of_fold(of_fold, times, trained) if times in folds.walk_forward else []
        scored.append(dataclasses.replace(scores, predictions=predictions))
    return scored


def survey(context: TrainingContext, folds: Folds) -> None:
    """Ask for the results of every fold whose models are not kept, as `evaluate_folds` would need them."""
    for times in folds.evaluation_folds:
        splits = {group: split(dataset, times) for group, dataset in context.datasets.items()}
        train(dataclasses.replace(context, splits=splits, times=times))


def score_fold(
    workload: Recipe,
    context: TrainingContext,
    times: FoldTimes,
    trained: list[GroupModels],
    skipped: Sequence[Skipped],
) -> FoldScores:
    """The losses of a fold's models and baselines on its test rows, by block."""
    baselines = Baselines.learn(workload, context, [models.group for models in trained])
    block_losses: list[BlockLoss] = []
    by_time = {}
    for models in trained:
        dataset, test = context.datasets[models.group], context.splits[models.group].test
        y, time_ns = context.device.to_host(dataset.y), context.device.to_host(dataset.time_ns)[test]
        of_baselines = baselines.predict(dataset, test)
        blocks = [np.flatnonzero((time_ns >= block.start) & (time_ns < block.stop)) for block in times.test]
        for position, label in enumerate(models.labels):
            k = dataset.target.names.index(label)
            predictions = {name: models.test[name][:, position] for name in models.models}
            predictions |= {name: prediction[:, k] for name, prediction in of_baselines.items()}
            reference = reference_predictions(dataset, k, context.splits[models.group].train, test)
            prior = losses_of(dataset.target, reference, y[test, k])
            of_rows = {
                name: losses_of(dataset.target, prediction, y[test, k]) for name, prediction in predictions.items()
            }
            by_time[label, models.group] = block_bootstrap.by_time(
                time_ns, {(label, name): lost for name, lost in {PRIOR: prior, **of_rows}.items()}
            )
            block_losses += [
                BlockLoss(
                    times.name, b, models.group, label, name, len(rows), float(lost[rows].sum()),
                    float(prior[rows].sum()),
                )
                for name, lost in of_rows.items()
                for b, rows in enumerate(blocks)
                if len(rows)
            ]  # fmt: skip
    left_out = [dataclasses.asdict(skip) for skip in skipped]
    description = {**describe(times, context.datasets, context.splits), "skipped": left_out}
    return FoldScores(description, block_losses, by_time)


def describe(times_of_fold: FoldTimes, datasets: Mapping[str, Dataset], splits: Mapping[str, Split]) -> dict[str, Any]:
    """Rows and dates of a fold; of a test of several blocks each one's dates."""

    def times(part: str) -> np.ndarray:
        return np.concatenate([d.device.to_host(d.time_ns)[getattr(splits[s], part)] for s, d in datasets.items()])

    of_part = {part: times(part) for part in ("train", "validation", "test")}
    dates = {part: _ends(of_part[part]) for part in ("train", "validation")}
    test = of_part["test"]
    return {
        "name": title(times_of_fold),
        "rows": {part: len(found) for part, found in of_part.items()},
        **dates,
        "test": [_ends(test[(test >= block.start) & (test < block.stop)]) for block in times_of_fold.test],
    }


def _ends(time_ns: np.ndarray) -> list[str]:
    return [time_text(int(time_ns.min())), time_text(int(time_ns.max()))] if len(time_ns) else []


def plan(folds: Folds, datasets: Mapping[str, Dataset]) -> dict[str, Any]:
    """Rows and dates of every fold beside a single split: "walk_forward" and "cpcv", where they were asked for."""

    def described(several: Sequence[FoldTimes]) -> list[dict[str, Any]]:
        return [describe(times, datasets, {g: split(d, times) for g, d in datasets.items()}) for times in several]

    asked = {"walk_forward": folds.walk_forward, "cpcv": folds.cpcv}
    return {name: described(several) for name, several in asked.items() if several}


@dataclass(frozen=True)
class Published:
    """What the published fold, the last origin of a walk-forward, gave."""

    trained: list[GroupModels]
    skipped: Sequence[Skipped]


def summarise(
    workload: Recipe,
    context: TrainingContext,
    folds: Folds,
    evaluated: Sequence[FoldScores],
    published: Published,
) -> dict[str, Any]:
    """The sections "walk_forward" and "cpcv" of a summary, where they were asked for.

    evaluated: what `evaluate_folds` gave.
    """
    crossed, origins = evaluated[: len(folds.cpcv)], evaluated[len(folds.cpcv) :]
    summary = {}
    if folds.walk_forward:
        last = score_fold(workload, context, folds.published, published.trained, published.skipped)
        settings, tables = context.settings, workload.reference_tables
        walked = walk_forward_summary([*origins, last], tables)
        longest = max(workload.target(settings).horizon_rows)
        summary["walk_forward"] = with_intervals(walked, [*origins, last], longest, settings.seed, tables)
    if folds.cpcv:
        summary["cpcv"] = cpcv_summary(crossed, *context.settings.split.cpcv)
    return summary


def publish(
    context: TrainingContext, panel: Panel, folds: Folds, evaluated: Sequence[FoldScores], trained: list[GroupModels]
) -> dict[str, dict[str, Any]]:
    """Write the out-of-sample predictions of a walk-forward; manifest entries, none without one.

    evaluated, trained: see `summarise`.
    """
    if not folds.walk_forward:
        return {}
    predictions = [scores.predictions for scores in evaluated[len(folds.cpcv) :]]
    predictions.append(out_of_sample.of_fold(context, folds.published, trained))
    return out_of_sample_store.publish(context.store, panel, folds.walk_forward, predictions, context.run_key)


def walk_forward_summary(measured: Sequence[FoldScores], tables: Sequence[str]) -> dict[str, Any]:
    """What a walk-forward found: for each label and model over all origins' test rows pooled, and of every origin.

    Averaged over sectors: mean log-loss of the sectors against that of their priors. above_tables is the gain beyond
    that of the better volatility table.
    """
    losses = [one for fold in measured for one in fold.losses]
    names = list(dict.fromkeys(one.fold for one in losses))
    results, by_sector = [], []
    for (label, model), own in _grouped(losses, lambda one: (one.label, one.model)).items():
        of_origin = _grouped(own, lambda one: one.fold)
        origins = [_averaged(of_origin.get(name, [])) for name in names]
        about = {"label": label, "model": model}
        results.append({**about, **_averaged(own), "origins": origins, **_spread(origins, "origins")})
        for sector, of_sector in _grouped(own, lambda one: one.sector).items():
            parts = [_averaged(found) for found in _grouped(of_sector, lambda one: one.fold).values()]
            by_sector.append({"sector": sector, **about, **_averaged(of_sector), **_spread(parts, "origins")})
    for one in results:
        gains = [t["gain_over_prior"] for t in results if t["label"] == one["label"] and t["model"] in tables]
        one["above_tables"] = one["gain_over_prior"] - max(gains) if gains else float("nan")
    return {"origins": [scores.description for scores in measured], "results": results, "by_sector": by_sector}


def with_intervals(
    found: dict[str, Any], measured: Sequence[FoldScores], longest_horizon: int, seed: int, tables: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    """A walk-forward's summary with 95 % intervals of its pooled figures and what they say of skill; `families`.

    Origins test different dates, so that their test rows together are one stretch of time, whose dates are drawn in
    blocks, the same for all labels, sectors and models (`intervals.draw`). Each of results and by_sector has
    gain_low and gain_high, above_prior_all with its lower end, and skill; results have above_tables_low and
    above_tables_high, of the difference to the better table, too. families: the same of the mean over labels.
    """
    parts: dict[tuple[str, str], list[block_bootstrap.Losses]] = {}
    for fold in measured:
        for key, own in fold.by_time.items():
            if len(own.times):
                parts.setdefault(key, []).append(own)
    losses = {key: block_bootstrap.joined(own) for key, own in parts.items()}
    draws = block_bootstrap.draw(np.concatenate([own.times for own in losses.values()]), longest_horizon, seed)
    gains = {(one["label"], one["model"]): one["gain_over_prior"] for one in found["results"]}
    of_sector = {(one["sector"], one["label"], one["model"]): one["gain_over_prior"] for one in found["by_sector"]}
    labels = list(dict.fromkeys(label for label, _ in losses))
    sectors = {label: [sector for of, sector in losses if of == label] for label in labels}
    resampled = {
        label: block_bootstrap.resample(draws, {sector: losses[label, sector] for sector in sectors[label]})
        for label in labels
    }
    drawn = {(label, model): resampled[label].gain(sectors[label], label, model) for label, model in gains}
    for one in found["by_sector"]:
        label, alone, by_label = one["label"], [one["sector"]], resampled[one["label"]]
        one |= skill_measures(
            by_label, alone, one["gain_over_prior"], by_label.gain(alone, label, one["model"]),
            of_sector.get((one["sector"], label, PRIOR_ALL), 0.0),
            by_label.gain(alone, label, PRIOR_ALL) if (label, PRIOR_ALL) in gains else 0.0,
        )  # fmt: skip
    for one in found["results"]:
        label, model = one["label"], one["model"]
        one |= skill_measures(
            resampled[label], sectors[label], one["gain_over_prior"], drawn[label, model],
            gains.get((label, PRIOR_ALL), 0.0), drawn.get((label, PRIOR_ALL), 0.0),
        )  # fmt: skip
        low = high = float("nan")  # without tables
        if tables:
            table = max(tables, key=lambda name: gains[label, name])
            low, high = resampled[label].interval(
                sectors[label], one["above_tables"], drawn[label, model] - drawn[label, table]
            )
        one |= {"above_tables_low": low, "above_tables_high": high}
    families = []
    for model in dict.fromkeys(model for _, model in gains):
        of = [label for label, name in gains if name == model]
        mean, mean_all = (
            float(np.mean([gains.get((label, name), 0.0) for label in of])) for name in (model, PRIOR_ALL)
        )
        drawn_mean, drawn_all = (
            np.mean([np.asarray(drawn.get((label, name), 0.0)) for label in of], axis=0) for name in (model, PRIOR_ALL)
        )
        skills = [one["skill"] for one in found["results"] if one["model"] == model]
        longest = max((resampled[label] for label in of), key=lambda one: max(one.blocks.values()))
        families.append({
            "model": model, "labels": len(of), "gain": mean, "labels_with_skill": skills.count(block_bootstrap.SKILL),
            "labels_without_skill": skills.count(NO_SKILL),
            **skill_measures(longest, list(longest.blocks), mean, drawn_mean, mean_all, drawn_all),
        })  # fmt: skip
    about = next(iter(resampled.values())).about()
    return {**found, "intervals": about, "families": families}


def cpcv_summary(measured: Sequence[FoldScores], n_groups: int, n_test: int) -> dict[str, Any]:
    """What a combinatorial cross-validation found: the distribution over paths, for each label and model.

    log_loss, prior_log_loss and gain_over_prior are means over paths, `paths` are theirs. Paths share folds and rows
    of training and are not independent: their spread says how much depends on the place in time, and is no standard
    error, so they can deny skill and not prove it. skill: "no skill" where a path does not gain over the sectors' own
    priors and over that of all sectors, else "above the prior on every path"; smallest_above_prior_all is the least
    of what a path gains beyond the prior of all sectors.
    """
    tests = list(itertools.combinations(range(n_groups), n_test))
    of_path = []
    for folds_of_groups in paths(n_groups, n_test).T.tolist():
        taken = {(fold, tests[fold].index(group)) for group, fold in enumerate(folds_of_groups)}
        of_path.append([one for k, fold in enumerate(measured) for one in fold.losses if (k, one.block) in taken])
    results = []
    keys = dict.fromkeys((one.label, one.model) for fold in measured for one in fold.losses)
    by_key = [_grouped(own, lambda one: (one.label, one.model)) for own in of_path]
    for label, model in keys:
        own_paths = [_averaged(one.get((label, model), [])) for one in by_key]
        known = [path for path in own_paths if path["rows"]]
        means = {
            name: float(np.mean([path[name] for path in known]))
            for name in ("log_loss", "prior_log_loss", "gain_over_prior")
        }
        results.append({"label": label, "model": model, **means, "paths": own_paths, **_spread(own_paths, "paths")})
    by_prior_all = {one["label"]: one["paths"] for one in results if one["model"] == PRIOR_ALL}
    for one in results:
        beside = by_prior_all.get(one["label"], [])
        above = [own["gain_over_prior"] - other["gain_over_prior"]
                 for own, other in zip(one["paths"], beside, strict=False) if own["rows"]]  # fmt: skip
        smallest = min(above, default=float("nan"))
        denied = one["smallest_gain"] <= 0 or smallest <= 0
        one |= {"smallest_above_prior_all": smallest, "skill": NO_SKILL if denied else ON_EVERY_PATH}
    return {
        "groups": n_groups, "test_groups": n_test, "n_paths": len(of_path),
        "folds": [scores.description for scores in measured], "results": results,
    }  # fmt: skip


def _grouped(losses: Iterable[BlockLoss], key: Callable[[BlockLoss], Any]) -> dict[Any, list[BlockLoss]]:
    groups: dict[Any, list[BlockLoss]] = {}
    for one in losses:
        groups.setdefault(key(one), []).append(one)
    return groups


def _averaged(losses: Sequence[BlockLoss]) -> dict[str, Any]:
    """Log-loss and the prior's, each a mean over sectors of their mean over rows; NaN where there are none."""
    means = [
        np.array([sum(one.loss for one in own), sum(one.prior for one in own)]) / sum(one.rows for one in own)
        for own in _grouped(losses, lambda one: one.sector).values()
    ]
    loss, prior = np.mean(means, axis=0).tolist() if means else (float("nan"), float("nan"))
    return {
        "sectors": len(means), "rows": sum(one.rows for one in losses), "log_loss": loss, "prior_log_loss": prior,
        "gain_over_prior": 1 - loss / prior,
    }  # fmt: skip


def _spread(found: Sequence[dict[str, Any]], what: str) -> dict[str, Any]:
    """How steady the gain is over origins or paths; those without rows do not count."""
    gains = np.array([one["gain_over_prior"] for one in found if one["rows"]])
    return {
        f"n_{what}": len(gains),
        f"{what}_above_prior": int((gains > 0).sum()),
        "smallest_gain": float(gains.min()),
        "largest_gain": float(gains.max()),
        "std_of_gains": float(gains.std(ddof=1)) if len(gains) > 1 else float("nan"),
    }
