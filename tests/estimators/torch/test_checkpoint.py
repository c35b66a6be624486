"""Checkpoint: two files a slot that agree, slots in turn, and nothing damaged that is ever used."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="checkpoints need safetensors, which comes with the extra torch")

from gpupipe.estimators.torch.checkpoint import Checkpoint


def arrays_of(epoch) -> dict[str, np.ndarray]:
    return {"weights": np.full((3, 4), epoch, np.float32), "step": np.array(epoch, np.float32)}


@pytest.fixture
def saved(tmp_path):
    """Three epochs, of which the last two are stored."""
    checkpoint = Checkpoint(tmp_path / "checkpoint", "key")
    for epoch in (1, 2, 3):
        checkpoint.save(epoch, arrays_of(epoch), {"rate": epoch / 7, "history": [0.1] * epoch})
    return checkpoint


def assert_loads(checkpoint, epoch):
    got, arrays, record = checkpoint.load()
    assert got == epoch and record == {"rate": epoch / 7, "history": [0.1] * epoch}
    for name, array in arrays_of(epoch).items():
        assert arrays[name].dtype == array.dtype and arrays[name].tobytes() == array.tobytes()


def test_the_last_epoch_is_loaded(saved, caplog):
    assert_loads(saved, 3)
    assert not caplog.records


def test_nothing_stored_is_nothing_to_load(tmp_path, caplog):
    assert Checkpoint(tmp_path / "none", "key").load() is None and not caplog.records


def test_another_key_is_ignored_with_a_warning(saved, caplog):
    assert Checkpoint(saved.folder, "other").load() is None
    assert "other data, settings or versions" in caplog.text


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_files_cut_at_any_length_leave_the_epoch_before(saved, suffix, caplog):
    file = saved.folder / f"checkpoint_odd.{suffix}"
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with caplog.at_level(logging.WARNING):
            assert_loads(saved, 2)
        assert "damaged" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_changed_byte_is_noticed(saved, suffix):
    file = saved.folder / f"checkpoint_odd.{suffix}"
    content = bytearray(file.read_bytes())
    for k in range(0, len(content), 7):
        content[k] ^= 1
        file.write_bytes(content)
        assert_loads(saved, 2)
        content[k] ^= 1


@pytest.mark.parametrize("missing", ["checkpoint_odd.safetensors", "checkpoint_odd.json"])
def test_a_kill_between_the_two_files_leaves_the_epoch_before(saved, missing):
    (saved.folder / missing).unlink()
    assert_loads(saved, 2)


def test_arrays_of_a_later_epoch_with_an_earlier_record_are_not_used(saved):
    """A kill after the arrays of epoch 4 and before its record: epoch 3 stands, epoch 2 is gone."""
    newer = Checkpoint(saved.folder, "key")
    record = (saved.folder / "checkpoint_even.json").read_bytes()
    newer.save(4, arrays_of(4), {})
    (saved.folder / "checkpoint_even.json").write_bytes(record)
    assert_loads(saved, 3)


def test_both_slots_damaged_is_nothing_to_load(saved, caplog):
    for file in saved.folder.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert saved.load() is None and len(caplog.records) == 2


@pytest.mark.parametrize("content", ["null", "[]", '"text"', "{}", json.dumps({"seal": "x", "key": "key"})])
def test_json_that_is_no_record_is_ignored(saved, content):
    (saved.folder / "checkpoint_odd.json").write_text(content)
    assert_loads(saved, 2)


def test_removed_files_are_gone_and_others_stay(saved):
    (saved.folder / "other").write_text("x")
    (saved.folder / ".checkpoint_odd.json.1.2.tmp").write_text("x")
    saved.remove()
    assert [file.name for file in saved.folder.iterdir()] == ["other"]
    (saved.folder / "other").unlink()
    saved.remove()
    assert not saved.folder.exists() and saved.load() is None
    saved.remove()
