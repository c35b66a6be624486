"""What the user sees: progress, the data verdict, the plan, and the tables at the end."""

from __future__ import annotations

import contextlib
import os
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from gpupipe.artifacts import summary
from gpupipe.data import HEADER, DataReport, table_rows
from gpupipe.data import summary as data_summary
from gpupipe.data.report import counted, counted_over
from gpupipe.evaluation.block_bootstrap import NO_SKILL
from gpupipe.pipeline.job import Listener
from gpupipe.report import sentences
from gpupipe.runtime.device import Device

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 110
WIDE = 108  # from this width on the tables of gains show the weak baselines too
WEAK = ("prior_all", "last_return")
INDENT = 8  # columns, of what stands under a title
SHORT = {
    "prior_all": "prior\nall", "volatility_table_sector": "table\nown", "volatility_table_all": "table\nall",
    "last_return": "last\nreturn",
    "xgb_joint": "joint", "xgb_hist": "hist", "xgb_leafwise": "leafwise", "lightgbm": "lightgbm",
    "catboost": "catboost", "random_forest": "forest", "linear": "linear",
    "meta_learner": "meta",
}  # fmt: skip


def console(quiet: bool) -> Console:
    """Standard output for people; nothing at all if quiet."""
    from rich.console import Console

    console = Console(quiet=quiet, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH  # tables are made to be read: a pipe has no width of its own
    return console


@contextlib.contextmanager
def live(to: Console, device: Device) -> Iterator[Listener]:
    """A listener that draws progress where a person looks, and writes a line now and then into a pipe."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if to.quiet or not to.is_terminal:
        yield Listener() if to.quiet else _lines(to)
        return
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
        TextColumn("{task.fields[state]}", style="dim"), console=to, transient=True,
    )  # fmt: skip
    began, lock = time.perf_counter(), threading.Lock()
    totals, done, stage = dict.fromkeys(("units", "rows", "sectors", "labels", "models"), 0), 0, "preparing"
    with progress:
        bar = progress.add_task("preparing", total=None, state=device.name)

        def state() -> str:
            where = f"{device.kind} · {device.peak_bytes() / 2**30:.2f} GiB"
            if not done or not totals["models"]:
                return where
            share = done / totals["units"]
            rate = totals["rows"] * share / max(1e-9, time.perf_counter() - began)
            made = f"{counted(totals['sectors'], 'sector')} x {counted(totals['labels'], 'label')}"
            return f"{made}, {totals['models'] * share:.0f}/{totals['models']} models · {rate:,.0f} rows/s · {where}"

        def started(counts: dict[str, int]) -> None:
            totals.update(counts)
            progress.update(bar, total=counts["units"], state=state())

        def advanced(text: str) -> None:
            nonlocal done
            with lock:
                done += 1
            parts = text.split("/")
            described = f"{stage}: {parts[2]} · {parts[3]} · {parts[1]}" if len(parts) == 4 else f"{stage}: {text}"
            progress.update(bar, advance=1, description=described, state=state())

        def begin(name: str) -> None:
            nonlocal stage
            stage = name
            progress.update(bar, description=name, state=state())

        yield Listener(started, advanced, begin)


def _lines(to: Console) -> Listener:
    """Progress as plain lines, with the seconds since it began: each stage, and each tenth of the units of work."""
    began, lock = time.perf_counter(), threading.Lock()
    units, done = 0, 0

    def say(text: str) -> None:
        to.print(f"{time.perf_counter() - began:8.1f} s  {text}")

    def started(counts: dict[str, int]) -> None:
        nonlocal units
        units = counts["units"]

    def advanced(text: str) -> None:
        nonlocal done
        with lock:
            done += 1
            if done * 10 // units > (done - 1) * 10 // units:
                say(f"{done} of {counted(units, 'unit')} of work, {100 * done // units} %")

    return Listener(started, advanced, say)


def _paragraph(to: Console, text: str, title: str = "") -> None:
    """A text under its title; every further line keeps the indent."""
    from rich.markup import escape

    lines = textwrap.wrap(text, max(20, to.width - INDENT), break_long_words=False, break_on_hyphens=False)
    for k, line in enumerate(lines):
        to.print(f"[bold]{'' if k else title:<{INDENT}}[/bold]{escape(line)}", soft_wrap=True)


def show_data(to: Console, report: DataReport) -> None:
    """Which data these are, and the verdict on them."""
    from rich.markup import escape
    from rich.table import Table

    _paragraph(to, report.description, "Data")
    _paragraph(to, f"{data_summary(report)}; {report.reader}")
    for note in report.notes:
        _paragraph(to, note)
    if report.clean:
        _paragraph(to, "validation found nothing to report")
        return
    _paragraph(to, counted_over(report))
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for position, name in enumerate(HEADER):
        table.add_column(name, justify="right" if position in (2, 3) else "left", overflow="fold")
    for row in table_rows(report):
        table.add_row(*map(escape, row))
    to.print(table)


def show_device(to: Console, device: Device) -> None:
    """Which device computes, and why."""
    _paragraph(to, f"{device.kind} ({device.name}): {device.reason}", "Device")


def show_plan(to: Console, planned: dict[str, Any]) -> None:
    """What a run would do."""
    from rich.table import Table

    table = Table(title="Plan", title_justify="left", header_style="dim", box=None, padding=(0, 2))
    for name in ("sector", "symbols", "rows", "train", "validation", "test"):
        table.add_column(name, justify="left" if name == "sector" else "right")
    for row in planned["sectors"]:
        table.add_row(row["sector"], *(f"{row[name]:,}" for name in ("symbols", "rows", "train", "validation", "test")))
    to.print(table)
    cut = planned["split"]
    to.print(
        f"{counted(planned['models'], 'model')}: {counted(len(planned['sectors']), 'sector')} x "
        f"{counted(planned['labels'], 'label')} x {_families(planned['families'])}, in "
        f"{counted(planned['units'], 'unit')} of work; {counted(planned['features'], 'feature')}"
    )
    for name, noun in (("walk_forward", "walk-forward"), ("cpcv", "combinatorial purged cross-validation")):
        if name in planned:
            _folds_table(to, noun, planned[name])
    to.print(
        f"train from {cut['train_from']}, validation from {cut['validation_from']}, "
        f"sealed test {cut['test_from']} to {cut['test_to']}"
    )
    _memory_table(to, planned)


def _memory_table(to: Console, planned: dict[str, Any]) -> None:
    """What every plan of memory would hold, and which is taken."""
    from rich.table import Table

    on_device = any(one["device_bytes"] for one in planned["memory_plans"])
    table = Table(title="Peak memory, about", title_justify="left", header_style="dim", box=None, padding=(0, 2))
    of_device = ["GiB on the device", "--device-memory from"] if on_device else []
    for name in ("", "plan", "GiB", "--memory from", *of_device, "what it does"):
        table.add_column(name, justify="right" if "GiB" in name or "from" in name else "left")
    for one in planned["memory_plans"]:
        mark = "->" if one["plan"] == planned["memory_plan"] else ""
        names = ("bytes", "memory", *(("device_bytes", "device_memory") if on_device else ()))
        table.add_row(mark, one["plan"], *(f"{one[name] / 2**30:.2f}" for name in names), one["about"])
    to.print(table)


def _folds_table(to: Console, noun: str, folds: list[dict[str, Any]]) -> None:
    """Rows and dates of every fold of a plan."""
    from rich.table import Table

    table = Table(title=f"Folds, {noun}", title_justify="left", header_style="dim", box=None, padding=(0, 2))
    table.add_column("fold", no_wrap=True)
    for name in ("train", "validation", "test"):
        table.add_column(name, justify="right")
    table.add_column("tested dates")
    for one in folds:
        dates = ", ".join(" to ".join(ends) for ends in one["test"] if ends)
        table.add_row(one["name"], *(f"{one['rows'][part]:,}" for part in ("train", "validation", "test")), dates)
    to.print(table)


def show_tuning(to: Console, found: dict[str, Any], out: Any) -> None:
    """A table of the studies: trials, the best gain on validation, and beside it what it is worth."""
    from rich.markup import escape
    from rich.table import Table

    to.print(
        "\nTuned on validation: gain over the class prior in log-loss, in percent, mean of a study's labels. Deflated "
        "is what the trial that is best on one half of the dates gains on the other, over all ways to halve them, "
        "and beside it the preset's own values on the same dates. PBO is the probability of backtest overfitting: how "
        "often that trial comes out in the lower half of all. Skill and improvement are Deflated Sharpe Ratios: the "
        "probability that the best trial is better than the prior, and than the preset, given how many were tried. "
        "An asterisk (*): the best trial's values are used."
    )
    table = Table(header_style="dim", box=None, padding=(0, 1))
    for name in ("family", "sector", "label"):
        table.add_column(name)
    measures = ("preset", "best", "deflated\n(preset)", "PBO", "skill", "improve-\nment")
    for name in ("trials", "pruned", "failed", *measures):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found["studies"]:
        trials = one["trials"]
        deflated = f"{_share(one['deflated_gain'])} ({_share(one['preset_gain_by_period'])})"
        table.add_row(
            SHORT[one["family"]], one["sector"] or "all", one["label"] or "all",
            *(f"{trials[name]}" for name in ("tried", "pruned", "failed")),
            _share(one["preset_gain"]), _share(one["best_gain"]) + "*" * one["accepted"], deflated,
            *(_share(one[name], 2, 1) for name in ("overfitting", "deflated_sharpe", "deflated_sharpe_over_preset")),
        )  # fmt: skip
    to.print(table)
    for sentence in sentences.skip_sentences(found["skipped"]):
        to.print(f"[yellow]not tuned[/yellow] {escape(sentence)}")
    known = [one for one in found["studies"] if one["deflated_gain"] is not None]
    better = sum(one["deflated_gain"] > one["preset_gain_by_period"] for one in known)
    if len(known) < len(found["studies"]):
        unknown = len(found["studies"]) - len(known)
        to.print(f"Too few validation dates or complete trials to say what the best is worth in {unknown} studies.")
    if known:
        found_in = f"{better} of {len(known)} studies"
        to.print(f"Chosen on one half of the dates, the best beats the preset on the other in {found_in}.")
    if found["accept"] != "best":
        to.print("Where it does not, or that is not known, the preset's values are kept; --accept best takes the best.")
    to.print(
        f"In {escape(str(out))}: tuned.toml for gpupipe run --config, tuning.json with all of this, studies.sqlite."
    )


def _share(value: float | None, digits: int = 1, factor: float = 100) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"


def _families(names: list[str]) -> str:
    return f"{len(names)} {'family' if len(names) == 1 else 'families'} ({', '.join(names)})"


def show_summary(to: Console, whole: dict[str, Any], out: Any) -> None:
    """A table for each sector, one for the average of several, the time by stage, and where to look."""
    from rich.markup import escape

    rows = whole["models"]
    beside = " Beside them: the prior of all sectors, and the class shares by the last bar's return."
    left_out, beside = (WEAK, "") if to.width < WIDE else ((), beside)
    families = [name for name in SHORT if name not in left_out and any(row["model"] == name for row in rows)]
    sectors = sorted({row["sector"] for row in rows})
    styles = "; [bold]bold[/bold] is the best of the row, [dim]dim[/dim] is worse than the prior"
    to.print(
        f"\nGain over the class prior in sealed-test log-loss, in percent{styles if to.is_terminal else ''}. A "
        "tilde (~) says no skill: the 95 % interval (block bootstrap of dates) of the gain over the prior, the "
        "sector's or that of all sectors, includes 0 or lies below. BUY % and SELL % are the shares of these classes "
        "in the test rows. Two columns are baselines that a model has to beat: the class shares by volatility (20 bins "
        f"of NATR 14), learned on the sector alone (table own) and on all sectors of the run (table all).{beside}"
    )
    for sector in sectors:
        own = [row for row in rows if row["sector"] == sector]
        _gain_table(to, sector, own, families, {(r["label"], r["model"]): r for r in own})
    if len(sectors) > 1:
        mean = {(a["label"], a["model"]): a for a in whole["averages"]}
        _gain_table(to, "all sectors (average)", rows, families, mean)
    _verdict_table(to, whole, rows)
    _return_table(to, whole, rows)
    _show_validation(to, whole, families)
    for sentence in sentences.verdict_sentences(whole["verdict"], len(sectors)):
        to.print(sentence)
    for sentence in sentences.skill_sentences(whole["families"], whole["intervals"]):
        to.print(escape(sentence))
    if sentence := sentences.stacking_sentence(whole["stacking"]):
        to.print(escape(sentence))
    for sentence in sentences.tuning_sentences(whole["tuning"]) if "tuning" in whole else ():
        to.print(escape(sentence))
    for sentence in sentences.skip_sentences(whole["skipped"]):
        to.print(f"[yellow]not trained[/yellow] {escape(sentence)}")
    if "warm_start" in whole:
        to.print(escape(summary.warm_sentence(whole["warm_start"])))
    _show_time(to, whole)
    to.print(
        f"[bold]{whole['n_models']} of {whole['n_models_wanted']} models[/bold] in {escape(str(out))}: trained_*/, "
        "summary.json and summary.parquet (one row a model), data_report.json, folds.svg, manifest.json"
    )


def _show_validation(to: Console, whole: dict[str, Any], families: list[str]) -> None:
    """Walk-forward and cross-validation: the gain over all origins or paths, and below it how steady it is."""
    from rich.markup import escape

    walk, crossed = whole.get("walk_forward"), whole.get("cpcv")
    baselines = summary.baseline_names(whole)
    if walk:
        n = len(walk["origins"])
        _steady_table(
            to, f"walk-forward: the test rows of {n} origins together, each predicted by models that saw only earlier "
            "rows; average of sectors, and below it the smallest gain of an origin and how many are above the prior. "
            "A tilde (~) says no skill, as above. The tables before are of the last origin alone, whose models are "
            "kept.",
            whole, walk["results"], families,
            lambda one: f"{100 * one['smallest_gain']:.1f} {one['origins_above_prior']}/{one['n_origins']}",
        )  # fmt: skip
        better: dict[str, list[bool]] = {}
        for one in walk["results"]:
            if one["model"] not in baselines:
                better.setdefault(SHORT[one["model"]], []).append(min(one["gain_over_prior"], one["above_tables"]) > 0)
        counts = ", ".join(f"{name} on {sum(won)} of {len(won)}" for name, won in better.items())
        to.print(f"Over all origins better than the prior and both volatility tables: {counts} labels.")
        models = [one for one in walk["families"] if one["model"] not in baselines]
        for sentence in sentences.walk_forward_sentences(models, walk["intervals"]):
            to.print(escape(sentence))
        for origin in walk["origins"][:-1]:
            for sentence in sentences.skip_sentences(origin["skipped"]):
                to.print(f"[yellow]not trained[/yellow] {origin['name']}: {escape(sentence)}")
    if crossed:
        _steady_table(
            to, "combinatorial purged cross-validation of what lies before the sealed test: mean of "
            f"{counted(crossed['n_paths'], 'path')} through {crossed['groups']} groups, "
            f"{crossed['test_groups']} tested at a time; average of sectors, and below it the standard deviation of "
            "the paths (they share rows: it is no standard error) and how many are above the prior. A tilde (~) says "
            "no skill: some path is not above the sectors' priors, or not above that of all sectors.",
            whole, crossed["results"], families,
            lambda one: f"±{100 * (one['std_of_gains'] or 0):.1f} {one['paths_above_prior']}/{one['n_paths']}",
        )  # fmt: skip
        models = [one for one in crossed["results"] if one["model"] not in baselines]
        to.print(sentences.cpcv_sentence(models, crossed["n_paths"]))
        n = sum(bool(fold["skipped"]) for fold in crossed["folds"])
        if n:
            to.print(f"[yellow]not trained[/yellow] labels or sectors of {counted(n, 'fold')}: summary.json has which")


def _steady_table(
    to: Console, text: str, whole: dict[str, Any], results: list[dict[str, Any]], families: list[str],
    below: Callable[[dict[str, Any]], str],
) -> None:  # fmt: skip
    from rich.table import Table

    to.print(f"\n{text}")
    table = Table(header_style="dim", box=None, padding=(0, 1, 0, 0))
    table.add_column("label", min_width=13)
    shown = {one["model"] for one in results} - set(WEAK)  # two figures a cell leave no room for more
    families = [family for family in families if family in shown]
    for family in families:
        table.add_column(SHORT[family], justify="right", no_wrap=True)
    titles = {row["label"]: summary.title_of(row) for row in whole["models"]}
    for label in dict.fromkeys(one["label"] for one in results):
        by_model = {one["model"]: one for one in results if one["label"] == label}
        best = max(one["gain_over_prior"] for one in by_model.values())
        found = [by_model.get(family) for family in families]
        table.add_row(titles.get(label, label), *(
            f"{_cell(one['gain_over_prior'], best, one.get('skill'))}\n[dim]{below(one)}[/dim]" if one else "-"
            for one in found
        ))  # fmt: skip
    print_whole(to, table)


def _gain_table(to: Console, title: str, rows: list[dict[str, Any]], families: list[str], gain: dict[Any, Any]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, padding=(0, 1))
    table.add_column("label", min_width=13)
    table.add_column("BUY %\ntest", justify="right")
    table.add_column("SELL %\ntest", justify="right")
    for name in families:
        table.add_column(SHORT[name], justify="right", no_wrap=True)
    for label in dict.fromkeys(row["label"] for row in rows):
        own = [row for row in rows if row["label"] == label]
        n = sum(row["test_rows"] for row in own)
        shares = [
            100 * sum(row[f"test_share_{side}"] * row["test_rows"] for row in own) / max(1, n)
            for side in ("buy", "sell")
        ]
        found = [gain.get((label, name), {}) for name in families]
        known = [one["test_gain_over_prior"] for one in found if one.get("test_gain_over_prior") is not None]
        best = max(known, default=0.0)
        shown = (_cell(one.get("test_gain_over_prior"), best, one.get("test_skill")) for one in found)
        table.add_row(summary.title_of(own[0]), *(f"{share:.2f}" for share in shares), *shown)
    print_whole(to, table)


def _cell(value: float | None, best: float, skill: str | None = None) -> str:
    if value is None:
        return "-"
    text = f"{100 * value:.1f}{'~' if skill == NO_SKILL else ''}"
    if value <= 0:
        return f"[dim]{text}[/dim]"
    return f"[bold]{text}[/bold]" if value == best else text


def _verdict_table(to: Console, whole: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The judged models' gain over each baseline, with its interval."""
    from rich.markup import escape

    if not whole["verdict"]:
        return
    drawn = whole["intervals"]
    how = f"{drawn['draws']:,} draws of {drawn['times']} dates in blocks of {drawn['block']}"
    to.print(f"[bold]gain with its 95 % interval[/bold] ({how})")
    table = _table(("label", "model"), ("over the prior", "over table own", "over table all"))
    titles = {row["label"]: summary.title_of(row) for row in rows}
    for v in whole["verdict"]:
        cells = (
            escape(sentences.interval_text(v[name], v[f"{name}_low"], v[f"{name}_high"]))
            for name in ("above_prior", "above_table_sector", "above_table_all")
        )
        table.add_row(titles[v["label"]], SHORT[v["model"]], *cells)
    print_whole(to, table)


def _return_table(to: Console, whole: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """What the price did over the label's bars: after every row (buy and hold), and after the rows that are called."""
    judged = list(dict.fromkeys(verdict["model"] for verdict in whole["verdict"]))
    heads = [f"{SHORT[name]}\n{side}" for name in judged for side in ("BUY", "SELL")]
    to.print("[bold]mean return over the label's bars[/bold], in percent: of every test row, and after calls")
    table = _table(("label",), ("buy and\nhold", *heads))
    mean = {(a["label"], a["model"]): a for a in whole["averages"]}
    for row in {row["label"]: row for row in rows}.values():
        held = mean[row["label"], row["model"]]["test_return_buy_and_hold"]
        called = [mean[row["label"], name][f"test_return_when_{side}"] for name in judged for side in ("buy", "sell")]
        table.add_row(summary.title_of(row), *("-" if v is None else f"{100 * v:.2f}" for v in (held, *called)))
    print_whole(to, table)


def print_whole(to: Console, table: Table) -> None:
    """A table of figures, as wide as it is: a narrower window wraps it, as figures cut short would be wrong ones."""
    from rich.measure import Measurement

    class Whole:
        def __rich_console__(self, console: Console, options: Any) -> Any:
            width = Measurement.get(console, options.update(max_width=10_000), table).maximum
            yield from console.render(table, options.update(width=max(width, options.max_width)))

    to.print(Whole(), crop=False)


def _table(left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    from rich.table import Table

    table = Table(header_style="dim", box=None, padding=(0, 1))
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _show_time(to: Console, whole: dict[str, Any]) -> None:
    spent = sorted(whole["seconds"].items(), key=lambda item: -item[1])
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent if seconds >= 0.05)
    if sentence := summary.reuse_sentence(whole["units"]):
        to.print(sentence)
    over = f" (summed over {whole['jobs']} parallel jobs)" if whole["jobs"] > 1 else ""
    to.print(f"Work by stage{over}: {stages}")
    on_device = f" and {whole['device_peak_bytes'] / 2**30:.2f} GiB on the device" if whole["device_peak_bytes"] else ""
    bus = sum(sum(found.values()) for found in whole["bus_bytes"].values())
    to.print(
        f"{whole['elapsed_s']:.1f} s in all, {whole['rows_per_second']:,.0f} rows/s; peak memory "
        f"{whole['peak_bytes'] / 2**30:.2f} GiB{on_device}; {bus / 2**20:,.1f} MiB over the bus; "
        f"device {whole['device']['kind']}"
    )
