"""What differs between the files that a job wrote on a CPU and on a device."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# Files of the run itself: caches by device, logs and locks, digests of files that hold times.
LEFT_OUT = (
    "bars.parquet", "counts.json", "OUT/.gpupipe/*", "*.jsonl", "*lock", "OUT/manifest.json", "*/_log/*",
    "OUT/report.html", "OUT/latest", "cache/*",
)  # fmt: skip
# Keys of JSON, and columns of tables, that say which device it was, how long it took and how much memory.
OF_THE_RUN = (
    "*seconds*", "device*", "bus_bytes", "*peak*bytes*", "memory", "units", "run_key", "reason", "versions", "*_s",
    "kernels", "key", "path", "reader", "placement", "place",
    "*_per_second", "*_minutes", "*_hours", "*timestamp", "clock", "cache_found",
)  # fmt: skip
_DIGEST = re.compile(r"[0-9a-f]{12,64}")


@dataclasses.dataclass(frozen=True)
class Near:
    """How near the numbers of files that a network has a part in have to be to each other.

    relative, absolute: as of `math.isclose`.  files: which they are, as patterns; all others have equal bytes.
    exact: models whose rows in tables, and whose keys in JSON, are equal all the same.
    Digests of contents, which name versions and cached parts, may differ, and exported graphs are left out.

        >>> Near(1e-3, 1e-6, ("*.safetensors",)).holds(1.0, 1.0005), Near(1e-3, 1e-6, ()).holds(1.0, 1.1)
        (True, False)
    """

    relative: float
    absolute: float
    files: tuple[str, ...]
    exact: tuple[str, ...] = ()

    def holds(self, cpu: float, cuda: float) -> bool:
        """Whether two numbers are near each other."""
        return math.isclose(cpu, cuda, rel_tol=self.relative, abs_tol=self.absolute)


_EQUAL = Near(0.0, 0.0, ())


def differences(cpu: pathlib.Path, cuda: pathlib.Path, nears: Sequence[Near] = ()) -> list[str]:
    """One line for each file that is not the same in both folders, with what differs in it.

    nears: of files whose numbers may differ; the first that names a file holds for it.
    """
    files = [_files(folder, networks=bool(nears)) for folder in (cpu, cuda)]
    lines = [f"{name}: on one device alone" for name in sorted(files[0].keys() ^ files[1].keys())]
    for name in sorted(files[0].keys() & files[1].keys()):
        pair = files[0][name], files[1][name]
        if pair[0].read_bytes() != pair[1].read_bytes():
            near = next((near for near in nears if _matches(name, near.files)), _EQUAL)
            found = list(_in_file(*pair, near))
            lines += [f"{name}: {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"] if found else []
    return lines


def _files(folder: pathlib.Path, networks: bool) -> dict[str, pathlib.Path]:
    """The files by name; a digest in a name is a star where contents may differ."""
    names = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    left_out = (*LEFT_OUT, *(("*.onnx",) if networks else ()))
    kept = {name: path for name, path in names.items() if not _matches(name, left_out)}
    return {_DIGEST.sub("*", name) if networks else name: path for name, path in kept.items()}


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _in_file(cpu: pathlib.Path, cuda: pathlib.Path, near: Near) -> Iterator[str]:
    """Where two files of unequal bytes differ, but for what tells of the run."""
    if cpu.suffix == ".json":
        yield from _in_json(*(json.loads(path.read_text()) for path in (cpu, cuda)), "", near)
    elif cpu.suffix == ".parquet":
        yield from _in_table(cpu, cuda, near)
    elif cpu.suffix in (".safetensors", ".npz") and near.files:
        yield from _in_arrays(cpu, cuda, near)
    else:
        yield "bytes"


def _in_json(cpu: Any, cuda: Any, where: str, near: Near) -> Iterator[str]:
    if isinstance(cpu, dict) and isinstance(cuda, dict):
        exact = near.exact and {cpu.get("model"), cpu.get("name")} & set(near.exact)
        for key in sorted({*cpu, *cuda}):
            if not _matches(key, OF_THE_RUN):
                of_key = _EQUAL if exact or key in near.exact else near
                yield from _in_json(cpu.get(key), cuda.get(key), f"{where}.{key}" if where else key, of_key)
    elif isinstance(cpu, list) and isinstance(cuda, list) and len(cpu) == len(cuda):
        for k, pair in enumerate(zip(cpu, cuda, strict=True)):
            yield from _in_json(*pair, f"{where}[{k}]", near)
    elif not _same(cpu, cuda, near):
        yield f"{where} {cpu!r} and {cuda!r}"[:120]


def _same(cpu: Any, cuda: Any, near: Near) -> bool:
    """Whether two values are equal, or near each other where that is enough."""
    if cpu == cuda or (cpu != cpu and cuda != cuda):
        return True
    if not near.files:
        return False
    if isinstance(cpu, str) and isinstance(cuda, str):
        return _DIGEST.sub("*", cpu) == _DIGEST.sub("*", cuda)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (cpu, cuda))
    return numbers and near.holds(cpu, cuda)


def _in_table(cpu: pathlib.Path, cuda: pathlib.Path, near: Near) -> Iterator[str]:
    import pyarrow.parquet as pq

    tables = [pq.read_table(path) for path in (cpu, cuda)]
    if tables[0].schema.names != tables[1].schema.names or len(tables[0]) != len(tables[1]):
        yield "another schema or number of rows"
        return
    models = tables[0]["model"].to_pylist() if "model" in tables[0].schema.names else [""] * len(tables[0])
    of_rows = [_EQUAL if model in near.exact else near for model in models]
    for name in tables[0].schema.names:
        if not _matches(name, OF_THE_RUN):
            columns = [table[name].to_pylist() for table in tables]
            n = sum(not _same(*pair) for pair in zip(*columns, of_rows, strict=True))
            if n:
                yield f"{name} in {n} of {len(tables[0])} rows"


def _in_arrays(cpu: pathlib.Path, cuda: pathlib.Path, near: Near) -> Iterator[str]:
    arrays = [_arrays(path) for path in (cpu, cuda)]
    if arrays[0].keys() != arrays[1].keys():
        yield "other arrays"
        return
    for name, values in arrays[0].items():
        close = np.isclose(values, arrays[1][name], rtol=near.relative, atol=near.absolute, equal_nan=True)
        if not close.all():
            apart = np.abs(values - arrays[1][name]).max()
            yield f"{name} in {(~close).sum()} of {close.size} numbers, by {apart:.2g}"


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path) as content:
            return dict(content)
    from safetensors.numpy import load_file

    arrays: dict[str, np.ndarray] = load_file(path)
    return arrays
