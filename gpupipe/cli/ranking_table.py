"""The table "ranking" of a finished run: rank IC with its interval, rank ICIR, and the spread after costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpupipe.artifacts.summary import title_of
from gpupipe.cli.plain_console import styled
from gpupipe.cli.tables import ModelNames, figures_table, print_whole
from gpupipe.report import sentences

if TYPE_CHECKING:
    from rich.console import Console


def show_ranking(to: Console, whole: dict[str, Any], names: ModelNames) -> None:
    """One row for each label and judged model (all models where none is judged); nothing without measures.

    whole: the summary.  names: headings of models.
    """
    rows = whole.get("ranking")
    if not rows:
        return
    judged = {verdict["model"] for verdict in whole["verdict"]} or {row["model"] for row in rows}
    n_quantiles, symbols = rows[0]["quantiles"], rows[0]["symbols"]
    cut = f"{n_quantiles} quantiles" if n_quantiles else "too few for quantiles"
    to.print(
        styled("ranking", "bold"),
        f" of {symbols:g} symbols a date (median; {cut}) by the score: rank IC with its 95 % interval, its mean over "
        "its standard deviation by date (ICIR), the highest minus the lowest quantile's return in percent after costs",
        sep="",
    )
    scores = list(dict.fromkeys(row["score"] for row in rows))
    left = ("label", "model", *(("score",) if len(scores) > 1 else ()))
    table = figures_table(left, ("rank IC", "within sectors", "ICIR", "spread, %"))
    for row in rows:
        if row["model"] in judged:
            table.add_row(
                title_of(row), names[row["model"]], *((row["score"],) if len(scores) > 1 else ()),
                correlation_text(row, "rank_ic"), correlation_text(row, "rank_ic_neutral"),
                "-" if row["rank_icir"] is None else f"{row['rank_icir']:.2f}",
                "-" if row["spread_net"] is None else sentences.interval_text(
                    row["spread_net"], row["spread_net_low"], row["spread_net_high"]
                ),
            )  # fmt: skip
    print_whole(to, table)


def correlation_text(row: dict[str, Any], name: str) -> str:
    """A mean correlation with its interval, or alone where there is none.

    >>> correlation_text({"rank_ic": 0.0412, "rank_ic_low": 0.0103, "rank_ic_high": 0.0721}, "rank_ic")
    '0.041 [0.010, 0.072]'
    """
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
