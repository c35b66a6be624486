"""A run that was killed, damaged or stopped goes on by the same command, and ends in the same bytes."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="policies are trained by Torch, which has no CPU build for this Python")

from gpupipe.cli import main
from tests.support import kill
from tests.support.agent_market import made_bars
from tests.support.agent_run import N_ROWS, OPTIONS, lasting

LONGER = ("--total-timesteps", "1920", "--min-timesteps", "1280", "--parallel-candidates", "2", "--eval-freq", "256")
LONGEST_S = 120.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(bars, what lasts of a run that nobody stopped)."""
    place = tmp_path_factory.mktemp("resume")
    panel = made_bars(N_ROWS)
    panel = panel.replace(time_ns=panel.time_ns + 1_700_000_100_000_000_000)
    pq.write_table(panel.to_arrow().drop_columns(["sector"]), place / "made.parquet")
    assert main.main(["agent", *arguments(place / "made.parquet", place / "OUT")]) == 0
    return place / "made.parquet", lasting(place / "OUT")


def arguments(bars, out):
    return [*OPTIONS, *LONGER, "--data", str(bars), "--out", str(out), "--quiet", "--jobs", "2", "--device", "cpu",
            "--skip-plots", "--skip-onnx"]  # fmt: skip


def started(bars, out):
    command = [sys.executable, "-m", "gpupipe.cli", "agent", *arguments(bars, out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def iterations_done(out):
    units = (out / ".gpupipe" / "units").glob("*.json")
    return sum(json.loads(unit.read_bytes())["name"].startswith("agent//iteration") for unit in units)


def checkpoints(out):
    return sorted((out / ".gpupipe" / "checkpoints").rglob("checkpoint_*.json"))


def until(has_come, process):
    """Wait for a moment of a process; False where it has ended before."""
    began = time.perf_counter()
    while time.perf_counter() - began < LONGEST_S:
        try:
            if has_come():
                return True
        except (OSError, ValueError):  # a file that is just written, or removed
            pass
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    raise AssertionError("the moment did not come")


def stopped_at(has_come, bars, out, number):
    process = started(bars, out)
    came = until(lambda: has_come(out), process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=LONGEST_S)
    assert came, errors
    return process.returncode, errors


MOMENTS = {
    "first checkpoint": lambda out: bool(checkpoints(out)),
    "second iteration": lambda out: iterations_done(out) == 1 and len(checkpoints(out)) == 4,
    "publishing": lambda out: iterations_done(out) == 3,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(tmp_path, finished, moment):
    bars, expected = finished
    out = tmp_path / "OUT"
    code, _ = stopped_at(MOMENTS[moment], bars, out, signal.SIGKILL)
    assert code == -signal.SIGKILL and not kill.broken_promises(out) and not kill.broken_store(out)
    done = iterations_done(out)
    assert main.main(["agent", *arguments(bars, out), "--resume"]) == 0
    assert lasting(out) == expected
    units = json.loads((out / "summary.json").read_bytes())["units"]["step"]
    assert units == {"made": 3 - done, "reused": done}
    left = [name for name in kill.unaccounted(out) if not name.startswith(("versions/", "latest/"))]
    assert not left and not list((out / ".gpupipe" / "checkpoints").glob("*"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory, finished):
    """OUT of a run that was killed in its first iteration, with several checkpoints."""
    out = tmp_path_factory.mktemp("killed") / "OUT"
    code, _ = stopped_at(lambda out: len(checkpoints(out)) == 4, finished[0], out, signal.SIGKILL)
    assert code == -signal.SIGKILL and iterations_done(out) == 0
    return out


def test_training_goes_on_where_it_was(tmp_path, finished, killed, monkeypatch):
    from gpupipe.estimators.torch import recurrent_ppo

    restored, update = [], recurrent_ppo.Trainer.restore

    def watched(self, state):
        update(self, state)
        restored.append(self.updates)

    monkeypatch.setattr(recurrent_ppo.Trainer, "restore", watched)
    out = shutil.copytree(killed, tmp_path / "OUT")
    assert main.main(["agent", *arguments(finished[0], out)]) == 0
    assert len(restored) == 2 and min(restored) >= 1
    assert lasting(out) == finished[1]


@pytest.mark.parametrize("ending", ["safetensors", "json"])
def test_a_checkpoint_that_is_cut_in_half_is_ignored_with_a_warning(tmp_path, finished, killed, caplog, ending):
    out = shutil.copytree(killed, tmp_path / "OUT")
    paths = [path.with_suffix(f".{ending}") for path in checkpoints(out)]
    for path in paths[:2]:  # all of the first candidate
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING, "gpupipe"):
        assert main.main(["agent", *arguments(finished[0], out)]) == 0
    assert sum("is damaged" in record.getMessage() for record in caplog.records) == 2
    assert lasting(out) == finished[1]


def test_ctrl_c_ends_with_one_line_and_the_same_command_goes_on(tmp_path, finished):
    bars, expected = finished
    out = tmp_path / "OUT"
    code, errors = stopped_at(MOMENTS["first checkpoint"], bars, out, signal.SIGINT)
    lines = [line for line in errors.splitlines() if line]
    assert code in (130, -signal.SIGINT), errors
    assert lines == [f"gpupipe: stopped; the same command goes on where this one was ({out})"]
    assert iterations_done(out) == 0
    assert main.main(["agent", *arguments(bars, out)]) == 0
    assert lasting(out) == expected
