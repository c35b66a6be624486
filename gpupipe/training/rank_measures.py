"""Measure how well scores of the models rank symbols on the sealed test; see evaluation/ranking.py.

The predictions of all groups are pooled, since a portfolio chooses among all symbols of a date.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.artifacts.manifest import entry_of
from gpupipe.evaluation import rank_summary, ranking
from gpupipe.evaluation.block_bootstrap import Draws
from gpupipe.evaluation.ranking import ByDate, CrossSections
from gpupipe.runtime.task_graph import in_parallel
from gpupipe.store.content_store import Store, write_atomic
from gpupipe.training.context import TrainingContext
from gpupipe.training.expected_return_measures import test_scores
from gpupipe.training.groups import GroupModels
from gpupipe.training.pooled_test import PooledTest, pooled_tests, training_volatility
from gpupipe.training.recipe import Recipe

FILE = "ranking.parquet"
Row = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """A number by which the symbols of a date are ranked, highest first.

    name: in summary.json and ranking.parquet.  title: for people.
    of(test, model): float (n,), for the rows of a pooled test; NaN leaves a row out.

        >>> from gpupipe.training import pooled_test
        >>> test = PooledTest.of("label", [pooled_test.example()])
        >>> PROBABILITY_DIFFERENCE.of(test, "linear").tolist()
        [0.0, 0.0, 0.0]
    """

    name: str
    title: str
    of: Callable[[PooledTest, str], np.ndarray]


def _difference(test: PooledTest, model: str) -> np.ndarray:
    predictions = test.predictions(model)
    difference: np.ndarray = predictions[:, -1] - predictions[:, 0]
    return difference


PROBABILITY_DIFFERENCE = Score(
    "probability_difference", "probability of the upper class minus that of the lower class", _difference
)
EXPECTED_RETURN = Score(
    "expected_return", "expected return of a long trade beyond that of its peers",
    lambda test, model: test_scores(test, model).ranking[:, 0],
)  # fmt: skip
SCORES = (EXPECTED_RETURN, PROBABILITY_DIFFERENCE)


@dataclass(frozen=True)
class Ranking:
    """What was measured.

    rows: one for each label, model and score, as `rank_summary.summarise` returns it, with "label", the label's
        parameters, "model", "score" and "title" of the score.  by_date: (label, model, score, measures) in their order.

        >>> Ranking([], []).for_summary
        {}
    """

    rows: list[Row]
    by_date: list[tuple[str, str, str, ByDate]]

    @property
    def for_summary(self) -> dict[str, Any]:
        """{"ranking": rows}, or nothing without rows."""
        return {"ranking": self.rows} if self.rows else {}

    def publish(self, store: Store) -> dict[str, dict[str, Any]]:
        """Write ranking.parquet, if there are rows; return its manifest entry."""
        if not self.rows:
            return {}
        content = parquet(self.by_date)
        write_atomic(store.out / FILE, content)
        return {FILE: entry_of(content)}


def measure(
    workload: Recipe,
    context: TrainingContext,
    trained: Sequence[GroupModels],
    draws: Draws,
    scores: Sequence[Score] = SCORES,
) -> Ranking:
    """Measure every score of every model on the sealed test, against the forward return of its label's horizon.

    draws: of the dates of the sealed test; intervals of all models share them.
    Labels that are not classes or have no returns, and models without a score, are left out: without any, the result
    has no rows.
    Regimes of volatility are terciles of the median volatility of a date, cut on training dates.
    """
    training = rank_summary.median_by_date(*training_volatility(context, trained))[1]
    calls: list[Callable[[], tuple[Row, ByDate] | None]] = []
    shared: dict[tuple[str, ...], tuple[CrossSections, np.ndarray]] = {}
    for test in pooled_tests(context, trained):
        target = test.members[0][0].target
        name = workload.returns(target, test.column) if target.kind == "classes" else ""
        forward_return = test.column_of(name)
        if forward_return is None:
            continue
        key = (name, *(models.group for _, _, models in test.members))  # labels of one horizon share their rows
        if key not in shared:
            shared[key] = _sections(test, forward_return, target.horizon_rows[test.column], training)
        identity = {"label": test.label, **(target.parameters[test.column] if target.parameters else {})}
        for model in test.models:
            calls += [
                functools.partial(_measure, test, model, score, identity, *shared[key], draws) for score in scores
            ]
    results = [result for result in in_parallel(calls, context.jobs) if result is not None]
    return Ranking(
        [row for row, _ in results], [(row["label"], row["model"], row["score"], by_date) for row, by_date in results]
    )


def _sections(
    test: PooledTest, forward_return: np.ndarray, horizon: int, training: np.ndarray
) -> tuple[CrossSections, np.ndarray]:
    """The cross-sections of the test, and the regime of each of their dates."""
    sections = ranking.cross_sections(test.time_ns, test.symbol, test.group, forward_return, horizon)
    volatility = test.column_of(test.volatility)
    known = np.full(len(test.time_ns), np.nan) if volatility is None else volatility
    times, medians = rank_summary.median_by_date(test.time_ns, known)
    regime = rank_summary.regimes_of(medians[np.searchsorted(times, sections.times)], training)
    _ = sections.returns  # once for all models, before threads ask for it
    return sections, regime


def _measure(
    test: PooledTest,
    model: str,
    score: Score,
    identity: Row,
    sections: CrossSections,
    regime: np.ndarray,
    draws: Draws,
) -> tuple[Row, ByDate] | None:
    """The row of one model and score, and its measures by date; None where the model has no such score."""
    values = score.of(test, model)
    if np.isnan(values).all():
        return None
    by_date = ranking.measure_by_date(values, sections)
    about = {**identity, "model": model, "score": score.name, "title": score.title}
    return {**about, **rank_summary.summarise(by_date, draws, regime)}, by_date


def parquet(measured: Sequence[tuple[str, str, str, ByDate]]) -> bytes:
    """The measures by date as a Parquet file: one row for each label, model, score and date.

    Columns: label, model, score, time (timestamp[ns, UTC]), symbols, every measure of `ranking.ByDate` as float64 with
    null where not defined, and quantile_returns, a list with the lowest quantile first.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for label, model, score, by_date in measured:
        sections = by_date.sections
        n = len(sections.times)
        columns = {name: pa.array([value] * n, pa.string())
                   for name, value in (("label", label), ("model", model), ("score", score))}  # fmt: skip
        columns["time"] = pa.array(sections.times, pa.timestamp("ns", "UTC"))
        columns["symbols"] = pa.array(sections.symbols, pa.int64())
        for name in rank_summary.WITH_INTERVAL:
            columns[name] = pa.array(getattr(by_date, name), pa.float64(), from_pandas=True)
        flat = pa.array(by_date.quantile_returns.ravel(), pa.float64(), from_pandas=True)
        offsets = np.arange(n + 1, dtype=np.int32) * sections.n_quantiles
        columns["quantile_returns"] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
        tables.append(pa.table(columns))
    buffer = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), buffer, compression="zstd")
    return buffer.getvalue()
