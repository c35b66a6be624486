"""Today's signals: what the last scan into OUT said."""

from __future__ import annotations

import contextlib
import json
import pathlib
import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Any

from gpupipe.artifacts.summary import title_of
from gpupipe.backtest.cutoffs import CALLED, CALLS_MOST, F1
from gpupipe.report.page import Section, Table
from gpupipe.report.words import times_100
from gpupipe.serving.scan import ABOUT

SIGNALS, ACTIVE = "signals.parquet", "signals.sqlite"  # in OUT, where the night puts them
SHOWN, MOST = 20, 200  # rows that stand open, and all
NEEDED = ("symbol", "sector", "time", "side", "horizon", "threshold", "probability", "strength", "close", "model")
COLUMNS = [("symbol", False), ("sector", False), ("bar of", False), ("side", False), ("label", False),
           ("probability, %", True), ("strength", True), ("agreement, %", True), ("close", True), ("entry from", True),
           ("to", True), ("stop", True), ("target", True)]  # fmt: skip


def signals(out: pathlib.Path, whole: Mapping[str, Any]) -> Section:
    """The strongest signals of the last scan, with the day they are of; in words where there is none."""
    title = "Signals"
    path = out / SIGNALS
    how = f"gpupipe scan --models {out} --data ... --to {path} --active {out / ACTIVE}"
    if not path.exists():
        return Section(title, [f"No scan has put its signals here yet: {how} does."])
    read = _read(path)
    if read is None:
        return Section(title, [f"{path} is not what gpupipe scan writes: {how} writes it anew."])
    rows, about = read
    if not rows:
        return Section(title, [f"The scan in {path.name} says nothing of any symbol."])
    latest = max(row["time"][:10] for row in rows)
    late = {row["symbol"] for row in rows if row["time"][:10] != latest}
    rows = [row for row in rows if row["time"][:10] == latest]
    strongest: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["side"] != "HOLD" and row["strength"] > strongest.get(row["symbol"], {"strength": -1.0})["strength"]:
            strongest[row["symbol"]] = row
    called = sorted(strongest.values(), key=lambda row: (-row["strength"], row["symbol"]))
    sides = Counter(row["side"] for row in called)
    n_symbols = len({row["symbol"] for row in rows})
    text = [
        f"Of the bars of {latest}, as {rows[0]['model']} calls them: {sides['BUY']:,} BUY and {sides['SELL']:,} SELL, "
        f"by the strongest call of each symbol; {n_symbols - len(called):,} of {n_symbols:,} symbols are HOLD. "
        f"Rows are {CALLED[about['cutoff']]}. Strength is the probability over that; agreement the share of the other "
        "families that call the same. A call is not a promise: whether these models have skill stands under Verdict.",
    ]  # fmt: skip
    if about["cutoff"] == F1 and len(called) > n_symbols / 2:
        text[0] += f" So {len(called):,} of {n_symbols:,} symbols are called. {CALLS_MOST}"
    if late:
        text.append(f"Left out: {len(late):,} symbols whose last bar is older.")
    if about["run_key"] != whole["run_key"]:
        text.append(f"This scan is of other models than these: {how} says what these call.")
    text += [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in about["degenerate"]]
    parts: list[Any] = []
    for first, last in ((0, SHOWN), (SHOWN, MOST)):
        if shown := [_row(row) for row in called[first:last]]:
            which = f"Signals {first + 1} to {first + len(shown)} of {len(called):,}, of {latest}"
            parts.append(Table(f"{which}, the strongest first", COLUMNS, shown, folded=first > 0))
    if (active := _active(out / ACTIVE)) is not None:
        kinds = Counter(row[0] for row in active)
        said = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()) or "none"
        text.append(f"Active in {ACTIVE}: {said}.")
        if active:
            columns = [(name, False) for name in ("status", "symbol", "side", "since", "updated")]
            caption = f"Active signals, {min(MOST, len(active)):,} of {len(active):,}, the latest first"
            parts.append(Table(caption, columns, active[:MOST], folded=True))
    return Section(title, text, parts)


def _read(path: pathlib.Path) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """Rows of the file, and what it says of itself; None where it is no scan's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        about: dict[str, Any] = json.loads((table.schema.metadata or {})[ABOUT])
        known = about["cutoff"] in CALLED and {"run_key", "degenerate"} <= about.keys()
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None
    rows: list[dict[str, Any]] = table.to_pylist()
    return (rows, about) if known and all(name in table.column_names for name in NEEDED if rows) else None


def _row(row: Mapping[str, Any]) -> list[Any]:
    prices = [row.get(name) for name in ("close", "entry_low", "entry_high", "stop", "target")]
    about = [row["symbol"], row["sector"], row["time"][:10], row["side"], title_of(dict(row))]
    return [*about, 100 * row["probability"], row["strength"], times_100(row.get("agreement")), *prices]


def _active(path: pathlib.Path) -> list[list[Any]] | None:
    """Status, symbol, side, since when and when last, None where there is no such table."""
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute(
                "select status, symbol, side, created, updated from active_signals order by updated desc, symbol"
            )
            return [[*row[:3], str(row[3])[:10], str(row[4])[:10]] for row in found]
    except sqlite3.Error:
        return None


def of_night(out: pathlib.Path) -> list[list[str]]:
    """Steps of the last night that were not OK, and why. A line of OUT/nightly.jsonl is a night or a step."""
    path = out / "nightly.jsonl"
    if not path.exists():
        return []
    last: dict[str, list[Mapping[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if isinstance(one, dict) and "night" in one:
            last.setdefault(one["night"], []).extend(one.get("steps", [one]))
    steps = list(last.values())[-1] if last else []
    return [
        [f"the night's step {step['name']}: {step['status']}", step.get("detail", "")]
        for step in steps if step.get("status") not in ("OK", None)
    ]  # fmt: skip
