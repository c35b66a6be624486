"""The leaderboard of a run: averages over sectors with intervals, skill of each model family, verdict, stacking.

Inputs are the summary's rows, one for each (sector, label, model), and the bootstrap draws of their log-losses. Mean
returns that are NaN in a row are left out of averages; log-losses and gains of the rows must not be NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import NO_SKILL, PRIOR_ALL, SKILL, Resampled

TABLES = ("volatility_table_sector", "volatility_table_all")
JUDGED = ("xgb_joint", "meta_learner")  # the models that are expected to beat the baselines
META = "meta_learner"


def averages(rows: Sequence[dict[str, Any]], resampled: Resampled) -> list[dict[str, Any]]:
    """For each label and model, averaged over sectors: log-loss, gain over the prior with its interval, and skill.

    gain_over_prior: 1 - mean log-loss / mean log-loss of the prior; on the sealed test with its 95 % interval
        (test_gain_low, test_gain_high, NaN with too few blocks) and the skill that follows from it.
    mean_of_gains: the mean of the sectors' gains. One sector without any event in the test part can dominate it.
    test_return_...: means over all rows, or all calls, of the sectors; NaN where there is none.
    """
    groups = _groups(rows)
    averages = []
    for (label, model), model_rows in groups.items():
        average: dict[str, Any] = {"label": label, "model": model, "sectors": len(model_rows)}
        for part in ("validation", "test"):
            loss, prior = _mean(model_rows, f"{part}_log_loss"), _mean(model_rows, f"{part}_prior_log_loss")
            average |= {f"{part}_log_loss": loss, f"{part}_gain_over_prior": 1 - loss / prior}
            average[f"{part}_mean_of_gains"] = _mean(model_rows, f"{part}_gain_over_prior")
        sectors = [row["sector"] for row in model_rows]
        drawn, drawn_all = (resampled.gain(sectors, label, name) for name in (model, PRIOR_ALL))
        gain = average["test_gain_over_prior"]
        low, high = resampled.interval(sectors, gain, drawn)
        gain_all = 1 - _mean(groups[label, PRIOR_ALL], "test_log_loss") / _mean(model_rows, "test_prior_log_loss")
        above_low, _ = resampled.interval(sectors, gain - gain_all, drawn - drawn_all)
        average |= {
            "test_gain_low": low, "test_gain_high": high, "test_above_prior_all": gain - gain_all,
            "test_above_prior_all_low": above_low, "test_skill": block_bootstrap.skill(low, above_low),
            "sectors_above_prior": sum(row["test_gain_over_prior"] > 0 for row in model_rows),
            "sectors_with_skill": sum(row["test_skill"] == SKILL for row in model_rows),
            "test_return_buy_and_hold": _weighted_mean(model_rows, "test_return_buy_and_hold", "test_rows"),
            **{
                f"test_return_when_{side}": _weighted_mean(model_rows, f"test_return_when_{side}", f"test_calls_{side}")
                for side in ("buy", "sell")
            },
        }  # fmt: skip
        averages.append(average)
    return averages


def verdict(
    averages: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], resampled: Resampled
) -> list[dict[str, Any]]:
    """For each label and judged model: the mean sealed-test gain over the prior and over each volatility baseline.

    above_prior, above_table_sector, above_table_all: differences of the mean log-loss over sectors, as a share of the
        prior's; positive is better. Each has a 95 % interval (_low, _high; NaN with too few blocks) from draws of dates
        that both sides share.
    above_tables: the smaller of the two table differences. The better table is chosen on the sealed test, which favours
        the table and never the model.
    beats_all: all three are above 0.  beats_all_clearly: the lower ends of all three intervals are above 0.
    """
    mean = {(average["label"], average["model"]): average for average in averages}
    sectors = {key: [row["sector"] for row in model_rows] for key, model_rows in _groups(rows).items()}
    verdicts = []
    for (label, model), average in mean.items():
        if model not in JUDGED:
            continue
        gain, drawn = average["test_gain_over_prior"], resampled.gain(sectors[label, model], label, model)
        judged = {"label": label, "model": model, "above_prior": gain}
        judged |= {"above_prior_low": average["test_gain_low"], "above_prior_high": average["test_gain_high"]}
        for table in TABLES:
            above = gain - mean[label, table]["test_gain_over_prior"]
            drawn_above = drawn - resampled.gain(sectors[label, table], label, table)
            low, high = resampled.interval(sectors[label, model], above, drawn_above)
            name = f"above_{table.removeprefix('volatility_')}"
            judged |= {name: above, f"{name}_low": low, f"{name}_high": high}
        names = ("above_prior", "above_table_sector", "above_table_all")
        judged["above_tables"] = min(judged[name] for name in names[1:])
        judged["beats_all"] = all(judged[name] > 0 for name in names)
        judged["beats_all_clearly"] = all(judged[f"{name}_low"] > 0 for name in names)
        verdicts.append(judged)
    return verdicts


def families(
    averages: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], resampled: Resampled
) -> list[dict[str, Any]]:
    """For each model family: the gain averaged over labels, and the number of runs (sector, label) with skill.

    gain: the mean over labels of gain_over_prior, with its 95 % interval (NaN with too few blocks) and skill.
    not_above: the runs whose sealed-test log-loss is not below the prior's, worst first, with their gains.
    """
    families = []
    for model in _families(rows):
        runs = [row for row in rows if row["model"] == model]
        below = [row for row in runs if row["test_gain_over_prior"] <= 0]
        below.sort(key=lambda row: row["test_gain_over_prior"])
        gain, drawn = _mean_over_labels(averages, rows, resampled, model)
        sectors = [row["sector"] for row in runs]
        low, high = resampled.interval(sectors, gain, drawn)
        gain_all, drawn_all = _mean_over_labels(averages, rows, resampled, PRIOR_ALL)
        above_low, _ = resampled.interval(sectors, gain - gain_all, drawn - drawn_all)
        families.append({
            "model": model, "gain": gain, "gain_low": low, "gain_high": high, "above_prior_all": gain - gain_all,
            "above_prior_all_low": above_low, "skill": block_bootstrap.skill(low, above_low),
            "labels": len({row["label"] for row in runs}),
            "runs": len(runs),
            "above_prior": sum(row["test_gain_over_prior"] > 0 for row in runs),
            "with_skill": sum(row["test_skill"] == SKILL for row in runs),
            "no_skill": sum(row["test_skill"] == NO_SKILL for row in runs),
            "not_above": [{name: row[name] for name in ("sector", "label", "test_gain_over_prior")} for row in below],
        })  # fmt: skip
    return families


def stacking(
    averages: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], resampled: Resampled
) -> dict[str, Any] | None:
    """The meta-learner compared with the best single family, over all labels and sectors; None unless both exist.

    best: the family with the largest gain over the prior, averaged over labels, on the sealed test itself. Choosing it
        there favours the family over the meta-learner.
    difference: meta_gain - best_gain, with its 95 % interval difference_low, difference_high (NaN with too few blocks).
    """
    names = _families(rows)
    if META not in names or len(names) == 1:
        return None
    gains = {model: _mean_over_labels(averages, rows, resampled, model) for model in names}
    meta, meta_drawn = gains.pop(META)
    best = max(gains, key=lambda model: gains[model][0])
    gain, drawn = gains[best]
    low, high = resampled.interval([row["sector"] for row in rows], meta - gain, meta_drawn - drawn)
    return {
        "best": best,
        "best_gain": gain,
        "meta_gain": meta,
        "difference": meta - gain,
        "difference_low": low,
        "difference_high": high,
    }


def _groups(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["label"], row["model"]), []).append(row)
    return groups


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _weighted_mean(rows: Sequence[dict[str, Any]], name: str, weight: str) -> float:
    """The mean of a measure, weighted by a count and without NaN; NaN if nothing is left."""
    known = [row for row in rows if not np.isnan(row[name])]
    total = sum(row[weight] for row in known)
    return float(sum(row[name] * row[weight] for row in known) / total) if total else float("nan")


def _families(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows if row["kind"] == "model"))


def _mean_over_labels(
    averages: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], resampled: Resampled, model: str
) -> tuple[float, np.ndarray]:
    """The mean over labels of a model's gain over the prior, and of its draws."""
    by_label = {label: label_rows for (label, name), label_rows in _groups(rows).items() if name == model}
    gain = float(np.mean([average["test_gain_over_prior"] for average in averages if average["model"] == model]))
    drawn = [
        resampled.gain([row["sector"] for row in label_rows], label, model) for label, label_rows in by_label.items()
    ]
    return gain, np.mean(drawn, axis=0)
