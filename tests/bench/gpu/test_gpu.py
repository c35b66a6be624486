"""The script for a GPU: what can be tried of it without one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import signal
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

import bench.gpu.__main__ as on_gpu
from bench import runs
from bench.gpu import alone, boosters, gpu_tests, networks, page, steps
from bench.gpu.steps import STEPS, Step
from gpupipe.data import simulate
from gpupipe.runtime.device import why_no_cuda


def test_without_a_gpu_it_says_why_and_writes_nothing(tmp_path):
    if not why_no_cuda():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="there is no GPU to measure on: "):
        on_gpu.main(["--data", "none.parquet", "--out", str(tmp_path / "lines.jsonl")])
    assert not list(tmp_path.iterdir())


def test_a_training_is_timed_epoch_by_epoch(tmp_path):
    pytest.importorskip("torch", reason="networks need Torch")
    from bench.sequence.problem import problem_of, read_series

    panel = simulate(n_symbols=1, n_bars=900, seed=1, bar="1min")
    pq.write_table(panel.to_arrow().drop_columns(["symbol", "sector"]), tmp_path / "walk.parquet")
    problem = problem_of("walk", read_series(tmp_path / "walk.parquet"), "core")
    seconds, loss = networks.trained(problem, "fast", "fp32", captured=False)
    assert len(seconds) == networks.EPOCHS and min(seconds) > 0 and np.isfinite(loss)


@pytest.mark.gpu
def test_networks_and_the_agent_are_measured_and_equal_the_cpu(tmp_path):
    pytest.importorskip("torch", reason="networks need Torch")
    if reason := why_no_cuda():
        pytest.skip(reason)
    panel = simulate(n_symbols=1, n_bars=900, seed=1, bar="1min")
    pq.write_table(panel.to_arrow().drop_columns(["symbol", "sector"]), tmp_path / "walk.parquet")
    out = tmp_path / "lines.jsonl"
    options = ["--small", "--series", str(tmp_path / "walk.parquet"), "--out", str(out)]
    assert on_gpu.main([*options, "--steps", "windows,epoch,loss,agent"]) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    kinds = [line["kind"] for line in found if line["kind"] != "seconds"]
    assert kinds == ["windows", *["epoch"] * 4, "loss", "agent"]
    assert all(line["equal"] for line in found if "equal" in line)


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """The file of lines, and a function that reads it; no GPU is asked for its name."""
    monkeypatch.setattr(alone, "about", dict)
    monkeypatch.setattr(on_gpu, "why_no_cuda", lambda: None)
    out = tmp_path / "deep" / "lines.jsonl"
    return out, lambda: [json.loads(line) for line in out.read_text().splitlines()]


def test_a_line_is_kept_at_once(lines, capsys):
    out, read = lines
    for number in (1, 2):
        alone.add(out, "windows", {"gb_s": number})
    assert [line["gb_s"] for line in read()] == [1, 2] and "gb_s" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def core_limit(monkeypatch):
    """A step lowers the limit of its process, which is this one here."""
    monkeypatch.setattr(alone.resource, "setrlimit", lambda *_: None)


@pytest.mark.parametrize("error", [ValueError("no such thing"), SystemExit("the job failed with status 2")])
def test_a_step_that_fails_is_a_line(lines, monkeypatch, error):
    def failing(chosen):
        yield {"ms": 1.0}
        raise error

    out, read = lines
    monkeypatch.setitem(STEPS, "job", Step(failing, 10))
    assert on_gpu.main(["--out", str(out), "--alone", "job"]) == alone.FAILED
    before, line = read()
    assert before["ms"] == 1.0 and line["kind"] == "job"
    assert line["error"] == f"{type(error).__name__}: {error}" and any("raise" in text for text in line["where"])


def test_a_step_with_a_wrong_line_has_failed(lines, monkeypatch):
    out, read = lines
    monkeypatch.setitem(STEPS, "bonds", Step(lambda chosen: iter([{"differ": 1}, {"differ": 0}]), 10))
    assert on_gpu.main(["--out", str(out), "--alone", "bonds"]) == alone.FAILED and len(read()) == 2


def script_of(tmp_path, monkeypatch, *words):
    """A script takes the place of a step's process."""
    file = tmp_path / "step.py"
    file.write_text("\n".join(words))
    monkeypatch.setattr(runs, "MODULE", (sys.executable, str(file)))


ENDS = {
    "a fault": ("import os; os.abort()", "ended by SIGABRT"),
    "an exit code": ("import sys; sys.exit('no memory')", "ended with exit code 1"),
    "no end": ("import time\nwhile True: time.sleep(1)", "not done in 1 s"),
}


@pytest.mark.parametrize(("code", "error"), ENDS.values(), ids=ENDS)
def test_a_step_that_crashes_or_hangs_is_a_line_and_the_next_one_runs(lines, tmp_path, monkeypatch, code, error, capfd):
    out, read = lines
    script_of(tmp_path, monkeypatch, "import sys, faulthandler; faulthandler.enable()", "if 'bonds' in sys.argv[-1]:",
              "    sys.exit(0)", code)  # fmt: skip
    for step in ("agent", "bonds"):
        monkeypatch.setitem(STEPS, step, dataclasses.replace(STEPS[step], limit_s=1 if step == "agent" else 60))
    assert on_gpu.main(["--out", str(out), "--steps", "agent,bonds"]) == 1
    failed, *seconds = read()
    assert failed["kind"] == "agent" and failed["error"] == error
    assert failed["where"] and ("step.py" in failed["where"][0] or "no memory" in failed["where"][0])
    assert alone.log_of(out).read_text().startswith("agent:\n") and failed["where"][0] in alone.log_of(out).read_text()
    assert [(line["kind"], line["step"]) for line in seconds] == [("seconds", "agent"), ("seconds", "bonds")]


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_a_step_has_started_ends_with_it(lines, tmp_path, monkeypatch, interrupted, capfd):
    out, _ = lines
    child = tmp_path / "child"
    script_of(
        tmp_path, monkeypatch, "import pathlib, subprocess, sys, time",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])",
        f"pathlib.Path({str(child)!r}).write_text(str(child.pid))", "time.sleep(600)",
    )  # fmt: skip
    if interrupted:
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 2)
        with pytest.raises(KeyboardInterrupt):
            alone.run_in_process("agent", [], out, 600)
        signal.signal(signal.SIGALRM, before)
    else:
        assert alone.run_in_process("agent", [], out, 2)
    state = pathlib.Path(f"/proc/{child.read_text()}/stat")
    with contextlib.suppress(OSError):  # it is gone, or will be, or waits to be read by its new parent
        while state.read_text().split()[2] != "Z":
            time.sleep(0.01)


def test_no_step_begins_when_time_is_over(lines):
    out, read = lines
    assert on_gpu.main(["--out", str(out), "--steps", "agent,bonds", "--minutes", "0"]) == 0
    assert [(line["kind"], line["skipped"]) for line in read()] == [
        ("agent", "0 minutes are over"),
        ("bonds", "0 minutes are over"),
    ]


def test_a_step_whose_library_is_missing_is_left_out_with_the_reason(lines, monkeypatch):
    out, read = lines
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: None)
    assert on_gpu.main(["--out", str(out), "--steps", "pool,cuml,tests"]) == 0
    assert {line["kind"]: line["skipped"] for line in read()} == {
        "tests": "pytest is not installed: pip install 'gpupipe[test]'",
        "pool": "torch is not installed: pip install 'gpupipe[torch]', in a build for CUDA",
        "cuml": "cuml is not installed: pip install 'gpupipe[cuda13]'",
    }


def test_a_step_of_networks_needs_a_series(lines, monkeypatch):
    out, read = lines
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: name)
    assert on_gpu.main(["--out", str(out), "--steps", "windows"]) == 0
    assert read()[0]["skipped"] == "--series names no file"


def test_the_help_names_every_step(capsys):
    with pytest.raises(SystemExit) as end:
        on_gpu.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and all(f"\n    {step} " in text for step in STEPS) and "--alone" not in text


def test_an_unknown_step_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no step nothing; there are machine, kernels, boosters"):
        on_gpu.main(["--out", str(tmp_path / "lines.jsonl"), "--steps", "nothing"])


@pytest.mark.parametrize("way", ["zeros", "set", "plain", "predict"])
def test_on_a_cpu_rounds_on_matrices_in_turn_are_right_in_every_way(way):
    place = boosters.Place("cpu")
    assert boosters.turns(place, 0.02, "15000", "45000", "0/0.1", "depth 4", "2", way) == {
        "rounds_unlike_a_fresh_booster": []
    }


def test_the_ways_that_are_known_to_be_wrong_come_last():
    names = [case[0] for case in boosters.cases()]
    ways = [case[-1] for case in boosters.cases() if case[0] == "turns"]
    assert ways == ["zeros"] * 7 + ["set"] * 7 + ["plain"] * 7 + ["predict"] * 7
    assert names[:14] == ["turns"] * 14 == names[-14:] and set(names) == set(boosters.CASES)


def test_a_case_is_a_process_whose_end_is_a_line(monkeypatch):
    monkeypatch.setattr(boosters, "cases", lambda: [["reading"], ["turns", "1", "2", "0/0", "no growth", "2", "set"]])
    reading, wrong = boosters.measured("cpu", scale=0.01)
    assert "KeyError" in wrong["error"]
    assert reading["case"] == "reading" and reading["inplace_distance"] == 0 and reading["inplace_all_ms"] > 0


PYTEST = """
tests/a.py::test_one PASSED                                              [ 25%]
tests/a.py::test_two[a PASSED b] FAILED                                  [ 50%]
tests/a.py::test_three SKIPPED (no cuDF)                                 [ 75%]
tests/b.py::test_four ERROR                                              [100%]
==================================== ERRORS ====================================
________________________ ERROR collecting tests/c.py _________________________
=============================== warnings summary ===============================
tests/a.py::test_one
  /lib/cupy/launch.py:12: PerformanceWarning: few blocks
    launch()

========== 1 failed, 1 passed, 1 skipped, 1 warning, 2 errors in 3.10s =========
"""


def test_outcomes_of_tests_are_read_line_by_line():
    assert gpu_tests.outcomes(PYTEST, 1) == {
        "passed": 1, "failed": 1, "skipped": 1, "error_count": 1,
        "failures": ["tests/a.py::test_two[a PASSED b]", "tests/b.py::test_four", "tests/c.py"],
        "warnings": ["PerformanceWarning: few blocks"],
    }  # fmt: skip
    hung = gpu_tests.outcomes("tests/a.py::test_one PASSED\ntests/a.py::test_two ", "stopped after 9 s")
    assert hung["passed"] == 1 and hung["error"] == "pytest stopped after 9 s"
    assert hung["where"] == ["tests/a.py::test_one PASSED", "tests/a.py::test_two"]
    assert gpu_tests.outcomes("no tests ran", 5)["error"] == "pytest ended with exit code 5"


@pytest.mark.parametrize(("line", "wrong"), [
    ({"differ": 0, "equal": True}, False),
    ({"differ": 2}, True),
    ({"equal": False}, True),
    ({"failures": ["tests/a.py::test_two"], "passed": 9}, True),
    ({"failures": [], "passed": 9, "exit_code": 0}, False),
    ({"skipped": "torch is not installed"}, False),
    ({"case": "turns 1 zeros", "rounds_unlike_a_fresh_booster": [1]}, True),
    ({"case": "turns 1 plain", "rounds_unlike_a_fresh_booster": [1]}, False),
    ({"case": "turns 1 plain", "error": "ended by -6"}, False),
    ({"case": "reading", "error": "ended by -6"}, True),
    ({"before": 8, "with_tensor": 8, "with_array": 24, "bytes": 32}, True),
    ({"before": 8, "with_tensor": 24, "with_array": 40, "bytes": 32}, False),
])  # fmt: skip
def test_a_line_is_wrong_that_says_so(line, wrong):
    assert page.is_wrong(line) is wrong


def test_the_page_puts_what_is_wrong_first_and_escapes_texts(tmp_path, capsys):
    about = {"device": "GPU <1>", "cupy": "14", "time": "2026-11-30"}
    lines = [
        {"kind": "kernels", "kernel": "labels.label_cube", "differ": 0, "share": 0.5},
        {"kind": "kernels", "kernel": "program.run_program", "differ": 3, "share": 0.25},
        {"kind": "boosters", "case": "turns 1 plain", "rounds_unlike_a_fresh_booster": [1]},
        {"kind": "job", "error": "UserError: <file>"},
    ]
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join(json.dumps({**about, **line}) for line in lines))
    assert page.main([str(file), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "GPU &lt;1&gt;" in text and "<file>" not in text and "2 of them are wrong or failed" in text
    wrong, _, rest = text.partition("<h2>kernels</h2>")
    assert "program.run_program" in wrong and "label_cube" not in wrong and "width:40px" in rest
