"""Old against new: `python -m bench.predecessor.comparison [--data FILE --sector-map FILE] [--sectors
utilities] [--runs 6]`.

The old way is the usual one, horizon first: for each sector, horizon and threshold the file is read anew, 172 columns
are made in pandas, labels row by row over calendar days, 80 % of the rows are drawn at random, six models are trained
(bench/predecessor/models.py), and the accuracy on the other 20 % is what it claims. The new way is `python -m
gpupipe.run` in a
fresh process on the same file, asked for the same labels.

First equality: labels bit for bit, shared columns and the predictions of XGBoost within the bounds below. Then time by
stage, and what each step from the old way to the new one saves. Then quality: both judged on the same rows of the same
sealed future, for which the old way is trained again on what came before it.

    --sectors NAMES|all   the job (default: utilities)
    --timed NAMES         sectors of which runs of the old way are timed (default: all of the job)
    --runs N              how many of a sector's six runs; the others are extrapolated from them by rows
    --judged NAMES|none   sectors in which both are judged (default: those timed)
    --no-meta             judge the five families alone: without the five folds, in a sixth of the time
    --preset fast         of the new way;  --window bars: both count bars instead of days
    --last-step           of the new way, run the last step alone: pooled, on all cores
    --out FILE            JSON lines are added; runs of the old way that stand there already are not done again

One sector alone has few events of some labels, for which the new way trains nothing by itself: name several, or all,
as the job, and time the old way in one (--timed). What is extrapolated is marked, and fewer trees (--trees, to try
this out) give no ratio. bench/predecessor/picture.py draws the result. The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import pathlib
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.job.wall_time import once
from bench.predecessor import ladder as old_table
from bench.predecessor import models as old_models
from bench.predecessor import quality as old_quality
from bench.predecessor.equality import equality
from bench.predecessor.models import TREES, Clock
from bench.timing import cores
from gpupipe import config
from gpupipe.data import load
from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError

# The order in which runs are timed: from the middle outwards, as trees of rarer labels stop growing earlier.
LABELS = ((2, 0.05), (5, 0.10), (5, 0.05), (1, 0.10), (1, 0.05), (2, 0.10))
WARM_UP = 61  # first rows of each symbol that are left out; longer windows are filled with 0, as usual


@dataclasses.dataclass(frozen=True)
class OldRun:
    """One run of the old way: seconds by stage, and what its random split claims."""

    sector: str
    horizon: int
    threshold: float
    rows: int
    seconds: dict[str, float]
    claimed: dict[str, float]

    @property
    def label(self) -> tuple[int, float]:
        return self.horizon, self.threshold


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--sector-map")
    parser.add_argument("--sectors", default="utilities")
    parser.add_argument("--timed")
    parser.add_argument("--runs", type=int, default=len(LABELS))
    parser.add_argument("--judged")
    parser.add_argument("--no-meta", action="store_true")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="of the new way")
    parser.add_argument("--last-step", action="store_true")
    parser.add_argument("--window", default="calendar", choices=("calendar", "bars"))
    parser.add_argument("--trees", type=int, default=TREES)
    parser.add_argument("--out", type=pathlib.Path)
    chosen = parser.parse_args(arguments)
    if absent := old_models.missing():
        raise SystemExit(f'{", ".join(absent)} not installed: pip install -e ".[cpu,test,bench]"')
    try:
        panel, report = load(chosen.data, chosen.sector_map, "all", "cpu")
        settings = config.make(
            chosen.preset, None, [f"labels.window={chosen.window}", *chosen.set], labels__horizons=_of_labels(0),
            labels__thresholds=_of_labels(1),
        )  # fmt: skip
    except UserError as error:
        raise SystemExit(f"bench.predecessor.comparison: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(_measure(chosen, settings, panel, report.data_hash, pathlib.Path(folder))))
    return 0


def _measure(
    chosen: argparse.Namespace, settings: config.Config, panel: Panel, digest: str, folder: pathlib.Path
) -> dict[str, Any]:
    import pyarrow.parquet as pq

    of_job = _named(chosen.sectors, panel)
    job = panel.where([sector in of_job for sector in panel.sector])
    timed, judged = _named(chosen.timed, job), _named(chosen.judged or chosen.timed, job)
    path = folder / "bars.parquet"  # what validation kept, in one spelling: both ways read this file
    pq.write_table(panel.to_arrow(), path, compression="zstd")
    about = {
        "benchmark": "old_way", "data": pathlib.Path(chosen.data).name, "data_hash": digest, "window": chosen.window,
        "trees": chosen.trees, "cores": cores(), "machine": platform.machine(), "versions": _versions(),
    }  # fmt: skip
    if chosen.trees != TREES:
        print(f"{chosen.trees} trees instead of {TREES}: this is no measurement, and no ratio is given")
    lines = _Lines(chosen.out, about)

    print("\nEquality", flush=True)
    equal = equality(path, job.of_sector(timed[0]), chosen.window, LABELS)

    print("\nTime of the old way, seconds by stage", flush=True)
    runs = []
    for sector in timed:
        for horizon, threshold in LABELS[: chosen.runs]:
            key = {"sector": sector, "horizon": horizon, "threshold": threshold}
            line = lines.known("run", key)
            if line is None:
                run = old_run(path, sector, horizon, threshold, chosen.window, chosen.trees)
                lines.add("run", dataclasses.asdict(run))
            else:
                run = OldRun(**{item.name: line[item.name] for item in dataclasses.fields(OldRun)})
            runs.append(run)
            print(old_table.run_line(run) + (" (measured earlier)" if line else ""), flush=True)

    print("\nThe new way", flush=True)
    steps = new_steps(chosen, path, job, folder)
    rows = {s: job.of_sector(s).n_rows for s in job.sectors}
    ladder = old_table.ladder(runs, rows, len(LABELS), steps, full=chosen.trees == TREES)
    of_job = old_table.stages(runs, rows, len(LABELS))
    old_table.show_ladder(ladder)
    old_table.show_stages(of_job, steps[-1])

    averages: list[dict[str, Any]] = []
    if judged:
        print("\nQuality on the sealed future", flush=True)
        question = old_quality.Question(settings, LABELS, chosen.trees, not chosen.no_meta)
        averages = old_quality.averages(old_quality.judge(
            path, job, judged, folder / steps[-1]["folder"], question, functools.partial(lines.known, "judged"),
            functools.partial(lines.add, "judged"),
        ))  # fmt: skip
        old_quality.show(averages)
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "rows": job.n_rows,
        "sectors": list(job.sectors), "timed": timed, "runs_a_sector": min(chosen.runs, len(LABELS)),
        "judged": judged, "preset": chosen.preset, "equality": equal, **ladder, "stages": of_job,
        "new_stages": steps[-1]["stages"], "averages": averages,
    }  # fmt: skip
    lines.add("result", result)
    return {"kind": "result", **about, **result}


def _named(text: str | None, job: Panel) -> list[str]:
    if text == "none":
        return []
    names = list(job.sectors) if text in (None, "all") else [word.strip() for word in text.split(",")]
    if unknown := [name for name in names if name not in job.sectors]:
        raise SystemExit(f"no sector {', '.join(unknown)} here; there are {', '.join(job.sectors)}")
    return names


def _of_labels(k: int) -> list[Any]:
    """The horizons (k = 0) or the thresholds (k = 1) of all labels: every one of the first goes with every other."""
    return sorted({label[k] for label in LABELS})


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("lightgbm", "catboost", "scikit-learn", "pandas", "numpy"):
        found[name] = importlib.metadata.version(name)
    import xgboost

    return {**found, "xgboost": xgboost.__version__}


class _Lines:
    """The file of JSON lines, and the runs that stand in it already."""

    def __init__(self, path: pathlib.Path | None, about: dict[str, Any]) -> None:
        self.path, self.about = path, about
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []

    def known(self, kind: str, key: dict[str, Any]) -> dict[str, Any] | None:
        """The newest line of this kind and key that was made of the same data, by the same versions, as fully."""
        wanted = {"kind": kind, **self.about, **key}
        same = [line for line in self.lines if all(line.get(name) == value for name, value in wanted.items())]
        return same[-1] if same else None

    def add(self, kind: str, found: dict[str, Any]) -> None:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({"kind": kind, **self.about, **found}) + "\n")


def loaded(path: pathlib.Path, sector: str) -> Any:
    """The whole file by pandas, and of it the rows of one sector, by symbol and time."""
    import pandas as pd

    frame = pd.read_parquet(path)
    frame = frame[frame["sector"] == sector].copy()
    frame["symbol"] = frame["symbol"].astype(str)
    return frame.sort_values(["symbol", "time"], ignore_index=True)


def with_features(frame: Any) -> Any:
    """symbol, time and 172 columns."""
    import pandas as pd

    from bench.predecessor.features import features_of_symbol

    parts = []
    for symbol, bars in frame.groupby("symbol", sort=True):
        columns = features_of_symbol(bars)
        columns.insert(0, "time", bars["time"])
        columns.insert(0, "symbol", symbol)
        parts.append(columns)
    return pd.concat(parts, ignore_index=True)


def with_labels(frame: Any, horizon: int, threshold: float, window: str) -> Any:
    """symbol, time and label, -1 where it is not known."""
    import pandas as pd

    from bench.predecessor.features import labels_of_symbol

    parts = []
    for symbol, bars in frame.groupby("symbol", sort=True):
        y = labels_of_symbol(bars, horizon, threshold, window)
        parts.append(pd.DataFrame({"symbol": symbol, "time": bars["time"], "label": y}))
    return pd.concat(parts, ignore_index=True)


def merged(features: Any, labels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X float32 (n, 172), y int8 (n,), whether the row can be used) of all rows, in order."""
    both = features.merge(labels, on=["symbol", "time"], how="left", validate="one_to_one")
    y = both.pop("label").to_numpy(np.int8)
    warm = both.groupby("symbol").cumcount().to_numpy() >= WARM_UP
    X = both.drop(columns=["symbol", "time"]).fillna(0.0).to_numpy(np.float32)
    return X, y, warm & (y >= 0)


def old_run(
    path: pathlib.Path, sector: str, horizon: int, threshold: float, window: str = "calendar", trees: int = TREES
) -> OldRun:
    """One of the 66 runs, from the file to what it claims."""
    clock = Clock()
    with clock.stage("load"):
        frame = loaded(path, sector)
    with clock.stage("features"):
        features = with_features(frame)
    with clock.stage("labels"):
        labels = with_labels(frame, horizon, threshold, window)
    with clock.stage("merge and split"):
        X, y, usable = merged(features, labels)
        X, y = X[usable], y[usable]
        fit_rows, test_rows = old_models.random_split(y)
    six = old_models.train(X[fit_rows], y[fit_rows], clock, trees)
    with clock.stage("evaluation"):
        claimed = {
            name: old_quality.accuracy(said, y[test_rows]) for name, said in six.predict(X[test_rows]).items()
        } | {"majority": old_quality.majority(y[test_rows])}
    return OldRun(sector, horizon, threshold, len(frame), clock.seconds, claimed)


def new_steps(
    chosen: argparse.Namespace, path: pathlib.Path, job: Panel, folder: pathlib.Path
) -> list[dict[str, Any]]:  # fmt: skip
    """The new way in fresh processes: one label and sector at a time, labels together, pooled, then on all cores."""
    options = ["--data", str(path), "--sectors", ",".join(job.sectors), "--preset", chosen.preset]
    options += ["--set", f"labels.window={chosen.window}", *(word for one in chosen.set for word in ("--set", one))]
    together = ["--horizons", ",".join(map(str, _of_labels(0))), "--thresholds", ",".join(map(str, _of_labels(1)))]
    alone = [["--horizons", str(h), "--thresholds", str(t), "--pool", "none", "--jobs", "1"] for h, t in LABELS]
    ways = [
        ("our families, rounds and folds, one label at a time", alone),
        ("labels together", [[*together, "--pool", "none", "--jobs", "1"]]),
        ("sectors pooled", [[*together, "--jobs", "1"]] if len(job.sectors) > 1 else []),
        (f"{cores()} jobs", [[*together, "--jobs", str(cores())]] if cores() > 1 else []),
    ]
    ways = [(name, runs) for name, runs in ways if runs]
    if chosen.last_step:
        ways = [("all of the new way", ways[-1][1])]
    steps = []
    for name, runs in ways:
        wanted = len(job.sectors) * len(LABELS) * len(config.FAMILIES)
        step: dict[str, Any] = {"name": name, "seconds": 0.0, "models": 0, "models_wanted": wanted}
        for number, more in enumerate(runs):
            place = f"OUT{len(steps)}_{number}"
            began = time.perf_counter()
            try:
                ran = once([*options, *more], folder / place)
            except SystemExit as error:
                if not str(error).endswith("status 2") or len(runs) == 1:
                    raise
                step["seconds"] += time.perf_counter() - began  # too few events of the label for a sector alone
                continue
            step["seconds"] += ran["wall_s"]
            step["models"] += ran["summary"]["n_models"]
            step |= {"folder": place, "stages": ran["summary"]["seconds"]}
        steps.append(step)
        print(f"{name}: {step['seconds']:.1f} s, {step['models']} of {wanted} models", flush=True)
    return steps


if __name__ == "__main__":
    sys.exit(main())
