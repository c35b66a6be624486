"""A run of bonds on a GPU: fair values, columns and baselines as on the CPU; without cuML it is refused."""

from __future__ import annotations

import importlib.util
import types

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpupipe.runtime.device import pick, why_no_cuda
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds import baselines, columns, fair_values, recipe, results
from tests.support.bond_run import lasting, market, run_bonds


@pytest.fixture(scope="module")
def panels():
    if problem := why_no_cuda():
        pytest.skip(problem)
    host = market().panel
    return host, host.to(pick("cuda"))


@pytest.mark.gpu
def test_fair_values_and_columns_on_both_devices(panels):
    on_host, on_device = (fair_values.fair_values(panel, "street") for panel in panels)
    for name, values in on_host.arrays().items():
        np.testing.assert_array_equal(on_device.arrays()[name], values, err_msg=name)
    rows = [columns.rows_of(*pair) for pair in zip(panels, (on_host, on_device), strict=True)]
    assert rows[0].names == rows[1].names
    np.testing.assert_array_equal(rows[1].X, rows[0].X)


@pytest.mark.gpu
def test_a_run_on_both_devices(panels, tmp_path):
    """cuML's models are others than scikit-learn's: the files and what models do not decide are compared."""
    if importlib.util.find_spec("cuml") is None:
        pytest.skip("cuml is not installed (the extra cuda13): models of bonds need it on a GPU")
    for name, panel in zip(("cpu", "cuda"), panels, strict=True):
        run_bonds(tmp_path / name, panel=panel, jobs=1)
    assert lasting(tmp_path / "cpu").keys() == lasting(tmp_path / "cuda").keys()
    tables = [pq.read_table(tmp_path / name / results.PREDICTIONS) for name in ("cpu", "cuda")]
    assert tables[0].column_names == tables[1].column_names
    for name in ("spread", "next_spread", baselines.RATING, baselines.SVENSSON):
        got, expected = (table[name].to_numpy() for table in reversed(tables))
        np.testing.assert_array_equal(got, expected, err_msg=name)


def test_a_gpu_without_cuml_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    panel = types.SimpleNamespace(device=types.SimpleNamespace(kind="cuda"))
    with pytest.raises(UserError, match=r"bonds need cuML on a GPU, .* or take scikit-learn by --device cpu"):
        recipe.steps(panel, None)
