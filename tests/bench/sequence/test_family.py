"""The family's comparison in the main job, with `linear` in the place of the networks, which train for longer."""

from __future__ import annotations

import json

import pytest

from bench import runs
from bench.sequence import family
from bench.sequence.requirements import of_family
from bench.sequence.results import Results
from tests.support.tiny import JOB


def without_option(words, name):
    at = words.index(name)
    return [*words[:at], *words[at + 2 :]]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(folder, result): both runs of the tiny market, three sectors, one horizon."""
    folder = tmp_path_factory.mktemp("family")
    words = list(JOB)
    for name in ("--jobs", "--horizons", "--models"):
        words = without_option(words, name)
    words = [word.replace("horizons=1,3", "horizons=1") for word in words]
    separate = [part for word in words for part in (word.split("=", 1) if word.startswith("--set=") else [word])]
    options = [*separate, "--others", "xgb_joint", "--family", "linear", "--lookback-rows", "9"]
    options += ["--out", str(folder / "A"), "--lines", str(folder / "lines.jsonl")]
    assert family.main(options) == 0
    return folder, options


def result(folder):
    return json.loads((folder / "lines.jsonl").read_text().splitlines()[-1])


def test_gains_are_those_of_the_summaries(compared):
    """The summaries are made by the job itself; here losses are computed again from the saved models."""
    folder, _ = compared
    averages = {
        side: {
            (row["label"], row["model"]): row
            for row in json.loads((folder / "A" / side / "summary.json").read_text())["averages"]
        }
        for side in (family.WITH, family.WITHOUT)
    }
    labels = result(folder)["labels"]
    assert list(labels) == ["label_1d_2pct", "label_1d_4pct"]
    for label, facts in labels.items():
        for side in averages:
            expected = averages[side][label, "meta_learner"]["test_gain_over_prior"]
            assert facts[f"meta_gain_{side}"] == pytest.approx(expected, abs=1e-6)
        of_linear = averages[family.WITH][label, "linear"]
        assert facts["family_gain"] == pytest.approx(of_linear["test_gain_over_prior"], abs=1e-6)
        assert list(facts["above"]) == ["volatility_table_all", "volatility_table_sector"]
        for table, above in facts["above"].items():
            expected = of_linear["test_gain_over_prior"] - averages[family.WITH][label, table]["test_gain_over_prior"]
            assert above["mean"] == pytest.approx(expected, abs=1e-6)
            assert above["low"] < above["mean"] < above["high"]
        assert facts["beats_tables"] == all(above["mean"] > 0 for above in facts["above"].values())
        difference = facts["meta_gain_difference"]
        assert difference["mean"] == pytest.approx(facts["meta_gain_with"] - facts["meta_gain_without"])
        assert not (facts["meta_clearly_better_with"] and facts["meta_clearly_worse_with"])


def test_a_finished_run_is_not_trained_again(compared, monkeypatch):
    folder, options = compared
    before = result(folder)["labels"]
    monkeypatch.setattr(runs, "run_job", lambda *_, **__: pytest.fail("trained again"))
    assert family.main(options) == 0
    assert result(folder)["labels"] == before
    with pytest.raises(SystemExit, match="other settings"):
        family.main([*options, "--set", "joint.rounds=3"])


def test_a_family_cannot_be_on_both_sides(compared):
    _, options = compared
    with pytest.raises(SystemExit, match="left out on one side"):
        family.main([*options, "--others", "linear,xgb_joint"])


def test_the_bars_read_the_comparison_but_count_no_small_one(compared):
    folder, _ = compared
    worse, tables = of_family(Results(folder / "lines.jsonl", {"features": "core"}))
    assert set(worse.measured) == {"label_1d_2pct", "label_1d_4pct"} and worse.holds is None
    assert tables.measured["all sectors"] <= 2 and tables.holds is None
