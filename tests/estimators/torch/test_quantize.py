"""int8 weights: size, loss, rows that stay independent of each other, and what is left in float32."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.artifacts.onnx.checking import scored
from gpupipe.estimators.torch.architecture import ARCHITECTURES
from gpupipe.estimators.torch.quantize import _rounded, compare, quantized
from tests.support.network_oracle import HEADS, LENGTHS, N_COLUMNS, random_arrays, windows_of
from tests.support.window_graphs import content_of, scaling_of

# Of a probability: 255 steps a weight, through up to 60 bars. Measured up to 0.009 on random weights.
LARGEST_DIFFERENCE = 0.02


def exported(name, head_numbers=(0,)):
    """The file of a preset's network, probabilities of the first head or the value of the second, and raw windows."""
    scaling = scaling_of(N_COLUMNS)
    arrays, length = random_arrays(ARCHITECTURES[name]), LENGTHS[name]
    content = content_of(arrays, ARCHITECTURES[name], length, HEADS, head_numbers, scaling, head_numbers == (0,))
    windows = windows_of(200, length) * 2 * scaling.scale + scaling.offset
    windows[::7, :5] = np.nan
    return content, windows.astype(np.float32)


def drawn_classes(probabilities, seed=0):
    """int8 (n_rows,): classes that occur as the probabilities say; every ninth is not known."""
    draws = np.random.default_rng(seed).random(len(probabilities))
    classes = (draws[:, None] > probabilities.cumsum(axis=1)[:, :2]).sum(axis=1).astype(np.int8)
    classes[::9] = -1
    return classes


@pytest.mark.parametrize(("name", "times"), [("fast", 3.2), ("balanced", 3.5), ("quality", 3.8), ("legacy", 3.6)])
def test_files_are_smaller_and_predict_nearly_the_same(name, times):
    content, windows = exported(name)
    small = quantized(content)
    expected, got = scored(content, windows), scored(small, windows)
    comparison = compare(content, small, windows, drawn_classes(expected))
    assert comparison.times_smaller > times and comparison.quantized_bytes == len(small)
    assert 0 < comparison.largest_difference < LARGEST_DIFFERENCE
    assert comparison.largest_difference == pytest.approx(np.abs(got.astype(np.float64) - expected).max())
    assert abs(comparison.added_loss) < 0.002
    assert quantized(content) == small, "equal files give equal bytes"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_row_is_predicted_alike_alone_and_beside_others(name):
    content, windows = exported(name)
    small = quantized(content)
    together = scored(small, windows)
    alone = np.concatenate([scored(small, windows[k : k + 1]) for k in range(12)])
    assert np.abs(together[:12] - alone).max() < 1e-6
    assert scored(small, windows[:0]).shape == (0, 3)


def test_large_weights_are_int8_and_all_others_float32():
    import onnx

    content, _ = exported("quality")
    model = onnx.load_from_string(quantized(content))
    onnx.checker.check_model(model, full_check=True)
    types = {constant.name: constant.data_type for constant in model.graph.initializer}
    sizes = {constant.name: np.prod(constant.dims) for constant in model.graph.initializer}
    int8 = {name for name, data_type in types.items() if data_type == onnx.TensorProto.INT8}
    assert len(int8) == 3 + 2 + 2 + 3  # convolutions, two recurrent layers of two inputs each, dense layers and head
    assert all(sizes[name] < 3000 for name in types if name not in int8)
    n_weights = sum(array.size for key, array in random_arrays(ARCHITECTURES["quality"]).items() if array.ndim > 1)
    assert sum(sizes[name] for name in int8) == n_weights - 4 * 40  # the other heads are left out


def test_weights_are_rounded_to_the_nearest_step_of_their_output():
    weights = np.random.default_rng(0).normal(size=(5, 30, 3)).astype(np.float32)
    weights[2] = 0
    rounded, scale = _rounded(weights, 0)
    assert rounded.dtype == np.int8 and (np.abs(rounded).max(axis=(1, 2)) == [127, 127, 0, 127, 127]).all()
    assert (np.abs(rounded * scale[:, None, None] - weights) <= scale[:, None, None] * 0.5001).all()
    tiny, scale = _rounded(np.full((1, 2), 1e-44, np.float32), 0)
    assert np.isfinite(tiny * scale).all()
    with pytest.raises(ValueError, match="not finite"):
        _rounded(np.float32([[np.nan, 1]]), 0)


def test_losses_are_those_of_known_rows():
    content, windows = exported("fast")
    expected = scored(content, windows)
    targets = drawn_classes(expected)
    known = targets >= 0
    by_hand = -np.log(expected[known].astype(np.float64)[np.arange(known.sum()), targets[known]]).mean()
    same = compare(content, content, windows, targets)
    assert same.loss == same.quantized_loss == pytest.approx(by_hand) and same.largest_difference == 0
    assert same.added_loss == 0 and same.times_smaller == 1

    content, windows = exported("fast", (1,))
    values = scored(content, windows)[:, 0].astype(np.float64) + 0.5
    values[3] = np.nan
    small = quantized(content)
    comparison = compare(content, small, windows, values)
    assert comparison.loss == pytest.approx(0.25) and comparison.quantized_loss == pytest.approx(0.25, abs=0.01)
    assert comparison.quantized_loss != comparison.loss


def test_without_known_rows_there_is_no_loss_and_lengths_must_agree():
    content, windows = exported("fast")
    unknown = compare(content, content, windows[:3], np.full(3, -1))
    assert np.isnan(unknown.loss) and np.isnan(unknown.added_loss) and unknown.largest_difference == 0
    empty = compare(content, content, windows[:0], np.zeros(0))
    assert np.isnan(empty.loss) and empty.largest_difference == 0
    with pytest.raises(ValueError, match="expected a target for each of 200 windows, got 3"):
        compare(content, content, windows, np.zeros(3))


def test_blocks_of_rows_add_up(monkeypatch):
    content, windows = exported("fast")
    targets = drawn_classes(scored(content, windows))
    whole = compare(content, quantized(content), windows, targets)
    monkeypatch.setattr("gpupipe.estimators.torch.quantize.ROWS_AT_ONCE", 64)
    blocks = compare(content, quantized(content), windows, targets)
    assert blocks.loss == pytest.approx(whole.loss, rel=1e-6) and blocks.n_bytes == whole.n_bytes
    assert blocks.largest_difference == pytest.approx(whole.largest_difference, rel=1e-3)
