"""What commands print: names from data as they are, characters that an encoding lacks, closed pipes, full disks."""

from __future__ import annotations

import ast
import importlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import gpupipe
from gpupipe.cli import audit, backtest, console, guard, output, scan, tables, tuning_table
from gpupipe.cli import features as features_command
from gpupipe.cli import run as run_command
from gpupipe.cli.plain_console import plain_console
from gpupipe.cli.summary_tables import show_summary
from gpupipe.data.report import DataReport, Finding
from gpupipe.dataset.audit import Finding as AuditFinding
from gpupipe.runtime.device import pick
from gpupipe.serving.display import Display
from gpupipe.serving.scan import Scanned, Signal

SOURCES = sorted(pathlib.Path(gpupipe.__file__).parent.rglob("*.py"))
NAMES = ("[/ES]", "btc[usd]", "A[bold]", ":smile:", "<b>&", "[link=x]y[/link]")
EVERY = " ".join(NAMES)


def shown_by(show) -> str:
    to = plain_console(io.StringIO(), width=400)
    show(to)
    return to.file.getvalue()


def signal(symbol: str, time: str = "2024-03-21T00:00:00", prices=(187.25, 186.677, 187.823, 183.8, 195.87)) -> Signal:
    close, low, high, stop, target = prices
    return Signal(
        symbol,
        EVERY,
        time,
        close,
        EVERY,
        5,
        0.1,
        "BUY",
        0.5,
        0.2,
        0.3,
        0.5,
        0.2,
        0.2,
        0.01,
        0.005,
        1.0,
        low,
        high,
        stop,
        target,
    )


def data_report() -> DataReport:
    finding = Finding(EVERY, "flagged", 1, 1, EVERY)
    return DataReport(
        EVERY, "csv", EVERY, EVERY, (EVERY,), 9, 9, 9, 1, {EVERY: 1}, "2020-01-01", "2020-01-09", "ab", (finding,), None
    )  # fmt: skip


def summary_of(gain: float | None = 0.05, skill: str = "skill", **more) -> dict:
    """A summary with one label and one model in two sectors with names that look like markup."""
    measures = {"test_gain_over_prior": gain, "test_skill": skill}
    row = {"kind": "model", "label": "l", "model": EVERY, "test_rows": 10, "test_share_buy": 0.0, **measures}
    rows = [{**row, "sector": sector} for sector in (EVERY, "[bold]energy")]
    families = [{
        "model": EVERY, "gain": gain, "gain_low": gain, "gain_high": gain, "skill": skill, "labels": 1, "runs": 2,
        "above_prior": 2, "with_skill": 2, "no_skill": 0, "no_events": 0, "not_above": [],
    }]  # fmt: skip
    return {
        "models": rows, "averages": [{"label": "l", "model": EVERY, "sectors": 2, **measures}], "families": families,
        "verdict": [], "stacking": None, "intervals": {"blocks": 5.0}, "seconds": {EVERY: 1.0}, "jobs": 1,
        "skipped": [{"sector": EVERY, "label": EVERY, "reason": EVERY}], "units": {"why": {}}, "elapsed_s": 1.0,
        "rows_per_second": 1.0, "peak_bytes": 1, "device_peak_bytes": 0, "bus_bytes": {}, "device": {"kind": "cpu"},
        "n_models": 2, "n_models_wanted": 2, **more,
    }  # fmt: skip


PLAN = {
    "sectors": [{"sector": EVERY, **dict.fromkeys(("symbols", "rows", "train", "validation", "test"), 1)}],
    "split": dict.fromkeys(("train_from", "validation_from", "test_from", "test_to"), EVERY), "models": 1, "labels": 1,
    "families": [EVERY], "units": 1, "features": 1, "memory_plan": EVERY,
    "memory_plans": [{"plan": EVERY, "bytes": 1, "memory": 1, "device_bytes": 0, "about": EVERY}],
}  # fmt: skip
STUDY = {
    "family": EVERY, "sector": EVERY, "label": EVERY, "trials": dict.fromkeys(("tried", "pruned", "failed"), 1),
    "accepted": True, **dict.fromkeys(("deflated_gain", "preset_gain_by_period", "preset_gain", "best_gain",
    "overfitting", "deflated_sharpe", "deflated_sharpe_over_preset"), 0.1),
}  # fmt: skip
TUNING = {"studies": [STUDY], "skipped": [{"sector": EVERY, "label": "", "reason": EVERY}], "accept": "deflated"}
TRADED = {
    "sector": EVERY, "model": EVERY, "label": EVERY, "horizon": 5, "threshold": 0.1, "trades": 3, "skill": "skill",
    "p_value": 0.01, "sharpe": 1.0, "sharpe_error": 0.5,
    **dict.fromkeys(("cagr", "max_drawdown", "exposure", "turnover"), 0.1),
}  # fmt: skip
BACKTEST = {
    "rules": {}, "source": EVERY, "from": EVERY, "to": EVERY, "dates": 9, "call": "score", "without_calls": [EVERY],
    "data": EVERY, "tried": [1],
    "draws": 9, "block": 9, "statistics": [{**TRADED, "sector": "all"}, TRADED, {**TRADED, "model": "buy_and_hold"}],
}  # fmt: skip
TABLES = {
    "data": lambda to: console.show_data(to, data_report()),
    "summary": lambda to: show_summary(to, summary_of(), EVERY),
    "plan": lambda to: tables.show_plan(to, PLAN),
    "tuning": lambda to: tuning_table.show_tuning(to, TUNING, EVERY),
    "backtest": lambda to: backtest.show(to, BACKTEST, pathlib.Path(EVERY)),
    "scan": lambda to: scan.show(to, Scanned(tuple(map(signal, NAMES)), (EVERY,), (EVERY,), {}, (EVERY,)), 9),
    "audit": lambda to: audit._show(to, [AuditFinding(EVERY, "feature", 5, 1, EVERY)]),
    "progress": lambda to: console._lines(to).stage(EVERY),
}


@pytest.mark.parametrize("command", TABLES)
def test_names_from_data_are_printed_as_they_are(command):
    text = shown_by(TABLES[command])
    assert [name for name in NAMES if name not in text] == []


def test_the_plan_of_a_run_with_a_gpu_says_where_stages_are_fitted():
    placed = {"xgb_joint.pool": {"device": "cuda", "reason": "1 s on the GPU, 4 s on 2 CPU threads"}}
    text = shown_by(lambda to: tables.show_plan(to, {**PLAN, "placement": placed}))
    assert "Where stages are fitted" in text and "1 s on the GPU" in text
    assert "Where stages are fitted" not in shown_by(TABLES["plan"])


def test_progress_of_a_terminal_prints_names_as_they_are():
    to = plain_console(io.StringIO(), width=200, force_terminal=True)
    with console.live(to, pick("cpu")) as listener:
        listener.stage(EVERY)
    assert all(name in to.file.getvalue() for name in NAMES)


def test_only_the_plain_console_prints_and_nothing_parses_markup():
    """A new command gets its console from `plain_console`, so that it cannot take a name for markup."""
    offences = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        found = set(re.findall(r"\bConsole\(|from_markup|RichHandler|rich\.markup", text))
        offences += [f"{path.name}: {name}" for name in found]
        offences += [
            f"{path.name}: {column}" for column in re.findall(r'TextColumn\("[^)]*\)', text)
            if "{" in column and "markup=False" not in column
        ]  # fmt: skip
    assert offences == []


def test_text_files_are_read_and_written_as_utf_8():
    """Whatever LANG says: every text file that gpupipe opens names its encoding."""
    offences = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if not re.search(r"\bopen\(|read_text|write_text", text):
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            modes = [word.value for word in (*node.args, *(k.value for k in node.keywords if k.arg == "mode"))
                     if isinstance(word, ast.Constant) and isinstance(word.value, str)]  # fmt: skip
            opens = name == "open" and (
                (isinstance(node.func, ast.Name) and not any("b" in mode for mode in modes[1:]))
                or any(mode in ("r", "w", "a", "x", "a+", "r+", "w+") for mode in modes)
                or any(k.arg == "newline" for k in node.keywords)
            )  # fmt: skip
            named = any(k.arg == "encoding" for k in node.keywords)
            if (opens or name in ("read_text", "write_text")) and not named:
                offences.append(f"{path.name}:{node.lineno}: {name}")
    assert offences == []


def test_the_name_of_a_file_that_is_not_utf_8_is_one_sentence(capsys):
    def job() -> int:
        return len("bars/caf\udce9.csv".encode())

    assert guard.guarded(job, "OUT") == 2
    error = capsys.readouterr().err
    assert error.startswith("gpupipe: the name 'bars/caf\\udce9.csv' holds bytes that are not UTF-8: rename")


class Pipe(io.TextIOWrapper):
    """Standard output of an encoding, whose bytes can be read."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    @property
    def content(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("ascii", "0.25 +/- 0.10 - ? ... -> ?\n"), ("latin-1", "0.25 ± 0.10 - é ... -> ?\n"),
     ("utf-8", "0.25 ± 0.10 – é … → ?\n")],
)  # fmt: skip
def test_a_character_that_the_encoding_lacks_is_replaced(monkeypatch, encoding, expected):
    monkeypatch.setattr(sys, "stdout", Pipe(encoding))
    stream = sys.stdout
    with output.guarded():
        print("0.25 ± 0.10 – é … → \udcff")  # the last: a byte of a file name that is not UTF-8
    assert stream.content == expected and sys.stdout is stream


@pytest.mark.parametrize("module", ["main", "run"])
def test_every_entry_point_guards_its_output(monkeypatch, module):
    def printing(*_: object) -> int:
        print("±")
        return 0

    monkeypatch.setattr(guard, "perform", printing)
    monkeypatch.setattr(run_command, "perform", printing)
    monkeypatch.setattr(sys, "stdout", Pipe("ascii"))
    arguments = ["doctor"] if module == "main" else []
    assert importlib.import_module(f"gpupipe.cli.{module}").main(arguments) == 0
    assert sys.stdout.content == "+/-\n"


def test_columns_stay_aligned_in_ascii(monkeypatch):
    from rich.table import Table

    monkeypatch.setattr(sys, "stdout", Pipe("ascii"))
    with output.guarded():
        table = Table("ratio", "p", box=None)
        table.add_row("0.25 ± 0.10", "1")
        table.add_row("–", "2")
        console.console(quiet=False).print(table)
    lines = sys.stdout.content.splitlines()
    assert lines[1].index("1", 14) == lines[2].index("2") and "+/-" in lines[1]


def test_control_characters_of_a_name_do_not_reach_the_terminal(capsys):
    assert shown_by(lambda to: to.print("A\x1b[2J\u202eB")) == "A\\x1b[2J\\u202eB\n"
    guard.refuse(ValueError("A\x1b[2J\nB"))
    assert capsys.readouterr().err == "gpupipe: A\\x1b[2J B\n"


def test_json_that_an_encoding_lacks_is_escaped(monkeypatch, tmp_path):
    path = tmp_path / "summary.json"
    path.write_text('{"sector": "é – 😀"}\n', encoding="utf-8")
    for encoding in ("ascii", "utf-8"):
        monkeypatch.setattr(sys, "stdout", Pipe(encoding))
        output.print_json_file(path)
        assert json.loads(sys.stdout.content) == {"sector": "é – 😀"}


def entered(monkeypatch, stream, command) -> int:
    monkeypatch.setattr(sys, "stdout", stream)
    return guard.entry(command)


def test_a_closed_pipe_ends_with_141_and_without_a_word(monkeypatch, capsys):
    for printing in (print, lambda text: console.console(False).print(text)):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as stream:
            assert entered(monkeypatch, stream, lambda printing=printing: printing("x" * 10_000) or 0) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full on this system")
def test_a_full_disk_of_standard_output_is_one_sentence(monkeypatch, capsys):
    with open("/dev/full", "w") as stream:
        assert entered(monkeypatch, stream, lambda: print("x") or 0) == 2
    error = capsys.readouterr().err
    assert error.startswith("gpupipe: standard output: No space left on device") and error.count("\n") == 1


PRINTS = """
import sys
from gpupipe.cli.guard import entry, guarded
def job():
    print("first", flush=True)
    for k in range(100_000):
        print("more", flush=True)
    return 0
sys.exit(entry(lambda: guarded(job, "OUT")))
"""


def test_a_job_whose_output_is_closed_says_how_to_go_on():
    job = subprocess.Popen([sys.executable, "-c", PRINTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "first\n"
    job.stdout.close()
    assert job.wait(30) == 141
    with job.stderr as errors:
        error = errors.read()
    assert error == ("gpupipe: stopped, as its output was closed; the same command goes on where this one was (OUT)\n")


def test_prices_and_times_of_a_scan():
    """Digits that tell entry, stop and target apart; stocks as ever; the hour and zone of intraday bars alone."""
    coin = signal("COIN", "2024-03-21T14:00:00", (2.013e-05, 1.9927e-05, 2.0333e-05, 1.89e-05, 2.3197e-05))
    pair = signal("EURUSD", "2024-03-21T20:00:00", (1.08345, 1.08305, 1.08385, 1.0811, 1.0893))
    stock = signal("XOM", "2024-03-21T20:00:00")
    signals = (coin, pair, stock)
    display = Display(True, {"XOM": -14400}, {"EURUSD": 5})
    text = shown_by(lambda to: scan.show(to, Scanned(signals, (), (), display=display), 9))
    rows = {line.split()[0]: " ".join(line.split()) for line in text.splitlines()[1:4]}
    assert rows["COIN"].endswith(" 0.00002013 0.00001993 – 0.00002033 0.00001890 0.00002320")
    assert rows["EURUSD"].endswith(" 1.08345 1.08305 – 1.08385 1.08110 1.08930")
    assert rows["XOM"].endswith(" 187.25 186.68 – 187.82 183.80 195.87")
    assert " 2024-03-21 14:00 UTC " in rows["COIN"] and " 2024-03-21 16:00 -04:00 " in rows["XOM"]
    daily = shown_by(lambda to: scan.show(to, Scanned((signal("XOM"),), (), (), display=Display(False)), 9))
    assert " 2024-03-21  BUY " in daily and "00:00" not in daily


def test_features_as_json(capsys):
    assert features_command.run(features_command.FeaturesRequest(("rsi_14",), json=True)) == 0
    (feature,) = json.loads(capsys.readouterr().out)
    assert {k: feature[k] for k in ("name", "family", "periods", "warm_up_bars", "source")} == {
        "name": "rsi_14", "family": "momentum", "periods": [14], "warm_up_bars": 14, "source": "TA-Lib RSI"
    }  # fmt: skip
    assert feature["doc"].startswith("100 * gain") and feature["definition"].startswith(feature["formula"] + " | ")


def test_a_sector_without_events_has_no_gain_in_the_tables():
    averages = [{"label": "l", "model": EVERY, "sectors": 2, "sectors_without_events": 1,
                 "test_gain_over_prior": 0.123, "test_skill": "skill"}]  # fmt: skip
    whole = summary_of(None, "no events", averages=averages)
    whole["families"][0] |= {"no_events": 1}
    text = shown_by(lambda to: show_summary(to, whole, "OUT"))
    assert text.count("no events") == 2 + 2 and "12.3" in text  # the cells of two sectors; the family, and its count
    assert "left out of the averages: 1 of 2 sectors on l." in text
