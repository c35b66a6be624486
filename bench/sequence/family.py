"""Sequence networks in the main job: `python -m bench.sequence.family --data BARS --sector-map MAP --out A`.

The job runs twice, into A/with and A/without: the families of --others and the meta-learner, with and without the
family `sequence`. Both keep the same rows (`split.lookback_rows`), so that every comparison is paired. A finished run
in either folder is not trained again, and a killed one is resumed.

On the sealed test, averaged over sectors, for each label: the gain of the meta-learner over the class prior with
`sequence` minus without, and the gain of `sequence` minus that of each volatility baseline, with 95 % intervals (block
bootstrap of dates, the same draws on both sides). --lines LINES.jsonl adds the result to a results file of
`python -m bench.sequence`, whose bars read it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench import runs
from bench.runs import Line
from bench.sequence.results import Results
from gpupipe.artifacts import summary
from gpupipe.artifacts.load import load
from gpupipe.artifacts.manifest import read_manifest
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.estimators import registry
from gpupipe.estimators.baselines.class_shares import class_shares
from gpupipe.estimators.baselines.contract import TrainingRows
from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import EVENTS, PRIOR, Losses, Resampled
from gpupipe.evaluation.metrics import log_losses
from gpupipe.evaluation.paired_test import clearly_better
from gpupipe.training.prepare import Prepared, prepare
from gpupipe.workloads import equity

WITH, WITHOUT = "with", "without"
META = "meta_learner"


@dataclass(frozen=True)
class Sides:
    """Both runs: their settings and folders, by "with" and "without"; the judged family."""

    settings: Mapping[str, Config]
    outs: Mapping[str, pathlib.Path]
    family: str


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    others, family = [name for name in chosen.others if name != META], chosen.family
    if family in others:
        raise SystemExit(f"--others: {family} is the family that is left out on one side")
    models = {WITH: (*others, family, META), WITHOUT: (*others, META)}
    lookback = chosen.lookback_rows
    if lookback is None:
        whole = equity.make(chosen.preset, settings=chosen.set, training__models=models[WITH])
        lookback = registry.lookback(whole).rows
    chosen.set = [*chosen.set, *([f"split.lookback_rows={lookback}"] if lookback else [])]
    panel, report = runs.read(chosen, chosen.sectors)
    settings = {
        side: equity.make(chosen.preset, settings=chosen.set, training__models=names) for side, names in models.items()
    }
    sides = Sides(settings, {side: chosen.out / side for side in models}, family)
    seconds = {side: run(chosen, sides, side) for side in models}
    labels = compared(panel, sides)
    for label, facts in labels.items():
        show(label, facts)
    facts: Line = {
        "family": family, "others": others, "preset": chosen.preset, "lookback_rows": lookback,
        "rows": panel.n_rows, "symbols": panel.n_symbols, "data_hash": report.data_hash, "seconds": seconds,
        "labels": labels, "whole": is_whole(chosen, panel),
    }  # fmt: skip
    line = Results(chosen.lines, {}).add("family", facts)
    print(json.dumps(line))
    return 0


def parser() -> argparse.ArgumentParser:
    options = runs.options(__doc__, data="demo", sectors="all", preset="fast", set=[])
    options.add_argument("--out", type=pathlib.Path, required=True, help="the folder of both runs")
    options.add_argument("--others", type=runs.numbers(str), default=["xgb_joint", "random_forest"])
    options.add_argument("--family", default="sequence", help="the family that one side leaves out")
    options.add_argument("--lookback-rows", type=int, help="rows before each row (default: as the family needs)")
    options.add_argument("--lines", type=pathlib.Path, help="the results file of bench.sequence that gets the result")
    return options


def is_whole(chosen: argparse.Namespace, panel: Panel) -> bool:
    """Whether this is the comparison that the bars are about: `sequence` in all sectors, fast, years of data."""
    days = len(np.unique(panel.session_day))
    return (chosen.family, chosen.preset, chosen.sectors) == ("sequence", "fast", "all") and days > 1000


def run(chosen: argparse.Namespace, sides: Sides, side: str) -> float:
    """Seconds of the run of one side, as its summary tells them; it runs now unless it is finished already."""
    out, settings = sides.outs[side], sides.settings[side]
    if not is_finished(out, settings):
        print(f"training {out.name}: {', '.join(settings.training.models)}", flush=True)
        runs.run_job([*runs.job_options(chosen), "--models", ",".join(settings.training.models)], out)
    else:
        print(f"{out.name} was trained earlier", flush=True)
    return float(summary.read(out)["elapsed_s"])


def is_finished(out: pathlib.Path, settings: Config) -> bool:
    """Whether a folder holds a finished run; SystemExit where it is one of other settings."""
    manifest = read_manifest(out)
    if manifest is None:
        return False
    wanted = json.loads(json.dumps(settings.as_dict()))
    if different := [name for name, value in wanted.items() if manifest["settings"].get(name) != value]:
        raise SystemExit(f"{out} holds a run of other settings ({', '.join(different)}): give another --out")
    return True


def compared(panel: Panel, sides: Sides) -> dict[str, Line]:
    """For each label, the gains on the sealed test, their differences with intervals, and whether tables are beaten."""
    by_sector = losses_by_sector(panel, sides)
    times = np.concatenate([losses.times for losses in by_sector.values()])
    settings = sides.settings[WITH]
    draws = block_bootstrap.draw(times, max(settings.labels.horizons), settings.seed)
    resampled = block_bootstrap.resample(draws, by_sector)
    return {
        label: label_facts(label, by_sector, resampled, sides.family)
        for label in equity.EQUITY.target(settings).names
    }  # fmt: skip


def losses_by_sector(panel: Panel, sides: Sides) -> dict[str, Losses]:
    """Log-losses of the sealed rows by time: of the prior, both meta-learners, the family and the tables.

    SystemExit where the runs do not judge the same rows.
    """
    prepared = {side: prepare(equity.EQUITY, panel, settings) for side, settings in sides.settings.items()}
    both, models = prepared[WITH], {side: load(out) for side, out in sides.outs.items()}
    tables = tables_of(both)
    by_sector = {}
    for sector, dataset in both.datasets.items():
        split, other = both.splits[sector], prepared[WITHOUT].splits[sector]
        if not all(np.array_equal(getattr(split, p), getattr(other, p)) for p in ("train", "validation", "test")):
            raise SystemExit(f"{sector}: the two runs do not keep the same rows")
        of_sector, rows = panel.of_group(sector), split.test
        predictions = {WITH: models[WITH].predict(of_sector, [sides.family, META])}
        predictions[WITHOUT] = models[WITHOUT].predict(of_sector, [META])
        prior = class_shares(dataset.y[split.train], dataset.target.n_classes)
        losses = {}
        for k, label in enumerate(dataset.target.names):
            y, name = dataset.y[rows, k], label.removeprefix("label_")
            losses[label, PRIOR] = log_losses(np.broadcast_to(prior[k], (len(rows), 3)), y)
            losses[label, EVENTS] = block_bootstrap.events_of(y)
            for side in (WITH, WITHOUT):
                losses[label, f"{META} {side}"] = log_losses(predictions[side].of(f"{META}_{name}")[rows], y)
            losses[label, sides.family] = log_losses(predictions[WITH].of(f"{sides.family}_{name}")[rows], y)
            for table, predict in tables.items():
                losses[label, table] = log_losses(predict(dataset, rows)[:, k], y)
        by_sector[sector] = block_bootstrap.by_time(dataset.time_ns[rows], losses)
    return by_sector


def tables_of(prepared: Prepared) -> dict:
    """The volatility baselines, learned on the training rows: a function of (dataset, rows) by name."""
    rows = TrainingRows(prepared.datasets, {group: split.train for group, split in prepared.splits.items()})
    return {baseline.name: baseline.learn(rows) for baseline in equity.EQUITY.baselines if baseline.reference_table}


def label_facts(label: str, by_sector: Mapping[str, Losses], resampled: Resampled, family: str) -> Line:
    """One label's gains and differences of gains, averaged over the sectors that have an event in their sealed rows."""
    sectors = [sector for sector, losses in by_sector.items() if losses.sums[label, EVENTS].any()]

    def gain(model: str) -> float:
        model_loss, prior_loss = (
            np.mean([by_sector[s].sums[label, name].sum() / by_sector[s].rows.sum() for s in sectors])
            for name in (model, PRIOR)
        )
        return float(1 - model_loss / prior_loss)

    def difference(model: str, other: str) -> Line:
        value = gain(model) - gain(other)
        drawn = resampled.gain(sectors, label, model) - resampled.gain(sectors, label, other)
        low, high = resampled.interval(sectors, value, drawn)
        return {"mean": value, "low": low, "high": high}

    with_, without = f"{META} {WITH}", f"{META} {WITHOUT}"
    tables = sorted({name for k, name in next(iter(by_sector.values())).sums if k == label and "_table_" in name})
    above = {table: difference(family, table) for table in tables}
    times = np.concatenate([by_sector[s].times for s in sectors])
    mean_losses = [
        np.concatenate([by_sector[s].sums[label, name] / by_sector[s].rows for s in sectors])
        for name in (with_, without)
    ]  # fmt: skip
    return {
        "meta_gain_with": gain(with_), "meta_gain_without": gain(without),
        "meta_gain_difference": difference(with_, without),
        "meta_clearly_better_with": clearly_better(*mean_losses, times),
        "meta_clearly_worse_with": clearly_better(*mean_losses[::-1], times),
        "family_gain": gain(family), "above": above,
        "beats_tables": all(facts["mean"] > 0 for facts in above.values()),
        "beats_tables_clearly": all(facts["low"] > 0 for facts in above.values()),
    }  # fmt: skip


def show(label: str, facts: Line) -> None:
    """One label in a line, gains in percent."""

    def percent(value: Line) -> str:
        return f"{100 * value['mean']:+.2f} ({100 * value['low']:.2f}, {100 * value['high']:.2f})"

    above = "  ".join(f"above {name} {percent(value)}" for name, value in facts["above"].items())
    print(
        f"{label:16s} meta {100 * facts['meta_gain_without']:.2f} to {100 * facts['meta_gain_with']:.2f}, difference "
        f"{percent(facts['meta_gain_difference'])}; family {100 * facts['family_gain']:.2f}  {above}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
