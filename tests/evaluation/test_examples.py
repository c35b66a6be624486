"""The examples in docstrings of gpupipe.evaluation give the results that they show."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["block_bootstrap", "calibration", "metrics", "multiple_testing", "paired_test"])
def test_examples_of_docstrings(name):
    results = doctest.testmod(importlib.import_module(f"gpupipe.evaluation.{name}"))
    assert results.attempted and not results.failed
