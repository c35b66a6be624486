"""The GPU tests (`pytest -m gpu`) run on the stand-in, in one process of their own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from tests.support.gpu_tests import ROOT, files_with_gpu_tests
from tests.support.ptx import why_not

# A GPU needs CPython 3.12, as 3.11 gets XGBoost 3.2; Torch is installed on 3.11 alone, for the tests of networks.
OF_NETWORKS = sys.version_info < (3, 12)
pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(OF_NETWORKS and importlib.util.find_spec("torch") is None, reason="networks need Torch"),
]
AT_LEAST = 12 if OF_NETWORKS else 100  # tests that pass; those of cuDF are skipped, and without Torch those of networks


def test_the_gpu_tests_pass_on_the_stand_in():
    command = [
        sys.executable,
        "-m",
        "tests.support.stand_in",
        "pytest",
        "-q",
        "-rfE",
        "-m",
        "gpu",
        *files_with_gpu_tests(OF_NETWORKS),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= AT_LEAST, done.stdout[-300:]
