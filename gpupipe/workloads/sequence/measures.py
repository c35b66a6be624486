"""What a run of sequence measures beside its labels: the next bar's return, a position path by it, and epochs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.backtest.position_rules import PositionRules
from gpupipe.backtest.position_trades import equity_of_path
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators.torch.sequence import LOG_RETURN, network_of
from gpupipe.estimators.torch.sequence_model import FittedNetwork, predict_head
from gpupipe.evaluation import next_return
from gpupipe.evaluation.next_return import NextReturns
from gpupipe.evaluation.position_path import positions_of
from gpupipe.pipeline.workload import JobContext
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels
from gpupipe.workloads.sequence.settings import SECTION

RETURNS, HISTORY = "returns.parquet", "history.parquet"


@dataclass(frozen=True)
class KeptRows:
    """Test rows of one symbol in one fold. open_: float64 (n_rows,), of the same bars.  fold: "" for a single split.

    >>> empty = np.zeros(0)
    >>> KeptRows("origin1", NextReturns(np.zeros(0, np.int64), *[empty] * 5), empty).rows.n
    0
    """

    fold: str
    rows: NextReturns
    open_: np.ndarray


class ReturnMeasures:
    """The predicted returns of the networks on the test rows of every fold, judged together; see `Measures`."""

    def keep(self, job: JobContext, context: TrainingContext, trained: Sequence[GroupModels]) -> dict[str, KeptRows]:
        """The test rows of each symbol whose network predicts the next return."""
        kept = {}
        for models in trained:
            model = next(iter(models.models.get(SECTION, [])), None)
            if model is not None and any(head.name == LOG_RETURN for head in network_of(model).heads):
                kept[models.group] = _kept(job, context, models.group, model)
        return kept

    def conclude(
        self, job: JobContext, kept: Sequence[Mapping[str, KeptRows]], trained: Sequence[GroupModels]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Measures by symbol under "returns", OUT/returns.parquet and OUT/history.parquet."""
        rules, seed = PositionRules(), job.settings.seed
        cost = rules.commission + rules.slip
        by_symbol: dict[str, list[KeptRows]] = {}
        for fold in kept:
            for symbol, kept_rows in fold.items():
                by_symbol.setdefault(symbol, []).append(kept_rows)
        measured: dict[str, Any] = {}
        lines: list[dict[str, Any]] = []
        for symbol, parts in by_symbol.items():
            rows = next_return.joined([part.rows for part in parts])
            open_ = np.concatenate([part.open_ for part in parts])  # folds are in the order of time
            position = positions_of(rows.predicted, cost)
            equity, held = (
                np.maximum(equity_of_path(path, open_, rows.close, rules), 0.0)  # a short can lose more than all
                for path in (position, np.ones_like(position))
            )
            names = np.concatenate([np.full(part.rows.n, part.fold) for part in parts])
            measured[symbol] = {
                **next_return.measures(rows, seed),
                "positions": {
                    "cost_of_a_fill": cost, "final_equity": _last(equity), "final_buy_and_hold": _last(held),
                    "fills": int(np.abs(np.diff(position, prepend=0)).sum()),
                },
            }  # fmt: skip
            lines.append(
                {
                    "symbol": np.full(rows.n, symbol), "fold": names, "time": rows.time_ns, "close": rows.close,
                    "realised": rows.realised, "predicted": rows.predicted, "position": position, "equity": equity,
                    "buy_and_hold": held,
                }
            )  # fmt: skip
        networks = {
            models.group: network_of(models.models[SECTION][0]) for models in trained if SECTION in models.models
        }
        files = {HISTORY: history_table(networks)} if networks else {}
        if lines:
            files[RETURNS] = _returns_table(lines)
        return ({"returns": measured} if measured else {}), files


def _last(equity: np.ndarray) -> float:
    return float(equity[-1]) if len(equity) else 1.0


def _kept(job: JobContext, context: TrainingContext, symbol: str, model: Any) -> KeptRows:
    """The test rows of one symbol with the returns that its network predicts."""
    dataset, split, to_host = context.datasets[symbol], context.splits[symbol], context.device.to_host
    bars = job.panel.of_group(symbol)
    rows = split.test
    features = RowView(dataset, rows).features
    columns = getattr(model, "columns", None)
    features = features if columns is None else features.take_columns(columns)
    predicted = to_host(predict_head(network_of(model), LOG_RETURN, features))[:, 0].astype(np.float64)
    realised = to_host(dataset.extra[LOG_RETURN]).astype(np.float64)
    close, open_ = (bars.device.to_host(column).astype(np.float64) for column in (bars.close, bars.open))
    same = bars.device.to_host(bars.symbol_of_row)
    last = np.zeros(len(close))
    follows = np.zeros(len(close), bool)
    follows[1:] = same[1:] == same[:-1]
    last[1:] = np.where(follows[1:], realised[:-1], 0.0)
    mean = np.nanmean(realised[split.train]) if len(split.train) else 0.0
    returns = NextReturns(
        to_host(dataset.time_ns)[rows], close[rows], realised[rows], predicted, np.nan_to_num(last[rows]),
        np.full(len(rows), mean),
    )  # fmt: skip
    return KeptRows(context.times.name, returns, open_[rows])


def history_table(networks: Mapping[str, FittedNetwork]) -> bytes:
    """The epochs of each network as Parquet: symbol, epoch, rate, loss, validation_loss, and one column for each head.

    Networks that several symbols share are listed under the first of them alone.
    """
    import pyarrow as pa

    tables, seen = [], set()
    for symbol, network in networks.items():
        if id(network) in seen:
            continue
        seen.add(id(network))
        columns = {name: pa.array(network.history[:, k]) for k, name in enumerate(network.columns)}
        columns["epoch"] = pa.array(network.history[:, network.columns.index("epoch")].astype(np.int64))
        tables.append(pa.table({"symbol": pa.array([symbol] * len(network.history), pa.string()), **columns}))
    return _parquet(pa.concat_tables(tables, promote_options="default"))


def _returns_table(lines: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa

    columns = {name: np.concatenate([line[name] for line in lines]) for name in lines[0]}
    arrays = {name: pa.array(column) for name, column in columns.items()}
    arrays["time"] = pa.array(columns["time"]).cast(pa.timestamp("ns", "UTC"))
    for name in ("symbol", "fold"):
        arrays[name] = pa.array(columns[name].tolist(), pa.string())
    return _parquet(pa.table(arrays))


def _parquet(table: Any) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
