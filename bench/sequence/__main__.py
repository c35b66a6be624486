"""The usual way to train sequence networks against ours: `python -m bench.sequence --data FOLDER --out LINES.jsonl`.

    equality   features and windows of both ways, and the end where they differ
    stages     loading, features, dataset, an epoch of training, saving: seconds of both ways in turn, ratios
    epoch      an epoch of fast and balanced: steps of the preset's own batch against ours
    pace       an epoch of every preset our way, with its validation: whole trainings take as many as they have epochs
    quality    whole trainings of every preset, and of the usual way with fast and balanced, for each seed, each in a
               process of its own: validation loss, seconds, memory
    folds      two folds side by side against one after the other

--steps chooses. --out LINES.jsonl gets each measurement as it ends, and nothing in it is measured again: kill it and
call it again, or give --limit-s. --first-rows and --epochs cut the work; with fewer than 10,000 rows, or with
--epochs, no bar counts as held or missed. Both ways train the network of the preset on the same rows, labels and
features; the usual way is described in bench/sequence/origin.py. `python -m bench.sequence.picture LINES.jsonl`
draws. The last line is JSON: the bars, what was measured against each, and tables. It needs the extras torch and
bench.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

from bench import runs
from bench.runs import Line
from bench.sequence.requirements import (
    EPOCH_BARS,
    LEAST_ROWS,
    SEEDS_NEEDED,
    Measured,
    requirements,
    table,
    time_to_legacy,
)
from bench.sequence.results import Results, TimeIsUpError
from bench.timing import cores
from gpupipe.estimators.torch.settings import PRESETS

if TYPE_CHECKING:
    from bench.sequence.problem import Problem

SERIES = ("btcusd_1h", "ethusdt_1h", "xagusd_1h")
STEPS = ("equality", "stages", "epoch", "pace", "quality", "folds")


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    if unknown := [name for name in chosen.presets if name not in PRESETS]:
        raise SystemExit(f"no preset {', '.join(unknown)}; there are {', '.join(PRESETS)}")
    try:
        for module, package in (("torch", "torch"), ("pandas", "pandas")):
            runs.library(module, package)
    except runs.SkippedError as error:
        raise SystemExit(f'{error}: pip install -e ".[cpu,torch,bench]"') from None
    about = {"features": chosen.features, "first_rows": chosen.first_rows, "most_epochs": chosen.epochs}
    results = Results(chosen.out, about, chosen.limit_s, chosen.any_machine)
    finished = True
    try:
        for step in STEPS:
            if step in chosen.steps:
                MEASURES[step](chosen, results)
    except TimeIsUpError:
        finished = False
        print("the time is up: call it again to go on", flush=True)
    return finish(chosen, results, finished)


def parser() -> argparse.ArgumentParser:
    options = runs.options(__doc__)
    words = runs.numbers(str)
    options.add_argument("--data", type=pathlib.Path, required=True, help="a folder of Parquet files, one a series")
    options.add_argument("--series", type=words, default=list(SERIES))
    options.add_argument("--presets", type=words, default=list(PRESETS))
    options.add_argument("--seeds", type=int, default=SEEDS_NEEDED, help="trainings of each preset: seeds 1, 2, ...")
    options.add_argument("--features", default="core", help="of epoch, quality and folds; the other steps use atb9")
    options.add_argument("--epochs", type=int, help="of a training, at most")
    options.add_argument("--first-rows", type=int, help="of each series")
    options.add_argument("--times", type=int, default=5, help="rounds of what is timed in turn")
    options.add_argument(
        "--origin-threads", type=int, default=1,
        help="of whole trainings the usual way: small steps are often faster on one, as the step epoch tells",
    )  # fmt: skip
    options.add_argument(
        "--jobs", type=int, default=1,
        help="whole trainings at once: more in a night, and times that compare with each other alone",
    )  # fmt: skip
    options.add_argument("--steps", type=words, default=list(STEPS))
    options.add_argument("--out", type=pathlib.Path, help="lines are added; what is in it is not measured again")
    options.add_argument("--limit-s", type=float, default=math.inf, help="no measurement begins after so many seconds")
    options.add_argument("--any-machine", action="store_true", help="also use lines of another processor")
    return options


def equal(chosen: argparse.Namespace, results: Results) -> None:
    from bench.sequence.equality import FEATURES, equality

    for path in paths(chosen):
        for preset in chosen.presets:
            key = {"series": path.stem, "preset": preset}
            show(results.get("equality", key, lambda p=path, s=preset: equality(
                p, problem(chosen, p, FEATURES), PRESETS[s], chosen.first_rows
            )))  # fmt: skip


def stages(chosen: argparse.Namespace, results: Results) -> None:
    from bench.sequence.stages import stages as measure

    for path, preset in timed_pairs(chosen):
        key = {"series": path.stem, "preset": preset}
        show(results.get("stages", key, lambda p=path, s=preset: measure(p, s, chosen.first_rows, chosen.times)))


def epoch(chosen: argparse.Namespace, results: Results) -> None:
    from bench.sequence.epochs import epoch as measure

    for path, preset in timed_pairs(chosen):
        key = {"series": path.stem, "preset": preset}
        show(results.get("epoch", key, lambda p=path, s=preset: measure(problem(chosen, p), s, chosen.times)))


def pace(chosen: argparse.Namespace, results: Results) -> None:
    from bench.sequence.pace import pace as measure

    for path in paths(chosen):
        key = {"series": path.stem, "presets": chosen.presets}
        show(results.get("pace", key, lambda p=path: measure(problem(chosen, p), chosen.presets, chosen.times)))


def quality(chosen: argparse.Namespace, results: Results) -> None:
    from bench.sequence.training import Training, in_new_process

    ways = [("ours", preset) for preset in chosen.presets]
    ways += [("origin", preset) for preset in EPOCH_BARS if preset in chosen.presets]
    threads = {"ours": max(1, cores() // chosen.jobs), "origin": chosen.origin_threads}
    # All ways of a seed before the next seed: early lines compare already.
    trainings = [
        (path, Training(preset, way, seed, threads[way], chosen.features, chosen.first_rows, chosen.epochs))
        for seed in range(1, chosen.seeds + 1) for path in paths(chosen) for way, preset in ways
    ]  # fmt: skip

    def measure(path: pathlib.Path, training: Training) -> Line:
        key = {"series": path.stem, "jobs": chosen.jobs, **asdict(training)}
        return results.get("training", key, lambda: in_new_process(path, training))

    with ThreadPoolExecutor(chosen.jobs) as pool:
        try:
            for line in pool.map(measure, *zip(*trainings, strict=True)):
                show(line)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def folds(chosen: argparse.Namespace, results: Results) -> None:
    from bench.sequence.folds import folds as measure

    for path, preset in timed_pairs(chosen):
        key = {"series": path.stem, "preset": preset}
        show(results.get("folds", key, lambda p=path, s=preset: measure(problem(chosen, p), s, chosen.times)))


MEASURES: dict[str, Callable[[argparse.Namespace, Results], None]] = {
    "equality": equal, "stages": stages, "epoch": epoch, "pace": pace, "quality": quality, "folds": folds,
}  # fmt: skip


def paths(chosen: argparse.Namespace) -> list[pathlib.Path]:
    """The files of the series; SystemExit where one is not there."""
    files = [chosen.data / f"{name}.parquet" for name in chosen.series]
    if absent := [file.name for file in files if not file.exists()]:
        raise SystemExit(f"{', '.join(absent)} not in the folder of --data")
    return files


def problem(chosen: argparse.Namespace, path: pathlib.Path, features: str | None = None) -> Problem:
    """The problem of a series with the features of --features, or others."""
    from bench.sequence.problem import problem_of, read_series

    return problem_of(path.stem, read_series(path, chosen.first_rows), features or chosen.features)


def timed_pairs(chosen: argparse.Namespace) -> Iterator[tuple[pathlib.Path, str]]:
    """Every series with each preset whose time has a bar."""
    return ((path, preset) for path in paths(chosen) for preset in EPOCH_BARS if preset in chosen.presets)


def show(line: Line) -> None:
    """A line in short; curves and what all lines share are left out."""
    shared = {"curve", "versions", "benchmark", "cores", "machine", "processor", "date", "code", "torch"}
    runs.show({name: value for name, value in line.items() if name not in shared and value is not None})


def finish(chosen: argparse.Namespace, results: Results, finished: bool) -> int:
    """Print the tables, the bars in words, and the last line."""
    whole = chosen.epochs is None and (chosen.first_rows or LEAST_ROWS) >= LEAST_ROWS
    measured = Measured(results, SERIES if whole else chosen.series, whole, chosen.jobs)
    if lines := table(measured):
        runs.table(lines)
    bars = [requirement.as_dict() for requirement in requirements(measured)]
    for bar in bars:
        verdict = {True: "holds", False: "FAILS", None: "not measured in full"}[bar["holds"]]
        sign = "<=" if bar["at_most"] else ">="
        print(f"{verdict:22s}{bar['name']}: {runs.text_of(bar['worst'])} {sign} {bar['bar']:g}", flush=True)
    facts = {"finished": finished, "bars": bars, "time_to_legacys_loss": time_to_legacy(measured), "table": lines}
    print(json.dumps({**results.about, "codes": results.codes, **facts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
