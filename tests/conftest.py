"""Shared fixtures: devices, real data."""

from __future__ import annotations

import os
import pathlib

import pytest

from gpupipe.runtime.device import pick, why_no_cuda


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and (problem := why_no_cuda()):
        pytest.skip(problem)
    return pick(request.param)


@pytest.fixture(scope="session")
def sp500_folder() -> pathlib.Path:
    """The folder of the large real data: sp500_daily.parquet and sectors.csv."""
    folder = os.environ.get("GPUPIPE_DATA")
    if not folder or not pathlib.Path(folder, "sp500_daily.parquet").exists():
        pytest.skip("GPUPIPE_DATA does not name a folder with sp500_daily.parquet and sectors.csv")
    return pathlib.Path(folder)


@pytest.fixture
def clean_registry():
    """Remove the features that the test registers."""
    from gpupipe.features.formulas import FEATURES
    from gpupipe.features.formulas.registry import load_modules

    load_modules([])
    before = dict(FEATURES)
    yield
    load_modules([])
    FEATURES.clear()
    FEATURES.update(before)
