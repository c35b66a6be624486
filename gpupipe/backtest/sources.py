"""Where out-of-sample probabilities come from, and the proof that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.errors import UserError
from gpupipe.labels import percent
from gpupipe.panel import Panel


class InSampleError(UserError):
    """Rows that a model has learned from were to be backtested."""


@dataclass(frozen=True)
class OutOfSample:
    """Probabilities, and from when to when the models that gave them had not seen the rows.

    values: float32 (n_rows, n_models, 3), of SELL, HOLD, BUY, on the panel's device; NaN where nothing is said.
    cutoffs: float32 (n_models, n_sectors, 2), on the host; from which probability on a row is called BUY, SELL:
        chosen on validation. NaN: no such model. Sectors are in the order of panel.sectors.
    horizons, thresholds, families: of each model.
    since_ns, until_ns: int64 (n_sectors,), on the host: no row of since <= time < until was seen.
    source: in words, as "sealed test".

    A walk-forward is one of these with the probabilities of all origins put together, each in its own window.
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

    def __post_init__(self) -> None:
        n_models, n_sectors = len(self.families), len(self.panel.sectors)
        for name, shape in {
            "values": (self.panel.n_rows, n_models, 3), "cutoffs": (n_models, n_sectors, 2),
            "since_ns": (n_sectors,), "until_ns": (n_sectors,),
        }.items():  # fmt: skip
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if not len(self.horizons) == len(self.thresholds) == n_models:
            raise ValueError(f"{len(self.horizons)} horizons, {len(self.thresholds)} thresholds, {n_models} models")
        if not (self.horizons and min(self.horizons) >= 1 and all(0 < t < 1 for t in self.thresholds)):
            raise ValueError("expected at least one model, horizons of 1 or more, thresholds inside (0, 1)")
        xp = self.panel.device.xp
        seen = ~self.unseen() & ~xp.isnan(self.values).all(axis=(1, 2))
        n_seen = int(seen.sum())
        if n_seen:
            raise InSampleError(
                f"{n_seen:,} rows with probabilities lie outside of the time in which the models had seen none "
                f"({self.source}): only out-of-sample rows can be backtested"
            )

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
    begin, end = (device.asarray(ns[panel.sector_of_symbol])[panel.symbol_of_row] for ns in (since_ns, until_ns))
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
        sector: _time_ns(models.metadata[sector]["dates"]["test"][0])
        for sector in panel.sectors if sector in models.metadata
    }  # fmt: skip
    if not begins:
        there, wanted = ", ".join(models.by_sector), ", ".join(panel.sectors)
        raise UserError(f"{models.out} has models for {there}, none for {wanted}")
    start = _checked_since(since, begins) if since is not None else 0
    never = np.iinfo(np.int64).max
    since_ns = np.array([max(start, begins.get(sector, never)) for sector in panel.sectors], np.int64)
    until_ns = np.full(len(since_ns), never)
    rows = rows_between(panel, since_ns, until_ns)
    if not bool(rows.any()):
        ends = np.datetime64(min(begins.values()), "ns").astype("datetime64[s]")
        raise UserError(f"the data hold no row from {ends} on, where the sealed test begins: give the data of the run")
    said = models.predict(panel, families, rows)
    of_model = models.columns(families)
    chosen = np.full((len(of_model), len(panel.sectors), 2), np.nan, np.float32)
    for m, (family, h, t) in enumerate(of_model):
        for s, sector in enumerate(panel.sectors):
            chosen[m, s] = models.cutoffs.get((sector, h, t, family), (np.nan, np.nan))
    return OutOfSample(
        values=said.values, cutoffs=chosen, horizons=tuple(h for _, h, _ in of_model),
        thresholds=tuple(t for *_, t in of_model), families=tuple(family for family, *_ in of_model),
        since_ns=since_ns, until_ns=until_ns, source=f"sealed test of {models.out}", panel=panel,
    )  # fmt: skip


def _checked_since(since: str, begins: dict[str, int]) -> int:
    try:
        start = _time_ns(since)
    except ValueError:
        raise UserError(f"--since {since}: expected a date, as 2017-06-30") from None
    sector, first = min(begins.items(), key=lambda item: item[1])
    if start < first:
        day = np.datetime64(first, "ns").astype("datetime64[D]")
        raise InSampleError(
            f"--since {since} lies before the sealed test of {sector}, which begins on {day}: the models learned from "
            "rows before it, or were chosen by them, and what they say of those is no evidence; leave --since out"
        )
    return start


def _time_ns(text: str) -> int:
    return int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))
