"""Write the files of a bar store: new files, then an atomic replacement of the manifest; old files stay until `clean`.

An ingest writes one small file for each sector with new bars. Files of a sector never overlap in time: read in order,
the bars of each symbol are sorted. A file is rewritten together with the new bars if they overlap it in time, or if one
of its bars has changed. A sector that would have more than MAX_FILES files is compacted into one.
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
from gpupipe.data.ingest.bar_table import NEW, BarTable, empty
from gpupipe.data.panel import BARS
from gpupipe.store.content_store import StoreError, dump_json, sha256, write_atomic

GENERATIONS, LOG = ".gpupipe/generations", "_log"
MAX_FILES = 16  # of a sector: with one new file a night, a sector is rewritten every 16th night
# libcudf decompresses and decodes one page per thread block: many pages in few row groups keep a GPU busy, many small
# row groups do not ("Do GPUs really need new tabular file formats?", arXiv:2602.17335: 100 pages or more per column
# chunk, row groups of up to 10 M rows). A page of 32 KiB holds 8,192 float32 prices; a file is one row group.
ROW_GROUP_ROWS, PAGE_BYTES = 1 << 22, 1 << 15
# A fifth smaller than plain encoding on the 505 stocks; libcudf decodes both encodings.
_ENCODING = {"time": "DELTA_BINARY_PACKED", **dict.fromkeys(BARS, "BYTE_STREAM_SPLIT")}
OFFSET = "utc_offset_s"  # seconds that the exchange's clock is ahead of UTC; only in files in which it is not zero
_PART_NAME = re.compile(r"part-[0-9]{6}-[0-9a-f]{12}\.parquet")


@dataclass(frozen=True)
class StorePlan:
    """The next version of a store: its manifest, and the contents of its new files.

    contents: `{path: bytes}`, relative to the store.

    >>> bars = BarTable(("A",), ("energy",), np.int32([0]), np.int64([0]), np.ones((1, 5), np.float32), np.int32([NEW]))
    >>> new_version = plan(bars, None, frozenset())
    >>> new_version.manifest.generation, new_version.manifest.rows, len(new_version.contents)
    (1, 1, 1)
    """

    manifest: Manifest
    contents: dict[str, bytes]


def read_bars(folder: pathlib.Path, manifest: Manifest | None) -> BarTable:
    """Read all bars of a store. Raises StoreError if a file's SHA-256 differs, DataError if a file is missing."""
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
        if OFFSET not in table.column_names:
            table = table.append_column(OFFSET, pa.array(np.zeros(table.num_rows, np.int32)))
        table = table.select(["symbol", "time", *BARS, OFFSET])
        tables.append(table.append_column("file", pa.array(np.full(table.num_rows, k, np.int32))))
    merged = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    column = pc.cast(merged["symbol"], pa.dictionary(pa.int32(), pa.string())).combine_chunks()
    unsorted_names = column.dictionary.to_pylist()
    names = tuple(sorted(unsorted_names))
    rank = {name: k for k, name in enumerate(names)}
    symbol = np.array([rank[name] for name in unsorted_names], np.int32)[column.indices.to_numpy()]
    file_of_row = merged["file"].to_numpy()
    time_ns = merged["time"].cast(pa.int64()).to_numpy()
    values = np.stack([merged[name].to_numpy() for name in BARS], axis=1)
    order = np.lexsort((time_ns, symbol))
    symbol, file_of_row = symbol[order], file_of_row[order]
    first_rows = np.searchsorted(symbol, np.arange(len(names)))
    sectors = tuple(manifest.files[file_of_row[row]].sector for row in first_rows)
    offset_ns = merged[OFFSET].to_numpy()[order].astype(np.int64) * 10**9
    time_ns = time_ns[order]
    local_ns = time_ns + offset_ns if offset_ns.any() else None
    return BarTable(names, sectors, symbol, time_ns, values[order], file_of_row, local_ns)


def plan(
    bars: BarTable, manifest: Manifest | None, stale: frozenset[int], *, compact: bool = False
) -> StorePlan | None:
    """Plan the version of a store that holds exactly `bars`; None if the current one does.

    stale: positions of files with a bar that was changed, moved or removed.  compact: every sector becomes one file.
    """
    files = manifest.files if manifest is not None else ()
    generation = (manifest.generation if manifest is not None else 0) + 1
    by_sector: dict[str, list[int]] = {}
    for k, file in enumerate(files):
        by_sector.setdefault(file.sector, []).append(k)
    sectors = sorted({*by_sector, *bars.sectors})
    sector_of_row = np.array([sectors.index(name) for name in bars.sectors], np.int32)[bars.symbol]
    kept, contents = [], {}
    for number, sector in enumerate(sectors):
        rows = np.flatnonzero(sector_of_row == number)
        sector_files = {k: files[k] for k in by_sector.get(sector, [])}
        new_rows = rows[bars.file[rows] == NEW]
        rewritten = _files_to_rewrite(sector_files, bars.time_ns[new_rows], stale, compact=compact)
        kept += [file for k, file in sector_files.items() if k not in rewritten]
        chosen = rows[(bars.file[rows] == NEW) | np.isin(bars.file[rows], sorted(rewritten))]
        if len(chosen):
            file, content = _encode(bars.take(chosen), sector, generation)
            kept.append(file)
            contents[file.path] = content
    if not contents and len(kept) == len(files):
        return None
    kept.sort(key=lambda file: (file.sector, file.first_ns))
    return StorePlan(Manifest(generation, tuple(kept)), contents)


def _files_to_rewrite(
    files: dict[int, PartFile], new_ns: np.ndarray, stale: frozenset[int], *, compact: bool
) -> set[int]:
    """The positions of a sector's files that are rewritten together with its new bars; new_ns: times of those bars."""
    rewritten = {k for k in files if k in stale}
    if not len(new_ns) and not rewritten:
        return set(files) if compact and len(files) > 1 else set()
    if compact or len(files) - len(rewritten) + 1 > MAX_FILES:
        return set(files)
    new_range = [(int(new_ns.min()), int(new_ns.max()))] if len(new_ns) else []
    while True:  # the range of a rewritten file may overlap the next file
        ranges = [*new_range, *((files[k].first_ns, files[k].last_ns) for k in rewritten)]
        low, high = min(first for first, _ in ranges), max(last for _, last in ranges)
        overlapping = {k for k, file in files.items() if file.first_ns <= high and file.last_ns >= low}
        if overlapping <= rewritten:
            return rewritten
        rewritten |= overlapping


def _encode(bars: BarTable, sector: str, generation: int) -> tuple[PartFile, bytes]:
    """Encode bars of one sector as one Parquet file; equal bars give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    present, code = np.unique(bars.symbol, return_inverse=True)
    names = pa.array([bars.names[k] for k in present], pa.string())
    table = pa.table(
        {
            "symbol": pa.DictionaryArray.from_arrays(pa.array(code.astype(np.int32)), names),
            "time": pa.array(bars.time_ns).cast(pa.timestamp("ns", "UTC")),
            **{name: pa.array(np.ascontiguousarray(bars.values[:, j])) for j, name in enumerate(BARS)},
        }
    )
    offset_s = (bars.clock_ns - bars.time_ns) // 10**9
    if offset_s.any():
        table = table.append_column(OFFSET, pa.array(offset_s.astype(np.int32)))
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        data_page_size=PAGE_BYTES,
        use_dictionary=["symbol"],
        column_encoding={**_ENCODING, OFFSET: "DELTA_BINARY_PACKED"} if offset_s.any() else _ENCODING,
        write_batch_size=1024,
    )
    content = buffer.getvalue()
    digest = sha256(content)
    path = f"{bar_store.sector_folder(sector)}/part-{generation:06}-{digest[:12]}.parquet"
    first, last = int(bars.time_ns.min()), int(bars.time_ns.max())
    return PartFile(path, sector, bars.n_rows, len(present), first, last, digest, len(content)), content


def check_folder(folder: pathlib.Path) -> Manifest | None:
    """Return a store's manifest, None if a store may be created; StoreError if the folder holds anything else."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"--store {folder} is a file, expected a folder")
    manifest = bar_store.read_manifest(folder)
    if manifest is None and folder.exists():
        for path in folder.rglob("*"):
            inside = path.relative_to(folder).parts
            if inside[0] in (".gpupipe", LOG) or path.is_dir() or _is_part(path) or path.name.endswith(".tmp"):
                continue
            raise StoreError(f"--store {folder} holds {'/'.join(inside)} and is no bar store: choose a new folder")
    return manifest


def _is_part(path: pathlib.Path) -> bool:
    """Whether a file's name is one that an ingest writes."""
    return path.parent.name.startswith("sector=") and _PART_NAME.fullmatch(path.name) is not None


def commit(folder: pathlib.Path, planned: StorePlan, previous: Manifest | None) -> None:
    """Make a planned version current. If killed at any moment, the store holds the previous version or this one.

    The caller holds the lock. The order is: new files under new names; the previous manifest to the generations; the
    manifest; files that it no longer names to the superseded ones.
    """
    for path, content in planned.contents.items():
        write_atomic(folder / path, content)
    if previous is not None:
        write_atomic(folder / GENERATIONS / f"{previous.generation:06}.json", dump_json(previous.to_json()))
    write_atomic(folder / bar_store.MANIFEST, dump_json(planned.manifest.to_json()))
    clean_up(folder)


def clean_up(folder: pathlib.Path, *, skip_damaged: bool = False) -> None:
    """Move files of earlier generations to the superseded ones, and delete the files of a killed ingest.

    The caller holds the lock. Only files that an ingest has written are touched.
    skip_damaged: pass over damaged manifests of earlier generations, for a caller that removes all of these.
    """
    current = bar_store.read_manifest(folder)
    current_paths = {file.path for file in current.files} if current is not None else set()
    earlier = generations(folder, skip_damaged=skip_damaged)
    earlier_paths = {file.path for manifest in earlier.values() for file in manifest.files}
    for path in sorted(folder.glob("sector=*/part-*.parquet")):
        relative = path.relative_to(folder).as_posix()
        if relative in current_paths or not _is_part(path):
            continue
        if relative in earlier_paths:
            target = folder / bar_store.SUPERSEDED / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        else:
            path.unlink()
    for relative in current_paths:  # a restore has written files of an earlier generation again
        if (folder / relative).exists():
            (folder / bar_store.SUPERSEDED / relative).unlink(missing_ok=True)
    for leftover in folder.glob("sector=*/.part-*.tmp"):
        leftover.unlink()
    for sector in folder.glob("sector=*"):
        if sector.is_dir() and not any(sector.iterdir()):
            sector.rmdir()


def generations(folder: pathlib.Path, *, skip_damaged: bool = False) -> dict[int, Manifest]:
    """Read the earlier versions that can be restored: `{generation: manifest}`.

    StoreError for a damaged manifest, unless those are skipped.
    """
    manifests = {}
    for path in sorted((folder / GENERATIONS).glob("*.json")):
        try:
            manifest = bar_store.parse_manifest(json.loads(path.read_bytes()), str(path))
        except ValueError as error:
            if skip_damaged:
                continue
            raise StoreError(
                f"{path}: cannot be read ({error}); gpupipe ingest --clean --store {folder} removes it, with all "
                "earlier generations"
            ) from error
        manifests[manifest.generation] = manifest
    return manifests
