"""What `gpupipe bonds` prints: models against baselines, tail risk, drift, rich and cheap bonds."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

ISSUER_WIDTH = 26  # columns of an issuer's name; longer ones are cut short
# Headings of the baselines, in two lines.
REFERENCES = {
    "last spread": "over last\nspread, %", "rating mean": "over rating\nmean, %",
    "Nelson-Siegel-Svensson": "over Svensson\ncurve, %",
}  # fmt: skip


def show(to: Console, whole: Mapping[str, Any], out: str, most: int) -> None:
    """Print what a run found."""
    import pyarrow.parquet as pq

    from gpupipe.cli.summary_tables import SummaryTables
    from gpupipe.cli.tables import names_of
    from gpupipe.report import bond_words
    from gpupipe.workloads.bonds import results

    bonds = whole["bonds"]
    drift, files = "", "signals, ... (Parquet)"
    if bond_words.has_models(bonds):
        show_models(to, bonds)
        drift, files = f"{bond_words.drift(bonds)}.", "signals, predictions, dates, risk, ... (Parquet), models/*"
    for sentence in (bond_words.market(whole["data"]), *bond_words.verdict_lines(whole), drift):
        if sentence:
            to.print(sentence)
    show_signals(to, pq.read_table(pathlib.Path(out) / results.SIGNALS), most, whole["data"])
    to.print(bond_words.skill_of_signals(bonds))
    SummaryTables(to, dict(whole), names_of(()), ()).show_time()
    to.print(f"{out}/{results.FOLDER}: {files}")


def show_models(to: Console, bonds: Mapping[str, Any]) -> None:
    """A row for each model and baseline, on the sealed test; of baselines no intervals."""
    from gpupipe.cli.tables import figures_table, print_whole
    from gpupipe.report import bond_words

    table = figures_table(("moves,\nsealed test",), ("RMSE,\nbp", *REFERENCES.values(), "rank\ncorr.", ""))
    for row in bonds["measured"]:
        is_model = row["kind"] == "model"
        ends = [row["gain_over"][name] for name in REFERENCES]
        gains = [bond_words.gain(of if is_model else (None, of[1], None)) for of in ends]
        name = bond_words.SHORT.get(row["model"], row["model"]) + (" *" if row["model"] == bonds["chosen"] else "")
        table.add_row(
            name, _number(row["rmse_bp"], 1), *gains, _number(row.get("rank_correlation"), 2),
            row["skill"] if is_model else "baseline",
        )  # fmt: skip
    print_whole(to, table)
    to.print(
        "* chosen on validation; gains in squared error of moves against the others of a date, 95 % intervals",
        style="dim",
    )


def show_signals(to: Console, table: Any, most: int, data: Mapping[str, Any]) -> None:
    """The cheapest and richest bonds of the table's date.

    table: Arrow, see `signals.table`.  most: rows of each.  data: the summary's entry, which says whether they are
        simulated.
    """
    from gpupipe.cli.tables import figures_table, print_whole
    from gpupipe.report import bond_words
    from gpupipe.workloads.bonds.signals import CHEAP, RICH

    rows = table.to_pylist()
    if not rows:
        to.print("No bond has a fair value on the last date.")
        return
    to.print(f"{bond_words.of_kind(data)}{bond_words.counts(rows)}")
    shown = [row for side in (CHEAP, RICH) for row in [r for r in rows if r["signal"] == side][:most]]
    if not shown:
        return
    made = figures_table(
        ("bond", "issuer", "rating"), ("clean\nprice", "fair\nprice", "spread\n%", "fair spread\n%", "")
    )
    for row in shown:
        made.add_row(
            str(row["bond"]), _cut(str(row["issuer"])), str(row["rating"]), _number(row["clean"], 3),
            _number(row["fair_clean"], 3), _number(row["spread"], 2), _fair(row), row["signal"],
        )  # fmt: skip
    print_whole(to, made)


def rows_for_json(table: Any) -> list[dict[str, Any]]:
    """The signals as JSON holds them: dates as texts, unknown numbers as None."""
    return [{name: _plain(value) for name, value in row.items()} for row in table.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _fair(row: Mapping[str, Any]) -> str:
    fair, *ends = (row[name] for name in ("fair_spread", "fair_low", "fair_high"))
    return f"{_number(fair, 2)} [{', '.join(_number(end, 2) for end in ends)}]"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:z,.{digits}f}"


def _cut(text: str, width: int = ISSUER_WIDTH) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
