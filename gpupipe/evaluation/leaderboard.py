"""What a run shows: averages over sectors with their intervals, each family's skill, the verdict, all also in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import NO_SKILL, PRIOR_ALL, SKILL, Resampled

TABLES = ("volatility_table_sector", "volatility_table_all")
JUDGED = ("xgb_joint", "meta_learner")  # what the project promises to beat the baselines with
META = "meta_learner"


def averages(rows: Sequence[dict[str, Any]], resampled: Resampled) -> list[dict[str, Any]]:
    """For each label and model, over sectors: mean log-loss, its gain over the prior's, and where it is above 0.

    gain_over_prior: 1 - mean log-loss / mean log-loss of the prior, on the sealed test with its 95 % interval
    (test_gain_low, test_gain_high) and what that says of skill. The mean of the sectors' own gains is kept beside it as
    mean_of_gains: a sector without a single event in the test part can make that anything.
    """
    groups = _groups(rows)
    found = []
    for (label, model), own in groups.items():
        average: dict[str, Any] = {"label": label, "model": model, "sectors": len(own)}
        for part in ("validation", "test"):
            loss, prior = _mean(own, f"{part}_log_loss"), _mean(own, f"{part}_prior_log_loss")
            average |= {f"{part}_log_loss": loss, f"{part}_gain_over_prior": 1 - loss / prior}
            average[f"{part}_mean_of_gains"] = _mean(own, f"{part}_gain_over_prior")
        sectors = [row["sector"] for row in own]
        drawn, drawn_all = (resampled.gain(sectors, label, name) for name in (model, PRIOR_ALL))
        gain = average["test_gain_over_prior"]
        low, high = resampled.interval(sectors, gain, drawn)
        gain_all = 1 - _mean(groups[label, PRIOR_ALL], "test_log_loss") / _mean(own, "test_prior_log_loss")
        above_low, _ = resampled.interval(sectors, gain - gain_all, drawn - drawn_all)
        average |= {
            "test_gain_low": low, "test_gain_high": high, "test_above_prior_all": gain - gain_all,
            "test_above_prior_all_low": above_low, "test_skill": block_bootstrap.skill(low, above_low),
            "sectors_above_prior": sum(row["test_gain_over_prior"] > 0 for row in own),
            "sectors_with_skill": sum(row["test_skill"] == SKILL for row in own),
            "test_return_buy_and_hold": _pooled(own, "test_return_buy_and_hold", "test_rows"),
            **{
                f"test_return_when_{side}": _pooled(own, f"test_return_when_{side}", f"test_calls_{side}")
                for side in ("buy", "sell")
            },
        }  # fmt: skip
        found.append(average)
    return found


def verdict(
    found: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], resampled: Resampled
) -> list[dict[str, Any]]:
    """For each label and judged model: its average sealed-test gain over the prior and over each volatility table.

    above_prior, above_table_sector, above_table_all: differences of log-loss averaged over sectors, as a share of the
    prior's; positive is better. Each with its 95 % interval of the same draws of dates for both sides, as _low and
    _high. above_tables is the smaller of the two, that is, the table that is better on the sealed test is the one to
    beat: choosing it there helps the table, never the model.
    beats_all: all three are above 0. beats_all_clearly: so are the lower ends of all three intervals.
    """
    mean = {(a["label"], a["model"]): a for a in found}
    sectors = {key: [row["sector"] for row in own] for key, own in _groups(rows).items()}
    verdicts = []
    for (label, model), average in mean.items():
        if model not in JUDGED:
            continue
        gain, drawn = average["test_gain_over_prior"], resampled.gain(sectors[label, model], label, model)
        one = {"label": label, "model": model, "above_prior": gain}
        one |= {"above_prior_low": average["test_gain_low"], "above_prior_high": average["test_gain_high"]}
        for table in TABLES:
            above = gain - mean[label, table]["test_gain_over_prior"]
            drawn_above = drawn - resampled.gain(sectors[label, table], label, table)
            low, high = resampled.interval(sectors[label, model], above, drawn_above)
            name = f"above_{table.removeprefix('volatility_')}"
            one |= {name: above, f"{name}_low": low, f"{name}_high": high}
        names = ("above_prior", "above_table_sector", "above_table_all")
        one["above_tables"] = min(one[name] for name in names[1:])
        one["beats_all"] = all(one[name] > 0 for name in names)
        one["beats_all_clearly"] = all(one[f"{name}_low"] > 0 for name in names)
        verdicts.append(one)
    return verdicts


def families(
    found: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], resampled: Resampled
) -> list[dict[str, Any]]:
    """For each family: its gain averaged over labels, and in how many of its runs (sector and label) it has skill.

    gain: the mean over labels of gain_over_prior, with its 95 % interval, and skill in words.
    not_above, worst first: the runs whose sealed-test log-loss is not below the prior's, with their gains.
    """
    families = []
    for model in _families(rows):
        own = [row for row in rows if row["model"] == model]
        below = [row for row in own if row["test_gain_over_prior"] <= 0]
        below.sort(key=lambda row: row["test_gain_over_prior"])
        gain, drawn = _over_labels(found, rows, resampled, model)
        sectors = [row["sector"] for row in own]
        low, high = resampled.interval(sectors, gain, drawn)
        gain_all, drawn_all = _over_labels(found, rows, resampled, PRIOR_ALL)
        above_low, _ = resampled.interval(sectors, gain - gain_all, drawn - drawn_all)
        families.append({
            "model": model, "gain": gain, "gain_low": low, "gain_high": high, "above_prior_all": gain - gain_all,
            "above_prior_all_low": above_low, "skill": block_bootstrap.skill(low, above_low),
            "labels": len({row["label"] for row in own}),
            "runs": len(own),
            "above_prior": sum(row["test_gain_over_prior"] > 0 for row in own),
            "with_skill": sum(row["test_skill"] == SKILL for row in own),
            "no_skill": sum(row["test_skill"] == NO_SKILL for row in own),
            "not_above": [{name: row[name] for name in ("sector", "label", "test_gain_over_prior")} for row in below],
        })  # fmt: skip
    return families


def stacking(
    found: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], resampled: Resampled
) -> dict[str, Any] | None:
    """The meta-learner beside the best single family, over all labels and sectors; None without both.

    best: the family whose gain over the prior, averaged over labels, is largest on the sealed test itself, which is
    hard on the meta-learner. difference: of the two averages, with its 95 % interval as difference_low and _high.
    """
    names = _families(rows)
    if META not in names or len(names) == 1:
        return None
    gains = {model: _over_labels(found, rows, resampled, model) for model in names}
    meta, meta_drawn = gains.pop(META)
    best = max(gains, key=lambda model: gains[model][0])
    gain, drawn = gains[best]
    low, high = resampled.interval([row["sector"] for row in rows], meta - gain, meta_drawn - drawn)
    return {"best": best, "best_gain": gain, "meta_gain": meta, "difference": meta - gain, "difference_low": low,
            "difference_high": high}  # fmt: skip


def _groups(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["label"], row["model"]), []).append(row)
    return groups


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _pooled(rows: Sequence[dict[str, Any]], name: str, weight: str) -> float:
    """The mean of a measure over the rows behind it; NaN where there is none."""
    known = [row for row in rows if not np.isnan(row[name])]
    total = sum(row[weight] for row in known)
    return float(sum(row[name] * row[weight] for row in known) / total) if total else float("nan")


def _families(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows if row["kind"] == "model"))


def _over_labels(
    found: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], resampled: Resampled, model: str
) -> tuple[float, np.ndarray]:
    """The mean over labels of a model's gain over the prior, and of its draws."""
    own = {label: rows for (label, name), rows in _groups(rows).items() if name == model}
    gain = float(np.mean([a["test_gain_over_prior"] for a in found if a["model"] == model]))
    drawn = [resampled.gain([row["sector"] for row in rows], label, model) for label, rows in own.items()]
    return gain, np.mean(drawn, axis=0)
