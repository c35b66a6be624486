"""The table "ranking" of a finished run: rank IC with its interval, rank ICIR, and the spread after costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpupipe.cli.plain_console import styled
from gpupipe.cli.tables import ModelNames, figures_table, print_whole

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 100  # from this width on the rank IC within sectors has a column too


def show_ranking(to: Console, whole: dict[str, Any], names: ModelNames) -> None:
    """A table for each score, a row for each label and judged model (all models where none is judged).

    whole: the summary; without measures of ranking nothing is printed.  names: headings of models.
    """
    from gpupipe.artifacts.summary import title_of

    rows = whole.get("ranking")
    if not rows:
        return
    judged = {verdict["model"] for verdict in whole["verdict"]} or {row["model"] for row in rows}
    neutral = ("within sectors",) if to.width >= WIDE else ()
    for score in dict.fromkeys(row["score"] for row in rows):
        of_score = [row for row in rows if row["score"] == score and row["model"] in judged]
        how = _how(of_score[0]) if score == rows[0]["score"] else ""  # it is the same for all scores
        to.print(styled("ranking", "bold"), f" by the {of_score[0]['title']}{how}", sep="")
        table = figures_table(("label", "model"), ("rank IC", *neutral, "ICIR", "spread, %"))
        for row in of_score:
            correlations = [correlation_text(row, name) for name in ("rank_ic", "rank_ic_neutral")[: 1 + len(neutral)]]
            icir = "-" if row["rank_icir"] is None else f"{row['rank_icir']:z.2f}"
            table.add_row(title_of(row), names[row["model"]], *correlations, icir, spread_text(row))
        print_whole(to, table)


def _how(row: dict[str, Any]) -> str:
    """What the figures are; all rows of a score have the same symbols and quantiles, but for labels that some lack."""
    cut = f"{row['quantiles']} quantiles" if row["quantiles"] else "too few for quantiles"
    return (
        f", of {row['symbols']:g} symbols a date (median; {cut}). Rank IC: Spearman's correlation with the return over "
        "the label's bars, mean over dates with its 95 % interval; ICIR: that mean over the standard deviation of the "
        "dates; spread: the return of the highest minus that of the lowest quantile, after costs."
    )


def spread_text(row: dict[str, Any]) -> str:
    """The spread after costs in percent, with two decimals, since a day's is small; "-" without quantiles.

    >>> spread_text({"spread_net": 0.0014, "spread_net_low": -0.0002, "spread_net_high": 0.003})
    '0.14 [-0.02, 0.30]'
    """
    net, low, high = (row[f"spread_net{end}"] for end in ("", "_low", "_high"))
    if net is None:
        return "-"
    if low is None or high is None:
        return f"{100 * net:z.2f}"
    return f"{100 * net:z.2f} [{100 * low:z.2f}, {100 * high:z.2f}]"


def correlation_text(row: dict[str, Any], name: str) -> str:
    """A mean correlation with its interval, or alone where there is none.

    >>> correlation_text({"rank_ic": 0.0412, "rank_ic_low": 0.0103, "rank_ic_high": 0.0721}, "rank_ic")
    '0.041 [0.010, 0.072]'
    """
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    return f"{value:z.3f}" if low is None or high is None else f"{value:z.3f} [{low:z.3f}, {high:z.3f}]"
