"""Told to stop, a run ends at once with one line and the exit code of the signal, and the same command goes on."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from gpupipe.cli import run
from gpupipe.runtime import run_log
from gpupipe.runtime.task_graph import Costs, Task, run_graph
from tests.support import kill
from tests.support.tiny import JOB

ROOT = pathlib.Path(__file__).parents[2]
LONGEST_S = 120.0


def heed_interrupts():
    """In the child: signals count, also where this process was started in the background or by nohup."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(*command):
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip


def units_made(out):
    log = out / run_log.FILE
    return [one for one in run_log.read(log) if one["event"] == "unit" and not one["reused"]] if log.exists() else []


def test_stopped_twice_it_ends_with_the_same_bytes(tmp_path, capsys):
    out, whole = tmp_path / "OUT", tmp_path / "whole"
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")):
        before, began = len(units_made(out)), time.monotonic()
        process = start("-m", "gpupipe.run", *JOB, "--quiet", "--out", str(out))
        while len(units_made(out)) < before + 3 and process.poll() is None and time.monotonic() - began < LONGEST_S:
            time.sleep(0.005)
        process.send_signal(number)
        told = time.monotonic()
        printed, errors = process.communicate(timeout=LONGEST_S)
        assert process.returncode == 128 + number and printed == "", (name, errors)
        assert time.monotonic() - told < 5, name
        lines = errors.strip().splitlines()
        assert lines == [f"gpupipe: stopped; the same command goes on where this one was ({out})"], name
        last = run_log.read(out / run_log.FILE)[-1]
        assert (last["event"], last["status"]) == ("end", "interrupted"), name
        assert kill.broken_promises(out) == [] and not (out / "manifest.json").exists(), name
    made = len(units_made(out))
    assert 6 <= made < 48
    assert run.main([*JOB, "--quiet", "--out", str(out)]) == 0
    names = [unit["unit"] for unit in units_made(out)]
    # Nothing was done twice. A thread that was stopped between keeping a result and its line in the log leaves none.
    assert len({*names}) == len(names) and 49 - 2 * 2 <= len(names) <= 49
    assert run.main([*JOB, "--quiet", "--out", str(whole)]) == 0
    assert kill.contents(out) == kill.contents(whole) and kill.unaccounted(out) == []
    assert capsys.readouterr() == ("", "")


# The main thread is inside a library, where no Python handler can run.
DEAF = """
import hashlib, sys
from gpupipe.runtime import interrupts
interrupts.PATIENCE_S = float(sys.argv[1])
with interrupts.stoppable("stopped"):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


@pytest.mark.parametrize(("patience", "signals"), [("60", ["SIGINT", "SIGINT"]), ("60", ["SIGINT", "SIGTERM"]),
                                                   ("0.3", ["SIGHUP"])])  # fmt: skip
def test_a_second_signal_ends_it_at_once_and_one_is_enough_in_the_end(patience, signals):
    process = start("-c", DEAF, patience)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    began = time.monotonic()
    for name in signals:
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 128 + getattr(signal, signals[-1]) and errors.strip() == "stopped"
    assert time.monotonic() - began < 5


def test_what_is_ignored_stays_ignored_and_handlers_come_back():
    code = """
import os, signal
from gpupipe.runtime import interrupts
signal.signal(signal.SIGHUP, signal.SIG_IGN)
before = [signal.getsignal(number) for number in interrupts.SIGNALS]
with interrupts.stoppable("stopped"):
    os.kill(os.getpid(), signal.SIGHUP)
assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before
try:
    with interrupts.stoppable("stopped"):
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            pass
except interrupts.Stopped as stopped:
    assert stopped.exit_code == 143
assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before
assert signal.set_wakeup_fd(-1) == -1
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_threads_take_no_more_tasks_once_the_main_thread_was_interrupted(monkeypatch):
    """What is at work ends; they would else go on in the background to the last task, without the lock."""
    from gpupipe.runtime import task_graph

    begun, go_on, done = threading.Event(), threading.Event(), []
    real = task_graph.in_parallel

    def interrupted(calls, jobs):
        for call in calls:
            threading.Thread(target=call, daemon=True).start()
        begun.wait(20)
        raise KeyboardInterrupt

    def work(worker):
        begun.set()
        go_on.wait(20)
        done.append(1)

    monkeypatch.setattr(task_graph, "in_parallel", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_graph([Task("a", 1, work) for _ in range(50)], Costs(), 2)
    go_on.set()
    time.sleep(0.3)
    assert len(done) <= 2
    assert task_graph.in_parallel is not real
