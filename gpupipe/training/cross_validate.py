"""The same training at several places in time: walk-forward and combinatorial purged cross-validation, measured."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.artifacts import out_of_sample_store
from gpupipe.artifacts.summary import Skipped
from gpupipe.cross_validation.splits import Boundaries, Folds, Split, paths, split
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.dataset.dataset import Dataset
from gpupipe.evaluation import block_bootstrap, metrics
from gpupipe.evaluation.block_bootstrap import NO_SKILL, PRIOR, PRIOR_ALL
from gpupipe.runtime.errors import UserError
from gpupipe.targets.classes import N_CLASSES
from gpupipe.training import out_of_sample
from gpupipe.training.groups import Trained, Work, train

ON_EVERY_PATH = "above the prior on every path"
TABLES = ("volatility_table_sector", "volatility_table_all")
# Who says what beside the models: (work, trained) -> (sector, rows) -> for each baseline (n_rows, n_labels, 3).
Baselines = Callable[[Work, list[Trained]], Callable[[str, np.ndarray], dict[str, np.ndarray]]]


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
class MeasuredFold:
    """A fold that was trained: what it is, for the summary, and what its models lost.

    by_time: the same losses by label and sector, added up by time: what intervals are drawn from.
    said: what its models said of the test window, by sector; of the origins of a walk-forward alone.
    """

    about: dict[str, Any]
    losses: list[BlockLoss]
    by_time: dict[tuple[str, str], block_bootstrap.Losses] = field(default_factory=dict)
    said: list[out_of_sample_store.Said] = field(default_factory=list)


def title(at: Boundaries) -> str:
    """A fold as a person reads it: "origin 2", "cpcv 05", or "single split"."""
    return at.name.replace("origin", "origin ").replace("cpcv", "cpcv ") or "single split"


def rehearse(work: Work, folds: Folds, baselines: Baselines, stage: Callable[[str], None]) -> list[MeasuredFold]:
    """Train and measure every fold whose models are not kept, one after the other.

    Units of a fold are resumable like those of the published one; a model lives until its fold is measured.
    Raises UserError, naming the fold, where nothing of it can be trained.
    """
    measured = []
    for at in folds.rehearsals:
        stage(f"training, {title(at)}")
        cut = {sector: split(dataset, at) for sector, dataset in work.datasets.items()}
        own = dataclasses.replace(work, splits=cut, at=at)
        try:
            trained, skipped = train(own)
        except UserError as error:
            fix = "fewer origins or a larger split.train" if at.name.startswith("origin") else "fewer groups"
            raise UserError(f"{title(at)}: {error}; {fix} would give it more") from None
        found = measure(own, at, trained, skipped, baselines)
        said = out_of_sample.of_fold(own, at, trained) if at in folds.walk_forward else []
        measured.append(dataclasses.replace(found, said=said))
    return measured


def survey(work: Work, folds: Folds) -> None:
    """Ask for the units of every fold whose models are not kept, as `rehearse` would need them."""
    for at in folds.rehearsals:
        cut = {sector: split(dataset, at) for sector, dataset in work.datasets.items()}
        train(dataclasses.replace(work, splits=cut, at=at))


def measure(
    work: Work, at: Boundaries, trained: list[Trained], skipped: Sequence[Skipped], baselines: Baselines
) -> MeasuredFold:  # fmt: skip
    """The losses of a fold's models and baselines on its test rows, by block."""
    say = baselines(work, trained)
    losses, by_time = [], {}
    for one in trained:
        dataset, cut = work.datasets[one.sector], work.splits[one.sector]
        y, time_ns = work.device.to_host(dataset.y), work.device.to_host(dataset.time_ns)[cut.test]
        from_tables = say(one.sector, cut.test)
        blocks = [np.flatnonzero((time_ns >= block.start) & (time_ns < block.stop)) for block in at.test]
        for position, label in enumerate(one.labels):
            k = dataset.label_names.index(label)
            shares = np.bincount(y[cut.train, k], minlength=N_CLASSES) + 0.5
            said = {family: one.test[family][:, position] for family in one.models}
            said |= {name: probability[:, k] for name, probability in from_tables.items()}
            truth = y[cut.test, k]
            prior = metrics.log_losses(np.broadcast_to(shares / shares.sum(), (len(truth), N_CLASSES)), truth)
            of_rows = {model: metrics.log_losses(probability, truth) for model, probability in said.items()}
            by_time[label, one.sector] = block_bootstrap.by_time(
                time_ns, {(label, model): lost for model, lost in {PRIOR: prior, **of_rows}.items()}
            )
            for model, lost in of_rows.items():
                losses += [
                    BlockLoss(
                        at.name, b, one.sector, label, model, len(rows), float(lost[rows].sum()),
                        float(prior[rows].sum()),
                    )
                    for b, rows in enumerate(blocks)
                    if len(rows)
                ]  # fmt: skip
    left_out = [dataclasses.asdict(one) for one in skipped]
    return MeasuredFold({**describe(at, work.datasets, work.splits), "skipped": left_out}, losses, by_time)


def describe(at: Boundaries, datasets: Mapping[str, Dataset], splits: Mapping[str, Split]) -> dict[str, Any]:
    """Rows and dates of a fold; of a test of several blocks each one's dates."""

    def times(part: str) -> np.ndarray:
        return np.concatenate([d.device.to_host(d.time_ns)[getattr(splits[s], part)] for s, d in datasets.items()])

    of_part = {part: times(part) for part in ("train", "validation", "test")}
    dates = {part: _ends(of_part[part]) for part in ("train", "validation")}
    test = of_part["test"]
    return {
        "name": title(at),
        "rows": {part: len(found) for part, found in of_part.items()},
        **dates,
        "test": [_ends(test[(test >= block.start) & (test < block.stop)]) for block in at.test],
    }


def _ends(time_ns: np.ndarray) -> list[str]:
    return [time_text(int(time_ns.min())), time_text(int(time_ns.max()))] if len(time_ns) else []


def plan(folds: Folds, datasets: Mapping[str, Dataset]) -> dict[str, Any]:
    """Rows and dates of every fold beside a single split: "walk_forward" and "cpcv", where they were asked for."""

    def described(several: Sequence[Boundaries]) -> list[dict[str, Any]]:
        return [describe(at, datasets, {s: split(d, at) for s, d in datasets.items()}) for at in several]

    asked = {"walk_forward": folds.walk_forward, "cpcv": folds.cpcv}
    return {name: described(several) for name, several in asked.items() if several}


def summarise(
    work: Work, folds: Folds, rehearsed: Sequence[MeasuredFold], trained: list[Trained], skipped: Sequence[Skipped],
    baselines: Baselines,
) -> dict[str, Any]:  # fmt: skip
    """The sections "walk_forward" and "cpcv" of a summary, where they were asked for.

    rehearsed: what `rehearse` gave.  trained, skipped: the published fold's, which is the last origin.
    """
    crossed, origins = rehearsed[: len(folds.cpcv)], rehearsed[len(folds.cpcv) :]
    found = {}
    if folds.walk_forward:
        last = measure(work, folds.published, trained, skipped, baselines)
        settings = work.settings
        walked = walk_forward_summary([*origins, last])
        found["walk_forward"] = with_intervals(walked, [*origins, last], max(settings.labels.horizons), settings.seed)
    if folds.cpcv:
        found["cpcv"] = cpcv_summary(crossed, *work.settings.split.cpcv)
    return found


def publish(
    work: Work, panel: Panel, folds: Folds, rehearsed: Sequence[MeasuredFold], trained: list[Trained]
) -> dict[str, dict[str, Any]]:
    """Write what a walk-forward said of rows that its models had not seen; manifest entries, none without one.

    rehearsed, trained: as of `summarise`.
    """
    if not folds.walk_forward:
        return {}
    said = [one.said for one in rehearsed[len(folds.cpcv) :]]
    said.append(out_of_sample.of_fold(work, folds.published, trained))
    return out_of_sample_store.publish(work.store, panel, folds.walk_forward, said, work.run_key)


def walk_forward_summary(measured: Sequence[MeasuredFold]) -> dict[str, Any]:
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
        tables = [t["gain_over_prior"] for t in results if t["label"] == one["label"] and t["model"] in TABLES]
        one["above_tables"] = one["gain_over_prior"] - max(tables) if tables else float("nan")
    return {"origins": [one.about for one in measured], "results": results, "by_sector": by_sector}


def with_intervals(
    found: dict[str, Any], measured: Sequence[MeasuredFold], longest_horizon: int, seed: int
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
        one |= _interval_of(
            by_label, alone, one["gain_over_prior"], by_label.gain(alone, label, one["model"]),
            of_sector[one["sector"], label, PRIOR_ALL], by_label.gain(alone, label, PRIOR_ALL),
        )  # fmt: skip
    for one in found["results"]:
        label, model = one["label"], one["model"]
        one |= _interval_of(
            resampled[label], sectors[label], one["gain_over_prior"], drawn[label, model],
            gains[label, PRIOR_ALL], drawn[label, PRIOR_ALL],
        )  # fmt: skip
        table = max(TABLES, key=lambda name: gains[label, name])
        low, high = resampled[label].interval(
            sectors[label], one["above_tables"], drawn[label, model] - drawn[label, table]
        )
        one |= {"above_tables_low": low, "above_tables_high": high}
    families = []
    for model in dict.fromkeys(model for _, model in gains):
        of = [label for label, name in gains if name == model]
        mean, mean_all = (float(np.mean([gains[label, name] for label in of])) for name in (model, PRIOR_ALL))
        drawn_mean, drawn_all = (np.mean([drawn[label, name] for label in of], axis=0) for name in (model, PRIOR_ALL))
        skills = [one["skill"] for one in found["results"] if one["model"] == model]
        longest = max((resampled[label] for label in of), key=lambda one: max(one.blocks.values()))
        families.append({
            "model": model, "labels": len(of), "gain": mean, "labels_with_skill": skills.count(block_bootstrap.SKILL),
            "labels_without_skill": skills.count(NO_SKILL),
            **_interval_of(longest, list(longest.blocks), mean, drawn_mean, mean_all, drawn_all),
        })  # fmt: skip
    about = next(iter(resampled.values())).about()
    return {**found, "intervals": about, "families": families}


def _interval_of(
    resampled: block_bootstrap.Resampled, sectors: Sequence[str], gain: float, drawn: np.ndarray, gain_all: float,
    drawn_all: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """The interval of a gain over the prior, the lower end of what is beyond the prior of all sectors, and skill."""
    low, high = resampled.interval(sectors, gain, drawn)
    above_low, _ = resampled.interval(sectors, gain - gain_all, drawn - drawn_all)
    return {
        "gain_low": low, "gain_high": high, "above_prior_all": gain - gain_all, "above_prior_all_low": above_low,
        "skill": block_bootstrap.skill(low, above_low),
    }  # fmt: skip


def cpcv_summary(measured: Sequence[MeasuredFold], n_groups: int, n_test: int) -> dict[str, Any]:
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
        "groups": n_groups, "test_groups": n_test, "n_paths": len(of_path), "folds": [one.about for one in measured],
        "results": results,
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
