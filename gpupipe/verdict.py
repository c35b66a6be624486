"""What a run shows: averages over sectors with their intervals, each family's skill, the verdict, all also in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe import intervals
from gpupipe.intervals import NO_SKILL, PRIOR_ALL, SKILL, Resampled

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
            "test_above_prior_all_low": above_low, "test_skill": intervals.skill(low, above_low),
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
            "above_prior_all_low": above_low, "skill": intervals.skill(low, above_low),
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


def verdict_sentences(found: Sequence[dict[str, Any]], n_sectors: int) -> list[str]:
    """The verdict in words, one sentence a model: where it wins, and by how much it does not."""
    sentences = []
    measured_on = "sealed test" if n_sectors == 1 else f"sealed test, averaged over {n_sectors} sectors"
    for model in JUDGED:
        own = [v for v in found if v["model"] == model]
        if not own:
            continue
        short = [v for v in own if not v["beats_all"]]
        clearly = sum(v["beats_all_clearly"] for v in own)
        text = (
            f"{model}: better than the prior and both volatility tables on {len(own) - len(short)} of {len(own)} "
            f"labels, on {clearly} with all three intervals above 0"
        )
        for v in short:
            by = min(v["above_prior"], v["above_tables"])
            text += f"; not on {v['label']}, by {-100 * by:.2f} points of the prior's log-loss"
        sentences.append(f"{text} ({measured_on}).")
    return sentences


def skill_sentences(found: Sequence[dict[str, Any]], drawn: dict[str, Any], most: int = 4) -> list[str]:
    """Each family in a sentence: skill or "no skill", how many of its runs have it, and the worst below the prior."""
    sentences = []
    if drawn["blocks"] < intervals.FEWEST_BLOCKS:
        sentences.append(
            f"No intervals: the sealed test has {drawn['times']} times, fewer than {intervals.FEWEST_BLOCKS} blocks of "
            f"{drawn['block']}; whether there is skill is not known."
        )
    for one in found:
        text = f"{one['model']}: {one['skill']}, " if one["skill"] != intervals.NOT_KNOWN else f"{one['model']}: "
        between = interval_text(one["gain"], one["gain_low"], one["gain_high"])
        text += (
            f"{between} on average over {_labels(one['labels'])}; "
            f"above the prior in {one['above_prior']} of {_runs(one['runs'])}, skill in {one['with_skill']}, "
            f"no skill in {one['no_skill']}"
        )
        if below := one["not_above"]:
            named = [f"{b['label']} of {b['sector']} {_percent(b['test_gain_over_prior'])}" for b in below]
            more = f" and {len(named) - most} more" if len(named) > most else ""
            text += f"; not above it: {', '.join(named[:most])}{more}"
        sentences.append(f"{text}.")
    return sentences


def stacking_sentence(found: dict[str, Any] | None) -> str:
    """Whether the meta-learner is as good as the best single family; empty where there is nothing to compare."""
    if found is None:
        return ""
    said = "at least as good as" if found["difference"] >= 0 else "not as good as"
    between = interval_text(found["difference"], found["difference_low"], found["difference_high"])
    return (
        f"{META}: {said} the best single family, {found['best']}, on average over labels: "
        f"{_percent(found['meta_gain'])} against {_percent(found['best_gain'])}, difference {between} points."
    )


def walk_forward_sentences(found: Sequence[dict[str, Any]], drawn: dict[str, Any]) -> list[str]:
    """Each model of a walk-forward in a sentence, of its `families` and `intervals`: skill or "no skill"."""
    sentences = []
    if drawn["blocks"] < intervals.FEWEST_BLOCKS:
        sentences.append(
            f"No intervals: the origins test {drawn['times']} times, fewer than {intervals.FEWEST_BLOCKS} blocks of "
            f"{drawn['block']}; whether there is skill is not known."
        )
    for one in found:
        text = f"{one['model']}: {one['skill']}, " if one["skill"] != intervals.NOT_KNOWN else f"{one['model']}: "
        between = interval_text(one["gain"], one["gain_low"], one["gain_high"])
        text += f"{between} over all origins on average over {_labels(one['labels'])}"
        if one["labels_with_skill"] + one["labels_without_skill"]:
            text += f"; skill on {one['labels_with_skill']}, no skill on {one['labels_without_skill']}"
        sentences.append(f"{text}.")
    return sentences


def cpcv_sentence(found: Sequence[dict[str, Any]], n_paths: int) -> str:
    """On how many labels some path denies each model skill; of `results` of a cross-validation."""
    counts = []
    for model in dict.fromkeys(one["model"] for one in found):
        own = [one["skill"] == NO_SKILL for one in found if one["model"] == model]
        counts.append(f"{model} on {sum(own)} of {_labels(len(own))}")
    return (
        f"Cross-validation says no skill, where a path of {n_paths} is not above both priors, for {', '.join(counts)}. "
        "Paths share rows and are not independent: to be above on all of them is no proof of skill."
    )


def tuning_sentences(found: dict[str, Any]) -> list[str]:
    """What the tuning behind a run's settings is worth, in words, of what `tune.section` gives."""
    studies = found["studies"]
    n, accepted = len(studies), sum(one["accepted"] for one in studies)
    counts = f"Tuning: {found['trials_tried']:,} trials in {n} {'study' if n == 1 else 'studies'}, of all sessions"
    if found["accept"] == "best":
        said = [f"{counts}; every best trial is taken, whatever it is worth (accept best)."]
    else:
        said = [f"{counts}; {accepted} better than the preset on dates that did not choose, "
                f"{n - accepted} not or not known, which keep the preset's values."]  # fmt: skip
    known = [one for one in studies if one["deflated_gain"] is not None]
    if not known:
        return [*said, "Too few validation dates or complete trials to say what the best trials are worth."]
    best, deflated, preset = (
        float(np.mean([one[name] for one in known])) for name in ("best_gain", "deflated_gain", "preset_gain_by_period")
    )
    sure = sum((one["deflated_sharpe_over_preset"] or 0) >= intervals.LEVEL for one in known)
    worth = "tuning found something" if deflated > preset else "no skill in tuning"
    said.append(
        f"Deflated, {worth}: the best gain {_percent(best)} % on the dates that chose them, {_percent(deflated)} % "
        f"on others, where the preset gains {_percent(preset)} % (mean of {len(known)}); with a Deflated Sharpe Ratio "
        f"over the preset of {intervals.LEVEL:.2f} or more: {sure}."
    )
    if not found["same_data"]:
        said.append("It was tuned on other data than this run's: its trials may have seen rows that this run tests.")
    if over := sum(not one["in_use"] for one in studies):
        said.append(f"Other settings of this run win over the values of {over} of these studies.")
    return said


def interval_text(value: float, low: float | None, high: float | None) -> str:
    """A figure in percent with its interval: "14.3 [12.1, 16.2]"; the figure alone where there is none."""
    text = _percent(value)
    return text if low is None or high is None else f"{text} [{_percent(low)}, {_percent(high)}]"


def skip_sentences(skipped: Sequence[dict[str, Any]]) -> list[str]:
    """What was not trained, one sentence for each label and reason, with the sectors that share them."""
    sectors: dict[tuple[str, str], list[str]] = {}
    for skip in skipped:
        reason = skip["reason"].removeprefix(f"{skip['sector']}: ")
        sectors.setdefault((skip["label"] or "all labels", reason), []).append(skip["sector"])
    return [f"{label} of {', '.join(names)}: {reason}" for (label, reason), names in sectors.items()]


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


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _runs(n: int) -> str:
    return f"{n} run" if n == 1 else f"{n} runs"


def _labels(n: int) -> str:
    return f"{n} label" if n == 1 else f"{n} labels"
