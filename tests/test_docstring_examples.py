"""The examples in docstrings give the results that they show."""

from __future__ import annotations

import doctest
import importlib
import pathlib

import pytest

import gpupipe

PACKAGE = pathlib.Path(gpupipe.__file__).parent
FILES = sorted(file for file in PACKAGE.rglob("*.py") if "kernels" not in file.relative_to(PACKAGE).parts)
MODULES = [
    ".".join(("gpupipe", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in FILES
    if ">>> " in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        pytest.skip("Torch is not installed")
    results = doctest.testmod(module)
    assert results.attempted and not results.failed
