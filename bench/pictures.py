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
from typing import Any

from bench import runs
from bench.runs import Line

OURS, PEER, TEXT, GRID = "#0b62a4", "#8c9196", "#1f2328", "#dfe3e8"
OF_TASKS = ("#0b62a4", "#c2571a", "#2c7a4b", "#7a4fa3")  # lines of the ladder, steps of a scan
LEGEND = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False, "fontsize": 8.5, "handlelength": 2.6}


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


def draw_kernels(lines: list[Line], target: pathlib.Path) -> None:
    """Dots of values a second, ours and the peers', and below them the size ladder and the horizons."""
    lines = [line for line in lines if "values_per_s" in line and "data" in line]
    compared = [line for line in lines if line["data"] != "simulated" and "horizon" not in line]
    horizons = [line for line in lines if "horizon" in line]
    ladder = [line for line in lines if line["data"] == "simulated"]
    if not compared:
        raise SystemExit("there is no comparison to draw: give lines of `bench.kernels.comparison --out LINES.jsonl`")
    plt, rows = pyplot(), rows_of(compared)
    below = [(own, draw) for own, draw in ((ladder, draw_ladder), (horizons, draw_horizons)) if own]
    heights = [0.24 * len(rows) + 0.9] + [3.2] * len(below)
    figure = plt.figure(figsize=(8.3, sum(heights) + 0.6), layout="constrained")
    first = compared[-1]
    title(figure, f"gpupipe and its peers, values per second\n{first['rows']:,} rows of {first['symbols']} symbols; "
          f"{first['device']}, {first['cores']} cores; {first['date']}")  # fmt: skip
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    draw_comparisons(parts[0].subplots(), rows)
    for part, (own, draw) in zip(parts[1:], below, strict=True):
        draw(part.subplots(), own)
    save(figure, target)


def rows_of(lines: list[Line]) -> list[Line]:
    """Rows of the picture from the top down: a heading for each task, then ours and its peers, the fastest first."""
    rows: list[Line] = []
    for what in dict.fromkeys(line["what"] for line in lines):
        of_task = {line.get("peer"): line for line in lines if line["what"] == what}
        # Ours as it was in turn with the fastest peer that says the same.
        ours = min(of_task.values(), key=lambda line: line["peer_seconds"] if line.get("equal") else math.inf)
        n_values = ours["values_per_s"] * ours["seconds"]
        rows.append({"heading": what})
        rows.append({"name": "gpupipe", "rate": ours["values_per_s"], "ours": True})
        if "transfer_in_seconds" in ours:
            whole = ours["seconds"] + ours["transfer_in_seconds"] + ours["transfer_out_seconds"]
            rows.append({"name": "gpupipe, with transfers in and out", "rate": n_values / whole, "ours": True})
        peers = [
            {
                "name": line["peer"] + ("" if line["equal"] else " (another definition)"),
                "rate": line["values_per_s"] / line["ratio"], "ratio": line["ratio"], "equal": line["equal"],
            }
            for line in of_task.values()
            if "ratio" in line
        ]  # fmt: skip
        rows += sorted(peers, key=lambda peer: -peer["rate"])
    return rows


def in_words(number: float) -> str:
    """A number in short: 1.9 bn, 383 M, 12 k."""
    for size, unit in ((1e9, " bn"), (1e6, " M"), (1e3, " k"), (1, "")):
        if number >= size:
            return f"{number / size:.{1 if number < 9.95 * size else 0}f}".removesuffix(".0") + unit
    return f"{number:.2g}"


def draw_comparisons(axis: Any, rows: list[Line]) -> None:
    """A line for each row: a dot on a logarithmic axis, the rate, and how many times faster we are."""
    rates = [row["rate"] for row in rows if "rate" in row]
    left = min(rates) / 2
    for k, row in enumerate(rows):
        if "heading" in row:
            axis.text(-0.005, k, row["heading"], transform=axis.get_yaxis_transform(), ha="right", va="center",
                      fontweight="bold")  # fmt: skip
            continue
        color = OURS if row.get("ours") else PEER
        axis.plot([left, row["rate"]], [k, k], color=color, linewidth=2.2 if row.get("ours") else 1.2, alpha=0.55)
        axis.plot(row["rate"], k, "o", color=color, markersize=7 if row.get("ours") else 6,
                  markerfacecolor=color if row.get("equal", True) else "white")  # fmt: skip
        axis.text(-0.005, k, row["name"], transform=axis.get_yaxis_transform(), ha="right", va="center",
                  color=OURS if row.get("ours") else TEXT)  # fmt: skip
        times = f"   {row['ratio']:,.{1 if row['ratio'] < 10 else 0}f} × our time" if "ratio" in row else ""
        words = axis.annotate(
            f"{in_words(row['rate'])}/s{times}", (row["rate"], k), xytext=(8, 0), textcoords="offset points",
            va="center", color=OURS if row.get("ours") else TEXT, fontsize=9,
        )  # fmt: skip
        words.set_in_layout(False)  # the limits leave room for it
    axis.set(xscale="log", xlim=(left, max(rates) * 60), ylim=(len(rows) - 0.4, -0.6), yticks=[])
    axis.set_xlabel("values (a label or a column of one row) per second, logarithmic")
    short_numbers(axis.xaxis)
    plain(axis, "x")


def draw_ladder(axis: Any, lines: list[Line]) -> None:
    """Rate over size, ours solid, the fastest peer that says the same dashed."""
    tasks = list(dict.fromkeys(line["what"] for line in lines))
    for color, what in zip(OF_TASKS, tasks, strict=False):
        ours: dict[int, float] = {}
        theirs: dict[int, float] = {}
        for line in (line for line in lines if line["what"] == what):
            rate, n_rows = line["values_per_s"], line["rows"]
            if "ratio" not in line:
                ours[n_rows] = rate
            elif rate / line["ratio"] > theirs.get(n_rows, 0.0):  # ours as it was in turn with the fastest peer
                ours[n_rows], theirs[n_rows] = rate, rate / line["ratio"]
        for rates, style, whose in ((ours, "o-", what), (theirs, "o--", f"{peers_of(lines, what)}, the fastest")):
            sizes = sorted(rates)
            if sizes:
                axis.plot(sizes, [rates[n] for n in sizes], style, color=color, markersize=4.5, linewidth=1.8,
                          markerfacecolor=color if style == "o-" else "white", label=whose)  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="rows of a simulated market, logarithmic")
    axis.set_ylabel("values per second, logarithmic")
    axis.set_title("By size: gpupipe solid, the fastest peer dashed", loc="left", fontsize=10.5)
    axis.legend(**LEGEND)
    short_numbers(axis.xaxis, axis.yaxis)
    plain(axis, "xy")


def draw_horizons(axis: Any, lines: list[Line]) -> None:
    """Nanoseconds a row over the horizon of the labels."""
    for color, what in zip(OF_TASKS, dict.fromkeys(line["what"] for line in lines), strict=False):
        cost = {line["horizon"]: 1e9 / line["rows_per_s"] for line in lines if line["what"] == what}
        axis.plot(list(cost), list(cost.values()), "o-", color=color, markersize=4.5, linewidth=1.8, label=what)
    axis.set(xscale="log", xlabel="horizon, bars, logarithmic", ylabel="nanoseconds", ylim=(0, None))
    axis.set_title("Labels by horizon: nanoseconds a row", loc="left", fontsize=10.5)
    axis.legend(**LEGEND)
    short_numbers(axis.xaxis)
    plain(axis, "xy")


def peers_of(lines: list[Line], what: str) -> str:
    """The libraries that a task was compared with: "numpy", "TA-Lib"."""
    names = {line["peer"].split()[0] for line in lines if line["what"] == what and "peer" in line}
    return " and ".join(sorted(names))


def draw_scan(lines: list[Line], target: pathlib.Path) -> None:
    """Seconds by symbols: the command, the scan in memory, and its steps."""
    lines = sorted(lines, key=lambda line: line["symbols"])
    symbols = [line["symbols"] for line in lines]
    steps = [
        {"features": line["seconds"]["features"], "all families": sum(line["seconds"][f] for f in line["families"]),
         "signals": line["seconds"]["signals"], "writing": line["seconds"]["writing"]}
        for line in lines
    ]  # fmt: skip
    curves = {"in memory, without writing": ("#1f2328", [line["seconds"]["scan"] for line in lines])}
    curves |= {name: (c, [step[name] for step in steps]) for name, c in zip(steps[0], OF_TASKS, strict=True)}
    if all(line["command_s"] for line in lines):
        curves = {"the command": (PEER, [line["command_s"] for line in lines]), **curves}
    figure, axis = pyplot().subplots(figsize=(8.2, 4.2), layout="constrained")
    for name, (color, seconds) in curves.items():
        step = name in steps[0]
        axis.plot(symbols, seconds, "o--" if step else "o-", color=color, markersize=4.5, label=name,
                  linewidth=1.3 if step else 2.2, markerfacecolor="white" if step else color)  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="symbols, logarithmic", ylabel="seconds, logarithmic")
    axis.set_xticks(symbols, [f"{n:,}" for n in symbols])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_title("A scan by the number of symbols: all models of all sectors", loc="left", fontsize=10.5)
    axis.legend(**LEGEND)
    plain(axis, "y")
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
    figure, (steps, shares) = pyplot().subplots(
        2, 1, figsize=(8.3, sum(heights) + 0.6), height_ratios=heights, layout="constrained"
    )
    n = len(result["sectors"])
    headline = "fewer trees than it has, no measurement"
    if result["ratio"]:
        headline = f"{result['ratio']:.0f} times faster{' (extrapolated)' * result['extrapolated']}"
    title(figure, f"The predecessor's way and ours: {headline}\n{result['rows']:,} rows, {n} sector{'s' * (n > 1)}, "
          f"preset {result['preset']}; {result['cores']} cores; {result['date']}")  # fmt: skip
    bars(steps, [(step["step"], step["seconds"], "extrapolated" not in step["basis"], duration(step["seconds"]))
                 for step in result["steps"]], 3)  # fmt: skip
    steps.set(xscale="log", xlabel="time of the whole job, logarithmic; hatched: extrapolated")
    lowest, highest = (of(step["seconds"] for step in result["steps"]) for of in (min, max))
    steps.set_xlim(lowest / 2, highest * 6)
    marks = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36_000: "10 h", 360_000: "100 h"}
    inside = {float(mark): text for mark, text in marks.items() if lowest / 2 <= mark <= highest * 6}
    steps.set_xticks(list(inside), list(inside.values()), minor=False)
    steps.minorticks_off()
    whole = sum(result["stages"].values())
    bars(shares, [(name, 100 * value / whole, True, f"{100 * value / whole:.1f} %") for name, value in stages],
         len(stages))  # fmt: skip
    shares.set(xlim=(0, 115 * stages[0][1] / whole), xlabel="share of the predecessor's time, percent")
    save(figure, target)


def bars(axis: Any, rows: Sequence[tuple[str, float, bool, str]], n_grey: int) -> None:
    """Horizontal bars from the top down: (name, value, whether it was measured, words); the first `n_grey` are grey."""
    for k, (name, value, measured, words) in enumerate(rows):
        color, ink = (PEER, TEXT) if k < n_grey else (OURS, OURS)
        axis.barh(k, value, height=0.62, color=color if measured else "white", edgecolor=color, linewidth=1.0,
                  hatch=None if measured else "////")  # fmt: skip
        text = axis.text(value, k, f"  {words}", va="center", ha="left", color=ink)
        text.set_in_layout(False)  # the limits leave room for it
        axis.text(-0.01, k, name, transform=axis.get_yaxis_transform(), ha="right", va="center", color=ink)
    axis.set(ylim=(len(rows) - 0.4, -0.6), yticks=[])
    plain(axis, "x")


PICTURES = {
    "kernels": (draw_kernels, "kernels-*.jsonl", "kernels.svg"),
    "scan": (draw_scan, "scan-*.jsonl", "scan.svg"),
    "predecessor": (draw_predecessor, "old-way-*.jsonl", "old-way.svg"),
}

if __name__ == "__main__":
    sys.exit(main())
