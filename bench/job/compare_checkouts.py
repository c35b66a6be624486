"""The same jobs with two checkouts: equal models, equal figures, and the time of both.

    python -m bench.job.compare_checkouts BEFORE AFTER [--jobs tiny,demo,two] [--data FILE --sector-map FILE]

Each job runs once with each checkout, in a new process whose working directory is the checkout, with this
interpreter. Compared are the bytes of every model file, the figures of summary.json and the metadata; left out are
times, versions, run keys, memory and what depends on folder names (VOLATILE). Every difference is printed, and the
exit code is 1 if there is one.

    tiny    a simulated market of three sectors, two walk-forward folds, a few rounds of every estimator: seconds
    demo    the demo, preset fast
    two     two sectors of --data, preset fast (with --data alone)

--time N runs each job N times with both checkouts in turn, each in a fresh OUT, and prints the medians and their ratio
(with the standard error of the paired ratios). The cores bind, so nothing else may run then. --keep FOLDER keeps OUT of
both; a job that finished there with the same code is not run again. The last line is JSON.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from bench import runs
from bench.timing import excess, in_turn

QUICK = (
    "labels.horizons=1,3", "labels.thresholds=0.02,0.04", "training.max_bin=16", "training.early_stopping=4",
    "joint.rounds=12", "joint_sector.rounds=4", "hist.rounds=8", "leafwise.rounds=8", "forest.trees=6",
    "forest.sector_trees=4", "forest.depth=4", "linear.max_iterations=15", "meta.max_iterations=20",
)  # fmt: skip
JOBS = {
    "tiny": ["--data", "simulated:symbols=110,bars=260,seed=3,signal=0.5", "--sectors", "energy,technology,utilities",
             "--preset", "fast", "--walk-forward", "2", *(f"--set={setting}" for setting in QUICK)],
    "demo": ["--data", "demo", "--sectors", "all", "--preset", "fast"],
    "two": ["--sectors", "utilities,materials", "--preset", "fast"],
}  # fmt: skip
# Keys of JSON files that may differ between runs with the same results.
VOLATILE = frozenset({
    "seconds", "elapsed_s", "rows_per_second", "seconds_sector",  # times
    "peak_bytes", "device_peak_bytes", "bus_bytes", "memory",  # memory
    "run_key", "cold_key", "versions", "units", "reused",  # code, and cached results
    "file", "description",  # names of folders
})  # fmt: skip


def differences(before: pathlib.Path, after: pathlib.Path) -> Iterator[str]:
    """What differs between the OUT of two finished runs, one text for each difference."""
    files = [set(json.loads((out / "manifest.json").read_text())["files"]) for out in (before, after)]
    yield from (f"{name}: only before" for name in sorted(files[0] - files[1]))
    yield from (f"{name}: only after" for name in sorted(files[1] - files[0]))
    for name in sorted(files[0] & files[1]):
        if name == "summary.json" or name.endswith("metadata.json"):
            values = [json.loads((out / name).read_text()) for out in (before, after)]
            values = [runs.without(value, VOLATILE.__contains__) for value in values]
            yield from (f"{name}{text}" for text in unequal(*values))
        elif is_model(name) and (before / name).read_bytes() != (after / name).read_bytes():
            yield f"{name}: other bytes"


def is_model(name: str) -> bool:
    return name.startswith(("trained_", "walk_forward/")) and not name.endswith(".json")


def unequal(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Paths at which two JSON values differ; NaN equals NaN, and an int the float of the same value."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            if key not in before or key not in after:
                yield f"{path}/{key}: only {'before' if key in before else 'after'}"
            else:
                yield from unequal(before[key], after[key], f"{path}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for k, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from unequal(left, right, f"{path}[{k}]")
    elif before != after and (before == before or after == after):
        yield f"{path}: {before!r} before, {after!r} after"


def main(arguments: list[str] | None = None) -> int:
    parser = runs.options(__doc__, data=None)
    parser.add_argument("before", type=pathlib.Path, metavar="BEFORE")
    parser.add_argument("after", type=pathlib.Path, metavar="AFTER")
    parser.add_argument("--jobs", type=runs.numbers(str), help="default: all that --data allows")
    parser.add_argument("--time", type=int, default=0, metavar="N", help="time N runs of each checkout too")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER")
    chosen = parser.parse_args(arguments)
    jobs = chosen.jobs or [name for name in JOBS if name != "two" or chosen.data]
    if unknown := sorted({*jobs} - {*JOBS}):
        raise SystemExit(f"--jobs: no job {', '.join(unknown)}; there are {', '.join(JOBS)}")
    if "two" in jobs and not chosen.data:
        raise SystemExit("--jobs two needs bars: add --data FILE --sector-map FILE")
    # The jobs run in the checkouts, where a relative name would be of another file.
    bars = [f"--{name.replace('_', '-')}={pathlib.Path(path).resolve()}" for name in ("data", "sector_map")
             if (path := getattr(chosen, name))]  # fmt: skip
    options = {name: [*JOBS[name], *(bars if name == "two" else [])] for name in jobs}
    checkouts = {"before": chosen.before, "after": chosen.after}
    lines: list[runs.Line] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.keep or pathlib.Path(temporary)).resolve()
        for job in jobs:

            def run(side: str, out: pathlib.Path, job: str = job) -> runs.Run:
                return runs.run_job(options[job], out, cwd=checkouts[side])

            before, after = (run(side, folder / side / job) for side in checkouts)
            unlike = list(differences(before.out, after.out))
            print(f"{job}: {len(before.models)} models; {len(unlike) or 'no'} differences", flush=True)
            print(*(f"  {text}" for text in unlike), sep="\n", end="\n" * bool(unlike))
            lines.append({"job": job, "differences": unlike})
            if chosen.time:
                sides = {
                    side: lambda k, side=side, run=run: run(side, pathlib.Path(temporary, f"{side} {k}")).wall_s
                    for side in checkouts
                }
                lines[-1] |= timed(job, in_turn(chosen.time, sides))
                for out in pathlib.Path(temporary).glob("* *"):  # the next job needs a fresh OUT
                    shutil.rmtree(out)
    runs.finish("compare_checkouts", jobs=lines, times=chosen.time)
    return 1 if any(line["differences"] for line in lines) else 0


def timed(job: str, seconds: dict[str, list[float]]) -> runs.Line:
    """Median seconds of both checkouts, and how much longer the second takes."""
    before, after = (statistics.median(values) for values in seconds.values())
    share, error = excess(seconds["after"], seconds["before"])
    print(f"{job}: before {before:.2f} s, after {after:.2f} s, ratio {after / before:.3f}; paired {100 * share:+.1f} % "
          f"(standard error {100 * error:.1f} %)", flush=True)  # fmt: skip
    return {"seconds": seconds, "ratio": after / before, "paired_share": share, "paired_error": runs.finite(error)}


if __name__ == "__main__":
    sys.exit(main())
