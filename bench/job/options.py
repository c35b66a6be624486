"""What each option of [ml], and --memory, buys: `python -m bench.job.options [--times 3] [--data ...
--sector-map ...]`.

The whole command with one family (`--models xgb_joint`, or another), in a fresh process each: as it is, and with one
option changed. Reported are medians of wall seconds and of the seconds of training, the largest resident set, and the
gain over the prior on validation and on the sealed test, averaged over labels. Repetitions take turns with those of
the other variants and must give the same models, and so must variants that may change no result. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from bench.job.wall_time import once

VARIANTS: dict[str, list[str]] = {
    "as it is": [],
    "subsample 1": ["--set", "ml.subsample=1.0"],
    "subsample 0.8": ["--set", "ml.subsample=0.8"],
    "subsample 0.2": ["--set", "ml.subsample=0.2"],
    "subsample 0.2, gradient_sampling": ["--set", "ml.subsample=0.2", "--set", "ml.gradient_sampling=true"],
    "feature_selection_top_n 40": ["--set", "ml.feature_selection_top_n=40"],
    "use_quantile_dmatrix false": ["--set", "ml.use_quantile_dmatrix=false"],
    "sample_weight uniqueness": ["--set", "training.sample_weight=uniqueness"],
    "use_rmm false": ["--set", "ml.use_rmm=false"],
    "--memory": [],
}
SAME = ("as it is", "use_rmm false", "--memory")  # variants that may change no model


def measured(run: dict[str, Any]) -> dict[str, float]:
    """Gain over the prior in percent, averaged over labels, on validation and on the sealed test."""
    family = [a for a in run["summary"]["averages"] if a["model"] in run["summary"]["settings"]["training"]["models"]]
    return {
        part: statistics.fmean(100 * a[f"{part}_gain_over_prior"] for a in family) for part in ("validation", "test")
    }


def training_s(run: dict[str, Any], models: str) -> float:
    """Seconds spent on the families, summed over jobs."""
    return sum(run["summary"]["seconds"][name] for name in models.split(","))


def smallest_memory(options: list[str], out: pathlib.Path) -> str:
    """The least that --memory takes: what the most sparing plan needs."""
    command = [sys.executable, "-m", "gpupipe.run", *options, "--dry-run", "--json", "--out", str(out)]
    planned = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return str(min(one["memory"] for one in planned["memory_plans"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--sector-map")
    parser.add_argument("--sectors", default="all")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--models", default="xgb_joint")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=sorted(VARIANTS), help="variants beside the first")
    chosen = parser.parse_args()
    options = ["--data", chosen.data, "--sectors", chosen.sectors, "--preset", chosen.preset, "--models", chosen.models]
    options += ["--sector-map", chosen.sector_map] if chosen.sector_map else []
    names = [name for name in VARIANTS if not chosen.only or name in (*chosen.only, "as it is")]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as place:
        for k in range(chosen.times):
            for name in names:
                out = pathlib.Path(place, f"{k} {name}")
                extra = VARIANTS[name]
                if name == "--memory":
                    extra = ["--memory", smallest_memory(options, out)]
                runs[name].append(once([*options, *extra], out))
    for name, own in runs.items():
        expected = runs["as it is"] if name in SAME else own
        if any(run["models"] != expected[0]["models"] for run in own):
            raise SystemExit(f"{name}: other models than expected")
    lines = {
        name: {
            "wall_s": round(statistics.median(run["wall_s"] for run in own), 1),
            "training_s": round(statistics.median(training_s(run, chosen.models) for run in own), 1),
            "peak_gib": round(max(run["peak_bytes"] for run in own) / 2**30, 2),
            **{f"{part}_gain": round(gain, 2) for part, gain in measured(own[0]).items()},
        }
        for name, own in runs.items()
    }
    print(f"{'':34} {'wall s':>8} {'training s':>11} {'peak GiB':>9} {'validation %':>13} {'test %':>7}")
    for name, line in lines.items():
        print(
            f"{name:34} {line['wall_s']:8.1f} {line['training_s']:11.1f} {line['peak_gib']:9.2f} "
            f"{line['validation_gain']:13.2f} {line['test_gain']:7.2f}"
        )
    first = runs["as it is"][0]["summary"]
    print(json.dumps({
        "benchmark": "options",
        "options": [option for option in options if os.sep not in option],
        "times": chosen.times,
        "rows": first["data"]["rows_kept"],
        "variants": lines,
        "cores": len(os.sched_getaffinity(0)),
        "device": first["device"],
        "versions": first["versions"],
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
