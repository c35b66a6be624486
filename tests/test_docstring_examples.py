"""The examples in docstrings give the results that they show."""

from __future__ import annotations

import doctest
import importlib
import pathlib

import pytest

import gpupipe

PACKAGE = pathlib.Path(gpupipe.__file__).parent
FOLDERS = (
    "store", "config", "features", "targets", "dataset", "cross_validation", "evaluation", "training", "pipeline",
    "artifacts", "backtest", "serving", "report", "runtime", "cli",
)  # fmt: skip
FILES = [file for folder in FOLDERS for file in sorted((PACKAGE / folder).rglob("*.py"))]
MODULES = [
    ".".join(("gpupipe", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in FILES
    if ">>> " in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted and not results.failed
