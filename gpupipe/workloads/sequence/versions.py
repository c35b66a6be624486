"""OUT/versions: the networks of a finished run as files that stand alone, with ONNX files that were checked."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe import __version__
from gpupipe.artifacts.latest import publish_latest
from gpupipe.artifacts.load import Models
from gpupipe.artifacts.onnx import graphs
from gpupipe.artifacts.onnx.checking import session_of
from gpupipe.artifacts.onnx.export import TOLERANCE
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.estimators.torch.quantize import quantized
from gpupipe.estimators.torch.sequence import LOG_RETURN, SequenceModel, add_heads, network_of
from gpupipe.estimators.torch.sequence_model import FittedNetwork, predict_sequence
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import dump_json
from gpupipe.targets.target import folder_name
from gpupipe.workloads.sequence import recipe
from gpupipe.workloads.sequence.measures import history_table
from gpupipe.workloads.sequence.settings import SECTION

CHECKED_ROWS = 300  # real windows on which an ONNX file is compared with its network
OF_ONE_LABEL = ("label", "class_shares", "baselines", "models", "horizon", "threshold", "multiple")  # in metadata
ONNX, INT8 = "model.onnx", "model_int8.onnx"


@dataclass(frozen=True)
class Version:
    """What was written of a finished run.

    folder: of the version.  largest_difference: by symbol, between onnxruntime and the network, of any head.
    int8: by symbol, what 8 bits cost: bytes of both files, and for each head the mean and largest difference.

        >>> Version(pathlib.Path("OUT/versions/0123456789ab"), {"BTC": 2e-07}).sentences()
        ['BTC: model.onnx predicts what the network predicts, to 2.0e-07 on real windows']
    """

    folder: pathlib.Path
    largest_difference: Mapping[str, float] = field(default_factory=dict)
    int8: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """The checks in words."""
        sentences = [
            f"{symbol}: {ONNX} predicts what the network predicts, to {difference:.1e} on real windows"
            for symbol, difference in self.largest_difference.items()
        ]
        for symbol, cost in self.int8.items():
            heads = ", ".join(
                f"{name} {head['added_loss']:+.5f} (at most {head['largest_difference']:.4f} in a row)"
                for name, head in cost["heads"].items()
            )
            sentences.append(
                f"{symbol}: {INT8} has {cost['bytes']:,} bytes in the place of {cost['bytes_before']:,}; added loss on "
                f"the sealed test: {heads}"
            )
        return sentences


def write_version(
    models: Models,
    panel: Panel,
    settings: Config,
    onnx: bool = True,
    int8: bool = False,
    advanced: Callable[[str], None] = lambda text: None,
) -> Version | None:
    """Write OUT/versions/<run key>/ with the networks of a finished run, and let OUT/latest point to it.

    models: artifacts.load(OUT), on the CPU.  panel: the data of the run, on the CPU; ONNX files are checked on them.
    settings: of the run.  onnx, int8: whether ONNX files are written.  advanced(text): called after each symbol.
    Of each symbol: model.safetensors, scaler.json, metadata.json, history.parquet, and model.onnx, whose outputs are
    the heads by name; in a folder of the symbol's name where there are several. None without a network.
    Raises UserError where onnxruntime does not predict what the network predicts; then nothing is written.
    """
    symbols = [symbol for symbol, labels in models.by_group.items() if any(SECTION in own for own in labels.values())]
    contents: dict[str, bytes] = {}
    differences: dict[str, float] = {}
    costs: dict[str, Mapping[str, Any]] = {}
    for symbol in symbols:
        prefix = "" if len(symbols) == 1 else f"{folder_name(symbol)}/"
        heads = _heads_of(models, symbol)
        network = heads[0].network
        contents[f"{prefix}model.safetensors"] = network.content
        names = list(_columns(models, symbol)[1])
        contents[f"{prefix}scaler.json"] = dump_json({"columns": names, **network.scaler.as_dict()})
        contents[f"{prefix}metadata.json"] = dump_json(_metadata(models, symbol, network))
        contents[f"{prefix}history.parquet"] = history_table({symbol: network})
        if onnx:
            content = _onnx_of(models, symbol, heads)
            rows = _spread(models.warm_rows(panel.of_group(symbol)))
            differences[symbol] = _difference(content, models, symbol, heads, rows)
            contents[f"{prefix}{ONNX}"] = content
            if int8:
                small = quantized(content)
                costs[symbol] = {
                    "bytes": len(small), "bytes_before": len(content),
                    "heads": _cost(content, small, models, panel, symbol, settings),
                }  # fmt: skip
                contents[f"{prefix}{INT8}"] = small
        advanced(f"files of {symbol}")
    if not contents:
        return None
    folder = publish_latest(models.out, models.manifest["run_key"], contents)
    return Version(folder, differences, costs)


def _metadata(models: Models, symbol: str, network: FittedNetwork) -> dict[str, Any]:
    """The metadata of a symbol's models that all its labels share, and those of each label."""
    by_label = models.metadata[symbol]
    shared = {name: value for name, value in by_label.items() if name not in OF_ONE_LABEL}
    return {
        **shared, "labels": {label: dict(models.parameters(label)) for label in models.by_group[symbol]},
        "heads": [head.name for head in network.heads], "network": network.architecture, "length": network.length,
        "epochs": len(network.rates), "opset": graphs.OPSET,
    }  # fmt: skip


def _heads_of(models: Models, symbol: str) -> list[SequenceModel]:
    """A model for each head of a symbol's network: those of the labels, and of the next bar's return."""
    by_label = models.by_group[symbol]
    heads: list[Any] = [getattr(own[SECTION], "model", own[SECTION]) for own in by_label.values() if SECTION in own]
    network = network_of(heads[0])
    if any(head.name == LOG_RETURN for head in network.heads):
        heads.append(SequenceModel(network, network.head_number(LOG_RETURN), np.empty(0, np.float32), heads[0].scope))
    return sorted(heads, key=lambda model: int(model.head))


def _columns(models: Models, symbol: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Numbers of the features that a symbol's network reads, None for all; and their names."""
    model: Any = next(own[SECTION] for own in models.by_group[symbol].values() if SECTION in own)
    numbers = getattr(model, "columns", None)
    names = models.feature_names
    return numbers, names if numbers is None else tuple(names[k] for k in numbers)


def _spread(rows: FeatureRows) -> FeatureRows:
    """Rows at equal distances."""
    return rows.take(np.unique(np.linspace(0, rows.n - 1, min(CHECKED_ROWS, rows.n)).astype(int)))


def _onnx_of(models: Models, symbol: str, heads: Sequence[SequenceModel]) -> bytes:
    network: FittedNetwork = heads[0].network
    columns, _ = _columns(models, symbol)
    properties = {
        "symbol": symbol, "classes": json.dumps(list(models.target.class_names)),
        "features": json.dumps(list(models.feature_names), ensure_ascii=False), "features_hash": models.features_hash,
        "run_key": models.manifest["run_key"], "gpupipe_version": __version__,
    }  # fmt: skip
    sizes = {network.heads[model.head].name: network.heads[model.head].n_outputs for model in heads}
    graph = graphs.graph_of_heads(
        lambda graph: add_heads(heads, graph), columns, len(models.feature_names), sizes, properties
    )
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def _difference(
    content: bytes, models: Models, symbol: str, heads: Sequence[SequenceModel], rows: FeatureRows
) -> float:
    """The largest difference of any head between onnxruntime and the network; UserError beyond the tolerance."""
    scored = _scored(content, rows)
    columns, _ = _columns(models, symbol)
    read = rows if columns is None else rows.take_columns(columns)
    largest = 0.0
    for model in heads:
        expected = predict_sequence([model], read)[:, 0].astype(np.float64)
        difference = np.abs(scored[model.network.heads[model.head].name] - expected)
        largest = max(largest, float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0)))
    if not largest <= TOLERANCE:
        raise UserError(
            f"{symbol}: the ONNX file differs from its network by {largest:.2g} (at most {TOLERANCE:g} is allowed): "
            "--skip-onnx leaves it out"
        )
    return largest


def _scored(content: bytes, rows: FeatureRows, rows_at_once: int = 1024) -> dict[str, np.ndarray]:
    """Predictions of onnxruntime by output, float64 (n_rows, n_outputs)."""
    session = session_of(content)
    [taken] = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    parts = [
        session.run(names, {taken.name: rows.take(slice(first, first + rows_at_once)).windows(taken.shape[1])})
        for first in range(0, rows.n, rows_at_once)
    ]
    return {name: np.concatenate([part[k] for part in parts]).astype(np.float64) for k, name in enumerate(names)}


def _cost(
    content: bytes, small: bytes, models: Models, panel: Panel, symbol: str, settings: Config
) -> dict[str, dict[str, float]]:
    """What 8 bits cost each head on the rows of the sealed test: added loss, and the largest difference of a row."""
    bars = panel.of_group(symbol)
    features = models.features(bars)
    dataset = recipe.dataset(bars, features, recipe.labels_of(bars, settings), symbol, settings)
    begin = np.datetime64(models.metadata[symbol]["dates"]["test"][0].removesuffix("Z"), "ns").astype(np.int64)
    tested = np.flatnonzero(dataset.usable & (dataset.time_ns >= begin))
    both = [_scored(file, models.feature_rows(features, tested)) for file in (content, small)]
    targets: dict[str, np.ndarray] = dict(zip(dataset.target.names, dataset.y[tested].T, strict=True))
    targets[LOG_RETURN] = dataset.extra[LOG_RETURN][tested]
    cost = {}
    for name, before in both[0].items():
        losses = [_loss(output[name], targets[name]) for output in both]
        difference = np.abs(both[1][name] - before).max(initial=0.0)
        cost[name] = {"added_loss": losses[1] - losses[0], "largest_difference": float(difference)}
    return cost


def _loss(output: np.ndarray, target: np.ndarray) -> float:
    """Mean log-loss of probabilities, or mean squared error of values; NaN without a row."""
    if not len(target):
        return float("nan")
    if output.shape[1] == 1:
        return float(np.nanmean((output[:, 0] - target) ** 2))
    chosen = output[np.arange(len(target)), target.astype(np.int64)]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())
