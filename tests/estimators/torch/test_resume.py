"""A training that was interrupted at any moment ends in the bytes of one that was not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch", reason="networks need Torch")
pytest.importorskip("safetensors", reason="checkpoints need safetensors, which comes with the extra torch")

from gpupipe.estimators.torch.checkpoint import Checkpoint  # noqa: E402
from gpupipe.estimators.torch.network import arrays_of  # noqa: E402
from gpupipe.estimators.torch.plan import TrainingPlan  # noqa: E402
from gpupipe.estimators.torch.training import train  # noqa: E402
from gpupipe.store.content_store import sha256  # noqa: E402
from tests.support.training_problem import LOSSES, network_of, problem  # noqa: E402

PLAN = TrainingPlan(epochs=12, rate=0.02, rows_of_step=200, patience=12, seed=2, epoch_rows=400)


class StopHereError(Exception):
    """What stops a training in these tests."""


def run(checkpoint=None, stop_after=None, plan=PLAN, validation=True, said=False):
    """(SHA-256 of the weights, history) of a training.

    stop_after: the epoch after which it is interrupted.  said: whether epochs are printed as they end.
    """

    def epoch_done(result):
        if said:
            print("epoch", result.epoch, flush=True)
        if result.epoch == stop_after:
            raise StopHereError

    network = network_of()
    judges = problem(300, seed=1) if validation else (None, None)
    result = train(network, *problem(500), *judges, LOSSES, plan, checkpoint, epoch_done)
    weights = b"".join(array.tobytes() for array in arrays_of(network).values())
    return sha256(weights), [epoch.row for epoch in result.history]


@pytest.fixture(scope="module")
def expected():
    return run()


@pytest.mark.parametrize("epoch", [1, 3, 11, 12])
def test_after_an_interruption_the_bytes_are_those_of_one_training(epoch, expected, tmp_path):
    checkpoint = Checkpoint(tmp_path, "key")
    with pytest.raises(StopHereError):
        run(checkpoint, stop_after=epoch)
    assert checkpoint.load()[0] == epoch
    assert run(checkpoint) == expected
    assert run(checkpoint) == expected  # a training that had ended


def test_an_interruption_in_each_epoch(expected, tmp_path):
    checkpoint = Checkpoint(tmp_path, "key")
    for epoch in range(1, 12):
        with pytest.raises(StopHereError):
            run(checkpoint, stop_after=epoch)
    assert run(checkpoint) == expected


def test_rates_given_in_advance_and_heads_alone_are_gone_on_with(tmp_path):
    plan = TrainingPlan(4, 0.02, 200, rates=(0.02, 0.02, 0.01, 0.01), heads_only=True)
    checkpoint = Checkpoint(tmp_path, "key")
    with pytest.raises(StopHereError):
        run(checkpoint, 2, plan, validation=False)
    assert run(checkpoint, plan=plan, validation=False) == run(plan=plan, validation=False)


def test_a_checkpoint_of_another_training_is_replaced(expected, tmp_path, caplog):
    with pytest.raises(StopHereError):
        run(Checkpoint(tmp_path, "other"), stop_after=3, plan=TrainingPlan(epochs=6, rate=0.1, rows_of_step=100))
    assert run(Checkpoint(tmp_path, "key")) == expected and "it is ignored" in caplog.text


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_file_that_is_cut_costs_an_epoch_at_most(suffix, expected, tmp_path):
    checkpoint = Checkpoint(tmp_path, "key")
    with pytest.raises(StopHereError):
        run(checkpoint, stop_after=4)
    stored = {path: path.read_bytes() for path in tmp_path.iterdir()}
    cut = tmp_path / f"checkpoint_even.{suffix}"
    size = len(stored[cut])
    for length in (0, 1, 7, 8, 9, size // 3, size // 2, size - 2, size - 1):
        for path, content in stored.items():
            path.write_bytes(content)
        cut.write_bytes(stored[cut][:length])
        assert checkpoint.load()[0] == 3
        assert run(checkpoint) == expected


def test_all_files_cut_in_half_start_anew(expected, tmp_path, caplog):
    checkpoint = Checkpoint(tmp_path, "key")
    with pytest.raises(StopHereError):
        run(checkpoint, stop_after=4)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run(checkpoint) == expected and "damaged" in caplog.text


TRAIN = """
import json, pathlib, sys
from gpupipe.estimators.torch.checkpoint import Checkpoint
from tests.estimators.torch import test_resume

print(json.dumps(test_resume.run(Checkpoint(pathlib.Path(sys.argv[1]), "key"), said=True)), flush=True)
"""


@pytest.mark.parametrize("delays_ms", [(0, 4), (8, 13)], ids=str)
def test_a_training_that_is_killed_ends_in_the_same_bytes(delays_ms, expected, tmp_path):
    """SIGKILL some milliseconds after the second and the fourth of twelve epochs of some milliseconds each."""
    command = [sys.executable, "-c", TRAIN, tmp_path]
    for epoch, delay_ms in zip((2, 4), delays_ms, strict=True):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert any(line == f"epoch {epoch}\n" for line in iter(process.stdout.readline, ""))
            time.sleep(delay_ms / 1000)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert Checkpoint(tmp_path, "key").load()[0] >= epoch
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    digest, history = json.loads(done.stdout.splitlines()[-1])
    assert (digest, history) == expected
