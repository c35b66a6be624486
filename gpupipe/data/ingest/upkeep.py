"""What a bar store needs beside ingesting: check its files, take back an ingest, drop old versions."""

from __future__ import annotations

import pathlib
import shutil
from dataclasses import dataclass

from gpupipe.data import bar_store
from gpupipe.data.bar_store import Manifest
from gpupipe.data.errors import DataError
from gpupipe.data.ingest import parts
from gpupipe.store.content_store import Store, StoreError, sha256


@dataclass(frozen=True)
class Cleaned:
    """What `clean_store` removed: earlier versions, their files, and the bytes of both."""

    generations: int
    files: int
    bytes: int


def clean_store(folder: str | pathlib.Path, *, dry_run: bool = False) -> Cleaned:
    """Remove all earlier versions of a bar store; the current one and the log stay. StoreError if it is no store."""
    folder = pathlib.Path(folder)
    _current(folder)
    with Store(folder).lock("--store"):
        if not dry_run:
            parts.tidy(folder)
        old = [*(folder / parts.GENERATIONS).glob("*.json")]
        files = [*(folder / bar_store.SUPERSEDED).rglob("*.parquet")]
        found = Cleaned(len(old), len(files), sum(path.stat().st_size for path in (*old, *files)))
        if not dry_run:
            # Generations first: one that is left would promise files that are gone.
            for place in (parts.GENERATIONS, bar_store.SUPERSEDED):
                if (folder / place).exists():
                    shutil.rmtree(folder / place)
    return found


def restore_store(folder: str | pathlib.Path, generation: int) -> Manifest:
    """Make an earlier version current, as a new one; StoreError if it is not there or a file of it is altered."""
    folder = pathlib.Path(folder)
    _current(folder)
    with Store(folder).lock("--store"):
        current = _current(folder)
        parts.tidy(folder)
        kept = parts.generations(folder)
        if generation not in kept:
            there = ", ".join(map(str, kept)) or "none"
            raise StoreError(f"{folder} has no generation {generation} to restore; there are {there}")
        wanted = kept[generation]
        if problems := _problems(folder, wanted):
            raise StoreError(f"generation {generation} cannot be restored: {problems[0]}")
        contents = {file.path: bar_store.locate(folder, file).read_bytes() for file in wanted.files}
        restored = Manifest(current.generation + 1, wanted.files)
        parts.commit(folder, parts.Planned(restored, contents), current)
    return restored


def verify_store(folder: str | pathlib.Path) -> list[str]:
    """What is wrong with the current version: files that are gone or altered, a sentence each; empty if all is well."""
    folder = pathlib.Path(folder)
    return _problems(folder, _current(folder))


def _problems(folder: pathlib.Path, manifest: Manifest) -> list[str]:
    found = []
    for file in manifest.files:
        try:
            path = bar_store.locate(folder, file)
        except DataError as error:
            found.append(str(error))
            continue
        if sha256(path.read_bytes()) != file.sha256:
            found.append(f"{path} was altered")
    return found


def _current(folder: pathlib.Path) -> Manifest:
    manifest = bar_store.read_manifest(folder)
    if manifest is None:
        raise StoreError(f"--store {folder} is no bar store: gpupipe ingest SOURCE --store {folder} begins one")
    return manifest
