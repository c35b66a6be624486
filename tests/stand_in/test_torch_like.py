"""The stand-in for Torch on CUDA, in a process of its own, as it changes Torch for good: see checks_of_torch.py."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from tests.support.ptx import why_not

pytest.importorskip("torch", reason="networks need Torch")
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
ROOT = pathlib.Path(__file__).parents[2]
CHECKS = "tests/stand_in/checks_of_torch.py"


def test_the_checks_of_torch_pass():
    command = [sys.executable, "-m", "tests.support.stand_in", "pytest", "-q", "-rfE", CHECKS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= 60, done.stdout[-300:]
