"""Sources of out-of-sample probabilities: the sealed test and the walk-forward; both prove that rows were unseen."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.backtest.choices import SEALED
from gpupipe.data.panel import Panel
from gpupipe.evaluation.expected_return import ExpectedReturn, lean_of, ranker_of
from gpupipe.runtime.errors import UserError
from gpupipe.targets.classes import has_fixed_barriers, horizon_and_threshold, percent, untraded_sentence
from gpupipe.targets.triple_barrier import label_names

if TYPE_CHECKING:
    from gpupipe.artifacts.out_of_sample_store import StoredPredictions


class InSampleError(UserError):
    """A backtest was asked for rows that a model has learned from."""


@dataclass(frozen=True)
class OutOfSample:
    """Probabilities, and the times in which their models had not seen the rows.

    values: float32 (n_rows, n_models, 3), of SELL, HOLD, BUY, on the panel's device; NaN where there is no prediction.
    cutoffs: float32 (n_models, n_sectors, 2), on the host: the probabilities, chosen on validation, from which a row is
        called BUY or SELL; NaN where there is no such model. Sectors are in the order of panel.groups. With windows_ns
        there is another first axis, (n_windows, ...).
    horizons, thresholds, families: of each model.
    since_ns, until_ns: int64 (n_sectors,), on the host: no row of since <= time < until was seen.
    source: a description such as "sealed test".
    windows_ns: int64 (n_windows,), ascending, on the host: the begin of each fold of a walk-forward, whose cutoffs hold
        until the next fold begins; None for a single fold. No row in time may lie before the first.
    expected_returns: of the trades of each model, [window][model][sector]; None where there is none.
    lean: float32 (n_rows, n_models), on the host: the log-odds that the expected returns of each model read
        (`expected_return.lean_of`); None without expected returns.
    absent: sectors that the panel lacks, with whose symbols the expected returns were learned (`absent_groups`).
    untraded: labels of the run without barriers of a fixed size, which are left out.

    Raises InSampleError if any row outside of its sector's time has a probability; ValueError for a wrong shape.

        >>> from gpupipe.data import simulate
        >>> panel, values = simulate(n_symbols=1, n_bars=8), np.full((8, 1, 3), np.nan, np.float32)
        >>> values[5:] = 0.2, 0.5, 0.3
        >>> source = OutOfSample(
        ...     values, np.full((1, 1, 2), 0.4, np.float32), (5,), (0.1,), ("linear",), panel.time_ns[5:6],
        ...     panel.time_ns[-1:] + 1, "sealed test", panel)
        >>> source.names, int(source.unseen().sum())
        (('linear_5d_10pct',), 3)
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
    expected_returns: Sequence[Sequence[Sequence[ExpectedReturn | None]]] | None = None
    lean: np.ndarray | None = field(default=None, repr=False)
    absent: tuple[str, ...] = ()
    untraded: tuple[str, ...] = ()

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
        if self.expected_returns is not None:
            sizes = [len(window) for window in self.expected_returns]
            if sizes != [n_models] * len(self.by_window):
                raise ValueError(f"expected_returns has {sizes} models by window, expected {n_models}")
            if self.lean is None or self.lean.shape != (self.panel.n_rows, n_models):
                raise ValueError(f"expected returns need the lean, float32 ({self.panel.n_rows}, {n_models})")
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
        """float32 (n_windows, n_models, n_sectors, 2): the cutoffs by window; a single fold is a single window."""
        return self.cutoffs[None] if self.windows_ns is None else self.cutoffs

    @property
    def has_model(self) -> np.ndarray:
        """bool (n_models, n_sectors): whether any window has such a model."""
        known: np.ndarray = (~np.isnan(self.by_window)).any(axis=(0, 3))
        return known

    def unseen(self) -> Any:
        """bool (n_rows,): the rows that the models had not seen."""
        return rows_between(self.panel, self.since_ns, self.until_ns)

    def window_of(self, time_ns: np.ndarray) -> np.ndarray:
        """int64 (n,): the number of the window of each time; 0 for all where there is a single fold."""
        if self.windows_ns is None:
            return np.zeros(len(time_ns), np.int64)
        return np.searchsorted(self.windows_ns, time_ns, side="right") - 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models, as artifacts.Predictions has them: "meta_learner_5d_10pct"."""
        models = zip(self.families, self.horizons, self.thresholds, strict=True)
        return tuple(f"{family}_{h}d_{percent(t)}pct" for family, h, t in models)


def absent_groups(learned: Mapping[str, Iterable[ExpectedReturn | None]], groups: Sequence[str]) -> tuple[str, ...]:
    """Groups that share an expected return with one of some groups, and are not among them.

    learned: by group, the expected returns of its models.  groups: those whose symbols can be compared.
    An expected return is beyond that of peers from all groups that share it: without some of them it is another.

    >>> absent_groups({"energy": [None], "utilities": [None]}, ["energy"])
    ()
    """
    there = {id(value) for group in groups for value in learned.get(group, ()) if value is not None}
    return tuple(
        sorted(
            group
            for group, values in learned.items()
            if group not in groups and there & {id(value) for value in values}
        )
    )


def absent_sentence(absent: Sequence[str]) -> str:
    """What `absent_groups` means for a reader; empty without any.

    >>> absent_sentence(["energy"])
    'the symbols are compared without those of energy, with which the models were trained: expected returns are others'
    """
    if not absent:
        return ""
    named = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more sectors" if len(absent) > 3 else "")
    return (
        f"the symbols are compared without those of {named}, with which the models were trained: expected returns are "
        "others"
    )


def rows_between(panel: Panel, since_ns: np.ndarray, until_ns: np.ndarray) -> Any:
    """bool (n_rows,): rows of since <= time < until, int64 (n_sectors,), of their sector."""
    device = panel.device
    begin, end = (device.asarray(ns[panel.group_of_symbol])[panel.symbol_of_row] for ns in (since_ns, until_ns))
    return (panel.time_ns >= begin) & (panel.time_ns < end)


def sealed_test(
    models: Any, panel: Panel, families: Sequence[str] | None = None, since: str | None = None
) -> OutOfSample:
    """The probabilities of a finished run's models for the rows from its sealed test on.

    models: artifacts.load(OUT).  families: names of the estimators; None for all.  since: an ISO date; earlier rows are
    left out.
    Each sector's test begins on the date in OUT's metadata ("dates", "test"); rows before it trained or chose the
    models. Sectors of the panel without models, or without a test row, have no predictions.
    Raises InSampleError where `since` lies before the sealed test; UserError where no row is left.
    """
    begins = {
        sector: time_ns_of(models.metadata[sector]["dates"]["test"][0])
        for sector in panel.groups if sector in models.metadata
    }  # fmt: skip
    if not begins:
        trained, wanted = ", ".join(models.by_group), ", ".join(panel.groups)
        raise UserError(f"{models.out} has models for {trained}, none for {wanted}")
    start = _checked_since(since, begins, "sealed test", panel) if since is not None else 0
    never = np.iinfo(np.int64).max
    since_ns = np.array([max(start, begins.get(sector, never)) for sector in panel.groups], np.int64)
    until_ns = np.full(len(since_ns), never)
    rows = rows_between(panel, since_ns, until_ns)
    if not bool(rows.any()):
        first = np.datetime64(min(begins.values()), "ns").astype("datetime64[s]")
        raise UserError(f"the data hold no row from {first} on, where the sealed test begins: give the data of the run")
    columns = models.columns(families)
    untraded = [label for label in models.target.names if not has_fixed_barriers(models.target, label)]
    columns = [(family, label) for family, label in columns if label not in untraded]
    if not columns:
        raise UserError(f"{models.out}: no label can be traded. {untraded_sentence(untraded)}")
    labels = [horizon_and_threshold(models.target, label) for _, label in columns]
    cutoffs = np.full((len(columns), len(panel.groups), 2), np.nan, np.float32)
    for m, (family, label) in enumerate(columns):
        for s, sector in enumerate(panel.groups):
            cutoffs[m, s] = models.cutoffs.get((sector, label, family), (np.nan, np.nan))
    learned = [[models.expected_returns.get((sector, label, family)) for sector in panel.groups]
               for family, label in columns]  # fmt: skip
    rankers = [ranker_of(of_model, family) for of_model, (family, _) in zip(learned, columns, strict=True)]
    read = list(dict.fromkeys([*(family for family, _ in columns), *rankers]))
    predicted, at = models.predict(panel, read, rows).values, models.columns(read)
    lean = np.full((panel.n_rows, len(columns)), np.nan, np.float32)
    for m, (ranker, (_, label)) in enumerate(zip(rankers, columns, strict=True)):
        lean[:, m] = lean_of(panel.device.to_host(predicted[:, at.index((ranker, label))]))
    return OutOfSample(
        values=predicted[:, [at.index(column) for column in columns]],
        lean=lean,
        cutoffs=cutoffs,
        horizons=tuple(h for h, _ in labels),
        thresholds=tuple(t for _, t in labels),
        families=tuple(family for family, _ in columns),
        since_ns=since_ns,
        until_ns=until_ns,
        source=f"sealed test of {models.out}",
        panel=panel,
        expected_returns=[learned],
        absent=absent_groups(models.learned_by_group, panel.groups),
        untraded=tuple(untraded),
    )


def walked(
    stored: StoredPredictions, panel: Panel, families: Sequence[str] | None = None, since: str | None = None
) -> OutOfSample:
    """The stored probabilities of a run's walk-forward: each test row by the models of its fold, which had not seen it.

    stored: out_of_sample_store.read(OUT, its manifest).  families, since: see `sealed_test`.  A fold's cutoffs are
    those of its own validation part. Bars later than the run's have no predictions.
    Raises InSampleError where a row lies outside of its fold's test, or a label of the fold's training or validation
    was not yet known before it, or `since` lies before the first fold's test; UserError where the panel's bars are not
    those of the run, or a family was not trained.
    """
    sectors = [sector for sector in panel.groups if sector in stored.tables]
    if not sectors:
        raise UserError(
            f"{stored.out} walked through {', '.join(stored.tables)}, not through {', '.join(panel.groups)}"
        )
    chosen, untraded = _chosen_models(stored, families)
    first_ns = stored.windows[0].from_ns
    start = first_ns
    if since is not None:
        start = _checked_since(since, dict.fromkeys(sectors, first_ns), "first fold's test", panel)
    values = np.full((panel.n_rows, len(chosen), 3), np.nan, np.float32)
    lean = np.full((panel.n_rows, len(chosen)), np.nan, np.float32)
    cutoffs = np.full((len(stored.windows), len(chosen), len(panel.groups), 2), np.nan, np.float32)
    row_keys = _RowKeys.of(panel)
    for sector in sectors:
        _check_bars(stored, sector, panel)
        table = stored.tables[sector]
        time_ns = table["time"].to_numpy().astype(np.int64)
        _check_unseen(stored, sector, time_ns, table["fold"].to_numpy())
        rows, later = row_keys.rows(table["symbol"], time_ns), time_ns >= start
        for column, m in enumerate(chosen):
            sell, buy = (table[name].to_numpy()[later] for name in stored.columns[m])
            values[rows[later], column] = np.stack([sell, 1 - sell - buy, buy], axis=1)
            ranker = stored.ranker_of(m)
            if ranker != m:
                sell, buy = (table[name].to_numpy()[later] for name in stored.columns[ranker])
            lean[rows[later], column] = lean_of(np.stack([sell, buy], axis=1))
        cutoffs[:, :, panel.groups.index(sector)] = stored.cutoffs[sector][:, chosen]
    never = np.iinfo(np.int64).max
    has_models = np.array([sector in sectors for sector in panel.groups])
    estimators, horizons, thresholds = zip(*(stored.models[m] for m in chosen), strict=True)
    n = len(stored.windows)
    return OutOfSample(
        values=panel.device.asarray(values),
        cutoffs=cutoffs,
        horizons=horizons,
        thresholds=thresholds,
        families=estimators,
        since_ns=np.where(has_models, start, never),
        until_ns=np.where(has_models, stored.last_time_ns + 1, never),
        source=f"walk-forward of {n} {'fold' if n == 1 else 'folds'}",
        panel=panel,
        windows_ns=np.array([window.from_ns for window in stored.windows], np.int64),
        lean=lean,
        expected_returns=[
            [
                [stored.expected_returns[sector][w][m] if sector in sectors else None for sector in panel.groups]
                for m in chosen
            ]
            for w in range(n)
        ],
        absent=absent_groups(
            {sector: list(itertools.chain(*windows)) for sector, windows in stored.expected_returns.items()},
            panel.groups,
        ),
        untraded=untraded,
    )


def _chosen_models(stored: StoredPredictions, families: Sequence[str] | None) -> tuple[list[int], tuple[str, ...]]:
    """Numbers of the models of some estimators, label by label, and the labels that cannot be traded and are left out.

    UserError for an estimator that was not trained, and where no label can be traded.
    """
    trained = dict.fromkeys(estimator for estimator, *_ in stored.models)
    for name in families or ():
        if name not in trained:
            raise UserError(f"no model {name!r} in the walk-forward of {stored.out}; there are {', '.join(trained)}")
    traded: dict[tuple[Any, ...], int] = {}
    untraded = []
    for m, (model, names) in enumerate(zip(stored.models, stored.columns, strict=True)):
        label = names[0].removeprefix(f"{model[0]}_").rpartition("_")[0]
        if len(model) == 3 and len(names) == 2 and label == _name(*model[1:]):
            traded[model] = m
        else:
            untraded.append(label)
    if not traded:
        raise UserError(f"the models of {stored.out} predict no barrier labels, and only these can be backtested")
    labels = dict.fromkeys((h, t) for _, h, t in traded)
    chosen = [traded[family, h, t] for h, t in labels for family in families or trained]
    return chosen, tuple(dict.fromkeys(untraded))


def _name(horizon: int, threshold: float) -> str:
    """The name of a label by barriers in the columns of a walk-forward, as "5d_10pct"."""
    return label_names((horizon,), (threshold,))[0].removeprefix("label_")


@dataclass(frozen=True)
class _RowKeys:
    """A panel's rows by symbol and time.  keys: int64 (n_rows,), ascending, as a panel is sorted."""

    symbols: dict[str, int]
    times: np.ndarray
    keys: np.ndarray

    @classmethod
    def of(cls, panel: Panel) -> _RowKeys:
        """The keys of all rows of a panel."""
        time_ns, symbol = (panel.device.to_host(array) for array in (panel.time_ns, panel.symbol_of_row))
        times = np.unique(time_ns)
        keys = symbol.astype(np.int64) * len(times) + np.searchsorted(times, time_ns)
        return cls({name: k for k, name in enumerate(panel.symbols)}, times, keys)

    def rows(self, symbol: Any, time_ns: np.ndarray) -> np.ndarray:
        """int64 (n,): the rows of these symbols, an Arrow column of a dictionary, and times."""
        codes = symbol.combine_chunks()
        symbol_numbers = np.array([self.symbols[name] for name in codes.dictionary.to_pylist()], np.int64)
        wanted = symbol_numbers[codes.indices.to_numpy()] * len(self.times) + np.searchsorted(self.times, time_ns)
        rows: np.ndarray = np.searchsorted(self.keys, wanted)
        return rows


def _check_bars(stored: StoredPredictions, sector: str, panel: Panel) -> None:
    """UserError unless the panel has the sector's bars of the run, by their hash."""
    from gpupipe.artifacts.out_of_sample_store import until
    from gpupipe.data.report import data_hash

    if data_hash(until(panel.of_group(sector), stored.last_time_ns)) != stored.data_hash[sector]:
        raise UserError(
            f"the bars of {sector} are not those that {stored.out} was trained and judged on: give the data of the "
            f"run (all symbols of a sector; later bars may follow), or use --source {SEALED}"
        )


def _check_unseen(stored: StoredPredictions, sector: str, time_ns: np.ndarray, fold: np.ndarray) -> None:
    """InSampleError unless each row lies in its fold's test, after all that the fold's models learned from."""
    begin, end, learned = (
        np.array([getattr(window, name) for window in stored.windows])[fold]
        for name in ("from_ns", "until_ns", "learned_until_ns")
    )
    seen = int(((time_ns < begin) | (time_ns >= end) | (time_ns <= learned)).sum())
    if seen:
        raise InSampleError(
            f"{seen:,} rows of {sector} in the walk-forward of {stored.out} lie outside of their fold's test, or "
            "before the end of what its models learned from: only out-of-sample rows can be backtested; run again"
        )


def _checked_since(since: str, begins: dict[str, int], what: str, panel: Panel) -> int:
    """The time of an ISO date; InSampleError for one before the first of the sectors' begins of `what`, UserError for
    one after the last bar."""
    try:
        start = time_ns_of(since)
    except ValueError:
        raise UserError(f"--since {since}: expected a date, as 2017-06-30") from None
    sector, first = min(begins.items(), key=lambda item: item[1])
    if start < first:
        day = np.datetime64(first, "ns").astype("datetime64[D]")
        raise InSampleError(
            f"--since {since} lies before the {what} of {sector}, which begins on {day}: the models learned from "
            "rows before it, or were chosen by them, so that their predictions of those rows are no evidence; leave "
            "--since out"
        )
    last = int(panel.time_ns.max())
    if start > last:
        raise UserError(
            f"--since {since} lies after the last bar, of {np.datetime64(last, 'ns').astype('datetime64[D]')}"
        )
    return start


def time_ns_of(text: str) -> int:
    """UTC nanoseconds of an ISO date or time, as metadata holds them; ValueError for another text."""
    return int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))
