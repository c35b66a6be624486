"""The leaderboard of a run: averages over groups with their intervals, each estimator's skill, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.evaluation.block_bootstrap import NO_SKILL, PRIOR_ALL, SKILL, Resampled
from gpupipe.evaluation.losses import gain
from gpupipe.evaluation.skill import skill_by_part, skill_measures
from gpupipe.evaluation.touch_direction import GAINS, PARTS, WHOLE, gains_of, named, part_gains

Row = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """The rows of a summary, one for each group, target and model or baseline, and the draws of their intervals.

    loss: name of the loss in the rows, where test_LOSS is beside test_prior_LOSS.
    tables: names of the baselines (tables of class shares) that models must beat in the verdict.
    judged: names of the judged models.
    stacking: name of the stacking model; "" for none.

        >>> Measured([], None, "log_loss").averages()
        []
    """

    rows: Sequence[Row]
    resampled: Resampled
    loss: str = "log_loss"
    tables: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    stacking: str = ""

    def averages(self) -> list[Row]:
        """For each target and model, averages over groups: mean loss, gain over the prior, numbers of groups above 0.

        gain_over_prior: 1 - mean loss / mean loss of the prior; on the sealed test with its 95 % interval
        (test_gain_low, test_gain_high) and skill in words. mean_of_gains is the unweighted mean of the gains of
        the groups: a group with hardly an event in its test part has a prior loss near 0, and so any gain.
        A group whose rows of a part hold a single class has no gain (NaN) and is left out of that part's averages;
        sectors_without_events counts those of the sealed test.
        Classes with a middle one also have both parts of each gain, PART_touch_gain and PART_direction_gain, which add
        up to it, on the sealed test with their own interval and skill (test_touch_skill, test_direction_skill).
        PART_direction_gain_most is the share of the prior's loss that is of direction: no model can gain more of it.
        """
        cells = self._cells()
        averages = []
        for (label, model), rows in cells.items():
            judged = _judged(rows)
            average: Row = {"label": label, "model": model, "sectors": len(rows)}
            average["sectors_without_events"] = len(rows) - len(judged)
            for part in ("validation", "test"):
                of_part = _judged(rows, part)
                average[f"{part}_{self.loss}"] = _mean(of_part, f"{part}_{self.loss}")
                average[f"{part}_gain_over_prior"] = _gain(of_part, part, self.loss)
                average[f"{part}_mean_of_gains"] = _mean(of_part, f"{part}_gain_over_prior")
                average |= _part_gains(rows, of_part, part, self.loss)
            groups = [row["sector"] for row in judged]
            gains_all = None
            if pooled_prior_rows := cells.get((label, PRIOR_ALL)):
                judged_prior = _judged(pooled_prior_rows)
                gains_all = {WHOLE: _gain(judged_prior, "test", self.loss)}
                gains_all |= gains_of(_part_gains(pooled_prior_rows, judged_prior, "test", self.loss), "test_")
            skill = skill_by_part(self.resampled, groups, label, model, gains_of(average, "test_"), gains_all)
            average |= {f"test_{name}": value for name, value in skill.items()}
            average |= {
                "sectors_above_prior": sum(row["test_gain_over_prior"] > 0 for row in rows),
                "sectors_with_skill": sum(row["test_skill"] == SKILL for row in rows),
            }
            for part in _parts_of(rows):
                average[f"sectors_with_{part}_skill"] = sum(row[f"test_{part}_skill"] == SKILL for row in rows)
            averages.append({**average, **_mean_returns(rows)})
        return averages

    def verdict(self, averages: Sequence[Row]) -> list[Row]:
        """For each target and judged model, the average sealed-test gain over the prior and over each table.

        above_prior, above_TABLE: differences of the loss averaged over groups, as a share of the prior's loss; positive
        is better. _low and _high are the ends of the 95 % interval, with the same draws of dates for both sides.
        above_tables is the smallest above_TABLE: the model must beat the table that is best on the sealed test itself,
        a choice that helps the table and never the model.
        Targets without any event in the sealed test are left out: there is nothing to judge.
        beats_all: all differences are above 0. beats_all_clearly: the lower ends of all intervals are above 0.
        touch_gain, direction_gain: the parts of above_prior, with their intervals and skill (touch_skill, ...), and
        touch_above_tables, direction_above_tables: the difference of a part to the table whose part is best.
        """
        average_of = {(average["label"], average["model"]): average for average in averages}
        groups = {cell: [row["sector"] for row in _judged(rows)] for cell, rows in self._cells().items()}
        verdicts = []
        for (label, model), average in average_of.items():
            if model not in self.judged or np.isnan(average["test_gain_over_prior"]):
                continue
            cell = (label, model)
            above_prior, drawn = average["test_gain_over_prior"], self.resampled.gain(groups[cell], label, model)
            verdict = {
                "label": label, "model": model, "above_prior": above_prior,
                "above_prior_low": average["test_gain_low"], "above_prior_high": average["test_gain_high"],
            }  # fmt: skip
            names = []
            for table in self.tables:
                above = above_prior - average_of[label, table]["test_gain_over_prior"]
                drawn_above = drawn - self.resampled.gain(groups[label, table], label, table)
                low, high = self.resampled.interval(groups[cell], above, drawn_above)
                name = f"above_{table.removeprefix('volatility_')}"
                verdict |= {name: above, f"{name}_low": low, f"{name}_high": high}
                names.append(name)
            verdict["above_tables"] = min((verdict[name] for name in names), default=above_prior)
            verdict["beats_all"] = all(verdict[name] > 0 for name in ("above_prior", *names))
            verdict["beats_all_clearly"] = all(verdict[f"{name}_low"] > 0 for name in ("above_prior", *names))
            verdict |= self._parts_of_verdict(average, average_of, groups)
            verdicts.append(verdict)
        return verdicts

    def _parts_of_verdict(
        self, average: Row, average_of: Mapping[tuple[str, str], Row], groups: Mapping[tuple[str, str], list[str]]
    ) -> Row:
        """Both parts of an average's gain, and of its difference to the best table; empty without parts."""
        label, model = average["label"], average["model"]
        found: Row = {}
        for part in _parts_of([average]):
            gain = average[f"test_{GAINS[part]}"]
            found[GAINS[part]] = gain
            found |= {
                named(part, end): average[f"test_{named(part, end)}"] for end in ("gain_low", "gain_high", "skill")
            }
            if self.tables:
                best = max(self.tables, key=lambda table: average_of[label, table][f"test_{GAINS[part]}"])
                above = gain - average_of[label, best][f"test_{GAINS[part]}"]
                drawn = self.resampled.gain(groups[label, model], label, model, part)
                drawn_best = self.resampled.gain(groups[label, best], label, best, part)
                low, high = self.resampled.interval(groups[label, model], above, drawn - drawn_best)
                name = f"{part}_above_tables"
                found |= {name: above, f"{name}_low": low, f"{name}_high": high}
        return found

    def families(self, averages: Sequence[Row]) -> list[Row]:
        """For each model, the gain averaged over targets, and the number of its models (group and target) with skill.

        gain: the mean over targets of gain_over_prior, with its 95 % interval, and skill in words; targets without any
        event in the sealed test are left out. no_events: the number of its models without one.
        touch_gain, direction_gain: the means of the parts, with intervals and skill; touch_with_skill and
        direction_with_skill count the models whose part has skill.
        not_above, worst first: the models whose sealed-test loss is not below the prior's, with their gains.
        """
        families = []
        for model in self._models():
            rows = [row for row in self.rows if row["model"] == model]
            below = [row for row in rows if row["test_gain_over_prior"] <= 0]
            below.sort(key=lambda row: row["test_gain_over_prior"])
            groups = [row["sector"] for row in rows]
            measured: Row = {}
            for part in (WHOLE, *_parts_of(rows)):
                mean, drawn = self._over_targets(averages, model, part)
                mean_all, drawn_all = self._over_targets(averages, PRIOR_ALL, part)
                skill = skill_measures(self.resampled, groups, mean, drawn, mean_all, drawn_all)
                measured |= {named(part, "gain"): mean, **{named(part, name): value for name, value in skill.items()}}
                if part:
                    measured[f"{part}_with_skill"] = sum(row[f"test_{part}_skill"] == SKILL for row in rows)
            families.append({
                "model": model, **measured,
                "labels": len({row["label"] for row in rows}),
                "runs": len(rows),
                "above_prior": sum(row["test_gain_over_prior"] > 0 for row in rows),
                "with_skill": sum(row["test_skill"] == SKILL for row in rows),
                "no_skill": sum(row["test_skill"] == NO_SKILL for row in rows),
                "no_events": len(rows) - len(_judged(rows)),
                "not_above": [
                    {name: row[name] for name in ("sector", "label", "test_gain_over_prior")} for row in below
                ],
            })  # fmt: skip
        return families

    def best_single(self, averages: Sequence[Row]) -> Row | None:
        """The stacking model compared with the best other model, over all targets and groups.

        None without both, or without an event to judge them by.

        best: the model with the largest gain over the prior, averaged over targets, on the sealed test itself, which is
        strict for the stacking model. difference: of the two averages, with its 95 % interval.
        """
        names = self._models()
        if self.stacking not in names or len(names) == 1:
            return None
        gains = {model: self._over_targets(averages, model) for model in names}
        if any(np.isnan(gain) for gain, _ in gains.values()):
            return None
        stacked, stacked_drawn = gains.pop(self.stacking)
        best = max(gains, key=lambda model: gains[model][0])
        best_gain, best_drawn = gains[best]
        groups = [row["sector"] for row in self.rows]
        low, high = self.resampled.interval(groups, stacked - best_gain, stacked_drawn - best_drawn)
        return {
            "best": best, "best_gain": best_gain, "meta_gain": stacked, "difference": stacked - best_gain,
            "difference_low": low, "difference_high": high,
        }  # fmt: skip

    def _cells(self) -> dict[tuple[str, str], list[Row]]:
        """The rows of each target and model, over groups."""
        cells: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            cells.setdefault((row["label"], row["model"]), []).append(row)
        return cells

    def _models(self) -> list[str]:
        return list(dict.fromkeys(row["model"] for row in self.rows if row["kind"] == "model"))

    def _over_targets(self, averages: Sequence[Row], model: str, part: str = WHOLE) -> tuple[float, Any]:
        """The mean over targets of a model's gain over the prior, or of a part of it, and of its draws.

        Zeros for a missing model. Targets without any event are left out; NaN where none has one.
        """
        cells = {label: _judged(rows) for (label, name), rows in self._cells().items() if name == model}
        if not cells:
            return 0.0, 0.0
        of_model = {average["label"]: average for average in averages if average["model"] == model}
        labels = [label for label, rows in cells.items() if rows]
        if not labels:
            return float("nan"), np.full(len(self.resampled.draws.starts), np.nan)
        mean = float(np.mean([of_model[label][f"test_{GAINS[part]}"] for label in labels]))
        drawn = [self.resampled.gain([row["sector"] for row in cells[label]], label, model, part) for label in labels]
        return mean, np.mean(drawn, axis=0)


def _mean_returns(rows: Sequence[Row]) -> Row:
    """Mean returns weighted by their numbers of rows; empty for targets without calls."""
    weights = {"test_return_buy_and_hold": "test_rows"}
    weights |= {f"test_return_when_{side}": f"test_calls_{side}" for side in ("buy", "sell")}
    return {name: _weighted_mean(rows, name, weight) for name, weight in weights.items() if name in rows[0]}


def _judged(rows: Sequence[Row], part: str = "test") -> list[Row]:
    """The rows that have a gain on a part: those whose group has an event there."""
    return [row for row in rows if not np.isnan(row[f"{part}_gain_over_prior"])]


def _gain(rows: Sequence[Row], part: str, loss: str) -> float:
    """The gain of the mean loss over rows; NaN without rows."""
    return gain(_mean(rows, f"{part}_{loss}"), _mean(rows, f"{part}_prior_{loss}"))


def _parts_of(rows: Sequence[Row]) -> list[str]:
    """The parts of the gains of these rows on the sealed test; all targets of a run are of one kind."""
    return [part for part in PARTS if f"test_{GAINS[part]}" in rows[0]]


def _part_gains(rows: Sequence[Row], judged: Sequence[Row], part: str, loss: str) -> Row:
    """Both parts of the gain of the mean loss over the judged rows, by name; empty where rows have no parts."""
    if f"{part}_touch_loss" not in rows[0]:
        return {}
    names = (f"{part}_{loss}", f"{part}_prior_{loss}", f"{part}_touch_loss", f"{part}_touch_loss_of_prior")
    loss_of_model, loss_of_prior, touch, touch_of_prior = (_mean(judged, name) for name in names)
    gains = part_gains(loss_of_model, loss_of_prior, touch, touch_of_prior)
    return {
        **{f"{part}_{GAINS[name]}": value for name, value in gains.items()},
        f"{part}_direction_gain_most": gain(touch_of_prior, loss_of_prior),
    }


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean([row[name] for row in rows])) if rows else float("nan")


def _weighted_mean(rows: Sequence[Row], name: str, weight: str) -> float:
    """The mean of a measure, weighted by numbers of rows; NaN without rows."""
    known = [row for row in rows if not np.isnan(row[name])]
    total = sum(row[weight] for row in known)
    return float(sum(row[name] * row[weight] for row in known) / total) if total else float("nan")
