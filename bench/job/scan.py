"""What a scan takes by the number of symbols: in memory, by step, and as a command.

    python -m bench.job.scan --models OUT --data bars.parquet --sector-map sectors.csv [--symbols 50,505,...]
    [--times 5]

Models are those of OUT, a finished run. For fewer symbols than the data have, every n-th of each sector is taken; for
more, symbols are taken again, their prices times a random walk of their own (seeded) that leaves a bar's shape as it
is, in the sector of the symbol they were made from. First equality: the scan of each size says of the symbols of one
sector what `Models.predict` says of all their rows, to the last bit. Then the median of --times scans in memory,
models and bars loaded, each followed by writing all signals as Parquet and keeping active_signals; the
steps are those of that scan (`Scanned.seconds`). The command reads the bars from a Parquet file, page cache warm; its
median is of --commands runs in a fresh process each. One JSON line a size goes to --out too, from which
`python -m bench.job.scan --draw LINES.jsonl` draws bench/results/scan.svg; the last line is JSON of all sizes.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from bench.timing import cores
from gpupipe.artifacts.load import Models, load
from gpupipe.backtest.cutoffs import F1
from gpupipe.cli.scan import about, write
from gpupipe.data import read
from gpupipe.data.panel import COLUMNS, Panel
from gpupipe.runtime.device import pick
from gpupipe.serving.scan import keep_active, scan

RESULTS = pathlib.Path(__file__).parents[1] / "results"
SIZES = "50,505,2000,5000,10000"
NOISE = 0.002  # a day, standard deviation, of what a repeated symbol's prices walk away from the original
COLORS = {"features": "#0b62a4", "all families": "#c2571a", "signals": "#2c7a4b", "writing": "#7a4fa3"}


def resized(panel: Panel, n_symbols: int, seed: int = 0) -> Panel:
    """A panel of that many symbols, of the sectors of `panel` in its proportions."""
    by_sector = np.argsort(panel.sector_of_symbol, kind="stable")
    if n_symbols <= panel.n_symbols:
        chosen = np.zeros(panel.n_symbols, dtype=bool)
        chosen[by_sector[np.linspace(0, panel.n_symbols - 1, n_symbols).round().astype(int)]] = True
        return panel.where(chosen.tolist())
    rng = np.random.default_rng(seed)
    offsets, source = panel.offsets, np.arange(n_symbols) % panel.n_symbols
    lengths = np.diff(offsets)[source]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    made = {name: np.empty(starts[-1], getattr(panel, name).dtype) for name in (*COLUMNS, "time_ns")}
    for k, s in enumerate(source):
        rows, into = slice(offsets[s], offsets[s + 1]), slice(starts[k], starts[k + 1])
        walk = np.exp(np.cumsum(rng.normal(0, NOISE, lengths[k]))) if k >= panel.n_symbols else np.ones(lengths[k])
        for name, column in made.items():
            own = getattr(panel, name)[rows]
            column[into] = own * walk.astype(np.float32) if name in ("open", "high", "low", "close") else own
    names = [f"{panel.symbols[s]}~{k // panel.n_symbols}" if k >= panel.n_symbols else panel.symbols[s]
             for k, s in enumerate(source)]  # fmt: skip
    order = np.argsort(names, kind="stable")
    rows = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in order])
    return Panel(
        **{name: column[rows] for name, column in made.items()},
        offsets=np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64),
        symbols=tuple(names[k] for k in order), sector=tuple(panel.sector[source[k]] for k in order),
    )  # fmt: skip


def check(models: Models, panel: Panel, family: str) -> int:
    """How many probabilities of the smallest sector equal those of all rows together; SystemExit if one does not."""
    known = [sector for sector in panel.sectors if sector in models.by_sector]
    part = panel.of_sector(min(known, key=panel.sector.count))
    whole = models.predict(part, [family])
    compared = 0
    for one in scan(models, part, family).signals:
        row = part.offsets[part.symbols.index(one.symbol) + 1] - 1
        if whole.of(f"{family}_{one.label}")[row].tolist() != [one.p_sell, one.p_hold, one.p_buy]:
            raise SystemExit(f"{one.symbol} {one.label}: the scan and all rows together differ; no time is taken")
        compared += 1
    return compared


def measure(models: Models, panel: Panel, family: str, times: int, commands: int, device: Any) -> dict[str, Any]:
    """One line: medians of the whole scan and of its steps, in seconds; peak memory of the command, in GiB."""
    equal = check(models, panel, family)
    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for k in range(times + 1):  # the first is the warm-up
            device.sync()
            began = time.perf_counter()
            found = scan(models, panel, family)
            scanned = time.perf_counter()
            write(pathlib.Path(folder) / "signals.parquet", found, about(models, found, F1))
            keep_active(str(pathlib.Path(folder) / f"{k}.sqlite"), found, panel)
            runs.append({"scan": scanned - began, "writing": time.perf_counter() - scanned, **found.seconds})
        took, peak = command(models, panel, family, commands, folder) if commands else ([], None)
    return {
        "symbols": panel.n_symbols, "rows": panel.n_rows, "signals": len(found.signals), "equal": equal,
        "families": list(models.families), "times": times,
        "seconds": {name: statistics.median(run[name] for run in runs[1:]) for name in runs[0]},
        "command_s": statistics.median(took) if took else None, "commands": commands, "command_peak_gib": peak,
    }  # fmt: skip


def command(models: Models, panel: Panel, family: str, times: int, folder: str) -> tuple[list[float], float]:
    """Seconds of each `gpupipe scan` in a process of its own, and the largest peak of their memory in GiB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    symbol = panel.symbol_of_row
    table = pa.table({
        "symbol": pa.DictionaryArray.from_arrays(pa.array(symbol.astype(np.int32)), pa.array(panel.symbols)),
        "sector": pa.DictionaryArray.from_arrays(
            pa.array(panel.sector_of_symbol[symbol].astype(np.int32)), pa.array(panel.sectors)),
        "timestamp": pa.array(panel.time_ns).cast(pa.timestamp("ns", "UTC")),
        **{name: pa.array(getattr(panel, name)) for name in COLUMNS},
    })  # fmt: skip
    bars = str(pathlib.Path(folder) / "bars.parquet")
    pq.write_table(table, bars)
    del table
    line = [sys.executable, "-m", "gpupipe.cli.main", "scan", "--models", str(models.out), "--data", bars,
            "--family", family, "--to", str(pathlib.Path(folder) / "s.parquet"),
            "--active", str(pathlib.Path(folder) / "s.sqlite"),
            "--quiet", "--device", "cpu"]  # fmt: skip
    took = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(line, check=True)
        took.append(time.perf_counter() - began)
    return took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def draw(lines: list[dict[str, Any]], path: str) -> None:
    """Seconds by symbols: the command, the scan in memory, and its steps."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    lines = sorted(lines, key=lambda line: line["symbols"])
    symbols = [line["symbols"] for line in lines]
    families = [sum(line["seconds"][name] for name in line["families"]) for line in lines]
    curves = {
        "the command": [line["command_s"] for line in lines],
        "in memory, without writing": [line["seconds"]["scan"] for line in lines],
        "features": [line["seconds"]["features"] for line in lines], "all families": families,
        "signals": [line["seconds"]["signals"] for line in lines],
        "writing": [line["seconds"]["writing"] for line in lines],
    }  # fmt: skip
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9.5, "svg.hashsalt": "gpupipe"})
    figure, axis = plt.subplots(figsize=(8.2, 4.2), layout="constrained")
    for name, seconds in curves.items():
        if None in seconds:
            continue
        whole = name not in COLORS
        color = COLORS.get(name, "#1f2328" if name.startswith("in") else "#8c9196")
        axis.plot(symbols, seconds, "o-" if whole else "o--", color=color, markersize=4.5,
                  linewidth=2.2 if whole else 1.3, markerfacecolor=color if whole else "white", label=name)  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="symbols, logarithmic", ylabel="seconds, logarithmic")
    axis.set_xticks(symbols, [f"{n:,}" for n in symbols])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_title("A scan by the number of symbols: all models of all sectors", loc="left", fontsize=10.5)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8.5)
    axis.yaxis.grid(True, color="#dfe3e8", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="OUT", help="OUT of a finished run")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--sector-map")
    parser.add_argument("--family", default="meta_learner")
    parser.add_argument("--symbols", default=SIZES, help=f"sizes (default {SIZES})")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--commands", type=int, default=3, help="runs of the command, 0: none (default 3)")
    parser.add_argument("--out", help="JSON lines are added to this file")
    parser.add_argument("--draw", metavar="LINES", help="draw these lines and measure nothing")
    parser.add_argument("--svg", default=str(RESULTS / "scan.svg"))
    chosen = parser.parse_args()
    if chosen.draw:
        draw([json.loads(line) for line in pathlib.Path(chosen.draw).read_text().splitlines()], chosen.svg)
        return
    device = pick("cpu")
    panel = read(chosen.data, sector_map=chosen.sector_map, device=device)
    models = load(chosen.models, threads=1)  # as the command does
    lines = []
    for n_symbols in map(int, chosen.symbols.split(",")):
        line = {"bench": "scan", "data": chosen.data, "cores": cores()}
        line |= measure(models, resized(panel, n_symbols), chosen.family, chosen.times, chosen.commands, device)
        lines.append(line)
        steps = ", ".join(f"{name} {seconds:.3f}" for name, seconds in line["seconds"].items())
        as_command = ""
        if line["command_s"]:
            as_command = f"; the command {line['command_s']:.2f} s, {line['command_peak_gib']:.2f} GiB"
        print(f"{n_symbols:,} symbols, {line['rows']:,} rows: {steps} s{as_command}", flush=True)
        if chosen.out:
            with open(chosen.out, "a") as file:
                file.write(json.dumps(line) + "\n")
    print(json.dumps({"bench": "scan", "sizes": lines}))


if __name__ == "__main__":
    main()
