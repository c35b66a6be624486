"""Does a warm start save time, and does it hurt? `python -m bench.quality.warm_start [--data ... --sector-map
...] [--days 1]`.

Last night is simulated: all data but the last N days, trained from nothing. Then, on all data, a run from nothing and
one that goes on from last night's models take turns, --times each, in one process and one thread. With --nights K there
are K such steps of N days, each warm run going on from the warm run before it, and a run from nothing beside each.

Reported for each night are median seconds of each family, the rounds of its models, and on validation and on the sealed
test, for each family and label, log-loss averaged over sectors: from nothing, warm, and the difference with its paired
95 % interval (block bootstrap of dates; below 0 the warm start is better). Repetitions must give the same models. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
from typing import Any

import numpy as np

from bench.timing import cores
from gpupipe import config
from gpupipe.artifacts.layout import MANIFEST, is_model
from gpupipe.artifacts.load import load as load_models
from gpupipe.data import load
from gpupipe.data.panel import COLUMNS, Panel
from gpupipe.estimators import registry
from gpupipe.estimators.training_set import gather
from gpupipe.evaluation import block_bootstrap, metrics
from gpupipe.pipeline import job
from gpupipe.runtime.device import pick
from gpupipe.store import fingerprint
from gpupipe.training import prepare

SIDES = ("cold", "warm")


def until(panel: Panel, time_ns: int) -> Panel:
    """The panel's rows up to a time; symbols that have none are left out."""
    times = panel.device.to_host(panel.time_ns)
    keep = times <= time_ns
    lengths = np.add.reduceat(keep, panel.offsets[:-1].astype(np.intp)).astype(np.int64)
    there = np.flatnonzero(lengths > 0)
    at = panel.device.asarray(np.flatnonzero(keep))
    return Panel(
        **{name: getattr(panel, name)[at] for name in (*COLUMNS, "time_ns")},
        offsets=np.concatenate([[0], np.cumsum(lengths[there])]).astype(np.int64),
        symbols=tuple(panel.symbols[k] for k in there), sector=tuple(panel.sector[k] for k in there),
    )  # fmt: skip


def train(panel: Panel, settings: config.Config, out: pathlib.Path, source: pathlib.Path | None) -> dict[str, Any]:
    """One run: its summary, and the checksums of its models."""
    summary, _ = job.execute(panel, None, settings, out, 1, warm_start=source)
    files = json.loads((out / MANIFEST).read_text())["files"]
    digests = {name: entry["sha256"] for name, entry in files.items() if is_model(name)}
    return {"summary": summary, "models": digests, "out": out}


def losses(
    panel: Panel, settings: config.Config, outs: dict[str, pathlib.Path], part: str
) -> dict[str, block_bootstrap.Losses]:
    """For each sector, log-losses of a part's rows by time, of (label, "FAMILY SIDE")."""
    prepared = prepare.prepare(panel, settings)
    loaded = {side: load_models(out) for side, out in outs.items()}
    found = {}
    for sector in next(iter(loaded.values())).by_sector:
        dataset, rows = prepared.datasets[sector], getattr(prepared.splits[sector], part)
        taken = gather(dataset, rows)
        times, at = np.unique(panel.device.to_host(taken.time_ns), return_inverse=True)
        sums = {}
        for side, one in loaded.items():
            for family in settings.training.models:
                by_label = one.by_sector[sector]
                pairs = list(zip(dataset.horizon_of_label, dataset.threshold_of_label, strict=True))
                known = [k for k, pair in enumerate(pairs) if family in by_label.get(pair, {})]
                said = registry.family(family).predict(
                    [by_label[pairs[k]][family] for k in known], taken.X, panel.device
                )
                y, said = panel.device.to_host(taken.y), panel.device.to_host(said)
                for position, k in enumerate(known):
                    loss = metrics.log_losses(said[:, position], y[:, k])
                    sums[dataset.label_names[k], f"{family} {side}"] = np.bincount(at, loss, len(times))
        found[sector] = block_bootstrap.Losses(times, np.bincount(at, minlength=len(times)), sums)
    return found


def compared(found: dict[str, block_bootstrap.Losses], settings: config.Config) -> list[dict[str, Any]]:
    """Of each family and label, and of each family's mean over labels: both log-losses, and their difference."""
    times = np.concatenate([one.times for one in found.values()])
    resampled = block_bootstrap.resample(
        block_bootstrap.draw(times, max(settings.labels.horizons), settings.seed), found
    )
    lines = []
    for family in settings.training.models:
        keys = sorted({label for one in found.values() for label, name in one.sums if name == f"{family} cold"})
        for label, chosen in [*((key, [key]) for key in keys), ("all", keys)]:
            pairs = [(s, key) for s, one in found.items() for key in chosen if (key, f"{family} cold") in one.sums]
            mean, drawn = (
                {side: np.mean([of(s, key, f"{family} {side}") for s, key in pairs], axis=0) for side in SIDES}
                for of in (
                    lambda s, key, name: found[s].sums[key, name].sum() / found[s].rows.sum(),
                    lambda s, key, name: resampled.loss[s, key, name],
                )
            )
            difference = float(mean["warm"] - mean["cold"])
            low, high = resampled.interval(list(found), difference, drawn["warm"] - drawn["cold"])
            lines.append({
                "family": family, "label": label, "cold": float(mean["cold"]), "warm": float(mean["warm"]),
                "difference": difference, "low": low, "high": high,
            })  # fmt: skip
    return lines


def rounds_of(summary: dict[str, Any], family: str) -> dict[str, float]:
    """Median and largest number of rounds of a family's first stages, and the median of those that are old."""
    own = [row for row in summary["models"] if row["model"] == family and row["kind"] == "model"]
    first = [int(row["rounds"].split("+")[0]) for row in own if row["rounds"]]
    old = [int(row["warm_start_rounds"].split("+")[0]) if row["warm_start_rounds"] else 0 for row in own]
    return {"median": statistics.median(first or [0]), "largest": max(first, default=0), "old": statistics.median(old)}


def night(
    panel: Panel, settings: config.Config, source: pathlib.Path, place: pathlib.Path, times: int
) -> tuple[dict[str, Any], pathlib.Path]:  # fmt: skip
    """One night: from nothing and warm in turn; what was found, and the folder of the warm run."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for k in range(times):
        for side in SIDES:
            runs[side].append(train(panel, settings, place / f"{side}{k}", source if side == "warm" else None))
    for side, own in runs.items():
        if any(run["models"] != own[0]["models"] for run in own):
            raise SystemExit(f"repetitions of the {side} run gave different models")
    seconds = {
        side: {
            name: round(statistics.median(run["summary"]["seconds"][name] for run in own), 3)
            for name in settings.training.models
        } | {"whole run": round(statistics.median(run["summary"]["elapsed_s"] for run in own), 3)}
        for side, own in runs.items()
    }  # fmt: skip
    first = {side: own[0] for side, own in runs.items()}
    families = first["warm"]["summary"]["warm_start"]["families"]
    cold = [name for name, one in families.items() if not one["warm"]]
    if cold:
        print(f"note: {', '.join(cold)} began with nothing in the warm run too", flush=True)
    outs = {side: run["out"] for side, run in first.items()}
    return {
        "seconds": seconds,
        "rounds": {side: {f: rounds_of(run["summary"], f) for f in settings.training.models}
                   for side, run in first.items()},
        "warm_models": {name: [one["warm"], one["models"]] for name, one in families.items()},
        **{part: compared(losses(panel, settings, outs, part), settings) for part in ("validation", "test")},
    }, first["warm"]["out"]  # fmt: skip


def show(found: dict[str, Any]) -> None:
    """The tables of a night."""
    print(f"{'':14} {'cold s':>8} {'warm s':>8} {'ratio':>6}   rounds cold, warm (old); largest cold, warm")
    for name, cold_s in found["seconds"]["cold"].items():
        warm_s = found["seconds"]["warm"][name]
        line = f"{name:14} {cold_s:8.2f} {warm_s:8.2f} {cold_s / max(warm_s, 1e-9):6.2f}"
        if name in found["rounds"]["cold"]:
            cold, warm = (found["rounds"][side][name] for side in SIDES)
            line += f"   {cold['median']:g}, {warm['median']:g} ({warm['old']:g}); {cold['largest']}, {warm['largest']}"
        print(line)
    for part in ("validation", "test"):
        print(f"{part:14} {'label':>18} {'cold':>9} {'warm':>9}  warm - cold (95 % interval), in 1/1000 nats")
        for one in found[part]:
            low, high = (1000 * one[name] for name in ("low", "high"))
            print(
                f"{one['family']:14} {one['label']:>18} {one['cold']:9.5f} {one['warm']:9.5f}  "
                f"{1000 * one['difference']:+.3f} ({low:+.3f}, {high:+.3f})"
            )
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--sector-map")
    parser.add_argument("--sectors", default="all")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    parser.add_argument("--models", default=",".join(registry.CAN_GO_ON))
    parser.add_argument("--days", type=int, default=1, help="dates that a night brings")
    parser.add_argument("--nights", type=int, default=1)
    parser.add_argument("--times", type=int, default=3)
    chosen = parser.parse_args(arguments)
    families = tuple(name for name in chosen.models.split(",") if name)
    if "meta_learner" in families:
        raise SystemExit("--models: meta_learner learns from models that are trained from nothing either way")
    settings = config.make(chosen.preset, settings=chosen.set, training__models=families)
    panel, _ = load(chosen.data, chosen.sector_map, chosen.sectors, pick("cpu"))
    dates = np.unique(panel.time_ns)
    found = []
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        first = until(panel, int(dates[-1 - chosen.days * chosen.nights]))
        source = train(first, settings, place / "before", None)["out"]
        for k in reversed(range(chosen.nights)):
            tonight = until(panel, int(dates[-1 - chosen.days * k]))
            one, source = night(tonight, settings, source, place / f"night{chosen.nights - k}", chosen.times)
            print(f"night {chosen.nights - k} of {chosen.nights}", flush=True)
            show(one)
            found.append(one)
    print(json.dumps({
        "benchmark": "warm", "data": os.path.basename(chosen.data), "sectors": chosen.sectors,
        "preset": chosen.preset, "set": chosen.set, "days": chosen.days, "times": chosen.times,
        "rows": panel.n_rows, "nights": found, "cores": cores(), "versions": fingerprint.versions(),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
