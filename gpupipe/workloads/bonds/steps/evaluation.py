"""Step 9: every model on the sealed test rows, against the baselines, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.losses import gain
from gpupipe.workloads.bonds.dates import less_mean_of_date
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.models import ModelRows

LEAST_BLOCK = 2  # dates of a block at least: a date may be a month
GROUP, LABEL = "all", "next_spread"
COMPARED = 6  # models of a run: those of steps 1, 2, 3, 4, 8 and 11
TOGETHER = 1 - (1 - block_bootstrap.LEVEL) / COMPARED


def measure(
    rows: ModelRows, models: Mapping[str, Found], baselines: Mapping[str, np.ndarray], test: np.ndarray,
    settings: Config,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for each model and baseline: errors in basis points, gains with intervals, rank correlation, skill.

    baselines: float64 (n_rows,) by name, spreads.  test: int64, the rows that are judged, sealed until now.
    gain: 1 - squared error over that of the baseline, with its 95 % interval. Errors are those that models are fitted
    to make small: in units of `scale_of` the last spread, less their mean over the judged rows of the date. So neither
    a move that all bonds share, of which models predict nothing, nor the few widest spreads decide.
    rank_correlation: of predicted and happened changes in these units, by date. Where the market moves, the ranks of
    changes in percent are those of spreads.
    skill: where wider intervals, which hold for all of `COMPARED` models together in 95 % of samples, lie above 0
    against every baseline.
    """
    predictions = {name: rows.spread[test] + found["change"][test] for name, found in models.items()}
    expected = {name: column[test] for name, column in baselines.items()}
    y = rows.spread[test] + rows.change[test]
    known = np.isfinite(y) & np.all([np.isfinite(p) for p in (*predictions.values(), *expected.values())], axis=0)
    y, date = y[known], rows.date[test][known]
    missed = {name: p[known] - y for name, p in {**expected, **predictions}.items()}
    scale = rows.scale[test][known]
    errors = {name: less_mean_of_date(by / scale, date) ** 2 for name, by in missed.items()}
    if not len(y):
        return [_nothing_judged(name, name in models, list(expected)) for name in errors]
    draws = block_bootstrap.draw(date, rows.horizon(test[known]), settings.seed, LEAST_BLOCK)
    drawn = {}
    for reference in expected:
        losses = {(LABEL, name): error for name, error in errors.items()}
        losses[LABEL, block_bootstrap.PRIOR] = errors[reference]
        drawn[reference] = block_bootstrap.resample(draws, {GROUP: block_bootstrap.by_time(date, losses)})
    found = []
    for name, error in errors.items():
        row: dict[str, Any] = {
            "model": name, "kind": "model" if name in models else "baseline", "rows": len(y),
            "rmse_bp": 100 * float(np.sqrt(np.mean(missed[name] ** 2))),
            "blocks": draws.n_blocks,
        }  # fmt: skip
        lows = []
        for reference in expected:
            estimate = gain(float(error.mean()), float(errors[reference].mean()))
            of_draws = drawn[reference].gain([GROUP], LABEL, name)
            low, high = drawn[reference].interval([GROUP], estimate, of_draws)
            row["gain_over"] = {**row.get("gain_over", {}), reference: [low, estimate, high]}
            lows.append(drawn[reference].interval([GROUP], estimate, of_draws, TOGETHER)[0])
        if name in models:
            moved = models[name]["change"][test][known]
            row["rank_correlation"] = rank_correlation(moved / scale, (y - rows.spread[test][known]) / scale, date)
            row["skill"] = min((block_bootstrap.skill(low, 1.0) for low in lows), key=_ORDER.index)
        found.append(row)
    return found


def _nothing_judged(name: str, is_model: bool, references: list[str]) -> dict[str, Any]:
    """The row of a model or baseline of which no prediction could be judged."""
    row = {
        "model": name, "kind": "model" if is_model else "baseline", "rows": 0, "rmse_bp": None, "blocks": 0.0,
        "gain_over": {reference: [None, None, None] for reference in references},
    }  # fmt: skip
    return {**row, "rank_correlation": None, "skill": block_bootstrap.NOT_KNOWN} if is_model else row


_ORDER = (block_bootstrap.NOT_KNOWN, block_bootstrap.NO_SKILL, block_bootstrap.SKILL)


def rank_correlation(predicted: np.ndarray, happened: np.ndarray, date: np.ndarray) -> float | None:
    """The mean over dates of the rank correlation (Spearman); None where no date has three rows and two values."""
    from scipy.stats import rankdata

    found = []
    for k in np.unique(date):
        rows = date == k
        if rows.sum() < 3:
            continue
        first, second = rankdata(predicted[rows]), rankdata(happened[rows])
        if first.std() > 0 and second.std() > 0:
            found.append(float(np.corrcoef(first, second)[0, 1]))
    return float(np.mean(found)) if found else None


def run(
    rows: ModelRows, models: Mapping[str, Found], baselines: Mapping[str, np.ndarray], test: np.ndarray,
    settings: Config,
) -> Found:  # fmt: skip
    """Measure all models; the chosen one has the smallest loss on validation."""
    losses = {name: found.facts["validation_loss"] for name, found in models.items()}
    chosen = min(losses, key=lambda name: (losses[name], name))
    facts = {
        "rows": measure(rows, models, baselines, test, settings), "chosen": chosen,
        "validation_losses": losses,
    }  # fmt: skip
    return Found({}, facts)
