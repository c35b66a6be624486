"""Calibration of every model by month and by volatility on the sealed test; see evaluation/calibration_slices.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpupipe.artifacts.manifest import entry_of
from gpupipe.evaluation import calibration, calibration_slices
from gpupipe.store.content_store import write_atomic
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels
from gpupipe.training.pooled_test import pooled_tests, training_volatility


def slice_lines(context: TrainingContext, trained: Sequence[GroupModels]) -> list[dict[str, Any]]:
    """Lines by label, model, side and slice, summed over groups; none for targets that are not classes.

    Volatility is cut at quintiles of the training rows of all groups; without that column there are months alone.
    """
    volatility_of_training = training_volatility(context, trained)[1]
    lines = []
    for test in pooled_tests(context, trained):
        target = test.members[0][0].target
        if target.kind != "classes":
            continue
        slices = [calibration_slices.by_month(test.time_ns)]
        if (volatility := test.column_of(test.volatility)) is not None:
            slices.append(calibration_slices.by_volatility(volatility, volatility_of_training))
        y, horizon = test.y(), target.horizon_rows[test.column]
        for model in test.models:
            key = {"label": test.label, "model": model}
            lines += calibration_slices.slice_lines(key, test.predictions(model), y, test.time_ns, slices, horizon)
    return lines


def publish(context: TrainingContext, trained: Sequence[GroupModels]) -> dict[str, dict[str, Any]]:
    """Write calibration_slices.parquet, if there are lines; return its manifest entry."""
    lines = slice_lines(context, trained)
    if not lines:
        return {}
    content = calibration.parquet(lines)
    write_atomic(context.store.out / calibration_slices.FILE, content)
    return {calibration_slices.FILE: entry_of(content)}
