"""The section on volatility and the console's sentence: what they say of lines by hand, and where they are left out."""

from __future__ import annotations

import copy
import io

import pytest
from rich.console import Console

from gpupipe.report import volatility_value
from gpupipe.report.volatility_value import summary_sentence, uses_sentences

pytest.importorskip("altair")

NOTHING = [0.0, -0.1, 0.1]


def line(model, horizon, ratio=1.5, **above):
    measures = dict.fromkeys(volatility_value.USES, NOTHING) | {"sharpe": NOTHING, "stop_share": [0.3, 0.2, 0.4]}
    return {
        "model": model, "horizon": horizon, "factor": 1.0, "exponent": 1.0, "rows": 100, "dates": 10, **measures,
        "move_ratio": [ratio, ratio - 0.1, ratio + 0.1], "stop_shares": [0.28, 0.29, 0.3, 0.31, None],
        "rival_stop_shares": [0.2, 0.25, 0.3, 0.35, 0.4], "worst_bar": 0.02, "drawdown": None,
        "above_rival": {**dict.fromkeys([*volatility_value.USES, "sharpe"], NOTHING), **above},
    }  # fmt: skip


def whole(*lines):
    return {"volatility_value": {"rival": "natr", "stop_moves": 1.0, "intended_stop_share": 0.3173, "lines": lines}}


BETTER = {"move_ratio": [0.2, 0.1, 0.3], "qlike": [-0.2, -0.3, -0.1], "stop_unevenness": [0.02, 0.01, 0.03]}
LINES = (
    line("linear", 1, 1.6), line("meta_learner", 1, 1.7, move_ratio=BETTER["move_ratio"], qlike=BETTER["qlike"]),
    line("natr", 1), line("constant", 1, 1.0), line("linear", 5, 1.6), line("meta_learner", 5, 1.9, **BETTER),
    line("natr", 5, 1.7), line("constant", 5, 1.0),
)  # fmt: skip


def test_the_sentence_is_of_the_stacking_model_and_the_longest_horizon():
    assert summary_sentence(whole(*LINES)) == (
        "Volatility, 5 bars: the tenth of each date's symbols that meta_learner expects to move most moved 1.90 "
        "[1.80, 2.00] times as much as the mean symbol; that of NATR 1.70 [1.60, 1.80] times (difference +0.20 "
        "[+0.10, +0.30]). meta_learner is clearly better than NATR at finding the symbols that move most; forecasting "
        "the size of moves. meta_learner is clearly worse than NATR at placing stops at an even "
        "distance (5 bars)."
    )
    one_bar = summary_sentence(whole(line("linear", 1, 1.6), line("natr", 1)))
    assert one_bar.startswith("Volatility, 1 bar: ") and "linear is neither clearly better nor clearly worse" in one_bar


def test_a_smaller_loss_is_better_and_a_smaller_ratio_worse():
    worse = {"move_ratio": [-0.2, -0.3, -0.1], "qlike": [0.2, 0.1, 0.3]}
    section = whole(line("linear", 1, **worse), line("natr", 1))["volatility_value"]
    assert uses_sentences(section, "linear") == [
        "linear is clearly worse than NATR at finding the symbols that move most; forecasting the size of moves."
    ]


def test_measures_that_are_not_defined_are_left_out():
    undefined = copy.deepcopy(LINES[:3])
    for one in undefined:
        one["move_ratio"] = one["rank_correlation"] = [None, None, None]
        one["above_rival"] = {name: [None, None, None] for name in one["above_rival"]}
    assert summary_sentence(whole(*undefined)) == (
        "Whether meta_learner is better than NATR is not known: the test has too few dates for intervals."
    )
    assert volatility_value.volatility_value(whole(*undefined)) is not None


def test_the_section_has_a_figure_of_two_stops_and_a_row_for_each_line():
    section = volatility_value.volatility_value(whole(*LINES))
    figure, *tables = section.parts
    points = figure.spec["data"]["values"]
    assert {point["stop"] for point in points} == {"expected moves", "NATR"}
    assert len(points) == 2 * (4 + 5)  # an empty group has no point
    assert len(tables) == 4
    for table in tables:
        assert len(table.rows) == len(LINES) and all(len(row) == len(table.columns) for row in table.rows)
        assert len({title for title, _ in table.columns}) == len(table.columns)
    assert "32 % of them" in " ".join(section.text)


@pytest.mark.parametrize("summary", [{}, {"volatility_value": {}}, whole(), whole(line("natr", 1))])
def test_a_run_without_lines_of_models_has_neither_section_nor_sentence(summary):
    assert volatility_value.volatility_value(summary) is None and summary_sentence(summary) == ""


def test_a_run_prints_the_sentence(tmp_path):
    from gpupipe.cli.summary_tables import show_summary
    from gpupipe.workloads import equity
    from tests.support import tiny

    settings = equity.make("fast", settings=[*tiny.QUICK, "training.models=linear", "labels.horizons=1"])
    summary = tiny.execute(tiny.tiny_market(), None, settings, tmp_path)[0]
    printed = io.StringIO()
    show_summary(Console(file=printed, width=2000), summary, tmp_path, equity.EQUITY.baselines)
    assert "Volatility, 1 bar: the tenth of each date's symbols that linear expects to move most moved 1." in (
        printed.getvalue()
    )
