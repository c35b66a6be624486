"""A step of `python -m bench.gpu` in a process of its own: a fault of CUDA, a crash or a hang ends that step alone.

The memory that a step holds on the GPU, too, is free when the next one begins.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence

from bench import runs
from bench.gpu.page import is_wrong
from bench.gpu.steps import STEPS
from bench.runs import Line

FAILED = 3  # exit code of a step that has added a line that says what is wrong
GRACE_S = 5  # to write where it hangs


def run(step: str, chosen: argparse.Namespace) -> int:
    """Run a step in this process, and add its lines; the exit code, FAILED where one of them is wrong."""
    about()  # not when something has failed: a fault of CUDA stays for the rest of the process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash would write all of its memory
    code = 0
    try:
        for line in STEPS[step].measure(chosen):
            add(chosen.out, step, line)
            code = FAILED if is_wrong(line) else code
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        where = traceback.format_exc().splitlines()[-3:]
        add(chosen.out, step, {"error": f"{type(error).__name__}: {error}", "where": where})
        return FAILED
    return code


def run_in_process(step: str, words: Sequence[str], out: pathlib.Path, limit_s: float) -> bool:
    """Run `python -m bench.gpu WORDS` for one step, and add the line that it could not add; whether it failed.

    What it writes to standard error is kept beside the lines. A last line has its seconds.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as text:
        command = [*runs.MODULE, "bench.gpu", *words, "--minutes", str(limit_s / 60), "--alone", step]
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
        process = subprocess.Popen(command, stderr=text, env=environment, start_new_session=True)
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
            process.send_signal(signal.SIGABRT)  # it writes where it is, and ends
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        finally:  # with all that it has started; one that waits for the driver may not end
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        text.seek(0)
        said = text.read()
    sys.stderr.write(said)
    if said:
        with log_of(out).open("a") as log:
            log.write(f"{step}:\n{said}\n")
    if code is None:
        add(out, step, {"error": f"not done in {limit_s:.0f} s", "where": _stack(said)})
    elif code < 0:
        add(out, step, {"error": f"ended by {signal.Signals(-code).name}", "where": _stack(said)})
    elif code not in (0, FAILED):
        add(out, step, {"error": f"ended with exit code {code}", "where": said.strip().splitlines()[-4:]})
    add(out, "seconds", {"step": step, "seconds": round(time.monotonic() - began, 1)})
    return code != 0


def log_of(out: pathlib.Path) -> pathlib.Path:
    """The file of what steps have written to standard error, such as whole tracebacks.

    >>> log_of(pathlib.Path("lines.jsonl")).name
    'lines.log'
    """
    return out.with_suffix(".log")


def _stack(said: str) -> list[str]:
    """Where Python was, innermost first, as its fault handler writes it."""
    return [line.strip() for line in said.splitlines() if line.startswith("  File ")][:4]


@functools.cache
def about() -> Line:
    """What every line says of the machine."""
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    return {"device": name, "cupy": cupy.__version__}


def add(out: pathlib.Path, kind: str, line: Line) -> None:
    """Add a line to the file, and show it."""
    whole = {"kind": kind, **about(), "time": time.strftime("%F %T%z"), **line}
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        file.write(json.dumps(whole) + "\n")
    runs.show(whole)
