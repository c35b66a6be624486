"""What has to hold, and what was measured: each line of it from the results file alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.runs import Line
from bench.sequence.curve import Curve
from bench.sequence.intervals import Estimate, estimate, paired_ratio
from bench.sequence.results import Results

SEEDS_NEEDED = 5
LEAST_ROWS = 10_000  # of each series, where it is cut: 90 trainings of all rows take four hours on two cores
LEGACY = "legacy"
EPOCH_BARS = {"fast": 2.4, "balanced": 1.8}
WHOLE_BARS = {"fast": 2.3, "balanced": 1.75}
LOSS_BARS = {"fast": 1.05, "balanced": 1.05, "quality": 1.05}
STAGES_BAR, EQUAL_LOSS_BAR, FOLDS_BAR, TABLES_BAR = 30.0, 1.01, 1.5, 4


@dataclass(frozen=True)
class Requirement:
    """One bar.

    name: in words.  bar: the number that has to be reached.  at_most: whether smaller is better.
    measured: by series, or by series and preset.  complete: whether all series were measured, on LEAST_ROWS rows at
        least, with five seeds.
    """

    name: str
    bar: float
    measured: dict[str, Any]
    complete: bool
    at_most: bool = False

    @property
    def worst(self) -> float | None:
        """The measured number that is furthest from the bar; None without any."""
        numbers = [value["mean"] if isinstance(value, dict) else value for value in self.measured.values()]
        return (max if self.at_most else min)(numbers, default=None)

    @property
    def holds(self) -> bool | None:
        """Whether all measured numbers reach the bar; None where the measurement is not complete."""
        if not self.complete or self.worst is None:
            return None
        return self.worst <= self.bar if self.at_most else self.worst >= self.bar

    def as_dict(self) -> Line:
        """Plain values, as JSON can hold them."""
        return {
            "name": self.name, "bar": self.bar, "at_most": self.at_most, "worst": self.worst, "holds": self.holds,
            "complete": self.complete, "measured": self.measured,
        }  # fmt: skip


class Measured:
    """The lines of a results file, as the requirements ask for them.

    series: names of the series that a complete measurement has.  whole: whether rows and epochs suffice.
    jobs: of trainings, how many ran at once: only those of one number have times that compare.
    """

    def __init__(self, results: Results, series: Sequence[str], whole: bool, jobs: int = 1) -> None:
        self.results, self.series, self.whole = results, tuple(series), whole
        self.trainings: dict[tuple[str, str, str], dict[int, Line]] = {}
        for line in results.of_kind("training"):
            if line["jobs"] != jobs:
                continue
            self.trainings.setdefault((line["series"], line["way"], line["preset"]), {})[line["seed"]] = line

    def latest(self, kind: str, value: Callable[[Line], float], **key: Any) -> dict[str, float]:
        """A number of the newest line of each series."""
        lines = {series: self.results.stored(kind, {"series": series, **key}) for series in self.series}
        return {series: value(line) for series, line in lines.items() if line is not None}

    def values(self, series: str, way: str, preset: str, name: str) -> dict[int, float]:
        """A number of each training, by seed."""
        return {seed: line[name] for seed, line in self.trainings.get((series, way, preset), {}).items()}

    def ratios(self, name: str, of: tuple[str, str], over: tuple[str, str]) -> dict[str, Estimate]:
        """Of each series the ratio of a number of two (way, preset), paired by seed, where there is any pair."""
        found = {s: paired_ratio(self.values(s, *of, name), self.values(s, *over, name)) for s in self.series}
        return {series: ratio for series, ratio in found.items() if ratio is not None}

    def whole_ratios(self, preset: str) -> dict[str, Estimate]:
        """Of each series the time of whole trainings of legacy over those of a preset, paired by seed.

        By the epochs of each training, and the seconds of an epoch where they were measured in turn (`pace`); else by
        the seconds of the trainings.
        """
        found = {}
        for series in self.series:
            lines = [line for line in self.results.of_kind("pace") if line["series"] == series]
            sides = [self.values(series, "ours", name, "epochs" if lines else "seconds") for name in (LEGACY, preset)]
            if lines:
                seconds = lines[-1]["seconds"]
                sides = [
                    {seed: n * seconds[name] for seed, n in by_seed.items()}
                    for name, by_seed in zip((LEGACY, preset), sides, strict=True)
                ]
            if (ratio := paired_ratio(*sides)) is not None:
                found[series] = ratio
        return found

    def is_complete(self, measured: dict[str, Any]) -> bool:
        """Whether all series are there, whole, and estimates rest on five seeds."""
        counts = [value.n for value in measured.values() if isinstance(value, Estimate)]
        return self.whole and set(measured) == set(self.series) and all(n >= SEEDS_NEEDED for n in counts)

    def requirement(self, name: str, bar: float, measured: dict[str, Any], at_most: bool = False) -> Requirement:
        """The requirement with what was measured for each series."""
        plain = {k: v.as_dict() if isinstance(v, Estimate) else v for k, v in measured.items()}
        return Requirement(name, bar, plain, self.is_complete(measured), at_most)


def requirements(measured: Measured) -> list[Requirement]:
    """Every requirement of the benchmark, in order, whether or not it was measured."""
    found = [
        measured.requirement(
            f"features and dataset, times faster than the usual way ({preset})", STAGES_BAR,
            measured.latest("stages", lambda line: line["features_and_dataset"], preset=preset),
        )
        for preset in EPOCH_BARS
    ]  # fmt: skip
    for preset, bar in EPOCH_BARS.items():
        found.append(measured.requirement(
            f"epoch of {preset}, times faster than steps of its own batch", bar,
            measured.latest("epoch", lambda line: line["ratio"], preset=preset),
        ))  # fmt: skip
        found.append(measured.requirement(
            f"validation loss of {preset} over that of steps of its own batch", EQUAL_LOSS_BAR,
            measured.ratios("validation_loss", ("ours", preset), ("origin", preset)), at_most=True,
        ))  # fmt: skip
    for preset, bar in LOSS_BARS.items():
        found.append(measured.requirement(
            f"validation loss of {preset} over legacy's", bar,
            measured.ratios("validation_loss", ("ours", preset), ("ours", LEGACY)), at_most=True,
        ))  # fmt: skip
    for preset, bar in WHOLE_BARS.items():
        found.append(measured.requirement(
            f"whole training of {preset}, times faster than legacy's", bar, measured.whole_ratios(preset)
        ))  # fmt: skip
    for preset in EPOCH_BARS:
        for threads in ("one_thread", "all_threads"):
            words = threads.replace("_", " ")
            found.append(measured.requirement(
                f"two folds side by side, times the throughput of one after the other on {words} ({preset})",
                FOLDS_BAR, measured.latest("folds", lambda line, t=threads: line[f"over_{t}"], preset=preset),
            ))  # fmt: skip
    return found + of_family(measured.results)


def of_family(results: Results) -> list[Requirement]:
    """Those of the family in the main job, where it was compared (`bench.sequence.family`)."""
    lines = [line for line in results.lines if line["kind"] == "family"]
    line = lines[-1] if lines else None
    labels = line["labels"] if line else {}
    worse = {label: facts["meta_gain_difference"]["high"] for label, facts in labels.items()}
    beats = {"all sectors": sum(facts["beats_tables"] for facts in labels.values())} if labels else {}
    complete = bool(line and line["whole"])
    return [
        Requirement("upper end of the gain of meta_learner with sequence minus without", 0.0, worse, complete),
        Requirement("labels on which sequence beats both volatility tables", TABLES_BAR, beats, complete),
    ]


def time_to_legacy(measured: Measured) -> dict[str, dict[str, Any]]:
    """By series and preset: seconds until the loss was that of legacy of the same seed, over legacy's seconds to it.

    Trainings that never reach it are counted in `never`.
    """
    found: dict[str, dict[str, Any]] = {}
    for series in measured.series:
        legacy = measured.trainings.get((series, "ours", LEGACY), {})
        for (name, way, preset), by_seed in measured.trainings.items():
            if name != series or (way, preset) == ("ours", LEGACY):
                continue
            ratios, never = [], 0
            for seed in sorted(by_seed.keys() & legacy.keys()):
                best = Curve.from_list(legacy[seed]["curve"]).best
                seconds = Curve.from_list(by_seed[seed]["curve"]).seconds_to(best.validation_loss)
                never += seconds is None
                ratios += [] if seconds is None else [seconds / best.seconds]
            found[f"{series} {way} {preset}"] = {
                "never": never, "ratio": estimate(ratios).as_dict() if ratios else None,
            }  # fmt: skip
    return found


def table(measured: Measured) -> list[Line]:
    """Of each series, way and preset: loss, seconds and memory, means over seeds with intervals."""
    lines = []
    for (series, way, preset), by_seed in sorted(measured.trainings.items()):
        losses, seconds = ([line[name] for line in by_seed.values()] for name in ("validation_loss", "seconds"))
        lines.append({
            "series": series, "way": way, "preset": preset, "seeds": len(by_seed),
            "validation_loss": str(estimate(losses)), "seconds": str(estimate(seconds)),
            "epochs": str(estimate([line["epochs"] for line in by_seed.values()])),
            "peak_mib": round(max(line["peak_bytes"] or 0 for line in by_seed.values()) / 2**20),
        })  # fmt: skip
    return lines
