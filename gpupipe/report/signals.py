"""Signals of the last scan whose files are in OUT."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Any

from gpupipe.artifacts.summary import title_of
from gpupipe.backtest.calling import registry
from gpupipe.report.formatting import to_percent
from gpupipe.report.page import Section, Shown, Table
from gpupipe.runtime.errors import UserError
from gpupipe.serving.display import Display
from gpupipe.serving.scan import ABOUT

SIGNALS, ACTIVE = "signals.parquet", "signals.sqlite"  # files in OUT, written by `gpupipe nightly`
SHOWN, MOST = 20, 200  # rows of the open table, and of both tables together
NEEDED = ("symbol", "sector", "time", "side", "horizon", "threshold", "p_buy", "p_sell", "base_buy", "base_sell",
          "expected_net_return", "uncertainty", "close", "model")  # fmt: skip
COLUMNS = [("symbol", False), ("sector", False), ("bar", False), ("side", False), ("label", False),
           ("net, %", True), ("±", True), ("P(BUY), %", True), ("base of BUY, %", True), ("P(SELL), %", True),
           ("base of SELL, %", True), ("agreement, %", True), ("close", True), ("entry from", True), ("entry to", True),
            ("stop", True), ("target", True)]  # fmt: skip


def signals(out: pathlib.Path, whole: Mapping[str, Any]) -> Section:
    """The strongest signals of the last scan and the date of their bars; a sentence where there is no readable scan.

    out: the folder of the run.  whole: its summary.
    """
    title = "Signals"
    path = out / SIGNALS
    command = f"gpupipe scan --models {out} --data ... --to {path} --active {out / ACTIVE}"
    if not path.exists():
        return Section(title, [f"No scan has written signals to this folder yet. Command: {command}"])
    content = _read(path)
    if content is None:
        return Section(title, [f"{path} is not a file of gpupipe scan. Write it again with: {command}"])
    rows, about = content
    if not rows:
        return Section(title, [f"The scan in {path.name} has no signal for any symbol."])
    display = Display.from_json(about.get("display"))  # files of older versions have none
    sessions = {(row["symbol"], row["time"]): display.session(row["symbol"], row["time"]) for row in rows}
    latest = max(sessions.values())
    outdated = {symbol for (symbol, _), session in sessions.items() if session != latest}
    rows = [row for row in rows if row["symbol"] not in outdated]
    best: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["side"] != "HOLD" and (row["symbol"] not in best or _order(row) < _order(best[row["symbol"]])):
            best[row["symbol"]] = row
    called = sorted(best.values(), key=_order)
    sides = Counter(row["side"] for row in called)
    n_symbols = len({row["symbol"] for row in rows})
    text = [
        f"On the bars of {latest}, {rows[0]['model']} has {sides['BUY']:,} BUY and {sides['SELL']:,} SELL signals, by "
        f"the best call of each symbol; {n_symbols - len(called):,} of {n_symbols:,} symbols are HOLD. "
        f"{registry.rule(about['call']).sentence} Net is what the trade of a call is expected to earn after costs, "
        "learned on rows that the models had not seen, with its standard error; probabilities stand "
        "beside the sector's base rates, the shares of its training rows; agreement is the share of the other families "
        "with the same call. A call is not a promise: see Verdict for whether these models have skill.",
        *about["without_calls"],
    ]  # fmt: skip
    if outdated:
        text.append(f"Left out: {len(outdated):,} symbols whose last bar is older.")
    if about["run_key"] != whole["run_key"]:
        text.append(f"Other models than the ones in this folder made this scan. To scan with these models: {command}")
    text += [f"{sentence}." for sentence in about["degenerate"]]
    parts: list[Any] = []
    for first, last in ((0, SHOWN), (SHOWN, MOST)):
        if shown := [_row(row, display) for row in called[first:last]]:
            caption = f"Signals {first + 1} to {first + len(shown)} of {len(called):,} on {latest}, the best first"
            parts.append(Table(caption, COLUMNS, shown, folded=first > 0))
    if (active := _active(out / ACTIVE, display)) is not None:
        kinds = Counter(row[0] for row in active)
        counts = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()) or "none"
        text.append(f"Active signals in {ACTIVE}: {counts}.")
        if active:
            columns = [(name, False) for name in ("status", "symbol", "side", "since", "updated")]
            caption = f"Active signals, {min(MOST, len(active)):,} of {len(active):,}, the latest first"
            parts.append(Table(caption, columns, active[:MOST], folded=True))
    return Section(title, text, parts)


def _read(path: pathlib.Path) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """Rows and metadata of a file of gpupipe scan; None for any other file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        about: dict[str, Any] = json.loads((table.schema.metadata or {})[ABOUT])
        registry.rule(about["call"])
        known = {"run_key", "degenerate", "without_calls"} <= about.keys()
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, UserError):
        return None
    rows: list[dict[str, Any]] = table.to_pylist()
    return (rows, about) if known and all(name in table.column_names for name in NEEDED if rows) else None


def _row(row: Mapping[str, Any], display: Display) -> list[Any]:
    prices = [row.get(name) for name in ("close", "entry_low", "entry_high", "stop", "target")]
    texts = display.prices(row["symbol"], prices)
    shown = [None if price is None else Shown(price, text) for price, text in zip(prices, texts, strict=True)]
    bar = display.bar(row["symbol"], row["time"])
    signal = [row["symbol"], row["sector"], bar, row["side"], title_of(dict(row))]
    figures = ("expected_net_return", "uncertainty", "p_buy", "base_buy", "p_sell", "base_sell", "agreement")
    return [*signal, *(to_percent(row[name]) for name in figures), *shown]


def _order(row: Mapping[str, Any]) -> tuple[float, float, str]:
    """A key that sorts signals as `Scanned.top` does: by expected net return; those without one last, by how often
    their class is more probable than usual."""
    expected, side = row["expected_net_return"], row["side"].lower()
    base = row.get(f"base_{side}")
    return math.inf if expected is None else -expected, -(row[f"p_{side}"] / base) if base else 0.0, row["symbol"]


def _active(path: pathlib.Path, display: Display) -> list[list[Any]] | None:
    """Status, symbol, side, the bars of creation and last update; None if there is no such table."""
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(
                "select status, symbol, side, created, updated from active_signals order by updated desc, symbol"
            )
            return [[*row[:3], *(display.bar(row[1], str(time)) for time in row[3:])] for row in rows]
    except sqlite3.Error:
        return None


def failed_night_steps(out: pathlib.Path) -> list[list[str]]:
    """Name with status, and detail, of each step of the last night that was not OK.

    A line of OUT/nightly.jsonl is either a whole night, with its "steps", or one step.
    """
    path = out / "nightly.jsonl"
    if not path.exists():
        return []
    nights: dict[str, list[Mapping[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "night" in entry:
            nights.setdefault(entry["night"], []).extend(entry.get("steps", [entry]))
    steps = list(nights.values())[-1] if nights else []
    return [
        [f"nightly step {step['name']}: {step['status']}", step.get("detail", "")]
        for step in steps if step.get("status") not in ("OK", None)
    ]  # fmt: skip
