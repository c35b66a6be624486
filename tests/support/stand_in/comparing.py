"""What differs between the files that a job wrote on a CPU and on a device."""

from __future__ import annotations

import fnmatch
import json
import pathlib
from collections.abc import Iterator
from typing import Any

# Files of the run itself: caches by device, logs and locks, digests of files that hold times.
LEFT_OUT = (
    "bars.parquet", "counts.json", "OUT/.gpupipe/*", "*.jsonl", "*lock", "OUT/manifest.json", "*/_log/*",
    "OUT/report.html", "cache/*",
)  # fmt: skip
# Keys of JSON, and columns of tables, that say which device it was, how long it took and how much memory.
OF_THE_RUN = (
    "*seconds*", "device*", "bus_bytes", "*peak*bytes*", "memory", "units", "run_key", "reason", "versions", "*_s",
    "kernels", "key", "path", "reader", "placement", "place",
    "rows_per_second",
)  # fmt: skip


def differences(cpu: pathlib.Path, cuda: pathlib.Path) -> list[str]:
    """One line for each file that is not the same in both folders, with what differs in it."""
    names = [_files(folder) for folder in (cpu, cuda)]
    lines = [f"{name}: on one device alone" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if (cpu / name).read_bytes() != (cuda / name).read_bytes():
            found = list(_in_file(cpu / name, cuda / name))
            lines += [f"{name}: {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"] if found else []
    return lines


def _files(folder: pathlib.Path) -> set[str]:
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name for name in names if not _matches(name, LEFT_OUT)}


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _in_file(cpu: pathlib.Path, cuda: pathlib.Path) -> Iterator[str]:
    """Where two files of unequal bytes differ, but for what tells of the run."""
    if cpu.suffix == ".json":
        yield from _in_json(*(json.loads(path.read_text()) for path in (cpu, cuda)), "")
    elif cpu.suffix == ".parquet":
        yield from _in_table(cpu, cuda)
    else:
        yield "bytes"


def _in_json(cpu: Any, cuda: Any, where: str) -> Iterator[str]:
    if isinstance(cpu, dict) and isinstance(cuda, dict):
        for key in sorted({*cpu, *cuda}):
            if not _matches(key, OF_THE_RUN):
                yield from _in_json(cpu.get(key), cuda.get(key), f"{where}.{key}" if where else key)
    elif isinstance(cpu, list) and isinstance(cuda, list) and len(cpu) == len(cuda):
        for k, pair in enumerate(zip(cpu, cuda, strict=True)):
            yield from _in_json(*pair, f"{where}[{k}]")
    elif cpu != cuda and not (cpu != cpu and cuda != cuda):
        yield f"{where} {cpu!r} and {cuda!r}"[:120]


def _in_table(cpu: pathlib.Path, cuda: pathlib.Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    tables = [pq.read_table(path) for path in (cpu, cuda)]
    if tables[0].schema.names != tables[1].schema.names or len(tables[0]) != len(tables[1]):
        yield "another schema or number of rows"
        return
    for name in tables[0].schema.names:
        if not _matches(name, OF_THE_RUN):
            columns = [table[name].combine_chunks() for table in tables]
            n = sum(a != b for a, b in zip(*(map(repr, column.to_pylist()) for column in columns), strict=True))
            if n:
                yield f"{name} in {n} of {len(tables[0])} rows"
