"""A run with the family sequence that is killed while a network is trained goes on and ends in the same bytes."""

from __future__ import annotations

import json
import logging
import time

import pytest

from bench import runs
from gpupipe.pipeline.listener import Listener
from gpupipe.workloads import equity
from tests.support import kill, tiny
from tests.support.tiny import QUICK, SECTORS, SOURCE, tiny_market

pytest.importorskip("torch", reason="the family sequence trains with Torch")

SETTINGS = (
    *QUICK, "sequence.network=fast", "sequence.length=12", "sequence.epochs=8", "sequence.patience=8",
    "sequence.step_rows=256", "labels.horizons=1", "labels.thresholds=0.02", "split.parts=2",
)  # fmt: skip
MODELS = "linear,sequence,meta_learner"
OPTIONS = [
    "--data", SOURCE, "--sectors", ",".join(SECTORS), "--preset", "fast", "--jobs", "2", "--models", MODELS,
    *(f"--set={setting}" for setting in SETTINGS),
]  # fmt: skip


def job(out, listener=None, jobs=1):
    chosen = equity.make("fast", settings=[*SETTINGS, f"training.models={MODELS}"])
    return tiny.execute(tiny_market(), None, chosen, out, jobs, listener)


def epochs_kept(out):
    """Epochs of the newest checkpoint in each folder of checkpoints."""
    found = {}
    try:
        paths = list(out.glob(".gpupipe/checkpoints/*/checkpoint_*.json"))
    except FileNotFoundError:  # a folder was removed while it was searched
        return found
    for path in paths:
        try:
            epoch = json.loads(path.read_bytes())["epoch"]
        except (OSError, ValueError):  # removed or replaced at this moment
            continue
        found[path.parent.name] = max(epoch, found.get(path.parent.name, 0))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The published files of a run that nobody killed."""
    out = tmp_path_factory.mktemp("whole") / "OUT"
    assert job(out)[1]
    assert kill.unaccounted(out) == [] and not (out / ".gpupipe/checkpoints").exists()
    return out, kill.contents(out)


class EndedError(Exception):
    """Stands for a signal that ends a run."""


def dying_after(texts, n):
    """A listener that ends the run when it hears of epoch n of a network; texts: what it heard."""

    def detail(text):
        texts.append(text)
        if len(texts) == n:
            raise EndedError

    return Listener(detail=detail)


def begun(out, n=6):
    """A run in OUT that ended in epoch n of the first network."""
    with pytest.raises(EndedError):
        job(out, dying_after([], n))
    assert list(epochs_kept(out).values()) == [n]


def test_it_goes_on_after_the_epoch_that_was_kept_last(whole, tmp_path, monkeypatch):
    from gpupipe.estimators.torch import training

    out, epochs = tmp_path / "OUT", []
    begun(out)
    real = training._Loop.run_epoch
    monkeypatch.setattr(training._Loop, "run_epoch", lambda loop, p: epochs.append(p.epoch + 1) or real(loop, p))
    job(out)
    assert epochs[:3] == [7, 8, 1], "two epochs of the first network, then the next network"
    assert kill.contents(out) == whole[1] and kill.unaccounted(out) == []


@pytest.mark.parametrize("damage", ["arrays", "record"])
def test_a_checkpoint_cut_in_half_is_ignored_with_one_warning(whole, tmp_path, caplog, damage):
    out = tmp_path / "OUT"
    begun(out)
    suffix = {"arrays": "safetensors", "record": "json"}[damage]
    (newest,) = out.glob(f".gpupipe/checkpoints/*/checkpoint_even.{suffix}")
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    with caplog.at_level(logging.WARNING, "gpupipe"):
        job(out)
    assert [record.getMessage().count("is damaged") for record in caplog.records] == [1]
    assert kill.contents(out) == whole[1] and kill.unaccounted(out) == []


def test_checkpoints_of_other_settings_are_not_used_and_do_not_stay(whole, tmp_path):
    out = tmp_path / "OUT"
    chosen = equity.make("fast", settings=[*SETTINGS, f"training.models={MODELS}", "sequence.rate=0.001"])
    with pytest.raises(EndedError):
        tiny.execute(tiny_market(), None, chosen, out, 1, dying_after([], 3))
    assert epochs_kept(out)
    job(out)
    assert kill.contents(out) == whole[1] and kill.unaccounted(out) == []


def test_killed_at_any_moment_it_ends_in_the_same_bytes(whole, tmp_path):
    """SIGKILL, again and again: in the first network's first and later epochs, and in those of out-of-fold parts."""
    out, order, killed = tmp_path / "OUT", [], 0
    for network, epoch in ((0, 1), (0, 5), (1, 3), (2, 4)):
        process, end = kill.start(OPTIONS, out), time.monotonic() + 120
        try:
            while process.poll() is None and time.monotonic() < end:
                kept = epochs_kept(out)
                order += [folder for folder in kept if folder not in order]
                if len(order) > network and kept.get(order[network], 0) >= epoch:
                    break
                time.sleep(0.0005)
        finally:
            process.kill()
            killed += process.wait() != 0
        assert kill.broken_promises(out) == [] and kill.broken_store(out) == []
    assert killed and order  # a busy machine may end a run between two looks
    runs.run_job(OPTIONS, out)
    assert kill.contents(out) == whole[1]
    assert kill.unaccounted(out) == [] and not (out / ".gpupipe/checkpoints").exists()
