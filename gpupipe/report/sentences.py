"""Results of a run as sentences: verdict, skill of each family, walk-forward, tuning, skipped trainings."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import FEWEST_BLOCKS, NO_EVENTS, NO_SKILL, NOT_KNOWN, SKILL
from gpupipe.evaluation.touch_direction import DIRECTION, GAINS, PARTS, TOUCH

NO_TITLES: Mapping[str, str] = types.MappingProxyType({})  # labels are called by their names


def verdict_sentences(
    verdicts: Sequence[dict[str, Any]], n_sectors: int, titles: Mapping[str, str] = NO_TITLES
) -> list[str]:
    """For each judged model what its skill is (touch or direction), and the labels on which it beats all baselines.

    verdicts: as evaluation.leaderboard.verdict returns them. Without parts of the gain there is the second sentence
        alone; it says by how much a model falls short.
    titles: of labels, in the place of their names.
    """
    sentences = []
    measured_on = "sealed test" if n_sectors == 1 else f"sealed test, averaged over {n_sectors} sectors"
    compared, intervals = _compared(verdicts[0]) if verdicts else ("", "")
    for model in dict.fromkeys(row["model"] for row in verdicts):
        rows = [row for row in verdicts if row["model"] == model]
        if sentence := touch_direction_sentence(model, rows):
            sentences.append(sentence)
        failed = [row for row in rows if not row["beats_all"]]
        clearly = sum(row["beats_all_clearly"] for row in rows)
        text = (
            f"{model} beats {compared} on {len(rows) - len(failed)} of {len(rows)} labels, on {clearly} of them with "
            f"{intervals} above 0"
        )
        if failed:
            gaps = [
                (titles.get(row["label"], row["label"]), -100 * min(row["above_prior"], row["above_tables"]))
                for row in failed
            ]
            text += "; it falls short on " + _separator(titles).join(f"{label} by {gap:.2f}" for label, gap in gaps)
            text += " points of the prior's loss"
        sentences.append(f"{text} ({measured_on}).")
    return sentences


def _separator(titles: Mapping[str, str]) -> str:
    """What parts a list of labels: titles hold commas of their own."""
    return "; " if titles else ", "


def touch_direction_sentence(model: str, verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Whether a model tells that a price will move, and which way; empty where its gains have no such parts.

    verdicts: those of the model, one a label.

    >>> parts = {"touch_gain": 0.11, "touch_skill": "skill", "direction_gain": -0.002, "direction_skill": "no skill"}
    >>> print(touch_direction_sentence("linear", [parts, parts]))  # doctest: +NORMALIZE_WHITESPACE
    linear tells whether a price will move (touch: skill on 2 of 2 labels, gain 11.0 % on average) and not which way
    (direction: skill on 0 of 2, gain -0.2 %).
    """
    if not verdicts or any(GAINS[part] not in row for row in verdicts for part in PARTS):
        return ""
    n = len(verdicts)
    gains = {part: _percent(float(np.mean([row[GAINS[part]] for row in verdicts]))) for part in PARTS}
    if any(row[f"{part}_skill"] == NOT_KNOWN for row in verdicts for part in PARTS):
        return (
            f"Whether {model} tells that a price will move, or which way, is not known: touch gain {gains[TOUCH]} %, "
            f"direction gain {gains[DIRECTION]} % on average over {_count(n, 'label')}, without intervals."
        )
    touch_count, direction_count = (sum(row[f"{part}_skill"] == SKILL for row in verdicts) for part in PARTS)
    touch = f"(touch: skill on {touch_count} of {_count(n, 'label')}, gain {gains[TOUCH]} % on average)"
    knows_way, above = _direction_beyond_volatility(verdicts)
    direction = f"(direction: skill on {direction_count} of {n}{above}, gain {gains[DIRECTION]} %)"
    whether, which_way = ("on some labels " if 0 < count < n else "" for count in (touch_count, knows_way))
    if not touch_count and not knows_way:
        return f"{model} tells neither whether a price will move {touch} nor which way {direction}."
    if not touch_count:
        return f"{model} tells {which_way}which way a price will move {direction} and not whether {touch}."
    which_way = f"{which_way}which way" if knows_way else "not which way"
    return f"{model} tells {whether}whether a price will move {touch} and {which_way} {direction}."


def _direction_beyond_volatility(verdicts: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """On how many labels the direction has skill and is clearly above that of the volatility tables; that in words.

    Volatility alone tilts the shares of BUY and SELL where a row that reaches both barriers is a BUY, and that is not
    to know which way a price will move.
    """
    skilled = [row for row in verdicts if row["direction_skill"] == SKILL]
    if not skilled or "direction_above_tables_low" not in skilled[0]:
        return len(skilled), ""
    clearly = sum((row["direction_above_tables_low"] or 0) > 0 for row in skilled)
    return clearly, f", on {clearly} of them clearly above the volatility baselines"


def _compared(verdict: dict[str, Any]) -> tuple[str, str]:
    """The references that a verdict compares with, and their intervals, in words.

    >>> _compared({"above_prior": 0.1, "above_prior_low": 0.05, "above_prior_high": 0.2, "above_tables": 0.1})
    ('the prior', 'its 95 % interval')
    """
    names = [name for name in verdict if name.startswith("above_") and f"{name}_low" in verdict]
    tables = [name.removeprefix("above_") for name in names if name != "above_prior"]
    if not tables:
        return "the prior", "its 95 % interval"
    if sorted(tables) == ["table_all", "table_sector"]:  # summary.json sorts its keys
        return "the class prior and both volatility baselines", "all three 95 % intervals"
    return f"the prior and {', '.join(tables)}", f"all {1 + len(tables)} 95 % intervals"


def skill_sentences(
    families: Sequence[dict[str, Any]],
    intervals: dict[str, Any],
    most: int = 4,
    titles: Mapping[str, str] = NO_TITLES,
) -> list[str]:
    """One sentence a family: its gain, skill or "no skill", how many of its models have skill, and the worst models.

    families: as evaluation.leaderboard.families returns them.  intervals: the bootstrap's settings, as the summary has
    them.  most: at most so many models below the prior are named.  titles: of labels, in the place of their names.
    """
    sentences = []
    if intervals["blocks"] < FEWEST_BLOCKS:
        sentences.append(_no_intervals("the sealed test has", intervals))
    for family in families:
        text = (
            f"{_gain_with_skill(family)} on average over {_count(family['labels'], 'label')}; above the prior in "
            f"{family['above_prior']} of {_count(family['runs'], 'model')}, skill in {family['with_skill']}, "
            f"no skill in {family['no_skill']}"
        )
        if family.get("no_events"):  # summaries of older versions have no such entry
            text += f", {NO_EVENTS} in {family['no_events']}"
        if below := family["not_above"]:
            names = [
                f"{titles.get(row['label'], row['label'])} of {row['sector']} {_percent(row['test_gain_over_prior'])}"
                for row in below
            ]
            more = f" and {len(names) - most} more" if len(names) > most else ""
            text += f"; not above it: {_separator(titles).join(names[:most])}{more}"
        sentences.append(f"{text}.")
    return sentences


def no_events_sentence(averages: Sequence[dict[str, Any]], titles: Mapping[str, str]) -> str:
    """How many sectors are left out of the averages of which labels; empty where none is.

    averages: as evaluation.leaderboard.averages returns them.  titles: of the labels.

    >>> averages = [{"label": "l", "model": m, "sectors": 3, "sectors_without_events": 1} for m in ("linear", "prior")]
    >>> no_events_sentence(averages, {"l": "5 bars, 10 %"}).partition(": ")[2]
    '1 of 3 sectors on 5 bars, 10 %.'
    """
    counts = {row["label"]: (row.get("sectors_without_events", 0), row["sectors"]) for row in averages}
    left_out = [f"{n} of {_count(all_, 'sector')} on {titles[label]}" for label, (n, all_) in counts.items() if n]
    if not left_out:
        return ""
    return (
        "No events, a single class in the test rows of a sector, means no gain; left out of the averages: "
        f"{', '.join(left_out)}."
    )


def stacking_sentence(stacking: dict[str, Any] | None) -> str:
    """Whether the meta-learner is as good as the best single family; empty for None.

    stacking: as evaluation.leaderboard.stacking returns it.
    """
    if stacking is None:
        return ""
    comparison = "at least as good as" if stacking["difference"] >= 0 else "not as good as"
    difference = interval_text(stacking["difference"], stacking["difference_low"], stacking["difference_high"])
    return (
        f"meta_learner: {comparison} the best single family, {stacking['best']}, on average over labels: gain "
        f"{_percent(stacking['meta_gain'])} % against {_percent(stacking['best_gain'])} %, difference {difference} "
        "points."
    )


def walk_forward_sentences(families: Sequence[dict[str, Any]], intervals: dict[str, Any]) -> list[str]:
    """One sentence a family: its gain over all origins, and skill or "no skill".

    families, intervals: the entries of these names in the summary of a walk-forward.
    """
    sentences = []
    if intervals["blocks"] < FEWEST_BLOCKS:
        sentences.append(_no_intervals("the origins test", intervals))
    for family in families:
        text = f"{_gain_with_skill(family)} over all origins on average over {_count(family['labels'], 'label')}"
        if family["labels_with_skill"] + family["labels_without_skill"]:
            text += f"; skill on {family['labels_with_skill']}, no skill on {family['labels_without_skill']}"
        sentences.append(f"{text}.")
    return sentences


def cpcv_sentence(results: Sequence[dict[str, Any]], n_paths: int) -> str:
    """For each model, the number of labels on which at least one path shows no skill.

    results: the entry of this name in the summary of a combinatorial cross-validation.
    """
    counts = []
    for model in dict.fromkeys(result["model"] for result in results):
        failed = [result["skill"] == NO_SKILL for result in results if result["model"] == model]
        counts.append(f"{model} on {sum(failed)} of {_count(len(failed), 'label')}")
    return (
        f"Cross-validation says no skill if any of the {n_paths} paths is not above both priors: {', '.join(counts)}. "
        "Paths share rows and are not independent, so a gain on all paths is no proof of skill."
    )


def tuning_sentences(tuning: dict[str, Any]) -> list[str]:
    """How much the tuned values of a run's settings gained, and whether that holds on dates that did not choose them.

    tuning: the entry "tuning" of the summary, as pipeline.tune_job.section returns it.
    """
    studies = tuning["studies"]
    n, accepted = len(studies), sum(study["accepted"] for study in studies)
    counts = f"Tuning: {tuning['trials_tried']:,} trials in {n} {'study' if n == 1 else 'studies'}, over all sessions"
    if tuning["accept"] == "best":
        sentences = [f"{counts}; the best trial of every study is used, without a test of its gain (accept best)."]
    else:
        sentences = [f"{counts}; {accepted} better than the preset on dates that did not choose, "
                     f"{n - accepted} not or not known, which keep the preset's values."]  # fmt: skip
    known = [study for study in studies if study["deflated_gain"] is not None]
    if not known:
        return [*sentences, "Too few validation dates or complete trials to measure the gain of the best trials."]
    best, deflated, preset = (
        float(np.mean([study[name] for study in known]))
        for name in ("best_gain", "deflated_gain", "preset_gain_by_period")
    )
    sure = sum((study["deflated_sharpe_over_preset"] or 0) >= block_bootstrap.LEVEL for study in known)
    verdict = "tuning found something" if deflated > preset else "no skill in tuning"
    sentences.append(
        f"Deflated, {verdict}: the best gain {_percent(best)} % on the dates that chose them, {_percent(deflated)} % "
        f"on others, where the preset gains {_percent(preset)} % (mean of {len(known)}); with a Deflated Sharpe Ratio "
        f"over the preset of {block_bootstrap.LEVEL:.2f} or more: {sure}."
    )
    if not tuning["same_data"]:
        sentences.append("The tuning used other data than this run: its trials may have seen rows that this run tests.")
    if overridden := sum(not study["in_use"] for study in studies):
        sentences.append(f"Other settings of this run override the tuned values of {overridden} of these studies.")
    return sentences


def _gain_with_skill(family: dict[str, Any]) -> str:
    if family["gain"] is None:
        return f"{family['model']}: {NO_EVENTS}"
    skill = "" if family["skill"] == NOT_KNOWN else f"{family['skill']}, "
    gain = interval_text(family["gain"], family["gain_low"], family["gain_high"])
    parts = ", ".join(
        f"{part} {_percent(family[GAINS[part]])}{'~' if family[f'{part}_skill'] == NO_SKILL else ''}"
        for part in PARTS
        if family.get(GAINS[part]) is not None
    )
    return f"{family['model']}: {skill}gain {gain} %" + (f" ({parts})" if parts else "")


def _no_intervals(subject: str, intervals: dict[str, Any]) -> str:
    return (
        f"No intervals: {subject} {intervals['times']} times, fewer than {FEWEST_BLOCKS} blocks of "
        f"{intervals['block']}; whether there is skill is not known."
    )


def interval_text(value: float, low: float | None, high: float | None) -> str:
    """A fraction in percent with its interval, or alone where there is no interval.

    >>> interval_text(0.143, 0.121, 0.162)
    '14.3 [12.1, 16.2]'
    """
    text = _percent(value)
    return text if low is None or high is None else f"{text} [{_percent(low)}, {_percent(high)}]"


def skip_sentences(skipped: Sequence[dict[str, Any]]) -> list[str]:
    """Skipped trainings: one sentence for each label and reason, with the sectors that it concerns.

    skipped: dicts with "sector", "label" (None for all labels) and "reason".
    """
    sectors: dict[tuple[str, str], list[str]] = {}
    for skip in skipped:
        reason = skip["reason"].removeprefix(f"{skip['sector']}: ")
        sectors.setdefault((skip["label"] or "all labels", reason), []).append(skip["sector"])
    return [f"{label} of {', '.join(names)}: {reason}" for (label, reason), names in sectors.items()]


def _percent(value: float) -> str:
    return f"{100 * value:z.1f}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
