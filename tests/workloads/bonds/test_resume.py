"""A run of bonds that was killed, damaged or stopped goes on by the same command, and ends in the same bytes."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("optuna")

from gpupipe.cli import main
from tests.support import kill
from tests.support.bond_run import MARKET, OPTIONS

MORE = ("--set=search.trials=8", "--jobs", "2", "--device", "cpu", "--skip-plots", "--quiet")
LONGEST_S = 120.0


def arguments(out):
    return ["bonds", *MARKET, *OPTIONS, *MORE, "--out", str(out)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """What `kill.outcome` finds of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("resume") / "OUT"
    assert main.main(arguments(out)) == 0
    return kill.outcome(out)


def steps_done(out):
    units = (out / ".gpupipe" / "units").glob("*.json")
    return {json.loads(unit.read_bytes())["name"].removeprefix("bonds//") for unit in units}


def trials(out):
    """The numbers of finished trials of the searches that are under way."""
    kept = sorted((out / ".gpupipe" / "checkpoints").rglob("trials.json"))
    return [len(json.loads(path.read_bytes())["trials"]) for path in kept]


def stopped_at(has_come, out, number):
    """Send a signal to a run at a moment: its exit code and what it printed to standard error."""
    command = [sys.executable, "-m", "gpupipe.cli", *arguments(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    began, came = time.perf_counter(), False
    while not came and process.poll() is None and time.perf_counter() - began < LONGEST_S:
        with contextlib.suppress(OSError, ValueError):  # a file that is just written, or removed
            came = has_come(out)
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate(timeout=LONGEST_S)
    assert came, errors
    return process.returncode, errors


MOMENTS = {
    "a search": lambda out: max(trials(out), default=0) >= 3 and "bayesian" not in steps_done(out),
    "the last search": lambda out: "drift" in steps_done(out) and max(trials(out), default=0) >= 2,
    "publishing": lambda out: (out / "bonds").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(tmp_path, finished, moment):
    out = tmp_path / "OUT"
    code, _ = stopped_at(MOMENTS[moment], out, signal.SIGKILL)
    assert code == -signal.SIGKILL and not kill.broken_promises(out) and not kill.broken_store(out)
    done = len(steps_done(out))
    assert main.main(arguments(out)) == 0
    assert kill.outcome(out) == finished
    units = json.loads((out / "summary.json").read_bytes())["units"]["step"]
    assert units == {"made": 13 - done, "reused": done}
    assert not kill.unaccounted(out) and not list((out / ".gpupipe" / "checkpoints").glob("*"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """OUT of a run that was killed in a search."""
    out = tmp_path_factory.mktemp("killed") / "OUT"
    assert stopped_at(MOMENTS["a search"], out, signal.SIGKILL)[0] == -signal.SIGKILL
    return out


def test_a_search_goes_on_where_it_was(tmp_path, finished, killed, monkeypatch):
    from gpupipe.workloads.bonds import studies

    added, kept = [], studies._Kept.trials

    def watched(self, study):
        found = kept(self, study)
        added.append(len(found))
        return found

    monkeypatch.setattr(studies._Kept, "trials", watched)
    out = shutil.copytree(killed, tmp_path / "OUT")
    assert main.main(arguments(out)) == 0
    assert max(added) >= 3 and kill.outcome(out) == finished


def test_kept_trials_that_are_cut_in_half_are_ignored_with_a_warning(tmp_path, finished, killed, caplog):
    out = shutil.copytree(killed, tmp_path / "OUT")
    for path in (out / ".gpupipe" / "checkpoints").rglob("trials.json"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING, "gpupipe"):
        assert main.main(arguments(out)) == 0
    assert any("is damaged; its trials are made again" in record.getMessage() for record in caplog.records)
    assert kill.outcome(out) == finished


def test_a_kept_result_that_is_cut_in_half_is_made_again(tmp_path, finished, killed):
    out = shutil.copytree(killed, tmp_path / "OUT")
    largest = max((out / ".gpupipe" / "objects").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    assert kill.broken_store(out)
    assert main.main(arguments(out)) == 0
    assert kill.outcome(out) == finished and not kill.broken_store(out)


def test_a_file_that_a_kill_left_half_published_is_removed(tmp_path, finished, killed):
    out = shutil.copytree(killed, tmp_path / "OUT")
    (out / "bonds" / "models").mkdir(parents=True)
    for name in (".signals.parquet.12.34.tmp", "models/.basic.forest.npz.17211.tmp"):
        (out / "bonds" / name).write_bytes(b"half")
    assert main.main(arguments(out)) == 0
    assert kill.outcome(out) == finished and not kill.unaccounted(out)


def test_ctrl_c_ends_with_one_line_and_the_same_command_goes_on(tmp_path, finished):
    out = tmp_path / "OUT"
    code, errors = stopped_at(MOMENTS["a search"], out, signal.SIGINT)
    lines = [line for line in errors.splitlines() if line]
    assert code in (130, -signal.SIGINT), errors
    assert lines == [f"gpupipe: stopped; the same command goes on where this one was ({out})"]
    assert main.main(arguments(out)) == 0
    assert kill.outcome(out) == finished
