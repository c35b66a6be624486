"""The manifest of OUT: every published file with its checksum; written last, so that a run with one is complete."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from gpupipe.artifacts.layout import MANIFEST
from gpupipe.store.content_store import FORMAT, Store, StoreError, dump_json, sha256, write_atomic


def entry_of(content: bytes) -> dict[str, Any]:
    """The manifest's entry of a file."""
    return {"sha256": sha256(content), "bytes": len(content)}


def withdraw_manifest(store: Store) -> None:
    """Remove an earlier run's manifest before its files are replaced, so that it never vouches for other contents."""
    (store.out / MANIFEST).unlink(missing_ok=True)


def write_manifest(store: Store, run_key: str, entries: dict[str, dict[str, Any]], about: dict[str, Any]) -> None:
    """Write OUT/manifest.json, last of all: a run is complete when it is there."""
    write_atomic(store.out / MANIFEST, dump_json({"format": FORMAT, "run_key": run_key, "files": entries, **about}))


def read_manifest(out: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The manifest of OUT, None if there is none; StoreError if it cannot be read, is no run's or of another format."""
    path = pathlib.Path(out) / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON ({error}): delete it and run again") from None
    if isinstance(manifest, dict) and "kind" in manifest:
        raise StoreError(f"{path} is of an export, not of a run: give the folder of a run, or one that is new")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        written = manifest.get("format") if isinstance(manifest, dict) else None
        raise StoreError(f"{path} has format {written!r}, this gpupipe reads {FORMAT}: use the gpupipe that wrote it")
    files = manifest.get("files")
    entries = files.values() if isinstance(files, dict) else [None]
    if not (
        isinstance(manifest.get("run_key"), str) and isinstance(manifest.get("settings"), dict)
        and all(isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in entries)
    ):  # fmt: skip
        raise StoreError(f"{path} is no manifest of a run: delete it and run again")
    return manifest


def altered_files(out: str | os.PathLike[str], manifest: dict[str, Any]) -> list[str]:
    """Files that the manifest names and that are gone or have another content."""
    root = pathlib.Path(out)
    wrong = []
    for relative, entry in manifest["files"].items():
        path = inside(root, relative)
        if not path.is_file() or sha256(path.read_bytes()) != entry["sha256"]:
            wrong.append(relative)
    return wrong


def inside(root: pathlib.Path, relative: str) -> pathlib.Path:
    """The path of a file that the manifest names; StoreError for one that lies outside of OUT."""
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise StoreError(f"{root / MANIFEST} names a path outside of its folder: {relative!r}")
    return path
