"""How OpenMP threads wait: briefly, unless the user says otherwise, and before a library reads it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "1000 None"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
        ({"OMP_WAIT_POLICY": "active"}, "None active"),
    ],
)
def test_threads_wait_briefly_unless_the_user_says_otherwise(given, expected):
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | given
    script = f"import gpupipe, os, sys; print(*map(os.environ.get, {NAMES}), 'xgboost' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == f"{expected} False\n", done.stderr
