"""Is what --dry-run foretells what a run holds? `python -m bench.job.memory [--sizes demo simulated-2M] [--brief]`.

Each size runs in fresh processes: the plan (`--dry-run --json`), and the run itself as it is and with --memory set to
what each more sparing plan of it needs. Shown are the bytes foretold, the largest resident set that the system counted
(ru_maxrss), the largest of it that was not pages of files (which the system takes back where memory is short, sampled
from /proc), their ratio, and whether the run stayed below its limit. The last line is JSON. --brief trains a few rounds
of everything: what is held does not depend on their number. simulated-10M takes hours without it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

MINUTES = ("--horizons", "5,15,30", "--thresholds", "0.002,0.004")
SIZES = {
    "demo": ("--data", "demo"),
    "simulated-1M": ("--data", "simulated:symbols=500,bars=2000,bar=1min,signal=0.5", *MINUTES),
    "simulated-2M": ("--data", "simulated:symbols=500,bars=4000,bar=1min,signal=0.5", *MINUTES),
    "simulated-10M": ("--data", "simulated:symbols=500,bars=20000,bar=1min,signal=0.5", *MINUTES),
}
BRIEF = (
    "joint.rounds=4", "joint_sector.rounds=4", "hist.rounds=4", "leafwise.rounds=4", "forest.trees=4",
    "forest.sector_trees=4", "linear.max_iterations=2", "meta.max_iterations=3",
)  # fmt: skip
WITHIN = 0.25


def planned(options: list[str]) -> dict[str, Any]:
    """What the plan says, and what saying it took."""
    command = [sys.executable, "-m", "gpupipe.run", *options, "--dry-run", "--json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"the plan failed with status {process.returncode}")
    return {**json.loads(text), "took_bytes": usage.ru_maxrss * 1024, "took_s": time.perf_counter() - began}


def measured(options: list[str], place: pathlib.Path) -> dict[str, Any]:
    """A run in a fresh process: largest resident set, largest anonymous part of it, seconds, plan."""
    command = [sys.executable, "-m", "gpupipe.run", *options, "--quiet", "--out", str(place)]
    began, anonymous = time.perf_counter(), 0
    process = subprocess.Popen(command)
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        anonymous = max(anonymous, _anonymous_bytes(process.pid))
        time.sleep(0.05)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"the run failed with status {process.returncode}")
    found = json.loads((place / "summary.json").read_text())
    return {
        "peak_bytes": usage.ru_maxrss * 1024, "anonymous_bytes": anonymous, "wall_s": time.perf_counter() - began,
        "rows": found["data"]["rows_kept"], "by_stage": found["memory"]["peak_bytes_by_stage"],
        "plan": found["memory"]["plan"],
    }  # fmt: skip


def _anonymous_bytes(process: int) -> int:
    """What a process holds beside pages of files; 0 where the system does not say."""
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def rows_of(size: str, options: list[str], plans: list[str]) -> list[dict[str, Any]]:
    """A line for each plan of one size."""
    told = planned(options)
    lines = []
    for one in told["memory_plans"]:
        if plans and one["plan"] not in plans:
            continue
        limit = [] if one["plan"] == "as it is" else ["--memory", str(one["memory"])]
        with tempfile.TemporaryDirectory() as place:
            found = measured([*options, *limit], pathlib.Path(place, "OUT"))
        # Pages of our own files are given back where memory is short, and no limit counts them.
        held = found["anonymous_bytes"] if one["plan"] == "external memory" else found["peak_bytes"]
        lines.append({
            "size": size, **found, "told_plan": one["plan"], "told_bytes": one["bytes"], "held_bytes": held,
            "ratio": round(one["bytes"] / held, 3), "below_limit": held <= one["memory"] if limit else None,
            "dry_run_bytes": told["took_bytes"], "dry_run_s": round(told["took_s"], 1),
        })  # fmt: skip
        print(line_of(lines[-1]), flush=True)
    return lines


def line_of(one: dict[str, Any]) -> str:
    """As a person reads it."""
    below = {None: "", True: "below its limit", False: "ABOVE its limit"}[one["below_limit"]]
    return (
        f"{one['size']:14} {one['rows']:>11,} {one['plan']:16} {one['told_bytes'] / 2**30:8.2f} "
        f"{one['held_bytes'] / 2**30:8.2f} {one['ratio']:6.2f}  {below}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=["demo", "simulated-2M"])
    parser.add_argument("--data", help="bars of your own, as one more size, with --sector-map")
    parser.add_argument("--sector-map")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--plans", nargs="+", default=[], help="these alone, such as 'as it is' (default: all)")
    parser.add_argument("--brief", action="store_true")
    chosen = parser.parse_args()
    sizes = {name: list(SIZES[name]) for name in chosen.sizes}
    if chosen.data:
        sizes["data"] = ["--data", chosen.data, *(["--sector-map", chosen.sector_map] if chosen.sector_map else [])]
    print(f"{'size':14} {'rows':>11} {'plan':16} {'told GiB':>8} {'held GiB':>8} {'ratio':>6}")
    lines = []
    for name, options in sizes.items():
        brief = [f"--set={one}" for one in BRIEF] if chosen.brief else []
        lines += rows_of(name, [*options, "--preset", chosen.preset, *brief], chosen.plans)
    print(json.dumps({
        "benchmark": "memory", "preset": chosen.preset, "brief": chosen.brief,
        "cores": len(os.sched_getaffinity(0)), "within": WITHIN,
        "all_within": all(abs(one["held_bytes"] / one["told_bytes"] - 1) <= WITHIN for one in lines), "lines": lines,
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
