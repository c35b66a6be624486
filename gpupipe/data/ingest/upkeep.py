"""Maintain a bar store: verify its files, restore an earlier version, remove old versions."""

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
    """What `clean_store` removed: the number of earlier versions and of their files, and the bytes of both.

    >>> Cleaned(generations=2, files=4, bytes=51_200).files
    4
    """

    generations: int
    files: int
    bytes: int


def clean_store(folder: str | pathlib.Path, *, dry_run: bool = False) -> Cleaned:
    """Remove all earlier versions of a bar store; the current version and the log stay.

    dry_run: remove nothing, only count. Raises StoreError if the folder is no store or in use.
    """
    folder = pathlib.Path(folder)
    _current(folder)
    with Store(folder).lock("--store"):
        if not dry_run:
            parts.clean_up(folder, skip_damaged=True)
        manifests = [*(folder / parts.GENERATIONS).glob("*.json")]
        files = [*(folder / bar_store.SUPERSEDED).rglob("*.parquet")]
        size = sum(path.stat().st_size for path in (*manifests, *files))
        if not dry_run:
            # Manifests first: a manifest must not outlive its files.
            for name in (parts.GENERATIONS, bar_store.SUPERSEDED):
                if (folder / name).exists():
                    shutil.rmtree(folder / name)
    return Cleaned(len(manifests), len(files), size)


def restore_store(folder: str | pathlib.Path, generation: int) -> Manifest:
    """Make an earlier version current, as a new generation, and return its manifest.

    Raises StoreError if that generation does not exist, or if one of its files is missing or altered.
    """
    folder = pathlib.Path(folder)
    _current(folder)
    with Store(folder).lock("--store"):
        current = _current(folder)
        parts.clean_up(folder)
        manifests = parts.generations(folder)
        if generation not in manifests:
            available = ", ".join(map(str, manifests)) or "none"
            raise StoreError(f"{folder} has no generation {generation} to restore; there are {available}")
        files = manifests[generation].files
        if problems := _problems(folder, manifests[generation]):
            raise StoreError(f"generation {generation} cannot be restored: {problems[0]}")
        contents = {file.path: bar_store.locate(folder, file).read_bytes() for file in files}
        restored = Manifest(current.generation + 1, files)
        parts.commit(folder, parts.StorePlan(restored, contents), current)
    return restored


def verify_store(folder: str | pathlib.Path) -> list[str]:
    """Return a sentence for each file of the current version that is missing or altered."""
    folder = pathlib.Path(folder)
    return _problems(folder, _current(folder))


def _problems(folder: pathlib.Path, manifest: Manifest) -> list[str]:
    problems = []
    for file in manifest.files:
        try:
            path = bar_store.locate(folder, file)
        except DataError as error:
            problems.append(str(error))
            continue
        if sha256(path.read_bytes()) != file.sha256:
            problems.append(f"{path} was altered")
    return problems


def _current(folder: pathlib.Path) -> Manifest:
    manifest = bar_store.read_manifest(folder)
    if manifest is None:
        raise StoreError(f"--store {folder} is no bar store: gpupipe ingest SOURCE --store {folder} creates one")
    return manifest
