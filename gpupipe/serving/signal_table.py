"""The signals of a scan: written as a file, and in sentences."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.artifacts.load import Models
from gpupipe.backtest.sources import absent_sentence, time_ns_of
from gpupipe.data.report import counted
from gpupipe.runtime.errors import UserError
from gpupipe.serving.display import Display
from gpupipe.serving.scan import ABOUT, Scanned, Signal
from gpupipe.store.content_store import write_atomic
from gpupipe.targets.classes import BUY, CLASSES, SELL

FORMATS = (".parquet", ".csv", ".json")
CALLED = f"{CLASSES[BUY]} or {CLASSES[SELL]}"


def check_name(path: pathlib.Path, option: str = "--to") -> None:
    """UserError unless the name says which of FORMATS is to be written."""
    if path.suffix not in FORMATS:
        raise UserError(f"{option} {path}: expected a name that ends in {', '.join(FORMATS)}")


def plain(signal: Signal) -> dict[str, Any]:
    """A signal as JSON holds it: NaN, which JSON has not, becomes null."""
    fields = ((field.name, getattr(signal, field.name)) for field in dataclasses.fields(signal))
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields}


def about(models: Models, scanned: Scanned, call: str) -> dict[str, Any]:
    """What a reader of the signals should know: whose models called, by which rule, what looks wrong, and how times
    and prices are shown."""
    return {
        "run_key": models.manifest["run_key"], "call": call, "degenerate": list(scanned.degenerate),
        "without_calls": list(scanned.without_calls), "display": scanned.display.to_json(),
    }  # fmt: skip


def write(path: pathlib.Path, scanned: Scanned, about: Mapping[str, Any]) -> None:
    """All signals as a table, atomically, in the format that the name says; `about` is in a Parquet file's metadata."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    rows = [plain(signal) for signal in scanned.signals]
    buffer = io.BytesIO()
    if path.suffix == ".json":
        buffer.write((json.dumps(rows, indent=1) + "\n").encode())
    else:
        table = pa.Table.from_pylist(rows).replace_schema_metadata({ABOUT: json.dumps(about, sort_keys=True)})
        (pyarrow.csv.write_csv if path.suffix == ".csv" else pyarrow.parquet.write_table)(table, buffer)
    write_atomic(path, buffer.getvalue())


def n_called(scanned: Scanned) -> tuple[int, int]:
    """How many symbols are called, and how many have signals."""
    return len(scanned.top(len(scanned.signals))), len({signal.symbol for signal in scanned.signals})


def called_sentence(scanned: Scanned) -> str:
    """How many symbols are called, by which model, on bars until when."""
    called, n_symbols = n_called(scanned)
    if not n_symbols:
        return "No signal."
    newest = max(scanned.signals, key=lambda signal: signal.time)
    when = f"by {newest.model}, on bars until {scanned.display.bar(newest.symbol, newest.time)}"
    if not called:
        known = any(math.isfinite(signal.expected_net_return) for signal in scanned.signals)
        why = ": no trade is worth its costs" if known else ""
        return f"None of {n_symbols:,} symbols is called {CALLED} {when}{why}."
    return f"{called:,} of {n_symbols:,} symbols are called {CALLED} {when}."


def seen_sentence(scanned: Scanned) -> str:
    """That the models have learned from the scanned bars; empty where the bars are out of sample."""
    if not scanned.unseen_from or scanned.until_ns >= time_ns_of(scanned.unseen_from):
        return ""
    return (
        f"These bars lie before {scanned.unseen_from}, where the sealed test begins: the models learned from bars of "
        "that time, or were chosen by them, so that their probabilities and expected returns are too good."
    )


def left_out_sentences(scanned: Scanned) -> list[str]:
    """Which symbols have no signal, and why."""
    sentences = []
    if scanned.stale:
        since = str(np.datetime64(scanned.since_ns, "ns").astype("datetime64[s]"))
        first = Display(scanned.display.intraday).bar("", since)
        times = "session dates" if scanned.by_session else "times"
        sentences.append(
            f"{counted(len(scanned.stale), 'symbol')} without a bar at the last {scanned.max_age} {times} of the data "
            f"(since {first}), not scanned: {_some(scanned.stale)}. --max-age sets how many {times}."
        )
    if scanned.unpredicted:
        sentences.append(
            f"No model, or too few bars: {counted(len(scanned.unpredicted), 'symbol')} ({_some(scanned.unpredicted)})."
        )
    if sentence := absent_sentence(scanned.absent):
        sentences.append(f"{sentence[0].upper()}{sentence[1:]}.")
    return sentences


def _some(symbols: tuple[str, ...]) -> str:
    return ", ".join(symbols[:5]) + (", ..." if len(symbols) > 5 else "")
