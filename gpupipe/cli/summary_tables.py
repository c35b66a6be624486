"""Tables of a finished run: gains of each sector, verdict, returns, walk-forward and cross-validation, time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpupipe.artifacts import summary
from gpupipe.cli.plain_console import styled
from gpupipe.cli.ranking_table import show_ranking
from gpupipe.cli.tables import ModelNames, figures_table, names_of, print_whole
from gpupipe.data.report import counted
from gpupipe.dataset import window_summary
from gpupipe.evaluation.block_bootstrap import NO_EVENTS, NO_SKILL
from gpupipe.evaluation.touch_direction import GAINS, PARTS
from gpupipe.report import sentences, volatility_value

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from gpupipe.estimators.baselines.contract import Baseline

WIDE = 108  # from this width on the tables of gains show the weak baselines too
SHARE, RETURN = "test_share_", "test_return_when_"  # columns of the summary's rows, of each class that is called
Row = dict[str, Any]


def show_summary(
    to: Console, whole: dict[str, Any], out: str | os.PathLike[str], baselines: Sequence[Baseline] = ()
) -> None:
    """A table for each sector, one for the average of several, the time by stage, and where to look.

    whole: the summary.  baselines: of its workload.
    """
    rows, names = whole["models"], names_of(baselines)
    left_out = names.weak if to.width < WIDE else ()
    tables = SummaryTables(to, whole, names, names.order({row["model"] for row in rows} - set(left_out)))
    tables.explain(all_baselines=not left_out)
    tables.show_gains()
    tables.show_parts()
    tables.show_verdict()
    show_ranking(to, whole, names)
    tables.show_returns()
    tables.show_walk_forward()
    tables.show_cross_validation()
    for sentence in sentences.verdict_sentences(whole["verdict"], len({row["sector"] for row in rows})):
        to.print(sentence)
    for sentence in sentences.skill_sentences(whole["families"], whole["intervals"]):
        to.print(sentence)
    if sentence := sentences.stacking_sentence(whole["stacking"]):
        to.print(sentence)
    if sentence := volatility_value.summary_sentence(whole):
        to.print(sentence)
    for sentence in sentences.tuning_sentences(whole["tuning"]) if "tuning" in whole else ():
        to.print(sentence)
    tables.show_windows()
    tables.show_end(
        f"{out}: trained_*/, summary.json and summary.parquet (one row a model), data_report.json, folds.svg, "
        "manifest.json"
    )


@dataclass(frozen=True)
class SummaryTables:
    """The tables of one summary.

    names: headings of models and baselines.  columns: the models and baselines that have a column, in order.
    group: what symbols are grouped by.

        >>> row = {"label": "label_5d_10pct", "horizon": 5, "threshold": 0.1, "test_share_buy": 0.04}
        >>> tables = SummaryTables(None, {"models": [row]}, ModelNames({}, (), ()), ["linear"])
        >>> tables.called, tables.titles
        (['buy'], {'label_5d_10pct': '5 bars, 10 %'})
    """

    to: Console
    whole: dict[str, Any]
    names: ModelNames
    columns: Sequence[str]
    group: str = "sector"

    @property
    def rows(self) -> list[Row]:
        """One row a model or baseline, sector and label."""
        rows: list[Row] = self.whole["models"]
        return rows

    @property
    def called(self) -> list[str]:
        """The classes that rows are called, as the summary's columns name them; empty for other targets."""
        return _names_after(SHARE, self.rows)

    @property
    def titles(self) -> dict[str, str]:
        """Each label as a person reads it."""
        return {row["label"]: summary.title_of(row) for row in self.rows}

    def explain(self, all_baselines: bool) -> None:
        """What the figures of the tables of gains are."""
        styles = (
            "; ",
            styled("bold", "bold"),
            " is the best of the row, ",
            styled("dim", "dim"),
            " is worse than the prior",
        )
        shares = " and ".join(f"{name.upper()} %" for name in self.called)
        measure = "the class prior in sealed-test log-loss" if self.called else "the reference in sealed-test loss"
        text = (
            ". A tilde (~) says no skill: the 95 % interval (block bootstrap of dates) of the gain over the prior, the "
            "sector's or that of all sectors, includes 0 or lies below."
        )
        if shares:
            text += f" {shares} are the shares of these classes in the test rows."
        if set(self.names.baselines) - set(self.names.weak):
            text += (
                " Two columns are baselines that a model has to beat: the class shares by volatility (20 bins of NATR "
                "14), learned on the sector alone (volat. sector) and on all sectors of the run (volat. pooled)."
            )
            if all_baselines:
                text += (
                    " Beside them: the prior of all sectors, and the class shares by the return of the last 60 bars "
                    "(momentum) and of the last 5 (reversal)."
                )
        start = f"\nGain over {measure}, in percent"
        self.to.print(start, *(styles if self.to.is_terminal else ()), text, sep="")

    def show_gains(self) -> None:
        """A table for each sector, and one for the average of several."""
        sectors = sorted({row["sector"] for row in self.rows})
        for sector in sectors:
            of_sector = [row for row in self.rows if row["sector"] == sector]
            self._show_gains(sector, of_sector, of_sector)
        if len(sectors) > 1:
            self._show_gains("all sectors (average)", self.rows, self.whole["averages"])
        if sentence := sentences.no_events_sentence(self.whole["averages"], self.titles):
            self.to.print(sentence)

    def _show_gains(self, title: str, rows: list[Row], measured: list[Row]) -> None:
        """rows: of which class shares are averaged.  measured: the gains, one for each label and model."""
        from rich.table import Table

        table = Table(
            title=title, title_justify="left", title_style="bold", header_style="dim", box=None, padding=(0, 1, 0, 0)
        )
        table.add_column("label", min_width=13)
        for name in self.called:
            table.add_column(f"{name.upper()} %\ntest", justify="right")
        for model in self.columns:
            table.add_column(self.names[model], justify="right", no_wrap=True)
        by_cell = {(row["label"], row["model"]): row for row in measured}
        for label in dict.fromkeys(row["label"] for row in rows):
            of_label = [row for row in rows if row["label"] == label]
            cells = [by_cell.get((label, model), {}) for model in self.columns]
            gains = [cell.get("test_gain_over_prior") for cell in cells]
            best = max((gain for gain in gains if gain is not None), default=0.0)
            shown = (_cell(gain, best, cell.get("test_skill")) for gain, cell in zip(gains, cells, strict=True))
            shares = (f"{_mean_share(of_label, name):.2f}" for name in self.called)
            table.add_row(summary.title_of(of_label[0]), *shares, *shown)
        print_whole(self.to, table)

    def show_parts(self) -> None:
        """Touch and direction: the two parts of each gain, averaged over sectors; nothing for targets without."""
        from rich.table import Table

        averages = [row for row in self.whole["averages"] if row.get("test_touch_gain") is not None]
        if not averages:
            return
        self.to.print(
            styled("touch and direction", "bold"),
            ": the two parts that a gain is the sum of. Touch: does the price reach a barrier (BUY or SELL against "
            "HOLD)? Direction: which one (BUY against SELL where it moved)? Most: the part's share of the prior's "
            "loss, which its gain cannot exceed. A tilde (~) says no skill, for the part alone.",
            sep="",
        )
        table = Table(header_style="dim", box=None, padding=(0, 1, 0, 0))
        table.add_column("label", min_width=13)
        for name in ("part", "most"):
            table.add_column(name, justify="right" if name == "most" else "left", no_wrap=True)
        for model in self.columns:
            table.add_column(self.names[model], justify="right", no_wrap=True)
        by_cell = {(row["label"], row["model"]): row for row in averages}
        for label in dict.fromkeys(row["label"] for row in averages):
            cells = [by_cell.get((label, model), {}) for model in self.columns]
            most = next(cell["test_direction_gain_most"] for cell in cells if cell)
            for part in PARTS:
                gains = [cell.get(f"test_{GAINS[part]}") for cell in cells]
                best = max((gain for gain in gains if gain is not None), default=0.0)
                skills = (cell.get(f"test_{part}_skill") for cell in cells)
                shown = (_cell(gain, best, skill) for gain, skill in zip(gains, skills, strict=True))
                first = part == PARTS[0]
                title, largest = (self.titles[label], 1 - most) if first else ("", most)
                table.add_row(title, part, _percent(largest), *shown)
        print_whole(self.to, table)

    def show_verdict(self) -> None:
        """The judged models' gain over each baseline, with its interval."""
        if not self.whole["verdict"]:
            return
        drawn = self.whole["intervals"]
        how = f"{drawn['draws']:,} draws of {drawn['times']} dates in blocks of {drawn['block']}"
        self.to.print(styled("gain with its 95 % interval", "bold"), f"({how})")
        table = figures_table(("label", "model"), ("over the prior", "over volat. sector", "over volat. pooled"))
        titles = self.titles
        for verdict in self.whole["verdict"]:
            cells = (
                sentences.interval_text(verdict[name], verdict[f"{name}_low"], verdict[f"{name}_high"])
                for name in ("above_prior", "above_table_sector", "above_table_all")
            )
            table.add_row(titles[verdict["label"]], self.names[verdict["model"]], *cells)
        print_whole(self.to, table)

    def show_returns(self) -> None:
        """The price's return over the label's bars: after every row (buy and hold), and after the rows called."""
        judged = list(dict.fromkeys(verdict["model"] for verdict in self.whole["verdict"]))
        sides = _names_after(RETURN, self.rows)
        if not sides:
            return
        heads = [f"{self.names[name]}\n{side.upper()}" for name in judged for side in sides]
        title = styled("mean return over the label's bars", "bold")
        self.to.print(title, ", in percent: of every test row, and after calls", sep="")
        table = figures_table(("label",), ("buy and\nhold", *heads))
        mean = {(average["label"], average["model"]): average for average in self.whole["averages"]}
        for row in {row["label"]: row for row in self.rows}.values():
            held = mean[row["label"], row["model"]]["test_return_buy_and_hold"]
            called = [mean[row["label"], name][f"{RETURN}{side}"] for name in judged for side in sides]
            cells = ("-" if value is None else f"{100 * value:.2f}" for value in (held, *called))
            table.add_row(summary.title_of(row), *cells)
        print_whole(self.to, table)

    def show_walk_forward(self) -> None:
        """The gain over all origins, and below it how steady it is."""
        walk = self.whole.get("walk_forward")
        if not walk:
            return
        text = (
            f"walk-forward: the test rows of {len(walk['origins'])} origins together, each predicted by models that "
            f"saw only earlier rows; average of {self.group}s, and below it the smallest gain of an origin and how "
            "many are above the prior. A tilde (~) says no skill, as above. The tables before are of the last origin "
            "alone, whose models are kept."
        )
        self.show_steadiness(
            text,
            walk["results"],
            lambda row: f"{_percent(row['smallest_gain'])} {row['origins_above_prior']}/{row['n_origins']}",
        )
        better: dict[str, list[bool]] = {}
        for row in self._of_models(walk["results"]):
            if row["gain_over_prior"] is not None:
                beats = min(row["gain_over_prior"], row["above_tables"]) > 0
                better.setdefault(self.names[row["model"]], []).append(beats)
        counts = ", ".join(f"{name} on {sum(beats)} of {len(beats)}" for name, beats in better.items())
        for model in dict.fromkeys(verdict["model"] for verdict in self.whole["verdict"]):
            rows = [row for row in walk["results"] if row["model"] == model and row["gain_over_prior"] is not None]
            if sentence := sentences.touch_direction_sentence(model, rows):
                self.to.print(f"Over all origins {sentence}")
        self.to.print(f"Over all origins better than the prior and both volatility tables: {counts} labels.")
        for sentence in sentences.walk_forward_sentences(self._of_models(walk["families"]), walk["intervals"]):
            self.to.print(sentence)
        for origin in walk["origins"][:-1]:
            self.show_skipped(origin["skipped"], f"{origin['name']}: ")

    def show_cross_validation(self) -> None:
        """The mean gain over all paths, and below it how steady it is."""
        crossed = self.whole.get("cpcv")
        if not crossed:
            return
        text = (
            "combinatorial purged cross-validation of what lies before the sealed test: mean of "
            f"{counted(crossed['n_paths'], 'path')} through {crossed['groups']} groups, {crossed['test_groups']} "
            "tested at a time; average of sectors, and below it the standard deviation of the paths (they share rows: "
            "it is no standard error) and how many are above the prior. A tilde (~) says no skill: some path is not "
            "above the sectors' priors, or not above that of all sectors."
        )
        self.show_steadiness(
            text,
            crossed["results"],
            lambda row: f"±{100 * (row['std_of_gains'] or 0):.1f} {row['paths_above_prior']}/{row['n_paths']}",
        )
        self.to.print(sentences.cpcv_sentence(self._of_models(crossed["results"]), crossed["n_paths"]))
        if n_folds := sum(bool(fold["skipped"]) for fold in crossed["folds"]):
            folds = counted(n_folds, "fold")
            self.to.print(styled("not trained", "yellow"), f"labels or sectors of {folds}: summary.json has which")

    def show_steadiness(self, text: str, results: list[Row], below: Callable[[Row], str]) -> None:
        """A table of gains over several folds, with a second figure below each: below(row)."""
        from rich.table import Table
        from rich.text import Text

        self.to.print(f"\n{text}")
        table = Table(header_style="dim", box=None, padding=(0, 1, 0, 0))
        table.add_column("label", min_width=13)
        # Two figures a cell leave no room for more.
        measured = {row["model"] for row in results} - set(self.names.weak)
        models = [model for model in self.columns if model in measured]
        for model in models:
            table.add_column(self.names[model], justify="right", no_wrap=True)
        titles = self.titles
        for label in dict.fromkeys(row["label"] for row in results):
            by_model = {row["model"]: row for row in results if row["label"] == label}
            gains = [row["gain_over_prior"] for row in by_model.values()]
            best = max((gain for gain in gains if gain is not None), default=0.0)
            cells = (
                Text.assemble(_cell(row["gain_over_prior"], best, row.get("skill")), "\n", (below(row), "dim"))
                if row
                else "-"
                for row in map(by_model.get, models)
            )
            table.add_row(titles.get(label, label), *cells)
        print_whole(self.to, table)

    def show_windows(self) -> None:
        """Which rows have no whole window; nothing for a run without models that look back."""
        if sentence := window_summary.sentence(self.whole.get("windows")):
            self.to.print(f"{sentence[:1].upper()}{sentence[1:]}: they are not used.")

    def show_skipped(self, skipped: Sequence[Row], where: str = "") -> None:
        """What was not trained, and why."""
        for sentence in sentences.skip_sentences(skipped):
            self.to.print(styled("not trained", "yellow"), f"{where}{sentence}")

    def show_end(self, files: str) -> None:
        """What was skipped, the run that it started from, the time, and the models with the files that hold them."""
        whole = self.whole
        self.show_skipped(whole["skipped"])
        if "warm_start" in whole:
            self.to.print(summary.warm_sentence(whole["warm_start"]))
        self.show_time()
        share = f"{whole['n_models']} of {whole['n_models_wanted']} models"
        self.to.print(styled(share, "bold"), f" in {files}", sep="")

    def show_time(self) -> None:
        """The time by stage, and what was held."""
        whole = self.whole
        spent = sorted(whole["seconds"].items(), key=lambda item: -item[1])
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent if seconds >= 0.05)
        if sentence := summary.reuse_sentence(whole["units"]):
            self.to.print(sentence)
        over = f" (summed over {whole['jobs']} parallel jobs)" if whole["jobs"] > 1 else ""
        self.to.print(f"Work by stage{over}: {stages}")
        if "placement" in whole:
            self.to.print(f"{summary.placement_sentence(whole['placement'])}.")
        peak = whole["device_peak_bytes"]
        on_device = f" and {peak / 2**30:.2f} GiB on the device" if peak else ""
        bus = sum(sum(by_stage.values()) for by_stage in whole["bus_bytes"].values())
        self.to.print(
            f"{whole['elapsed_s']:.1f} s in all, {whole['rows_per_second']:,.0f} rows/s; peak memory "
            f"{whole['peak_bytes'] / 2**30:.2f} GiB{on_device}; {bus / 2**20:,.1f} MiB over the bus; "
            f"device {whole['device']['kind']}"
        )

    def _of_models(self, rows: Iterable[Row]) -> list[Row]:
        """Those rows that are of no baseline."""
        return [row for row in rows if row["model"] not in self.names.baselines]


def _names_after(prefix: str, rows: list[Row]) -> list[str]:
    """What follows a prefix in the names of the rows' columns."""
    return [name.removeprefix(prefix) for name in (rows[0] if rows else ()) if name.startswith(prefix)]


def _mean_share(rows: list[Row], name: str) -> float:
    """Percent of the test rows that are of a class."""
    n = sum(row["test_rows"] for row in rows)
    return float(100 * sum(row[f"{SHARE}{name}"] * row["test_rows"] for row in rows) / max(1, n))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:z.1f}"


def _cell(value: float | None, best: float, skill: str | None = None) -> Text:
    if value is None:
        return styled(NO_EVENTS, "dim") if skill == NO_EVENTS else styled("-", "")
    text = f"{_percent(value)}{'~' if skill == NO_SKILL else ''}"
    return styled(text, "dim" if value <= 0 else "bold" if value == best else "")
