"""Whether both ways have the same rows, features and windows: checked before anything is timed."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from bench.runs import Line
from bench.sequence import origin, ours
from bench.sequence.problem import Problem, read_series

FEATURES = "atb9"
# Ours are float32: a price has a relative error of 6e-8, a sum of 30 of them a few times that. The RSI averages
# differences of rounded prices, whose errors are large where prices hardly move, so it is compared in its points.
PRICE_TOLERANCE = 2e-6  # of the value
STRENGTH_TOLERANCE = 0.01  # points of 100
WINDOW_TOLERANCE = 2e-4  # of the range that scaling maps to 0 to 1, or of the deviation: the RSI's tolerance over 100


def equality(path: pathlib.Path, problem: Problem, settings: Any, n_rows: int | None) -> Line:
    """The largest differences of the nine features and of the scaled windows; SystemExit beyond the tolerances."""
    frame, panel = origin.load(path, n_rows), read_series(path, n_rows)
    if not np.array_equal(origin.nanoseconds(frame), panel.time_ns):
        raise SystemExit(f"{path.name}: both ways read other rows")
    theirs, mine = origin.features(frame), problem.dataset.X
    if not np.array_equal(np.isnan(theirs), np.isnan(mine)):
        raise SystemExit(f"{path.name}: features are missing on other rows")
    prices = float(np.nanmax(np.abs(theirs[:, :-1] - mine[:, :-1]) / np.maximum(np.abs(theirs[:, :-1]), 1e-12)))
    strength = float(np.nanmax(np.abs(theirs[:, -1] - mine[:, -1])))
    table, _ = origin.scaled(theirs, problem.parts.training, "minmax")
    rows = problem.parts.validation[:: max(1, len(problem.parts.validation) // 500)]
    expected = origin.windows(table, rows, settings.length)
    found = ours.windows(problem, rows, settings.length, "minmax")
    window = float(np.abs(expected - found).max())
    facts: Line = {"prices": prices, "rsi": strength, "windows": window}
    for name, tolerance in (("prices", PRICE_TOLERANCE), ("rsi", STRENGTH_TOLERANCE), ("windows", WINDOW_TOLERANCE)):
        if not facts[name] <= tolerance:
            raise SystemExit(f"{path.name}: {name} differ by {facts[name]:.3g}, more than {tolerance:g}")
    return {"columns": FEATURES, **facts, "windows_compared": len(rows)}
