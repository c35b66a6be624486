"""The whole job, timed as a user waits for it: `python -m bench.job.wall_time [--times 3] [--compare] -- RUN OPTIONS`.

Each repetition runs `python -m gpupipe.run RUN OPTIONS` in a fresh process and a fresh OUT. Reported are the median
wall time and seconds of training, the largest resident set of the process, the number of models, and the sealed-test
gain over the prior of each family and label, averaged over sectors, with 95 % intervals. All repetitions must give the
same models (every SHA-256 of .ubj, .npz, .txt and .cbm), or it stops.

--compare shows the cost and gain of each option of [ml], and of --memory: the job as it is, and with one option
changed, in turn (--only names some of VARIANTS; `-- --models xgb_joint` keeps it short). Variants that may change no
result must give the same models. The cores bind: nearly all of the time is boosting. The last line is JSON.
"""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile
from functools import partial
from typing import Any

from bench import runs
from bench.timing import in_turn

AS_IT_IS = "as it is"
VARIANTS = {
    AS_IT_IS: [],
    "subsample 1": ["--set=ml.subsample=1.0"],
    "subsample 0.8": ["--set=ml.subsample=0.8"],
    "subsample 0.2": ["--set=ml.subsample=0.2"],
    "subsample 0.2, gradient_sampling": ["--set=ml.subsample=0.2", "--set=ml.gradient_sampling=true"],
    "feature_selection_top_n 40": ["--set=ml.feature_selection_top_n=40"],
    "use_quantile_dmatrix false": ["--set=ml.use_quantile_dmatrix=false"],
    "sample_weight uniqueness": ["--set=training.sample_weight=uniqueness"],
    "use_rmm false": ["--set=ml.use_rmm=false"],
    "memory": [],
}
SAME = ("use_rmm false", "memory")  # variants that may change no model


def run(options: list[str], variant: str, folder: str, k: int) -> runs.Run:
    """The job with one variant; "memory" is the least that --memory takes: the need of the most sparing plan."""
    out = pathlib.Path(folder, f"{k} {variant}")
    if variant == "memory":
        memory_plans, _ = runs.memory_plans(options)
        options = [*options, "--memory", str(min(plan["memory"] for plan in memory_plans))]
    done = runs.run_job([*options, *VARIANTS[variant]], out)
    print(f"{variant}, run {k + 1}: {done.wall_s:.1f} s, {done.peak_bytes / 2**30:.2f} GiB", flush=True)
    return done


def summed_up(repeated: list[runs.Run]) -> runs.Line:
    """The line of one variant; gains are averaged over families and labels."""
    summary = repeated[0].summary
    families = summary["settings"]["training"]["models"]
    return {
        "wall_s": runs.median(repeated, lambda run: run.wall_s, 1),
        "training_s": runs.median(repeated, lambda run: sum(run.summary["seconds"][name] for name in families), 1),
        "peak_gib": round(max(run.peak_bytes for run in repeated) / 2**30, 2),
        **{
            f"{part}_gain": round(100 * statistics.fmean(
                line[f"{part}_gain_over_prior"] for line in summary["averages"] if line["model"] in families
            ), 2)
            for part in ("validation", "test")
        },
    }  # fmt: skip


def facts_of(summary: dict[str, Any]) -> runs.Line:
    """What a run gave: the summary's tables by family and label, without those by sector."""
    return {
        "rows": summary["data"]["rows_kept"], "models": summary["n_models"],
        "models_wanted": summary["n_models_wanted"],
        **{name: summary[name] for name in ("averages", "verdict", "families", "stacking", "device", "seconds")},
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = runs.options(__doc__, times=3)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--only", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("options", nargs="*", help="options of gpupipe.run, after --")
    chosen = parser.parse_args(arguments)
    names = [name for name in VARIANTS if name == AS_IT_IS or (chosen.compare and name in chosen.only)]
    with tempfile.TemporaryDirectory() as folder:
        repetitions = in_turn(chosen.times, {name: partial(run, chosen.options, name, folder) for name in names})
        for name, repeated in repetitions.items():
            runs.require_same_models(repeated, repetitions[AS_IT_IS][0] if name in SAME else repeated[0], name)
        lines = {name: summed_up(repeated) for name, repeated in repetitions.items()}
        facts = facts_of(repetitions[AS_IT_IS][0].summary)
    runs.table([{"variant": name, **line} for name, line in lines.items()])
    facts |= lines[AS_IT_IS] | {"variants": lines}
    return runs.finish("job", options=chosen.options, times=chosen.times, **facts)


if __name__ == "__main__":
    sys.exit(main())
