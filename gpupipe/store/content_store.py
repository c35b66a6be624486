"""Store: the folder in which a run keeps its results, so that a killed run resumes and readers see complete files."""

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from gpupipe.runtime.errors import UserError

FORMAT = 1
KEY_LENGTH = 40  # hexadecimal digits of a cache key
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # names of files that are just written: their process is in them
SEAL = "sha256"  # the field of a record that holds the checksum of its other fields
LOOK_S = 0.2  # between two attempts of a waiting run to get the lock


class StoreError(UserError):
    """A stored file cannot be used; the message names the file and the fix."""


def write_atomic(path: pathlib.Path, content: bytes, sync: bool = True) -> None:
    """Write a temporary file and rename it: a reader sees the old file, the new file, or none.

    sync: wait until the disk has it, so that it also outlives a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Threads may write the same content at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if sync:
        _sync(path.parent)


def dump_json(value: Any) -> bytes:
    """JSON with sorted keys, to be read by people; NaN and infinities become null, because JSON does not have them."""
    return (_json(value, indent=1) + "\n").encode()


def sha256(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def sha256_of(value: Any) -> str:
    """SHA-256 in hex of a value in the types of JSON, whatever the order of its keys.

    >>> sha256_of({"a": 1, "b": [2.0]}) == sha256_of({"b": (2.0,), "a": np.int64(1)})
    True
    """
    return sha256(_json(value).encode())


class Store:
    """The folder OUT of a run.

    .gpupipe/objects/SHA256: contents, each written once.
    .gpupipe/units/KEY.json: records of cached results, which name objects.
    .gpupipe/runs/RUN_KEY: keys of the results that a run needs, a key in each line.
    .gpupipe/kept/NAME: other files that later runs may read.
    The rest of OUT is for the user. Published files are hard links to objects where the file system has them, so that
    equal models take their space once.

        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> store.get(store.put(b"content"))
        b'content'
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = pathlib.Path(out)
        self._work = self.out / ".gpupipe"
        self._sound: set[str] = set()  # objects whose content this process has checked against their names
        self._referred: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lock(
        self,
        option: str = "--out",
        wait_s: float = 0.0,
        waiting: Callable[[str], None] = lambda holder: None,
        sweep: bool = True,
        name: str = "lock",
    ) -> Iterator[None]:
        """Lock the store for this process. Raises StoreError, naming the holder, if `wait_s` seconds pass in vain.

        option: the option that chose the folder; the error names it.
        waiting(holder): called once, before the first wait.  sweep: remove incomplete files of killed runs.
        name: of the lock file. Locks of different names are independent: a night holds one lock, and its run another.
        If the context raises UserError before a result is kept, the folder is removed again.
        """
        path = self._work / name
        with self._held(path, option, wait_s, waiting):
            if sweep:  # no other process writes here now
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
    def _held(self, path: pathlib.Path, option: str, wait_s: float, waiting: Callable[[str], None]) -> Iterator[None]:
        """Hold a lock file that names this process; the system releases it at the end of the process."""
        began, announced = time.monotonic(), False
        while True:
            self._work.mkdir(parents=True, exist_ok=True)
            with path.open("a+", encoding="utf-8", errors="replace") as stream:
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
            if not announced:
                waiting(holder)
                announced = True
            time.sleep(LOOK_S)

    @property
    def replaced(self) -> pathlib.Path:
        """A folder for the earlier files of OUT while a warm run replaces them."""
        return self._work / "replaced"

    def kept(self, name: str) -> pathlib.Path:
        """A file of that name, which later runs may read."""
        return self._work / "kept" / name

    @property
    def cache(self) -> pathlib.Path:
        """A folder for temporary files of the present run."""
        return self._work / "cache"

    def checkpoints(self, key: str) -> pathlib.Path:
        """A folder for the progress of a long computation with this key, which another process may go on with."""
        return self._work / "checkpoints" / key

    @property
    def exists(self) -> bool:
        """Whether a run has ever used this folder."""
        return self._work.is_dir()

    def temporary(self) -> list[pathlib.Path]:
        """Incomplete files of a killed run: in OUT, and in folders as deep as runs publish into."""
        patterns = (".*.tmp", "*/.*.tmp", "*/*/.*.tmp", "*/*/*/.*.tmp", f"{self._work.name}/**/.*.tmp")
        found = {path for pattern in patterns for path in self.out.glob(pattern)}
        return sorted(path for path in found if TEMPORARY.fullmatch(path.name))

    def cached(self) -> list[pathlib.Path]:
        """Files of `cache`."""
        return sorted(path for path in self.cache.glob("**/*") if path.is_file())

    def objects(self) -> list[pathlib.Path]:
        """Files of all contents, named by their SHA-256."""
        return sorted(path for path in (self._work / "objects").glob("*") if not path.name.startswith("."))

    def object_file(self, digest: str) -> pathlib.Path:
        """The file of a content. Raises StoreError if the digest is no SHA-256: it could point outside the store."""
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise StoreError(f"{digest!r} is no SHA-256: a record of {self._work} was altered; delete it and run again")
        return self._work / "objects" / digest

    def unit_files(self) -> list[pathlib.Path]:
        """Records of all cached results, named by their keys."""
        return sorted(path for path in (self._work / "units").glob("*.json") if not path.name.startswith("."))

    def remove_empty_folders(self) -> None:
        """Remove empty folders of the store."""
        for folder in (self.cache, *(self._work / name for name in ("objects", "units", "runs"))):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def put(self, content: bytes) -> str:
        """Write a content; returns its SHA-256. What a power failure takes is noticed by its SHA-256 and made again."""
        digest = sha256(content)
        path = self.object_file(digest)
        if not (path.exists() and sha256(path.read_bytes()) == digest):
            write_atomic(path, content, sync=False)
        self._sound.add(digest)
        return digest

    def get(self, digest: str) -> bytes:
        """Read a content; raises StoreError if it is missing or altered."""
        path = self.object_file(digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise StoreError(f"{path} is missing: delete {self._work} and run again") from None
        if sha256(content) != digest:
            raise StoreError(f"{path} was altered: delete {self._work} and run again")
        return content

    def size(self, digest: str) -> int:
        """Size of a content in bytes."""
        return (self._work / "objects" / digest).stat().st_size

    def finish(self, key: str, record: dict[str, Any]) -> None:
        """Write the record of a result, in the types of JSON, with a checksum; the record names its objects."""
        sealed = {**record, SEAL: sha256_of(record)}
        write_atomic(self._work / "units" / f"{key}.json", _json(sealed).encode(), sync=False)

    def finished(self, key: str) -> dict[str, Any] | None:
        """The record of a result; None where it is missing or altered."""
        path = self._work / "units" / f"{key}.json"
        try:
            record = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        seal = record.pop(SEAL, "") if isinstance(record, dict) else ""
        # Until 2026-11-29 records were sealed in the layout for people.
        return record if seal == sha256_of(record) or seal == sha256(dump_json(record)) else None

    def units(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Keys and records of all cached results, in the order of keys."""
        for path in self.unit_files():
            if (record := self.finished(path.stem)) is not None:
                yield path.stem, record

    def unsound(self, digests: Iterable[str]) -> list[str]:
        """Digests of missing or altered objects; a process reads each object once."""
        damaged = []
        for digest in digests:
            if digest in self._sound:
                continue
            try:
                self.get(digest)
                self._sound.add(digest)
            except StoreError:
                damaged.append(digest)
        return damaged

    def drop(self, digests: Iterable[str]) -> None:
        """Remove objects, so that they are written again."""
        for digest in digests:
            self._sound.discard(digest)
            with contextlib.suppress(StoreError):
                self.object_file(digest).unlink(missing_ok=True)

    def refer(self, run_key: str, key: str) -> None:
        """Record that a run needs a result; `gpupipe clean` removes results that no run needs."""
        with self._lock:
            if (run_key, key) in self._referred:
                return
            self._referred.add((run_key, key))
            (self._work / "runs").mkdir(parents=True, exist_ok=True)
            with (self._work / "runs" / run_key).open("a", encoding="utf-8") as stream:
                stream.write(f"\n{key}\n")  # a line cut short by a kill stays alone

    def runs(self) -> dict[str, set[str]]:
        """Keys of the results that each run needs, by run key; a line cut short by a kill is ignored."""
        return {
            path.name: {line for line in path.read_text(encoding="utf-8").split("\n") if len(line) == KEY_LENGTH}
            for path in sorted((self._work / "runs").glob("*"))
        }

    def forget_runs(self, but: str) -> None:
        """Forget which results all runs but one need."""
        for path in (self._work / "runs").glob("*"):
            if path.name != but:
                path.unlink()

    def publish(self, relative: str, content: bytes) -> dict[str, Any]:
        """Write a content to OUT/relative; returns its manifest entry {"sha256", "bytes"}."""
        digest = self.put(content)
        target = self.out / relative
        if not (target.exists() and sha256(target.read_bytes()) == digest):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            temporary.unlink(missing_ok=True)
            try:
                os.link(self.object_file(digest), temporary)
                _sync(temporary)
                temporary.replace(target)
                _sync(target.parent)
            except OSError:  # the file system has no hard links
                write_atomic(target, content)
        return {"sha256": digest, "bytes": len(content)}

    def forget_leftovers(self) -> None:
        """Remove files that only an unfinished run needs: matrices, checkpoints, and earlier files of OUT."""
        for place in (self.cache, self.replaced, self._work / "checkpoints"):
            shutil.rmtree(place, ignore_errors=True)

    def forget_units(self) -> None:
        """Remove all cached results; published files stay."""
        for name in ("units", "objects", "cache", "runs", "checkpoints", "kept"):
            shutil.rmtree(self._work / name, ignore_errors=True)


def pack_array(array: np.ndarray) -> bytes:
    """The .npy bytes of an array."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack_array(content: bytes) -> np.ndarray:
    """The array of .npy bytes."""
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The .npz bytes of arrays by name; equal arrays have equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of .npz bytes."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _json(value: Any, **layout: Any) -> str:
    layout |= {"sort_keys": True, "ensure_ascii": False, "allow_nan": False, "default": _plain}
    try:
        return json.dumps(value, **layout)
    except ValueError:  # NaN or an infinity somewhere
        return json.dumps(_finite(value), **layout)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no type of JSON")


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
    """Try to lock an open file; False if another process holds it, or if `path` is another file now."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat())


def _sync(path: pathlib.Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
