"""Compiled kernels: a stage where some have to be compiled, and an event in the log of the run."""

from __future__ import annotations

import dataclasses

import pytest

from gpupipe.kernels import ahead, gpu_launch, notice
from gpupipe.kernels.notice import Made
from gpupipe.pipeline.kernels_ready import ready
from gpupipe.pipeline.listener import Listener
from gpupipe.runtime import run_log
from gpupipe.runtime.device import Device, pick

NAMES = ("labels.label_cube", "program.run_program")
CPU = pick("cpu")


@dataclasses.dataclass
class Building:
    """What `ahead.begin` returns."""

    missing: tuple[str, ...] = ()
    kept: bool = True
    compiled: list[Made] = dataclasses.field(default_factory=list)
    processes: int = 0
    waited_s: float = 0.0

    def wait(self) -> float:
        """Nothing to wait for."""
        return self.waited_s


@pytest.fixture
def outcome(monkeypatch, tmp_path):
    """A function: stages, the event and the warnings of a run whose kernels were built so, and what it asked for."""

    def run(building: Building, made=(), device=CPU):
        asked, stages = [], []
        monkeypatch.setattr(
            ahead, "begin", lambda names, architecture: asked.append((*names, architecture)) or building
        )
        monkeypatch.setattr(notice, "made", [])
        with run_log.opened(tmp_path), ready(NAMES, device, Listener(stage=stages.append)):
            notice.made.extend(made)
        events = run_log.read(tmp_path / run_log.FILE)
        (event,) = [event for event in events if event["event"] == "kernels"]
        assert notice.made == []
        ignored = ("time", "run", "event", "thread", "memory_bytes", "memory_peak_bytes")
        facts = {name: value for name, value in event.items() if name not in ignored}
        return stages, facts, [event["text"] for event in events if event["event"] == "warning"], asked

    return run


def test_compiling_is_a_stage_and_the_log_counts_what_was_compiled(outcome):
    elsewhere = [Made("labels.label_cube", 7.0, False), Made("program.run_program", 8.0, False)]
    building = Building(NAMES, compiled=elsewhere, processes=2, waited_s=5.5)
    found = [Made("labels.label_cube", 0.1, True), Made("linear.linear_margin", 0.1, True)]
    stages, event, warnings, asked = outcome(building, [*found, Made("trees.leaves_of_trees", 1.5, False)])
    assert stages == ["compiling kernels, once (2)"] and asked == [(*NAMES, None)] and warnings == []
    assert event == {
        "seconds": 7.0, "compiled": 3, "loaded": 1, "compile_seconds": 16.5, "processes": 2, "kept": True,
        "names": ["labels.label_cube", "program.run_program", "trees.leaves_of_trees"],
    }  # fmt: skip
    assert (building.missing, building.compiled) == ((), [])  # not said again by the next run of this process


def test_a_later_run_compiles_nothing_and_says_nothing(outcome):
    stages, event, _, _ = outcome(Building(), [Made(name, 0.2, True) for name in NAMES])
    assert stages == [] and event == {"seconds": 0.0, "compiled": 0, "loaded": 2, "kept": True}


def test_a_warning_says_how_compiled_kernels_can_be_kept(outcome):
    stages, event, warnings, _ = outcome(Building(NAMES, kept=False), [Made(name, 6.0, False) for name in NAMES])
    assert stages == ["compiling kernels, once (2)"] and event["kept"] is False and event["seconds"] == 12.0
    assert len(warnings) == 1 and "NUMBA_CACHE_DIR" in warnings[0]


def test_on_cuda_loops_and_the_code_of_the_architecture_are_asked_for(outcome, monkeypatch):
    monkeypatch.setattr(gpu_launch, "capability", lambda: (12, 1))
    assert outcome(Building(), device=Device("cuda", "GPU", "for the test"))[3] == [(*NAMES, (12, 0))]
