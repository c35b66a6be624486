"""What benchmarks share: options, optional libraries, jobs in new processes, contents of OUT, JSON lines."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.timing import cores
from gpupipe.data import DataReport, load
from gpupipe.data.panel import Panel
from gpupipe.store import fingerprint

ROOT = pathlib.Path(__file__).parents[1]
# What runs a module in a new process; a stand-in for the CUDA libraries puts itself in between.
MODULE: tuple[str, ...] = (sys.executable, "-m")
RESULTS = ROOT / "bench" / "results"
MODEL_FILES = (".ubj", ".npz", ".txt", ".cbm", ".safetensors")
SHARED: dict[str, dict[str, Any]] = {
    "--data": {"help": "bars: a file, a folder, demo or simulated:..."},
    "--sectors": {"help": "all, or names separated by commas"},
    "--preset": {"help": "of gpupipe.config"},
    "--set": {"action": "append", "metavar": "SECTION.FIELD=VALUE", "help": "of gpupipe.config"},
    "--times": {"type": int, "help": "runs of each side"},
}
Line = dict[str, Any]


class SkippedError(Exception):
    """A peer cannot be compared here; the message names the library that is missing."""


def library(module: str, package: str) -> tuple[Any, str]:
    """A module, and its package's name with the version; SkippedError where it is not installed."""
    try:
        loaded = importlib.import_module(module)
        version = getattr(loaded, "__version__", None) or importlib.metadata.version(package)
    except ImportError as error:
        raise SkippedError(f"{package} is not installed ({error})") from error
    return loaded, f"{package} {version}"


@contextlib.contextmanager
def skipping() -> Iterator[None]:
    """Report why a peer is skipped, and continue after the block."""
    try:
        yield
    except SkippedError as error:
        print(f"skipped: {error}", flush=True)


def installed(makers: dict[str, Callable[..., Any]], names: Iterable[str], *arguments: Any) -> dict[str, Any]:
    """The peers that can be made here, by name; the others are reported as skipped."""
    peers = {}
    for name in names:
        with skipping():
            peers[name] = makers[name](*arguments)
    return peers


def options(documentation: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with those options that benchmarks share for which a default is given; data brings --sector-map."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", default=default, **SHARED[f"--{name}"])
        if name == "data":
            parser.add_argument("--sector-map", help="CSV of symbol and sector, where the bars do not hold it")
    return parser


def numbers(kind: Callable[[str], Any] = int) -> Callable[[str], list[Any]]:
    """The type of an option such as 2,3,4."""
    return lambda text: [kind(word) for word in text.split(",")]


def read(chosen: argparse.Namespace, sectors: str = "all") -> tuple[Panel, DataReport]:
    """The panel that --data and --sector-map name, on the host, and the report on its bars."""
    return load(chosen.data, chosen.sector_map, sectors, "cpu")


def job_options(chosen: argparse.Namespace) -> list[str]:
    """Options of gpupipe.run for the shared options that the parser has."""
    values = vars(chosen)
    words = [
        word for name in ("data", "sector_map", "sectors", "preset") if values.get(name)
        for word in (f"--{name.replace('_', '-')}", values[name])
    ]  # fmt: skip
    return [*words, *(f"--set={setting}" for setting in values.get("set") or ())]


@dataclass(frozen=True)
class Run:
    """A finished process: seconds, largest resident set, its largest part without pages of files; OUT of a job.

    cpu_s: seconds of CPU that its threads used.
    """

    wall_s: float
    peak_bytes: int = 0
    anonymous_bytes: int = 0
    out: pathlib.Path = pathlib.Path("OUT")
    cpu_s: float = 0.0

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.out / "summary.json").read_text())

    @property
    def models(self) -> dict[str, str]:
        """SHA-256 of every model file, by name."""
        files = json.loads((self.out / "manifest.json").read_text())["files"]
        return {name: entry["sha256"] for name, entry in files.items() if name.endswith(MODEL_FILES)}


def job_command(options: Sequence[str], out: pathlib.Path) -> list[str]:
    return [*MODULE, "gpupipe.run", *options, "--quiet", "--out", str(out)]


def watch(command: Sequence[str], out: pathlib.Path = pathlib.Path("OUT"), sample: bool = False, **popen: Any) -> Run:
    """Run a command to its end; SystemExit with its status where it fails. sample: watch its anonymous memory too."""
    began, anonymous = time.perf_counter(), 0
    process = subprocess.Popen(command, **popen)
    status_file = pathlib.Path(f"/proc/{process.pid}/status")
    while True:
        if sample:
            with contextlib.suppress(OSError):
                lines = [line.split() for line in status_file.read_text().splitlines()]
                anonymous = max([anonymous, *(int(line[1]) * 1024 for line in lines if line[:1] == ["RssAnon:"])])
        done, status, usage = os.wait4(process.pid, os.WNOHANG if sample else 0)
        if done:
            break
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen takes the process for a running one
    if status:
        raise SystemExit(f"the job failed with status {process.returncode}")
    return Run(time.perf_counter() - began, usage.ru_maxrss * 1024, anonymous, out, usage.ru_utime + usage.ru_stime)


def run_job(options: Sequence[str], out: pathlib.Path, sample: bool = False, **popen: Any) -> Run:
    """Run `python -m gpupipe.run OPTIONS --out OUT` in a new process."""
    return watch(job_command(options, out), out, sample, **popen)


def memory_plans(options: Sequence[str]) -> tuple[list[dict[str, Any]], Run]:
    """The memory plans of a job as --dry-run shows them, and the process that made them."""
    with tempfile.TemporaryFile("w+") as text, tempfile.TemporaryDirectory() as folder:
        command = [*job_command(options, pathlib.Path(folder, "OUT")), "--dry-run", "--json"]
        usage = watch(command, stdout=text)
        text.seek(0)
        return json.load(text)["memory_plans"], usage


def require_same_models(runs: Sequence[Run], reference: Run, name: str) -> None:
    """SystemExit unless all runs have the models of the reference."""
    if any(run.models != reference.models for run in runs):
        raise SystemExit(f"{name}: the models differ")


def median(runs: Iterable[Any], value: Callable[[Any], float], digits: int = 3) -> float:
    return round(statistics.median(value(run) for run in runs), digits)


def without(value: Any, dropped: Callable[[str], bool]) -> Any:
    """A JSON value without the keys, at any depth, for which `dropped` is true."""
    if isinstance(value, dict):
        return {key: without(inner, dropped) for key, inner in value.items() if not dropped(key)}
    return [without(inner, dropped) for inner in value] if isinstance(value, list) else value


def record(benchmark: str, **facts: Any) -> Line:
    """One result: the facts, then where and with what it was measured. Names of files lose their folders."""
    return {
        "benchmark": benchmark, **bare(facts), "cores": cores(), "machine": platform.machine(),
        "versions": fingerprint.versions(), "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }  # fmt: skip


def finish(benchmark: str, **facts: Any) -> int:
    """Print the one result of a benchmark as its last line; exit code 0."""
    print(json.dumps(record(benchmark, **facts)))
    return 0


def bare(value: Any) -> Any:
    """A value whose paths have lost the folders of this machine."""
    if isinstance(value, dict):
        return {name: bare(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [bare(inner) for inner in value]
    is_path = isinstance(value, pathlib.Path) or (isinstance(value, str) and os.sep in value and os.path.exists(value))
    return pathlib.Path(value).name if is_path else value


def finite(value: float) -> float | None:
    """The value, or None, as JSON has no infinity."""
    return value if math.isfinite(value) else None


def text_of(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show(line: Line) -> None:
    """Print the facts of a line while the next one is measured."""
    print(", ".join(f"{name} {text_of(value)}" for name, value in line.items()), flush=True)


def table(lines: Sequence[Line]) -> None:
    """Print lines as a table; columns are the keys of the first."""
    rows = [list(lines[0]), *([text_of(line.get(name, "")) for name in lines[0]] for line in lines)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        print("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]), flush=True)


def report(benchmark: str, lines: Iterable[Line], path: pathlib.Path | str | None = None, **about: Any) -> int:
    """Show every line as it comes and add it to the file; at the end print all of them as JSON."""
    texts = []
    for line in lines:
        show(line)
        texts.append(json.dumps(record(benchmark, **line, **about)))
        if path:
            with open(path, "a") as file:
                file.write(texts[-1] + "\n")
    print(*texts, sep="\n")
    return 0
