"""Network: a sequence network as a Torch module; its weights as numpy arrays, and its margins of many rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gpupipe.estimators.torch.architecture import Architecture, Convolution, Head, Recurrent

MARGIN_ROWS = 256  # rows that are predicted at once, always: see `margins`
UNDRAWN = "meta"  # the device of layers that are made without weights: Torch would draw them from its global generator


class Network(nn.Module):
    """Convolutions over time, recurrent layers, dense layers, and a linear layer that holds all heads side by side.

    architecture: its layers.  length: bars of a window, at least `architecture.least_length`.
    n_columns: features of a bar, at least 1.  heads: what is predicted, at least one.
    generator: a torch.Generator on the CPU, from which all weights are drawn, and then the seed of the dropout: equal
        generators give equal networks. Torch's global generator is neither read nor changed.

    Weights start as Keras' do: Glorot's uniform distribution (Glorot and Bengio 2010; of each head by itself),
    orthogonal recurrent weights (Saxe et al. 2014), biases of 0, but 1 for the forget gate of an LSTM (Jozefowicz et
    al. 2015). Parameters and buffers are float32, made on the CPU; `to("cuda")` moves them, after which
    `dropout_generator` must be set to one on that device.

    A bar of the recurrent layers is given to the next layer after layer normalisation, where there is any, and
    dropout. The last recurrent layer gives its final state alone: of a layer in both directions, the forward state
    after the last bar and the backward state after the first.

    Raises ValueError for a window that is too short, and for no columns or no heads.

        >>> from gpupipe.estimators.torch.architecture import ARCHITECTURES
        >>> heads = [Head("label_1d_5pct", 3), Head("log_return_1", 1)]
        >>> network = Network(ARCHITECTURES["fast"], 60, 9, heads, torch.Generator().manual_seed(0))
        >>> network(torch.zeros(5, 60, 9)).shape, sum(weights.numel() for weights in network.parameters())
        (torch.Size([5, 4]), 30372)
    """

    def __init__(
        self,
        architecture: Architecture,
        length: int,
        n_columns: int,
        heads: Sequence[Head],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if length < architecture.least_length:
            raise ValueError(f"windows have {length} bars, expected {architecture.least_length} or more")
        if n_columns < 1 or not heads:
            raise ValueError(f"expected columns and heads, got {n_columns} columns and {len(heads)} heads")
        self.architecture, self.length, self.n_columns, self.heads = architecture, length, n_columns, tuple(heads)
        self.convolutions, self.recurrent, self.dense = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width = n_columns
        for convolution in architecture.convolutions:
            self.convolutions.append(_ConvolutionLayer(width, convolution, generator))
            width = convolution.channels
        for k, recurrent in enumerate(architecture.recurrent):
            last = k == len(architecture.recurrent) - 1
            self.recurrent.append(_RecurrentLayer(width, recurrent, last, architecture.dropout, generator))
            width = recurrent.width
        for n_outputs in architecture.dense:
            self.dense.append(_DenseLayer(width, n_outputs, architecture.dropout, generator))
            width = n_outputs
        self.output = _linear(width, [head.n_outputs for head in heads], generator)
        seed = int(torch.randint(0, 1 << 62, (1,), generator=generator))
        self.dropout_generator = torch.Generator().manual_seed(seed)

    @property
    def dropout_generator(self) -> torch.Generator:
        """What dropout draws from, in training: on the network's device, and of one thread at a time.

        A CUDA graph of a training step must know it: `graph.register_generator_state(network.dropout_generator)`.
        """
        return self._dropouts()[0].generator

    @dropout_generator.setter
    def dropout_generator(self, generator: torch.Generator) -> None:
        for layer in self._dropouts():
            layer.generator = generator

    def _dropouts(self) -> list[Dropout]:
        return [module for module in self.modules() if isinstance(module, Dropout)]

    @property
    def n_outputs(self) -> int:
        """Of all heads together."""
        return sum(head.n_outputs for head in self.heads)

    def forward(self, windows: Tensor) -> Tensor:
        """Margins float32 (n_rows, n_outputs) of windows; see `hidden`."""
        return self.output(self.hidden(windows)).float()

    def hidden(self, windows: Tensor) -> Tensor:
        """What the heads are given, float32 (n_rows, output.in_features); under autocast it may be bfloat16.

        windows: float32 (n_rows, length, n_columns), scaled, without NaN.

        NaN in a window gives NaN for its row, and in training for all rows, as batch normalisation averages over them.
        ValueError for windows of another length or number of columns.
        """
        if windows.shape[1:] != (self.length, self.n_columns):
            raise ValueError(f"expected windows (n, {self.length}, {self.n_columns}), got {tuple(windows.shape)}")
        x = windows.transpose(1, 2)  # channels before time, as convolutions take them
        for layer in self.convolutions:
            x = layer(x)
        x = x.permute(2, 0, 1)  # time first, as cuDNN's recurrent layers take it
        for layer in self.recurrent:
            x = layer(x)
        for layer in self.dense:
            x = layer(x)
        return x

    def head_parameters(self) -> list[nn.Parameter]:
        """Weights and biases of the linear layer of all heads."""
        return list(self.output.parameters())

    def trunk_parameters(self) -> list[nn.Parameter]:
        """All other parameters, which the heads share."""
        heads = {id(parameter) for parameter in self.head_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in heads]


class Dropout(nn.Module):
    """Dropout that draws from a generator of its own; identity where the module is in eval mode, or the share is 0.

    share: in [0, 1), of the values that become 0; the others are divided by 1 - share.

        >>> layer = Dropout(0.5)
        >>> layer.generator = torch.Generator().manual_seed(0)
        >>> layer(torch.ones(6)).unique().tolist(), layer.eval()(torch.ones(2)).tolist()
        ([0.0, 2.0], [1.0, 1.0])
    """

    generator: torch.Generator

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape and floating type."""
        if not self.training or self.share == 0:
            return x
        kept = torch.empty_like(x).bernoulli_(1 - self.share, generator=self.generator)
        return x * kept.mul_(1 / (1 - self.share))


class _ConvolutionLayer(nn.Module):
    """See `Convolution`: (n_rows, n_channels, n_bars) to (n_rows, channels, bars that are left)."""

    def __init__(self, n_inputs: int, layer: Convolution, generator: torch.Generator) -> None:
        super().__init__()
        padding = 1 if layer.same else 0
        self.convolution = nn.Conv1d(n_inputs, layer.channels, kernel_size=3, padding=padding, device=UNDRAWN)
        self.convolution.to_empty(device="cpu")
        _glorot(self.convolution.weight, generator)
        nn.init.zeros_(self.convolution.bias)
        self.normalisation = _BatchNorm(layer.channels) if layer.normalised else None
        self.pooled = layer.pooled

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        if self.normalisation is not None:
            x = self.normalisation(x)
        x = torch.relu(x)
        return nn.functional.max_pool1d(x, 2) if self.pooled else x


class _BatchNorm(nn.BatchNorm1d):
    """Batch normalisation without Torch's count of batches, which nothing reads: all buffers are float32."""

    def __init__(self, n_channels: int) -> None:
        super().__init__(n_channels)
        self.num_batches_tracked = None


class _RecurrentLayer(nn.Module):
    """See `Recurrent`: (n_bars, n_rows, n_inputs) to (n_bars, n_rows, width), or the last layer's (n_rows, width)."""

    def __init__(self, n_inputs: int, layer: Recurrent, last: bool, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        cell = {"gru": nn.GRU, "lstm": nn.LSTM}[layer.kind]
        self.cell = cell(n_inputs, layer.size, bidirectional=layer.both, device=UNDRAWN).to_empty(device="cpu")
        for name, weights in self.cell.named_parameters():
            _draw_recurrent(name, weights, layer, generator)
        self.normalisation = nn.LayerNorm(layer.width) if layer.normalised else None
        self.dropout = Dropout(dropout)
        self.last, self.is_lstm = last, layer.kind == "lstm"

    def forward(self, x: Tensor) -> Tensor:
        bars, state = self.cell(x)
        if self.last:
            state = state[0] if self.is_lstm else state
            bars = torch.cat(list(state), dim=-1)
        if self.normalisation is not None:
            bars = self.normalisation(bars)
        return self.dropout(bars)


class _DenseLayer(nn.Module):
    """A linear layer, ReLU, and dropout: (n_rows, n_inputs) to (n_rows, n_outputs)."""

    def __init__(self, n_inputs: int, n_outputs: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = _linear(n_inputs, [n_outputs], generator)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(torch.relu(self.linear(x)))


class _Linear(nn.Linear):
    """A linear layer that adds up each row by itself in eval mode, as `margins` needs it.

    MKL's product of 256 rows, 50 inputs and 2 to 11 outputs was seen to add some rows up in another order than others.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(n_rows, n_inputs) to (n_rows, n_outputs)."""
        if self.training:
            return super().forward(input)
        return (input[:, None] * self.weight).sum(dim=-1) + self.bias


def _linear(n_inputs: int, n_outputs: Sequence[int], generator: torch.Generator) -> nn.Linear:
    """A linear layer; the weights of each group of outputs are drawn as a layer's of its own."""
    layer = _Linear(n_inputs, sum(n_outputs), device=UNDRAWN).to_empty(device="cpu")
    for weights in layer.weight.detach().split(list(n_outputs)):
        _glorot(weights, generator)
    nn.init.zeros_(layer.bias)
    return layer


def _glorot(weights: Tensor, generator: torch.Generator) -> None:
    nn.init.xavier_uniform_(weights, generator=generator)


def _draw_recurrent(name: str, weights: Tensor, layer: Recurrent, generator: torch.Generator) -> None:
    """Draw a parameter of a recurrent layer by Torch's name for it; rows of `weights` are gate by gate."""
    if name.startswith("weight_ih"):
        _glorot(weights, generator)
    elif name.startswith("weight_hh"):
        rows = _orthonormal_rows(layer.size, weights.shape[0], generator)
        with torch.no_grad():
            weights.copy_(torch.from_numpy(rows.T.astype(np.float32)))
    else:
        nn.init.zeros_(weights)
        if layer.kind == "lstm" and name.startswith("bias_ih"):  # Torch adds two biases: one of them holds the 1
            nn.init.ones_(weights.detach()[layer.size : 2 * layer.size])  # gates: input, forget, cell, output


def _orthonormal_rows(n_rows: int, n_columns: int, generator: torch.Generator) -> np.ndarray:
    """float64 (n_rows, n_columns), n_rows <= n_columns: random rows of length 1, each orthogonal to all others.

    Modified Gram-Schmidt of normal rows. A QR decomposition by LAPACK would depend on the number of threads.
    """
    rows = torch.randn(n_rows, n_columns, generator=generator, dtype=torch.float64).numpy()
    for k in range(n_rows):
        rows[k] /= np.sqrt((rows[k] * rows[k]).sum())
        rows[k + 1 :] -= (rows[k + 1 :] * rows[k]).sum(axis=1, keepdims=True) * rows[k]
    return rows


def arrays_of(network: nn.Module) -> dict[str, np.ndarray]:
    """Copies of all parameters and buffers by name, float32, in the order of the layers.

    The names are part of saved models: `convolutions.0.convolution.weight`, `convolutions.0.normalisation.running_var`,
    `recurrent.1.cell.weight_ih_l0`, `recurrent.0.normalisation.bias`, `dense.0.linear.weight`, `output.bias`, ...
    """
    state = network.state_dict()
    return dict(zip(state, on_host(list(state.values())), strict=True))


def on_host(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Copies of float32 tensors of one device, at least one; from a GPU in one copy, as the host waits for each.

    >>> on_host([torch.ones(2, 1), torch.tensor(3.0)])
    [array([[1.],
           [1.]], dtype=float32), array(3., dtype=float32)]
    """
    together = torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu()
    parts = together.split([tensor.numel() for tensor in tensors])
    return [np.array(part.numpy().reshape(tensor.shape)) for part, tensor in zip(parts, tensors, strict=True)]


def load_arrays(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Set all parameters and buffers, in place, to what `arrays_of` gave.

    ValueError, which names the first that differs, for arrays of another network; the network is then as before.
    """
    state = network.state_dict()
    for name in [*state, *arrays]:
        expected = tuple(state[name].shape) if name in state else "no such array"
        got = np.shape(arrays[name]) if name in arrays else "no such array"
        if expected != got:
            raise ValueError(f"array {name} of a network: expected {expected}, got {got}")
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(arrays[name], dtype=np.float32)))


def margins(
    network: Network, windows_of: Callable[[slice], Tensor], n_rows: int, rows_at_once: int = MARGIN_ROWS
) -> Tensor:
    """Margins float32 (n_rows, n_outputs) on the network's device, in eval mode and without gradients.

    windows_of(slice): float32 (n, length, n_columns), the windows of these rows, at most `rows_at_once` of them; what
        it returns may be overwritten by its next call.
    On a CPU the bits of a row depend on its window alone, not on the rows beside it, nor on how many there are: the
    network always sees `rows_at_once` rows, at the same alignment in memory and on one thread, and the last ones are
    zeros. Another number of `rows_at_once` may give other bits. The network is in its earlier mode afterwards.
    """
    return _in_batches(network, network, network.n_outputs, windows_of, n_rows, rows_at_once)


def hidden_outputs(
    network: Network, windows_of: Callable[[slice], Tensor], n_rows: int, rows_at_once: int = MARGIN_ROWS
) -> Tensor:
    """What the heads are given, float32 (n_rows, output.in_features); as `margins`."""
    return _in_batches(network, network.hidden, network.output.in_features, windows_of, n_rows, rows_at_once)


def _in_batches(
    network: Network,
    layers: Callable[[Tensor], Tensor],
    n_outputs: int,
    windows_of: Callable[[slice], Tensor],
    n_rows: int,
    rows_at_once: int,
) -> Tensor:
    device = network.output.weight.device
    out = torch.empty((n_rows, n_outputs), dtype=torch.float32, device=device)
    windows = torch.zeros((rows_at_once, network.length, network.n_columns), dtype=torch.float32, device=device)
    with torch.no_grad(), _eval_mode(network), one_thread():
        for start in range(0, n_rows, rows_at_once):
            stop = min(start + rows_at_once, n_rows)
            windows[: stop - start].copy_(windows_of(slice(start, stop)))
            windows[stop - start :] = 0
            out[start:stop] = layers(windows)[: stop - start]
    return out


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch's operators run on one thread each, as far as this thread calls them; other threads are not concerned."""
    before = torch.get_num_threads()  # also makes Torch read its setting for this thread, which it does once
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _eval_mode(network: Network) -> Iterator[None]:
    was_training = network.training
    if was_training:
        network.eval()
    try:
        yield
    finally:
        if was_training:
            network.train()
