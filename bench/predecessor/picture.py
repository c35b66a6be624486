"""Old against new as a picture: `python -m bench.predecessor.picture LINES.jsonl [--out bench/results/old-way.svg]`.

LINES are what `python -m bench.predecessor.comparison --out LINES.jsonl` wrote; the newest result in them is
drawn: the time of the
job at each step from the old way to the new one, and where the old way spends it. Needs matplotlib (the extra `bench`).
"""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

from bench.pictures import GRID, OURS, PEER, RESULTS, TEXT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", help="JSON lines of bench.predecessor.comparison")
    parser.add_argument("--out", default=str(RESULTS / "old-way.svg"))
    chosen = parser.parse_args()
    lines = [json.loads(line) for line in pathlib.Path(chosen.lines).read_text().splitlines()]
    draw(lines, pathlib.Path(chosen.out))


def in_words(seconds: float) -> str:
    """A time as a person says it: 23.9 h, 14 min, 42 s."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{1 if seconds < 99.5 * size else 0}f} {unit}"
    return f"{seconds:.{1 if seconds < 10 else 0}f} s"


def draw(lines: list[dict[str, Any]], target: pathlib.Path) -> None:
    """The steps on a logarithmic axis, extrapolated ones hatched; below, the old way's stages as shares."""
    results = [line for line in lines if line.get("kind") == "result"]
    if not results:
        raise SystemExit("there is no result to draw: give lines of `bench.predecessor.comparison --out LINES.jsonl`")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    result = results[-1]
    stages = sorted(result["stages"].items(), key=lambda item: -item[1])
    plt.rcParams |= {
        "font.size": 9.5, "font.family": "DejaVu Sans", "text.color": TEXT, "axes.labelcolor": TEXT,
        "axes.edgecolor": GRID, "xtick.color": TEXT, "ytick.color": TEXT, "svg.hashsalt": "gpupipe",
        "hatch.linewidth": 0.6,
    }  # fmt: skip
    heights = (0.34 * len(result["steps"]) + 0.9, 0.24 * len(stages) + 0.9)
    figure, (steps, shares) = plt.subplots(
        2, 1, figsize=(8.3, sum(heights) + 0.6), height_ratios=heights, facecolor="white", layout="constrained"
    )
    n = len(result["sectors"])
    times = f": {result['ratio']:.0f} times faster" if result["ratio"] else ": fewer trees than it has, no measurement"
    figure.suptitle(
        f"The old way and the new one{times}{' (extrapolated)' * bool(result['ratio'] and result['extrapolated'])}\n"
        f"{result['rows']:,} rows, {n} sector{'s' * (n > 1)}, preset {result['preset']}; {result['cores']} cores; "
        f"{result['date']}", x=0.01, ha="left", fontsize=11, fontweight="bold", linespacing=1.5,
    )  # fmt: skip
    _bars(steps, [(one["step"], one["seconds"], "extrapolated" not in one["basis"], f"  {in_words(one['seconds'])}")
                  for one in result["steps"]], 3)  # fmt: skip
    steps.set(xscale="log", xlabel="time of the whole job, logarithmic; hatched: extrapolated")
    lowest, highest = (f(one["seconds"] for one in result["steps"]) for f in (min, max))
    steps.set_xlim(lowest / 2, highest * 6)
    steps.set_xticks(*_ticks(lowest / 2, highest * 6), minor=False)
    steps.minorticks_off()
    whole = sum(result["stages"].values())
    _bars(shares, [(f"{name}", 100 * value / whole, True, f"  {100 * value / whole:.1f} %")
                   for name, value in stages], len(stages))  # fmt: skip
    shares.set(xlim=(0, 115 * stages[0][1] / whole), xlabel="share of the old way's time, percent")
    figure.savefig(target, dpi=130, metadata={"Date": None} if target.suffix == ".svg" else None)
    print(f"{target}: {target.stat().st_size / 1024:.0f} KiB")


def _ticks(left: float, right: float) -> tuple[list[float], list[str]]:
    marks = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36_000: "10 h", 360_000: "100 h"}
    inside = [seconds for seconds in marks if left <= seconds <= right]
    return [float(seconds) for seconds in inside], [marks[seconds] for seconds in inside]


def _bars(axis: Any, rows: list[tuple[str, float, bool, str]], n_old: int) -> None:
    """Horizontal bars from the top down: (name, value, whether it was measured, words); the first `n_old` are grey."""
    for k, (name, value, measured, words) in enumerate(rows):
        color = PEER if k < n_old else OURS
        axis.barh(k, value, height=0.62, color=color if measured else "white", edgecolor=color, linewidth=1.0,
                  hatch=None if measured else "////")  # fmt: skip
        text = axis.text(value, k, words, va="center", ha="left", color=TEXT if k < n_old else OURS)
        text.set_in_layout(False)  # the limits leave room for it
        axis.text(-0.01, k, name, transform=axis.get_yaxis_transform(), ha="right", va="center",
                  color=TEXT if k < n_old else OURS)  # fmt: skip
    axis.set(ylim=(len(rows) - 0.4, -0.6), yticks=[])
    axis.grid(axis="x", color=GRID, linewidth=0.7)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
