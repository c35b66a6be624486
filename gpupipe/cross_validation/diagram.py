"""OUT/folds.svg: the training, validation and test times of every fold, and the purged times between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.cross_validation.fold_times import FoldTimes, TimeBlock, usable_times
from gpupipe.cross_validation.folds import Folds
from gpupipe.cross_validation.split import Split, split
from gpupipe.data.report import time_text
from gpupipe.dataset.dataset import Dataset
from gpupipe.store.content_store import Store, sha256, write_atomic

NAME = "folds.svg"
UNUSED, PURGED = "unused", "purged"
ROLES = {
    "train": "training", "validation": "validation", "test": "test", "held_out": "predicted out of fold",
    PURGED: "purged or embargoed",
}  # fmt: skip
LIGHT = {
    "ground": "#ffffff", "text": "#1f2328", "dim": "#59636e", "line": "#d1d9e0", "train": "#5b9bd0",
    "validation": "#f0b429", "test": "#1a7f5a", "held_out": "#9b7fc4", PURGED: "#4a5159",
}  # fmt: skip
DARK = {
    "ground": "#0d1117", "text": "#e6edf3", "dim": "#9198a1", "line": "#3d444d", "train": "#3f7fb5",
    "validation": "#d9a019", "test": "#3fb58a", "held_out": "#8d74bd", PURGED: "#c9d1d9",
}  # fmt: skip
WIDTH, LEFT, RIGHT = 920, 100, 190  # pixels; the time axis is between LEFT and WIDTH - RIGHT
ROW, BAR, MOST_TICKS = 18, 12, 9
DAY_NS = 86_400 * 10**9


@dataclass(frozen=True)
class Lane:
    """A row of the diagram.

    spans: (role, from, to), int64 UTC ns, ascending.  rows: row counts by role, as text.

        >>> Lane("origin 1", (("train", 0, 10), ("purged", 10, 12), ("test", 12, 20)), "100 · 80").spans[1][0]
        'purged'
    """

    title: str
    spans: tuple[tuple[str, int, int], ...]
    rows: str


def write(store: Store, datasets: Mapping[str, Dataset], folds: Folds) -> dict[str, dict[str, str | int]]:
    """Write OUT/folds.svg; returns its manifest entry."""
    content = draw(sections(datasets, folds)).encode()
    write_atomic(store.out / NAME, content)
    return {NAME: {"sha256": sha256(content), "bytes": len(content)}}


def sections(datasets: Mapping[str, Dataset], folds: Folds) -> list[tuple[str, list[Lane]]]:
    """Titles with their lanes: the single split or the origins, stacking in the published fold, CPCV folds."""
    calendar = _Calendar(datasets, usable_times(list(datasets.values())))
    origins, crossed, stacking = [], [], []
    for k, times in enumerate(folds.walk_forward or [folds.published], 1):
        splits = {sector: split(dataset, times) for sector, dataset in datasets.items()}
        title = f"origin {k}" if folds.walk_forward else "all sectors"
        origins.append(calendar.lane_of_fold(title, times, splits))
        if times == folds.published:
            stacking = calendar.lanes_of_parts(times, splits)
    for k, times in enumerate(folds.cpcv, 1):
        splits = {sector: split(dataset, times) for sector, dataset in datasets.items()}
        crossed.append(calendar.lane_of_fold(f"fold {k}", times, splits))
    if folds.walk_forward:
        titled = [("Walk-forward (models of the last origin are kept)", origins)]
        titled.append((f"Stacking inside the training part of origin {len(origins)}", stacking))
    else:
        titled = [("Single split", origins), ("Stacking inside its training part", stacking)]
    if crossed:
        titled.append(("Combinatorial purged cross-validation of what lies before the sealed test", crossed))
    return titled


@dataclass(frozen=True)
class _Calendar:
    """The datasets of all sectors, and `times`, their distinct usable times, ascending; it draws lanes over them."""

    datasets: Mapping[str, Dataset]
    times: np.ndarray

    def lane_of_fold(self, title: str, fold: FoldTimes, splits: Mapping[str, Split]) -> Lane:
        """The training, validation and test times of a fold."""
        parts = ("train", "validation", "test")
        rows = {part: {sector: getattr(cut, part) for sector, cut in splits.items()} for part in parts}
        return self._lane(title, [*itertools.chain(*fold.parts), *fold.validation, *fold.test], rows)

    def lanes_of_parts(self, fold: FoldTimes, splits: Mapping[str, Split]) -> list[Lane]:
        """The fitted and predicted times of each cross-fitted part."""
        lanes = []
        for k in range(fold.forward, len(fold.parts)):
            pairs = {sector: cut.cross_fit[k - fold.forward] for sector, cut in splits.items()}
            fitted = {sector: fit for sector, (fit, _) in pairs.items()}
            predicted = {sector: predict for sector, (_, predict) in pairs.items()}
            seen = fold.parts[: k + 1] if fold.forward else fold.parts
            rows = {"train": fitted, "held_out": predicted}
            lanes.append(self._lane(f"part {k + 1}", itertools.chain(*seen), rows))
        return lanes

    def _lane(self, title: str, blocks: Iterable[TimeBlock], rows: Mapping[str, Mapping[str, np.ndarray]]) -> Lane:
        """A lane with the role of each time; a time inside a block that no row uses was purged."""
        times = self.times
        role_of_time = np.full(len(times), UNUSED, dtype=object)
        for block in blocks:
            role_of_time[(times >= block.start) & (times < block.stop)] = PURGED
        for role, by_sector in rows.items():
            for sector, numbers in by_sector.items():
                dataset = self.datasets[sector]
                role_of_time[np.searchsorted(times, dataset.device.to_host(dataset.time_ns)[numbers])] = role
        begins = np.flatnonzero(np.concatenate([[True], role_of_time[1:] != role_of_time[:-1]]))
        ends = [*times[begins[1:]], times[-1] + int(np.median(np.diff(times)))]  # a time lasts until the next
        spans = [(str(role_of_time[k]), int(times[k]), int(end)) for k, end in zip(begins, ends, strict=True)]
        counts = [sum(len(numbers) for numbers in by_sector.values()) for by_sector in rows.values()]
        return Lane(title, tuple(s for s in spans if s[0] != UNUSED), " · ".join(f"{count:,}" for count in counts))


def draw(titled: Sequence[tuple[str, list[Lane]]]) -> str:
    """The diagram as SVG, in the light or dark colours of the reader's page."""
    spans = [span for _, lanes in titled for lane in lanes for span in lane.spans]
    first, last = min(span[1] for span in spans), max(span[2] for span in spans)
    used = {span[0] for span in spans}

    def x(time_ns: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (time_ns - first) / (last - first)

    body, top = [], 20
    left = 12.0
    for role, words in ROLES.items():
        if role in used:
            body.append(f'<rect class="{role}" x="{left:.0f}" y="{top - 10}" width="12" height="12" rx="2"/>')
            body.append(f'<text x="{left + 17:.0f}" y="{top}">{words}</text>')
            left += 34 + 6.4 * len(words)
    body.append(f'<text class="dim" x="{WIDTH - RIGHT + 10}" y="{top}">rows of these, by colour</text>')
    above = top + 12
    for title, lanes in titled:
        top += 32
        body.append(f'<text class="title" x="12" y="{top}">{title}</text>')
        top += 8
        for lane in lanes:
            body.append(f'<text x="12" y="{top + BAR - 2}">{lane.title}</text>')
            for role, begin, end in lane.spans:
                words = f"{ROLES[role]} from {time_text(begin)}, until {time_text(end)}"
                body.append(
                    f'<rect class="{role}" x="{x(begin):.2f}" y="{top}" width="{x(end) - x(begin):.2f}" '
                    f'height="{BAR}"><title>{words}</title></rect>'
                )
            body.append(f'<text class="dim" x="{WIDTH - RIGHT + 10}" y="{top + BAR - 2}">{lane.rows}</text>')
            top += ROW
    axis = []
    for time_ns, words in ticks(first, last):
        axis.append(f'<line x1="{x(time_ns):.2f}" x2="{x(time_ns):.2f}" y1="{above}" y2="{top + 6}"/>')
        axis.append(f'<text class="dim" text-anchor="middle" x="{x(time_ns):.2f}" y="{top + 20}">{words}</text>')
    height = top + 32
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<style>{_style(LIGHT)} @media (prefers-color-scheme: dark) {{ {_style(DARK)} }}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
        *axis, *body, "</svg>", "",
    ])  # fmt: skip


def _style(colours: Mapping[str, str]) -> str:
    fills = " ".join(f".{role} {{ fill: {colours[role]} }}" for role in (*ROLES, "ground", "dim"))
    return (
        f"text {{ font: 11px sans-serif; fill: {colours['text']} }} .title {{ font-weight: bold }} "
        f"line {{ stroke: {colours['line']} }} {fills}"
    )


def ticks(first: int, last: int) -> list[tuple[int, str]]:
    """At most nine ticks between two times, with labels: starts of months, or even steps where these are too few.

    first, last: int64 UTC ns, first < last.
    """
    ends = np.array([first, last], "datetime64[ns]")
    months = np.arange(ends[0].astype("datetime64[M]"), ends[1].astype("datetime64[M]") + 1)
    months = months[months.astype("datetime64[ns]") >= ends[0]]
    for step in (1, 2, 3, 6, 12, 24, 60, 120, 240):
        chosen = months[months.astype(np.int64) % step == 0]
        if 2 <= len(chosen) <= MOST_TICKS:
            return [(_ns(month), str(month)) for month in chosen]
    even = np.linspace(first, last, 5).astype(np.int64).astype("datetime64[ns]")
    rounded = np.unique(even.astype(f"datetime64[{'D' if last - first >= 5 * DAY_NS else 'm'}]"))
    return [(_ns(moment), str(moment)) for moment in rounded if moment >= ends[0]]


def _ns(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[ns]").astype(np.int64))
