"""What each option of [ml], and --memory, costs and gains: `python -m bench.job.options [--times 3] [--data ...]`.

The whole command with one family (`--models xgb_joint`, or another), in a fresh process each: with the default
settings ("as it is"), and with one option changed. Reported are medians of wall seconds and of the seconds of training,
the largest resident set, and the gain over the prior on validation and on the sealed test, averaged over labels.
Variants take turns. Repetitions must give the same models, and so must variants that may change no result. The cores
bind. The last line is JSON.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from typing import Any

from bench import runs
from bench.timing import in_turn

VARIANTS = {
    "as it is": [],
    "subsample 1": ["--set=ml.subsample=1.0"],
    "subsample 0.8": ["--set=ml.subsample=0.8"],
    "subsample 0.2": ["--set=ml.subsample=0.2"],
    "subsample 0.2, gradient_sampling": ["--set=ml.subsample=0.2", "--set=ml.gradient_sampling=true"],
    "feature_selection_top_n 40": ["--set=ml.feature_selection_top_n=40"],
    "use_quantile_dmatrix false": ["--set=ml.use_quantile_dmatrix=false"],
    "sample_weight uniqueness": ["--set=training.sample_weight=uniqueness"],
    "use_rmm false": ["--set=ml.use_rmm=false"],
    "--memory": [],
}
SAME = ("as it is", "use_rmm false", "--memory")  # variants that may change no model


def smallest_memory(options: list[str], out: pathlib.Path) -> str:
    """The least that --memory takes: the need of the most sparing plan."""
    command = [*runs.job_command(options, out), "--dry-run", "--json"]
    planned = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return str(min(plan["memory"] for plan in planned["memory_plans"]))


def summed_up(own: list[runs.Run], families: list[str]) -> dict[str, float]:
    """The line of one variant."""
    averages = [line for line in own[0].summary["averages"] if line["model"] in families]
    gains = {
        f"{part}_gain": round(100 * statistics.fmean(line[f"{part}_gain_over_prior"] for line in averages), 2)
        for part in ("validation", "test")
    }
    return {
        "wall_s": runs.median(own, lambda run: run.wall_s, 1),
        "training_s": runs.median(own, lambda run: sum(run.summary["seconds"][name] for name in families), 1),
        "peak_gib": round(max(run.peak_bytes for run in own) / 2**30, 2), **gains,
    }  # fmt: skip


def main() -> int:
    parser = runs.options(__doc__, data="demo", sectors="all", preset="fast", times=3)
    parser.add_argument("--models", default="xgb_joint")
    parser.add_argument("--only", nargs="+", choices=sorted(VARIANTS), help="variants to compare with 'as it is'")
    chosen = parser.parse_args()
    options = [*runs.job_options(chosen), "--models", chosen.models]
    names = [name for name in VARIANTS if not chosen.only or name in (*chosen.only, "as it is")]
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str, k: int) -> runs.Run:
            out = pathlib.Path(folder, f"{k} {name}")
            memory = ["--memory", smallest_memory(options, out)] if name == "--memory" else []
            return runs.run_job([*options, *VARIANTS[name], *memory], out)

        repetitions = in_turn(chosen.times, {name: partial(run, name) for name in names})
        for name, own in repetitions.items():
            runs.require_same_models(own, repetitions["as it is"][0] if name in SAME else None, name)
        lines: dict[str, Any] = {n: summed_up(own, chosen.models.split(",")) for n, own in repetitions.items()}
        summary = repetitions["as it is"][0].summary
    runs.table([{"variant": name, **line} for name, line in lines.items()])
    print(json.dumps(runs.record(
        "options", options=options, times=chosen.times, rows=summary["data"]["rows_kept"], variants=lines,
        device=summary["device"],
    )))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
