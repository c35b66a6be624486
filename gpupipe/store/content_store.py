"""Store: where a run keeps what it made, so that a killed run goes on and nothing half-written is seen."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import numpy as np

from gpupipe.runtime.errors import UserError

FORMAT = 1
KEY_LENGTH = 40  # hexadecimal digits of a unit's key
SEAL = "sha256"  # the field of a unit's record that holds the checksum of the others
LOOK_S = 0.2  # how often a run that waits looks whether it may begin


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
    objects.  .gpupipe/runs/RUN_KEY: keys of the units that a run needs, one a line.  Everything else in OUT is what
    the user came for; published files are links to objects where the file system has hard links, so that equal models
    take their space once.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = pathlib.Path(out)
        self._work = self.out / ".gpupipe"
        self._sound: set[str] = set()  # objects that this process has seen to be as their names say
        self._referred: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lock(
        self, option: str = "--out", wait_s: float = 0.0, waiting: Callable[[str], None] = lambda holder: None,
        sweep: bool = True, name: str = "lock",
    ) -> Iterator[None]:  # fmt: skip
        """Hold the store alone; StoreError names the holder if another run has it, still after `wait_s` seconds.

        option: the one that chose the folder, which the error names.
        waiting(holder): told once, before it waits.  sweep: remove what killed runs left half-written.
        name: of the lock's file; what holds one name does not keep another out, as a night and its own run.
        Where what is done inside raises UserError before anything was kept, nothing is left behind.
        """
        path = self._work / name
        with self._held(path, option, wait_s, waiting):
            if sweep:  # nobody else writes here now
                for leftover in self.temporary():
                    leftover.unlink(missing_ok=True)
                shutil.rmtree(self.cache, ignore_errors=True)
            try:
                yield
            except UserError:
                if list(self._work.iterdir()) == [path]:
                    path.unlink()
                    self._work.rmdir()
                    if not any(self.out.iterdir()):
                        self.out.rmdir()
                raise

    @contextlib.contextmanager
    def _held(
        self, path: pathlib.Path, option: str, wait_s: float, waiting: Callable[[str], None]
    ) -> Iterator[None]:  # fmt: skip
        """The lock file, held and naming this process; the system lets go of it when the process ends, however."""
        began, told = time.monotonic(), False
        while True:
            self._work.mkdir(parents=True, exist_ok=True)
            with path.open("a+") as stream:
                if _locked(stream, path):
                    stream.truncate(0)
                    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
                    stream.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
                    stream.flush()
                    yield
                    return
                stream.seek(0)
                holder = stream.read().strip() or "another run"
            if time.monotonic() - began >= wait_s:
                how = "wait for it (--wait)" if option == "--out" else "wait for it"
                raise StoreError(f"{self.out} is in use by {holder}: {how}, or choose another {option}")
            if not told:
                waiting(holder)
                told = True
            time.sleep(LOOK_S)

    @property
    def replaced(self) -> pathlib.Path:
        """Where a run that goes on from OUT keeps what lay there until its own files have taken the place."""
        return self._work / "replaced"

    @property
    def cache(self) -> pathlib.Path:
        """A folder for files that no run needs after this one."""
        return self._work / "cache"

    @property
    def exists(self) -> bool:
        """Whether a run has ever kept something here."""
        return self._work.is_dir()

    def temporary(self) -> list[pathlib.Path]:
        """Files that a killed run had begun to write."""
        places = (".*.tmp", "trained_*/**/.*.tmp", "backtest/.*.tmp", f"{self._work.name}/**/.*.tmp")
        return sorted(found for place in places for found in self.out.glob(place))

    def cached(self) -> list[pathlib.Path]:
        """Files of `cache`."""
        return sorted(path for path in self.cache.glob("**/*") if path.is_file())

    def objects(self) -> list[pathlib.Path]:
        """The files of all kept contents, named by their SHA-256."""
        return sorted(path for path in (self._work / "objects").glob("*") if not path.name.startswith("."))

    def object_file(self, digest: str) -> pathlib.Path:
        """Where a content is kept; StoreError for what is no SHA-256, which might name a file elsewhere."""
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise StoreError(f"{digest!r} is no SHA-256: a record of {self._work} was altered; delete it and run again")
        return self._work / "objects" / digest

    def unit_files(self) -> list[pathlib.Path]:
        """The records of all finished units, named by their keys."""
        return sorted(path for path in (self._work / "units").glob("*.json") if not path.name.startswith("."))

    def remove_empty_folders(self) -> None:
        """Folders of the store in which nothing is left."""
        for folder in (self.cache, *(self._work / name for name in ("objects", "units", "runs"))):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def put(self, content: bytes) -> str:
        """Keep a content; return its SHA-256."""
        digest = sha256(content)
        path = self.object_file(digest)
        if not (path.exists() and sha256(path.read_bytes()) == digest):
            write_atomic(path, content)
        self._sound.add(digest)
        return digest

    def get(self, digest: str) -> bytes:
        """A kept content; StoreError if it is gone or altered."""
        path = self.object_file(digest)
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
        """Say that the unit `key` is done; `record` is JSON and names its objects. Its own checksum is kept with it."""
        sealed = {**record, SEAL: sha256(dump_json(record))}
        write_atomic(self._work / "units" / f"{key}.json", dump_json(sealed))

    def finished(self, key: str) -> dict[str, Any] | None:
        """The record of a finished unit, or None; one that is not as it was written is none."""
        path = self._work / "units" / f"{key}.json"
        try:
            record = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        seal = record.pop(SEAL, "") if isinstance(record, dict) else ""
        return record if seal == sha256(dump_json(record)) else None

    def units(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Keys and records of all finished units, in the order of their keys."""
        for path in self.unit_files():
            if (record := self.finished(path.stem)) is not None:
                yield path.stem, record

    def unsound(self, digests: Iterable[str]) -> list[str]:
        """Those objects that are gone or altered; each is read once a process."""
        bad = []
        for digest in digests:
            if digest in self._sound:
                continue
            try:
                self.get(digest)
                self._sound.add(digest)
            except StoreError:
                bad.append(digest)
        return bad

    def drop(self, digests: Iterable[str]) -> None:
        """Remove objects, so that they are written again."""
        for digest in digests:
            self._sound.discard(digest)
            with contextlib.suppress(StoreError):
                self.object_file(digest).unlink(missing_ok=True)

    def refer(self, run_key: str, key: str) -> None:
        """Say that a run needs the unit `key`: what no run needs that is finished here or goes on, `clean` removes."""
        with self._lock:
            if (run_key, key) in self._referred:
                return
            self._referred.add((run_key, key))
            (self._work / "runs").mkdir(parents=True, exist_ok=True)
            with (self._work / "runs" / run_key).open("a") as stream:
                stream.write(f"\n{key}\n")  # a line that a kill cut short stays by itself

    def runs(self) -> dict[str, set[str]]:
        """The keys of the units that each run needs, by its key; a line cut short by a kill names none."""
        return {
            path.name: {line for line in path.read_text().split("\n") if len(line) == KEY_LENGTH}
            for path in sorted((self._work / "runs").glob("*"))
        }

    def forget_runs(self, but: str) -> None:
        """Let go of the units of all runs but one, which has taken their place."""
        for path in (self._work / "runs").glob("*"):
            if path.name != but:
                path.unlink()

    def publish(self, relative: str, content: bytes) -> dict[str, Any]:
        """Put a content at OUT/relative; return its entry in the manifest: {"sha256", "bytes"}."""
        digest = self.put(content)
        target = self.out / relative
        if not (target.exists() and sha256(target.read_bytes()) == digest):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            temporary.unlink(missing_ok=True)
            try:
                os.link(self.object_file(digest), temporary)
                temporary.replace(target)
                _sync_folder(target.parent)
            except OSError:  # no hard links here
                write_atomic(target, content)
        return {"sha256": digest, "bytes": len(content)}

    def forget_leftovers(self) -> None:
        """Drop what only an unfinished run needs: matrices in files, and what lay in OUT before."""
        for place in (self.cache, self.replaced):
            shutil.rmtree(place, ignore_errors=True)

    def forget_units(self) -> None:
        """Drop what only a later run could use; published files stay."""
        for name in ("units", "objects", "cache", "runs"):
            shutil.rmtree(self._work / name, ignore_errors=True)


def pack_array(array: np.ndarray) -> bytes:
    """An array as .npy bytes."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack_array(content: bytes) -> np.ndarray:
    """The array again."""
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return array


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


def _locked(stream: IO[str], path: pathlib.Path) -> bool:
    """Try to lock an open file; False if another holds it, or if it is no longer the one at `path`."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat())


def _sync_folder(path: pathlib.Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
