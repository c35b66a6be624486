"""SequenceModel: one label's head on a network that several labels and groups share, as files and as predictions."""

from __future__ import annotations

import functools
import io
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.estimators.boosting.tree_model import to_probability
from gpupipe.estimators.earlier import WarmStart
from gpupipe.estimators.linear.softmax_regression import Weights
from gpupipe.estimators.three_classes import CLASS_COUNT
from gpupipe.estimators.torch.architecture import ARCHITECTURES, Architecture, Head
from gpupipe.estimators.torch.scaler import WindowScaler
from gpupipe.runtime.device import torch_on

if TYPE_CHECKING:
    from gpupipe.estimators.torch.network import Network

FORMAT = 1
ROWS_AT_ONCE = 1 << 15  # rows whose layer outputs are held at once
WEIGHT, BIAS = "output.weight", "output.bias"  # of all heads, in `network.arrays_of`
HISTORY = "history"  # the name of the array of the training's epochs in the file
_ONE_NETWORK = threading.Lock()  # is made at a time


@dataclass(frozen=True, eq=False)
class FittedNetwork:
    """A trained network with all that its predictions need; models of labels and groups share it.

    architecture: a name of ARCHITECTURES.  length: bars of a window.  heads: of the network, in order.
    arrays: weights and buffers, as `network.arrays_of` names them.
    centre, deviation: float64 (n_heads,): a value head predicts (value - centre) / deviation; 0 and 1 of class heads.
    rates: the learning rate of each epoch up to the best one, those of earlier runs included.
    history: float64 (n_epochs, n_columns), the epochs of the last training; columns: their names.

        >>> scaler = WindowScaler(*np.float32([[0, 0], [1, 1], [-4, -4], [4, 4]]))
        >>> arrays = {WEIGHT: np.zeros((4, 32), np.float32), BIAS: np.float32([1, 2, 3, 0])}
        >>> heads = (Head("label_1d_5pct", 3), Head("log_return_1", 1))
        >>> history = np.ones((1, 1))
        >>> network = FittedNetwork(
        ...     "fast", 60, heads, arrays, scaler, np.zeros(2), np.ones(2), (0.01,), history, ("epoch",))
        >>> network.head_weights(0).intercept.tolist(), network.head_number("log_return_1")
        ([1.0, 2.0, 3.0], 1)
        >>> FittedNetwork.from_content(network.content).heads == heads  # doctest: +SKIP
        True
    """

    architecture: str
    length: int
    heads: tuple[Head, ...]
    arrays: Mapping[str, np.ndarray] = field(repr=False)
    scaler: WindowScaler = field(repr=False)
    centre: np.ndarray = field(repr=False)
    deviation: np.ndarray = field(repr=False)
    rates: tuple[float, ...] = field(repr=False)
    history: np.ndarray = field(repr=False)
    columns: tuple[str, ...] = field(repr=False)

    @property
    def layers(self) -> Architecture:
        """The architecture."""
        return ARCHITECTURES[self.architecture]

    def head_number(self, name: str) -> int:
        """The number of a head; ValueError where there is none of that name."""
        names = [head.name for head in self.heads]
        if name not in names:
            raise ValueError(f"the network has no head {name!r}; there are {', '.join(names)}")
        return names.index(name)

    def head_weights(self, number: int) -> Weights:
        """Coefficients float64 (n_inputs, n_outputs) and intercept of a head, on the outputs of the last layer."""
        begin = sum(head.n_outputs for head in self.heads[:number])
        rows = slice(begin, begin + self.heads[number].n_outputs)
        return Weights(
            np.ascontiguousarray(self.arrays[WEIGHT][rows].T).astype(np.float64),
            self.arrays[BIAS][rows].astype(np.float64),
        )

    def with_head(self, number: int, weights: Weights) -> dict[str, np.ndarray]:
        """The arrays with another head in the place of one, float32."""
        begin = sum(head.n_outputs for head in self.heads[:number])
        rows = slice(begin, begin + self.heads[number].n_outputs)
        weight, bias = self.arrays[WEIGHT].copy(), self.arrays[BIAS].copy()
        weight[rows], bias[rows] = weights.coefficients.T, weights.intercept
        return {**self.arrays, WEIGHT: weight, BIAS: bias}

    @functools.cached_property
    def content(self) -> bytes:
        """As a safetensors file; equal networks have equal bytes."""
        from safetensors.numpy import save

        about = {
            "format": FORMAT, "architecture": self.architecture, "length": self.length,
            "heads": [[head.name, head.n_outputs] for head in self.heads], "scaler": self.scaler.as_dict(),
            "centre": self.centre.tolist(), "deviation": self.deviation.tolist(), "rates": list(self.rates),
            "columns": list(self.columns),
        }  # fmt: skip
        return save({**self.arrays, HISTORY: self.history}, metadata={"gpupipe": json.dumps(about, sort_keys=True)})

    @classmethod
    def from_content(cls, content: bytes) -> FittedNetwork:
        """The network of a file; ValueError, or safetensors' error, where it is none."""
        from safetensors.numpy import load

        arrays = load(content)
        length = int.from_bytes(content[:8], "little")
        about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["gpupipe"])
        if about["format"] != FORMAT:
            raise ValueError(f"a network of format {about['format']!r}, this gpupipe reads {FORMAT}")
        history = arrays.pop(HISTORY)
        return cls(
            about["architecture"], about["length"], tuple(Head(name, n) for name, n in about["heads"]), arrays,
            WindowScaler.from_dict(about["scaler"]), np.array(about["centre"]), np.array(about["deviation"]),
            tuple(about["rates"]), history, tuple(about["columns"]),
        )  # fmt: skip

    def torch_network(self, kind: str) -> Network:
        """The network on a device, "cpu" or "cuda", in eval mode; made once, however many threads ask."""
        with _ONE_NETWORK:
            return self._networks(kind)

    @functools.cached_property
    def _networks(self) -> Any:
        return functools.cache(functools.partial(_torch_network, self))

    def layer_outputs(self, rows: FeatureRows) -> Any:
        """float32 (n, n_inputs), on the rows' device: what the heads are given, for each row's window.

        On a CPU the bits of a row depend on its window alone.
        """
        from gpupipe.estimators.torch.network import hidden_outputs
        from gpupipe.estimators.torch.windows import Windows

        windows = Windows([rows], self.length, self.scaler)
        network = self.torch_network(rows.device.kind)
        outputs = hidden_outputs(network, lambda part: windows.batch(np.arange(part.start, part.stop)), rows.n)
        return windows.array(outputs)


def _torch_network(fitted: FittedNetwork, kind: str) -> Network:
    import torch

    from gpupipe.estimators.torch.network import Network, load_arrays

    n_columns = fitted.scaler.n_columns
    network = Network(fitted.layers, fitted.length, n_columns, fitted.heads, torch.Generator().manual_seed(0))
    load_arrays(network, fitted.arrays)
    return network.to(torch_on(kind)).eval()


@dataclass(frozen=True, eq=False)
class SequenceModel:
    """Predictions of one target: a head on a network that it shares with other models.

    head: the number of its head.  own: the group's own head; None where it is the network's.
    class_weight: float32 (n_classes,), of training; empty for a value.

        >>> scaler = WindowScaler(*np.float32([[0], [1], [-4], [4]]))
        >>> arrays = {WEIGHT: np.zeros((3, 32), np.float32), BIAS: np.zeros(3, np.float32)}
        >>> heads, history = (Head("label_1d_5pct", 3),), np.zeros((0, 1))
        >>> network = FittedNetwork(
        ...     "fast", 60, heads, arrays, scaler, np.zeros(1), np.ones(1), (), history, ("epoch",))
        >>> model = SequenceModel(network, 0, np.ones(3, np.float32), "pool")
        >>> model.describe()["kind"], model.describe()["rounds"]
        ('sequence', [0])
    """

    network: FittedNetwork
    head: int
    class_weight: np.ndarray
    scope: str
    own: Weights | None = None
    warm: WarmStart | None = None

    @property
    def weights(self) -> Weights:
        """Of its head."""
        return self.network.head_weights(self.head) if self.own is None else self.own

    def files(self) -> dict[str, bytes]:
        """The network, which models share, and the group's own head, where there is one."""
        files = {".safetensors": self.network.content}
        if self.own is not None:
            buffer = io.BytesIO()
            np.savez(buffer, coefficients=self.own.coefficients, intercept=self.own.intercept)
            files[".npz"] = buffer.getvalue()
        return files

    def describe(self) -> dict[str, Any]:
        """What `Sequence.load` needs in addition to the files."""
        return {
            "kind": "sequence", "scope": self.scope, "head": self.head, "rounds": [len(self.network.rates)],
            "length": self.network.length, "network": self.network.architecture,
            "class_weight": self.class_weight.tolist(), **(self.warm.describe() if self.warm else {}),
        }  # fmt: skip


def load_head(content: bytes) -> Weights:
    """A group's own head again, from the content of its file."""
    with np.load(io.BytesIO(content), allow_pickle=False) as saved:
        return Weights(saved["coefficients"], saved["intercept"])


def predict_sequence(models: Sequence[SequenceModel], rows: FeatureRows) -> Any:
    """float32 (n_rows, n_models, n_outputs): probabilities of classes, or values, on the rows' device.

    Models that share a network run its layers once.
    """
    xp = rows.device.xp
    n_outputs = max(model.network.heads[model.head].n_outputs for model in models)
    out = xp.empty((rows.n, len(models), n_outputs), dtype=xp.float32)
    by_network: dict[int, list[int]] = {}
    for k, model in enumerate(models):
        by_network.setdefault(id(model.network), []).append(k)
    for numbers in by_network.values():
        network = models[numbers[0]].network
        for first in range(0, rows.n, ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            Z = network.layer_outputs(rows.take(part))
            for k in numbers:
                out[part, k] = _head_predictions(models[k], Z, rows.device)
    return out


def _head_predictions(model: SequenceModel, Z: Any, device: Any) -> Any:
    """float32 (n_rows, n_outputs), of the outputs of the last layer."""
    margin, head = model.weights.margin_of_rows(Z, device), model.network.heads[model.head]
    if not head.is_value:
        # The kernel has three classes: a third that never happens changes nothing about two.
        never = device.xp.full((len(margin), CLASS_COUNT - head.n_outputs), -np.inf, dtype=np.float32)
        class_weight = np.pad(model.class_weight, (0, CLASS_COUNT - head.n_outputs), constant_values=1)
        margins = device.xp.concatenate([margin, never], axis=1)
        return to_probability(margins, "softmax", class_weight, device)[:, : head.n_outputs]
    return margin * np.float32(model.network.deviation[model.head]) + np.float32(model.network.centre[model.head])


def predict_head(network: FittedNetwork, name: str, rows: FeatureRows) -> Any:
    """Predictions of one head of a network, float32 (n_rows, n_outputs), on the rows' device.

    ValueError for a network without a head of that name.
    """
    number = network.head_number(name)
    n_outputs = network.heads[number].n_outputs
    ones = np.ones(0 if n_outputs == 1 else n_outputs, np.float32)
    return predict_sequence([SequenceModel(network, number, ones, "pool")], rows)[:, 0]
