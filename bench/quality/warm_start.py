"""Time saved by a warm start, and its loss: `python -m bench.quality.warm_start [--data ... --sector-map ...]`.

Last night is simulated: all data but the last --days N, trained from nothing. Then, on all data, a run from nothing
("cold") and one that continues last night's models ("warm") take turns, --times each, in one process and one thread.
With --nights K there are K such steps, each warm run continuing the warm run before it, and a cold run beside each.

Reported for each night are median seconds of each family, the rounds of its models, and on validation and on the sealed
test, for each family and label, log-loss averaged over sectors: cold, warm, and the difference with its paired 95 %
interval (block bootstrap of dates; below 0 the warm start is better). Repetitions must give the same models. The cores
bind. The last line is JSON.
"""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile
from typing import Any

import numpy as np

from bench import runs
from bench.timing import in_turn
from gpupipe.artifacts.load import load
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.estimators import registry
from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import Losses
from gpupipe.evaluation.metrics import log_losses
from gpupipe.pipeline.job import JobOptions, execute
from gpupipe.training.prepare import prepare
from gpupipe.workloads import equity

SIDES = ("cold", "warm")


def train(panel: Panel, settings: Config, out: pathlib.Path, source: pathlib.Path | None) -> runs.Run:
    """One run in this process, on one thread."""
    summary, _ = execute(equity.EQUITY, panel, None, settings, out, JobOptions(jobs=1, warm_start=source))
    return runs.Run(summary["elapsed_s"], 0, 0, out)


def losses(panel: Panel, settings: Config, outs: dict[str, pathlib.Path], part: str) -> dict[str, Losses]:
    """For each sector, log-losses of a part's rows by time, of (label, "FAMILY SIDE")."""
    prepared, target = prepare(equity.EQUITY, panel, settings), equity.EQUITY.target(settings)
    models = {side: load(out) for side, out in outs.items()}
    by_sector = {}
    for sector in models["cold"].by_group:
        dataset, rows = prepared.datasets[sector], getattr(prepared.splits[sector], part)
        by_key = {}
        for side, loaded in models.items():
            predictions = loaded.predict(panel.of_group(sector), settings.training.models)
            for k, label in enumerate(target.names):
                for family in settings.training.models:
                    name = f"{family}_{label.removeprefix('label_')}"
                    if name in predictions.names and not np.isnan(values := predictions.of(name)[rows]).any():
                        by_key[label, f"{family} {side}"] = log_losses(values, dataset.y[rows, k])
        by_sector[sector] = block_bootstrap.by_time(dataset.time_ns[rows], by_key)
    return by_sector


def compared(by_sector: dict[str, Losses], settings: Config) -> list[runs.Line]:
    """Of each family and label, and of each family's mean over labels: both log-losses, and their difference."""
    times = np.concatenate([loss.times for loss in by_sector.values()])
    draws = block_bootstrap.draw(times, max(settings.labels.horizons), settings.seed)
    resampled = block_bootstrap.resample(draws, by_sector)

    def mean_of(pairs: list[tuple[str, str]], name: str, drawn: bool) -> Any:
        """Over sectors and labels: of the log-loss, or of its draws."""
        return np.mean([
            resampled.loss[s, label, name] if drawn
            else by_sector[s].sums[label, name].sum() / by_sector[s].rows.sum()
            for s, label in pairs
        ], axis=0)  # fmt: skip

    lines = []
    for family in settings.training.models:
        trained = [(s, label) for s, loss in by_sector.items() for label, name in loss.sums if name == f"{family} cold"]
        for label in (*sorted({label for _, label in trained}), "all"):
            pairs = [pair for pair in trained if label in (pair[1], "all")]
            cold, warm = (float(mean_of(pairs, f"{family} {side}", False)) for side in SIDES)
            cold_draws, warm_draws = (mean_of(pairs, f"{family} {side}", True) for side in SIDES)
            low, high = resampled.interval(list(by_sector), warm - cold, warm_draws - cold_draws)
            figures = {"cold": cold, "warm": warm, "difference": warm - cold, "low": low, "high": high}
            lines.append({"family": family, "label": label, **figures})
    return lines


def rounds_of(summary: dict[str, Any], family: str) -> dict[str, float]:
    """Median and largest number of rounds of a family's first stages, and the median of those that are old."""
    rows = [row for row in summary["models"] if row["model"] == family and row["kind"] == "model"]
    first = [int(row["rounds"].split("+")[0]) for row in rows if row["rounds"]]
    old = [int((row["warm_start_rounds"] or "0").split("+")[0]) for row in rows]
    return {"median": statistics.median(first or [0]), "largest": max(first, default=0), "old": statistics.median(old)}


def night(
    panel: Panel, settings: Config, source: pathlib.Path, folder: pathlib.Path, times: int
) -> tuple[runs.Line, pathlib.Path]:
    """One night: cold and warm in turn; the result, and the folder of the warm run."""
    sides = {
        side: lambda k, side=side, start=start: train(panel, settings, folder / f"{side}{k}", start)
        for side, start in (("cold", None), ("warm", source))
    }
    repetitions = in_turn(times, sides)
    families = settings.training.models
    for side, repeated in repetitions.items():
        runs.require_same_models(repeated, repeated[0], f"repetitions of the {side} run")
    outs = {side: repeated[0].out for side, repeated in repetitions.items()}
    summaries = {side: repeated[0].summary for side, repeated in repetitions.items()}
    warmed = summaries["warm"]["warm_start"]["families"]
    if unwarmed := [name for name, counts in warmed.items() if not counts["warm"]]:
        print(f"note: {', '.join(unwarmed)} began from nothing in the warm run too", flush=True)
    return {
        "seconds": {
            side: {f: runs.median(repeated, lambda run, f=f: run.summary["seconds"][f]) for f in families}
            | {"whole run": runs.median(repeated, lambda run: run.wall_s)}
            for side, repeated in repetitions.items()
        },
        "rounds": {side: {f: rounds_of(summary, f) for f in families} for side, summary in summaries.items()},
        "warm_models": {name: [counts["warm"], counts["models"]] for name, counts in warmed.items()},
        **{part: compared(losses(panel, settings, outs, part), settings) for part in ("validation", "test")},
    }, outs["warm"]  # fmt: skip


def show(result: runs.Line) -> None:
    """Tables of a night: seconds, rounds, and log-losses with the interval of their difference."""
    for what in ("seconds", "rounds"):
        cold, warm = (result[what][side] for side in SIDES)
        runs.table([{"family": name, f"cold {what}": cold[name], f"warm {what}": warm[name]} for name in cold])
    for part in ("validation", "test"):
        print(f"{part}: log-loss, and warm - cold with its interval")
        runs.table(result[part])


def main(arguments: list[str] | None = None) -> int:
    parser = runs.options(__doc__, data="demo", sectors="all", preset="fast", set=[], times=3)
    startable = [estimator.name for estimator in registry.estimators() if estimator.warm_startable]
    parser.add_argument("--models", type=runs.numbers(str), default=startable)
    parser.add_argument("--days", type=int, default=1, help="dates that a night brings")
    parser.add_argument("--nights", type=int, default=1)
    chosen = parser.parse_args(arguments)
    if stacking := registry.stacking(chosen.models):
        raise SystemExit(f"--models: {stacking} learns from models that are trained from nothing either way")
    settings = equity.make(chosen.preset, settings=chosen.set, training__models=tuple(chosen.models))
    panel, _ = runs.read(chosen, chosen.sectors)
    dates = np.unique(panel.time_ns)
    nights = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        source = train(panel.until(dates[-1 - chosen.days * chosen.nights]), settings, folder / "before", None).out
        for k in range(1, chosen.nights + 1):
            tonight = panel.until(dates[-1 - chosen.days * (chosen.nights - k)])
            result, source = night(tonight, settings, source, folder / f"night{k}", chosen.times)
            print(f"night {k} of {chosen.nights}", flush=True)
            show(result)
            nights.append(result)
    return runs.finish("warm", **vars(chosen) | {"rows": panel.n_rows, "nights": nights})


if __name__ == "__main__":
    sys.exit(main())
