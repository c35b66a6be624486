"""How the expected returns of a run's models held on the sealed test, all groups together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.evaluation.expected_return import LEAN, RAW, SIDES, Scores, lean_of, ranker_of, scores_of
from gpupipe.evaluation.return_calibration import calibrate
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels
from gpupipe.training.pooled_test import PooledTest, pooled_tests


def test_scores(test: PooledTest, model: str) -> Scores:
    """The scores of a model on the sealed test, before costs; NaN where it has no expected return."""
    learned = [models.expected_returns.get((test.label, model)) for _, _, models in test.members]
    probability, lean = test.predictions(model), lean_of(test.predictions(ranker_of(learned, model)))
    return scores_of(learned, probability, lean, test.column_of(test.volatility), test.time_ns, test.group)


def measured(context: TrainingContext, trained: Sequence[GroupModels]) -> list[dict[str, Any]]:
    """What was learned of each label and estimator, and how it held on the sealed test: lines of the summary.

    side: "long" or "short".  level, slope, lean: estimates, with their standard errors; None where groups were
    trained apart and have their own.  expected, realised, error, rows: of groups of rising expected return, before
    costs; see `Calibration`.  worst: the largest difference of a group, in standard errors.
    """
    trades = context.trades
    if trades is None:
        return []
    lines = []
    for test in pooled_tests(context, trained):
        gross = np.concatenate([trades.of(models.group).gross[rows, test.column] for _, rows, models in test.members])
        horizon = test.members[0][0].target.horizon_rows[test.column]
        for model in test.models:
            learned = [models.expected_returns.get((test.label, model)) for _, _, models in test.members]
            distinct = list({id(value): value for value in learned if value is not None}.values())
            if not distinct:
                continue
            scores = test_scores(test, model)
            for side, name in enumerate(SIDES):
                calibration = calibrate(
                    scores.expected[:, side], scores.error[:, side], gross[:, side], test.time_ns, horizon
                )
                line = {"label": test.label, "model": model, "side": name, **dataclasses.asdict(calibration)}
                only = distinct[0] if len(distinct) == 1 else None
                effects = {"level": only and only.level[side]} | {
                    effect: only and only.slopes[side].effect(k) for effect, k in (("slope", RAW), ("lean", LEAN))
                }
                for effect, value in effects.items():
                    line |= {effect: value and value.estimate, f"{effect}_error": value and value.error}
                lines.append({**line, "worst": calibration.worst})
    return lines
