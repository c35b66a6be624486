"""One training in a process of its own: `python -m bench.sequence.training --data FILE --preset fast --way ours`.

The last line is JSON: the curve, rows, and the seconds before training began.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import runs
from bench.runs import Line
from bench.sequence import origin, ours
from bench.sequence.curve import Curve
from bench.sequence.problem import Problem, problem_of, read_series
from bench.timing import timed
from gpupipe.estimators.torch.settings import PRESETS, SequenceSettings


@dataclass(frozen=True)
class Training:
    """What is trained, and how.

    preset: of the network and its settings.  way: "ours", or "origin": steps of the preset's own batch on copies.
    threads: of the fit.  first_rows: of the series; None: all.  most_epochs: None: the preset's.
    """

    preset: str
    way: str
    seed: int
    threads: int
    features: str = "core"
    first_rows: int | None = None
    most_epochs: int | None = None

    @property
    def settings(self) -> SequenceSettings:
        """Those of the preset."""
        return PRESETS[self.preset]


def by_origin(problem: Problem, chosen: Training) -> Curve:
    """The usual way's dataset and training on our features."""
    import torch

    torch.set_num_threads(chosen.threads)
    settings, parts, y = chosen.settings, problem.parts, problem.dataset.y
    table, _ = origin.scaled(problem.dataset.X, parts.training, settings.scaling)
    copies = [origin.windows(table, rows, settings.length) for rows in (parts.training, parts.validation)]
    network = ours.network_of(problem, settings, chosen.seed)
    return origin.train(
        network, copies[0], y[parts.training], copies[1], y[parts.validation], settings, chosen.seed,
        chosen.most_epochs,
    )  # fmt: skip


def by_ours(problem: Problem, chosen: Training) -> Curve:
    """Our dataset and training."""
    settings = chosen.settings
    network = ours.network_of(problem, settings, chosen.seed)
    fit, validation, _ = ours.dataset(problem, settings, settings.scaling)
    return ours.train(network, problem, fit, validation, settings, chosen.seed, chosen.threads, chosen.most_epochs)


WAYS = {"ours": by_ours, "origin": by_origin}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a Parquet file of one series")
    parser.add_argument("--preset", choices=list(PRESETS), required=True)
    parser.add_argument("--way", choices=list(WAYS), required=True)
    for name in ("seed", "threads", "first-rows", "most-epochs"):
        parser.add_argument(f"--{name}", type=int, default=None if "-" in name else 1)
    parser.add_argument("--features", default="core")
    parser.add_argument("--parent", type=int, help="the process without which this one ends, too")
    options = vars(parser.parse_args(arguments))
    path, parent = options.pop("data"), options.pop("parent")
    if parent is not None:
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    chosen = Training(**options)
    seconds, problem = timed(
        lambda: problem_of(path.stem, read_series(path, chosen.first_rows), chosen.features)
    )  # fmt: skip
    curve = WAYS[chosen.way](problem, chosen)
    facts = {"training_rows": problem.training.n, "validation_rows": problem.validation.n, "reading_s": seconds}
    print(json.dumps({**facts, "peak_bytes": peak_bytes(), "curve": curve.as_list()}))
    return 0


def end_with(parent: int) -> None:
    """End this process once its parent is gone: nobody would read the result, and it would slow what is timed next."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def peak_bytes() -> int | None:
    """The largest resident set of this process since its program was loaded, as Linux tells it; None elsewhere.

    getrusage counts the time before that too, in which a new process still has the pages of the one that made it.
    """
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def in_new_process(path: pathlib.Path, chosen: Training) -> Line:
    """Curve, seconds and peak memory of one training; SystemExit where it fails."""
    options = {name.replace("_", "-"): value for name, value in asdict(chosen).items() if value is not None}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with tempfile.TemporaryFile("w+") as text:
        command = [sys.executable, "-m", "bench.sequence.training", "--data", str(path.resolve()), *words]
        command += ["--parent", str(os.getpid())]
        process = runs.watch(command, sample=True, stdout=text, cwd=runs.ROOT)
        text.seek(0)
        facts: dict[str, Any] = json.loads(text.read().splitlines()[-1])
    curve = Curve.from_list(facts["curve"])
    return {
        **facts, "seconds": curve.seconds, "epochs": len(curve.epochs), "validation_loss": curve.best.validation_loss,
        "wall_s": process.wall_s, "cpu_s": process.cpu_s, "anonymous_bytes": process.anonymous_bytes,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
