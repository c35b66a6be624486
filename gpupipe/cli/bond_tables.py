"""What `gpupipe bonds` prints: models against baselines, tail risk, drift, rich and cheap bonds."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def show(to: Console, whole: Mapping[str, Any], out: str, most: int) -> None:
    """Print what a run found."""
    import pyarrow.parquet as pq

    from gpupipe.cli.summary_tables import SummaryTables
    from gpupipe.cli.tables import names_of
    from gpupipe.report import bond_words
    from gpupipe.workloads.bonds import results

    bonds = whole["bonds"]
    _show_models(to, bonds)
    for sentence in (bond_words.verdict(bonds), bond_words.tail_risk(bonds), bond_words.drift(bonds)):
        to.print(sentence)
    show_signals(to, pq.read_table(pathlib.Path(out) / results.SIGNALS), most)
    SummaryTables(to, dict(whole), names_of(()), ()).show_time()
    to.print(f"{out}/{results.FOLDER}: signals, predictions and dates (Parquet), models/*")


def _show_models(to: Console, bonds: Mapping[str, Any]) -> None:
    """A row for each model and baseline, on the sealed test."""
    table = _table("next spread, sealed test")
    table.add_column("", no_wrap=True)
    references = {"last spread": "last", "rating mean": "rating", "Nelson-Siegel-Svensson": "Svensson"}
    for heading in ("RMSE, bp", *(f"over {name}, %" for name in references.values()), "rank corr.", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in bonds["measured"]:
        gains = [_interval(row["gain_over"][name]) for name in references]
        correlation = row.get("rank_correlation")
        table.add_row(
            row["model"] + (" *" if row["model"] == bonds["chosen"] else ""), f"{row['rmse_bp']:.1f}", *gains,
            "-" if correlation is None else f"{correlation:.2f}", row.get("skill", "baseline"),
        )  # fmt: skip
    to.print(table)


def show_signals(to: Console, table: Any, most: int) -> None:
    """The cheapest and richest bonds of the table's date."""
    from gpupipe.workloads.bonds.signals import CHEAP, RICH

    rows = table.to_pylist()
    if not rows:
        to.print("No bond has a fair value on the last date.")
        return
    shown = [row for name in (CHEAP, RICH) for row in [r for r in rows if r["signal"] == name][:most]]
    counts = {name: sum(row["signal"] == name for row in rows) for name in (CHEAP, RICH)}
    to.print(
        f"{rows[0]['date']}: {len(rows):,} bonds, {counts[CHEAP]:,} cheap and {counts[RICH]:,} rich beyond the interval"
    )
    if not shown:
        return
    made = _table("")
    for heading in ("bond", "issuer", "rating"):
        made.add_column(heading)
    for heading in ("clean", "fair", "spread %", "fair spread % [90 %]", ""):
        made.add_column(heading, justify="right", no_wrap=True)
    for row in shown:
        made.add_row(
            *(str(row[name]) for name in ("bond", "issuer", "rating")), f"{row['clean']:.3f}",
            f"{row['fair_clean']:.3f}", f"{row['spread']:.2f}",
            f"{row['fair_spread']:.2f} [{row['fair_low']:.2f}, {row['fair_high']:.2f}]",
            row["signal"],
        )  # fmt: skip
    to.print(made)


def _table(title: str) -> Any:
    from rich.table import Table

    return Table(box=None, pad_edge=False, title=title or None, title_justify="left", title_style="")


def _interval(ends: Any) -> str:
    low, estimate, high = ends
    if estimate is None:
        return "-"
    middle = f"{100 * estimate:.1f}"
    return middle if low is None else f"{middle} [{100 * low:.1f}, {100 * high:.1f}]"
