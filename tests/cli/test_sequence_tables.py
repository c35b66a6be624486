"""The console's table of predicted returns, its sentences, and what it says of windows."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from gpupipe.cli.plain_console import plain_console
from gpupipe.cli.sequence_tables import show_returns
from gpupipe.cli.summary_tables import SummaryTables
from gpupipe.cli.tables import ModelNames
from gpupipe.evaluation import next_return
from gpupipe.evaluation.next_return import NextReturns

POSITIONS = {"cost_of_a_fill": 0.0003, "final_equity": 0.5, "final_buy_and_hold": 2.0, "fills": 1234}


def measures_of(n, signal):
    rng = np.random.default_rng(3)
    realised = rng.normal(scale=0.01, size=n)
    predicted = signal * realised + rng.normal(scale=0.001, size=n)
    close, last = np.full(n, 30_000.0), np.concatenate([[0.0], realised[:-1]])[:n]
    rows = NextReturns(np.arange(n), close, realised, predicted, last, np.zeros(n))
    measures = {**next_return.measures(rows, seed=1), "positions": POSITIONS}
    return json.loads(json.dumps(measures, sort_keys=True).replace("NaN", "null"))  # as summary.json holds them


def printed(show, *arguments):
    stream = io.StringIO()
    show(plain_console(stream, width=200), *arguments)
    return stream.getvalue()


def test_a_symbol_has_its_gains_skill_signs_and_errors_in_a_line():
    returns = {"BTC": measures_of(500, 0.9), "[ETH]": measures_of(500, 0.0), "few": measures_of(12, 0.0)}
    text = printed(show_returns, {"returns": returns})
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith(" ")}
    for symbol, skill in (("BTC", "skill"), ("[ETH]", "no skill"), ("few", "not known")):
        measures, line = returns[symbol], lines[symbol]
        assert f"  {skill} " in line and f"{100 * measures['sign_share']:.1f}" in line
        for name in next_return.REFERENCES:
            assert f"{100 * measures['gain'][name]['gain']:z.2f}" in line
        assert [float(cell) for cell in line.split()[-2:]] == pytest.approx(
            [measures["rmse_price"][name] for name in ("model", "zero")], rel=1e-3
        )
    assert lines["few"].count("[") == 0 and lines["BTC"].count("[") == 3
    flat = " ".join(text.split())
    assert "BTC: the next bar's return is predicted with skill: gain in squared error over zero return" in flat
    assert "few: the next bar's return was predicted on too few rows (12) to judge." in flat
    assert "BTC: positions by the predicted return turn 1 into 0.500 after 1,234 fills of 0.03 % each" in flat
    assert "origins together" not in flat
    walk = {"returns": returns, "walk_forward": {"origins": [{}, {}]}}
    assert "The test bars of 2 origins together." in " ".join(printed(show_returns, walk).split())


def test_a_run_without_predicted_returns_prints_nothing_of_them():
    assert printed(show_returns, {}) == "" and printed(show_returns, {"returns": {}}) == ""
    text = printed(show_returns, {"returns": {"none": measures_of(0, 0.0)}})
    assert text.splitlines() == ["none: the next bar's return was predicted on too few rows (0) to judge."]


@pytest.mark.parametrize("windows", [None, {"length": 60, "rows": 5000, "short": 120, "gaps": 34, "gap_bars": 10}])
def test_windows_that_are_not_used_are_said_by_every_run_that_looks_back(windows):
    whole = {"models": []} | ({"windows": windows} if windows else {})

    def show(to):
        SummaryTables(to, whole, ModelNames({}, (), ()), []).show_windows()

    text = " ".join(printed(show).split())
    assert text == ("" if windows is None else "Windows of 60 bars: 120 of 5,000 rows have too few bars before them, "
                    "and 34 cross a gap of more than 10 bars: they are not used.")  # fmt: skip
