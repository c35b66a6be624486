"""Kernels compiled ahead: who compiles what, that a first call waits for it, and what happens where nobody can."""

from __future__ import annotations

import dataclasses
import io
import json
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from gpupipe.kernels import ahead
from gpupipe.kernels import compile as compiler
from gpupipe.kernels.ahead import Ahead
from gpupipe.kernels.compile import Kernel, kernel
from gpupipe.kernels.notice import Made

# What a compiling process answers, without a compiler: it takes a moment for each name.
ANSWERS = """
import json, sys, time
for line in sys.stdin:
    time.sleep(0.02)
    print(json.dumps({"name": line.strip(), "seconds": 0.02, "loaded": False}), flush=True)
"""
REFUSES_THE_FIRST = """
import json, sys
for k, line in enumerate(sys.stdin):
    answer = {"name": line.strip(), "seconds": 0.02, "loaded": False} if k else None
    print(json.dumps(answer), flush=True)
"""
ENDS_AT_ONCE = "import sys; sys.stdin.readline()"


@dataclasses.dataclass(frozen=True)
class Item:
    """What `Ahead` asks of what is wanted; it is its own kernel."""

    name: str
    definition: str
    kept: bool | None = False
    architecture: tuple[int, int] | None = None

    @property
    def kernel(self):
        """Whose definition counts."""
        return self


@dataclasses.dataclass(frozen=True)
class Known:
    """What `ahead.begin` asks of a kernel."""

    full_name: str
    definition: str = "x"
    kept: bool = False


ITEMS = [Item("a.short", "x"), Item("a.longest", "x" * 30), Item("b.there", "x" * 50, True), Item("b.long", "x" * 20)]


@pytest.fixture
def answering(monkeypatch):
    """A function that sets the script of the compiling processes; returns the processes that were started."""

    def answer(script: str) -> list[subprocess.Popen]:
        started = []

        def process():
            command = [sys.executable, "-S", "-c", script]
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            return started[-1]

        monkeypatch.setattr(ahead, "_compiler", process)
        return started

    return answer


@pytest.mark.parametrize(("processes", "expected"), [(1, 1), (2, 2), (8, 3)])
def test_missing_kernels_are_compiled_the_longest_first(processes, expected, answering):
    started = answering(ANSWERS)
    building = Ahead(ITEMS, processes)
    assert building.missing == ("a.longest", "b.long", "a.short") and building.kept
    assert building.processes == expected
    assert building.wait() > 0 and len(started) == expected
    assert {item.name for item in building.compiled} == set(building.missing)
    if processes == 1:
        assert building.compiled == [Made(name, 0.02, False) for name in building.missing]
    assert not compiler.awaited and all(process.returncode == 0 for process in started)


def test_what_a_process_could_not_compile_is_left_to_the_first_call(answering):
    started = answering(ENDS_AT_ONCE)
    building = Ahead(ITEMS, 2)
    building.wait()
    assert len(started) == 2 and building.compiled == [] and not compiler.awaited


@pytest.mark.parametrize("kept", [True, None])
def test_no_process_is_started_where_nothing_is_missing_or_nothing_can_be_kept(kept, answering):
    started = answering(ANSWERS)
    building = Ahead([Item("a.b", "x", kept)], 2)
    assert (building.wait(), building.kept, started) == (0.0, kept is True, [])
    assert building.missing == (() if kept else ("a.b",))


@kernel(types=("f4[:]",))
def cleared(i, x):
    """x = 0."""
    x[i] = np.float32(0)


def test_the_first_call_waits_for_the_process_that_compiles_the_kernel(monkeypatch):
    waiting, done = threading.Event(), threading.Event()
    monkeypatch.setitem(compiler.awaited, "test_ahead.cleared", waiting)
    item = Kernel(cleared.body, types=cleared.types)
    thread = threading.Thread(target=lambda: (item.cpu, done.set()))
    thread.start()
    assert not done.wait(0.1)
    waiting.set()
    thread.join(60)
    assert done.is_set()


def test_a_compiling_process_answers_a_line_for_each_name_and_ends_with_its_input(monkeypatch, capsys):
    """The end of the input ends the process, here the test's stand-in for it."""
    ended = threading.Event()

    class Lines(io.StringIO):
        """Ends once the answer is there, as the process that asks does."""

        def __next__(self):
            if not self.tell():
                return super().__next__()
            while not (printed := capsys.readouterr().out):
                ended.wait(0.01)
            answers.append(printed)
            raise StopIteration

    answers: list[str] = []
    queued = ahead.queue.SimpleQueue()
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(ahead.queue, "SimpleQueue", lambda: queued)
    item = Kernel(cleared.body, types=cleared.types)  # not yet compiled in this process
    monkeypatch.setattr(ahead, "all_kernels", lambda: [item])
    monkeypatch.setattr(sys, "stdin", Lines(f"{item.full_name}\n"))
    monkeypatch.setattr(ahead.os, "_exit", lambda code: (ended.set(), queued.put("the-end")))
    with pytest.raises(KeyError, match="the-end"):
        ahead.main()
    assert ended.is_set() and Made(**json.loads(answers[0])).name == item.full_name


def test_what_cannot_be_compiled_leaves_the_rest_to_its_process(answering):
    started = answering(REFUSES_THE_FIRST)
    building = Ahead(ITEMS, 1)
    building.wait()
    assert len(started) == 1 and [item.name for item in building.compiled] == list(building.missing[1:])
    assert not compiler.awaited


def test_the_same_names_are_begun_once_and_unknown_names_are_refused(answering, monkeypatch):
    monkeypatch.setattr(ahead, "_begun", {})
    kernels = [Known("a.short"), Known("b.there", kept=True)]
    monkeypatch.setattr(ahead, "all_kernels", lambda: kernels)
    started = answering(ANSWERS)
    building = ahead.begin(["a.short", "b.there"], processes=2)
    assert ahead.begin(["b.there", "a.short", "a.short"]) is building
    building.wait()
    assert len(started) == 1 and building.missing == ("a.short",)
    with pytest.raises(KeyError, match=r"no\.such"):
        ahead.begin(["no.such"])


def test_on_a_gpu_the_loop_and_the_code_of_its_architecture_are_compiled(answering, monkeypatch):
    monkeypatch.setattr(ahead, "_begun", {})
    monkeypatch.setattr(ahead, "all_kernels", lambda: [Known("a.short"), Known("b.there", kept=True)])
    monkeypatch.setattr(ahead.gpu_code, "available", lambda kernel, architecture: kernel.full_name == "a.short")
    answering(ANSWERS)
    building = ahead.begin(["a.short", "b.there"], processes=1, architecture=(9, 0))
    assert building.missing == ("b.there sm_90", "a.short")  # GPU code takes longer, so it goes first
    building.wait()
    assert not compiler.awaited and {item.name for item in building.compiled} == set(building.missing)
