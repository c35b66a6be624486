"""Look-ahead audit: change the future of a panel, and compare every earlier value bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.features.matrix import compute_features, feature_names
from gpupipe.targets.triple_barrier import PER_LABEL, Labels, tp_dd_labels

CUTS = (0.35, 0.6, 0.85, 0.97)  # positions among the distinct times of the panel, as shares
CHANGES = ("scrambled", "blanked", "cut off")


@dataclass(frozen=True)
class Finding:
    """The result of the audit for one column.

    name: the column.  kind: "feature" or "label".
    n_compared: the number of values compared, over all cut times and changes; pairs of NaN are not counted.
    n_changed: how many of them changed.  where: a description of the first change; empty if there is none.

        >>> Finding("tomorrow", "feature", 400, 3, "S000 1970-05-01: 0.01 became 0.2, scrambled after 1970-05-01").clean
        False
    """

    name: str
    kind: str
    n_compared: int
    n_changed: int
    where: str

    @property
    def clean(self) -> bool:
        """Whether at least one value was compared and none changed."""
        return self.n_compared > 0 and self.n_changed == 0


def audit(
    panel: Panel,
    names: str | Iterable[str] = "default",
    horizons: Sequence[int] = (1, 2, 5),
    thresholds: Sequence[float] = (0.05, 0.10),
    multiples: Sequence[float] = (2.0,),
    seed: int = 0,
) -> list[Finding]:
    """Audit the features `names` and the labels of a CPU panel; one Finding for each column, in order.

    After each of four cut times, for all symbols at once, prices and volumes are multiplied by random factors, set to
    NaN, or their rows are removed. No feature at or before the cut may change, and no label whose window ends by then,
    nor the columns that belong to the label (first touch, returns, weight). Two NaN are equal.
    horizons, thresholds, multiples: of the labels, as for `tp_dd_labels`. Labels of multiples are measured against the
    volatility of the past 20 bars, which the changed panel computes again.
    Raises ValueError for unknown names; FeatureError where a user's function fails.
    """
    columns = feature_names(names)
    before = compute_features(panel, columns).values
    labels = _labels_of(panel, horizons, thresholds, multiples)
    exits = np.repeat(panel.time_ns[labels.exit_row], len(labels.names) // len(labels.horizons), axis=1)
    tallies = {name: _Tally() for name in (*columns, *labels.names)}
    for change, time_ns, changed, kept in _changes(panel, seed):
        description = f"{change} after {_day(time_ns)}"
        after = compute_features(changed, columns).values
        early = np.flatnonzero(panel.time_ns[kept] <= time_ns)
        for k, name in enumerate(columns):
            tallies[name].add(panel, kept[early], before[kept[early], k], after[early, k], description)
        changed_labels = _labels_of(changed, horizons, thresholds, multiples)
        for k, name in enumerate(labels.names):
            ended = np.flatnonzero((exits[kept, k] <= time_ns) & (labels.y[kept, k] >= 0))
            old_columns, new_columns = _label_columns(labels, k, kept[ended]), _label_columns(changed_labels, k, ended)
            for old, new in zip(old_columns, new_columns, strict=True):
                tallies[name].add(panel, kept[ended], old, new, description)
    return [
        Finding(name, "feature" if name in columns else "label", tally.n_compared, tally.n_changed, tally.where)
        for name, tally in tallies.items()
    ]


@dataclass
class _Tally:
    """The counts of a Finding, while they are added up."""

    n_compared: int = 0
    n_changed: int = 0
    where: str = ""

    def add(self, panel: Panel, rows: np.ndarray, before: np.ndarray, after: np.ndarray, description: str) -> None:
        """Compare values of one column in `rows` of the panel; a pair of NaN is equal and proves nothing."""
        known = (before == before) | (after == after)
        differs = (before != after) & known
        self.n_compared += int(known.sum())
        self.n_changed += int(differs.sum())
        if not self.where and differs.any():
            first = int(np.argmax(differs))
            symbol = panel.symbols[int(np.searchsorted(panel.offsets, rows[first], side="right")) - 1]
            day = _day(panel.time_ns[rows[first]])
            self.where = f"{symbol} {day}: {before[first]:g} became {after[first]:g}, {description}"


def _labels_of(
    panel: Panel, horizons: Sequence[int], thresholds: Sequence[float], multiples: Sequence[float]
) -> Labels:
    volatility = compute_features(panel, "volatility_20").values[:, 0] if multiples else None
    return tp_dd_labels(panel, horizons, thresholds, multiples=multiples, volatility=volatility)


def _label_columns(labels: Labels, k: int, rows: np.ndarray) -> list[np.ndarray]:
    """The columns of label k and of its horizon, in some rows, as float64."""
    columns = [getattr(labels, name)[rows, k] for name in (*PER_LABEL, "weight")]
    horizon = labels.horizon_of(k)
    columns += [getattr(labels, name)[rows, horizon] for name in ("tp", "dd", "forward_return")]
    return [column.astype(np.float64) for column in columns]


def _changes(panel: Panel, seed: int) -> Iterator[tuple[str, int, Panel, np.ndarray]]:
    """(change, cut time, the panel with its future changed, the rows of the original panel that it keeps)."""
    rng = np.random.default_rng(seed)
    times = np.unique(panel.time_ns)
    all_rows = np.arange(panel.n_rows)
    for share in CUTS:
        time_ns = int(times[int(share * (len(times) - 1))])
        future = panel.time_ns > time_ns
        if not future.any():
            continue
        for change in CHANGES[:2]:
            columns = {}
            for name, column in panel.columns.items():
                factor = np.exp(rng.normal(0, 0.5, panel.n_rows)) if change == "scrambled" else np.nan
                columns[name] = np.where(future, column * factor, column).astype(np.float32)
            yield change, time_ns, panel.replace(**columns), all_rows
        yield CHANGES[2], time_ns, panel.take(~future, keep_empty=True), np.flatnonzero(~future)


def _day(time_ns: int) -> str:
    """A time as text, to the second, or to the day at midnight."""
    text = str(np.datetime64(int(time_ns), "ns").astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(" 00:00:00")
