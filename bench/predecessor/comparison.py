"""The predecessor against gpupipe: `python -m bench.predecessor.comparison [--data FILE --sector-map FILE] [--runs 6]`.

The predecessor's way is the usual one, horizon first: for each sector, horizon and threshold the file is read anew, 172
columns are made in pandas, labels row by row over calendar days, 80 % of the rows are drawn at random, six models are
trained (models.py), and the accuracy on the other 20 % is the claim. Ours is `python -m gpupipe.run` in a fresh process
on the same file, with the same labels.

First equality: labels bit for bit, shared columns and the predictions of XGBoost within the bounds of equality.py. Then
time by stage, and what each step from the predecessor to ours saves. Then quality: both judged on the same rows of the
same sealed future, for which the predecessor is trained again on what came before it. The cores bind.

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
import time
from collections.abc import Sequence

import pyarrow.parquet as pq

from bench import runs
from bench.predecessor import ladder, models, quality, rows
from bench.predecessor.equality import equality
from bench.predecessor.models import TREES, Clock
from bench.runs import Line
from bench.timing import cores
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError
from gpupipe.workloads import equity

Label = tuple[int, float]  # horizon, threshold
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = runs.options(__doc__, data="demo", sectors="utilities", preset="fast", set=[])
    parser.add_argument("--timed", help="sectors of which runs are timed (default: all of --sectors)")
    parser.add_argument("--runs", type=int, default=len(LABELS), help="of six a sector; others are extrapolated")
    parser.add_argument("--judged", help="sectors in which both are judged, or none (default: those timed)")
    parser.add_argument("--no-meta", action="store_true", help="judge without the five folds, in a sixth of the time")
    parser.add_argument("--last-step", action="store_true", help="of ours, run the last step alone")
    parser.add_argument("--window", default="calendar", choices=("calendar", "bars"), help="of the labels of both")
    parser.add_argument("--trees", type=int, default=TREES, help="fewer, to try this out: no ratio is given")
    parser.add_argument("--out", type=pathlib.Path, help="lines are added; the predecessor's in it are not repeated")
    chosen = parser.parse_args(arguments)
    if absent := models.missing():
        raise SystemExit(f'{", ".join(absent)} not installed: pip install -e ".[cpu,test,bench]"')
    try:
        panel, report = runs.read(chosen)
        settings = equity.make(
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


def measure(chosen: argparse.Namespace, settings: Config, panel: Panel, lines: Lines, folder: pathlib.Path) -> Line:
    """Equality, time, the ladder, quality; the result's line."""
    sectors = named(chosen.sectors, panel)
    panel = panel.where([sector in sectors for sector in panel.sector])
    to_time, judged = named(chosen.timed, panel), named(chosen.judged or chosen.timed, panel)
    path = folder / "bars.parquet"  # what validation kept, in one spelling: both ways read this file
    pq.write_table(panel.to_arrow(), path, compression="zstd")
    if chosen.trees != TREES:
        print(f"{chosen.trees} trees instead of {TREES}: this is no measurement, and no ratio is given")

    print("\nEquality", flush=True)
    equal = equality(path, panel.of_group(to_time[0]), chosen.window, LABELS)

    print("\nTime of the predecessor, seconds by stage", flush=True)
    labels = LABELS[: chosen.runs]
    old_runs = [time_run(path, sector, label, chosen, lines) for sector in to_time for label in labels]

    print("\ngpupipe", flush=True)
    steps = our_steps(chosen, path, panel, folder)
    n_rows = {s: panel.of_group(s).n_rows for s in panel.groups}
    steps_to_ours = ladder.ladder(old_runs, n_rows, len(LABELS), steps, full=chosen.trees == TREES)
    stages = ladder.stages(old_runs, n_rows, len(LABELS))
    ladder.show(steps_to_ours, stages, steps[-1])

    averages: list[Line] = []
    if judged:
        print("\nQuality on the sealed future", flush=True)
        question = quality.Question(
            settings, LABELS, chosen.trees, not chosen.no_meta, functools.partial(lines.known, "judged"),
            functools.partial(lines.add, "judged"),
        )  # fmt: skip
        averages = quality.averages(quality.judge(path, panel, judged, folder / steps[-1]["folder"], question))
        quality.show(averages)
    return lines.add("result", {
        "rows": panel.n_rows, "sectors": list(panel.groups), "timed": to_time,
        "runs_a_sector": min(chosen.runs, len(LABELS)), "judged": judged, "preset": chosen.preset, "equality": equal,
        **steps_to_ours, "stages": stages, "new_stages": steps[-1]["stages"], "averages": averages,
    })  # fmt: skip


def named(text: str | None, panel: Panel) -> list[str]:
    """The sectors that an option names."""
    if text == "none":
        return []
    names = list(panel.groups) if text in (None, "all") else [word.strip() for word in text.split(",")]
    if unknown := [name for name in names if name not in panel.groups]:
        raise SystemExit(f"no sector {', '.join(unknown)} here; there are {', '.join(panel.groups)}")
    return names


class Lines:
    """The file of JSON lines, and the runs that stand in it already."""

    def __init__(self, path: pathlib.Path | None, about: Line) -> None:
        self.path, self.about = path, runs.record("old_way", **about)
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []

    def known(self, kind: str, key: Line) -> Line | None:
        """The newest line of this kind and key that was made of the same data, by the same versions, as fully."""
        wanted = {"kind": kind, **self.about, **key}
        del wanted["date"]
        same = [line for line in self.lines if all(line.get(name) == value for name, value in wanted.items())]
        return same[-1] if same else None

    def add(self, kind: str, facts: Line) -> Line:
        """Add a line to the file, if there is one; the line."""
        line = {"kind": kind, **self.about, **facts}
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        return line


def time_run(path: pathlib.Path, sector: str, label: Label, chosen: argparse.Namespace, lines: Lines) -> OldRun:
    """A run of the predecessor, or that which the file of lines holds already."""
    line = lines.known("run", {"sector": sector, "horizon": label[0], "threshold": label[1]})
    if line is None:
        line = lines.add("run", dataclasses.asdict(old_run(path, sector, label, chosen.window, chosen.trees)))
        print(f"{sector} {quality.title(line)}: {sum(line['seconds'].values()):.1f} s", flush=True)
    else:
        print(f"{sector} {quality.title(line)}: measured earlier", flush=True)
    return OldRun(**{field.name: line[field.name] for field in dataclasses.fields(OldRun)})


def old_run(path: pathlib.Path, sector: str, label: Label, window: str, trees: int) -> OldRun:
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


def our_steps(chosen: argparse.Namespace, path: pathlib.Path, panel: Panel, folder: pathlib.Path) -> list[Line]:
    """gpupipe in fresh processes: one label and sector at a time, labels together, pooled, then on all cores."""
    options = ["--data", str(path), "--sectors", ",".join(panel.groups), "--preset", chosen.preset,
               *(f"--set={setting}" for setting in (f"labels.window={chosen.window}", *chosen.set))]  # fmt: skip

    def label_options(labels: Sequence[Label], *more: str) -> list[str]:
        horizons, thresholds = (",".join(map(str, sorted({label[k] for label in labels}))) for k in (0, 1))
        return ["--horizons", horizons, "--thresholds", thresholds, *more]

    ways = {
        "our families, rounds and folds, one label at a time": [
            label_options([label], "--pool", "none", "--jobs", "1") for label in LABELS
        ],
        "labels together": [label_options(LABELS, "--pool", "none", "--jobs", "1")],
        "sectors pooled": [label_options(LABELS, "--jobs", "1")] if len(panel.groups) > 1 else [],
        f"{cores()} jobs": [label_options(LABELS, "--jobs", str(cores()))] if cores() > 1 else [],
    }
    ways = {name: jobs for name, jobs in ways.items() if jobs}
    if chosen.last_step:
        ways = {"all of gpupipe": list(ways.values())[-1]}
    steps = []
    for name, jobs in ways.items():
        wanted = len(panel.groups) * len(LABELS) * len(equity.DEFAULT_MODELS)
        step: Line = {"name": name, "seconds": 0.0, "models": 0, "models_wanted": wanted}
        for number, more in enumerate(jobs):
            out = folder / f"OUT{len(steps)}_{number}"
            began = time.perf_counter()
            try:
                runs.run_job([*options, *more], out)
            except SystemExit as error:  # 2: one of several labels has too few events for a sector alone
                if len(jobs) == 1 or not str(error).endswith("status 2"):
                    raise
            step["seconds"] += time.perf_counter() - began
            if (out / "summary.json").exists():
                summary = json.loads((out / "summary.json").read_text())
                step |= {"folder": out.name, "stages": summary["seconds"]}
                step["models"] += summary["n_models"]
        steps.append(step)
        print(f"{name}: {step['seconds']:.1f} s, {step['models']} of {wanted} models", flush=True)
    return steps


if __name__ == "__main__":
    sys.exit(main())
