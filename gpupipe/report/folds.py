"""Walk-forward and combinatorial cross-validation, fold by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.report import charts
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.words import times_100, title_of_label
from gpupipe.training.score import BASELINES


def folds(whole: Mapping[str, Any]) -> Section | None:
    """Origin by origin, and path by path, where there are several."""
    parts: list[Any] = []
    text: list[str] = []
    for name, what, title in (
        ("walk_forward", "origins", "Gain over the prior on each origin's own test window"),
        ("cpcv", "paths", "Gain over the prior on each path of the combinatorial cross-validation"),
    ):
        if name not in whole:
            continue
        rows = [
            {"label": title_of_label(one["label"]), "model": one["model"], "number": k,
             "gain": 100 * own["gain_over_prior"]}
            for one in whole[name]["results"] if one["model"] not in BASELINES
            for k, own in enumerate(one[what], 1) if own["rows"]
        ]  # fmt: skip
        columns = [("label", False), ("model", False), (what[:-1], True), ("gain, %", True)]
        table = [[row["label"], row["model"], row["number"], row["gain"]] for row in rows]
        parts.append(Figure(title, charts.by_number(rows, "number", "gain", (what[:-1], "gain over the prior, %"))))
        if name == "walk_forward":
            text.append(
                "Origins test different dates, each by models that saw only earlier ones: the figure to go by is that "
                "of all their rows together, with its 95 % interval."
            )
            parts += _pooled(whole[name])
        parts.append(Table(f"{title}, in numbers", columns, table, folded=True))
    return Section("Fold by fold", text, parts) if parts else None


def _pooled(found: Mapping[str, Any]) -> list[Any]:
    """All origins together: with intervals, as the leaderboard shows them, and when each tested."""
    rows = [
        {"label": title_of_label(one["label"]), "model": one["model"], "gain": 100 * one["gain_over_prior"],
         "low": times_100(one.get("gain_low")), "high": times_100(one.get("gain_high")),
         "skill": one.get("skill", "")}
        for one in found["results"]
    ]  # fmt: skip
    columns = [("label", False), ("model", False), ("gain, %", True), ("from", True), ("to", True),
               ("skill", False), ("origins above the prior", True), ("rows", True)]  # fmt: skip
    table = [
        [row["label"], row["model"], row["gain"], row["low"], row["high"], row["skill"],
         one.get("origins_above_prior"), one["rows"]]
        for row, one in zip(rows, found["results"], strict=True)
    ]  # fmt: skip
    return [
        Figure("Gain over the prior of all origins together, with 95 % intervals", charts.gains(rows)),
        Table("All origins together, in numbers", columns, table, folded=True),
        _windows(found["origins"]),
    ]


def _windows(origins: Sequence[Mapping[str, Any]]) -> Table:
    columns = [("origin", False), ("trained", False), ("validated", False), ("tested", False),
               ("rows trained on", True), ("rows tested", True)]  # fmt: skip
    rows = [
        [one["name"], *(_dates(one[part]) for part in ("train", "validation", "test")),
         one["rows"]["train"], one["rows"]["test"]]
        for one in origins
    ]  # fmt: skip
    return Table("What each origin saw", columns, rows)


def _dates(spans: Sequence[Any]) -> str:
    """Of one span of two dates, or of several."""
    return ", ".join(f"{first} to {last}" for first, last in ([spans] if isinstance(spans[0], str) else spans))
