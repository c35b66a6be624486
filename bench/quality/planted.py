"""Is a planted signal found, and none where there is none? `python -m bench.quality.planted [--seeds 0,1]
[--signals 0,1]`

Simulated markets without memory, in which nothing can be foretold but by the planted buying pressure of the last bar
(gpupipe/data/simulate.py), which is a function of the shares of the bar's shadows. So the best that can be said of a
row is known: the class shares given the pressure. The oracle has them from a table of 20 bins of the pressure itself,
learned on the training rows of all sectors. Strength recovered is a family's gain over the prior in sealed-test
log-loss, averaged over labels, divided by the oracle's.

For every signal and seed a whole job runs, and each family's gain is printed with its 95 % interval. With signal 0 a
family that claims skill is a false positive: counted are families (averaged over labels and sectors), label averages
and single runs, of which 2.5 % are to be expected. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.data.panel import Panel
from gpupipe.data.simulate import LEAN, simulate
from gpupipe.estimators.baselines import share_table
from gpupipe.evaluation import metrics
from gpupipe.evaluation.block_bootstrap import PRIOR, SKILL
from gpupipe.pipeline import job
from gpupipe.store import fingerprint
from gpupipe.targets.classes import N_CLASSES
from gpupipe.training import prepare

# Volatility is that of stocks, 1.9 % a day: these labels have all classes often enough for a short history.
SETTINGS = ("labels.horizons=1,2,5", "labels.thresholds=0.02,0.04")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", default="0,0.5,1")
    parser.add_argument("--seeds", default="0,1,2", help="of the markets and of training, for each signal")
    parser.add_argument("--symbols", type=int, default=44)
    parser.add_argument("--bars", type=int, default=750)
    parser.add_argument("--preset", default="fast")
    chosen = parser.parse_args()
    lines = []
    for signal in map(float, chosen.signals.split(",")):
        for seed in map(int, chosen.seeds.split(",")):
            settings = config.make(chosen.preset, settings=SETTINGS, seed=seed)
            panel = simulate(chosen.symbols, chosen.bars, seed=seed, signal=signal, memory=0.0)
            began = time.perf_counter()
            lines.append({"signal": signal, "seed": seed, **once(panel, settings)})
            show(lines[-1], time.perf_counter() - began)
    counted = false_positives([line for line in lines if line["signal"] == 0])
    if counted["runs"][1]:
        print("false positives: " + ", ".join(f"{n} of {of} {name}" for name, (n, of) in counted.items()))
    print(json.dumps({
        "benchmark": "planted", "preset": chosen.preset, "symbols": chosen.symbols, "bars": chosen.bars,
        "settings": SETTINGS, "versions": fingerprint.versions(), "false_positives": counted, "lines": lines,
    }))  # fmt: skip
    return 0


def once(panel: Panel, settings: config.Config) -> dict[str, Any]:
    """One job: the oracle's gain over the prior averaged over labels, and of each family gain, interval and claims."""
    with tempfile.TemporaryDirectory() as out:
        whole, _ = job.execute(panel, None, settings, out)
    oracle = float(np.mean(list(oracle_gains(panel, settings).values())))
    found = {}
    for family in whole["families"]:
        means = [a for a in whole["averages"] if a["model"] == family["model"]]
        found[family["model"]] = {
            **{name: round(family[name], 5) for name in ("gain", "gain_low", "gain_high")},
            "skill": family["skill"],
            "strength": round(family["gain"] / oracle, 3),
            "labels": len(means),
            "labels_with_skill": sum(a["test_skill"] == SKILL for a in means),
            **{name: family[name] for name in ("runs", "with_skill", "above_prior")},
        }
    return {"oracle_gain": round(oracle, 5), "rows": panel.n_rows, "families": found}


def oracle_gains(panel: Panel, settings: config.Config) -> dict[str, float]:
    """The oracle's gain over the prior on the sealed test by label, averaged over sectors as the summary does."""
    prepared = prepare.prepare(panel, settings)
    pressure = pressure_of(panel)
    sector = np.array(panel.sector)[panel.symbol_of_row]
    column = {s: pressure[sector == s] for s in prepared.datasets}
    cut = prepared.splits
    table = share_table.fit(
        [column[s][cut[s].train] for s in column], [prepared.datasets[s].y[cut[s].train] for s in column]
    )
    losses: dict[str, dict[str, list[float]]] = {}
    for s, dataset in prepared.datasets.items():
        said = table.predict(column[s][cut[s].test])
        for k, label in enumerate(dataset.label_names):
            y = dataset.y[cut[s].test, k]
            counts = np.bincount(dataset.y[cut[s].train, k], minlength=N_CLASSES) + 0.5
            prior = np.broadcast_to(counts / counts.sum(), (len(y), N_CLASSES))
            own = losses.setdefault(label, {"oracle": [], PRIOR: []})
            own["oracle"].append(metrics.log_losses(said[:, k], y).mean())
            own[PRIOR].append(metrics.log_losses(prior, y).mean())
    return {label: 1 - float(np.mean(own["oracle"]) / np.mean(own[PRIOR])) for label, own in losses.items()}


def pressure_of(panel: Panel) -> np.ndarray:
    """tanh(u), float32 (n_rows,), of the simulated buying pressure u, from the shares of each bar's shadows."""
    low, high, open_, close = (np.log(getattr(panel, c).astype(np.float64)) for c in ("low", "high", "open", "close"))
    lower, upper = np.minimum(open_, close) - low, high - np.maximum(open_, close)
    return ((2 * lower / (lower + upper) - 1) / LEAN).astype(np.float32)


def false_positives(lines: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """How often skill is claimed, and how often it could have been."""
    families = [family for line in lines for family in line["families"].values()]
    return {
        "families": (sum(f["skill"] == SKILL for f in families), len(families)),
        "label averages": (sum(f["labels_with_skill"] for f in families), sum(f["labels"] for f in families)),
        "runs": (sum(f["with_skill"] for f in families), sum(f["runs"] for f in families)),
    }


def show(line: dict[str, Any], seconds: float) -> None:
    print(f"signal {line['signal']:g}, seed {line['seed']}: {line['rows']:,} rows, {seconds:.0f} s; "
          f"the oracle gains {100 * line['oracle_gain']:.2f} %")  # fmt: skip
    for name, f in line["families"].items():
        between = f"{100 * f['gain']:6.2f} [{100 * f['gain_low']:6.2f}, {100 * f['gain_high']:6.2f}]"
        strength = f"strength recovered {f['strength']:5.2f}" if line["signal"] else ""
        print(f"  {name:14s} {between} {f['skill']:9s} in {f['labels_with_skill']} of {f['labels']} labels, "
              f"{f['with_skill']} of {f['runs']} runs; {strength}", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
