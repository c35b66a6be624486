"""A run that is killed goes on and ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import pathlib
import subprocess
import sys

import pytest

from tests.support import kill
from tests.support.tiny import JOB

ROOT = pathlib.Path(__file__).parents[2]


def test_killed_while_training_and_while_publishing_it_ends_with_the_same_bytes(tmp_path, capsys):
    moments = ("--moment", "units=14", "--moment", "publishing=3", "--keep", str(tmp_path))
    command = [sys.executable, "-m", "tests.support.kill", *moments, "--", *JOB]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # The run killed while publishing takes the place of one with another seed, and says so; nothing else is said.
    warned = done.stderr.splitlines()
    assert len(warned) == 1 and warned[0].endswith("this run replaces it"), done.stderr
    first, training, publishing, last = done.stdout.splitlines()
    assert first.startswith("uninterrupted: ")
    assert training.startswith("units 14: killed, ") and training.endswith("; then identical")
    assert publishing.startswith("publishing 3: ") and publishing.endswith("; then identical")
    found = json.loads(last)
    assert found["as_expected"] == found["moments"] == 2 and found["killed"] >= 1
    # 3 families, each once on everything and once on each of 3 parts: pooled, in 3 sectors, and what these say of
    # validation and test, or of the part; and the stack.
    assert found["units"] == 3 * (4 * 4 + 3 * (2 + 3)) + 1
    assert found["files"] >= 3 * 2 * (4 + 1)  # 4 models and the metadata; a model may have two files
    # Given again, it goes on with what is there, which is all.
    assert kill.main([*moments, "--", *JOB]) == 0
    assert capsys.readouterr().out.splitlines() == [first, last]
    with pytest.raises(SystemExit, match="holds kills of another job or other code: remove it"):
        kill.main([*moments, "--", *JOB, "--seed", "1"])


def test_the_comparison_sees_what_differs(tmp_path):
    folder = tmp_path / "trained_5pct" / "energy" / "1d"
    folder.mkdir(parents=True)
    (folder / "linear.npz").write_bytes(b"model")
    (folder / "metadata.json").write_text('{"seconds": {"linear": 1.5}, "models": [{"seconds_sector": 2}], "rows": 3}')
    before = kill.contents(tmp_path)
    (folder / "metadata.json").write_text('{"rows": 3, "models": [{"seconds_sector": 9}], "seconds": {"linear": 1}}')
    assert kill.contents(tmp_path) == before and len(before) == 2
    (folder / "metadata.json").write_text('{"rows": 4, "models": [{"seconds_sector": 9}], "seconds": {"linear": 1}}')
    assert kill.contents(tmp_path) != before
    assert kill.broken_promises(tmp_path) == []  # nothing is promised yet
    good = hashlib.sha256(b"model").hexdigest()
    names = {"trained_5pct/energy/1d/linear.npz": good, "gone": good, "trained_5pct/energy/1d/metadata.json": good}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {name: {"sha256": v} for name, v in names.items()}}))
    assert kill.broken_promises(tmp_path) == ["gone", "trained_5pct/energy/1d/metadata.json"]
    assert kill.unaccounted(tmp_path) == []
    (folder / ".linear.npz.12.tmp").write_bytes(b"half")
    assert kill.unaccounted(tmp_path) == ["trained_5pct/energy/1d/.linear.npz.12.tmp"]


def test_moments_are_drawn_in_turn_and_again_the_same():
    drawn = kill.draw(6, seed=1, whole_s=10.0, units=40)
    assert [kind for kind, _ in drawn] == list(kill.KINDS) * 2 and drawn == kill.draw(6, 1, 10.0, 40)
    assert all(0 <= amount <= {"seconds": 10, "units": 40, "publishing": 400}[kind] for kind, amount in drawn)
    assert drawn != kill.draw(6, 2, 10.0, 40)
