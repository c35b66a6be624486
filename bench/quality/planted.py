"""Is a planted signal found, and none where there is none? `python -m bench.quality.planted [--signals 0,1]`.

Three kinds of simulated market (`--markets`, gpupipe/data/simulate.py); the signal is the strength of what is planted:

    drift       buying pressure moves the next bar: mostly direction, and some touch
    direction   buying pressure decides the next bar's sign and never its size: direction alone
    volatility  volatility clusters, and shadows tell nothing of the pressure: touch alone, at barriers that one bar
                seldom reaches both of, by which comes first (a row that reaches both, and is a BUY for that, makes BUY
                likelier in volatile times)

The first two have no memory: nothing can be foretold but by the pressure of the last bar, which is a function of the
shares of the bar's shadows. So the best prediction of a row is known: the class shares given the pressure. The oracle
has them from a table of 20 bins of the pressure itself, learned on the training rows of all sectors. Strength recovered
is a family's gain over the prior in sealed-test log-loss, averaged over labels, divided by the oracle's. Volatility has
no such oracle.

For every market, signal and seed a whole job runs, and each family's gain is printed with its 95 % interval, and its
touch and direction parts with theirs. With signal 0 a family that claims skill is a false positive: counted are
families (averaged over labels and sectors), label averages and single runs, of which 2.5 % are to be expected; and so
is skill in the part that is not planted. The last line is JSON.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import runs
from bench.timing import timed
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.data.simulate import LEAN, simulate
from gpupipe.estimators.baselines.class_shares import class_shares, fit_table
from gpupipe.evaluation.block_bootstrap import SKILL
from gpupipe.evaluation.losses import log_loss
from gpupipe.evaluation.touch_direction import DIRECTION, GAINS, PARTS, TOUCH, WHOLE, named, part_gains, touch_losses
from gpupipe.pipeline import job
from gpupipe.training.prepare import prepare
from gpupipe.workloads import equity

# Volatility is that of stocks, 1.9 % a day: these labels have all classes often enough for a short history.
SETTINGS = ("labels.horizons=1,2,5", "labels.thresholds=0.02,0.04")
# By kind of market: how it is simulated with a signal in [0, 1], and the part of the gain that is not planted.
MARKETS: dict[str, tuple[Callable[[float], dict[str, float]], str]] = {
    "drift": (lambda signal: {"signal": signal, "memory": 0.0}, WHOLE),
    "direction": (lambda signal: {"tilt": signal, "memory": 0.0}, TOUCH),
    "volatility": (lambda signal: {"memory": signal, "lean": 0.0}, DIRECTION),
}
MORE_SETTINGS = {"volatility": ("labels.rule=first_touch", "labels.thresholds=0.04,0.05")}


def main() -> int:
    parser = runs.options(__doc__, preset="fast")
    parser.add_argument("--signals", type=runs.numbers(float), default=[0.0, 0.5, 1.0])
    parser.add_argument("--markets", type=lambda text: text.split(","), default=["drift"], help=", ".join(MARKETS))
    parser.add_argument("--seeds", type=runs.numbers(), default=[0, 1, 2], help="of the markets and of training")
    parser.add_argument("--symbols", type=int, default=44)
    parser.add_argument("--bars", type=int, default=750)
    chosen = parser.parse_args()
    lines = []
    for kind, signal, seed in itertools.product(chosen.markets, chosen.signals, chosen.seeds):
        settings = equity.make(chosen.preset, settings=[*SETTINGS, *MORE_SETTINGS.get(kind, ())], seed=seed)
        panel = market(kind, signal, chosen.symbols, chosen.bars, seed)
        seconds, line = timed(lambda panel=panel, settings=settings, kind=kind: once(panel, settings, kind))
        lines.append({"market": kind, "signal": signal, "seed": seed, **line})
        show(lines[-1], seconds)
    counted = false_positives([line for line in lines if line["signal"] == 0])
    if counted["runs"][1]:
        print("false positives: " + ", ".join(f"{n} of {total} {name}" for name, (n, total) in counted.items()))
    not_planted = false_parts(lines)
    if not_planted[1]:
        print(f"skill in a part that is not planted: {not_planted[0]} of {not_planted[1]} families")
    return runs.finish(
        "planted", preset=chosen.preset, symbols=chosen.symbols, bars=chosen.bars, settings=SETTINGS,
        more_settings=MORE_SETTINGS,
        false_positives=counted, false_parts=not_planted, lines=lines,
    )  # fmt: skip


def market(kind: str, signal: float, n_symbols: int, n_bars: int, seed: int) -> Panel:
    """A simulated market of this kind.  signal: in [0, 1], how strong what is planted is."""
    return simulate(n_symbols, n_bars, seed=seed, **MARKETS[kind][0](signal))


def once(panel: Panel, settings: Config, kind: str = "drift") -> dict[str, Any]:
    """One job: gains of the oracle averaged over labels; of each family gains, also by part, intervals and claims."""
    with tempfile.TemporaryDirectory() as out:
        summary, _ = job.execute(equity.EQUITY, panel, None, settings, out)
    oracle = oracle_gains(panel, settings) if kind != "volatility" else None
    families = {}
    for family in summary["families"]:
        averages = [line for line in summary["averages"] if line["model"] == family["model"]]
        measured = ["gain", "gain_low", "gain_high"]
        measured += [f"{part}_{name}" for part in PARTS for name in measured]
        families[family["model"]] = {
            **{name: round(family[name], 5) for name in measured},
            "strength": round(family["gain"] / oracle[WHOLE], 3) if oracle else None, "labels": len(averages),
            "labels_with_skill": sum(line["test_skill"] == SKILL for line in averages),
            **{f"labels_with_{part}_skill": sum(line[f"test_{part}_skill"] == SKILL for line in averages)
               for part in PARTS},
            **{name: family[name] for name in ("skill", *(f"{part}_skill" for part in PARTS))},
            **{name: family[name] for name in ("runs", "with_skill", "above_prior")},
            **deciles_of([line for line in summary["expected_returns"] if line["model"] == family["model"]]),
        }  # fmt: skip
    gains = {GAINS[part]: round(gain, 5) for part, gain in oracle.items()} if oracle else {}
    return {"oracle": gains, "rows": panel.n_rows, "families": families}


def deciles_of(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """How the tenths of the test rows by expected return hold, over the labels and sides of a family.

    deciles_order: the smallest rank correlation of a label's realised returns with the order of its tenths.
    deciles_furthest: the largest difference between expected and realised, in standard errors, by label and side.
    """
    from scipy.stats import spearmanr

    known = [line for line in lines if len(line["realised"]) > 2]
    orders = [spearmanr(np.arange(len(line["realised"])), line["realised"]).statistic for line in known]
    return {
        "deciles_order": round(float(min(orders)), 3) if orders else None,
        "deciles_furthest": [round(line["worst"], 1) for line in lines if line["worst"] is not None],
    }


def oracle_gains(panel: Panel, settings: Config) -> dict[str, float]:
    """The oracle's gain over the prior on the sealed test, and its parts ("touch", "direction").

    Means over labels, of losses averaged over sectors.
    """
    prepared, target = prepare(equity.EQUITY, panel, settings), equity.EQUITY.target(settings)
    datasets, splits = prepared.datasets, prepared.splits
    pressure, sector = pressure_of(panel), np.array(panel.sector)[panel.symbol_of_row]
    column = {s: pressure[sector == s] for s in datasets}
    train = {s: (column[s][splits[s].train], dataset.y[splits[s].train]) for s, dataset in datasets.items()}
    table = fit_table(*zip(*train.values(), strict=True), target.n_classes)
    losses = []  # (n_sectors, n_labels, 4): of the oracle and of the prior, and their touch parts
    for s, dataset in datasets.items():
        y = dataset.y[splits[s].test]
        predictions, priors = table.predict(column[s][splits[s].test]), class_shares(train[s][1], target.n_classes)
        losses.append([
            [loss(of, y[:, k]).mean() for loss in (log_loss, touch_losses)
             for of in (predictions[:, k], np.tile(prior, (len(y), 1)))]
            for k, prior in enumerate(priors)
        ])  # fmt: skip
    by_label = np.mean(losses, axis=0)
    gains = [{WHOLE: 1 - row[0] / row[1], **part_gains(*row)} for row in by_label.tolist()]
    return {part: float(np.mean([gain[part] for gain in gains])) for part in GAINS}


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


def false_parts(lines: list[dict[str, Any]]) -> tuple[int, int]:
    """How many families claim skill in the part that their market does not have, and how many could have."""
    claims = [
        family[f"{part}_skill"] == SKILL
        for line in lines if (part := MARKETS[line["market"]][1])
        for family in line["families"].values()
    ]  # fmt: skip
    return sum(claims), len(claims)


def show(line: dict[str, Any], seconds: float) -> None:
    told = ", ".join(f"{100 * gain:.2f} % {name}" for name, gain in line["oracle"].items())
    print(f"{line['market']}, signal {line['signal']:g}, seed {line['seed']}: {line['rows']:,} rows, {seconds:.0f} s; "
          f"the oracle: {told or 'none'}")  # fmt: skip
    for name, f in line["families"].items():
        strength = f"strength recovered {f['strength']:5.2f}" if line["signal"] and f["strength"] is not None else ""
        print(f"  {name:14s} {_with_interval(f, WHOLE)} {f['skill']:9s} in {f['labels_with_skill']} of {f['labels']} "
              f"labels, {f['with_skill']} of {f['runs']} runs; {strength}", flush=True)  # fmt: skip
        print(f"    deciles      order {f['deciles_order']}, furthest off {f['deciles_furthest']} errors", flush=True)
        for part in PARTS:
            print(f"    {part:12s} {_with_interval(f, part)} {f[f'{part}_skill']:9s} in "
                  f"{f[f'labels_with_{part}_skill']} of {f['labels']} labels", flush=True)  # fmt: skip


def _with_interval(family: dict[str, Any], part: str) -> str:
    gain, low, high = (100 * family[named(part, name)] for name in ("gain", "gain_low", "gain_high"))
    return f"{gain:6.2f} [{low:6.2f}, {high:6.2f}]"


if __name__ == "__main__":
    sys.exit(main())
