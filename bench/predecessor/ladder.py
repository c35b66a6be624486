"""From timed runs of the predecessor to its whole job, and the ladder of steps from its way to ours."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.runs import table

LOAD, FEATURES, LABELS = "load", "features", "labels"  # stages of the predecessor; gpupipe has the last two


def stages(runs: Sequence[Any], rows: Mapping[str, int], n_labels: int) -> dict[str, float]:
    """Seconds of the whole job by stage of the predecessor.

    runs: those that were timed.  rows: of every sector of the job.  n_labels: runs that each sector has.
    A run that was not timed counts as the mean of its sector's timed runs; in a sector without any, as rows * the mean
    of seconds per row of all. Reading is of the whole file, whatever the sector: its mean.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.seconds))
    return {name: sum(_of_sector(runs, name, s, rows[s], n_labels) for s in rows) for name in names}


def _of_sector(runs: Sequence[Any], name: str, sector: str, n_rows: int, n_labels: int) -> float:
    timed = [run.seconds[name] for run in runs if run.sector == sector]
    if timed:
        return sum(timed) + (n_labels - len(timed)) * statistics.fmean(timed)
    if name == LOAD:
        return n_labels * statistics.fmean([run.seconds[name] for run in runs])
    return n_labels * n_rows * statistics.fmean([run.seconds[name] / run.rows for run in runs])


def ladder(
    runs: Sequence[Any], rows: Mapping[str, int], n_labels: int, new: Sequence[Mapping[str, Any]], full: bool
) -> dict[str, Any]:
    """Steps from the predecessor to ours: name, seconds of the whole job, what the figure is made of.

    new: the runs of ours, each with one more step.  full: whether the predecessor did all of its work; without it
    there is no ratio.
    """
    n_runs = n_labels * len(rows)
    extrapolated = len(runs) < n_runs
    basis = f"extrapolated: {len(runs)} of {n_runs} runs timed" if extrapolated else f"measured, {n_runs} runs"
    whole = stages(runs, rows, n_labels)
    everything = sum(whole.values())
    once = everything - whole[LOAD] * (1 - 1 / n_runs) - whole[FEATURES] * (1 - 1 / n_labels)
    ours = new[-1]["stages"]
    kernels = once - whole[FEATURES] / n_labels + ours[FEATURES] - whole[LABELS] + ours[LABELS]
    by_stage = "by stage" + (", extrapolated" if extrapolated else "")
    steps: list[dict[str, Any]] = [
        {"step": "predecessor, everything anew for each run", "seconds": everything, "basis": basis},
        {"step": "the file read once, features made once", "seconds": once, "basis": by_stage},
        {"step": "our features and labels", "seconds": kernels, "basis": by_stage},
    ]
    steps += [
        {"step": run["name"], "seconds": run["seconds"],
         "basis": f"measured, {run['models']} of {run['models_wanted']} models"}
        for run in new
    ]  # fmt: skip
    for before, step in zip([None, *steps[:-1]], steps, strict=True):
        step["times_faster"] = before["seconds"] / step["seconds"] if before and full else None
    ratio = steps[0]["seconds"] / steps[-1]["seconds"] if full else None
    counts = {"models": new[-1]["models"], "models_wanted": new[-1]["models_wanted"]}
    return {"steps": steps, "ratio": ratio, "extrapolated": extrapolated, **counts}


def show(steps: Mapping[str, Any], old_stages: Mapping[str, float], new: Mapping[str, Any]) -> None:
    """The ladder as a table, the ratio of its ends, and the stages of both."""
    print()
    table(steps["steps"])
    if not steps["ratio"]:
        print("No ratio: the predecessor had fewer trees than it has.")
    else:
        print(f"gpupipe is {steps['ratio']:.1f} times faster" + " (extrapolated)" * steps["extrapolated"])
        if left_out := steps["models_wanted"] - steps["models"]:
            print(f"but it left {left_out} of {steps['models_wanted']} models out, whose labels have too few events; "
                  "the predecessor trained them")  # fmt: skip
    for title, seconds in (("predecessor, whole job", old_stages), (f"gpupipe, {new['name']}", new["stages"])):
        print(f"\n{title}: seconds by stage, {sum(seconds.values()):,.1f} in all")
        table([{"stage": name, "seconds": value} for name, value in sorted(seconds.items(), key=lambda item: -item[1])])
