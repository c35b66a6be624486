"""The examples in the docstrings of gpupipe.data are right."""

import doctest
import importlib
import pkgutil

import pytest

import gpupipe.data

MODULES = [module.name for module in pkgutil.walk_packages(gpupipe.data.__path__, "gpupipe.data.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
