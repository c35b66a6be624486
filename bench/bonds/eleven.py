"""The eleven steps the usual way (origin.py) against ours, by step, and the share of what makes ours faster.

Equality first: both value all quotes alike. Then both run in turn on one simulated market with a planted mispricing, so
that quality is more than the absence of skill: `--rounds` of both, medians. Ours is a whole run with an empty folder,
with what it publishes; seconds of its steps overlap. Quality is the gain over the last spread on the sealed test rows,
by model, in squared error of relative moves less their date's mean, which is what models predict. The error in basis
points stands beside it and judges nothing: most of it is of moves that all bonds share, and no model predicts these.

Shares are runs of ours with one thing switched off, over ours with all:

    parallel groups    one step at a time
    cached conversion  each of the eleven steps converts the panel to Arrow, pandas and numpy first
    cached fair values each of the eleven steps first values all quotes again, by our kernel; what the usual loop takes
                       instead is in the line of kind `fair values`
    early stopping     patience without end for families and depths, and no trial is pruned
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bench.bonds import markets, origin, usual_values
from bench.bonds.markets import Market
from bench.runs import Line
from bench.timing import cores, in_turn, timed
from gpupipe.config import Config
from gpupipe.pipeline import job
from gpupipe.pipeline.options import JobOptions
from gpupipe.pipeline.steps import Step
from gpupipe.workloads.bonds import BONDS, recipe, schema
from gpupipe.workloads.bonds.baselines import LAST
from gpupipe.workloads.bonds.fair_values import fair_values

BAR = 2.5
CLOSE = 1e-9  # percent, between the yields of both ways
AS_GOOD = 0.005  # by which the gain over the last spread may be below theirs: a tenth of what an oracle gains
SHARES = ("parallel groups", "cached conversion", "cached fair values", "early stopping")
TRAINED = (*recipe.MODELS, "tuning")
WITHOUT_END = 1_000_000  # rounds, epochs, trees of patience


@dataclasses.dataclass(frozen=True)
class Measured:
    """One run: seconds in all and by step; on the test by model the gain over the last spread, and the error in bp.

    gain: fractions; None where no row was judged.

    >>> Measured(2.0, {"basic": 1.0}, {"basic": 0.043}, {"basic": 45.0}).gain["basic"]
    0.043
    """

    seconds: float
    by_step: Mapping[str, float]
    gain: Mapping[str, float | None]
    rmse_bp: Mapping[str, float | None]


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """Equality, a line for each step, for each trained model, for each share; then the bar."""
    market = markets.market(chosen.n_bonds, chosen.n_months, chosen.seed, chosen.mispricing)
    settings = markets.settings(chosen, chosen.seed)
    yield equality(market, settings)
    warm_up(chosen)
    sides = {"usual": lambda _: usual(market, settings), "ours": lambda _: ours(market, settings)}
    results = in_turn(chosen.rounds, sides)
    usual_runs, our_runs = results["usual"], results["ours"]
    stages: dict[str, list[float]] = {}
    for run, _ in usual_runs:
        for stage, seconds in run.items():
            stages.setdefault(stage, []).append(seconds)
    theirs = [measured for _, measured in usual_runs]
    for name in (recipe.VALUES, recipe.ROWS, *recipe.NAMES.values()):
        yield {"kind": "step", "name": name, "usual_s": _median(run.by_step.get(name, 0.0) for run in theirs),
               "ours_s": _median(run.by_step[name] for run in our_runs)}  # fmt: skip
    yield {"kind": "usual stages", **{name: _median(values) for name, values in stages.items()}}
    qualities = [quality(name, theirs[0], our_runs[0]) for name in TRAINED]
    yield from qualities
    whole, all_of_it = _median(run.seconds for run in theirs), _median(run.seconds for run in our_runs)
    shares = {}
    for name in chosen.shares:
        without = ours(market, settings, name)
        shares[name] = without.seconds / all_of_it
        yield {"kind": "share", "without": name, "seconds": without.seconds, "times": shares[name]}
    ratio, as_good = whole / all_of_it, all(line["as_good"] for line in qualities)
    yield {
        "kind": "eleven bar", "bonds": market.panel.n_symbols, "rows": market.panel.n_rows, "rounds": chosen.rounds,
        "mispricing": chosen.mispricing, "usual_s": whole, "ours_s": all_of_it, "ratio": ratio, "shares": shares,
        "ratio_without_values_and_conversion": (whole - _median(stages["conversion"]) - _median(stages["fair values"]))
        / all_of_it, "as_good": as_good, "bar": BAR, "holds": ratio >= BAR and as_good,
    }  # fmt: skip


def equality(market: Market, settings: Config) -> Line:
    """The yields of both ways, and what one valuation of all quotes takes; SystemExit where they differ."""
    panel = market.panel
    frame, _ = origin.converted(panel)
    fair_values(panel, settings.bonds.convention)  # compiles
    ours_s, mine = timed(functools.partial(fair_values, panel, settings.bonds.convention))
    usual_s, theirs = timed(lambda: usual_values.fair_values(frame, schema.reference_rate(panel)))
    differences = {
        name: float(np.nanmax(np.abs(column - theirs.arrays()[name]))) for name, column in mine.arrays().items()
    }  # fmt: skip
    same_rows = all(np.array_equal(np.isnan(a), np.isnan(theirs.arrays()[name])) for name, a in mine.arrays().items())
    if differences["yield"] > CLOSE or not same_rows:
        raise SystemExit(f"the yields of both ways differ by {differences['yield']:.3g} percent")
    return {"kind": "fair values", "quotes": panel.n_rows, "usual_s": usual_s, "ours_s": ours_s,
            "differences": differences}  # fmt: skip


def warm_up(chosen: argparse.Namespace) -> None:
    """Run both on a few bonds: kernels compile, libraries load."""
    few = argparse.Namespace(**{**vars(chosen), "set": [*chosen.set, *markets.TINY]})
    market, settings = markets.market(250, 40, 1, 5.0), markets.settings(few, 1)
    usual(market, settings)
    ours(market, settings)


def usual(market: Market, settings: Config) -> tuple[dict[str, float], Measured]:
    """One run the usual way: seconds by stage, and what was measured."""
    seconds, (found, by_step) = timed(lambda: origin.run(market.panel, settings))
    stages = {stage: sum(step[stage] for step in by_step.values()) for stage in origin.STAGES}
    rows = [*found["evaluation"].facts["rows"], *found["tuning"].facts["rows"]]
    return stages, measured(seconds, {name: sum(step.values()) for name, step in by_step.items()}, rows)


def ours(market: Market, settings: Config, without: str = "") -> Measured:
    """One run of ours. without: a name of `SHARES`, which is switched off."""
    workload, options = BONDS, JobOptions(jobs=1 if without == "parallel groups" else cores())
    more: Any = contextlib.nullcontext()
    if without == "cached conversion":
        workload = _before_each_step(lambda panel, _: origin.converted(panel))
    if without == "cached fair values":
        workload = _before_each_step(lambda panel, chosen: fair_values(panel, chosen.bonds.convention))
    if without == "early stopping":
        more = origin.searched_in_full()
        patient = {name: dataclasses.replace(section, patience=WITHOUT_END)
                   for name, section in settings.sections.items() if hasattr(section, "patience")}  # fmt: skip
        settings = dataclasses.replace(settings, sections={**settings.sections, **patient})
    with tempfile.TemporaryDirectory() as out, more:
        seconds, (summary, _) = timed(
            lambda: job.execute(workload, market.panel, market.report, settings, out, options)
        )
    return measured(seconds, summary["seconds"], summary["bonds"]["measured"])


def _before_each_step(work: Any) -> Any:
    """The workload of bonds, each of whose eleven steps does some work first."""

    def steps(panel: Any, settings: Config) -> Sequence[Step]:
        def make(step: Step, context: Any, values: Any) -> Any:
            work(panel, settings)
            return step.make(context, values)

        return [
            dataclasses.replace(step, make=functools.partial(make, step))
            if step.name in recipe.NAMES.values() else step
            for step in recipe.steps(panel, settings)
        ]  # fmt: skip

    return dataclasses.replace(BONDS, steps=steps)


def measured(seconds: float, by_step: Mapping[str, float], rows: Sequence[Mapping[str, Any]]) -> Measured:
    """A run from the rows of its evaluation; the tuned model is that of the step tuning."""
    by_name = {"tuning" if row["model"] == "tuned" else row["model"]: row for row in rows}
    gains = {name: row["gain_over"][LAST][1] for name, row in by_name.items()}
    return Measured(seconds, by_step, gains, {name: row["rmse_bp"] for name, row in by_name.items()})


def quality(name: str, theirs: Measured, mine: Measured) -> Line:
    """The gains of a model on both sides, and whether ours is as good; it is not where one of them is not known."""
    usual, ours = theirs.gain[name], mine.gain[name]
    return {
        "kind": "quality", "name": name, "usual_gain": usual, "ours_gain": ours,
        "as_good": usual is not None and ours is not None and ours >= usual - AS_GOOD,
        "usual_rmse_bp": theirs.rmse_bp[name], "ours_rmse_bp": mine.rmse_bp[name], "last_rmse_bp": mine.rmse_bp[LAST],
    }  # fmt: skip


def _median(values: Any) -> float:
    return float(statistics.median(values))
