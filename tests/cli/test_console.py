"""What is printed: into a pipe, at any width, for one sector and for several."""

from __future__ import annotations

import io
import re

import pytest

from gpupipe import config
from gpupipe.cli import console, tables
from gpupipe.cli.plain_console import plain_console
from gpupipe.cli.summary_tables import show_summary
from gpupipe.data import load
from gpupipe.estimators import registry
from gpupipe.kernels import notice
from gpupipe.pipeline import job
from gpupipe.pipeline.job import Listener
from gpupipe.report import sentences
from gpupipe.targets.classes import CLASSES
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, in_sectors, tiny_market
from tests.support.toy_workload import LINE_PLACE, TOY, toy_panel


def pipe(width=80, terminal=None):
    return plain_console(io.StringIO(), width=width, force_terminal=terminal)


def printed(to):
    return to.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 110])
def test_what_stands_under_a_title_keeps_its_indent(width):
    to = pipe(width)
    device = tiny_market().device
    _, report = load("simulated:symbols=22,bars=30", None, "energy", device)
    console.show_data(to, report)
    console.show_device(to, device)
    lines = printed(to).splitlines()
    assert max(map(len, lines)) <= width
    titles = [line for line in lines if not line.startswith(" " * console.INDENT)]
    assert [line[: console.INDENT].rstrip() for line in titles] == ["Data", "Device"]
    assert all(line == line.rstrip() for line in lines)
    words = " ".join(printed(to).split())
    assert "60 of 660 rows, 2 symbols, 1 sector, " in words and device.name in words


def test_markup_in_what_the_user_named_is_printed_as_it_is():
    to = pipe()
    console.paragraph(to, "[red]bars[/red].parquet", "Data")
    assert printed(to) == "Data    [red]bars[/red].parquet\n"


def test_a_verdict_says_which_rows_it_is_of(tmp_path):
    path = tmp_path / "bars.csv"
    text = "symbol,date,open,high,low,close,volume,sector\n"
    text += "".join(
        f"{symbol},2020-01-{day:02d},10,11,9,{close},5,{sector}\n"
        for symbol, sector, close in (("A", "energy", 0), ("B", "utilities", 10))
        for day in (1, 2)
    ) + "A,2020-01-03,10,11,9,10,5,energy\n"  # fmt: skip
    path.write_text(text)
    for sectors, expected in (("energy", True), ("all", False)):
        to = pipe(110)
        _, report = load(path, None, sectors, tiny_market().device)
        console.show_data(to, report)
        assert "a price is not positive" in printed(to)
        said = " ".join(printed(to).split())
        assert ("rows read; other findings to the 3 rows of the sectors read" in said) is expected


@pytest.mark.parametrize(("quiet", "expected"), [(False, "compiling kernels, once\n"), (True, "")])
def test_a_command_says_once_that_it_compiles(quiet, expected, capsys, monkeypatch):
    monkeypatch.setattr(notice, "compiling", None)
    to = console.console(quiet)
    for name in ("backtest.take_trades", "backtest.call_rows"):
        notice.compiling(name)
    assert capsys.readouterr().out == expected
    to = console.console(quiet)
    del to
    notice.compiling("backtest.take_trades")  # the command is over
    assert capsys.readouterr().out == ""


def test_progress_into_a_pipe_is_a_line_for_each_stage_and_each_tenth():
    to = pipe()
    with console.live(to, tiny_market().device) as listener:
        listener.stage("features and labels")
        listener.started({"units": 41, "rows": 1, "sectors": 1, "labels": 1, "models": 1})
        listener.stage("training")
        for k in range(41):
            listener.advanced(f"energy/final/linear/{k}")
        listener.stage("evaluation")
    lines = [re.fullmatch(r" *\d+\.\d s  (.*)", line)[1] for line in printed(to).splitlines()]
    assert lines[:2] == ["features and labels", "training"] and lines[-1] == "evaluation"
    assert lines[2] == "5 of 41 units of work, 12 %" and lines[-2] == "41 of 41 units of work, 100 %"
    assert len(lines) == 2 + 10 + 1


def test_a_quiet_console_gets_no_progress():
    to = plain_console(io.StringIO(), quiet=True)
    with console.live(to, tiny_market().device) as listener:
        assert listener == Listener()
    assert printed(to) == ""


@pytest.mark.parametrize("n_sectors", [1, 2])
def test_averages_are_printed_where_there_is_something_to_average(tmp_path, n_sectors):
    panel = in_sectors(tiny_market(), ("energy", "technology")[:n_sectors])
    settings = [*QUICK, "training.models=linear,xgb_joint", "labels.thresholds=0.02,0.9"]
    whole, _ = tiny.execute(panel, None, equity.make("fast", settings=settings), tmp_path, 1)
    to = pipe(110)
    show_summary(to, whole, tmp_path, equity.EQUITY.baselines)
    said = " ".join(printed(to).split())
    assert ("all sectors (average)" in said) == (n_sectors > 1)
    assert ("averaged over 2 sectors" in said) == (n_sectors > 1)
    how = f"(2,000 draws of {whole['intervals']['times']} dates in blocks of 10)"
    assert f"gain with its 95 % interval {how}" in said and "buy and" in said
    tilde = any(row["test_skill"] == "no skill" for row in whole["models"])
    assert bool(re.search(r"\d~", said)) == tilde
    number = r"-?\d+\.\d"
    parts = rf"\(touch {number}~?, direction {number}~?\)"
    gain = rf"gain {number} \[{number}, {number}\] % {parts} on average over 2 labels"
    assert re.search(rf"linear: (no )?skill, {gain}; above", said)
    assert "touch and direction: the two parts" in said
    linear = [row for row in whole["averages"] if row["model"] == "linear"]  # the last column
    for part in ("touch", "direction"):
        lines = re.findall(rf"^.{{13}} {part} .* (\S+) *$", printed(to), re.MULTILINE)
        assert lines == [
            f"{100 * row[f'test_{part}_gain']:z.1f}{'~' * (row[f'test_{part}_skill'] == 'no skill')}" for row in linear
        ]
    assert "volat. sector" in said and "volat. pooled" in said and "1 parallel" not in said and "bold" not in said
    where = ["energy: ", "energy, technology: all sectors together: "][n_sectors - 1]
    for label in ("label_1d_90pct", "label_3d_90pct"):
        assert said.count(f"not trained {label} of {where}0 {CLASSES[2]} and 0 {CLASSES[0]} rows") == 1
    to = pipe(80)
    # The baselines that nobody has to beat give way, and nothing is cut off.
    show_summary(to, whole, tmp_path, equity.EQUITY.baselines)
    assert "…" not in printed(to) and max(map(len, printed(to).splitlines())) <= 80
    to = pipe(110, terminal=True)
    show_summary(to, whole, tmp_path, equity.EQUITY.baselines)
    assert "is the best of the row" in printed(to)


def test_what_was_skipped_names_its_sectors_once():
    skipped = [
        {"sector": "energy", "label": "label_1d_5pct", "reason": "energy: 7 rows"},
        {"sector": "materials", "label": "", "reason": "3 training rows"},
        {"sector": "energy", "label": "label_2d_5pct", "reason": "all sectors together: 8 rows"},
        {"sector": "utilities", "label": "label_2d_5pct", "reason": "all sectors together: 8 rows"},
    ]
    assert sentences.skip_sentences(skipped) == [
        "label_1d_5pct of energy: 7 rows",
        "all labels of materials: 3 training rows",
        "label_2d_5pct of energy, utilities: all sectors together: 8 rows",
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_figures_are_never_cut_short(width):
    from rich.table import Table

    to = pipe(width)
    table = Table(box=None)
    for k in range(12):
        table.add_column(f"family {k}", justify="right", no_wrap=True)
    table.add_row(*(f"{k}.25~" for k in range(12)))
    tables.print_whole(to, table)
    printed = to.file.getvalue()
    assert all(f"{k}.25~" in printed and f"family {k}" in printed for k in range(12))


def test_a_workload_without_classes_and_baselines_has_a_table_of_gains(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.ESTIMATORS, "toy_line", LINE_PLACE)
    whole, _ = job.execute(TOY, toy_panel(), None, config.make(TOY.catalogue()), tmp_path)
    to = pipe(110)
    show_summary(to, whole, tmp_path)
    shown = printed(to)
    gain = next(row["test_gain_over_prior"] for row in whole["models"] if row["sector"] == "A")
    assert "toy_line" in shown and "next_price" in shown and f"{100 * gain:.1f}" in shown
    for words in (*CLASSES, "class prior", "volatility", "mean return"):
        assert words not in shown
