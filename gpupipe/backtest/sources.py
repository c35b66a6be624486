"""Where out-of-sample probabilities come from, and the proof that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.backtest.choices import SEALED
from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError
from gpupipe.targets.classes import percent

if TYPE_CHECKING:
    from gpupipe.artifacts.out_of_sample_store import Kept


class InSampleError(UserError):
    """Rows that a model has learned from were to be backtested."""


@dataclass(frozen=True)
class OutOfSample:
    """Probabilities, and from when to when the models that gave them had not seen the rows.

    values: float32 (n_rows, n_models, 3), of SELL, HOLD, BUY, on the panel's device; NaN where nothing is said.
    cutoffs: float32 (n_models, n_sectors, 2), on the host; from which probability on a row is called BUY, SELL:
        chosen on validation. NaN: no such model. Sectors are in the order of panel.groups. With windows_ns they have a
        first axis more, (n_windows, ...).
    horizons, thresholds, families: of each model.
    since_ns, until_ns: int64 (n_sectors,), on the host: no row of since <= time < until was seen.
    source: in words, as "sealed test".
    windows_ns: int64 (n_windows,), ascending, on the host: when each fold of a walk-forward begins, whose cutoffs hold
        until the next one begins; None for one fold. No row in time may lie before the first.

    Raises InSampleError if any row outside of its sector's time has a probability; ValueError for a wrong shape.
    """

    values: Any
    cutoffs: np.ndarray
    horizons: tuple[int, ...]
    thresholds: tuple[float, ...]
    families: tuple[str, ...]
    since_ns: np.ndarray
    until_ns: np.ndarray
    source: str
    panel: Panel = field(repr=False)
    windows_ns: np.ndarray | None = None

    def __post_init__(self) -> None:
        n_models, n_sectors = len(self.families), len(self.panel.groups)
        for name, shape in {
            "values": (self.panel.n_rows, n_models, 3),
            "by_window": (1 if self.windows_ns is None else len(self.windows_ns), n_models, n_sectors, 2),
            "since_ns": (n_sectors,), "until_ns": (n_sectors,),
        }.items():  # fmt: skip
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if not len(self.horizons) == len(self.thresholds) == n_models:
            raise ValueError(f"{len(self.horizons)} horizons, {len(self.thresholds)} thresholds, {n_models} models")
        if not (self.horizons and min(self.horizons) >= 1 and all(0 < t < 1 for t in self.thresholds)):
            raise ValueError("expected at least one model, horizons of 1 or more, thresholds inside (0, 1)")
        if self.windows_ns is not None and not self.windows_ns[0] <= self.since_ns.min():
            raise ValueError(f"the first window begins at {self.windows_ns[0]}, the time at {self.since_ns.min()}")
        xp = self.panel.device.xp
        seen = ~self.unseen() & ~xp.isnan(self.values).all(axis=(1, 2))
        n_seen = int(seen.sum())
        if n_seen:
            raise InSampleError(
                f"{n_seen:,} rows with probabilities lie outside of the time in which the models had seen none "
                f"({self.source}): only out-of-sample rows can be backtested"
            )

    @property
    def by_window(self) -> np.ndarray:
        """float32 (n_windows, n_models, n_sectors, 2): the cutoffs, of one window where there are no others."""
        return self.cutoffs[None] if self.windows_ns is None else self.cutoffs

    @property
    def has_model(self) -> np.ndarray:
        """bool (n_models, n_sectors): whether there is such a model, in any window."""
        known: np.ndarray = (~np.isnan(self.by_window)).any(axis=(0, 3))
        return known

    def unseen(self) -> Any:
        """bool (n_rows,): the rows that the models had not seen."""
        return rows_between(self.panel, self.since_ns, self.until_ns)

    @property
    def names(self) -> tuple[str, ...]:
        """One for each model, as artifacts.Predictions has them: "meta_learner_5d_10pct"."""
        of = zip(self.families, self.horizons, self.thresholds, strict=True)
        return tuple(f"{family}_{h}d_{percent(t)}pct" for family, h, t in of)


def rows_between(panel: Panel, since_ns: np.ndarray, until_ns: np.ndarray) -> Any:
    """bool (n_rows,): rows of since <= time < until, int64 (n_sectors,), of their sector."""
    device = panel.device
    begin, end = (device.asarray(ns[panel.group_of_symbol])[panel.symbol_of_row] for ns in (since_ns, until_ns))
    return (panel.time_ns >= begin) & (panel.time_ns < end)


def sealed_test(
    models: Any, panel: Panel, families: Sequence[str] | None = None, since: str | None = None
) -> OutOfSample:  # fmt: skip
    """The probabilities of a finished run's models for the rows from its sealed test on.

    models: artifacts.load(OUT).  families: which; all if None.  since: an ISO date: from then on only.
    Each sector's test begins where OUT's metadata says ("dates", "test"); rows before it had trained or chosen the
    models. Sectors of the panel without models, or without a test row, call for nothing.
    Raises InSampleError where `since` lies before the sealed test; UserError where no row is left.
    """
    begins = {
        sector: time_ns_of(models.metadata[sector]["dates"]["test"][0])
        for sector in panel.groups if sector in models.metadata
    }  # fmt: skip
    if not begins:
        there, wanted = ", ".join(models.by_sector), ", ".join(panel.groups)
        raise UserError(f"{models.out} has models for {there}, none for {wanted}")
    start = _checked_since(since, begins, "sealed test") if since is not None else 0
    never = np.iinfo(np.int64).max
    since_ns = np.array([max(start, begins.get(sector, never)) for sector in panel.groups], np.int64)
    until_ns = np.full(len(since_ns), never)
    rows = rows_between(panel, since_ns, until_ns)
    if not bool(rows.any()):
        ends = np.datetime64(min(begins.values()), "ns").astype("datetime64[s]")
        raise UserError(f"the data hold no row from {ends} on, where the sealed test begins: give the data of the run")
    said = models.predict(panel, families, rows)
    of_model = models.columns(families)
    chosen = np.full((len(of_model), len(panel.groups), 2), np.nan, np.float32)
    for m, (family, h, t) in enumerate(of_model):
        for s, sector in enumerate(panel.groups):
            chosen[m, s] = models.cutoffs.get((sector, h, t, family), (np.nan, np.nan))
    return OutOfSample(
        values=said.values, cutoffs=chosen, horizons=tuple(h for _, h, _ in of_model),
        thresholds=tuple(t for *_, t in of_model), families=tuple(family for family, *_ in of_model),
        since_ns=since_ns, until_ns=until_ns, source=f"sealed test of {models.out}", panel=panel,
    )  # fmt: skip


def walked(
    kept: Kept, panel: Panel, families: Sequence[str] | None = None, since: str | None = None
) -> OutOfSample:  # fmt: skip
    """The probabilities of a run's walk-forward: of every test row by the models of its fold, which had not seen it.

    kept: walk_forward.read(OUT, its manifest).  families, since: as of `sealed_test`.  The cutoffs of a fold are those
    of its own validation part. Bars later than the run's are left out: nothing is said of them.
    Raises InSampleError where a row lies outside of its fold's test, or a label of the fold's training or validation
    was not yet known before it, or `since` lies before the first fold's test; UserError where the panel's bars are not
    those of the run, or a family was not trained.
    """
    from gpupipe.artifacts.out_of_sample_store import until
    from gpupipe.data.report import data_hash

    there = dict.fromkeys(family for family, *_ in kept.models)
    unknown = [name for name in families or () if name not in there]
    if unknown:
        raise UserError(f"no model {unknown[0]!r} in the walk-forward of {kept.out}; there are {', '.join(there)}")
    sectors = [sector for sector in panel.groups if sector in kept.tables]
    if not sectors:
        raise UserError(f"{kept.out} walked through {', '.join(kept.tables)}, not through {', '.join(panel.groups)}")
    labels = dict.fromkeys((h, t) for _, h, t in kept.models)
    chosen = [kept.models.index((family, h, t)) for h, t in labels for family in families or there]
    begins = {sector: kept.windows[0].from_ns for sector in sectors}
    start = _checked_since(since, begins, "first fold's test") if since is not None else kept.windows[0].from_ns
    values = np.full((panel.n_rows, len(chosen), 3), np.nan, np.float32)
    cutoffs = np.full((len(kept.windows), len(chosen), len(panel.groups), 2), np.nan, np.float32)
    to_host = panel.device.to_host
    time_ns, symbol = to_host(panel.time_ns), to_host(panel.symbol_of_row)
    times = np.unique(time_ns)
    key = symbol.astype(np.int64) * len(times) + np.searchsorted(times, time_ns)  # ascending, as a panel is sorted
    for sector in sectors:
        if data_hash(until(panel.of_group(sector), kept.last_time_ns)) != kept.data_hash[sector]:
            raise UserError(
                f"the bars of {sector} are not those that {kept.out} was trained and judged on: give the data of the "
                f"run (all symbols of a sector; later bars may follow), or use --source {SEALED}"
            )
        table = kept.tables[sector]
        row_time, fold = table["time"].to_numpy().astype(np.int64), table["fold"].to_numpy()
        _check_unseen(kept, sector, row_time, fold)
        of_symbol = {name: k for k, name in enumerate(panel.symbols)}
        codes = table["symbol"].combine_chunks()
        of_code = np.array([of_symbol[name] for name in codes.dictionary.to_pylist()], np.int64)
        wanted = of_code[codes.indices.to_numpy()] * len(times) + np.searchsorted(times, row_time)
        rows, later = np.searchsorted(key, wanted), row_time >= start
        for column, m in enumerate(chosen):
            sell, buy = (table[f"{kept.names[m]}_{word}"].to_numpy()[later] for word in ("sell", "buy"))
            values[rows[later], column] = np.stack([sell, 1 - sell - buy, buy], axis=1)
        cutoffs[:, :, panel.groups.index(sector)] = kept.cutoffs[sector][:, chosen]
    never = np.iinfo(np.int64).max
    known = np.array([sector in sectors for sector in panel.groups])
    families_of, horizons, thresholds = zip(*(kept.models[m] for m in chosen), strict=True)
    n = len(kept.windows)
    return OutOfSample(
        values=panel.device.asarray(values), cutoffs=cutoffs, horizons=horizons, thresholds=thresholds,
        families=families_of, since_ns=np.where(known, start, never),
        until_ns=np.where(known, kept.last_time_ns + 1, never),
        source=f"walk-forward of {n} {'fold' if n == 1 else 'folds'}", panel=panel,
        windows_ns=np.array([window.from_ns for window in kept.windows], np.int64),
    )  # fmt: skip


def _check_unseen(kept: Kept, sector: str, time_ns: np.ndarray, fold: np.ndarray) -> None:
    """InSampleError unless each row lies in its fold's test, after all that the fold's models learned from."""
    begin, end, learned = (
        np.array([getattr(window, name) for window in kept.windows])[fold]
        for name in ("from_ns", "until_ns", "learned_until_ns")
    )
    seen = int(((time_ns < begin) | (time_ns >= end) | (time_ns <= learned)).sum())
    if seen:
        raise InSampleError(
            f"{seen:,} rows of {sector} in the walk-forward of {kept.out} lie outside of their fold's test, or before "
            "the end of what its models learned from: only out-of-sample rows can be backtested; run again"
        )


def _checked_since(since: str, begins: dict[str, int], what: str) -> int:
    try:
        start = time_ns_of(since)
    except ValueError:
        raise UserError(f"--since {since}: expected a date, as 2017-06-30") from None
    sector, first = min(begins.items(), key=lambda item: item[1])
    if start < first:
        day = np.datetime64(first, "ns").astype("datetime64[D]")
        raise InSampleError(
            f"--since {since} lies before the {what} of {sector}, which begins on {day}: the models learned from "
            "rows before it, or were chosen by them, and what they say of those is no evidence; leave --since out"
        )
    return start


def time_ns_of(text: str) -> int:
    """UTC nanoseconds of a date or time as metadata has it; ValueError for another text."""
    return int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))
