"""The picture of bench.sequence: `python -m bench.sequence.picture LINES.jsonl [--out FILE.svg]`, from the lines alone.

Above, best validation loss over the processor time of a training, a panel a series: each preset of ours, and the usual
way with fast and balanced as circles; a small point a seed, a large one their mean. Processor time, because trainings
may have shared their cores with other work. Below, how many times faster ours is: each stage and an epoch, by series.
It needs matplotlib (the extra bench).
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench import runs
from bench.pictures import GRID, OURS, TASK_COLORS, Bar, bars, plain, pyplot, save, short_numbers, title
from bench.runs import Line
from bench.sequence.results import lines_of

COLORS = dict(zip(("fast", "balanced", "quality", "legacy"), TASK_COLORS, strict=True))
TARGET = runs.RESULTS / "sequence.svg"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=TARGET)
    chosen = parser.parse_args(arguments)
    draw(lines_of(chosen.lines), chosen.out)
    return 0


def draw(lines: Sequence[Line], target: pathlib.Path) -> None:
    """Draw the lines of a results file; SystemExit where it holds neither trainings nor stages."""
    trainings = of_one_extent([line for line in lines if line["kind"] == "training"])
    timed = newest([line for line in lines if line["kind"] in ("stages", "epoch")])
    series = list(dict.fromkeys(line["series"] for line in (*trainings, *timed)))
    if not series:
        raise SystemExit("there is nothing to draw: give lines of `bench.sequence --out LINES.jsonl`")
    rows = {name: rows_of([line for line in timed if line["series"] == name]) for name in series}
    heights = (2.6, 0.19 * max(len(found) for found in rows.values()) + 0.8)
    size = (max(4.2 * len(series), 7.0), sum(heights) + 1.1)
    figure, axes = pyplot().subplots(2, len(series), figsize=size, height_ratios=heights, squeeze=False,
                                     layout="constrained")  # fmt: skip
    about = (trainings or timed)[-1]
    extent = f"first {about['first_rows']:,} bars" if about["first_rows"] else "all bars"
    title(figure, f"Sequence networks: validation loss over time, and the usual way's time over ours\n"
          f"above: {extent}, features {about['features']}; {about['cores']} cores, {about['processor']}; "
          f"{about['date']}")  # fmt: skip
    for k, name in enumerate(series):
        draw_trainings(axes[0, k], [line for line in trainings if line["series"] == name], name)
        draw_ratios(axes[1, k], rows[name])
    handles, labels = by_label(axes[0])
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8.5)
    save(figure, target)


def of_one_extent(trainings: Sequence[Line]) -> list[Line]:
    """The trainings on as many first rows of a series as most have: losses of other rows do not compare with theirs."""
    extents = collections.Counter(line["first_rows"] for line in trainings)
    return [line for line in trainings if line["first_rows"] == extents.most_common(1)[0][0]]


def newest(lines: Sequence[Line]) -> list[Line]:
    """The last of the lines of each kind, series and preset."""
    return list({(line["kind"], line["series"], line["preset"]): line for line in lines}.values())


def draw_trainings(axis: Any, lines: Sequence[Line], name: str) -> None:
    """Best validation loss over processor seconds: a point a seed, and a large one at their means."""
    by_way: dict[tuple[str, str], dict[int, Line]] = {}
    for line in lines:
        by_way.setdefault((line["way"], line["preset"]), {})[line["seed"]] = line
    for (way, preset), of_seed in by_way.items():
        theirs = way != "ours"
        face, label = ("none", f"{preset}, small steps on copies") if theirs else (COLORS[preset], preset)
        points = np.array([(line["cpu_s"], line["validation_loss"]) for line in of_seed.values()])
        axis.scatter(*points.T, s=9, facecolors=face, edgecolors=COLORS[preset], linewidths=0.8, alpha=0.6)
        axis.scatter(
            *points.mean(axis=0), s=70, facecolors=face, edgecolors=COLORS[preset], linewidths=1.4, label=label
        )
    axis.set_title(name, loc="left", fontsize=10.5)
    axis.set(xscale="log", xlabel="processor seconds of a training, logarithmic", ylabel="validation loss, nats")
    low, high = axis.get_xlim()
    axis.set_xticks([x for power in range(6) for x in (10**power, 2 * 10**power, 5 * 10**power) if low <= x <= high])
    axis.minorticks_off()
    short_numbers(axis.xaxis)
    plain(axis, "xy")


def rows_of(lines: Sequence[Line]) -> list[Bar]:
    """For each preset a heading, and a bar for each stage and for an epoch: the usual way's time over ours."""
    rows = []
    for preset in (name for name in COLORS if any(line["preset"] == name for line in lines)):
        rows.append(Bar(preset))
        for line in (line for line in lines if line["preset"] == preset):
            if line["kind"] == "epoch":
                ratios = {f"epoch, {line['features']}": line["ratio"]}
            else:
                ratios = {stage: facts["ratio"] for stage, facts in line["stages"].items()}
                ratios["features + dataset"] = line["features_and_dataset"]
            rows += [Bar(name, ratio, times(ratio), ours=ratio >= 1) for name, ratio in ratios.items()]
    return rows


def times(ratio: float) -> str:
    """A ratio in short."""
    return f"{ratio:,.{0 if ratio >= 20 else 1 if ratio >= 2 else 2}f} times"


def draw_ratios(axis: Any, rows: Sequence[Bar]) -> None:
    """Bars on a logarithmic axis that begins at a ratio below all of them; a line at 1."""
    if not rows:
        axis.set_axis_off()
        return
    bars(axis, list(rows))
    values = np.array([row.value for row in rows if row.value is not None])
    axis.set(xscale="log", xlabel="usual time / our time, logarithmic")
    axis.set_xlim(min(0.5, values.min() / 2), values.max() * 60)
    axis.axvline(1.0, color=OURS if values.min() >= 1 else GRID, linewidth=1.0)
    axis.minorticks_off()
    short_numbers(axis.xaxis)


def by_label(axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """The first line of each label, over several panels."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


if __name__ == "__main__":
    sys.exit(main())
