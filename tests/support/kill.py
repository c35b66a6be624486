"""Kill a run and start it again: `python -m tests.support.kill [--times 10] [--seed 0] [--keep FOLDER] [-- OPTIONS]`.

With `--job bonds` it is one of `gpupipe bonds`, else one of `gpupipe run`.

An uninterrupted run comes first. Then, each time in a fresh OUT, the same run is killed (SIGKILL) at a moment, started
again, and compared with the first: the same files under trained_* or bonds, every model byte for byte, metadata but for
times; and a manifest with the same key, settings and names of files.
After every kill, a manifest that exists must name only files that have its SHA-256; after every second run, every file
must be in the manifest, and nothing temporary may be left.

A moment is of one of three kinds, drawn in turn: "seconds" after the start; when "units" of work are finished; or
"publishing", milliseconds after files began to replace those of an earlier run with another seed, which OUT then holds.
With --keep, the first runs and the result of each moment stay in that folder, and the same command continues from
there: `--times 50 --keep FOLDER` may be interrupted and given again. --moment KIND=N, as often as wanted, takes the
place of what is drawn. Measured is correctness, not speed. The last line is JSON; the exit code is 1 if anything
differed.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from bench import runs
from gpupipe.pipeline import upkeep
from gpupipe.store import fingerprint
from tests.support.bond_run import MARKET, OPTIONS

SHORT_JOB = (
    "--data", "simulated:symbols=88,bars=320,signal=0.5", "--sectors", "energy,technology,utilities,health_care",
    "--preset", "fast", "--horizons", "1,3", "--thresholds", "0.02,0.04", "--jobs", "2",
    *(f"--set={setting}" for setting in (
        "joint.rounds=30", "joint_sector.rounds=10", "hist.rounds=20", "leafwise.rounds=20", "forest.trees=15",
        "forest.sector_trees=8", "linear.max_iterations=30",
    )),
)  # fmt: skip
OF_BONDS = (
    *MARKET, *OPTIONS, "--set=search.trials=25", "--set=network.epochs=20", "--set=forest.n_trees=24",
    "--jobs", "2", "--device", "cpu", "--skip-plots",
)  # fmt: skip
KINDS = ("seconds", "units", "publishing")
LONGEST_S = 600.0
KEPT = re.compile(r"\.gpupipe/(units/[0-9a-f]{40}\.json|objects/[0-9a-f]{64}|runs/[0-9a-f]{64})")


def start(options: list[str], out: pathlib.Path) -> subprocess.Popen[bytes]:
    return Job(tuple(options)).start(out)


@dataclass(frozen=True)
class Job:
    """A run. command: of gpupipe, "run" or "bonds"."""

    options: tuple[str, ...]
    command: str = "run"

    def words(self, out: pathlib.Path) -> list[str]:
        """Its command line."""
        if self.command == "run":
            return runs.job_command(self.options, out)
        return [sys.executable, "-m", "gpupipe.cli", self.command, *self.options, "--quiet", "--out", str(out)]

    def start(self, out: pathlib.Path) -> subprocess.Popen[bytes]:
        """Begin it."""
        return subprocess.Popen(self.words(out))

    def finish(self, out: pathlib.Path, *more: str) -> None:
        """Do it, with more options, to its end."""
        runs.watch(Job((*self.options, *more), self.command).words(out), out)


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def timeless(value: Any) -> Any:
    """A JSON value of OUT without the seconds that a run took."""
    return runs.without(value, lambda key: key.startswith("seconds"))


def contents(out: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file under trained_* and bonds, of metadata without its times."""
    found = {}
    for path in sorted([*out.glob("trained_*/**/*"), *out.glob("bonds/**/*")]):
        if path.name == "metadata.json":
            text = json.dumps(timeless(json.loads(path.read_text())), sort_keys=True)
            found[str(path.relative_to(out))] = hashlib.sha256(text.encode()).hexdigest()
        elif path.is_file():
            found[str(path.relative_to(out))] = digest(path)
    return found


def outcome(out: pathlib.Path) -> dict[str, str]:
    """`contents`, and SHA-256 of what the manifest says but for the digests of files that hold times."""
    manifest = json.loads((out / "manifest.json").read_text())
    lasting = {**manifest, "files": sorted(manifest["files"])}
    return {**contents(out), "manifest.json": hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()}


def broken_promises(out: pathlib.Path) -> list[str]:
    """Files that a manifest names, if there is one, and that are not as it says."""
    manifest = out / "manifest.json"
    if not manifest.exists():
        return []
    files = json.loads(manifest.read_text())["files"]
    return [name for name, entry in files.items() if not (out / name).exists() or digest(out / name) != entry["sha256"]]


def unaccounted(out: pathlib.Path) -> list[str]:
    """Files of a finished run that the manifest does not name and the store does not keep, and temporary ones.

    The log changes after the manifest.
    """
    named = {"manifest.json", "run.jsonl", ".gpupipe/lock", *json.loads((out / "manifest.json").read_text())["files"]}
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} - named
    return sorted(name for name in there if not KEPT.fullmatch(name))


def broken_store(out: pathlib.Path) -> list[str]:
    """Kept contents that are not what their names say, and those that a finished unit names and that are not there."""
    return sorted(upkeep.verify(out).wrong) if (out / ".gpupipe").is_dir() else []


def n_units(out: pathlib.Path) -> int:
    units = out / ".gpupipe" / "units"
    return len(list(units.glob("*.json"))) if units.exists() else 0


def wait_for(kind: str, amount: float, process: subprocess.Popen[bytes], out: pathlib.Path) -> None:
    """Return at the moment, or when the process has ended before it."""
    began = time.perf_counter()

    def has_come() -> bool:
        return n_units(out) >= amount if kind == "units" else not (out / "manifest.json").exists()

    if kind != "seconds":
        while not has_come() and process.poll() is None and time.perf_counter() - began < LONGEST_S:
            time.sleep(0.001)
    try:
        process.wait({"seconds": amount, "units": 0.0, "publishing": amount / 1000}[kind])
    except subprocess.TimeoutExpired:
        return


def kill_once(
    moment: tuple[str, float], job: Job, out: pathlib.Path, earlier: pathlib.Path, expected: dict[str, str]
) -> tuple[bool, bool]:
    """Start, kill, check, start again, compare; whether it came to a kill, and whether all was as it should be."""
    kind, amount = moment
    if kind == "publishing":
        shutil.copytree(earlier, out)
    process = job.start(out)
    wait_for(kind, amount, process, out)
    process.kill()
    killed = process.wait() != 0
    units, published, broken = n_units(out), len(contents(out)), broken_promises(out) + broken_store(out)
    job.finish(out)
    after = outcome(out)
    differing = sorted(name for name in {*after, *expected} if after.get(name) != expected.get(name))
    odd = broken + broken_promises(out) + broken_store(out) + unaccounted(out) + differing
    what = "killed" if killed else "had ended before"
    verdict = "identical" if not odd else f"NOT as it should be: {', '.join(odd[:5])}"
    print(f"{kind} {amount:.4g}: {what}, {units} units done, {published} files there; then {verdict}", flush=True)
    shutil.rmtree(out)
    return killed, not odd


def draw(times: int, seed: int, whole_s: float, units: int) -> list[tuple[str, float]]:
    """Moments of each kind in turn, spread over the whole run."""
    rng = random.Random(seed)
    largest = {"seconds": whole_s, "units": units, "publishing": 400.0}
    kinds = [KINDS[k % len(KINDS)] for k in range(times)]
    drawn = [(kind, rng.uniform(0, largest[kind])) for kind in kinds]
    return [(kind, amount if kind != "units" else float(int(amount))) for kind, amount in drawn]


def uninterrupted(job: Job, place: pathlib.Path) -> tuple[float, int, dict[str, str]]:
    """Seconds, units and contents of a run that nobody kills, or those kept in `place` of the same job and code."""
    root = {"run": "gpupipe.pipeline.job", "bonds": "gpupipe.workloads.bonds"}[job.command]
    kept, about = place / "whole.json", {"options": list(job.options), "code": fingerprint.code_hash([root], ())}
    if kept.exists():
        found = json.loads(kept.read_text())
        if found["job"] != about:
            raise SystemExit(f"{place} holds kills of another job or other code: remove it, or choose another --keep")
        return found["seconds"], found["units"], found["contents"]
    place.mkdir(parents=True, exist_ok=True)
    whole = place / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    began, units, process = time.perf_counter(), 0, job.start(whole)
    while process.poll() is None:
        units = max(units, n_units(whole))
        time.sleep(0.005)
    whole_s = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"the job failed with status {process.returncode}")
    found = {"job": about, "seconds": whole_s, "units": units, "contents": outcome(whole)}
    kept.write_text(json.dumps(found))
    return whole_s, units, found["contents"]


def parse_moment(text: str) -> tuple[str, float]:
    kind, _, amount = text.partition("=")
    return kind, float(amount)


def main(arguments: list[str] | None = None) -> int:
    parser = runs.options(__doc__, times=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--moment", action="append", metavar="KIND=N", type=parse_moment, help="instead of drawn ones")
    parser.add_argument("--job", choices=("run", "bonds"), default="run", help="the command of gpupipe")
    parser.add_argument("options", nargs="*", help="of the command, after --; a job of some seconds if none")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER", help="continue with what is there")
    chosen = parser.parse_args(arguments)
    job = Job(tuple(chosen.options or {"run": SHORT_JOB, "bonds": OF_BONDS}[chosen.job]), chosen.job)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or pathlib.Path(temporary)
        whole_s, units, expected = uninterrupted(job, folder)
        print(f"uninterrupted: {whole_s:.1f} s, {units} units, {len(expected)} files", flush=True)
        moments = chosen.moment or draw(chosen.times, chosen.seed, whole_s, units)
        earlier, done = folder / "earlier", folder / "done.jsonl"
        if any(kind == "publishing" for kind, _ in moments) and not (earlier / "manifest.json").exists():
            job.finish(earlier, "--seed", "7")
        lines = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
        results = {(kind, amount): (killed, good) for kind, amount, killed, good in lines}
        for k, moment in enumerate(moments):
            if moment not in results:
                out = folder / f"killed{k}"
                shutil.rmtree(out, ignore_errors=True)  # of a time when this was interrupted
                results[moment] = kill_once(moment, job, out, earlier, expected)
                with done.open("a") as stream:
                    stream.write(json.dumps([*moment, *results[moment]]) + "\n")
    n_killed, n_good = (sum(results[moment][k] for moment in moments) for k in (0, 1))
    print(json.dumps(runs.record(
        "kill", moments=len(moments), killed=n_killed, as_expected=n_good, uninterrupted_s=round(whole_s, 1),
        units=units, files=len(expected), options=list(job.options), seed=chosen.seed,
    )))  # fmt: skip
    return 0 if n_good == len(moments) else 1


if __name__ == "__main__":
    sys.exit(main())
