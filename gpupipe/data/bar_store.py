"""The manifest of a bar store: the Parquet files of its current version. `gpupipe.data.ingest` writes it."""

from __future__ import annotations

import json
import pathlib
import re
import urllib.parse
from dataclasses import asdict, dataclass
from typing import Any

from gpupipe.data.errors import DataError

MANIFEST, KIND, FORMAT = "manifest.json", "gpupipe bar store", 1
SUPERSEDED = ".gpupipe/superseded"  # files of earlier generations, under the same relative paths
_PATH = re.compile(r"sector=[^/]+/part-[0-9]{6}-[0-9a-f]{12}\.parquet")


@dataclass(frozen=True)
class PartFile:
    """One Parquet file of a store: bars of one sector, sorted by symbol and time.

    path: relative to the store.  rows, symbols: counts.  first_ns, last_ns: times of the earliest and latest bar, UTC
    nanoseconds since 1970; the time ranges of a sector's files do not overlap.  sha256, bytes: of the file's content.

    Three daily bars of one symbol, 1970-01-01 to 1970-01-03:

    >>> path, day_ns = "sector=energy/part-000001-0123456789ab.parquet", 86_400 * 10**9
    >>> file = PartFile(path, "energy", rows=3, symbols=1, first_ns=0, last_ns=2 * day_ns, sha256="01...", bytes=900)
    >>> Manifest(generation=1, files=(file,)).rows
    3
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
    """One version of a store.

    generation: 1 for the first version; each change adds one.  files: sorted by sector, then time.

    >>> Manifest(generation=1, files=()).to_json()
    {'kind': 'gpupipe bar store', 'format': 1, 'generation': 1, 'rows': 0, 'files': []}
    """

    generation: int
    files: tuple[PartFile, ...]

    @property
    def rows(self) -> int:
        """Number of bars in all files."""
        return sum(file.rows for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """The content of MANIFEST."""
        return {
            "kind": KIND,
            "format": FORMAT,
            "generation": self.generation,
            "rows": self.rows,
            "files": [asdict(file) for file in self.files],
        }


def parse_manifest(content: Any, where: str) -> Manifest:
    """Build the Manifest from its JSON content; `where` names the file in messages.

    Raises DataError if the content is damaged, has another format, or names a file that no store would write.
    """
    if not isinstance(content, dict):
        raise DataError(f"{where}: damaged (expected a JSON object, found {type(content).__name__})")
    if content.get("format") != FORMAT:
        raise DataError(
            f"{where}: format {content.get('format')!r}, expected {FORMAT}: another version of gpupipe wrote it"
        )
    try:
        manifest = Manifest(int(content["generation"]), tuple(PartFile(**file) for file in content["files"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: damaged ({type(error).__name__}: {error})") from error
    for file in manifest.files:
        if not isinstance(file.path, str) or not _PATH.fullmatch(file.path) or ".." in file.path:
            raise DataError(f"{where}: names {file.path!r}, which is no file of a bar store")
    return manifest


def read_manifest(folder: pathlib.Path) -> Manifest | None:
    """Read the current version of a store; None if the folder is no bar store. Raises DataError for a damaged one."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        return None
    return parse_manifest(content, str(path))


def locate(folder: pathlib.Path, file: PartFile) -> pathlib.Path:
    """Return the path of a manifest's file: its own path, or the one in SUPERSEDED if an ingest has just moved it.

    Raises DataError if the file is missing or has another size.
    """
    for path in (folder / file.path, folder / SUPERSEDED / file.path):
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue
        if size != file.bytes:
            raise DataError(f"{path}: has {size:,} bytes and the manifest says {file.bytes:,}; ingest it again")
        return path
    raise DataError(f"{folder / file.path} is missing: the store is damaged; restore a generation or ingest it again")


def sector_folder(sector: str) -> str:
    """The folder name of a sector, in Hive's notation: "real estate" -> "sector=real%20estate"."""
    return f"sector={urllib.parse.quote(sector, safe='')}"
