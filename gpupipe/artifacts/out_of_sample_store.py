"""The out-of-sample store: predictions of a walk-forward for the test windows of its folds, in OUT/walk_forward."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.artifacts.layout import WALKED
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.data.panel import Panel
from gpupipe.data.report import data_hash
from gpupipe.evaluation.expected_return import ExpectedReturn, ranker_of
from gpupipe.store.content_store import FORMAT, Store, StoreError, dump_json, sha256
from gpupipe.targets.target import folder_name

if TYPE_CHECKING:
    import pyarrow

FOLDER, JSON = WALKED, "folds.json"
KEY_COLUMNS = ("symbol", "time", "fold")  # of every table, before the predictions


@dataclass(frozen=True)
class ModelKey:
    """A model of a fold: its estimator, its column of y, and the values of the parameters that define the column.

    parameters: as Target.parameters has them, in their order: horizon and threshold for equity.

    >>> ModelKey("linear", "label_5d_10pct", (5, 0.1)).columns(("sell", "buy"))
    ('linear_5d_10pct_sell', 'linear_5d_10pct_buy')
    """

    estimator: str
    label: str
    parameters: tuple[Any, ...] = ()

    def columns(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """Names of the columns of a table that hold this model's predictions."""
        name = f"{self.estimator}_{self.label.removeprefix('label_')}"
        return tuple(f"{name}_{output}" if output else name for output in outputs)


@dataclass(frozen=True)
class FoldPredictions:
    """Predictions of the models of one fold and group for the fold's test window.

    rows: int64 (n_rows,), ascending, of the group's Dataset: all warm rows of the window. Rows whose labels are not
        known are among them, because nobody could have known those labels then.
    models: (n_models,).  outputs: names of the predictions of a model that are stored; "" for that of a value.
    values: float32 (n_rows, n_models, n_outputs).
    cutoffs: for each model the probabilities from which a row is called, by side; empty where rows are not called.
        They were chosen on the fold's validation part.
    expected_returns: of the trades of each model, learned before the fold's test; None where there is none.
    learned_until_ns: the last time at which a label of the fold's training or validation rows became known, in any
        group.

        >>> model = ModelKey("linear", "label_5d_10pct", (5, 0.1))
        >>> fold = FoldPredictions(
        ...     "energy", rows=np.array([7, 9]), models=(model,), outputs=("sell", "buy"), learned_until_ns=0,
        ...     values=np.array([[[0.2, 0.5]], [[0.6, 0.1]]], np.float32), cutoffs=((0.4, 0.45),),
        ...     expected_returns=(None,))
        >>> fold.rows[fold.values[:, 0, 1] >= fold.cutoffs[0][1]].tolist()  # the rows called as the upper class
        [7]
    """

    group: str
    rows: np.ndarray
    models: tuple[ModelKey, ...]
    outputs: tuple[str, ...]
    values: np.ndarray
    cutoffs: tuple[tuple[float, ...], ...]
    expected_returns: tuple[ExpectedReturn | None, ...]
    learned_until_ns: int


@dataclass(frozen=True)
class Window:
    """The test window of a fold: rows of from_ns <= time < until_ns.

    learned_until_ns: no information after this time was used by the fold's models.

        >>> window = Window("origin1", from_ns=10, until_ns=20, learned_until_ns=9)
        >>> window.learned_until_ns < window.from_ns  # the models have seen no row of the window
        True
    """

    name: str
    from_ns: int
    until_ns: int
    learned_until_ns: int


@dataclass(frozen=True)
class StoredPredictions:
    """The predictions of a finished run's walk-forward, read and checked.

    windows: in the order of time.
    models: of each model its estimator and the parameters of its target: (estimator, horizon, threshold) for equity.
    columns: of each model the names of its columns in the tables.
    tables: of each group, columns symbol, time, fold (number of the window), then those of each model, float32, null
        where the fold has no such model.
    cutoffs: of each group, float32 (n_windows, n_models, n_sides), sides as FoldPredictions has them; NaN where a fold
        has no such model.
    expected_returns: of each group, for each window and model; None where there is none.
    data_hash: of each group's bars up to `last_time_ns`.

        >>> stored = StoredPredictions(
        ...     pathlib.Path("OUT"), (Window("origin1", 10, 20, 9), Window("origin2", 20, 30, 19)),
        ...     (("linear", 5, 0.1),), (("linear_5d_10pct_sell", "linear_5d_10pct_buy"),), tables={},
        ...     cutoffs={"energy": np.full((2, 1, 2), 0.4, np.float32)},
        ...     expected_returns={"energy": ((None,), (None,))}, data_hash={"energy": "ab12"}, last_time_ns=29)
        >>> stored.cutoffs["energy"].shape == (len(stored.windows), len(stored.models), 2)
        True
    """

    out: pathlib.Path
    windows: tuple[Window, ...]
    models: tuple[tuple[Any, ...], ...]
    columns: tuple[tuple[str, ...], ...]
    tables: dict[str, pyarrow.Table]
    cutoffs: dict[str, np.ndarray]
    expected_returns: dict[str, tuple[tuple[ExpectedReturn | None, ...], ...]]
    data_hash: dict[str, str]
    last_time_ns: int

    def ranker_of(self, model: int) -> int:
        """The number of the model whose log-odds the expected returns of a model read: often its own."""
        family, *parameters = self.models[model]
        learned = (window[model] for by_window in self.expected_returns.values() for window in by_window)
        return self.models.index((ranker_of(learned, family), *parameters))


def until(panel: Panel, last_time_ns: int) -> Panel:
    """The panel's bars up to and including a time; symbols that have no such bar stay."""
    until_then = panel.time_ns <= last_time_ns
    return panel if bool(until_then.all()) else panel.take(until_then, keep_empty=True)


def publish(
    store: Store,
    panel: Panel,
    origins: Sequence[FoldTimes],
    predictions: Sequence[Sequence[FoldPredictions]],
    run_key: str,
) -> dict[str, dict[str, Any]]:
    """Write OUT/walk_forward: a Parquet file for each group and folds.json; return their manifest entries by path.

    predictions: for each origin, those of its groups.
    """
    windows = [
        Window(
            origin.name, origin.test[0].start, origin.test[-1].stop, max(group.learned_until_ns for group in groups)
        )
        for origin, groups in zip(origins, predictions, strict=True)
    ]  # fmt: skip
    models = _all_models([fold for groups in predictions for fold in groups])
    entries: dict[str, dict[str, Any]] = {}
    description: dict[str, Any] = {}
    distinct = _Distinct()
    for group in dict.fromkeys(fold.group for groups in predictions for fold in groups):
        folds = [next((fold for fold in groups if fold.group == group), None) for groups in predictions]
        group_panel = panel.of_group(group)
        name = f"{FOLDER}/{folder_name(group)}.parquet"
        entries[name] = store.publish(name, _parquet(_table(group_panel, folds, models)))
        cutoffs = [dict(zip(fold.models, fold.cutoffs, strict=True)) if fold else {} for fold in folds]
        description[group] = {
            "file": name,
            "rows": sum(len(fold.rows) for fold in folds if fold),
            "data_hash": data_hash(group_panel),
            "cutoffs": [[fold_cutoffs.get(model) for model in models] for fold_cutoffs in cutoffs],
            "expected_returns": [distinct.numbers(fold, models) for fold in folds],
        }
    whole = {
        "format": FORMAT,
        "run_key": run_key,
        "windows": [dataclasses.asdict(window) for window in windows],
        "models": [[model.estimator, *model.parameters] for model in models],
        "sectors": description,
        "expected_returns": [learned.as_dict() for learned in distinct.values],
        "last_time_ns": int(panel.time_ns.max()),
    }
    name = f"{FOLDER}/{JSON}"
    return {**entries, name: store.publish(name, dump_json(whole))}


@dataclass
class _Distinct:
    """The distinct expected returns of a walk-forward: the groups of a pool share theirs."""

    values: list[ExpectedReturn] = dataclasses.field(default_factory=list)

    def numbers(self, fold: FoldPredictions | None, models: Sequence[ModelKey]) -> list[int | None]:
        """For each model, the number of its expected return among the distinct ones; None where it has none."""
        learned = dict(zip(fold.models, fold.expected_returns, strict=True)) if fold else {}
        return [None if (value := learned.get(model)) is None else self._number(value) for model in models]

    def _number(self, value: ExpectedReturn) -> int:
        for k, known in enumerate(self.values):
            if known is value:
                return k
        self.values.append(value)
        return len(self.values) - 1


def _all_models(folds: Sequence[FoldPredictions]) -> list[ModelKey]:
    """Every estimator for every target that any fold has, sorted by the target's parameters, then by estimator."""
    keys = [model for fold in folds for model in fold.models]
    targets = sorted({(model.parameters, model.label) for model in keys})
    estimators = sorted({model.estimator for model in keys})
    return [ModelKey(name, label, parameters) for parameters, label in targets for name in estimators]


def _table(panel: Panel, folds: Sequence[FoldPredictions | None], models: Sequence[ModelKey]) -> pyarrow.Table:
    """The predictions of one group, fold after fold."""
    import pyarrow as pa

    to_host = panel.device.to_host
    numbered = [(k, fold) for k, fold in enumerate(folds) if fold]
    rows = np.concatenate([fold.rows for _, fold in numbered])
    outputs = numbered[0][1].outputs
    columns: dict[str, Any] = {
        "symbol": pa.DictionaryArray.from_arrays(
            pa.array(to_host(panel.symbol_of_row)[rows]), pa.array(list(panel.symbols), pa.string())
        ),
        "time": pa.array(to_host(panel.time_ns)[rows]).cast(pa.timestamp("ns", "UTC")),
        "fold": pa.array(np.concatenate([np.full(len(fold.rows), k, np.int16) for k, fold in numbered])),
    }
    for model in models:
        values = np.concatenate([_values(fold, model) for _, fold in numbered])
        for c, name in enumerate(model.columns(outputs)):
            columns[name] = pa.array(values[:, c], from_pandas=True)
    return pa.table(columns)


def _values(fold: FoldPredictions, model: ModelKey) -> np.ndarray:
    """float32 (n_rows, n_outputs): the predictions of one model; NaN where the fold has no such model."""
    if model in fold.models:
        values: np.ndarray = fold.values[:, fold.models.index(model)]
        return values
    return np.full((len(fold.rows), len(fold.outputs)), np.nan, np.float32)


def _parquet(table: pyarrow.Table) -> bytes:
    """The table as Parquet; floats are split by bytes: exponents of probabilities repeat, their last bits do not."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    encoding = {name: "BYTE_STREAM_SPLIT" for name in table.column_names[len(KEY_COLUMNS) :]}
    pq.write_table(table, buffer, compression="zstd", use_dictionary=["symbol"], column_encoding=encoding)
    return buffer.getvalue()


def read(out: str | os.PathLike[str], manifest: Mapping[str, Any]) -> StoredPredictions | None:
    """The predictions of a finished run's walk-forward, or None if it had none.

    Raises StoreError for a file that is missing or altered.
    """
    import pyarrow.parquet as pq

    name = f"{FOLDER}/{JSON}"
    if name not in manifest["files"]:
        return None
    whole = json.loads(_checked(out, manifest, name))
    groups = whole["sectors"]
    tables = {
        group: pq.read_table(io.BytesIO(_checked(out, manifest, description["file"])))
        for group, description in groups.items()
    }
    names = next(iter(tables.values())).column_names[len(KEY_COLUMNS) :]
    n_outputs = len(names) // len(whole["models"])
    learned = [ExpectedReturn.from_dict(plain) for plain in whole.get("expected_returns", [])]
    return StoredPredictions(
        out=pathlib.Path(out),
        windows=tuple(Window(**window) for window in whole["windows"]),
        models=tuple(tuple(model) for model in whole["models"]),
        columns=tuple(tuple(names[k : k + n_outputs]) for k in range(0, len(names), n_outputs)),
        tables=tables,
        cutoffs={group: _cutoffs(description["cutoffs"]) for group, description in groups.items()},
        expected_returns={
            group: _expected_returns(
                description.get("expected_returns"), learned, len(whole["windows"]), len(whole["models"])
            )
            for group, description in groups.items()
        },
        data_hash={group: description["data_hash"] for group, description in groups.items()},
        last_time_ns=whole["last_time_ns"],
    )


def _cutoffs(by_window: Sequence[Sequence[Sequence[float] | None]]) -> np.ndarray:
    """float32 (n_windows, n_models, n_sides); NaN for None, a model that the window's fold does not have."""
    n_sides = next((len(sides) for window_cutoffs in by_window for sides in window_cutoffs if sides is not None), 0)
    missing = (np.nan,) * n_sides
    rows = [[missing if sides is None else sides for sides in window_cutoffs] for window_cutoffs in by_window]
    return np.array(rows, np.float32)


def _expected_returns(
    numbers: Sequence[Sequence[int | None]] | None, learned: Sequence[ExpectedReturn], n_windows: int, n_models: int
) -> tuple[tuple[ExpectedReturn | None, ...], ...]:
    """The expected return of each window and model, by its number; None for all where an older run has none."""
    if numbers is None:
        return ((None,) * n_models,) * n_windows
    return tuple(tuple(None if number is None else learned[number] for number in window) for window in numbers)


def _checked(out: str | os.PathLike[str], manifest: Mapping[str, Any], name: str) -> bytes:
    path = pathlib.Path(out) / name
    content = path.read_bytes() if name in manifest["files"] and path.is_file() else b""
    if sha256(content) != manifest["files"].get(name, {}).get("sha256"):
        raise StoreError(f"{path} is gone or was altered since it was written: run again with --out {out}")
    return content
