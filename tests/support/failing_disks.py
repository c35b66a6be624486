"""Run below a file system of its own, for test_failures: `python failing_disks.py PLACE OPTIONS...`; prints JSON lines.

PLACE/small is a tmpfs of 8 MB. Each line is [name, exit code, standard error, what else was found].
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

from gpupipe.cli import run
from gpupipe.runtime import memory
from tests.support import kill


def attempt(name: str, out: pathlib.Path, options: list[str]) -> None:
    """One run; whether the store kept its promises with it."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = run.main([*options, "--quiet", "--out", str(out)])
    found = {"broken": kill.broken_promises(out) if out.exists() else [], "units": kill.n_units(out)}
    if code == 0:
        found |= {"contents": kill.contents(out), "unaccounted": kill.unaccounted(out)}
    print(json.dumps([name, code, errors.getvalue(), found]), flush=True)


def fill(small: pathlib.Path, left: int) -> pathlib.Path:
    """Leave so many bytes of the disk."""
    filler = small / "filler"
    free = os.statvfs(small)
    filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - left)))
    return filler


def main() -> None:
    place, options = pathlib.Path(sys.argv[1]), sys.argv[2:]
    small, out = place / "small", place / "small" / "OUT"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(small)], check=True)
    attempt("whole", place / "whole", options)
    for left in (0, 64 << 10, 256 << 10):
        filler = fill(small, left)
        attempt(f"full {left}", out, options)
        filler.unlink()
    attempt("room again", out, options)
    remount("ro", small)
    attempt("read-only, nothing to do", out, options)
    attempt("read-only, other run", out, [*options, "--seed", "7"])
    attempt("read-only, new", small / "new", options)
    remount("rw", small)
    shutil.rmtree(out)
    memory.choose = lambda *arguments: memory.LADDER[-1]  # as --memory does for a large job
    options += ["--memory", "1T"]
    for left in (1 << 20, 4 << 20):
        filler = fill(small, left)
        attempt(f"full {left}, columns in files", out, options)
        filler.unlink()
    remount("size=64m", small)
    attempt("room again, columns in files", out, options)


def remount(how: str, small: pathlib.Path) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(small)], check=True)


if __name__ == "__main__":
    main()
