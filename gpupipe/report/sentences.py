"""What a run shows, in words: the verdict, the skill of each family, walk-forward, tuning, and what was skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import FEWEST_BLOCKS, NO_SKILL


def verdict_sentences(found: Sequence[dict[str, Any]], n_sectors: int) -> list[str]:
    """The verdict in words, one sentence a model: where it wins, and by how much it does not."""
    sentences = []
    measured_on = "sealed test" if n_sectors == 1 else f"sealed test, averaged over {n_sectors} sectors"
    for model in dict.fromkeys(v["model"] for v in found):
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
    if drawn["blocks"] < FEWEST_BLOCKS:
        sentences.append(
            f"No intervals: the sealed test has {drawn['times']} times, fewer than {FEWEST_BLOCKS} blocks of "
            f"{drawn['block']}; whether there is skill is not known."
        )
    for one in found:
        text = f"{one['model']}: {one['skill']}, " if one["skill"] != block_bootstrap.NOT_KNOWN else f"{one['model']}: "
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
        f"meta_learner: {said} the best single family, {found['best']}, on average over labels: "
        f"{_percent(found['meta_gain'])} against {_percent(found['best_gain'])}, difference {between} points."
    )


def walk_forward_sentences(found: Sequence[dict[str, Any]], drawn: dict[str, Any]) -> list[str]:
    """Each model of a walk-forward in a sentence, of its `families` and `intervals`: skill or "no skill"."""
    sentences = []
    if drawn["blocks"] < FEWEST_BLOCKS:
        sentences.append(
            f"No intervals: the origins test {drawn['times']} times, fewer than {FEWEST_BLOCKS} blocks of "
            f"{drawn['block']}; whether there is skill is not known."
        )
    for one in found:
        text = f"{one['model']}: {one['skill']}, " if one["skill"] != block_bootstrap.NOT_KNOWN else f"{one['model']}: "
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
    sure = sum((one["deflated_sharpe_over_preset"] or 0) >= block_bootstrap.LEVEL for one in known)
    worth = "tuning found something" if deflated > preset else "no skill in tuning"
    said.append(
        f"Deflated, {worth}: the best gain {_percent(best)} % on the dates that chose them, {_percent(deflated)} % "
        f"on others, where the preset gains {_percent(preset)} % (mean of {len(known)}); with a Deflated Sharpe Ratio "
        f"over the preset of {block_bootstrap.LEVEL:.2f} or more: {sure}."
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


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _runs(n: int) -> str:
    return f"{n} run" if n == 1 else f"{n} runs"


def _labels(n: int) -> str:
    return f"{n} label" if n == 1 else f"{n} labels"
