"""The supervised job with a value target: the same splits, folds, cache and summary as for classes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gpupipe import config
from gpupipe.artifacts import out_of_sample_store
from gpupipe.artifacts.manifest import read_manifest
from gpupipe.backtest import walked
from gpupipe.estimators import registry
from gpupipe.pipeline import job, upkeep
from gpupipe.runtime.errors import UserError
from gpupipe.targets.classes import CLASSES
from tests.support.toy_supervised import TOY_SUPERVISED
from tests.support.toy_workload import LINE_PLACE, toy_panel


@pytest.fixture(autouse=True)
def toy_line(monkeypatch):
    monkeypatch.setitem(registry.ESTIMATORS, "toy_line", LINE_PLACE)


def run(out, panel=None, *settings):
    settings = config.make(TOY_SUPERVISED.catalogue(), settings=settings)
    return job.execute(TOY_SUPERVISED, panel or toy_panel(), None, settings, out)


def test_it_is_cross_fitted_and_measured(tmp_path):
    summary, worked = run(tmp_path)
    assert worked and summary["n_models"] == 2
    for row in summary["models"]:
        assert row["test_gain_over_prior"] == pytest.approx(1 - 0.09 / 0.73, abs=0.05) and row["test_skill"] == "skill"
        assert row["horizon"] == 1 and row["scope"] == "sector"
    metadata = json.loads((tmp_path / "trained" / "A" / "next_price" / "metadata.json").read_text())
    assert metadata["models"]["toy_line"]["kind"] == "toy_line" and metadata["sector"] == "A"
    again, worked = run(tmp_path)
    assert not worked and again == summary
    other, _ = run(tmp_path, None, "toy_line.l2=7.0")
    assert other["units"]["model"]["made"] >= 2 and "toy_line.l2" in other["units"]["why"]
    assert upkeep.verify(tmp_path).wrong == {}


def test_later_quotes_change_no_model(tmp_path):
    """With boundaries at a date, the future of the training part changes no file of a model."""
    until = str(np.datetime64(350 * 86_400, "s"))[:10]
    settings = f"split.shares_until={until}", "split.embargo_bars=0"
    run(tmp_path / "before", None, *settings)
    panel = toy_panel()
    price = panel.columns["price"].copy()
    price[panel.time_ns > 350 * 86_400 * 10**9] *= 3
    run(tmp_path / "after", panel.replace(price=price), *settings)
    models = [sorted((tmp_path / name).glob("trained/*/*/*.line.json")) for name in ("before", "after")]
    assert len(models[0]) == 2
    assert [path.read_bytes() for path in models[0]] == [path.read_bytes() for path in models[1]]


def test_it_is_cross_validated(tmp_path):
    summary, _ = run(tmp_path, None, "split.cpcv=6,2", "training.min_rows=10")
    (result,) = summary["cpcv"]["results"]
    assert result["model"] == "toy_line" and len(summary["cpcv"]["folds"]) == 15


def test_it_walks_forward_and_stores_its_predictions(tmp_path):
    """Each origin's models predict the rows of its test window, the last row too, whose next price is not known."""
    panel = toy_panel()
    summary, _ = run(tmp_path, panel, "split.walk_forward=3", "training.min_rows=10")
    walk = summary["walk_forward"]
    (result,) = walk["results"]
    assert (result["label"], result["model"], result["skill"]) == ("next_price", "toy_line", "skill")
    assert result["gain_over_prior"] == pytest.approx(1 - 0.09 / 0.73, abs=0.05) and result["n_origins"] == 3
    stored = out_of_sample_store.read(tmp_path, read_manifest(tmp_path))
    assert stored.models == (("toy_line", 1),) and stored.columns == (("toy_line_next_price",),)
    assert [window.name for window in stored.windows] == ["origin1", "origin2", "origin3"]
    for group, table in stored.tables.items():
        price = panel.of_group(group).columns["price"]
        rows = np.searchsorted(panel.of_group(group).time_ns, table["time"].to_numpy().astype(np.int64))
        assert set(table["fold"].to_pylist()) == {0, 1, 2} and rows[-1] == len(price) - 1
        assert np.array_equal(rows, np.arange(rows[0], len(price)))
        prediction = table["toy_line_next_price"].to_numpy()
        assert np.isfinite(prediction).all() and stored.cutoffs[group].shape == (3, 1, 0)
        error = (prediction[:-1] - price[rows[1:]]) ** 2
        assert error.mean() < 0.2 * ((price[rows[:-1]] - price[rows[1:]]) ** 2).mean()
    with pytest.raises(UserError, match="predict no barrier labels"):
        walked(stored, panel)


def test_its_walk_forward_is_reported(tmp_path):
    pytest.importorskip("altair", reason="the report's charts need altair")
    from gpupipe import report

    run(tmp_path, None, "split.walk_forward=2", "training.min_rows=10")
    page = re.sub(r"<script\b.*?</script>", "", report.write(tmp_path).read_text(), flags=re.S)
    assert "next_price" in page and "Fold by fold" in page and "squared error" in page and "log-loss" not in page
    assert not re.search(rf"\bnan\b|NaN|None|{'|'.join(CLASSES)}", page)
