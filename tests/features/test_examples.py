"""The examples in docstrings of gpupipe.features give the results that they show."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["formulas.registry", "incremental", "lowering", "matrix", "series"])
def test_examples_of_docstrings(name):
    results = doctest.testmod(importlib.import_module(f"gpupipe.features.{name}"))
    assert results.attempted and not results.failed
