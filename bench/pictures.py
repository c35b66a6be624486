"""The pictures of the README: `python -m bench.pictures [kernels|scan|predecessor] [LINES.jsonl] [--out FILE.svg]`.

LINES are JSON lines of the benchmark's --out; without them, and without --out, those in bench/results.

    kernels       bench.kernels.comparison: values a second of ours and of the peers, the cost of labels by horizon, and
                  the size ladder (`--ladder`) if there is one. Of the same comparison the last line counts
    scan          bench.job.scan: seconds by the number of symbols, by step
    predecessor   bench.predecessor.comparison, the newest result: the time of the job at each step from the
                  predecessor's way to ours, and where the predecessor spends it

Needs matplotlib (the extra `bench`).
"""

from __future__ import annotations

import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench import runs
from bench.runs import Line

OURS, PEER, TEXT, GRID = "#0b62a4", "#8c9196", "#1f2328", "#dfe3e8"
TASK_COLORS = ("#0b62a4", "#c2571a", "#2c7a4b", "#7a4fa3")  # lines of the ladder, steps of a scan


def main(arguments: list[str] | None = None) -> int:
    parser = runs.options(__doc__)
    parser.add_argument("what", nargs="?", default="kernels", choices=list(PICTURES))
    parser.add_argument("lines", nargs="?", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    chosen = parser.parse_args(arguments)
    draw, pattern, target = PICTURES[chosen.what]
    path = chosen.lines or max(runs.RESULTS.glob(pattern))
    draw([json.loads(line) for line in path.read_text().splitlines()], chosen.out or runs.RESULTS / target)
    return 0


def pyplot() -> Any:
    """matplotlib.pyplot without a screen, in the style of all pictures; the ground is white on a dark page too."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {
        "font.size": 9.5, "font.family": "DejaVu Sans", "text.color": TEXT, "axes.labelcolor": TEXT,
        "axes.edgecolor": GRID, "xtick.color": TEXT, "ytick.color": TEXT, "svg.hashsalt": "gpupipe",
        "hatch.linewidth": 0.6, "figure.facecolor": "white",
    }  # fmt: skip
    return plt


def title(figure: Any, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold", linespacing=1.5)


def save(figure: Any, target: pathlib.Path) -> None:
    figure.savefig(target, dpi=130, metadata={"Date": None} if target.suffix == ".svg" else None)
    print(f"{target}: {target.stat().st_size / 1024:.0f} KiB")


def plain(axis: Any, lines: str) -> None:
    """Only thin lines across the named axes ("x", "y"), behind the data."""
    for name in lines:
        axis.grid(True, axis=name, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(which="both", length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def short_numbers(*axes: Any) -> None:
    """Marks of logarithmic axes as 12 k or 1.9 bn."""
    for axis in axes:
        axis.set_major_formatter(lambda value, _: in_words(value))
        axis.set_minor_formatter(lambda value, _: "")


def curves(axis: Any, lines: Sequence[tuple[str, Any, Any, str, bool]], name: str, **labels: Any) -> None:
    """Lines (label, x, y, colour, whether dashed), with a legend on the right."""
    for label, x, y, color, dashed in lines:
        axis.plot(x, y, "o--" if dashed else "o-", color=color, markersize=4.5, linewidth=1.4 if dashed else 2.0,
                  markerfacecolor="white" if dashed else color, label=label)  # fmt: skip
    axis.set(**labels)
    axis.set_title(name, loc="left", fontsize=10.5)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8.5, handlelength=2.6)
    short_numbers(axis.xaxis, axis.yaxis)
    plain(axis, "xy")


class Bar(NamedTuple):
    """A horizontal bar: words stand at its end. value None: a heading.  hollow: hatched in its colour."""

    name: str
    value: float | None = None
    words: str = ""
    ours: bool = False
    hollow: bool = False


def bars(axis: Any, rows: Sequence[Bar]) -> None:
    """Bars from the top down."""
    for k, bar in enumerate(rows):
        color, ink = (OURS, OURS) if bar.ours else (PEER, TEXT)
        axis.text(-0.01, k, bar.name, transform=axis.get_yaxis_transform(), ha="right", va="center", color=ink,
                  fontweight="bold" if bar.value is None else "normal")  # fmt: skip
        if bar.value is not None:
            axis.barh(k, bar.value, height=0.62, color="white" if bar.hollow else color, edgecolor=color, linewidth=1.0,
                      hatch="////" if bar.hollow else None)  # fmt: skip
            text = axis.text(bar.value, k, f"  {bar.words}", va="center", ha="left", color=ink, fontsize=9)
            text.set_in_layout(False)  # the limits leave room for it
    axis.set(ylim=(len(rows) - 0.4, -0.6), yticks=[])
    plain(axis, "x")


def draw_kernels(lines: list[Line], target: pathlib.Path) -> None:
    """Bars of values a second, ours and the peers', and below them the size ladder and the horizons."""
    lines = [line for line in lines if "values_per_s" in line and "data" in line]
    compared = [line for line in lines if line["data"] != "simulated" and "horizon" not in line]
    horizons = [line for line in lines if "horizon" in line]
    ladder = [line for line in lines if line["data"] == "simulated"]
    if not compared:
        raise SystemExit("there is no comparison to draw: give lines of `bench.kernels.comparison --out LINES.jsonl`")
    plt, rows = pyplot(), rows_of(compared)
    below = [(some, draw) for some, draw in ((ladder, draw_ladder), (horizons, draw_horizons)) if some]
    heights = [0.24 * len(rows) + 0.9] + [3.2] * len(below)
    figure = plt.figure(figsize=(8.3, sum(heights) + 0.6), layout="constrained")
    first = compared[-1]
    title(figure, f"gpupipe and its peers, values per second\n{first['rows']:,} rows of {first['symbols']} symbols; "
          f"{first['device']}, {first['cores']} cores; {first['date']}")  # fmt: skip
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    axis, rates = parts[0].subplots(), [row.value for row in rows if row.value]
    bars(axis, rows)
    axis.set(xscale="log", xlim=(min(rates) / 2, max(rates) * 60))
    axis.set_xlabel("values per second, logarithmic; hatched: of another definition")
    short_numbers(axis.xaxis)
    for part, (some, draw) in zip(parts[1:], below, strict=True):
        draw(part.subplots(), some)
    save(figure, target)


def rows_of(lines: list[Line]) -> list[Bar]:
    """A heading for each task, then ours and its peers, the fastest first."""
    rows: list[Bar] = []
    for what in dict.fromkeys(line["what"] for line in lines):
        by_peer = {line.get("peer"): line for line in lines if line["what"] == what}
        # Ours as it was in turn with the fastest peer that has the same values.
        ours = min(by_peer.values(), key=lambda line: line["peer_seconds"] if line.get("equal") else math.inf)
        rates = {"gpupipe": ours["values_per_s"]}
        if "transfer_in_seconds" in ours:
            whole = ours["seconds"] + ours["transfer_in_seconds"] + ours["transfer_out_seconds"]
            rates["gpupipe, with transfers in and out"] = ours["values_per_s"] * ours["seconds"] / whole
        rows.append(Bar(what))
        rows += [Bar(name, rate, f"{in_words(rate)}/s", ours=True) for name, rate in rates.items()]
        peers = {name: line for name, line in by_peer.items() if "ratio" in line}
        for name, line in sorted(peers.items(), key=lambda item: -item[1]["values_per_s"] / item[1]["ratio"]):
            rate, ratio = line["values_per_s"] / line["ratio"], line["ratio"]
            words = f"{in_words(rate)}/s   {ratio:,.{1 if ratio < 10 else 0}f} × our time"
            rows.append(Bar(name, rate, words, hollow=not line["equal"]))
    return rows


def in_words(number: float) -> str:
    """A number in short: 1.9 bn, 383 M, 12 k."""
    for size, word in ((1e9, " bn"), (1e6, " M"), (1e3, " k"), (1, "")):
        if number >= size:
            return f"{number / size:.{1 if number < 9.95 * size else 0}f}".removesuffix(".0") + word
    return f"{number:.2g}"


def draw_ladder(axis: Any, lines: list[Line]) -> None:
    """Rate over size, ours solid, the fastest peer that has the same values dashed."""
    drawn = []
    for color, what in zip(TASK_COLORS, dict.fromkeys(line["what"] for line in lines), strict=False):
        ours: dict[int, float] = {}
        theirs: dict[int, float] = {}
        task_lines = [line for line in lines if line["what"] == what]
        for line in task_lines:
            rate, n_rows = line["values_per_s"], line["rows"]
            if "ratio" not in line:
                ours[n_rows] = rate
            elif rate / line["ratio"] > theirs.get(n_rows, 0.0):  # ours as it was in turn with the fastest peer
                ours[n_rows], theirs[n_rows] = rate, rate / line["ratio"]
        peers = " and ".join(sorted({line["peer"].split()[0] for line in task_lines if "peer" in line}))
        for rates, dashed, label in ((ours, False, what), (theirs, True, f"{peers}, the fastest")):
            if rates:
                drawn.append((label, sorted(rates), [rates[n] for n in sorted(rates)], color, dashed))
    curves(axis, drawn, "By size: gpupipe solid, the fastest peer dashed", xscale="log", yscale="log",
           xlabel="rows of a simulated market, logarithmic", ylabel="values per second, logarithmic")  # fmt: skip


def draw_horizons(axis: Any, lines: list[Line]) -> None:
    """Nanoseconds a row over the horizon of the labels."""
    drawn = []
    for color, what in zip(TASK_COLORS, dict.fromkeys(line["what"] for line in lines), strict=False):
        cost = {line["horizon"]: 1e9 / line["rows_per_s"] for line in lines if line["what"] == what}
        drawn.append((what, list(cost), list(cost.values()), color, False))
    curves(axis, drawn, "Labels by horizon: nanoseconds a row", xscale="log", xlabel="horizon, bars, logarithmic",
           ylabel="nanoseconds", ylim=(0, None))  # fmt: skip


def draw_scan(lines: list[Line], target: pathlib.Path) -> None:
    """Seconds by symbols: the command, the scan in memory, and its steps."""
    lines = sorted(lines, key=lambda line: line["symbols"])
    symbols = [line["symbols"] for line in lines]
    steps = [
        {"features": line["seconds"]["features"], "all families": sum(line["seconds"][f] for f in line["families"]),
         "signals": line["seconds"]["signals"], "writing": line["seconds"]["writing"]}
        for line in lines
    ]  # fmt: skip
    drawn = [("in memory, without writing", symbols, [line["seconds"]["scan"] for line in lines], TEXT, False)]
    if all(line["command_s"] for line in lines):
        drawn.insert(0, ("the command", symbols, [line["command_s"] for line in lines], PEER, False))
    drawn += [(name, symbols, [step[name] for step in steps], color, True)
              for name, color in zip(steps[0], TASK_COLORS, strict=True)]  # fmt: skip
    figure, axis = pyplot().subplots(figsize=(8.2, 4.2), layout="constrained")
    curves(axis, drawn, "A scan by the number of symbols: all models of all sectors", xscale="log", yscale="log",
           xlabel="symbols, logarithmic", ylabel="seconds, logarithmic")  # fmt: skip
    axis.set_xticks(symbols, [f"{n:,}" for n in symbols])
    axis.minorticks_off()
    save(figure, target)


def duration(seconds: float) -> str:
    """A time in short: 23.9 h, 14 min, 42 s."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{1 if seconds < 99.5 * size else 0}f} {unit}"
    return f"{seconds:.{1 if seconds < 10 else 0}f} s"


def draw_predecessor(lines: list[Line], target: pathlib.Path) -> None:
    """The steps on a logarithmic axis, extrapolated ones hatched; below, the predecessor's stages as shares."""
    results = [line for line in lines if line.get("kind") == "result"]
    if not results:
        raise SystemExit("there is no result to draw: give lines of `bench.predecessor.comparison --out LINES.jsonl`")
    result = results[-1]
    stages = sorted(result["stages"].items(), key=lambda item: -item[1])
    heights = (0.34 * len(result["steps"]) + 0.9, 0.24 * len(stages) + 0.9)
    size = (8.3, sum(heights) + 0.6)
    figure, (steps, shares) = pyplot().subplots(2, 1, figsize=size, height_ratios=heights, layout="constrained")
    n = len(result["sectors"])
    headline = "fewer trees than it has, no measurement"
    if result["ratio"]:
        headline = f"{result['ratio']:.0f} times faster{' (extrapolated)' * result['extrapolated']}"
    title(figure, f"The predecessor's way and ours: {headline}\n{result['rows']:,} rows, {n} sector{'s' * (n > 1)}, "
          f"preset {result['preset']}; {result['cores']} cores; {result['date']}")  # fmt: skip
    bars(steps, [
        Bar(step["step"], step["seconds"], duration(step["seconds"]), k > 2, "extrapolated" in step["basis"])
        for k, step in enumerate(result["steps"])
    ])  # fmt: skip
    steps.set(xscale="log", xlabel="time of the whole job, logarithmic; hatched: extrapolated")
    lowest, highest = (extreme(step["seconds"] for step in result["steps"]) for extreme in (min, max))
    steps.set_xlim(lowest / 2, highest * 6)
    marks = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36_000: "10 h", 360_000: "100 h"}
    inside = {float(mark): text for mark, text in marks.items() if lowest / 2 <= mark <= highest * 6}
    steps.set_xticks(list(inside), list(inside.values()), minor=False)
    steps.minorticks_off()
    whole = sum(result["stages"].values())
    bars(shares, [Bar(name, 100 * value / whole, f"{100 * value / whole:.1f} %") for name, value in stages])
    shares.set(xlim=(0, 115 * stages[0][1] / whole), xlabel="share of the predecessor's time, percent")
    save(figure, target)


PICTURES = {
    "kernels": (draw_kernels, "kernels-*.jsonl", "kernels.svg"),
    "scan": (draw_scan, "scan-*.jsonl", "scan.svg"),
    "predecessor": (draw_predecessor, "old-way-*.jsonl", "old-way.svg"),
}

if __name__ == "__main__":
    sys.exit(main())
