"""The section on the eleven steps: which ran when, on which thread, and what each needs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.report import bond_charts, bond_words
from gpupipe.report.page import Figure, Section, Table
from gpupipe.runtime import timeline

Row = Mapping[str, Any]
ABOUT = {
    "values": "every quote valued once: yield, spread, risk", "rows": "columns, target, split, baselines",
    "basic": "forest", "enhanced": "forest with a searched depth", "stacked": "forest, boosting, network and ridge "
    "regression, stacked out of fold", "automatic": "search over the families", "regimes": "clusters of dates",
    "factors": "principal components of the curve's changes", "tail_risk": "VaR and CVaR by full revaluation",
    "bayesian": "search of the chosen family, with regimes and factors", "evaluation": "the sealed test",
    "drift": "stability of inputs and residuals", "tuning": "the model that drift names, tuned on recent dates",
}  # fmt: skip
COLUMNS = [("step", False), ("what", False), ("needs", False), ("seconds", True), ("began at, s", True),
           ("thread or worker", False)]  # fmt: skip


def steps(whole: Row, log: timeline.Log | None) -> Section:
    """Time by step with the steps that ran side by side.

    log: of the run that wrote OUT, None where there is none.
    """
    bonds = whole["bonds"]
    titles = {step["name"]: title_of(step) for step in bonds["steps"]}
    drawn = {bar.stage: bar for bar in timeline.bars(log) if bar.stage in titles} if log else {}
    groups = {step["name"]: group_of(step["number"]) for step in bonds["steps"]}
    bars = [
        {"step": titles[name], "group": groups[name], "lane": bar.lane, "begin": round(bar.begin, 3),
         "end": round(bar.end, 3)}
        for name, bar in drawn.items()
    ]  # fmt: skip
    parts: list[Any] = []
    if bars:
        order = list(dict.fromkeys(groups.values()))
        caption = "Steps over time; a line leads to each step from the last one that it needs"
        edges = waits(bonds["steps"], drawn)
        parts.append(Figure(caption, bond_charts.steps(bars, edges, list(titles.values()), order)))
    table = []
    for step in bonds["steps"]:
        name, bar = step["name"], drawn.get(step["name"])
        needs = ", ".join(need.replace("_", " ") for need in step["needs"])
        table.append([titles[name], ABOUT.get(name, ""), needs, whole["seconds"].get(name), bar and bar.begin,
                      bar.lane if bar else "from the store"])  # fmt: skip
    edges_in_words = (
        "Steps 1 to 4 need the rows alone, as 5 to 7 do, and run side by side; 8 needs the family of 4 and the columns "
        "of 5 and 6; 9 to 11 need the models."
    )
    if not bond_words.has_models(bonds):
        edges_in_words = "Without models there are the steps 5 to 7, which need the rows alone and run side by side."
    text = [
        edges_in_words,
        sentence(list(drawn.values()), whole["jobs"]),
    ]
    parts.append(Table("Time by step", COLUMNS, table))
    return Section("Steps", [line for line in text if line], parts)


def waits(found: Sequence[Row], drawn: Mapping[str, timeline.Bar]) -> list[dict[str, Any]]:
    """For each step that was drawn, the last to end of those that it needs, as the chart of steps takes it.

    found: steps with the names of those that they need.  drawn: bars by name.
    """
    titles, edges = {step["name"]: title_of(step) for step in found}, []
    for step in found:
        needed = [drawn[need] for need in step["needs"] if need in drawn]
        if needed and step["name"] in drawn:
            last, bar = max(needed, key=lambda bar: bar.end), drawn[step["name"]]
            edges.append({"step": titles[last.stage], "end": last.end, "then": titles[bar.stage], "begin": bar.begin})
    return edges


def group_of(number: int | None) -> str:
    """The group of steps that may run side by side, by a step's number of the eleven.

    >>> group_of(None), group_of(3), group_of(5), group_of(11)
    ('for all steps', 'steps 1 to 4', 'steps 5 to 8', 'steps 9 to 11')
    """
    if number is None:
        return "for all steps"
    return "steps 1 to 4" if number < 5 else "steps 5 to 8" if number < 9 else "steps 9 to 11"


def title_of(step: Row) -> str:
    """The name of a step with its number of the eleven.

    >>> title_of({"name": "tail_risk", "number": 7}), title_of({"name": "rows", "number": None})
    ('7 tail risk', 'rows')
    """
    words = step["name"].replace("_", " ")
    return f"{step['number']} {words}" if step["number"] else words


def sentence(bars: Sequence[timeline.Bar], jobs: int) -> str:
    """How long the steps took one after the other and side by side; empty without any.

    >>> bars = timeline.Bar("thread 1", "basic", "", 0.0, 3.0), timeline.Bar("thread 2", "regimes", "", 0.0, 1.0)
    >>> sentence(bars, jobs=2)
    'The steps have 4.0 s of work and took 3.0 s with 2 at a time; two or more ran in 33 % of that time.'
    """
    if not bars:
        return ""
    marks = sorted({at for bar in bars for at in (bar.begin, bar.end)})
    span = marks[-1] - marks[0]
    work = sum(bar.end - bar.begin for bar in bars)
    beside = sum(
        end - begin
        for begin, end in itertools.pairwise(marks)
        if sum(bar.begin <= begin and bar.end >= end for bar in bars) > 1
    )
    return (
        f"The steps have {work:.1f} s of work and took {span:.1f} s with {jobs} at a time; two or more ran in "
        f"{100 * beside / span if span else 0:.0f} % of that time."
    )
