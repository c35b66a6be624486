"""Disks that are full or read-only, files that change or are altered: one clear line, exit code 2, the store whole."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from gpupipe.cli import guard
from gpupipe.runtime import memory
from tests.support.tiny import JOB

ROOT = pathlib.Path(__file__).parents[2]
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def why_no_mount(folder) -> str | None:
    """None if a file system can be mounted here, in a namespace of its own."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    tried = subprocess.run(command, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"nothing can be mounted here: {tried.stderr.strip()}"


def test_a_disk_that_is_full_or_read_only(tmp_path):
    """All in one process below one small file system; what happened is told in lines of JSON."""
    if problem := why_no_mount(tmp_path):
        pytest.skip(problem)
    job = [*JOB, "--models", "xgb_joint,linear,meta_learner"]
    command = [*NAMESPACE, sys.executable, "tests/support/failing_disks.py", str(tmp_path), *job]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    said = {name: (code, errors, found) for name, code, errors, found in map(json.loads, done.stdout.splitlines())}
    out, whole = tmp_path / "small/OUT", said["whole"][2]["contents"]
    assert len(said) == 11 and all(found["broken"] == [] for _, _, found in said.values())
    for name, (code, errors, found) in said.items():
        lines = [line for line in errors.splitlines() if not line.startswith("memory plan")]
        if name.startswith("full"):
            fix = "make room on that disk and give the same command again, which goes on where this one was"
            assert code == 2 and lines == [
                f"gpupipe: {out}: No space left on device: {fix}; or choose another --out"
            ], name  # fmt: skip
        elif name in ("read-only, other run", "read-only, new"):
            assert code == 2 and len(lines) == 1 and lines[0].startswith(f"gpupipe: {tmp_path}/small/"), (name, lines)
            assert lines[0].endswith("Read-only file system: make it writable, or choose another --out"), name
        else:
            assert (code, lines) == (0, []), name
            assert (found["contents"], found["unaccounted"]) == (whole, []), name
    assert said["full 262144"][2]["units"] > said["full 65536"][2]["units"] > said["full 0"][2]["units"] == 0


def test_what_the_system_refuses_names_the_fix():
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        assert "OUT: " in guard.of_system(OSError(number, os.strerror(number)), "OUT")
        assert "make room" in guard.of_system(OSError(number, os.strerror(number)), "OUT")
    for number in (errno.EROFS, errno.EACCES, errno.EPERM):
        text = guard.of_system(OSError(number, os.strerror(number), "OUT/file"), "OUT")
        assert text == f"OUT/file: {os.strerror(number)}: make it writable, or choose another --out"
    assert guard.of_system(OSError("something else"), "OUT") == "something else"


def test_space_is_taken_before_it_is_mapped(tmp_path, monkeypatch):
    """A page of a mapped file that cannot be written would end the process without a word."""

    def full(file, offset, n_bytes):
        raise OSError(errno.ENOSPC, f"asked for {n_bytes}")

    matrix = memory.matrix((3, 5), tmp_path)
    assert matrix.shape == (3, 5) and not matrix.any()
    memory.require_space(1 << 20, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="asked for 60"):
        memory.matrix((3, 5), tmp_path)
    with pytest.raises(OSError, match="asked for 9"):
        memory.require_space(9, tmp_path)
