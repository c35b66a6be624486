"""Seconds of each stage, both ways in turn: loading, features, dataset, an epoch of training, saving."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.runs import Line
from bench.sequence import origin, ours
from bench.sequence.equality import FEATURES
from bench.sequence.problem import problem_of, read_series
from bench.timing import alternate, cores
from gpupipe import compute_features
from gpupipe.estimators.torch.scaler import fit_scaler
from gpupipe.estimators.torch.settings import PRESETS

SCALING = "minmax"
STAGES = ("loading", "features", "dataset", "training", "saving")
TIME_LIMIT_S = 120.0  # no repetition of a stage begins after it


def stages(path: pathlib.Path, preset: str, n_rows: int | None, times: int) -> Line:
    """Median seconds of both ways by stage, with the nine columns of the usual way; ratios above 1 are in our favour.

    The features stage ends with a fitted scaler. Our dataset stage makes no windows: what gathering all of them once
    takes is given beside it (`gathering_s`), and is part of our epoch.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides, gather = _sides(path, preset, n_rows, pathlib.Path(folder))
        seconds: Line = {}
        for name in STAGES:
            for side in sides[name].values():
                side()  # what is compiled or read for the first time is not timed
            medians, rounds = alternate(times, sides[name], limit_s=TIME_LIMIT_S)
            seconds[name] = {**medians, "ratio": medians["origin"] / medians["ours"], "rounds": rounds}
        gather()
        gathered, _ = alternate(times, {"gathering": gather}, limit_s=TIME_LIMIT_S)
    both = {way: seconds["features"][way] + seconds["dataset"][way] for way in ("origin", "ours")}
    gathering_s = gathered["gathering"]
    return {
        "columns": FEATURES, "stages": seconds, "gathering_s": gathering_s,
        "features_and_dataset": both["origin"] / both["ours"],
        "features_dataset_and_gathering": both["origin"] / (both["ours"] + gathering_s),
    }  # fmt: skip


Side = Callable[[], Any]


def _sides(
    path: pathlib.Path, preset: str, n_rows: int | None, folder: pathlib.Path
) -> tuple[dict[str, dict[str, Side]], Side]:
    """For each stage the two functions that are timed, each with what the stages before it made; and the gathering."""
    import torch

    settings = replace(PRESETS[preset], epoch_rows=0)  # both ways fit every row once
    frame, panel = origin.load(path, n_rows), read_series(path, n_rows)
    problem = problem_of(path.stem, panel, FEATURES)
    parts, y = problem.parts, problem.dataset.y
    both_parts = (parts.training, parts.validation)
    table, scalers = origin.scaled(origin.features(frame), parts.training, SCALING)
    copies = origin.windows(table, parts.training, settings.length)
    batches = origin.batches_of(copies, y[parts.training], settings.batch)
    fit, _, scaler = ours.dataset(problem, settings, SCALING)
    network = {way: ours.network_of(problem, settings, seed=1) for way in ("origin", "ours")}
    optimiser = torch.optim.Adam(network["origin"].parameters(), lr=settings.rate)
    facts = {"preset": preset, "columns": list(problem.dataset.names)}
    sides: dict[str, dict[str, Side]] = {
        "loading": {"origin": lambda: origin.load(path, n_rows), "ours": lambda: read_series(path, n_rows)},
        "features": {
            "origin": lambda: origin.scaled(origin.features(frame), parts.training, SCALING),
            "ours": lambda: (compute_features(panel, FEATURES), fit_scaler([problem.training], SCALING)),
        },
        "dataset": {
            "origin": lambda: [origin.windows(table, rows, settings.length) for rows in both_parts],
            "ours": lambda: ours.windows_of(problem, settings, scaler),
        },
        "training": {
            "origin": lambda: origin.train_epoch(network["origin"], optimiser, batches(origin.shuffling(1, 0))),
            "ours": lambda: ours.train(network["ours"], problem, fit, None, settings, 1, cores(), 1),
        },
        "saving": {
            "origin": lambda: origin.save(network["origin"], scalers, facts, folder / "origin"),
            "ours": lambda: ours.save(network["ours"], scaler, facts, folder / "ours"),
        },
    }  # fmt: skip
    return sides, lambda: ours.gather_all(fit, settings.rows_of_step)
