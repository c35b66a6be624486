"""How the expected returns of a run's models held on the sealed test, all groups together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.evaluation import expected_return
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels
from gpupipe.training.pooled_test import pooled_tests


def measured(context: TrainingContext, trained: Sequence[GroupModels]) -> list[dict[str, Any]]:
    """What was learned of each label and estimator, and how it held on the sealed test: lines of the summary.

    side: "long" or "short".  level, slope: estimates, with their standard errors; None where groups were trained apart
    and have their own.  expected, realised, error, rows: of groups of rising expected return before costs; see
    `Calibration`.  worst: the largest difference of a group, in standard errors.
    """
    trades = context.trades
    if trades is None:
        return []
    lines = []
    for test in pooled_tests(context, trained):
        gross = np.concatenate([trades.of(models.group).gross[rows, test.column] for _, rows, models in test.members])
        volatility = test.column_of(trades.volatility)
        horizon = test.members[0][0].target.horizon_rows[test.column]
        for model in test.models:
            learned = [models.expected_returns.get((test.label, model)) for _, _, models in test.members]
            distinct = list({id(value): value for value in learned if value is not None}.values())
            if not distinct:
                continue
            scores = expected_return.scores_of(learned, test.predictions(model), volatility, test.time_ns, test.group)
            for side, name in enumerate(expected_return.SIDES):
                calibration = expected_return.calibrate(
                    scores.expected[:, side], scores.error[:, side], gross[:, side], test.time_ns, horizon
                )
                line = {"label": test.label, "model": model, "side": name, **dataclasses.asdict(calibration)}
                for effect in ("level", "slope"):
                    estimates = [getattr(value, effect)[side] for value in distinct]
                    only: Any = estimates[0] if len(estimates) == 1 else None
                    line |= {effect: only and only.estimate, f"{effect}_error": only and only.error}
                lines.append({**line, "worst": calibration.worst})
    return lines
