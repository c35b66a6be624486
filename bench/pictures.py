"""The picture of the README: `python -m bench.pictures [LINES.jsonl] [--out bench/results/kernels.svg]`.

LINES are what `python -m bench.kernels.comparison --out LINES.jsonl` wrote: comparisons on one set of bars,
the cost of labels by
horizon, and the size ladder (`--ladder`), if it holds one; the newest bench/results/kernels-*.jsonl unless one is
named. Of the same comparison the last line counts. Needs matplotlib (the extra `bench`).
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
from typing import Any

RESULTS = pathlib.Path(__file__).with_name("results")
OURS, PEER, TEXT, GRID = "#0b62a4", "#8c9196", "#1f2328", "#dfe3e8"
OF_TASKS = ("#0b62a4", "#c2571a", "#2c7a4b", "#7a4fa3")  # lines of the ladder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="?", help="JSON lines of bench.kernels.comparison")
    parser.add_argument("--out", default=str(RESULTS / "kernels.svg"))
    chosen = parser.parse_args()
    path = pathlib.Path(chosen.lines) if chosen.lines else max(RESULTS.glob("kernels-*.jsonl"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    draw([line for line in lines if "values_per_s" in line and "data" in line], pathlib.Path(chosen.out))


def draw(lines: list[dict[str, Any]], target: pathlib.Path) -> None:
    """Dots of values a second, ours and the peers', and below them the size ladder."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    compared = [line for line in lines if line["data"] != "simulated" and "horizon" not in line]
    horizons = [line for line in lines if "horizon" in line]
    ladder = [line for line in lines if line["data"] == "simulated"]
    if not compared:
        raise SystemExit("there is no comparison to draw: give lines of `bench.kernels.comparison --out LINES.jsonl`")
    rows = rows_of(compared)
    plt.rcParams |= {
        "font.size": 9.5, "font.family": "DejaVu Sans", "text.color": TEXT, "axes.labelcolor": TEXT,
        "axes.edgecolor": GRID, "xtick.color": TEXT, "ytick.color": TEXT, "svg.hashsalt": "gpupipe",
    }  # fmt: skip
    below = [(lines, one) for lines, one in ((ladder, draw_ladder), (horizons, draw_horizons)) if lines]
    heights = [0.24 * len(rows) + 0.9] + [3.2] * len(below)
    # The ground is white on a dark page too.
    figure = plt.figure(figsize=(8.3, sum(heights) + 0.6), facecolor="white", layout="constrained")
    first = compared[-1]
    figure.suptitle(
        f"gpupipe and its peers, values per second\n{first['rows']:,} rows of {first['symbols']} symbols; "
        f"{first['device']}, {first['cores']} cores; {first['date']}",
        x=0.01, ha="left", fontsize=11, fontweight="bold", linespacing=1.5,
    )  # fmt: skip
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    draw_comparisons(parts[0].subplots(), rows)
    for part, (of_part, draw_part) in zip(parts[1:], below, strict=True):
        draw_part(part.subplots(), of_part)
    figure.savefig(target, dpi=130, metadata={"Date": None} if target.suffix == ".svg" else None)
    print(f"{target}: {target.stat().st_size / 1024:.0f} KiB")


def rows_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the picture from the top down: a heading for each task, then ours and its peers, the fastest first."""
    rows: list[dict[str, Any]] = []
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


def draw_comparisons(axis: Any, rows: list[dict[str, Any]]) -> None:
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
    _plain(axis, [axis.xaxis])


def draw_ladder(axis: Any, lines: list[dict[str, Any]]) -> None:
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
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8.5, handlelength=2.6)
    _plain(axis, [axis.xaxis, axis.yaxis])


def draw_horizons(axis: Any, lines: list[dict[str, Any]]) -> None:
    """Nanoseconds a row over the horizon of the labels."""
    for color, what in zip(OF_TASKS, dict.fromkeys(line["what"] for line in lines), strict=False):
        cost = {line["horizon"]: 1e9 / line["rows_per_s"] for line in lines if line["what"] == what}
        axis.plot(list(cost), list(cost.values()), "o-", color=color, markersize=4.5, linewidth=1.8, label=what)
    axis.set(xscale="log", xlabel="horizon, bars, logarithmic", ylabel="nanoseconds", ylim=(0, None))
    axis.set_title("Labels by horizon: nanoseconds a row", loc="left", fontsize=10.5)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8.5, handlelength=2.6)
    _plain(axis, [axis.xaxis])
    axis.yaxis.grid(True, color=GRID, linewidth=0.8)


def peers_of(lines: list[dict[str, Any]], what: str) -> str:
    """The libraries that a task was compared with: "numpy", "TA-Lib"."""
    names = {line["peer"].split()[0] for line in lines if line["what"] == what and "peer" in line}
    return " and ".join(sorted(names))


def _plain(axis: Any, logarithmic: list[Any]) -> None:
    for one in logarithmic:
        one.grid(True, color=GRID, linewidth=0.8)
        one.set_major_formatter(lambda value, _: in_words(value))
        one.set_minor_formatter(lambda value, _: "")
    axis.set_axisbelow(True)
    axis.tick_params(which="both", length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
