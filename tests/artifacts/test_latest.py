"""OUT/latest: whole versions alone, replaced in one step, the last two kept."""

from __future__ import annotations

import os
import pathlib

import pytest

from gpupipe.artifacts import latest
from gpupipe.artifacts.latest import publish_latest
from gpupipe.store.content_store import StoreError

KEYS = [f"{k:064x}"[::-1] for k in range(1, 6)]


def versions(out):
    return sorted(path.name for path in (out / "versions").iterdir())


def test_the_link_is_relative_and_holds_all_files(tmp_path):
    contents = {"metadata.json": b"{}", "BTC/model.safetensors": b"abc", "BTC/history.parquet": b""}
    folder = publish_latest(tmp_path, KEYS[0], contents)
    assert folder == tmp_path / "versions" / KEYS[0][:12]
    assert os.readlink(tmp_path / "latest") == f"versions/{KEYS[0][:12]}"
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    read = {name: (moved / "latest" / name).read_bytes() for name in contents}
    assert read == contents


def test_the_last_two_versions_are_kept(tmp_path):
    for k, key in enumerate(KEYS):
        publish_latest(tmp_path, key, {"model.safetensors": bytes([k])})
        assert (tmp_path / "latest" / "model.safetensors").read_bytes() == bytes([k])
        assert versions(tmp_path) == sorted(key[:12] for key in KEYS[max(0, k - 1) : k + 1])
    publish_latest(tmp_path, KEYS[3], {"model.safetensors": b"again"})  # an earlier version, made again
    assert (tmp_path / "latest" / "model.safetensors").read_bytes() == b"again"
    assert versions(tmp_path) == sorted(key[:12] for key in KEYS[3:])


def test_a_version_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    publish_latest(tmp_path, KEYS[0], {"model.safetensors": b"old"})

    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(latest, "write_atomic", full)
        with pytest.raises(OSError, match="No space"):
            publish_latest(tmp_path, KEYS[1], {"model.safetensors": b"new"})
    assert (tmp_path / "latest" / "model.safetensors").read_bytes() == b"old" and versions(tmp_path) == [KEYS[0][:12]]
    with monkeypatch.context() as patched:  # killed before the link is replaced: the old one still stands
        patched.setattr(latest.os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            publish_latest(tmp_path, KEYS[2], {"model.safetensors": b"new"})
    assert (tmp_path / "latest" / "model.safetensors").read_bytes() == b"old"


def test_leftovers_of_killed_runs_go(tmp_path):
    left = tmp_path / "versions" / ".0123.99999"
    left.mkdir(parents=True)
    publish_latest(tmp_path, KEYS[0], {"a": b""})
    assert versions(tmp_path) == [KEYS[0][:12]]


def test_what_is_refused(tmp_path):
    for name in ("../outside", "/etc/outside", "."):
        with pytest.raises(ValueError, match="no path inside of a folder"):
            publish_latest(tmp_path, KEYS[0], {name: b"x"})
    with pytest.raises(ValueError, match="a version needs a file"):
        publish_latest(tmp_path, KEYS[0], {})
    assert not (tmp_path.parent / "outside").exists() and not pathlib.Path("/etc/outside").exists()
    (tmp_path / "latest").mkdir()
    with pytest.raises(StoreError, match="is no link"):
        publish_latest(tmp_path, KEYS[0], {"a": b""})
