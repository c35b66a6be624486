"""Results: a file of JSON lines to which every measurement is added at once, and which is never measured again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import pathlib
import platform
import threading
import time
from collections.abc import Callable
from typing import Any

from bench import runs
from bench.runs import Line

# Facts of a line that may differ where it is used again. Where `code` differs, the result tells (`codes`).
NOT_COMPARED = ("date", "code")
KINDS = ("equality", "stages", "epoch", "pace", "training", "folds", "family")
CODE = ("gpupipe/estimators/torch", "bench/sequence")  # the code that is measured, by folder


class TimeIsUpError(Exception):
    """The time that a call may take has passed; what was measured until then is in the file."""


class Results:
    """Measurements, by kind and key; several threads may measure at once.

    path: of the file; None keeps the lines in memory.
    about: facts that all lines share; lines of other facts, such as other versions of libraries, are not used.
    limit_s: seconds after which no measurement begins.
    any_machine: also use lines that another processor made: losses are alike there, seconds are not.
    """

    def __init__(
        self, path: pathlib.Path | None, about: Line, limit_s: float = math.inf, any_machine: bool = False
    ) -> None:
        self.path, self.limit_s, self.began = path, limit_s, time.monotonic()
        self.about = runs.record("sequence", torch=version("torch"), processor=processor(), code=code(), **about)
        self.not_compared = (*NOT_COMPARED, *(("processor", "machine") if any_machine else ()))
        self._lock = threading.Lock()
        self.lines = lines_of(path) if path is not None and path.exists() else []

    def get(self, kind: str, key: Line, measure: Callable[[], Line]) -> Line:
        """The line of a kind and key: that of the file, or else measured now and added.

        Raises TimeIsUpError where the time is up and nothing is stored.
        """
        stored = self.stored(kind, key)
        if stored is not None:
            return stored
        if time.monotonic() - self.began > self.limit_s:
            raise TimeIsUpError
        return self.add(kind, {**key, **measure()})

    def stored(self, kind: str, key: Line) -> Line | None:
        """The newest line of this kind and key that the same machine made with the same versions."""
        wanted = json.loads(json.dumps(key))
        same = [line for line in self.of_kind(kind) if all(line.get(name) == value for name, value in wanted.items())]
        return same[-1] if same else None

    def of_kind(self, kind: str) -> list[Line]:
        """All lines of a kind that `get` may use, in the order in which they were measured."""
        facts = {"kind": kind, **{name: fact for name, fact in self.about.items() if name not in self.not_compared}}
        wanted = json.loads(json.dumps(facts))
        return [line for line in self.lines if all(line.get(name) == value for name, value in wanted.items())]

    @property
    def codes(self) -> list[str]:
        """The digests of the code that measured the lines that `get` may use."""
        return sorted({line["code"] for kind in KINDS for line in self.of_kind(kind)})

    def add(self, kind: str, facts: Line) -> Line:
        """Add a line to the file; the line, as JSON gives it back."""
        text = json.dumps({"kind": kind, **self.about, **runs.bare(facts)})
        line: Line = json.loads(text)
        with self._lock:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a") as file:
                    # A line that a kill cut in half must not swallow this one.
                    file.write("\n" * (file.tell() > 0 and not ends_a_line(self.path)) + text + "\n")
            self.lines.append(line)
        return line


def lines_of(path: pathlib.Path) -> list[Line]:
    """The lines of a file; one that a kill cut in half is left out."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def ends_a_line(path: pathlib.Path) -> bool:
    """Whether the last byte of a file that is not empty ends a line."""
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def code() -> str:
    """Twelve digits of the SHA-256 of the code that is measured."""
    files = [file for folder in CODE for file in sorted((runs.ROOT / folder).glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def version(package: str) -> str | None:
    """Of an installed package, else None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The name of the CPU, as Linux tells it; else what Python knows of it."""
    try:
        lines: list[Any] = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
