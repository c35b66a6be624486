"""The whole job, timed as a user waits for it: `python -m bench.job.wall_time [--times 3] -- RUN OPTIONS`.

Each repetition runs `python -m gpupipe.run RUN OPTIONS` in a fresh process and a fresh OUT. Reported are the median
wall time, the largest resident set of the process, the number of models, and the sealed-test gain over the prior of
each family and label, averaged over sectors, with 95 % intervals. All repetitions must give the same models (every
SHA-256 of .ubj, .npz, .txt and .cbm), or it stops. The cores bind: nearly all of the time is boosting. The last line
is JSON.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile

from bench import runs


def main() -> int:
    parser = runs.options(__doc__, times=3)
    parser.add_argument("options", nargs="*", help="options of gpupipe.run, after --")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repetitions = []
        for k in range(chosen.times):
            run = runs.run_job(chosen.options, pathlib.Path(folder, f"OUT{k}"))
            print(f"run {k + 1}: {run.wall_s:.1f} s, {run.peak_bytes / 2**30:.2f} GiB", flush=True)
            repetitions.append(run)
        runs.require_same_models(repetitions)
        summary = repetitions[0].summary
    averages = {f"{line['model']} {line['label']}": line for line in summary["averages"]}
    verdict = {f"{line['model']} {line['label']}": line for line in summary["verdict"]}
    print(json.dumps(runs.record(
        "job", options=chosen.options, times=chosen.times,
        wall_s=runs.median(repetitions, lambda run: run.wall_s, 1),
        peak_gib=round(max(run.peak_bytes for run in repetitions) / 2**30, 2),
        rows=summary["data"]["rows_kept"], models=summary["n_models"], models_wanted=summary["n_models_wanted"],
        above_tables={name: round(line["above_tables"], 4) for name, line in verdict.items()},
        above_tables_clearly=[name for name, line in verdict.items() if line["beats_all_clearly"]],
        gains={name: round(line["test_gain_over_prior"], 4) for name, line in averages.items()},
        intervals={
            name: [round(line["test_gain_low"], 4), round(line["test_gain_high"], 4)]
            for name, line in averages.items() if line["test_gain_low"] is not None
        },
        families={
            line["model"]: {
                name: line[name] for name in ("gain", "gain_low", "gain_high", "above_prior", "with_skill", "runs")
            }
            for line in summary["families"]
        },
        stacking=summary["stacking"], seconds={name: round(value, 1) for name, value in summary["seconds"].items()},
        device=summary["device"],
    )))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
