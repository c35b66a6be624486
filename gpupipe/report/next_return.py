"""The section on the predicted return of the next bar: gains over three references, tenths, errors of prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpupipe.evaluation import next_return as measured_returns
from gpupipe.evaluation.block_bootstrap import NO_SKILL, NOT_KNOWN, ROUNDING, SKILL
from gpupipe.evaluation.next_return import MODEL, REFERENCES, WORDS
from gpupipe.evaluation.return_groups import by_prediction
from gpupipe.report import sequence_charts
from gpupipe.report.formatting import significant, to_percent
from gpupipe.report.kept_returns import KeptReturns
from gpupipe.report.page import Figure, Section, Table

SPOKEN = 3  # symbols up to which each has a sentence; the tables have all
MOST_NAMES = 10
MODEL_WORDS = "the network"
ERRORS = [("symbol", False), ("prediction", False), ("RMSE of returns, %", True), ("RMSE of prices", True),
          ("MAPE of prices, %", True), ("gain over it, %", True), ("from", True), ("to", True)]  # fmt: skip
SIGNS = [("symbol", False), ("skill", False), ("same sign, %", True), ("correlation", True), ("bars", True)]
GROUPS = [("symbol", False), ("tenth", True), ("bars", True), ("mean predicted, %", True), ("mean realised, %", True),
          ("from", True), ("to", True)]  # fmt: skip


def next_return(whole: Mapping[str, Any], returns: Mapping[str, KeptReturns] | None) -> Section | None:
    """Whether the networks predict the return of the next bar; None without the rows or their measures.

    whole: the summary.  returns: by symbol, rows of returns.parquet.
    """
    measures: Mapping[str, Mapping[str, Any]] = whole.get("returns") or {}
    if not measures or not returns:
        return None
    seed = whole["settings"]["seed"]
    judged = {symbol: values for symbol, values in measures.items() if values["rows"]}
    groups = [
        {"symbol": symbol, "group": k + 1, "rows": group.rows, "predicted": 100 * group.predicted,
         "realised": 100 * group.realised, "low": to_percent(group.low), "high": to_percent(group.high)}
        for symbol, rows in returns.items()
        for k, group in enumerate(by_prediction(rows.time_ns, rows.predicted, rows.realised, seed))
    ]  # fmt: skip
    gains = [point for symbol, values in judged.items() for point in _gains(symbol, values)]
    figures = [
        (gains, "Gain in squared error of the next bar's return over three references, with 95 % intervals; hollow: no "
         "skill", sequence_charts.gains_over_references),
        (groups, "Mean realised by mean predicted return, in tenths of the predicted return, with 95 % intervals by "
         "blocks of bars; dashed: both equal", sequence_charts.realised_by_predicted),
    ]  # fmt: skip
    errors = [row for symbol, values in judged.items() for row in _errors(symbol, values)]
    signs = [
        [symbol, values["skill"], to_percent(values.get("sign_share")), values.get("correlation"), values["rows"]]
        for symbol, values in measures.items()
    ]
    return Section("Return of the next bar", [*_how(returns), *sentences(measures)], [
        *(Figure(caption, draw(points)) for points, caption, draw in figures if points),
        Table("Errors of returns and of prices", ERRORS, errors, digits=3, folded=len(judged) > SPOKEN),
        Table("Signs and correlation of predicted and realised returns", SIGNS, signs, digits=3),
        Table("Tenths of the predicted return", GROUPS, [list(group.values()) for group in groups], digits=4,
              folded=True),
    ])  # fmt: skip


def sentences(measures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the measures of each symbol say; for several symbols, first, for how many there is skill.

    With more than SPOKEN symbols that alone.

    measures: "returns" of the summary.

    >>> sentences({"A": {"rows": 0, "skill": "not known"}, "B": {"rows": 0, "skill": "not known"}})[0]
    "The next bar's return is predicted with skill for 0 of 2 symbols (not known for 2)."
    """
    of_symbols = [f"{measured_returns.sentence(symbol, values)}." for symbol, values in measures.items()]
    first = [summary_sentence(measures)] if len(measures) > 1 else []
    return first + (of_symbols if len(measures) <= SPOKEN else [])


def summary_sentence(measures: Mapping[str, Mapping[str, Any]]) -> str:
    """For how many symbols the next bar's return is predicted with skill, and for which; "" without symbols."""
    if not measures:
        return ""
    skills = [values["skill"] for values in measures.values()]
    unknown = skills.count(NOT_KNOWN)
    noun = "symbol" if len(skills) == 1 else "symbols"
    names = [symbol for symbol, values in measures.items() if values["skill"] == SKILL]
    return (
        f"The next bar's return is predicted with skill for {skills.count(SKILL)} of {len(skills)} {noun}"
        f"{': ' * bool(names)}{', '.join(names[:MOST_NAMES])}{' and others' * (len(names) > MOST_NAMES)}"
        f"{f' (not known for {unknown})' if unknown else ''}."
    )


def _how(returns: Mapping[str, KeptReturns]) -> list[str]:
    """What is measured, on which rows."""
    folds = {fold for rows in returns.values() for fold in rows.folds}
    rows = (
        f"the test bars of {len(folds)} folds together, each predicted by a network that saw only earlier bars"
        if len(folds) > 1
        else "the bars of the sealed test"
    )
    return [
        "Predicted: the log-return from the close of a bar to that of the next one. References: zero return, by which "
        "the price stays; the last return again; the mean return of the training bars. With skill: the intervals of "
        "the gain in squared error over all three lie above 0. A price is the close times the exponential of the "
        "predicted return. Its errors look small for zero return, too, so they say little without that line beside "
        f"them. Rows: {rows}."
    ]


def _gains(symbol: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Points of the chart of gains; a gain that is not known is left out."""
    points = []
    for name in REFERENCES:
        gain = values["gain"][name]
        if gain["gain"] is not None:
            low = gain["low"]
            skill = NOT_KNOWN if low is None else SKILL if low > ROUNDING else NO_SKILL
            points.append(
                {"reference": f"over {WORDS[name]}", "symbol": symbol, "skill": skill}
                | {part: to_percent(gain[part]) for part in ("gain", "low", "high")}
            )
    return points


def _errors(symbol: str, values: Mapping[str, Any]) -> list[list[Any]]:
    """A row for the network, then one for each reference."""
    rows = []
    for name in (MODEL, *REFERENCES):
        gain = values["gain"].get(name, {})
        rows.append([
            symbol, WORDS.get(name, MODEL_WORDS), to_percent(values["rmse_return"][name]),
            significant(values["rmse_price"][name]), values["mape_price"][name],
            *(to_percent(gain.get(part)) for part in ("gain", "low", "high")),
        ])  # fmt: skip
    return rows
