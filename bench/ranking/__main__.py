"""Does a score rank the stocks of a day? Against Qlib's LightGBM on Alpha158 and one-column peers, walk-forward.

    python -m bench.ranking --data bars.parquet --sector-map sectors.csv --qlib PYTHON [--models OUT]

    --qlib PYTHON   an interpreter with pyqlib==0.9.7 and lightgbm (see qlib_lightgbm.py); without it Qlib is left out
    --models OUT    a finished run with --walk-forward of the same data; without it one runs now
    --families      whose scores are judged

Every ranker predicts the test rows of the same folds, after learning from the same rows. Qlib's side is its DatasetH,
its processors and its LGBModel with the parameters of workflow_config_lightgbm_Alpha158.yaml, on our Alpha158 columns,
which equal Qlib's (bench/results/parity-alpha158.txt) but for two differences that features/formulas/alpha158.py names;
it uses all cores where the file says 20 threads. Momentum 12-1, reversal 5 and low volatility learn nothing.

Of our families three scores are judged: `expected`, the expected return of a long trade beyond peers of like
volatility, by which scans and portfolios rank; `net`, P(BUY) - P(SELL), which grows with volatility where BUY and SELL
are not equally frequent; and `side`, ln(P(BUY) / P(SELL)), which does not. A second table compares expected with
realised returns of trades, in tenths of the test rows by expected return.

Printed is the mean over days of Spearman's rank correlation with the close-to-close return of the next 1, 2 and 5 bars,
and (next) of the bar after the next close, which is Qlib's label: in percent, with its 95 % interval by blocks of days,
and the difference from Qlib's, paired. The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from bench import runs
from bench.ranking import qlib_lightgbm
from bench.ranking.rank_ic import interval, rank_ic_by_date
from bench.ranking.rows import PEERS, Rows, rows_of
from gpupipe.artifacts import out_of_sample_store
from gpupipe.backtest.calling.calls import rankings, volatility_of, whole_scores
from gpupipe.backtest.sources import walked
from gpupipe.data.panel import Panel
from gpupipe.evaluation.return_calibration import calibrate
from gpupipe.features.matrix import feature_names
from gpupipe.targets.trade_return import trade_returns
from gpupipe.workloads import equity

HORIZONS = (1, 2, 5)
NEXT = "next"  # the return from the next close to the one after it: what Qlib's side is trained on
QLIB = "Qlib LightGBM"
FEATURES = "features.names=core,sector_rank_*"


def main() -> int:
    parser = runs.options(__doc__, data="demo", preset="fast")
    parser.add_argument("--qlib", metavar="PYTHON")
    parser.add_argument("--models", metavar="OUT", type=pathlib.Path)
    parser.add_argument("--families", default="direction,meta_learner", type=lambda text: text.split(","))
    parser.add_argument("--folds", default=4, type=int)
    chosen = parser.parse_args()
    panel, _ = runs.read(chosen)
    settings = equity.make(chosen.preset, settings=[f"split.walk_forward={chosen.folds}"])
    rows = rows_of(panel, settings, feature_names("alpha158"), HORIZONS)
    test = np.concatenate([fold.test for fold in rows.folds])
    scores = {name: rows.peers[name][test] for name in PEERS}
    about: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if chosen.qlib:
            predictions, about["qlib"] = of_qlib(rows, chosen.qlib, pathlib.Path(folder))
            scores = {QLIB: predictions, **scores}
        out = chosen.models or trained(chosen, pathlib.Path(folder))
        scores |= of_families(out, panel, rows, chosen.families, test)
        expected, calibrated = of_expected_returns(out, panel, rows, chosen.families, test)
        scores |= expected
    lines = [judged(name, score, rows, test, scores.get(QLIB)) for name, score in scores.items()]
    for line in lines:
        show(line)
    for line in calibrated:
        show_calibration(line)
    return runs.finish(
        "ranking", preset=chosen.preset, folds=chosen.folds, rows=len(test),
        days=len(np.unique(rows.time_ns[test])), lines=lines, calibrated=calibrated, **about,
    )  # fmt: skip


def of_qlib(rows: Rows, python: str, folder: pathlib.Path) -> tuple[np.ndarray, dict[str, Any]]:
    """(predictions of the test rows of all folds, versions and rounds) of Qlib's LightGBM in another interpreter."""
    for name in ("X", "label", "time_ns", "symbol"):
        np.save(folder / f"{name}.npy", getattr(rows, name))
    for fold in rows.folds:
        np.savez(folder / f"{fold.name}.npz", train=fold.train, validation=fold.validation, test=fold.test)
    done = subprocess.run(
        [python, str(pathlib.Path(qlib_lightgbm.__file__).resolve()), str(folder)], stdout=subprocess.PIPE,
        stderr=sys.stderr, text=True, check=True, cwd=folder,  # where Qlib leaves its records of experiments
    )  # fmt: skip
    predictions = np.concatenate([np.load(folder / f"{fold.name}.score.npy") for fold in rows.folds])
    return predictions, json.loads(done.stdout.splitlines()[-1])


def trained(chosen: argparse.Namespace, folder: pathlib.Path) -> pathlib.Path:
    """OUT of a walk-forward of the default families and `direction`."""
    models = ",".join((*equity.DEFAULT_MODELS[:-1], "direction", equity.DEFAULT_MODELS[-1]))
    options = ["--sectors", "all", "--walk-forward", str(chosen.folds), "--models", models, f"--set={FEATURES}"]
    return runs.run_job([*runs.job_options(chosen), *options], folder / "OUT").out


def of_families(
    out: pathlib.Path, panel: Panel, rows: Rows, families: list[str], test: np.ndarray
) -> dict[str, np.ndarray]:
    """The two scores of each family's models on the test rows, float64, NaN where a fold has no such model.

    ValueError for an OUT without a walk-forward.
    """
    stored = out_of_sample_store.read(out, json.loads((out / "manifest.json").read_text()))
    if stored is None:
        raise ValueError(f"{out} holds no walk-forward: run again with --walk-forward")
    symbols = [symbol for group in panel.groups for symbol in panel.of_group(group).symbols]
    number = {symbol: k for k, symbol in enumerate(symbols)}
    order = np.lexsort((rows.time_ns, rows.symbol))
    keys = np.stack([rows.symbol[order], rows.time_ns[order]], axis=1)
    starts = np.searchsorted(keys[:, 0], np.arange(len(symbols) + 1))
    scores: dict[str, np.ndarray] = {}
    for table in stored.tables.values():
        symbol = np.array([number[name] for name in table["symbol"].to_pylist()])
        time_ns = table["time"].cast("int64").to_numpy()
        at = np.empty(len(symbol), np.int64)
        for k in np.unique(symbol):
            own = symbol == k
            at[own] = order[starts[k] + np.searchsorted(keys[starts[k] : starts[k + 1], 1], time_ns[own])]
        assert (rows.time_ns[at] == time_ns).all() and (rows.symbol[at] == symbol).all()
        for (family, *parameters), columns in zip(stored.models, stored.columns, strict=True):
            if family not in families:
                continue
            sell, buy = (table[name].to_numpy().astype(np.float64) for name in columns)
            label = f"{family} {parameters[0]}d {parameters[1]:.0%}"
            with np.errstate(divide="ignore", invalid="ignore"):
                for name, score in ((f"{label} net", buy - sell), (f"{label} side", np.log(buy / sell))):
                    scores.setdefault(name, np.full(len(rows.time_ns), np.nan))[at] = score
    return {name: score[test] for name, score in scores.items()}


def of_expected_returns(
    out: pathlib.Path, panel: Panel, rows: Rows, families: list[str], test: np.ndarray
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """The expected returns of each family's models on the test rows, and how they compare with realised returns.

    The scores are float64, NaN where a fold has no such model. A line of the second has the means of each tenth of the
    rows by expected return of a long trade, before costs, with the standard error of their difference.
    """
    stored = out_of_sample_store.read(out, json.loads((out / "manifest.json").read_text()))
    source = walked(stored, panel, families)
    order = np.concatenate([np.flatnonzero(panel.group_of_symbol[panel.symbol_of_row] == g)
                            for g in range(len(panel.groups))])  # fmt: skip
    ranking = rankings(source)[order].astype(np.float64)
    pairs = list(zip(source.horizons, source.thresholds, strict=True))
    gross = trade_returns(panel, *map(list, zip(*pairs, strict=True))).gross[order]
    scores, calibrated, volatility = {}, [], volatility_of(panel)
    for m, (family, (horizon, threshold)) in enumerate(zip(source.families, pairs, strict=True)):
        label = f"{family} {horizon}d {threshold:.0%}"
        scores[f"{label} expected"] = ranking[test, m]
        found = whole_scores(source, m, volatility)
        realised = gross[test, m, 0]
        line = calibrate(
            found.expected[order][test, 0], found.error[order][test, 0], realised, rows.time_ns[test], horizon
        )
        calibrated.append({"name": label, **dataclasses.asdict(line), "worst": line.worst, "rises": line.is_monotone})
    return scores, calibrated


def judged(name: str, score: np.ndarray, rows: Rows, test: np.ndarray, reference: np.ndarray | None) -> dict[str, Any]:
    """Rank IC of a score with the return of each horizon, and its difference from that of the reference: with ends."""
    line: dict[str, Any] = {"name": name}
    returns = {f"{h}d": (rows.forward[h], h) for h in HORIZONS} | {NEXT: (rows.label, 1)}
    for column, (forward_return, horizon) in returns.items():
        times, ic = rank_ic_by_date(score, forward_return[test], rows.time_ns[test])
        line[column] = [round(value, 5) for value in interval(times, ic, horizon)]
        if reference is not None:
            _, other = rank_ic_by_date(reference, forward_return[test], rows.time_ns[test])
            line[f"{column} over Qlib"] = [round(value, 5) for value in interval(times, ic - other, horizon)]
    return line


def show(line: dict[str, Any]) -> None:
    """One line of the table, in percent."""
    parts = [
        f"{name} {100 * mean:5.2f} ({100 * low:.2f}, {100 * high:.2f})"
        for name, (mean, low, high) in ((name, line[name]) for name in line if name != "name")
    ]
    print(line["name"].ljust(32), "  ".join(parts), flush=True)


def show_calibration(line: dict[str, Any]) -> None:
    """Expected and realised returns of the tenths of one model, in percent."""
    parts = [
        f"{100 * expected:.2f}:{100 * realised:.2f}±{100 * error:.2f}"
        for expected, realised, error in zip(line["expected"], line["realised"], line["error"], strict=True)
    ]
    print(line["name"].ljust(24), f"furthest {line['worst']:.1f} errors", " ".join(parts), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
