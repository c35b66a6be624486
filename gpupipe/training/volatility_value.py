"""What a run's models know about volatility, measured on the sealed test of all groups together."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.expected_move import calibrate, implied_volatility, stop_probability
from gpupipe.evaluation.volatility_measures import STOP_MOVES, Outcomes, compare
from gpupipe.runtime.task_graph import in_parallel
from gpupipe.targets.target import Target

if TYPE_CHECKING:
    from gpupipe.training.context import TrainingContext
    from gpupipe.training.groups import GroupModels
    from gpupipe.training.recipe import Recipe

SAME_FOR_ALL = "constant"  # the forecast that all rows have the same volatility
PARTS = ("validation", "test")


def measured(workload: Recipe, context: TrainingContext, trained: Sequence[GroupModels]) -> dict[str, Any]:
    """The section "volatility_value" of the summary; empty for targets without barriers, or where nothing is traded.

    lines: of each horizon and estimator, of the workload's volatility column (its name is `rival`) and of the forecast
    "constant", the measures of `volatility_measures.compare` against that column. factor, exponent: of the correction
    of the implied volatility, learned on validation rows; see `expected_move.calibrate`. The column is multiplied by a
    factor alone, as stops in multiples of it are placed. A forecast without a correction has no line.
    stop_moves: the distance of stops in expected moves.  intended_stop_share: of positions that they should close.
    """
    if context.trades is None or not trained or not workload.volatility:
        return {}
    target = context.datasets[trained[0].group].target
    horizons = barriers(target)
    times = [context.device.to_host(context.datasets[m.group].time_ns)[context.splits[m.group].test] for m in trained]
    if not horizons or not sum(map(len, times)):
        return {}
    draws = block_bootstrap.draw(np.concatenate(times), max(target.horizon_rows), context.settings.seed)
    lines = []
    for horizon, columns in horizons.items():
        groups = [models for models in trained if any(label in models.labels for label in columns)]
        if not groups:
            continue
        column = workload.returns(target, target.names.index(next(iter(columns))))
        past, moved = (
            {part: _extra(context, groups, name, part) for part in PARTS} for name in (workload.volatility, column)
        )
        forecasts = {
            family: {part: _implied(groups, family, columns, horizon, part) for part in PARTS}
            for family in dict.fromkeys(family for models in groups for family in models.models)
        }
        forecasts[workload.volatility] = past
        forecasts[SAME_FOR_ALL] = {part: np.where(np.isfinite(past[part]), 1.0, np.nan) for part in PARTS}
        plain = {workload.volatility: 1.0}  # the rival is the column as people use it, in multiples
        scales = {
            name: scale
            for name, forecast in forecasts.items()
            if (scale := calibrate(forecast["validation"], moved["validation"], horizon, plain.get(name))) is not None
        }
        if workload.volatility not in scales:
            continue
        outcomes = _outcomes(context, groups, horizon, moved["test"])
        rival = scales[workload.volatility].of(past["test"])
        compared = in_parallel(
            [
                functools.partial(compare, scale.of(forecasts[name]["test"]), rival, outcomes, draws)
                for name, scale in scales.items()
            ],
            context.jobs,
        )
        lines += [
            {"horizon": horizon, "model": name, "factor": scale.factor, "exponent": scale.exponent, **measures}
            for (name, scale), measures in zip(scales.items(), compared, strict=True)
        ]
    return {"rival": workload.volatility, "stop_moves": STOP_MOVES,
            "intended_stop_share": stop_probability(STOP_MOVES), "lines": lines}  # fmt: skip


def barriers(target: Target) -> dict[int, dict[str, float]]:
    """By horizon, the threshold of each label by barriers of a fixed threshold; empty for other targets.

    >>> from gpupipe.workloads.equity.recipe import target_of
    >>> barriers(target_of((1, 5), (0.05, 0.1)))[5]
    {'label_5d_5pct': 0.05, 'label_5d_10pct': 0.1}
    """
    by_horizon: dict[int, dict[str, float]] = {}
    if target.kind != "classes" or target.n_classes != 3:
        return by_horizon
    for label, parameters in zip(target.names, target.parameters, strict=False):
        about = dict(parameters)
        if "horizon" in about and "threshold" in about:
            by_horizon.setdefault(int(about["horizon"]), {})[label] = float(about["threshold"])
    return by_horizon


def _implied(
    groups: Sequence[GroupModels], family: str, columns: dict[str, float], horizon: int, part: str
) -> np.ndarray:
    """float64 (n,): the volatility that a family's probabilities imply for the rows of a part, group after group."""
    touches = []
    for models in groups:
        n_rows = len(next(iter(getattr(models, part).values())))
        touch = np.full((n_rows, len(columns)), np.nan)
        predicted = getattr(models, part).get(family)
        for k, label in enumerate(columns):
            if predicted is not None and label in models.labels:
                of_label = predicted[:, models.labels.index(label)].astype(np.float64)
                touch[:, k] = of_label[:, 0] + of_label[:, -1]
        touches.append(touch)
    return implied_volatility(np.concatenate(touches), tuple(columns.values()), horizon)


def _extra(context: TrainingContext, groups: Sequence[GroupModels], name: str, part: str) -> np.ndarray:
    """float64 (n,): an extra column of the rows of a part, group after group."""
    parts = []
    for models in groups:
        values = context.device.to_host(context.datasets[models.group].extra[name])
        parts.append(values[getattr(context.splits[models.group], part)].astype(np.float64))
    return np.concatenate(parts)


def _outcomes(context: TrainingContext, groups: Sequence[GroupModels], horizon: int, moved: np.ndarray) -> Outcomes:
    """What followed the test rows, group after group."""
    assert context.trades is not None
    after = [[], [], []]  # type: list[list[np.ndarray]]
    times = []
    for models in groups:
        rows = context.splits[models.group].test
        times.append(context.device.to_host(context.datasets[models.group].time_ns)[rows])
        for column, values in zip(
            after, following(context.trades.panel.of_group(models.group), rows, horizon), strict=True
        ):
            column.append(values)
    return Outcomes(np.concatenate(times), horizon, moved, *(np.concatenate(column) for column in after))


def following(panel: Panel, rows: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the bars after some rows did: float64 (n,) each, NaN where the symbol has no such bar, or a price is NaN.

    The return of the next bar; and, of the next `horizon` bars, highest high / close - 1 and 1 - lowest low / close.
    rows: int64 (n,), row numbers of the panel.  Reads the future of a row: an outcome, never a feature.

    >>> from gpupipe.data import simulate
    >>> panel = simulate(n_symbols=1, n_bars=4)
    >>> next_return, rise, fall = following(panel, np.array([1, 3]), horizon=2)
    >>> bool(np.isclose(rise[0], max(panel.high[2:4]) / panel.close[1] - 1)), next_return[1]
    (True, np.float64(nan))
    """
    to_host = panel.device.to_host
    close, high, low = (to_host(getattr(panel, name)) for name in ("close", "high", "low"))
    offsets = to_host(panel.offsets)
    stop = offsets[np.searchsorted(offsets, rows, side="right")]
    entry = close[rows].astype(np.float64)
    highest, lowest = np.full(len(rows), -np.inf), np.full(len(rows), np.inf)
    next_return = np.full(len(rows), np.nan)
    for k in range(1, horizon + 1):
        there = rows + k < stop
        at = np.minimum(rows + k, len(close) - 1)
        highest = np.maximum(highest, np.where(there, high[at], np.nan))
        lowest = np.minimum(lowest, np.where(there, low[at], np.nan))
        if k == 1:
            next_return = np.where(there, close[at], np.nan) / entry - 1
    return next_return, highest / entry - 1, 1 - lowest / entry
