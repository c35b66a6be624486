"""Calls of every model of a backtest by a rule, and why a rule calls nothing for some models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.backtest.calling.contract import CallingRule, Candidates, net_scores
from gpupipe.backtest.rules import Rules
from gpupipe.backtest.sources import OutOfSample
from gpupipe.data.panel import Panel
from gpupipe.evaluation.expected_return import VOLATILITY, Scores, scores_of
from gpupipe.features.matrix import compute_features
from gpupipe.targets.trade_return import LONG, NOTHING, SHORT

ALMOST_ALL = 0.95  # share of the rows of a month: a rule that calls so many on one side chooses nothing
FEWEST_ROWS, FEWEST_DATES = 20, 10  # of a month that is judged
NO_SCORE = "it has no expected return, because the run has too few dates before its test, or is older than these"
PARTLY = "the others have no expected return, because their fold or sector has too few dates before its test"
NEEDS_NO_SCORE = "f1"  # the rule to use then
OTHER_SIDE = "all of its calls are on the side that is not traded (--side)"
NAMED = 6


@dataclass(frozen=True)
class Refusal:
    """Why a rule calls no row of a model, or no row of a part of them.

    refused: whether the rule did call rows, and these calls were refused.  partial: whether other rows can be called.
    scored: whether the model has expected returns, so that rules that need them could call its rows.

    >>> Refusal("linear_1d_5pct", "no probability reaches its cutoff").refused
    False
    """

    model: str
    reason: str
    refused: bool = False
    partial: bool = False
    scored: bool = True


@dataclass(frozen=True)
class Calls:
    """The calls of all models.

    called: int8 (n_models, n_rows), on the host: LONG, SHORT or NOTHING, of the rows that were asked for.
    refusals: of the models without a call, or without an expected return for some of their rows.

    >>> Calls(np.zeros((1, 3), np.int8), (Refusal("linear_1d_5pct", "no probability reaches its cutoff"),)).called.shape
    (1, 3)
    """

    called: np.ndarray
    refusals: tuple[Refusal, ...]


def calls_of(source: OutOfSample, rows: Any, rule: CallingRule, rules: Rules) -> Calls:
    """The calls of every model on some rows.

    rows: int64 (n_rows,), on the panel's device, ascending.
    A row is called on a side only where its expected net return is above 0; a model without an expected return is
    called only by rules that need none. Of a model, all calls are refused where they hold nearly all rows of a month on
    one side; and where there is no call in a month, if the rule depends on levels from another time.
    """
    panel, to_host = source.panel, source.panel.device.to_host
    rows = to_host(rows)
    time_ns, symbol = to_host(panel.time_ns)[rows], to_host(panel.symbol_of_row)[rows].astype(np.int64)
    group = np.asarray(panel.group_of_symbol)[symbol].astype(np.int64)
    volatility = None
    if source.expected_returns is not None:
        volatility = volatility_of(panel)[rows]
    window = source.window_of(time_ns)
    values = to_host(source.values[panel.device.asarray(rows)])
    called = np.zeros((len(source.families), len(rows)), np.int8)
    refusals = []
    for m, name in enumerate(source.names):
        cutoffs = source.by_window[window, m, group]
        lean = None if source.lean is None else source.lean[rows, m]
        scores, costs = net_scores(_by_window(source, m, values[:, m], lean, volatility, time_ns, window, group), rules)
        candidates = Candidates(values[:, m], cutoffs, time_ns, group, symbol, scores, costs)
        called[m], refusal = judged(rule, candidates, rules.sides, name)
        refusals += [refusal] if refusal else []
    return Calls(called, tuple(refusals))


def rankings(source: OutOfSample) -> np.ndarray:
    """float32 (n_rows, n_models), on the host: how each model ranks the symbols of a date to own; NaN without a score.

    See `Scores.ranking` of long trades.
    """
    volatility = volatility_of(source.panel)
    columns = [whole_scores(source, m, volatility).ranking[:, 0] for m in range(len(source.families))]
    return np.stack(columns, axis=1).astype(np.float32)


def whole_scores(source: OutOfSample, model: int, volatility: np.ndarray) -> Scores:
    """The scores of one model for every row of the panel, before costs; NaN without a prediction.

    volatility: float (n_rows,), `volatility_of` the panel.
    """
    panel, to_host = source.panel, source.panel.device.to_host
    probability = to_host(source.values[:, model])
    rows = np.flatnonzero(np.isfinite(probability).all(axis=1))
    time_ns, symbol = to_host(panel.time_ns)[rows], to_host(panel.symbol_of_row)[rows].astype(np.int64)
    group = np.asarray(panel.group_of_symbol)[symbol].astype(np.int64)
    lean = None if source.lean is None else source.lean[rows, model]
    window, whole = source.window_of(time_ns), Scores.unknown(panel.n_rows)
    whole.put(rows, _by_window(source, model, probability[rows], lean, volatility[rows], time_ns, window, group))
    return whole


def volatility_of(panel: Panel) -> np.ndarray:
    """float32 (n_rows,), on the host: the volatility that expected returns were learned with."""
    values: np.ndarray = panel.device.to_host(compute_features(panel, VOLATILITY).values)[:, 0]
    return values


def _by_window(
    source: OutOfSample,
    model: int,
    probability: np.ndarray,
    lean: np.ndarray | None,
    volatility: np.ndarray | None,
    time_ns: np.ndarray,
    window: np.ndarray,
    group: np.ndarray,
) -> Scores:
    """Scores of a model before costs, by the expected returns of each row's window."""
    whole = Scores.unknown(len(time_ns))
    if source.expected_returns is None or lean is None or volatility is None:
        return whole
    for w, by_model in enumerate(source.expected_returns):
        at = np.flatnonzero(window == w)
        whole.put(at, scores_of(by_model[model], probability[at], lean[at], volatility[at], time_ns[at], group[at]))
    return whole


def judged(
    rule: CallingRule, candidates: Candidates, sides: Sequence[int], name: str
) -> tuple[np.ndarray, Refusal | None]:
    """The calls of one model, int8 (n,), and why there are none, or none for a part of its rows.

    sides: those that count: LONG, SHORT or both.
    A row without an expected return, of a model that has one for other rows, is called by rules that need none alone.
    """
    nothing = np.full(candidates.n_rows, NOTHING, np.int8)
    if not candidates.predicted.any():
        return nothing, None
    if rule.needs_score and not candidates.has_score:
        return nothing, Refusal(name, NO_SCORE, scored=False)
    calls = np.where(candidates.predicted, rule.call(candidates), NOTHING).astype(np.int8)
    if not calls.any():
        return nothing, Refusal(name, rule.why_nothing(candidates), scored=candidates.has_score)
    if not np.isin(calls, sides).any():
        return calls, Refusal(name, OTHER_SIDE, scored=candidates.has_score)
    if candidates.has_score:
        for k, side in enumerate((LONG, SHORT)):
            calls[(calls == side) & (candidates.scores.expected[:, k] <= 0)] = NOTHING
    if not np.isin(calls, sides).any():
        return calls, Refusal(name, "no row that it would call has an expected net return above 0")
    if reason := _degenerate(rule, calls, candidates, sides):
        return nothing, Refusal(name, reason, refused=True, scored=candidates.has_score)
    scoreless = candidates.predicted & ~np.isfinite(candidates.scores.expected).all(axis=1)
    return calls, Refusal(name, PARTLY, partial=True) if rule.needs_score and scoreless.any() else None


def _degenerate(rule: CallingRule, calls: np.ndarray, candidates: Candidates, sides: Sequence[int]) -> str:
    """Why a rule's calls of a model are no choice, by calendar month; "" where they are one."""
    known = candidates.predicted
    month = candidates.time_ns.astype("datetime64[ns]").astype("datetime64[M]")
    for m in np.unique(month[known]):
        of_month = known & (month == m)
        n_rows, n_dates = int(of_month.sum()), len(np.unique(candidates.time_ns[of_month]))
        for side, word in ((LONG, "BUY"), (SHORT, "SELL")):
            n_called = int((calls[of_month] == side).sum())
            if side in sides and n_rows >= FEWEST_ROWS and n_called >= ALMOST_ALL * n_rows:
                return f"it calls {n_called:,} of the {n_rows:,} rows of {m} {word}, which chooses nothing"
        if rule.absolute and n_dates >= FEWEST_DATES and not np.isin(calls[of_month], sides).any():
            return f"it calls nothing in {m}"
    return ""


def sentences(refusals: Sequence[Refusal], rule: CallingRule) -> list[str]:
    """Which models a rule calls nothing for, a sentence for each reason, and last the rule to try next."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        what = "calls a part of the rows of" if refusal.partial else "calls nothing for"
        key = ("is refused for" if refusal.refused else what, refusal.reason)
        by_reason.setdefault(key, []).append(refusal.model)
    texts = []
    for (what, reason), models in by_reason.items():
        others = f" and {len(models) - NAMED} more" if len(models) > NAMED else ""
        better = ""
        if reason == PARTLY:
            better = f"; --call {NEEDS_NO_SCORE} needs none"
        elif reason == NO_SCORE:
            better = f"; run gpupipe again, or use --call {NEEDS_NO_SCORE}, which needs none"
        texts.append(f"--call {rule.text} {what} {', '.join(models[:NAMED])}{others}: {reason}{better}.")
    other_rule_helps = [item for item in refusals if item.scored and item.reason not in (NO_SCORE, PARTLY, OTHER_SIDE)]
    if rule.better and other_rule_helps:
        texts.append(f"The rule to try next: --call {rule.better}.")
    return texts
