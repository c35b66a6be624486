"""What the models of a walk-forward said of rows that they had not seen: OUT/walk_forward, and how it is read again."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.artifacts.layout import WALKED
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.data.panel import Panel
from gpupipe.data.report import data_hash
from gpupipe.store.content_store import FORMAT, Store, StoreError, dump_json, sha256
from gpupipe.targets.classes import percent

if TYPE_CHECKING:
    import pyarrow

FOLDER, JSON = WALKED, "folds.json"
Model = tuple[str, int, float]  # family, horizon, threshold


@dataclass(frozen=True)
class Said:
    """What the models of one fold and sector said of its test window.

    rows: int64 (n_rows,), ascending, of the sector's Dataset: all that are warm, also those whose labels are not known,
        which nobody could have told then.
    models: family, horizon and threshold of each.  values: float32 (n_rows, n_models, 2), of SELL and BUY.
    cutoffs: of each model, from which probability on a row is called BUY and SELL: chosen on the fold's validation.
    learned_until_ns: the last time at which a label of the fold's training or validation rows became known, in any
        sector.
    """

    sector: str
    rows: np.ndarray
    models: tuple[Model, ...]
    values: np.ndarray
    cutoffs: tuple[tuple[float, float], ...]
    learned_until_ns: int


@dataclass(frozen=True)
class Window:
    """A fold's test: rows of from_ns <= time < until_ns; its models learned from nothing after learned_until_ns."""

    name: str
    from_ns: int
    until_ns: int
    learned_until_ns: int


@dataclass(frozen=True)
class Kept:
    """The walk-forward of a finished run, read and checked.

    windows: in time, one after the other.  tables: of each sector, columns symbol, time, fold (number of the window),
        and for each model NAME_sell and NAME_buy, float32, null where the fold has no such model.
    cutoffs: of each sector, float32 (n_windows, n_models, 2), of BUY and SELL; NaN where there is no such model.
    data_hash: of each sector's bars up to `last_time_ns`.
    """

    out: pathlib.Path
    windows: tuple[Window, ...]
    models: tuple[Model, ...]
    tables: dict[str, pyarrow.Table]
    cutoffs: dict[str, np.ndarray]
    data_hash: dict[str, str]
    last_time_ns: int

    @property
    def names(self) -> list[str]:
        """Of each model, as the tables' columns have them."""
        return names_of(self.models)


def names_of(wanted: Sequence[Model]) -> list[str]:
    """One for each model, as artifacts.Predictions has them: "meta_learner_5d_10pct"."""
    return [f"{family}_{h}d_{percent(t)}pct" for family, h, t in wanted]


def until(panel: Panel, last_time_ns: int) -> Panel:
    """The panel's bars up to a time, that included; symbols without one stay."""
    until_then = panel.time_ns <= last_time_ns
    return panel if bool(until_then.all()) else panel.take(until_then, keep_empty=True)


def publish(
    store: Store, panel: Panel, origins: Sequence[FoldTimes], said: Sequence[Sequence[Said]], run_key: str
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Write OUT/walk_forward: a Parquet file a sector and folds.json; return their manifest entries by path.

    said: of each origin, its sectors.
    """
    windows = [
        Window(at.name, at.test[0].start, at.test[-1].stop, max(one.learned_until_ns for one in own))
        for at, own in zip(origins, said, strict=True)
    ]
    families = sorted({model[0] for own in said for one in own for model in one.models})  # as artifacts.load has them
    labels = sorted({model[1:] for own in said for one in own for model in one.models})
    all_models = [(family, h, t) for h, t in labels for family in families]
    entries: dict[str, dict[str, Any]] = {}
    about: dict[str, Any] = {}
    for sector in dict.fromkeys(one.sector for own in said for one in own):
        parts = [next((one for one in own if one.sector == sector), None) for own in said]
        own_panel = panel.of_group(sector)
        name = f"{FOLDER}/{sector}.parquet"
        entries[name] = store.publish(name, _parquet(_table(own_panel, parts, all_models)))
        about[sector] = {
            "file": name, "rows": sum(len(part.rows) for part in parts if part), "data_hash": data_hash(own_panel),
            "cutoffs": [
                [dict(zip(part.models, part.cutoffs, strict=True)).get(model) if part else None for model in all_models]
                for part in parts
            ],
        }  # fmt: skip
    whole = {
        "format": FORMAT, "run_key": run_key, "windows": [dataclasses.asdict(one) for one in windows],
        "models": all_models, "sectors": about, "last_time_ns": int(panel.time_ns.max()),
    }  # fmt: skip
    name = f"{FOLDER}/{JSON}"
    return {**entries, name: store.publish(name, dump_json(whole))}


def _table(panel: Panel, parts: Sequence[Said | None], all_models: Sequence[Model]) -> pyarrow.Table:
    import pyarrow as pa

    to_host = panel.device.to_host
    there = [(k, part) for k, part in enumerate(parts) if part]
    rows = np.concatenate([part.rows for _, part in there])
    columns: dict[str, Any] = {
        "symbol": pa.DictionaryArray.from_arrays(
            pa.array(to_host(panel.symbol_of_row)[rows]), pa.array(list(panel.symbols), pa.string())
        ),
        "time": pa.array(to_host(panel.time_ns)[rows]).cast(pa.timestamp("ns", "UTC")),
        "fold": pa.array(np.concatenate([np.full(len(part.rows), k, np.int16) for k, part in there])),
    }
    for model, name in zip(all_models, names_of(all_models), strict=True):
        own = [
            part.values[:, part.models.index(model)] if model in part.models
            else np.full((len(part.rows), 2), np.nan, np.float32)
            for _, part in there
        ]  # fmt: skip
        both = np.concatenate(own)
        for c, word in enumerate(("sell", "buy")):
            columns[f"{name}_{word}"] = pa.array(both[:, c], from_pandas=True)
    return pa.table(columns)


def _parquet(table: pyarrow.Table) -> bytes:
    """Floats are split by bytes: exponents of probabilities repeat, their last bits do not."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    split = {name: "BYTE_STREAM_SPLIT" for name in table.column_names[3:]}
    pq.write_table(table, buffer, compression="zstd", use_dictionary=["symbol"], column_encoding=split)
    return buffer.getvalue()


def read(out: str | os.PathLike[str], manifest: Mapping[str, Any]) -> Kept | None:
    """The walk-forward of a finished run, or None if it had none; StoreError for a file that is gone or altered."""
    import pyarrow.parquet as pq

    name = f"{FOLDER}/{JSON}"
    if name not in manifest["files"]:
        return None
    about = json.loads(_checked(out, manifest, name))
    tables = {
        sector: pq.read_table(io.BytesIO(_checked(out, manifest, one["file"])))
        for sector, one in about["sectors"].items()
    }
    nothing = (np.nan, np.nan)
    cutoffs = {
        sector: np.array([[pair or nothing for pair in own] for own in one["cutoffs"]], np.float32)
        for sector, one in about["sectors"].items()
    }
    return Kept(
        pathlib.Path(out), tuple(Window(**one) for one in about["windows"]),
        tuple((family, h, t) for family, h, t in about["models"]), tables, cutoffs,
        {sector: one["data_hash"] for sector, one in about["sectors"].items()}, about["last_time_ns"],
    )  # fmt: skip


def _checked(out: str | os.PathLike[str], manifest: Mapping[str, Any], name: str) -> bytes:
    path = pathlib.Path(out) / name
    content = path.read_bytes() if name in manifest["files"] and path.is_file() else b""
    if sha256(content) != manifest["files"].get(name, {}).get("sha256"):
        raise StoreError(f"{path} is gone or was altered since it was written: run again with --out {out}")
    return content
