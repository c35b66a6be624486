"""The section on ranking: IC by date, quantile returns, spread, turnover and autocorrelation of a score, as alphalens.

The models' scores are measured on the sealed test of all sectors together (training/rank_measures.py). The stacking
model is shown in full, the others in tables (shown_model.py).
"""

from __future__ import annotations

import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.artifacts.summary import title_of
from gpupipe.evaluation.rank_summary import newey_west_error, overlap_lags
from gpupipe.evaluation.ranking import FILL_COST_BPS
from gpupipe.report import rank_charts
from gpupipe.report.formatting import to_percent
from gpupipe.report.leaderboard import Column, measures_table
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.shown_model import shown_model
from gpupipe.training.rank_measures import FILE

Row = Mapping[str, Any]
WINDOW = 21  # dates of a rolling mean: about a month of daily bars
NORMAL = 1.96
MOST_DATES = 400  # points of a line
QUANTILE_WORDS = {10: "deciles", 5: "quintiles", 3: "terciles", 2: "halves"}


def ranking(out: pathlib.Path, whole: Mapping[str, Any]) -> Section | None:
    """The measures of every score; None where the summary has none, or has too few symbols a date to rank any.

    whole: the summary.
    """
    rows = whole.get("ranking")
    if not rows or (max(row["symbols"] for row in rows) <= 2 and all(row["rank_ic"] is None for row in rows)):
        return None
    by_date = _by_date(out / FILE)
    parts: list[Any] = []
    text = [_how(rows)]
    for score in dict.fromkeys(row["score"] for row in rows):
        of_score = [row for row in rows if row["score"] == score]
        shown = shown_model([row["model"] for row in of_score])
        of_model = [row for row in of_score if row["model"] == shown]
        text += rank_sentences(of_score, [shown])
        lines = {row["label"]: by_date.get((row["label"], shown, score), []) for row in of_model}
        parts += _figures(f"{shown}, {of_model[0]['title']}", of_score, of_model, lines)
        parts += _tables(shown, of_score, of_model)
    return Section("Ranking", text, parts)


def rank_sentences(rows: Sequence[Row], models: Sequence[str]) -> list[str]:
    """One sentence a model: on how many labels the rank IC, within sectors too, and the spread are clearly above 0.

    rows: of the summary's "ranking", of one score.
    """
    sentences = []
    for model in models:
        of_model = [row for row in rows if row["model"] == model]
        if not of_model:
            continue
        counts = {name: sum(_clear(row, name) for row in of_model) for name in ("rank_ic", "rank_ic_neutral")}
        below = sum((row["rank_ic_high"] if row["rank_ic_high"] is not None else 1) < 0 for row in of_model)
        paid = sum(_clear(row, "spread_net") for row in of_model)
        text = (
            f"{model}, {of_model[0]['title']}: the mean rank IC is above 0 with its whole 95 % interval on "
            f"{counts['rank_ic']} of {len(of_model)} labels, within sectors on {counts['rank_ic_neutral']}"
        )
        if below:
            text += f"; on {below} it is below 0"
        text += f"; the spread after costs is above 0 with its whole interval on {paid}."
        if all(row["rank_ic_low"] is None for row in of_model):
            text = f"{model}, {of_model[0]['title']}: the test has too few dates for intervals of the rank IC."
        elif not any(counts.values()):
            text += " No skill in ranking is shown."
        sentences.append(text)
    return sentences


def _clear(row: Row, name: str) -> bool:
    return row[f"{name}_low"] is not None and row[f"{name}_low"] > 0


def _how(rows: Sequence[Row]) -> str:
    """What the figures are."""
    n, n_quantiles = rows[0]["symbols"], rows[0]["quantiles"]
    words = QUANTILE_WORDS.get(n_quantiles, f"{n_quantiles} quantiles")
    if n_quantiles:
        cut = f"Symbols are cut into {words} of the score"
        cut += "" if n_quantiles >= 10 else f", since a date has only {n:g} symbols (median)"
        cut += (
            "; the spread is the return of the highest minus that of the lowest over the label's bars, after costs of "
            f"{FILL_COST_BPS:g} basis points a fill for every symbol that enters one of them."
        )
    else:
        cut = f"A date has only {n:g} symbols (median), too few for quantiles of the score, so there is no spread."
    return (
        "How well a score orders the symbols of a date by their return over the label's bars, on the sealed test of "
        f"all sectors together. Rank IC: Spearman's correlation of score and return, date by date. {cut} Within "
        "sectors: score and return minus their means of the sector on the date. Intervals (95 %) are from blocks of "
        "dates, because returns over several bars overlap."
    )


def _figures(
    title: str, of_score: Sequence[Row], of_model: Sequence[Row], lines: Mapping[str, Sequence[Row]]
) -> list[Any]:
    means = [
        {"label": title_of(row), "model": row["model"], "rank_ic": row["rank_ic"], "low": row["rank_ic_low"],
         "high": row["rank_ic_high"]}
        for row in of_score if row["rank_ic"] is not None
    ]  # fmt: skip
    quantiles = [
        {"label": title_of(row), "quantile": k + 1, "return": to_percent(value), "low": to_percent(low),
         "high": to_percent(high)}
        for row in of_model
        for k, (value, low, high) in enumerate(
            zip(row["quantile_returns"], row["quantile_low"], row["quantile_high"], strict=True)
        ) if value is not None
    ]  # fmt: skip
    rolling, spreads, autocorrelations = [], [], []
    for row in of_model:
        label, dates = title_of(row), lines.get(row["label"], [])
        rolling += [{"label": label, **point} for point in rolling_means(dates, row["horizon"])]
        for what, name in (("before costs", "spread"), ("after costs", "spread_net")):
            spreads += [{"label": label, "what": what, **point} for point in cumulative(dates, name, row["horizon"])]
        autocorrelations += [
            {"label": label, "what": "autocorrelation", "time": _day(date), "value": date["rank_autocorrelation"]}
            for date in _some(dates) if date["rank_autocorrelation"] is not None
        ]  # fmt: skip
    figures = [
        (means, f"Mean rank IC of every model by the {of_model[0]['title']}, with its 95 % interval",
         rank_charts.mean_rank_ic),
        (rolling, f"Rank IC of each date ({title}); line: mean of the last {WINDOW} dates, or of two horizons, with "
         "its 95 % interval", rank_charts.rolling_ic),
        (quantiles, f"Mean return of each quantile of the score minus the date's mean, with its interval ({title})",
         rank_charts.quantile_returns),
        (spreads, "Highest minus lowest quantile: sum over dates of the return for one bar's worth of each position "
         f"({title})", lambda points: rank_charts.lines_by_date(points, "sum of returns, %")),
        (autocorrelations, f"Autocorrelation of ranks: with those of one horizon before ({title})",
         lambda points: rank_charts.lines_by_date(points, "autocorrelation", zero=False)),
    ]  # fmt: skip
    return [Figure(caption, draw(points)) for points, caption, draw in figures if points]


def rolling_means(dates: Sequence[Row], horizon: int) -> list[dict[str, Any]]:
    """Points of the chart of rank ICs: "time", "rank_ic", and "mean", "low", "high" of the dates up to it.

    dates: rows of ranking.parquet of one score, ascending in time; dates without a rank IC are left out. A window has
    WINDOW dates, or twice the horizon where that is longer; the three are None before the first whole window. The
    interval is 1.96 standard errors, which allow for overlapping returns (Newey and West 1987).
    """
    known = [date for date in dates if date["rank_ic"] is not None]
    values = np.array([date["rank_ic"] for date in known])
    window = max(WINDOW, 2 * horizon)
    points = []
    for k in range(0, len(known), max(1, -(-len(known) // MOST_DATES))):
        point: dict[str, Any] = {"time": _day(known[k]), "rank_ic": float(values[k])}
        last = values[k + 1 - window : k + 1] if k + 1 >= window else values[:0]
        if len(last):
            mean, error = float(last.mean()), newey_west_error(last, overlap_lags(horizon))
            point |= {"mean": mean, "low": mean - NORMAL * error, "high": mean + NORMAL * error}
        points.append({"mean": None, "low": None, "high": None, **point})
    return points


def cumulative(dates: Sequence[Row], name: str, horizon: int) -> list[dict[str, Any]]:
    """Points "time", "value": the sum up to each date of a return over `horizon` bars, in percent, divided by horizon.

    A position of one date is held for `horizon` bars, so that as many overlap: each gets 1 / horizon of the capital.
    Dates without the measure add nothing.

    >>> import datetime
    >>> dates = [{"time": datetime.datetime(2020, 1, day), "spread": value} for day, value in ((1, 0.02), (2, None))]
    >>> cumulative(dates, "spread", 2)
    [{'time': '2020-01-01', 'value': 1.0}, {'time': '2020-01-02', 'value': 1.0}]
    """
    if not any(date[name] is not None for date in dates):
        return []
    total = np.cumsum([date[name] or 0.0 for date in dates]) * (100 / horizon)
    points = [{"time": _day(date), "value": float(value)} for date, value in zip(dates, total, strict=True)]
    return _some(points)


def _tables(shown: str, of_score: Sequence[Row], of_model: Sequence[Row]) -> list[Table]:
    columns = [
        Column("label", "label_title", "text"), Column("model", "model", "text"), Column("rank IC", "rank_ic"),
        Column("IC from", "rank_ic_low"), Column("IC to", "rank_ic_high"), Column("rank ICIR", "rank_icir"),
        Column("t", "rank_ic_t"), Column("dates above 0, %", "rank_ic_positive", "percent"),
        Column("within sectors", "rank_ic_neutral"), Column("within from", "rank_ic_neutral_low"),
        Column("within to", "rank_ic_neutral_high"), Column("IC", "ic"), Column("ICIR", "icir"),
        Column("spread, %", "spread", "percent"), Column("after costs, %", "spread_net", "percent"),
        Column("after costs from", "spread_net_low", "percent"), Column("after costs to", "spread_net_high", "percent"),
        Column("turnover top, %", "turnover_top", "percent"),
        Column("turnover bottom, %", "turnover_bottom", "percent"), Column("autocorrelation", "rank_autocorrelation"),
        Column("top K", "top_k"), Column("hit rate, %", "hit_rate", "percent"),
        Column("return of the top K over the mean, %", "top_k_return", "percent"), Column("dates", "dates"),
    ]  # fmt: skip
    title = of_model[0]["title"]
    first = measures_table(f"Ranking by {shown}, {title}", [_titled(row) for row in of_model], columns)
    every = measures_table(f"Ranking by every model, {title}", [_titled(row) for row in of_score], columns)
    parts = [
        ("label", False), ("dates of", False), ("dates", True), ("rank IC", True), ("IC from", True), ("IC to", True),
        ("within sectors", True), ("within from", True), ("within to", True), ("spread, %", True),
        ("after costs, %", True), ("after costs from", True), ("after costs to", True),
    ]  # fmt: skip
    lines = []
    for row in of_model:
        for part in (*row["by_year"], *row["by_regime"]):
            name = part["year"] if "year" in part else f"{part['regime']} volatility"
            ranks = [part[f"{key}{end}"] for key in ("rank_ic", "rank_ic_neutral") for end in ("", "_low", "_high")]
            spread = [to_percent(part[key]) for key in ("spread", "spread_net", "spread_net_low", "spread_net_high")]
            lines.append([title_of(row), str(name), part["dates"], *ranks, *spread])
    caption = f"Ranking by {shown}, by year and by volatility of the date (terciles of the training dates)"
    return [Table(first.caption, first.columns, first.rows, digits=3),
            Table(caption, parts, lines, digits=3, folded=True), every]  # fmt: skip


def _titled(row: Row) -> dict[str, Any]:
    return {**row, "label_title": title_of(row)}


def _by_date(path: pathlib.Path) -> dict[tuple[str, str, str], list[Row]]:
    """Rows of ranking.parquet by label, model and score, for the charts alone; empty without the file."""
    import pyarrow.parquet as pq

    if not path.exists():
        return {}
    columns = ["label", "model", "score", "time", "rank_ic", "spread", "spread_net", "rank_autocorrelation"]
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in pq.read_table(path, columns=columns).to_pylist():
        groups[row["label"], row["model"], row["score"]].append(row)
    return groups


def _some(points: Sequence[Any]) -> list[Any]:
    """At most MOST_DATES of the points, equally spaced."""
    return list(points[:: max(1, -(-len(points) // MOST_DATES))])


def _day(row: Row) -> str:
    return str(row["time"].isoformat()[:10] if hasattr(row["time"], "isoformat") else row["time"][:10])
