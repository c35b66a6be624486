"""Walk-forward and combinatorial cross-validation, fold by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.artifacts.summary import baseline_names
from gpupipe.evaluation.touch_direction import GAINS, PARTS
from gpupipe.report import charts
from gpupipe.report.formatting import title_of_label, to_percent
from gpupipe.report.page import Figure, Section, Table


def folds(whole: Mapping[str, Any]) -> Section | None:
    """Gains of each origin and of each path; None for a run without walk-forward and cross-validation.

    whole: the summary of the run.
    """
    baselines = baseline_names(whole)
    parts: list[Any] = []
    text: list[str] = []
    for name, key, title in (
        ("walk_forward", "origins", "Gain over the prior on each origin's own test window"),
        ("cpcv", "paths", "Gain over the prior on each path of the combinatorial cross-validation"),
    ):
        if name not in whole:
            continue
        rows = [
            {"label": title_of_label(result["label"]), "model": result["model"], "number": k,
             "gain": 100 * fold["gain_over_prior"]}
            for result in whole[name]["results"] if result["model"] not in baselines
            for k, fold in enumerate(result[key], 1) if fold["gain_over_prior"] is not None
        ]  # fmt: skip
        columns = [("label", False), ("model", False), (key[:-1], True), ("gain, %", True)]
        table = [[row["label"], row["model"], row["number"], row["gain"]] for row in rows]
        parts.append(Figure(title, charts.by_number(rows, "number", "gain", (key[:-1], "gain over the prior, %"))))
        if name == "walk_forward":
            text.append(
                "Each origin tests its own dates with models that were trained on earlier dates only. Judge a model by "
                "the gain over all test rows of all origins together, and by its 95 % interval."
            )
            parts += _pooled(whole[name])
        parts.append(Table(f"{title}: table", columns, table, folded=True))
    return Section("Fold by fold", text, parts) if parts else None


def _pooled(walk: Mapping[str, Any]) -> list[Any]:
    """Gains over all origins together, with intervals as on the leaderboard, and the dates of each origin."""
    rows = [
        {"label": title_of_label(result["label"]), "model": result["model"],
         "gain": to_percent(result["gain_over_prior"]), "low": to_percent(result.get("gain_low")),
         "high": to_percent(result.get("gain_high")), "skill": result.get("skill", "")}
        for result in walk["results"]
    ]  # fmt: skip
    parts = [
        {"label": title_of_label(result["label"]), "model": result["model"], "part": part,
         "gain": to_percent(result[GAINS[part]]), "low": to_percent(result.get(f"{part}_gain_low")),
         "high": to_percent(result.get(f"{part}_gain_high")), "skill": result.get(f"{part}_skill", "")}
        for result in walk["results"] for part in PARTS if result.get(GAINS[part]) is not None
    ]  # fmt: skip
    columns = [("label", False), ("model", False), ("gain, %", True), ("interval from", True), ("to", True),
               ("skill", False), ("origins above the prior", True), ("rows", True)]  # fmt: skip
    table = [
        [row["label"], row["model"], row["gain"], row["low"], row["high"], row["skill"],
         result.get("origins_above_prior"), result["rows"]]
        for row, result in zip(rows, walk["results"], strict=True)
    ]  # fmt: skip
    known = [row for row in rows if row["gain"] is not None]
    caption = "Touch and direction on all origins together, with 95 % intervals; hollow: no skill"
    both = [
        Figure(caption, charts.parts(parts)),
        Table(
            "Touch and direction on all origins together: table",
            [("label", False), ("model", False), ("part", False), ("gain, %", True), ("interval from", True),
             ("to", True), ("skill", False)],
            [list(row.values()) for row in parts], folded=True,
        ),
    ]  # fmt: skip
    return [
        Figure("Gain over the prior on all origins together, with 95 % intervals", charts.gains(known)),
        Table("All origins together: table", columns, table, folded=True),
        *(both if parts else ()),
        _windows(walk["origins"]),
    ]


def _windows(origins: Sequence[Mapping[str, Any]]) -> Table:
    columns = [("origin", False), ("training", False), ("validation", False), ("test", False),
               ("training rows", True), ("test rows", True)]  # fmt: skip
    rows = [
        [origin["name"], *(_dates(origin[part]) for part in ("train", "validation", "test")),
         origin["rows"]["train"], origin["rows"]["test"]]
        for origin in origins
    ]  # fmt: skip
    return Table("Dates and rows of each origin", columns, rows)


def _dates(spans: Sequence[Any]) -> str:
    """spans: one pair of dates, or several pairs."""
    pairs = [spans] if isinstance(spans[0], str) else spans
    return ", ".join(f"{first} to {last}" for first, last in pairs)
