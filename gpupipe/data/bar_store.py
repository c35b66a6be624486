"""The manifest of a bar store: which Parquet files are its current version. `gpupipe.data.ingest` writes it."""

from __future__ import annotations

import json
import pathlib
import re
import urllib.parse
from dataclasses import asdict, dataclass
from typing import Any

from gpupipe.data.errors import DataError

MANIFEST, KIND, FORMAT = "manifest.json", "gpupipe bar store", 1
SUPERSEDED = ".gpupipe/superseded"  # files of earlier generations, under the same names
_PATH = re.compile(r"sector=[^/]+/part-[0-9]{6}-[0-9a-f]{12}\.parquet")


@dataclass(frozen=True)
class PartFile:
    """One file of a store: rows of one sector, sorted by symbol and time.

    path: relative to the store.  sha256, bytes: of its content.  first_ns, last_ns: times of its earliest and latest
    bar, UTC; within a sector these ranges do not overlap.
    """

    path: str
    sector: str
    rows: int
    symbols: int
    first_ns: int
    last_ns: int
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """A version of a store. generation: 1 for the first, one more with every change. files: by sector, then time."""

    generation: int
    files: tuple[PartFile, ...]

    @property
    def rows(self) -> int:
        """Bars in all files."""
        return sum(file.rows for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """What MANIFEST holds."""
        return {
            "kind": KIND, "format": FORMAT, "generation": self.generation, "rows": self.rows,
            "files": [asdict(file) for file in self.files],
        }  # fmt: skip


def of_json(content: Any, where: str) -> Manifest:
    """The Manifest again; DataError where it is none, of a newer format, or names files outside of the store."""
    if content.get("format") != FORMAT:
        raise DataError(f"{where}: format {content.get('format')!r}, expected {FORMAT}: made by another gpupipe")
    try:
        found = Manifest(int(content["generation"]), tuple(PartFile(**file) for file in content["files"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: damaged ({type(error).__name__}: {error})") from error
    for file in found.files:
        if not _PATH.fullmatch(file.path) or ".." in file.path:
            raise DataError(f"{where}: names {file.path!r}, which is no file of a bar store")
    return found


def manifest_of(folder: pathlib.Path) -> Manifest | None:
    """The current version of a store, or None where the folder is no bar store. Raises DataError."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        return None
    return of_json(content, str(path))


def located(folder: pathlib.Path, file: PartFile) -> pathlib.Path:
    """Where a file of a manifest lies: at its place, or among the superseded ones where an ingest has just moved it.

    Raises DataError where it is gone or has another size.
    """
    for place in (folder / file.path, folder / SUPERSEDED / file.path):
        try:
            size = place.stat().st_size
        except FileNotFoundError:
            continue
        if size != file.bytes:
            raise DataError(f"{place}: has {size:,} bytes and the manifest says {file.bytes:,}; ingest it again")
        return place
    raise DataError(f"{folder / file.path} is missing: the store is damaged; restore a generation or ingest it again")


def folder_of(sector: str) -> str:
    """The folder of a sector, as hive writes it."""
    return f"sector={urllib.parse.quote(sector, safe='')}"
