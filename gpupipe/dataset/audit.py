"""Look-ahead audit: change what comes later, and see whether anything before it moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.data.panel import COLUMNS, Panel
from gpupipe.features.matrix import compute_features, feature_names
from gpupipe.targets.triple_barrier import OF_LABEL, Labels, tp_dd_labels

CUTS = (0.35, 0.6, 0.85, 0.97)  # shares of the times of the panel
CHANGES = ("scrambled", "blanked", "cut off")


@dataclass(frozen=True)
class Finding:
    """What the audit says of one column.

    n_compared: known values compared over all cuts and changes.  n_changed: of these, how many had other bits.
    where: the first that changed, in words; empty if none did.
    """

    name: str
    kind: str
    n_compared: int
    n_changed: int
    where: str

    @property
    def clean(self) -> bool:
        """Whether something was compared, and nothing changed."""
        return self.n_compared > 0 and self.n_changed == 0


def audit(
    panel: Panel, names: str | Iterable[str] = "default", horizons: Sequence[int] = (1, 2, 5),
    thresholds: Sequence[float] = (0.05, 0.10), seed: int = 0,
) -> list[Finding]:  # fmt: skip
    """Audit features `names` and the labels on the CPU copy of a panel; one Finding for each column, in order.

    After each of four times, of all symbols at once: prices and volumes are multiplied by random factors, or made NaN,
    or the rows are taken away. No feature at or before the time may change, and no label that ends by then, nor what
    goes with it (first touch, returns, weight).
    """
    columns = feature_names(names)
    before = compute_features(panel, columns).values
    labels = tp_dd_labels(panel, horizons, thresholds)
    exits = np.repeat(panel.time_ns[labels.exit_row], len(labels.thresholds), axis=1)
    tallies = {name: [0, 0, ""] for name in (*columns, *labels.names)}
    for change, time_ns, changed, kept in _changes(panel, seed):
        place = f"{change} after {_day(time_ns)}"
        after = compute_features(changed, columns).values
        early = np.flatnonzero(panel.time_ns[kept] <= time_ns)
        _compare(tallies, columns, panel, kept[early], before[kept[early]], after[early], place)
        changed_labels = tp_dd_labels(changed, horizons, thresholds)
        for k, name in enumerate(labels.names):
            ended = np.flatnonzero((exits[kept, k] <= time_ns) & (labels.y[kept, k] >= 0))
            was, is_now = _all_of_label(labels, k, kept[ended]), _all_of_label(changed_labels, k, ended)
            _compare(tallies, (name,) * was.shape[1], panel, kept[ended], was, is_now, place)
    return [
        Finding(name, "feature" if name in columns else "label", *tally)  # type: ignore[arg-type]
        for name, tally in tallies.items()
    ]


def _all_of_label(labels: Labels, k: int, rows: np.ndarray) -> np.ndarray:
    """float64 (n, 9): what the labels say of some rows, of label k and of its horizon."""
    of_label = [getattr(labels, name)[rows, k] for name in (*OF_LABEL, "weight")]
    of_horizon = ("tp", "dd", "forward_return")
    return np.stack([*of_label, *(getattr(labels, name)[rows, labels.horizon_of(k)] for name in of_horizon)], axis=1)


def _changes(panel: Panel, seed: int) -> Iterator[tuple[str, int, Panel, np.ndarray]]:
    """(change, time, the panel with its future changed, the rows of the old panel that it has)."""
    rng = np.random.default_rng(seed)
    times = np.unique(panel.time_ns)
    every = np.arange(panel.n_rows)
    for share in CUTS:
        time_ns = int(times[int(share * (len(times) - 1))])
        future = panel.time_ns > time_ns
        if not future.any():
            continue
        for change in CHANGES[:2]:
            columns = {}
            for name in COLUMNS:
                factor = np.exp(rng.normal(0, 0.5, panel.n_rows)) if change == "scrambled" else np.nan
                columns[name] = np.where(future, getattr(panel, name) * factor, getattr(panel, name)).astype(np.float32)
            yield change, time_ns, panel.replace(**columns), every
        kept = np.flatnonzero(~future)
        offsets = np.concatenate([[0], np.cumsum(~future)])[panel.offsets]  # rows kept before each symbol
        cut = dataclasses.replace(
            panel,
            **{name: getattr(panel, name)[kept] for name in (*COLUMNS, "time_ns")},
            offsets=offsets.astype(np.int64),
        )
        yield CHANGES[2], time_ns, cut, kept


def _compare(
    tallies: dict[str, list], names: Sequence[str], panel: Panel, rows: np.ndarray, before: np.ndarray,
    after: np.ndarray, place: str,
) -> None:  # fmt: skip
    """Add to the tallies of `names` how many items of their columns differ; two NaN are equal, and show nothing."""
    known = (before == before) | (after == after)
    differs = (before != after) & known
    for k, name in enumerate(names):
        tally = tallies[name]
        tally[0] += int(known[:, k].sum())
        tally[1] += int(differs[:, k].sum())
        if not tally[2] and differs[:, k].any():
            first = int(np.argmax(differs[:, k]))
            symbol = panel.symbols[int(np.searchsorted(panel.offsets, rows[first], side="right")) - 1]
            tally[2] = (
                f"{symbol} {_day(panel.time_ns[rows[first]])}: {before[first, k]:g} became {after[first, k]:g}, {place}"
            )


def _day(time_ns: int) -> str:
    """A time in words, to the second, or to the day if that says as much."""
    text = str(np.datetime64(int(time_ns), "ns").astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(" 00:00:00")
