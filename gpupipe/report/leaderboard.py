"""Gains of all models and baselines: averaged over sectors, and in each sector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpupipe.artifacts.summary import baseline_names, loss_name, title_of
from gpupipe.estimators import registry
from gpupipe.evaluation.block_bootstrap import NO_SKILL, SKILL
from gpupipe.evaluation.touch_direction import DIRECTION, GAINS, PARTS
from gpupipe.report import charts
from gpupipe.report.formatting import to_percent, words_of
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.sentences import no_events_sentence

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table of summary rows.

    name: key of the rows.  kind: "text", "number" or "percent", a fraction that is shown in percent.

    >>> Column("sealed gain, %", "test_gain_over_prior", "percent").cell({"test_gain_over_prior": 0.25})
    25.0
    """

    title: str
    name: str
    kind: str = "number"

    def cell(self, row: Row) -> Any:
        """The content of this column in the table's row."""
        value = row.get(self.name, "" if self.kind == "text" else None)
        return to_percent(value) if self.kind == "percent" else value


def measures_table(caption: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    """A folded table of the columns that at least one of the rows has."""
    shown = [column for column in columns if any(column.name in row for row in rows)]
    heads = [(column.title, column.kind != "text") for column in shown]
    cells = [[column.cell(row) for column in shown] for row in rows]
    return Table(caption, heads, cells, digits=3, folded=True)


def leaderboard(whole: Mapping[str, Any]) -> Section | None:
    """Gains over the prior, with intervals, of all models and baselines, averaged over sectors; None without models."""
    if not whole["models"]:
        return None
    loss, baselines = loss_name(whole), baseline_names(whole)
    titles = {row["label"]: title_of(row) for row in whole["models"]}
    averages = [{**average, "title": titles[average["label"]]} for average in whole["averages"]]
    columns = [
        Column("label", "title", "text"),
        Column("model", "model", "text"),
        Column("sealed gain, %", "test_gain_over_prior", "percent"),
        Column("interval from", "test_gain_low", "percent"),
        Column("to", "test_gain_high", "percent"),
        Column("skill", "test_skill", "text"),
        *(
            Column(title, f"test_{part}_{name}", kind)
            for part in PARTS
            for title, name, kind in (
                (f"{part} gain, %", "gain", "percent"),
                (f"{part} from", "gain_low", "percent"),
                (f"{part} to", "gain_high", "percent"),
                (f"{part} skill", "skill", "text"),
            )
        ),
        Column("direction gain at most, %", "test_direction_gain_most", "percent"),
        Column(f"sealed {words_of(loss)}", f"test_{loss}"),
        Column("validation gain, %", "validation_gain_over_prior", "percent"),
        Column("sectors above the prior", "sectors_above_prior"),
        Column("sectors", "sectors"),
        Column("without events", "sectors_without_events"),
        Column("mean return after BUY, %", "test_return_when_buy", "percent"),
        Column("after any row, %", "test_return_buy_and_hold", "percent"),
    ]
    prior = "class prior" if loss == "log_loss" else "prior"
    text = [
        f"Gain: the relative reduction of the {words_of(loss)} on the sealed test against the sector's {prior} (the "
        "line at 0), averaged over sectors. Bars are 95 % intervals from a block bootstrap of dates. "
        f"“{NO_SKILL.capitalize()}”: the interval of the gain over the prior, the sector's or that of all sectors, "
        "includes 0 or lies below."
    ]
    if baselines:
        text[0] += f" The baselines are {', '.join(baselines)}: class shares, for all rows or in bins of one column."
    rows = [
        {
            "label": average["title"],
            "model": average["model"],
            "gain": to_percent(average["test_gain_over_prior"]),
            "low": to_percent(average.get("test_gain_low")),
            "high": to_percent(average.get("test_gain_high")),
            "skill": average.get("test_skill", ""),
        }
        for average in averages
        if average["test_gain_over_prior"] is not None
    ]
    if sentence := no_events_sentence(averages, titles):
        text.append(sentence)
    chart = [Figure("Gain over the prior by model and label, with 95 % intervals", charts.gains(rows))] if rows else []
    table = measures_table("All models and baselines, averaged over sectors", averages, columns)
    return Section("Leaderboard", text, [*chart, table])


def touch_and_direction(whole: Mapping[str, Any]) -> Section | None:
    """Both parts of every gain, averaged over sectors, as a picture and a table; None for targets without parts."""
    averages = [row for row in whole["averages"] if row.get("test_touch_gain") is not None]
    if not averages:
        return None
    titles = {row["label"]: title_of(row) for row in whole["models"]}
    rows = [
        {
            "label": titles[row["label"]],
            "model": row["model"],
            "part": part,
            "gain": to_percent(row[f"test_{GAINS[part]}"]),
            "low": to_percent(row[f"test_{part}_gain_low"]),
            "high": to_percent(row[f"test_{part}_gain_high"]),
            "skill": row[f"test_{part}_skill"],
            "most": to_percent(row["test_direction_gain_most"] if part == DIRECTION else None),
            "sectors_with_skill": row[f"sectors_with_{part}_skill"],
        }
        for row in averages
        for part in PARTS
    ]
    shares = [row["most"] for row in rows if row["most"] is not None]
    text = [
        "Each gain is the sum of two. Touch: does the price reach a barrier within the horizon, BUY or SELL against "
        "HOLD? Direction: which one, BUY against SELL among the rows that moved? Both are shares of the prior's whole "
        f"log-loss; direction is {min(shares):.0f} to {max(shares):.0f} % of it, and cannot gain more. A hollow mark "
        "says no skill, for the part alone.",
        "The volatility baselines know hardly any direction: no more than the shares of BUY and SELL by volatility. "
        "The momentum and reversal baselines are the class shares by the return of the last 60 and 5 bars.",
    ]
    columns = [
        Column("label", "label", "text"),
        Column("model", "model", "text"),
        Column("part", "part", "text"),
        Column("gain, %", "gain"),
        Column("interval from", "low"),
        Column("to", "high"),
        Column("skill", "skill", "text"),
        Column("sectors with skill", "sectors_with_skill"),
        Column("gain at most, %", "most"),
    ]
    caption = "Touch and direction by model and label, with 95 % intervals"
    table = measures_table("Touch and direction of all models and baselines, averaged over sectors", rows, columns)
    return Section("Touch and direction", text, [Figure(caption, charts.parts(rows)), table])


def by_sector(whole: Mapping[str, Any]) -> Section | None:
    """Gains and other measures of each model on the sealed test of its sector; None without models."""
    if not whole["models"]:
        return None
    loss = loss_name(whole)
    rows = [{**row, "title": title_of(row)} for row in whole["models"] if row["kind"] == "model"]
    gains = [
        {
            "label": row["title"],
            "sector": row["sector"],
            "model": row["model"],
            "gain": to_percent(row["test_gain_over_prior"]),
            "skill": row.get("test_skill", ""),
        }
        for row in rows
        if row["test_gain_over_prior"] is not None
    ]
    names = list(dict.fromkeys(row["model"] for row in rows))
    stacking = registry.stacking([name for name in names if name in registry.ESTIMATORS])
    names.sort(key=lambda name: name != stacking)  # it is the first choice of the chart's control
    columns = [
        Column("sector", "sector", "text"),
        Column("label", "title", "text"),
        Column("model", "model", "text"),
        Column("sealed gain, %", "test_gain_over_prior", "percent"),
        Column("skill", "test_skill", "text"),
        Column("touch gain, %", "test_touch_gain", "percent"),
        Column("touch skill", "test_touch_skill", "text"),
        Column("direction gain, %", "test_direction_gain", "percent"),
        Column("direction skill", "test_direction_skill", "text"),
        Column(f"sealed {words_of(loss)}", f"test_{loss}"),
        Column(f"{words_of(loss)} of the prior", f"test_prior_{loss}"),
        Column("PR-AUC BUY", "test_pr_auc_buy"),
        Column("BUY share, %", "test_share_buy", "percent"),
        Column("BUY calls", "test_calls_buy"),
        Column("precision BUY, %", "test_precision_buy", "percent"),
        Column("scope", "scope", "text"),
        Column("rounds", "rounds", "text"),
    ]
    n_skill = sum(row["skill"] == SKILL for row in gains)
    text = [f"{n_skill} of {len(gains)} models have skill on the sealed test of their sector."]
    if any("test_touch_skill" in row for row in rows):
        touch, direction = (sum(row[f"test_{part}_skill"] == SKILL for row in rows) for part in PARTS)
        text.append(f"{touch} have skill in touch, and {direction} in direction.")
    if len(gains) < len(rows):
        text.append(
            f"{len(rows) - len(gains)} more have no gain, as the test rows of their sector hold a single class."
        )
    title = "Gain over the prior by sector and label, in percent; ~: no skill"
    heat = [Figure(title, charts.heat(gains, names))] if gains else []
    return Section("By sector", text, [*heat, measures_table(f"All {len(rows)} models", rows, columns)])
