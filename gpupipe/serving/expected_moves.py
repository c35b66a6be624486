"""How far symbols are expected to move, and which of them more than usual: known even where no side is called."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gpupipe.artifacts import summary
from gpupipe.artifacts.load import Models
from gpupipe.evaluation.expected_move import Scale, implied_volatility
from gpupipe.store.content_store import StoreError
from gpupipe.targets.classes import BUY, SELL, has_fixed_barriers, horizon_and_threshold, percent

if TYPE_CHECKING:
    from gpupipe.serving.scan import Scanned, Signal

MOST_LIKELY = 3  # symbols that are named


def expected_moves(models: Models, values: np.ndarray, family: str) -> dict[int, np.ndarray]:
    """By horizon, the standard deviation of the return over its bars that an estimator implies, as a fraction.

    float64 (n_symbols,); NaN where a symbol has no prediction, or the run no correction of the estimator's volatilities
    (`expected_move.calibrate`): without one their level is not known.
    values: float32 (n_symbols, n_models, 3), predictions in the order of `Models.columns`.
    """
    scales = _scales(models, family)
    columns: dict[int, list[tuple[int, float]]] = {}
    for m, (name, label) in enumerate(models.columns()):
        if name == family and has_fixed_barriers(models.target, label):
            horizon, threshold = horizon_and_threshold(models.target, label)
            columns.setdefault(horizon, []).append((m, threshold))
    moves = {}
    for horizon, of_horizon in columns.items():
        numbers, thresholds = zip(*of_horizon, strict=True)
        predicted = values[:, list(numbers)].astype(np.float64)
        volatility = implied_volatility(predicted[:, :, BUY] + predicted[:, :, SELL], thresholds, horizon)
        scale = scales.get(horizon)
        moves[horizon] = np.full(len(values), np.nan) if scale is None else scale.of(volatility) * math.sqrt(horizon)
    return moves


def _scales(models: Models, family: str) -> Mapping[int, Scale]:
    """By horizon, the correction that the run learned; empty for an older run, or without its summary."""
    try:
        whole = summary.read(models.out)
    except StoreError:
        return {}
    if whole.get("run_key") != models.manifest["run_key"]:  # the summary of a run that has been replaced since
        return {}
    lines = whole.get("volatility_value", {}).get("lines", ())
    return {line["horizon"]: Scale(line["factor"], line["exponent"]) for line in lines if line["model"] == family}


def likely_sentence(scanned: Scanned) -> str:
    """The symbols whose probability to reach a barrier is largest over its usual share; empty without signals.

    Of one label: the one that is usually reached most nearly in half of the rows, which says most.
    """
    by_label: dict[str, list[Signal]] = {}
    for signal in scanned.signals:
        if _usual(signal) > 0:
            by_label.setdefault(signal.label, []).append(signal)
    if not by_label:
        return ""
    signals = min(by_label.values(), key=lambda some: abs(0.5 - sum(map(_usual, some)) / len(some)))
    signals = sorted(signals, key=lambda signal: (-_touch(signal) / _usual(signal), signal.symbol))[:MOST_LIKELY]
    first = signals[0]
    bars = "the next bar" if first.horizon == 1 else f"{first.horizon} bars"
    named = ", ".join(
        f"{signal.symbol} ({100 * _touch(signal):.0f} %, usually {100 * _usual(signal):.0f} %)" for signal in signals
    )
    return f"Most likely to move {percent(first.threshold)} % or more, up or down, within {bars}: {named}."


def _touch(signal: Signal) -> float:
    return signal.p_buy + signal.p_sell


def _usual(signal: Signal) -> float:
    """The share of the sector's training rows that reach a barrier; NaN where it is not known."""
    return signal.base_buy + signal.base_sell
