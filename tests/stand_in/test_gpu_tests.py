"""The GPU tests (`pytest -m gpu`) run on the stand-in, in one process of their own."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.gpu_tests import ROOT, files_with_gpu_tests
from tests.support.ptx import why_not

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="a GPU needs CPython 3.12: 3.11 gets XGBoost 3.2"),
]
AT_LEAST = 100  # tests that pass; those of networks and of cuDF are skipped


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
        *files_with_gpu_tests(),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= AT_LEAST, done.stdout[-300:]
