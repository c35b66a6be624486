"""The ONNX form of networks: onnxruntime against Torch, and against plain numpy, on raw windows with gaps."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.artifacts.onnx.checking import scored
from gpupipe.estimators.torch.architecture import ARCHITECTURES, Architecture, Convolution, Recurrent
from tests.support.network_oracle import HEADS, LENGTHS, N_COLUMNS, margins_of, random_arrays, windows_of
from tests.support.window_graphs import content_of, scaled, scaling_of

TOLERANCE = 1e-5  # of probabilities and values, that of the export: sums of float32 in another order
ALL = range(len(HEADS))


def raw_windows(n_rows, length, scaling, seed=0):
    """Windows as they are before scaling: of many sizes, NaN here and there, in whole columns, and in a whole row."""
    rng = np.random.default_rng(seed)
    windows = windows_of(n_rows, length, len(scaling.offset), seed) * 2 * scaling.scale + scaling.offset
    windows[rng.random(windows.shape) < 0.05] = np.nan
    windows[: n_rows // 10, : length // 2] = np.nan  # before the symbol's first row
    windows[n_rows // 10 : n_rows // 5, :, 1] = np.nan
    windows[-1:] = np.nan
    windows[n_rows // 2, 0, :2] = np.inf, -np.inf
    return windows.astype(np.float32)


@pytest.fixture(params=["torch", "numpy"])
def expected_margins(request):
    """(architecture, arrays, raw windows, scaling) to margins, by Network and by plain numpy."""
    if request.param == "torch":
        pytest.importorskip("torch", reason="networks need Torch")
        return by_torch
    return lambda architecture, arrays, windows, scaling: margins_of(architecture, arrays, scaled(windows, scaling))


def by_torch(architecture, arrays, windows, scaling):
    import torch

    from gpupipe.estimators.torch.network import Network, load_arrays, margins

    network = Network(architecture, *windows.shape[1:], HEADS, torch.Generator())
    load_arrays(network, arrays)
    values = torch.from_numpy(scaled(windows, scaling))
    return margins(network, lambda part: values[part], len(values)).numpy()


def as_predictions(out):
    """Probabilities of the two heads of classes, and the value of the other."""
    first, second = (np.exp(part) / np.exp(part).sum(axis=1, keepdims=True) for part in (out[:, :3], out[:, 4:]))
    return np.concatenate([first, out[:, 3:4], second], axis=1)


@pytest.mark.parametrize("shorter", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_onnxruntime_predicts_the_same(name, shorter, expected_margins):
    architecture = ARCHITECTURES[name]
    length = architecture.least_length if shorter else LENGTHS[name]
    arrays, scaling = random_arrays(architecture), scaling_of(N_COLUMNS)
    content = content_of(arrays, architecture, length, HEADS, ALL, scaling)
    windows = raw_windows(300, length, scaling)
    expected = as_predictions(expected_margins(architecture, arrays, windows, scaling))
    got = as_predictions(scored(content, windows))
    assert got.dtype == np.float32 and np.isnan(windows).any() and np.ptp(expected, axis=0).min() > 100 * TOLERANCE
    assert np.abs(got - expected).max() < TOLERANCE
    for n_rows in (1, 2):
        assert np.abs(as_predictions(scored(content, windows[-n_rows:])) - expected[-n_rows:]).max() < TOLERANCE
    assert scored(content, windows[:0]).shape == (0, 7)


UNUSUAL = Architecture(
    (Convolution(6, same=False, pooled=False),),
    (Recurrent("gru", 5, both=True), Recurrent("lstm", 4, both=True, normalised=True)),
    (7,),
)


@pytest.mark.parametrize("architecture", [UNUSUAL, Architecture((), UNUSUAL.recurrent[::-1], ())])
def test_both_directions_in_any_place(architecture, expected_margins):
    arrays, scaling = random_arrays(architecture, 3), scaling_of(3)
    windows = raw_windows(50, 8, scaling)
    content = content_of(arrays, architecture, 8, HEADS, ALL, scaling)
    difference = scored(content, windows) - expected_margins(architecture, arrays, windows, scaling)
    assert np.abs(difference).max() < TOLERANCE


@pytest.mark.parametrize("head_numbers", [[0], [1], [2, 0]])
def test_chosen_heads_are_those_of_the_whole_in_the_order_that_was_asked_for(head_numbers):
    arrays, scaling = random_arrays(ARCHITECTURES["fast"]), scaling_of(N_COLUMNS)
    windows = raw_windows(20, 60, scaling)
    content = content_of(arrays, ARCHITECTURES["fast"], 60, HEADS, head_numbers, scaling)
    expected = margins_of(ARCHITECTURES["fast"], arrays, scaled(windows, scaling))
    columns = [column for k in head_numbers for column in ([0, 1, 2], [3], [4, 5, 6])[k]]
    assert np.abs(scored(content, windows) - expected[:, columns]).max() < TOLERANCE


def test_equal_arrays_give_equal_bytes():
    architecture = ARCHITECTURES["quality"]
    arrays, scaling = random_arrays(architecture), scaling_of(N_COLUMNS)
    contents = [content_of(arrays, architecture, 120, HEADS, [0], scaling) for _ in range(2)]
    assert contents[0] == contents[1]
