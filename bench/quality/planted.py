"""Is a planted signal found, and none where there is none? `python -m bench.quality.planted [--signals 0,1]`.

Simulated markets without memory, in which nothing can be foretold but by the planted buying pressure of the last bar
(gpupipe/data/simulate.py), which is a function of the shares of the bar's shadows. So the best prediction of a row is
known: the class shares given the pressure. The oracle has them from a table of 20 bins of the pressure itself, learned
on the training rows of all sectors. Strength recovered is a family's gain over the prior in sealed-test log-loss,
averaged over labels, divided by the oracle's.

For every signal and seed a whole job runs, and each family's gain is printed with its 95 % interval. With signal 0 a
family that claims skill is a false positive: counted are families (averaged over labels and sectors), label averages
and single runs, of which 2.5 % are to be expected. The last line is JSON.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from typing import Any

import numpy as np

from bench import runs
from bench.timing import timed
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.data.simulate import LEAN, simulate
from gpupipe.estimators.baselines.class_shares import class_shares, fit_table
from gpupipe.evaluation.block_bootstrap import SKILL
from gpupipe.evaluation.metrics import log_losses
from gpupipe.pipeline import job
from gpupipe.training.prepare import prepare
from gpupipe.workloads import equity

# Volatility is that of stocks, 1.9 % a day: these labels have all classes often enough for a short history.
SETTINGS = ("labels.horizons=1,2,5", "labels.thresholds=0.02,0.04")


def main() -> int:
    parser = runs.options(__doc__, preset="fast")
    parser.add_argument("--signals", type=runs.numbers(float), default=[0.0, 0.5, 1.0])
    parser.add_argument("--seeds", type=runs.numbers(), default=[0, 1, 2], help="of the markets and of training")
    parser.add_argument("--symbols", type=int, default=44)
    parser.add_argument("--bars", type=int, default=750)
    chosen = parser.parse_args()
    lines = []
    for signal, seed in itertools.product(chosen.signals, chosen.seeds):
        settings = equity.make(chosen.preset, settings=SETTINGS, seed=seed)
        panel = simulate(chosen.symbols, chosen.bars, seed=seed, signal=signal, memory=0.0)
        seconds, line = timed(lambda panel=panel, settings=settings: once(panel, settings))
        lines.append({"signal": signal, "seed": seed, **line})
        show(lines[-1], seconds)
    counted = false_positives([line for line in lines if line["signal"] == 0])
    if counted["runs"][1]:
        print("false positives: " + ", ".join(f"{n} of {total} {name}" for name, (n, total) in counted.items()))
    return runs.finish(
        "planted", preset=chosen.preset, symbols=chosen.symbols, bars=chosen.bars, settings=SETTINGS,
        false_positives=counted, lines=lines,
    )  # fmt: skip


def once(panel: Panel, settings: Config) -> dict[str, Any]:
    """One job: the oracle's gain over the prior averaged over labels, and of each family gain, interval and claims."""
    with tempfile.TemporaryDirectory() as out:
        summary, _ = job.execute(equity.EQUITY, panel, None, settings, out)
    oracle = oracle_gain(panel, settings)
    families = {}
    for family in summary["families"]:
        skills = [line["test_skill"] for line in summary["averages"] if line["model"] == family["model"]]
        families[family["model"]] = {
            **{name: round(family[name], 5) for name in ("gain", "gain_low", "gain_high")},
            "strength": round(family["gain"] / oracle, 3), "labels": len(skills),
            "labels_with_skill": skills.count(SKILL),
            **{name: family[name] for name in ("skill", "runs", "with_skill", "above_prior")},
        }  # fmt: skip
    return {"oracle_gain": round(oracle, 5), "rows": panel.n_rows, "families": families}


def oracle_gain(panel: Panel, settings: Config) -> float:
    """The oracle's gain over the prior on the sealed test: mean over labels, of losses averaged over sectors."""
    prepared, target = prepare(equity.EQUITY, panel, settings), equity.EQUITY.target(settings)
    datasets, splits = prepared.datasets, prepared.splits
    pressure, sector = pressure_of(panel), np.array(panel.sector)[panel.symbol_of_row]
    column = {s: pressure[sector == s] for s in datasets}
    train = {s: (column[s][splits[s].train], dataset.y[splits[s].train]) for s, dataset in datasets.items()}
    table = fit_table(*zip(*train.values(), strict=True), target.n_classes)
    losses = []  # (n_sectors, n_labels, 2): of the oracle and of the prior
    for s, dataset in datasets.items():
        y = dataset.y[splits[s].test]
        predictions, priors = table.predict(column[s][splits[s].test]), class_shares(train[s][1], target.n_classes)
        losses.append([
            [log_losses(predictions[:, k], y[:, k]).mean(), log_losses(np.tile(prior, (len(y), 1)), y[:, k]).mean()]
            for k, prior in enumerate(priors)
        ])  # fmt: skip
    oracle, prior = np.mean(losses, axis=0).T
    return float((1 - oracle / prior).mean())


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
