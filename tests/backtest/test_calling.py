"""Calling rules: which rows each calls, which calls are refused, and what is said where nothing is called."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.backtest.calling import registry
from gpupipe.backtest.calling.calls import NO_SCORE, OTHER_SIDE, PARTLY, Refusal, judged, sentences
from gpupipe.backtest.calling.contract import Candidates, net_scores
from gpupipe.backtest.rules import Rules
from gpupipe.evaluation.expected_return import Scores
from gpupipe.runtime.errors import UserError
from gpupipe.targets.trade_return import LONG, NOTHING, SHORT

DAY_NS = 86_400 * 10**9
COST = 0.0006


def candidates(selection, level=0.0, error=0.0, n_dates=1, cutoffs=0.4, probability=None, group=None) -> Candidates:
    """Rows of `n_dates` dates with the same symbols; selection (n_symbols,): of long trades, short is minus it."""
    selection = np.tile(np.asarray(selection, float), n_dates)
    n = len(selection)
    both = np.stack([selection, -selection], axis=1)
    levels = np.array([level, -level])
    gross = Scores(levels + both, np.full((n, 2), error), both, np.full((n, 2), error), both)
    scores, costs = net_scores(gross, Rules(side="both"))
    n_symbols = n // n_dates
    probability = np.tile(np.float32([0.2, 0.5, 0.3]), (n, 1)) if probability is None else probability
    return Candidates(
        probability, np.full((n, 2), cutoffs, np.float32), np.repeat(np.arange(n_dates) * DAY_NS, n_symbols),
        np.tile(np.arange(n_symbols) % 2 if group is None else group, n_dates), np.tile(np.arange(n_symbols), n_dates),
        scores, costs,
    )  # fmt: skip


def called(text: str, rows: Candidates, sides=(LONG, SHORT)) -> list[int]:
    return judged(registry.rule(text), rows, sides, "linear_1d_5pct")[0].tolist()


def test_costs_are_those_of_the_backtest():
    _, costs = net_scores(candidates([0.0]).scores, Rules())
    assert costs == pytest.approx([COST, COST], abs=1e-6)
    rows = candidates([0.01])
    assert rows.scores.expected[0] == pytest.approx([Rules().net(0.01, LONG), Rules().net(-0.01, SHORT)])


def test_score_calls_what_pays_its_costs_even_one_error_lower():
    rows = candidates([0.004, 0.0005, -0.004, 0.0], error=0.001)
    assert called("score", rows) == [LONG, NOTHING, SHORT, NOTHING]
    assert called("score:3", rows) == [LONG, NOTHING, SHORT, NOTHING]  # 0.004 - 0.003 > 0.0006
    assert called("score:4", rows) == [NOTHING] * 4
    rising = candidates([0.004, 0.0005, -0.004, 0.0], level=0.01, error=0.001)
    assert called("score", rising) == [LONG, NOTHING, NOTHING, NOTHING]  # the market is no merit of a symbol
    falling = candidates([0.004, 0.0005, -0.004, 0.0], level=-0.01, error=0.001)
    assert called("score", falling) == [NOTHING, NOTHING, SHORT, NOTHING]


def test_top_calls_the_best_of_each_date_on_each_side():
    rows = candidates([0.004, 0.003, -0.004, 0.001, -0.003, 0.0], n_dates=2)
    one = [LONG, NOTHING, SHORT, NOTHING, NOTHING, NOTHING]
    assert called("top:1", rows) == one * 2 == called("top 1", rows) == called("top:10%", rows)
    assert called("top:2", rows) == [LONG, LONG, SHORT, NOTHING, SHORT, NOTHING] * 2
    # By sector: symbols 0, 2, 4 and 1, 3, 5; the last has no expected gain on either side.
    assert called("top:1/sector", rows) == [LONG, LONG, SHORT, NOTHING, NOTHING, NOTHING] * 2
    # At most half of the symbols on each side, and none that is not expected to earn.
    assert called("top:99", candidates([0.004, 0.003, 0.0001, -0.002])) == [LONG, LONG, NOTHING, SHORT]
    assert called("top:1", candidates([0.0003, -0.0003])) == [NOTHING, NOTHING]
    ties = candidates([0.004, 0.004, 0.004, -0.012])
    assert called("top:1", ties) == [LONG, NOTHING, NOTHING, SHORT]  # the first by symbol


def test_topk_dropout_calls_the_held_symbols_that_are_expected_to_earn():
    rows = candidates([0.004, 0.003, 0.002, -0.001], n_dates=3)
    assert called("topk-dropout:2,1", rows) == [LONG, LONG, NOTHING, NOTHING] * 3
    assert called("topk-dropout:2,1", candidates([0.004, 0.0001, -0.1])) == [LONG, NOTHING, NOTHING]
    # On the second date the others are better: one is exchanged, and only then the other.
    turned = candidates(np.concatenate([[0.004, 0.003, 0.002, 0.001], [0.001, 0.002, 0.003, 0.004]]))
    days = dataclasses.replace(
        turned, time_ns=np.repeat([0, DAY_NS, 2 * DAY_NS], [4, 4, 0]), symbol=np.tile(np.arange(4), 2)
    )
    assert called("topk-dropout:2,1", days) == [LONG, LONG, NOTHING, NOTHING, NOTHING, LONG, NOTHING, LONG]


def test_f1_calls_by_cutoffs_and_only_what_is_expected_to_earn():
    probability = np.float32([[0.1, 0.4, 0.5], [0.5, 0.3, 0.2], [0.45, 0.1, 0.45], [0.2, 0.6, 0.2]])
    rows = candidates([0.01, -0.01, 0.01, 0.01], probability=probability)
    assert called("f1", rows) == [LONG, SHORT, LONG, NOTHING]
    assert called("f1", candidates([-0.01, 0.01, 0.01, 0.01], probability=probability)) == [
        NOTHING, NOTHING, LONG, NOTHING
    ]  # fmt: skip


def test_a_row_without_a_prediction_is_never_called():
    probability = np.tile(np.float32([0.0, 0.0, 1.0]), (4, 1))
    probability[0] = np.nan
    for text in ("score", "top:4", "topk-dropout:4,1", "f1"):
        assert called(text, candidates([0.01, 0.009, 0.008, -0.05], probability=probability))[0] == NOTHING, text


def test_calls_of_everything_and_silence_of_a_cutoff_are_refused():
    everything = np.tile(np.float32([0.1, 0.2, 0.7]), (30, 1))
    rows = candidates(np.linspace(0.01, 0.02, 30), probability=everything)
    calls, refusal = judged(registry.rule("f1"), rows, (LONG,), "m")
    assert not calls.any() and refusal.refused and "30 of the 30 rows of 1970-01 BUY" in refusal.reason
    assert judged(registry.rule("f1"), rows, (SHORT,), "m")[1].reason == OTHER_SIDE
    # 60 dates, in whose second month no probability reaches the cutoff.
    probability = np.tile(everything[:1], (60 * 25, 1))
    probability[np.arange(60 * 25) % 25 > 4] = [0.2, 0.6, 0.2]
    probability[31 * 25 :] = [0.2, 0.6, 0.2]
    rows = candidates(np.linspace(0.02, 0.01, 25), n_dates=60, probability=probability)
    calls, refusal = judged(registry.rule("f1"), rows, (LONG,), "m")
    assert not calls.any() and refusal == Refusal("m", "it calls nothing in 1970-02", refused=True)
    text = sentences([refusal, Refusal("n", "no probability reaches its cutoff")], registry.rule("f1"))
    assert text == [
        "--call f1 is refused for m: it calls nothing in 1970-02.",
        "--call f1 calls nothing for n: no probability reaches its cutoff.",
        "The rule to try next: --call score.",
    ]


def test_calls_of_the_other_side_alone_are_not_called_silence():
    falling = candidates([-0.02, -0.01])
    calls, refusal = judged(registry.rule("score"), falling, (SHORT,), "m")
    assert refusal is None and (calls == SHORT).all()
    calls, refusal = judged(registry.rule("score"), falling, (LONG,), "m")
    assert (calls == SHORT).all() and refusal.reason == OTHER_SIDE and not refusal.refused
    assert len(sentences([refusal], registry.rule("score"))) == 1, "another rule would not help"


def test_silence_of_a_rule_in_money_is_a_result():
    quiet = candidates(np.concatenate([np.zeros(20 * 40)]), n_dates=40)
    calls, refusal = judged(registry.rule("score"), quiet, (LONG,), "m")
    assert not calls.any() and not refusal.refused and "its order of the symbols earned nothing" in refusal.reason
    poor = candidates([0.0003, -0.0003])
    assert "no expected net return is above 0" in judged(registry.rule("score"), poor, (LONG,), "m")[1].reason
    unsure = candidates([0.004, -0.004], error=0.01)
    reason = judged(registry.rule("score"), unsure, (LONG, SHORT), "m")[1].reason
    assert reason == "no expected net return is 1 standard error above 0"
    alike = candidates([0.0003, -0.0003], level=0.01, error=0.0001)
    reason = judged(registry.rule("score"), alike, (LONG,), "m")[1].reason
    assert "no row is expected to earn more than its peers" in reason
    busy = np.zeros(20 * 40)
    busy[:20] = 0.05  # on the first date alone
    rows = candidates(busy, n_dates=1)
    assert judged(registry.rule("score"), rows, (LONG,), "m")[1] is None


def test_without_an_expected_return_only_cutoffs_call():
    rows = candidates([np.nan, np.nan], probability=np.float32([[0.1, 0.3, 0.6], [0.2, 0.6, 0.2]]))
    assert judged(registry.rule("score"), rows, (LONG,), "m")[1] == Refusal("m", NO_SCORE, scored=False)
    assert called("f1", rows) == [LONG, NOTHING]
    nothing = candidates([0.1], probability=np.full((1, 3), np.nan, np.float32))
    assert judged(registry.rule("score"), nothing, (LONG,), "m")[1] is None  # there is no such model


def test_rows_of_a_fold_without_an_expected_return_are_called_by_cutoffs_alone_and_that_is_said():
    """As the first fold of a walk-forward has none, and others have: silence there is no choice of the rule."""
    likely = np.tile(np.float32([[0.1, 0.3, 0.6]]), (2, 1))
    rows = candidates([np.nan, 0.01], probability=likely)
    assert called("f1", rows) == [LONG, LONG] and called("score", rows) == [NOTHING, LONG]
    assert called("f1", candidates([np.nan, -0.01], probability=likely)) == [LONG, NOTHING]
    refusal = judged(registry.rule("score"), rows, (LONG,), "m")[1]
    assert refusal == Refusal("m", PARTLY, partial=True)
    assert sentences([refusal], registry.rule("score"))[0].startswith("--call score calls a part of the rows of m: the")
    assert judged(registry.rule("f1"), rows, (LONG,), "m")[1] is None


@pytest.mark.parametrize("text", ["", "best", "top", "top:0", "top:60%", "top:2.5", "top:x", "score:-1", "score:nan",
                                  "f1:2", "topk-dropout:5", "topk-dropout:5,6", "profit:1"])  # fmt: skip
def test_a_rule_that_cannot_be_says_what_is_expected(text):
    with pytest.raises(UserError, match="--call"):
        registry.rule(text)


@pytest.mark.parametrize("text", ["score", "score:1.5", "top:20", "top:2.5%", "top:5%/sector", "topk-dropout:50,5",
                                  "f1", "profit"])  # fmt: skip
def test_the_text_of_a_rule_is_the_rule(text):
    rule = registry.rule(text)
    assert rule.text == text and registry.rule(rule.text) == rule and rule.sentence.endswith(".")
    assert not rule.better or registry.rule(rule.better)
