"""Seconds of a scan by the number of symbols: in memory, by step, and as a command.

    python -m bench.job.scan --models OUT --data bars.parquet --sector-map sectors.csv [--symbols 50,505] [--times 5]

Models are those of OUT, a finished run. For fewer symbols than the data have, every n-th of each sector is taken; for
more, symbols are taken again, their prices times a random walk of their own (seeded) that leaves a bar's shape as it
is, in the sector of the original symbol. First equality: for the symbols of one sector, the scan of each size gives the
probabilities of `Models.predict` on all their rows, to the last bit. Then the median of --times scans in memory, models
and bars loaded, each followed by writing all signals as Parquet and updating the active signals; the steps are those of
that scan (`Scanned.seconds`). The command reads the bars from a Parquet file, page cache warm; its median is of
--commands runs in a fresh process each. The cores bind: features first, then the trees. The last lines are JSON, one
for each size, which go to --out too; `python -m bench.pictures scan LINES` draws bench/results/scan.svg from them.
"""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile
from typing import Any

import numpy as np

from bench import runs
from bench.timing import timed
from gpupipe.artifacts.load import Models, load
from gpupipe.backtest.calling.registry import DEFAULT
from gpupipe.data.panel import BARS, PRICES, Panel
from gpupipe.serving.active_signals import keep_active
from gpupipe.serving.scan import scan
from gpupipe.serving.signal_table import about, write

NOISE = 0.002  # a day, standard deviation, of what a repeated symbol's prices walk away from the original


def resized(panel: Panel, n_symbols: int, seed: int = 0) -> Panel:
    """A panel of that many symbols, of the sectors of `panel` in its proportions."""
    by_sector = np.argsort(panel.group_of_symbol, kind="stable")
    if n_symbols <= panel.n_symbols:
        chosen = np.zeros(panel.n_symbols, dtype=bool)
        chosen[by_sector[np.linspace(0, panel.n_symbols - 1, n_symbols).round().astype(int)]] = True
        return panel.where(chosen.tolist())
    rng, parts = np.random.default_rng(seed), {}
    for k in range(n_symbols):
        s, copy = k % panel.n_symbols, k // panel.n_symbols
        rows = slice(*panel.offsets[s : s + 2])
        part = {name: getattr(panel, name)[rows] for name in (*BARS, "time_ns")}
        if copy:
            walk = np.exp(np.cumsum(rng.normal(0, NOISE, len(part["close"])))).astype(np.float32)
            part |= {name: part[name] * walk for name in PRICES}
        parts[f"{panel.symbols[s]}~{copy}" if copy else panel.symbols[s]] = part, panel.sector[s]
    names = sorted(parts)
    lengths = [len(parts[name][0]["close"]) for name in names]
    return Panel.of_bars(
        **{column: np.concatenate([parts[name][0][column] for name in names]) for column in (*BARS, "time_ns")},
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), symbols=tuple(names),
        sector=tuple(parts[name][1] for name in names),
    )  # fmt: skip


def check(models: Models, panel: Panel, family: str) -> int:
    """How many probabilities of the smallest sector equal those of all rows together; SystemExit if one does not."""
    part = panel.of_group(min(models.known_groups(panel), key=panel.group.count))
    whole = models.predict(part, [family])
    compared = 0
    for one in scan(models, part, family).signals:
        row = part.offsets[part.symbols.index(one.symbol) + 1] - 1
        if whole.of(f"{family}_{one.label}")[row].tolist() != [one.p_sell, one.p_hold, one.p_buy]:
            raise SystemExit(f"{one.symbol} {one.label}: the scan and all rows together differ; no time is taken")
        compared += 1
    return compared


def measure(models: Models, panel: Panel, family: str, times: int, commands: int) -> runs.Line:
    """One line: medians of the whole scan and of its steps, in seconds; peak memory of the command, in GiB."""
    equal = check(models, panel, family)
    steps: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for k in range(times + 1):  # the first is the warm-up
            scan_s, found = timed(lambda: scan(models, panel, family))

            def keep(found: Any = found, k: int = k) -> None:
                write(pathlib.Path(folder, "signals.parquet"), found, about(models, found, DEFAULT))
                keep_active(str(pathlib.Path(folder, f"{k}.sqlite")), found, panel)

            steps.append({"scan": scan_s, "writing": timed(keep)[0], **found.seconds})
        ran = [command(models, panel, family, pathlib.Path(folder)) for _ in range(commands)]
    return {
        "symbols": panel.n_symbols, "rows": panel.n_rows, "signals": len(found.signals), "equal": equal,
        "families": list(models.families), "times": times,
        "seconds": {name: statistics.median(step[name] for step in steps[1:]) for name in steps[0]},
        "command_s": runs.median(ran, lambda usage: usage.wall_s) if ran else None, "commands": commands,
        "command_peak_gib": max(usage.peak_bytes for usage in ran) / 2**30 if ran else None,
    }  # fmt: skip


def command(models: Models, panel: Panel, family: str, folder: pathlib.Path) -> runs.Run:
    """`gpupipe scan` in a process of its own, from a Parquet file of the bars."""
    import pyarrow.parquet as pq

    bars = folder / "bars.parquet"
    if not bars.exists():
        pq.write_table(panel.to_arrow(), bars)
    return runs.watch([
        sys.executable, "-m", "gpupipe.cli.main", "scan", "--models", str(models.out), "--data", str(bars),
        "--family", family, "--to", str(folder / "s.parquet"), "--active", str(folder / "s.sqlite"), "--quiet",
        "--device", "cpu",
    ])  # fmt: skip


def main() -> int:
    parser = runs.options(__doc__, data="demo", times=5)
    parser.add_argument("--models", default="OUT", help="OUT of a finished run")
    parser.add_argument("--family", default="meta_learner")
    parser.add_argument("--symbols", type=runs.numbers(), default=[50, 505, 2000, 5000, 10000], help="sizes")
    parser.add_argument("--commands", type=int, default=3, help="runs of the command, 0: none (default 3)")
    parser.add_argument("--out", help="JSON lines are added to this file")
    chosen = parser.parse_args()
    panel, _ = runs.read(chosen)
    models = load(chosen.models, threads=1)  # as the command does
    lines = (measure(models, resized(panel, n), chosen.family, chosen.times, chosen.commands) for n in chosen.symbols)
    return runs.report("scan", lines, chosen.out, data=chosen.data)


if __name__ == "__main__":
    sys.exit(main())
