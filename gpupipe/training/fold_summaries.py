"""Summaries over folds: walk-forward with intervals, and combinatorial cross-validation over its paths."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.artifacts.out_of_sample_store import FoldPredictions
from gpupipe.cross_validation.combinatorial import paths
from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import NO_EVENTS, NO_SKILL, PRIOR_ALL, Resampled
from gpupipe.evaluation.losses import gain
from gpupipe.evaluation.skill import skill_by_part, skill_measures
from gpupipe.evaluation.touch_direction import DIRECTION, GAINS, TOUCH, WHOLE, gains_of, named, part_gains

ON_EVERY_PATH = "above the prior on every path"


@dataclass(frozen=True)
class BlockLoss:
    """The losses of a model and of the prior on the test rows of one block of a fold, summed, in nats.

    block: its position among the fold's test blocks.  prior: loss of the class shares of the sector's training part.
    classes: those that occur in these rows; None for targets without classes.
    touch, touch_of_prior: the touch parts of both losses (see `touch_direction`); None for targets without parts.

        >>> block = BlockLoss("origin1", 0, "energy", "label_1d_5pct", "linear", rows=100, loss=90.0, prior=100.0)
        >>> round(1 - block.loss / block.prior, 2)  # the gain over the prior
        0.1
    """

    fold: str
    block: int
    sector: str
    label: str
    model: str
    rows: int
    loss: float
    prior: float
    classes: frozenset[int] | None = None
    touch: float | None = None
    touch_of_prior: float | None = None


@dataclass(frozen=True)
class FoldScores:
    """A trained fold: its description for the summary, and the losses of its models.

    losses: sums by block, sector, label and model.
    by_time: the same losses by (target, group), summed by time; intervals are drawn from them.
    predictions: for the test window, by group; only the origins of a walk-forward have them.
    kept: what the workload's own measures keep of an origin; None without any.

        >>> block = BlockLoss("origin1", 0, "energy", "label_1d_5pct", "linear", rows=100, loss=90.0, prior=100.0)
        >>> scores = FoldScores({"name": "origin1"}, [block])
        >>> walk_forward_summary([scores], tables=[])["results"][0]["log_loss"]  # a mean over rows
        0.9
    """

    description: dict[str, Any]
    losses: list[BlockLoss]
    by_time: dict[tuple[str, str], block_bootstrap.Losses] = field(default_factory=dict)
    predictions: list[FoldPredictions] = field(default_factory=list)
    kept: Any = None


def walk_forward_summary(fold_scores: Sequence[FoldScores], tables: Sequence[str]) -> dict[str, Any]:
    """Results of a walk-forward for each label and model: pooled over the origins' test rows, and by origin.

    Averages over sectors compare the sectors' mean log-loss with their priors' mean log-loss. Sectors whose rows hold a
    single class are left out, and counted as sectors_without_events. above_tables is the gain minus the gain of the
    better volatility table.
    """
    losses = [block for scores in fold_scores for block in scores.losses]
    names = list(dict.fromkeys(block.fold for block in losses))
    results, by_sector = [], []
    for (label, model), model_losses in _grouped(losses, lambda block: (block.label, block.model)).items():
        origin_losses = _grouped(model_losses, lambda block: block.fold)
        origins = [_averaged(origin_losses.get(name, [])) for name in names]
        about = {"label": label, "model": model}
        results.append({**about, **_averaged(model_losses), "origins": origins, **_spread(origins, "origins")})
        for sector, sector_losses in _grouped(model_losses, lambda block: block.sector).items():
            parts = [_averaged(blocks) for blocks in _grouped(sector_losses, lambda block: block.fold).values()]
            by_sector.append({"sector": sector, **about, **_averaged(sector_losses), **_spread(parts, "origins")})
    for result in results:
        gains = [
            table["gain_over_prior"]
            for table in results
            if table["label"] == result["label"] and table["model"] in tables
        ]
        result["above_tables"] = result["gain_over_prior"] - max(gains) if gains else float("nan")
    return {"origins": [scores.description for scores in fold_scores], "results": results, "by_sector": by_sector}


@dataclass(frozen=True)
class _Gains:
    """Gains over the prior of a walk-forward, with their bootstrap draws.

    gains: the gain and its parts (see `touch_direction.gains_of`), by (label, model).  sectors: those with events, by
        label.  resampled: by label.
    """

    gains: dict[tuple[str, str], dict[str, float]]
    sectors: dict[str, list[str]]
    resampled: dict[str, Resampled]

    @classmethod
    def draw(cls, walked: dict[str, Any], fold_scores: Sequence[FoldScores], longest_horizon: int, seed: int) -> _Gains:
        """Draw blocks of dates over all origins, the same dates for all labels, sectors and models."""
        parts: dict[tuple[str, str], list[block_bootstrap.Losses]] = {}
        for scores in fold_scores:
            for key, losses_of_fold in scores.by_time.items():
                if len(losses_of_fold.times):
                    parts.setdefault(key, []).append(losses_of_fold)
        losses = {key: block_bootstrap.joined(fold_losses) for key, fold_losses in parts.items()}
        times = np.concatenate([key_losses.times for key_losses in losses.values()])
        draws = block_bootstrap.draw(times, longest_horizon, seed)
        gains = {(result["label"], result["model"]): gains_of(result) for result in walked["results"]}
        labels = list(dict.fromkeys(label for label, _ in losses))
        resampled = {
            label: block_bootstrap.resample(draws, {s: part for (name, s), part in losses.items() if name == label})
            for label in labels
        }
        without = {(r["sector"], r["label"]) for r in walked["by_sector"] if np.isnan(r["gain_over_prior"])}
        sectors = {
            label: [sector for name, sector in losses if name == label and (sector, label) not in without]
            for label in labels
        }
        return cls(gains, sectors, resampled)

    def drawn(self, label: str, model: str, part: str = WHOLE) -> np.ndarray:
        """The draws of a gain averaged over sectors, float64 (n_draws,)."""
        return self.resampled[label].gain(self.sectors[label], label, model, part)

    def skill_of(self, label: str, model: str) -> dict[str, Any]:
        """Skill measures of a model on a label, averaged over sectors."""
        gains, gains_all = self.gains[label, model], self.gains.get((label, PRIOR_ALL))
        return skill_by_part(self.resampled[label], self.sectors[label], label, model, gains, gains_all)

    def skill_of_sector(self, result: dict[str, Any], gains_all: dict[str, float] | None) -> dict[str, Any]:
        """Skill measures of a model on a label in one sector. gains_all: of the prior of all sectors there."""
        label, sector, model = result["label"], [result["sector"]], result["model"]
        return skill_by_part(self.resampled[label], sector, label, model, gains_of(result), gains_all)

    def above_tables(self, result: dict[str, Any], tables: Sequence[str]) -> dict[str, float]:
        """The interval of above_tables, NaN without tables; with tables also each part's difference, and its interval.

        Each is a difference to the table that is best on the test rows themselves, in that part.
        """
        if not tables:
            return {"above_tables_low": float("nan"), "above_tables_high": float("nan")}
        label, model = result["label"], result["model"]
        found: dict[str, float] = {}
        for part, own_gain in self.gains[label, model].items():
            table_gains = {name: self.gains[label, name][part] for name in tables}
            table = max(table_gains, key=table_gains.__getitem__)
            above = own_gain - table_gains[table]
            drawn = self.drawn(label, model, part) - self.drawn(label, table, part)
            low, high = self.resampled[label].interval(self.sectors[label], above, drawn)
            name = named(part, "above_tables")
            found |= {name: above, f"{name}_low": low, f"{name}_high": high}
        return found

    def over_labels(self, model: str, skills: Sequence[str]) -> dict[str, Any]:
        """Gain and skill measures of a model, averaged over its labels. skills: in words, one for each label.

        Labels without any event are left out; NaN where none has one.
        """
        all_labels = [label for label, name in self.gains if name == model]
        labels = [label for label in all_labels if self.sectors[label]] or all_labels
        longest = max((self.resampled[label] for label in labels), key=lambda item: max(item.blocks.values()))
        found: dict[str, Any] = {}
        for part in self.gains[labels[0], model]:
            (mean, drawn), (mean_all, drawn_all) = (self._mean(labels, name, part) for name in (model, PRIOR_ALL))
            skill = skill_measures(longest, list(longest.blocks), mean, drawn, mean_all, drawn_all)
            found |= {named(part, "gain"): mean, **{named(part, name): value for name, value in skill.items()}}
        return {
            "model": model, "labels": len(all_labels),
            "labels_with_skill": skills.count(block_bootstrap.SKILL), "labels_without_skill": skills.count(NO_SKILL),
            **found,
        }  # fmt: skip

    def _mean(self, labels: Sequence[str], model: str, part: str) -> tuple[float, Any]:
        """The mean over labels of a gain, and of its draws; zeros for a missing model."""
        if (labels[0], model) not in self.gains:
            return 0.0, 0.0
        mean = float(np.mean([self.gains[label, model][part] for label in labels]))
        return mean, np.mean([self.drawn(label, model, part) for label in labels], axis=0)


def with_intervals(
    walked: dict[str, Any],
    fold_scores: Sequence[FoldScores],
    longest_horizon: int,
    seed: int,
    tables: Sequence[str],
) -> dict[str, Any]:
    """A walk-forward's summary with 95 % intervals of its pooled figures, skill in words, and `families`.

    Origins test different dates, so their test rows form one stretch of time. Its dates are drawn in blocks, the same
    for all labels, sectors and models (`block_bootstrap.draw`). Each item of results and by_sector gets gain_low,
    gain_high, above_prior_all, above_prior_all_low and skill, and the same for touch_gain and direction_gain
    (touch_skill, ...); items of results also get above_tables_low and above_tables_high, the interval of the difference
    to the better table, and both parts of it. families: the means over labels.
    """
    gains = _Gains.draw(walked, fold_scores, longest_horizon, seed)
    prior_gains = {
        (result["sector"], result["label"]): gains_of(result)
        for result in walked["by_sector"]
        if result["model"] == PRIOR_ALL
    }
    for result in walked["by_sector"]:
        result |= gains.skill_of_sector(result, prior_gains.get((result["sector"], result["label"])))
    for result in walked["results"]:
        result |= gains.skill_of(result["label"], result["model"])
        result |= gains.above_tables(result, tables)
    families = [
        gains.over_labels(model, [result["skill"] for result in walked["results"] if result["model"] == model])
        for model in dict.fromkeys(model for _, model in gains.gains)
    ]
    about = next(iter(gains.resampled.values())).about()
    return {**walked, "intervals": about, "families": families}


def cpcv_summary(fold_scores: Sequence[FoldScores], n_groups: int, n_test: int) -> dict[str, Any]:
    """Results of a combinatorial cross-validation for each label and model: the distribution over paths.

    log_loss, prior_log_loss and gain_over_prior are means over the paths, which `paths` lists. Paths share folds and
    training rows, so they are not independent. Their spread measures the dependence on the place in time and is no
    standard error: it can deny skill, and cannot prove it.
    skill: "no skill" where a path does not gain over the sectors' priors and over the prior of all sectors, else
        "above the prior on every path"; "no events" where no path has a gain, as in `walk_forward_summary`.
    smallest_above_prior_all: the smallest gain of a path minus the gain of the prior of all sectors.
    """
    tests = list(itertools.combinations(range(n_groups), n_test))
    losses_of_paths = []
    for folds_of_groups in paths(n_groups, n_test).T.tolist():
        on_path = {(fold, tests[fold].index(group)) for group, fold in enumerate(folds_of_groups)}
        losses_of_paths.append(
            [block for k, scores in enumerate(fold_scores) for block in scores.losses if (k, block.block) in on_path]
        )
    results = []
    keys = dict.fromkeys((block.label, block.model) for scores in fold_scores for block in scores.losses)
    by_key = [_grouped(losses, lambda block: (block.label, block.model)) for losses in losses_of_paths]
    for label, model in keys:
        averages = [_averaged(path_losses.get((label, model), [])) for path_losses in by_key]
        means = {
            name: _mean([average[name] for average in averages if not np.isnan(average["gain_over_prior"])])
            for name in ("log_loss", "prior_log_loss", *GAINS.values()) if any(name in average for average in averages)
        }  # fmt: skip
        results.append({"label": label, "model": model, **means, "paths": averages, **_spread(averages, "paths")})
    by_prior_all = {result["label"]: result["paths"] for result in results if result["model"] == PRIOR_ALL}
    for result in results:
        above = [
            path["gain_over_prior"] - prior["gain_over_prior"]
            for path, prior in zip(result["paths"], by_prior_all.get(result["label"], []), strict=False)
            if not np.isnan(path["gain_over_prior"])
        ]
        smallest = min(above, default=float("nan"))
        denied = result["smallest_gain"] <= 0 or smallest <= 0
        skill = NO_EVENTS if np.isnan(result["gain_over_prior"]) else NO_SKILL if denied else ON_EVERY_PATH
        result |= {"smallest_above_prior_all": smallest, "skill": skill}
    return {
        "groups": n_groups, "test_groups": n_test, "n_paths": len(losses_of_paths),
        "folds": [scores.description for scores in fold_scores], "results": results,
    }  # fmt: skip


def _grouped(losses: Iterable[BlockLoss], key: Callable[[BlockLoss], Any]) -> dict[Any, list[BlockLoss]]:
    groups: dict[Any, list[BlockLoss]] = {}
    for block in losses:
        groups.setdefault(key(block), []).append(block)
    return groups


def _averaged(losses: Sequence[BlockLoss]) -> dict[str, Any]:
    """Log-loss of the model and of the prior, each a mean over sectors of their mean over rows; NaN without rows.

    Sectors whose rows hold a single class are left out.
    """
    by_sector = _grouped(losses, lambda block: block.sector)
    judged = [blocks for blocks in by_sector.values() if _have_events(blocks)]

    def mean(name: str) -> float:
        sums = (sum(getattr(block, name) for block in blocks) / sum(b.rows for b in blocks) for blocks in judged)
        return _mean(list(sums))

    loss, prior = mean("loss"), mean("prior")
    averaged = {
        "sectors": len(by_sector), "sectors_without_events": len(by_sector) - len(judged),
        "rows": sum(block.rows for block in losses), "log_loss": loss, "prior_log_loss": prior,
        "gain_over_prior": gain(loss, prior),
    }  # fmt: skip
    if losses and losses[0].touch is not None:
        parts = part_gains(loss, prior, mean("touch"), mean("touch_of_prior"))
        averaged |= {GAINS[part]: parts[part] for part in (TOUCH, DIRECTION)}
    return averaged


def _have_events(blocks: Sequence[BlockLoss]) -> bool:
    """Whether the rows of these blocks hold more than one class; True for targets without classes."""
    known = [block.classes for block in blocks if block.classes is not None]
    return not known or len(frozenset[int]().union(*known)) > 1


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _spread(averages: Sequence[dict[str, Any]], what: str) -> dict[str, Any]:
    """The spread of the gain over origins or paths; those without rows or events do not count."""
    all_gains = np.array([average["gain_over_prior"] for average in averages])
    gains = all_gains[~np.isnan(all_gains)]
    return {
        f"n_{what}": len(gains),
        f"{what}_above_prior": int((gains > 0).sum()),
        "smallest_gain": float(gains.min()) if len(gains) else float("nan"),
        "largest_gain": float(gains.max()) if len(gains) else float("nan"),
        "std_of_gains": float(gains.std(ddof=1)) if len(gains) > 1 else float("nan"),
    }
