"""A workload of another kind on the same job: it runs, resumes, and is reported, and no module of gpupipe names it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gpupipe import config
from gpupipe.estimators import registry
from gpupipe.pipeline import job, upkeep
from gpupipe.pipeline.options import JobOptions
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.errors import UserError
from tests.support.toy_workload import LINE_PLACE, TOY, toy_panel


@pytest.fixture(autouse=True)
def toy_line(monkeypatch):
    """The one line that registers the estimator."""
    monkeypatch.setitem(registry.ESTIMATORS, "toy_line", LINE_PLACE)


def run(out, panel=None, *settings):
    return job.execute(TOY, panel or toy_panel(), None, config.make(TOY.catalogue(), settings=settings), out)


def made_of(summary):
    return summary["units"]["step"]["made"], summary["units"]["step"]["reused"]


def test_it_runs_and_measures_against_the_last_value(tmp_path):
    summary, worked = run(tmp_path)
    assert worked and made_of(summary) == (3, 0) and summary["n_models"] == summary["n_models_wanted"] == 2
    assert [row["sector"] for row in summary["models"]] == ["A", "B"]
    for row in summary["models"]:
        # The step's variance is 0.8**2 + 0.3**2, of which the line leaves 0.3**2.
        assert row["test_gain_over_prior"] == pytest.approx(1 - 0.09 / 0.73, abs=0.05)
        assert row["test_gain_low"] < row["test_gain_over_prior"] < row["test_gain_high"]
        assert row["test_skill"] == "skill"
    (average,) = summary["averages"]
    gains = (
        [row["test_squared_error"] for row in summary["models"]],
        [row["test_prior_squared_error"] for row in summary["models"]],
    )
    assert average["test_gain_over_prior"] == pytest.approx(1 - np.mean(gains[0]) / np.mean(gains[1]))


def test_a_finished_run_is_left_and_steps_are_reused(tmp_path):
    first, _ = run(tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.glob("trained/**/*.json")}
    again, worked = run(tmp_path)
    assert len(files) == 2 and not worked and again == first
    other, worked = run(tmp_path, None, "toy_line.l2=1000.0")
    assert worked and made_of(other) == (2, 1)  # rows do not depend on the penalty
    assert set(other["units"]["why"]) == {"toy_line.l2", "an input is computed again"}
    assert {path: path.read_bytes() for path in files} != files
    back, _ = run(tmp_path)
    assert {path: path.read_bytes() for path in files} == files and back["models"] == first["models"]


def test_it_resumes_after_a_step_that_failed(tmp_path, monkeypatch):
    line = registry.estimator("toy_line")
    monkeypatch.setattr(type(line), "predict", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path)
    monkeypatch.undo()
    monkeypatch.setitem(registry.ESTIMATORS, "toy_line", LINE_PLACE)
    assert not (tmp_path / "manifest.json").exists()
    summary, _ = run(tmp_path)
    assert made_of(summary) == (1, 2)
    units = [line for line in run_log.read(tmp_path / run_log.FILE) if line["event"] == "unit"]
    assert [unit["stage"] for unit in units if unit["reused"]] == ["rows", "models"]


def test_one_changed_value_of_the_panel_is_noticed(tmp_path):
    run(tmp_path)
    panel = toy_panel()
    spread = panel.columns["spread"].copy()
    spread[-5] += 1
    changed, worked = run(tmp_path, panel.replace(spread=spread))
    assert worked and made_of(changed)[0] >= 2


def test_status_and_verify_know_its_steps(tmp_path):
    run(tmp_path)
    status = upkeep.status(tmp_path)
    assert status.finished and set(status.stages) == {"rows", "models", "predictions"} and status.count("done") == 3
    assert upkeep.verify(tmp_path).wrong == {}
    (tmp_path / "trained" / "A" / "next_price" / "toy_line.line.json").write_text("[0]")
    wrong = upkeep.verify(tmp_path).wrong  # the file and the kept result share their bytes on the disk
    assert wrong.pop("trained/A/next_price/toy_line.line.json") == "altered" and set(wrong.values()) <= {"altered"}
    assert run(tmp_path)[1] and upkeep.verify(tmp_path).wrong == {}


def test_options_without_a_meaning_are_refused(tmp_path):
    settings = config.make(TOY.catalogue())
    for options, words in (
        (JobOptions(warm_start=tmp_path), "--warm-start"),
        (JobOptions(limits=memory.Limits(host=1 << 30)), "--memory"),
    ):
        with pytest.raises(UserError, match=words):
            job.execute(TOY, toy_panel(), None, settings, tmp_path / "out", options)
    with pytest.raises(config.ConfigError, match=r"unknown configuration key 'toy_line.l1'.*toy_line.l2"):
        config.make(TOY.catalogue(), settings=["toy_line.l1=2"])


def test_its_report_is_a_page(tmp_path):
    pytest.importorskip("altair", reason="the report's charts need altair")
    from gpupipe import report

    run(tmp_path)
    page = re.sub(r"<script\b.*?</script>", "", report.write(tmp_path).read_text(), flags=re.S)
    assert "toy_line" in page and "next_price" in page
    assert not re.search(r"\bnan\b|NaN|None", page)
    assert json.loads((tmp_path / "summary.json").read_text())["settings"]["toy_line"] == {"l2": 1.0}
