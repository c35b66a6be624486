"""Store: where a run keeps what it made, so that a killed run goes on and nothing half-written is seen."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import pathlib
import shutil
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpupipe.errors import UserError

FORMAT = 1


class StoreError(UserError):
    """What is stored cannot be used; the message names the file and the fix."""


def write_atomic(path: pathlib.Path, content: bytes) -> None:
    """Write under a temporary name, sync, and rename: a reader sees the old file, the new one, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Threads may write the same content at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def dump_json(value: Any) -> bytes:
    """JSON with sorted keys; NaN and infinities, which JSON has not, become null."""
    return (json.dumps(_finite(value), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def sha256(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


class Store:
    """The folder OUT of one run.

    .gpupipe/objects/SHA256: contents, each written once.  .gpupipe/units/KEY.json: finished units of work, which name
    objects.  Everything else in OUT is what the user came for; published files are links to objects where the file
    system has hard links, so that equal models take their space once.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = pathlib.Path(out)
        self._work = self.out / ".gpupipe"

    @contextlib.contextmanager
    def lock(self, option: str = "--out") -> Iterator[None]:
        """Hold the store alone; StoreError names the holder if another run has it, and the option that chose it.

        Where what is done inside raises UserError before anything was kept, nothing is left behind.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        path = self._work / "lock"
        with path.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not (path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat())):
                    raise BlockingIOError  # the file was removed by its holder, and may be another's by now
            except BlockingIOError:
                stream.seek(0)
                holder = stream.read().strip() or "another run"
                raise StoreError(f"{self.out} is in use by {holder}: wait for it, or choose another {option}") from None
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}")
            stream.flush()
            for place in (".*.tmp", "trained_*/**/.*.tmp", f"{self._work.name}/**/.*.tmp"):
                for leftover in self.out.glob(place):  # of a killed run; nobody else writes here now
                    leftover.unlink(missing_ok=True)
            shutil.rmtree(self.cache, ignore_errors=True)  # of a killed run
            try:
                yield
            except UserError:
                if list(self._work.iterdir()) == [path]:
                    path.unlink()
                    self._work.rmdir()
                    if not any(self.out.iterdir()):
                        self.out.rmdir()
                raise

    @property
    def cache(self) -> pathlib.Path:
        """A folder for files that no run needs after this one."""
        return self._work / "cache"

    def put(self, content: bytes) -> str:
        """Keep a content; return its SHA-256."""
        digest = sha256(content)
        path = self._work / "objects" / digest
        if not path.exists():
            write_atomic(path, content)
        return digest

    def get(self, digest: str) -> bytes:
        """A kept content; StoreError if it is gone or altered."""
        path = self._work / "objects" / digest
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise StoreError(f"{path} is missing: delete {self._work} and run again") from None
        if sha256(content) != digest:
            raise StoreError(f"{path} was altered: delete {self._work} and run again")
        return content

    def size(self, digest: str) -> int:
        """Bytes of a kept content."""
        return (self._work / "objects" / digest).stat().st_size

    def finish(self, key: str, record: dict[str, Any]) -> None:
        """Say that the unit `key` is done; `record` is JSON and names its objects."""
        write_atomic(self._work / "units" / f"{key}.json", dump_json(record))

    def finished(self, key: str) -> dict[str, Any] | None:
        """The record of a finished unit, or None."""
        path = self._work / "units" / f"{key}.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def publish(self, relative: str, content: bytes) -> dict[str, Any]:
        """Put a content at OUT/relative; return its entry in the manifest: {"sha256", "bytes"}."""
        digest = self.put(content)
        target = self.out / relative
        if not (target.exists() and sha256(target.read_bytes()) == digest):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            temporary.unlink(missing_ok=True)
            try:
                os.link(self._work / "objects" / digest, temporary)
                temporary.replace(target)
                _sync_folder(target.parent)
            except OSError:  # no hard links here
                write_atomic(target, content)
        return {"sha256": digest, "bytes": len(content)}

    def forget_units(self) -> None:
        """Drop what only a resumed run needs; published files stay."""
        for name in ("units", "objects", "cache"):
            shutil.rmtree(self._work / name, ignore_errors=True)


def pack_array(array: np.ndarray) -> bytes:
    """An array as .npy bytes."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack_array(content: bytes) -> np.ndarray:
    """The array again."""
    return np.load(io.BytesIO(content), allow_pickle=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _sync_folder(path: pathlib.Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
