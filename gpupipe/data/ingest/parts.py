"""The files of a bar store: written under new names, made current by one swap of the manifest, kept until `clean`.

An append writes one small file for each sector that has new bars. Files of a sector never overlap in time, so that
read one after the other they are sorted within each symbol; a file that new bars reach back into, or that holds a bar
which changed, is written again together with them. With more than MOST_PARTS files a sector becomes one file again.
"""

from __future__ import annotations

import io
import json
import pathlib
import re
from dataclasses import dataclass

import numpy as np

from gpupipe.data import bar_store
from gpupipe.data.bar_store import Manifest, PartFile
from gpupipe.data.ingest.rows import NEW, Rows, empty
from gpupipe.data.panel import COLUMNS
from gpupipe.store.content_store import StoreError, dump_json, sha256, write_atomic

GENERATIONS, LOG = ".gpupipe/generations", "_log"
MOST_PARTS = 16  # files of a sector: one is written every night, so a sector is written whole every 16th
# libcudf decompresses and decodes a page per thread block: many pages in few row groups keep a GPU busy, many small
# row groups do not ("Do GPUs really need new tabular file formats?", arXiv:2602.17335: 100 pages or more a column
# chunk, row groups of up to 10 M rows). Pages of 32 KiB are 8,192 float32 prices; a sector is one row group.
ROW_GROUP_ROWS, PAGE_BYTES = 1 << 22, 1 << 15
# A fifth smaller than plain values on the 505 stocks; libcudf decodes both.
_ENCODING = {"time": "DELTA_BINARY_PACKED", **dict.fromkeys(COLUMNS, "BYTE_STREAM_SPLIT")}
_OWN = re.compile(r"part-[0-9]{6}-[0-9a-f]{12}\.parquet")


@dataclass(frozen=True)
class Planned:
    """The next version of a store: its manifest, and the contents of the files in it that are new."""

    manifest: Manifest
    contents: dict[str, bytes]


def read_rows(folder: pathlib.Path, manifest: Manifest | None) -> Rows:
    """All bars of a store. Raises StoreError for a file that is not as the manifest says, DataError if it is gone."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if manifest is None or not manifest.files:
        return empty()
    tables = []
    for k, file in enumerate(manifest.files):
        path = bar_store.locate(folder, file)
        content = path.read_bytes()
        if sha256(content) != file.sha256:
            raise StoreError(f"{path} was altered: restore a generation, or ingest its bars into another store")
        table = pq.read_table(pa.BufferReader(content), read_dictionary=["symbol"])
        tables.append(table.append_column("part", pa.array(np.full(table.num_rows, k, np.int32))))
    whole = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    column = pc.cast(whole["symbol"], pa.dictionary(pa.int32(), pa.string())).combine_chunks()
    raw = column.dictionary.to_pylist()
    names = tuple(sorted(raw))
    rank = {name: k for k, name in enumerate(names)}
    symbol = np.array([rank[name] for name in raw], np.int32)[column.indices.to_numpy()]
    part = whole["part"].to_numpy()
    time_ns = whole["time"].cast(pa.int64()).to_numpy()
    values = np.stack([whole[name].to_numpy() for name in COLUMNS], axis=1)
    order = np.lexsort((time_ns, symbol))
    symbol, part = symbol[order], part[order]
    first = np.searchsorted(symbol, np.arange(len(names)))
    sector = tuple(manifest.files[part[row]].sector for row in first)
    return Rows(names, sector, symbol, time_ns[order], values[order], part)


def plan(rows: Rows, manifest: Manifest | None, stale: frozenset[int], *, compact: bool = False) -> Planned | None:
    """What is to be written so that a store holds `rows`; None where it holds them already.

    stale: files that hold a bar which has changed, moved or gone.  compact: every sector becomes one file.
    """
    files = manifest.files if manifest is not None else ()
    generation = (manifest.generation if manifest is not None else 0) + 1
    by_sector: dict[str, list[int]] = {}
    for k, file in enumerate(files):
        by_sector.setdefault(file.sector, []).append(k)
    sectors = sorted({*by_sector, *rows.sector})
    sector_of_row = np.array([sectors.index(name) for name in rows.sector], np.int32)[rows.symbol]
    kept, contents = [], {}
    for number, sector in enumerate(sectors):
        mine = np.flatnonzero(sector_of_row == number)
        own = by_sector.get(sector, [])
        again = _written_again(rows, mine, own, files, stale, compact=compact)
        kept += [files[k] for k in own if k not in again]
        chosen = mine[(rows.part[mine] == NEW) | np.isin(rows.part[mine], sorted(again))]
        if len(chosen):
            file, content = _part(rows.take(chosen), sector, generation)
            kept.append(file)
            contents[file.path] = content
    if not contents and len(kept) == len(files):
        return None
    kept.sort(key=lambda file: (file.sector, file.first_ns))
    return Planned(Manifest(generation, tuple(kept)), contents)


def _written_again(
    rows: Rows, mine: np.ndarray, own: list[int], files: tuple[PartFile, ...], stale: frozenset[int], *, compact: bool
) -> set[int]:
    """Which of the files `own` of one sector are to be written again, together with its new rows."""
    again = {k for k in own if k in stale}
    new = rows.time_ns[mine[rows.part[mine] == NEW]]
    if not len(new) and not again:
        return set(own) if compact and len(own) > 1 else set()
    if compact or len(own) - len(again) + 1 > MOST_PARTS:
        return set(own)
    spans = [(int(new.min()), int(new.max()))] if len(new) else []
    while True:  # a file that is written again may reach into the next
        spans_now = [*spans, *((files[k].first_ns, files[k].last_ns) for k in again)]
        low, high = min(first for first, _ in spans_now), max(last for _, last in spans_now)
        met = {k for k in own if files[k].first_ns <= high and files[k].last_ns >= low}
        if met <= again:
            return again
        again |= met


def _part(rows: Rows, sector: str, generation: int) -> tuple[PartFile, bytes]:
    """One file of these rows; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    present, code = np.unique(rows.symbol, return_inverse=True)
    names = pa.array([rows.names[k] for k in present], pa.string())
    table = pa.table(
        {
            "symbol": pa.DictionaryArray.from_arrays(pa.array(code.astype(np.int32)), names),
            "time": pa.array(rows.time_ns).cast(pa.timestamp("ns", "UTC")),
            **{name: pa.array(np.ascontiguousarray(rows.values[:, j])) for j, name in enumerate(COLUMNS)},
        }
    )
    buffer = io.BytesIO()
    pq.write_table(
        table, buffer, compression="zstd", row_group_size=ROW_GROUP_ROWS, data_page_size=PAGE_BYTES,
        use_dictionary=["symbol"], column_encoding=_ENCODING, write_batch_size=1024,
    )  # fmt: skip
    content = buffer.getvalue()
    digest = sha256(content)
    path = f"{bar_store.sector_folder(sector)}/part-{generation:06}-{digest[:12]}.parquet"
    first, last = int(rows.time_ns.min()), int(rows.time_ns.max())
    return PartFile(path, sector, rows.n_rows, len(present), first, last, digest, len(content)), content


def check_folder(folder: pathlib.Path) -> Manifest | None:
    """The manifest of a store, None where one may be begun; StoreError where the folder holds something else."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"--store {folder} is a file, expected a folder")
    manifest = bar_store.read_manifest(folder)
    if manifest is None and folder.exists():
        for path in folder.rglob("*"):
            inside = path.relative_to(folder).parts
            if inside[0] in (".gpupipe", LOG) or path.is_dir() or _is_own(path) or path.name.endswith(".tmp"):
                continue
            raise StoreError(f"--store {folder} holds {'/'.join(inside)} and is no bar store: choose a new folder")
    return manifest


def _is_own(path: pathlib.Path) -> bool:
    return path.parent.name.startswith("sector=") and _OWN.fullmatch(path.name) is not None


def commit(folder: pathlib.Path, planned: Planned, before: Manifest | None) -> None:
    """Make a planned version current. Killed at any moment, the store holds the version before or this one.

    The caller holds the lock. In this order: new files under new names; the manifest before among the generations;
    the manifest; files that it no longer names go to the superseded ones.
    """
    for path, content in planned.contents.items():
        write_atomic(folder / path, content)
    if before is not None:
        write_atomic(folder / GENERATIONS / f"{before.generation:06}.json", dump_json(before.to_json()))
    write_atomic(folder / bar_store.MANIFEST, dump_json(planned.manifest.to_json()))
    tidy(folder)


def tidy(folder: pathlib.Path) -> None:
    """Put away what no current version names: kept generations' files are moved, those of a killed ingest deleted.

    The caller holds the lock. Only files that an ingest has written are touched.
    """
    current = bar_store.read_manifest(folder)
    named = {file.path for file in current.files} if current is not None else set()
    earlier = {file.path for manifest in generations(folder).values() for file in manifest.files}
    for path in sorted(folder.glob("sector=*/part-*.parquet")):
        relative = path.relative_to(folder).as_posix()
        if relative in named or not _is_own(path):
            continue
        if relative in earlier:
            target = folder / bar_store.SUPERSEDED / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        else:
            path.unlink()
    for relative in named:  # of a restored generation: they are back in their place
        if (folder / relative).exists():
            (folder / bar_store.SUPERSEDED / relative).unlink(missing_ok=True)
    for leftover in folder.glob("sector=*/.part-*.tmp"):
        leftover.unlink()
    for sector in folder.glob("sector=*"):
        if sector.is_dir() and not any(sector.iterdir()):
            sector.rmdir()


def generations(folder: pathlib.Path) -> dict[int, Manifest]:
    """The earlier versions that can be restored, by their number. Raises DataError for a damaged one."""
    found = {}
    for path in sorted((folder / GENERATIONS).glob("*.json")):
        try:
            manifest = bar_store.parse_manifest(json.loads(path.read_bytes()), str(path))
        except ValueError as error:
            raise StoreError(f"{path}: cannot be read ({error}); gpupipe ingest --clean drops it") from error
        found[manifest.generation] = manifest
    return found
