"""The predecessor against gpupipe: `python -m bench.predecessor.comparison [--data FILE --sector-map FILE] [--runs 6]`.

The predecessor's way is the usual one, horizon first: for each sector, horizon and threshold the file is read anew, 172
columns are made in pandas, labels row by row over calendar days, 80 % of the rows are drawn at random, six models are
trained (models.py), and the accuracy on the other 20 % is the claim. Ours is `python -m gpupipe.run` in a fresh process
on the same file, with the same labels.

First equality: labels bit for bit, shared columns and the predictions of XGBoost within the bounds of equality.py. Then
time by stage, and what each step from the predecessor to ours saves. Then quality: both judged on the same rows of the
same sealed future, for which the predecessor is trained again on what came before it. The cores bind.

    --sectors NAMES|all   the job (default: utilities)
    --timed NAMES         sectors of which runs of the predecessor are timed (default: all of the job)
    --runs N              how many of a sector's six runs; the others are extrapolated from them by rows
    --judged NAMES|none   sectors in which both are judged (default: those timed)
    --no-meta             judge the five families alone: without the five folds, in a sixth of the time
    --preset fast         of ours;  --window bars: both count bars instead of days
    --last-step           of ours, run the last step alone: pooled, on all cores
    --out FILE            JSON lines are added; runs of the predecessor that stand there already are not done again

One sector alone has few events of some labels, for which gpupipe trains nothing by itself: name several, or all, as the
job, and time the predecessor in one (--timed). What is extrapolated is marked, and fewer trees (--trees, to try this
out) give no ratio. `python -m bench.pictures predecessor` draws the result. The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import pyarrow.parquet as pq

from bench import runs
from bench.predecessor import ladder, models, quality, rows
from bench.predecessor.equality import equality
from bench.predecessor.models import TREES, Clock
from bench.timing import cores, timed
from gpupipe import config
from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError

# The order in which runs are timed: from the middle outwards, as trees of rarer labels stop growing earlier.
LABELS = ((2, 0.05), (5, 0.10), (5, 0.05), (1, 0.10), (1, 0.05), (2, 0.10))


@dataclasses.dataclass(frozen=True)
class OldRun:
    """One run of the predecessor: seconds by stage, and what its random split claims."""

    sector: str
    horizon: int
    threshold: float
    rows: int
    seconds: dict[str, float]
    claimed: dict[str, float]

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())
        title = quality.title(dataclasses.asdict(self))
        return f"{self.sector} {title}: {sum(self.seconds.values()):.1f} s ({parts})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = runs.options(__doc__, data="demo", sectors="utilities", preset="fast", set=[])
    parser.add_argument("--timed")
    parser.add_argument("--runs", type=int, default=len(LABELS))
    parser.add_argument("--judged")
    parser.add_argument("--no-meta", action="store_true")
    parser.add_argument("--last-step", action="store_true")
    parser.add_argument("--window", default="calendar", choices=("calendar", "bars"))
    parser.add_argument("--trees", type=int, default=TREES)
    parser.add_argument("--out", type=pathlib.Path)
    chosen = parser.parse_args(arguments)
    if absent := models.missing():
        raise SystemExit(f'{", ".join(absent)} not installed: pip install -e ".[cpu,test,bench]"')
    try:
        panel, report = runs.read(chosen)
        settings = config.make(
            chosen.preset, None, [f"labels.window={chosen.window}", *chosen.set],
            labels__horizons=sorted({h for h, _ in LABELS}), labels__thresholds=sorted({t for _, t in LABELS}),
        )  # fmt: skip
    except UserError as error:
        raise SystemExit(f"bench.predecessor.comparison: {error}") from None
    about = {
        "data": pathlib.Path(chosen.data).name, "data_hash": report.data_hash, "window": chosen.window,
        "trees": chosen.trees,
        "peers": {name: importlib.metadata.version(name) for name in ("lightgbm", "catboost", "pandas")},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        result = measure(chosen, settings, panel, Lines(chosen.out, about), pathlib.Path(folder))
    print(json.dumps(result))
    return 0


def measure(
    chosen: argparse.Namespace, settings: config.Config, panel: Panel, lines: Lines, folder: pathlib.Path
) -> runs.Line:
    """Equality, time, the ladder, quality; the result's line."""
    sectors = named(chosen.sectors, panel)
    panel = panel.where([sector in sectors for sector in panel.sector])
    to_time, judged = named(chosen.timed, panel), named(chosen.judged or chosen.timed, panel)
    path = folder / "bars.parquet"  # what validation kept, in one spelling: both ways read this file
    pq.write_table(panel.to_arrow(), path, compression="zstd")
    if chosen.trees != TREES:
        print(f"{chosen.trees} trees instead of {TREES}: this is no measurement, and no ratio is given")

    print("\nEquality", flush=True)
    equal = equality(path, panel.of_sector(to_time[0]), chosen.window, LABELS)

    print("\nTime of the predecessor, seconds by stage", flush=True)
    of_runs = [
        time_run(path, sector, label, chosen, lines) for sector in to_time for label in LABELS[: chosen.runs]
    ]  # fmt: skip

    print("\ngpupipe", flush=True)
    steps = our_steps(chosen, path, panel, folder)
    n_rows = {s: panel.of_sector(s).n_rows for s in panel.sectors}
    found = ladder.ladder(of_runs, n_rows, len(LABELS), steps, full=chosen.trees == TREES)
    stages = ladder.stages(of_runs, n_rows, len(LABELS))
    ladder.show(found, stages, steps[-1])

    averages: list[runs.Line] = []
    if judged:
        print("\nQuality on the sealed future", flush=True)
        question = quality.Question(
            settings, LABELS, chosen.trees, not chosen.no_meta, functools.partial(lines.known, "judged"),
            functools.partial(lines.add, "judged"),
        )  # fmt: skip
        averages = quality.averages(quality.judge(path, panel, judged, folder / steps[-1]["folder"], question))
        quality.show(averages)
    return lines.add("result", {
        "rows": panel.n_rows, "sectors": list(panel.sectors), "timed": to_time,
        "runs_a_sector": min(chosen.runs, len(LABELS)), "judged": judged, "preset": chosen.preset, "equality": equal,
        **found, "stages": stages, "new_stages": steps[-1]["stages"], "averages": averages,
    })  # fmt: skip


def named(text: str | None, panel: Panel) -> list[str]:
    """The sectors that an option names."""
    if text == "none":
        return []
    names = list(panel.sectors) if text in (None, "all") else [word.strip() for word in text.split(",")]
    if unknown := [name for name in names if name not in panel.sectors]:
        raise SystemExit(f"no sector {', '.join(unknown)} here; there are {', '.join(panel.sectors)}")
    return names


class Lines:
    """The file of JSON lines, and the runs that stand in it already."""

    def __init__(self, path: pathlib.Path | None, about: runs.Line) -> None:
        self.path, self.about = path, runs.record("old_way", **about)
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []

    def known(self, kind: str, key: runs.Line) -> runs.Line | None:
        """The newest line of this kind and key that was made of the same data, by the same versions, as fully."""
        wanted = {"kind": kind, **self.about, **key}
        del wanted["date"]
        same = [line for line in self.lines if all(line.get(name) == value for name, value in wanted.items())]
        return same[-1] if same else None

    def add(self, kind: str, facts: runs.Line) -> runs.Line:
        """Add a line to the file, if there is one; the line."""
        line = {"kind": kind, **self.about, **facts}
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        return line


def time_run(
    path: pathlib.Path, sector: str, label: tuple[int, float], chosen: argparse.Namespace, lines: Lines
) -> OldRun:
    """A run of the predecessor, or that which the file of lines holds already."""
    line = lines.known("run", {"sector": sector, "horizon": label[0], "threshold": label[1]})
    if line is None:
        run = old_run(path, sector, label, chosen.window, chosen.trees)
        lines.add("run", dataclasses.asdict(run))
    else:
        run = OldRun(**{field.name: line[field.name] for field in dataclasses.fields(OldRun)})
    print(f"{run}{' (measured earlier)' if line else ''}", flush=True)
    return run


def old_run(path: pathlib.Path, sector: str, label: tuple[int, float], window: str, trees: int) -> OldRun:
    """One of the 66 runs, from the file to what it claims."""
    clock = Clock()
    with clock.stage("load"):
        frame = rows.loaded(path, sector)
    with clock.stage("features"):
        features = rows.with_features(frame)
    with clock.stage("labels"):
        labels = rows.with_labels(frame, *label, window)
    with clock.stage("merge and split"):
        X, y, usable = rows.merged(features, labels)
        X, y = X[usable], y[usable]
        fit_rows, test_rows = models.random_split(y)
    six = models.train(X[fit_rows], y[fit_rows], clock, trees)
    with clock.stage("evaluation"):
        probabilities, happened = six.predict(X[test_rows]), y[test_rows]
        claimed = {name: quality.accuracy(probability, happened) for name, probability in probabilities.items()}
        claimed["majority"] = quality.majority(happened)
    return OldRun(sector, *label, len(frame), clock.seconds, claimed)


def our_steps(chosen: argparse.Namespace, path: pathlib.Path, panel: Panel, folder: pathlib.Path) -> list[runs.Line]:
    """gpupipe in fresh processes: one label and sector at a time, labels together, pooled, then on all cores."""
    options = ["--data", str(path), "--sectors", ",".join(panel.sectors), "--preset", chosen.preset,
               *(f"--set={setting}" for setting in (f"labels.window={chosen.window}", *chosen.set))]  # fmt: skip

    def of_labels(labels: Sequence[tuple[int, float]], *more: str) -> list[str]:
        horizons, thresholds = (",".join(map(str, sorted({label[k] for label in labels}))) for k in (0, 1))
        return ["--horizons", horizons, "--thresholds", thresholds, *more]

    ways = {
        "our families, rounds and folds, one label at a time": [
            of_labels([label], "--pool", "none", "--jobs", "1") for label in LABELS
        ],
        "labels together": [of_labels(LABELS, "--pool", "none", "--jobs", "1")],
        "sectors pooled": [of_labels(LABELS, "--jobs", "1")] if len(panel.sectors) > 1 else [],
        f"{cores()} jobs": [of_labels(LABELS, "--jobs", str(cores()))] if cores() > 1 else [],
    }
    ways = {name: jobs for name, jobs in ways.items() if jobs}
    if chosen.last_step:
        ways = {"all of gpupipe": list(ways.values())[-1]}
    steps = []
    for name, jobs in ways.items():
        wanted = len(panel.sectors) * len(LABELS) * len(config.FAMILIES)
        step: runs.Line = {"name": name, "seconds": 0.0, "models": 0, "models_wanted": wanted}
        for number, more in enumerate(jobs):
            out = folder / f"OUT{len(steps)}_{number}"
            job = functools.partial(run_or_refuse, [*options, *more], out, len(jobs) == 1)
            seconds, run = timed(job)
            step["seconds"] += run.wall_s if run else seconds
            if run:
                step["models"] += run.summary["n_models"]
                step |= {"folder": out.name, "stages": run.summary["seconds"]}
        steps.append(step)
        print(f"{name}: {step['seconds']:.1f} s, {step['models']} of {wanted} models", flush=True)
    return steps


def run_or_refuse(options: list[str], out: pathlib.Path, alone: bool) -> runs.Run | None:
    """A job, or None where it is one of several and its label has too few events for a sector alone (status 2)."""
    try:
        return runs.run_job(options, out)
    except SystemExit as error:
        if alone or not str(error).endswith("status 2"):
            raise
        return None


if __name__ == "__main__":
    sys.exit(main())
