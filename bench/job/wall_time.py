"""The whole job, timed as a user waits for it: `python -m bench.job.wall_time [--times 3] -- RUN OPTIONS`.

Each repetition runs `python -m gpupipe.run RUN OPTIONS` in a fresh process and a fresh OUT. Reported are the median
wall time, the largest resident set of the process, the number of models, and the sealed-test gain over the prior of
each family and label, averaged over sectors, with 95 % intervals. All repetitions must give the same models (every
SHA-256 of .ubj, .npz, .txt and .cbm), or it stops. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

MODEL_FILES = (".ubj", ".npz", ".txt", ".cbm")


def once(options: list[str], out: pathlib.Path) -> dict:
    """Run the job; wall seconds, peak bytes, its summary and the checksums of its models."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "gpupipe.run", *options, "--quiet", "--out", str(out)])
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen thinks that it is still running
    if status:
        raise SystemExit(f"the job failed with status {process.returncode}")
    files = json.loads((out / "manifest.json").read_text())["files"]
    return {
        "wall_s": wall_s,
        "peak_bytes": usage.ru_maxrss * 1024,
        "summary": json.loads((out / "summary.json").read_text()),
        "models": {name: entry["sha256"] for name, entry in files.items() if name.endswith(MODEL_FILES)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("options", nargs="*", help="options of gpupipe.run, after --")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs = []
        for k in range(chosen.times):
            runs.append(once(chosen.options, pathlib.Path(place, f"OUT{k}")))
            print(f"run {k + 1}: {runs[-1]['wall_s']:.1f} s, {runs[-1]['peak_bytes'] / 2**30:.2f} GiB", flush=True)
    if any(run["models"] != runs[0]["models"] for run in runs):
        raise SystemExit("repetitions gave different models")
    summary = runs[0]["summary"]
    gains = {f"{a['model']} {a['label']}": round(a["test_gain_over_prior"], 4) for a in summary["averages"]}
    print(json.dumps({
        "benchmark": "job",
        "options": [option for option in chosen.options if os.sep not in option],
        "wall_s": round(statistics.median(run["wall_s"] for run in runs), 1),
        "times": chosen.times,
        "peak_gib": round(max(run["peak_bytes"] for run in runs) / 2**30, 2),
        "rows": summary["data"]["rows_kept"],
        "models": summary["n_models"],
        "models_wanted": summary["n_models_wanted"],
        "above_tables": {f"{v['model']} {v['label']}": round(v["above_tables"], 4) for v in summary["verdict"]},
        "gains": gains,
        "intervals": {
            f"{a['model']} {a['label']}": [round(a["test_gain_low"], 4), round(a["test_gain_high"], 4)]
            for a in summary["averages"] if a["test_gain_low"] is not None
        },
        "above_tables_clearly": [f"{v['model']} {v['label']}" for v in summary["verdict"] if v["beats_all_clearly"]],
        "families": {
            f["model"]: {
                name: f[name] for name in ("gain", "gain_low", "gain_high", "above_prior", "with_skill", "runs")
            }
            for f in summary["families"]
        },
        "stacking": summary["stacking"],
        "seconds": {name: round(value, 1) for name, value in summary["seconds"].items()},
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "device": summary["device"],
        "versions": summary["versions"],
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
