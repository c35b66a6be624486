"""Does a run need the memory that --dry-run predicts? `python -m bench.job.memory [--sizes demo ...] [--brief]`.

Each size runs in fresh processes: the plan (`--dry-run --json`), the run with its default plan, and the run with
--memory set to the need of each more sparing plan. Shown are the predicted bytes, the largest resident set that the
system counted (ru_maxrss), its largest part that was not pages of files (the system takes those back where memory is
short; sampled from /proc), their ratio, and whether the run stayed below its limit. --brief trains a few rounds of
everything: the memory does not depend on their number. simulated-10M takes hours without it. The last line is JSON.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from bench import runs

MINUTES = ("--horizons", "5,15,30", "--thresholds", "0.002,0.004")
SIZES = {
    "demo": ("--data", "demo"),
    **{
        f"simulated-{n}M": ("--data", f"simulated:symbols=500,bars={2000 * n},bar=1min,signal=0.5", *MINUTES)
        for n in (1, 2, 10)
    },
}
BRIEF = (
    "joint.rounds=4", "joint_sector.rounds=4", "hist.rounds=4", "leafwise.rounds=4", "forest.trees=4",
    "forest.sector_trees=4", "linear.max_iterations=2", "meta.max_iterations=3",
)  # fmt: skip
WITHIN = 0.25


def lines_of(size: str, options: list[str], plans: list[str]) -> Iterator[dict[str, Any]]:
    """A line for each plan of one size."""
    memory_plans, usage = runs.memory_plans(options)
    for plan in memory_plans:
        if plans and plan["plan"] not in plans:
            continue
        limit = [] if plan["plan"] == "as it is" else ["--memory", str(plan["memory"])]
        with tempfile.TemporaryDirectory() as folder:
            run = runs.run_job([*options, *limit], pathlib.Path(folder, "OUT"), sample=True)
            summary = run.summary
        # Pages of our files are given back where memory is short, and no limit counts them.
        held = run.anonymous_bytes if plan["plan"] == "external memory" else run.peak_bytes
        yield {
            "size": size, "peak_bytes": run.peak_bytes, "anonymous_bytes": run.anonymous_bytes, "wall_s": run.wall_s,
            "rows": summary["data"]["rows_kept"], "by_stage": summary["memory"]["peak_bytes_by_stage"],
            "plan": summary["memory"]["plan"], "told_plan": plan["plan"], "told_bytes": plan["bytes"],
            "held_bytes": held, "ratio": round(plan["bytes"] / held, 3),
            "below_limit": held <= plan["memory"] if limit else None, "dry_run_bytes": usage.peak_bytes,
            "dry_run_s": round(usage.wall_s, 1),
        }  # fmt: skip


def main() -> int:
    parser = runs.options(__doc__, data=None, preset="fast")
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=["demo", "simulated-2M"])
    parser.add_argument("--plans", nargs="+", default=[], help="these alone, such as 'as it is' (default: all)")
    parser.add_argument("--brief", action="store_true")
    chosen = parser.parse_args()
    sizes = {name: [*SIZES[name], "--preset", chosen.preset] for name in chosen.sizes}
    if chosen.data:
        sizes["data"] = runs.job_options(chosen)
    print(f"{'size':14} {'rows':>11} {'plan':16} {'predicted GiB':>13} {'held GiB':>8} {'ratio':>6}")
    lines = []
    for name, options in sizes.items():
        brief = [f"--set={setting}" for setting in BRIEF] if chosen.brief else []
        for line in lines_of(name, [*options, *brief], chosen.plans):
            lines.append(line)
            below = {None: "", True: "below its limit", False: "ABOVE its limit"}[line["below_limit"]]
            print(f"{name:14} {line['rows']:>11,} {line['plan']:16} {line['told_bytes'] / 2**30:13.2f} "
                  f"{line['held_bytes'] / 2**30:8.2f} {line['ratio']:6.2f}  {below}", flush=True)  # fmt: skip
    within = all(abs(line["held_bytes"] / line["told_bytes"] - 1) <= WITHIN for line in lines)
    about = {"preset": chosen.preset, "brief": chosen.brief, "within": WITHIN, "all_within": within}
    return runs.finish("memory", **about, lines=lines)


if __name__ == "__main__":
    sys.exit(main())
