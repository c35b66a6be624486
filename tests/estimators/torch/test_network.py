"""Network: against plain numpy, gradients, seeds, arrays, and margins that do not depend on the rows beside them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need Torch")

from gpupipe.estimators.torch.architecture import ARCHITECTURES, Architecture, Head, Recurrent  # noqa: E402
from gpupipe.estimators.torch.captured import WARM_UP_STEPS, CapturedCall  # noqa: E402
from gpupipe.estimators.torch.network import (  # noqa: E402
    Dropout,
    Network,
    arrays_of,
    load_arrays,
    margins,
    one_thread,
)
from tests.support.network_oracle import HEADS, LENGTHS, N_COLUMNS, margins_of, windows_of  # noqa: E402
from tests.support.networks import network_of  # noqa: E402

# float32 sums of some hundred products, through up to 60 bars of a recurrent layer, against float64.
TOLERANCE = 2e-6
# Recurrent layers in an order that no preset has: both directions last and normalised, and before the last.
UNUSUAL = Architecture((), (Recurrent("gru", 5, both=True), Recurrent("lstm", 4, both=True, normalised=True)), (7,))


def generator_of(seed):
    return torch.Generator().manual_seed(seed)


def margins_by_rows(network, windows, rows):
    """Margins numpy of some rows of windows, in the order of `rows`."""
    windows, rows = torch.from_numpy(windows), torch.as_tensor(rows)
    return margins(network, lambda part: windows[rows[part]], len(rows)).numpy()


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shorter", [False, True])
def test_network_equals_plain_numpy(name, shorter):
    length = ARCHITECTURES[name].least_length if shorter else LENGTHS[name]
    network, windows = network_of(name, length), windows_of(17, length)
    expected = margins_of(ARCHITECTURES[name], arrays_of(network), windows)
    got = margins_by_rows(network, windows, range(17))
    assert got.dtype == np.float32 and got.shape == (17, 7) and np.ptp(expected, axis=0).min() > 0.001
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def test_both_directions_in_any_place_equal_plain_numpy():
    network = Network(UNUSUAL, 6, 3, HEADS, generator_of(3)).eval()
    windows = windows_of(9, 6, 3)
    expected = margins_of(UNUSUAL, arrays_of(network), windows)
    np.testing.assert_allclose(margins_by_rows(network, windows, range(9)), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("length", [60, 90, 120])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_lengths_after_the_convolutions_are_those_of_the_architecture(name, length):
    network = network_of(name, length)
    x = torch.zeros(2, N_COLUMNS, length)
    for layer in network.convolutions:
        x = layer(x)
    assert x.shape[2] == ARCHITECTURES[name].length_after(length)
    assert network(torch.zeros(2, length, N_COLUMNS)).shape == (2, 7)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_gradient_reaches_every_parameter_and_each_head_only_its_own(name):
    network = network_of(name).train()
    windows = torch.from_numpy(windows_of(12, LENGTHS[name]))
    network(windows).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), key
    network.zero_grad()
    network(windows)[:, 3].sum().backward()
    assert network.output.weight.grad.any(dim=1).tolist() == [False] * 3 + [True] + [False] * 3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equal_generators_give_equal_networks_and_the_global_one_is_untouched(name):
    state = torch.get_rng_state()
    pair = [Network(ARCHITECTURES[name], 60, 5, HEADS, generator_of(4)) for _ in range(2)]
    with one_thread():
        pair.append(Network(ARCHITECTURES[name], 60, 5, HEADS, generator_of(4)))
    other = Network(ARCHITECTURES[name], 60, 5, HEADS, generator_of(5))
    windows = torch.from_numpy(windows_of(30, 60, 5))
    in_training = [network(windows) for network in pair]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(in_training[0], in_training[1]), "dropout differs"
    for key, array in arrays_of(pair[0]).items():
        assert array.tobytes() == arrays_of(pair[1])[key].tobytes() == arrays_of(pair[2])[key].tobytes(), key
        if "weight" in key and "normalisation" not in key:
            assert not np.array_equal(array, arrays_of(other)[key]), key


def test_weights_start_as_documented():
    arrays = arrays_of(Network(ARCHITECTURES["quality"], 120, 40, HEADS, generator_of(0)))
    for key, array in arrays.items():
        if "weight_hh" in key:
            size = array.shape[1]
            np.testing.assert_allclose(array.T @ array, np.eye(size), atol=1e-6)
        elif "bias_ih" in key:
            size = len(array) // 4
            assert (array == np.repeat([0, 1, 0, 0], size)).all()
        elif key.endswith("bias"):
            assert not array.any(), key
    for array, bound in [
        (arrays["convolutions.0.convolution.weight"], math.sqrt(6 / (3 * 40 + 3 * 64))),
        (arrays["recurrent.0.cell.weight_ih_l0_reverse"], math.sqrt(6 / (256 + 480))),
        (arrays["dense.1.linear.weight"], math.sqrt(6 / (80 + 40))),
        (arrays["output.weight"][:3], math.sqrt(6 / (40 + 3))),
        (arrays["output.weight"][3:4], math.sqrt(6 / (40 + 1))),
    ]:
        assert 0.85 * bound < np.abs(array).max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bits_of_a_row_do_not_depend_on_the_rows_beside_it(name):
    network, windows = network_of(name), windows_of(600, LENGTHS[name])
    rng = np.random.default_rng(1)
    expected = margins_by_rows(network, windows, range(600))
    for rows in [rng.permutation(600), *(rng.permutation(600)[:n] for n in (1, 2, 7, 255, 257))]:
        assert margins_by_rows(network, windows, rows).tobytes() == expected[rows].tobytes(), len(rows)


@pytest.mark.parametrize("n_outputs", [1, 2, 3, 5, 8, 18, 54])
def test_bits_of_a_row_do_not_depend_on_the_number_of_heads(n_outputs):
    """50 inputs of few outputs are what MKL adds up differently by row."""
    heads = [Head("a", n_outputs)]
    network = Network(dataclasses.replace(UNUSUAL, dense=(50,)), 4, 3, heads, generator_of(0))
    windows = windows_of(300, 4, 3)
    rows = np.random.default_rng(0).permutation(300)
    expected = margins_by_rows(network, windows, range(300))
    assert margins_by_rows(network, windows, rows).tobytes() == expected[rows].tobytes()


def test_margins_leave_the_network_and_torch_as_they_were_and_run_side_by_side():
    network, windows = network_of("fast").train(), windows_of(300, 60)
    threads, before = torch.get_num_threads(), arrays_of(network)
    expected = margins_by_rows(network, windows, range(300))
    assert network.training and torch.get_num_threads() == threads
    for key, array in arrays_of(network).items():
        assert array.tobytes() == before[key].tobytes(), key
    network.eval()
    got = [None] * 3
    workers = [
        threading.Thread(target=lambda k=k: got.__setitem__(k, margins_by_rows(network, windows, range(300))))
        for k in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(array.tobytes() == expected.tobytes() for array in got)
    assert margins_by_rows(network, windows, []).shape == (0, 7)


def test_a_source_that_reuses_its_buffer_is_copied():
    network, windows = network_of("fast"), windows_of(300, 60)
    buffer = torch.empty(256, 60, N_COLUMNS)

    def reused(part):
        chosen = torch.from_numpy(windows[part])
        return buffer[: len(chosen)].copy_(chosen)

    assert margins(network, reused, 300).numpy().tobytes() == margins_by_rows(network, windows, range(300)).tobytes()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_arrays_go_into_another_network_and_copies_are_their_own(name):
    network, windows = network_of(name), windows_of(5, LENGTHS[name])
    arrays = arrays_of(network)
    assert all(array.dtype == np.float32 for array in arrays.values())
    again = network_of(name, seed=9)
    parameters = {key: parameter.data_ptr() for key, parameter in again.named_parameters()}
    load_arrays(again, arrays)
    assert {key: parameter.data_ptr() for key, parameter in again.named_parameters()} == parameters, "not in place"
    expected = margins_by_rows(network, windows, range(5)).tobytes()
    assert margins_by_rows(again, windows, range(5)).tobytes() == expected
    replica = copy.deepcopy(network)
    for array in arrays.values():
        array[...] = 0
    with torch.no_grad():
        replica.output.weight.zero_()
    assert margins_by_rows(network, windows, range(5)).tobytes() == expected


def test_arrays_of_another_network_are_refused_and_change_nothing():
    network = network_of("fast")
    before = arrays_of(network)
    fewer = {key: array for key, array in before.items() if key != "output.bias"}
    for arrays, problem in [
        (fewer, r"array output\.bias of a network: expected \(7,\), got no such array"),
        ({**before, "x": np.zeros(3)}, r"array x of a network: expected no such array, got \(3,\)"),
        (arrays_of(network_of("fast", n_columns=4)), r"convolutions\.0\.convolution\.weight .* got \(32, 4, 3\)"),
    ]:
        with pytest.raises(ValueError, match=problem):
            load_arrays(network, arrays)
    assert all(array.tobytes() == before[key].tobytes() for key, array in arrays_of(network).items())


def test_heads_and_trunk_share_no_parameter_and_leave_none_out():
    network = network_of("balanced")
    heads, trunk = ({id(p) for p in of()} for of in (network.head_parameters, network.trunk_parameters))
    assert not heads & trunk and heads | trunk == {id(parameter) for parameter in network.parameters()}
    assert [tuple(parameter.shape) for parameter in network.head_parameters()] == [(7, 40), (7,)]


def test_dropout_draws_from_its_own_generator_alone():
    layer, x = Dropout(0.3), torch.ones(400, 50)
    state = torch.get_rng_state()
    layer.generator = generator_of(1)
    first, second = layer(x), layer(x)
    layer.generator = generator_of(1)
    assert torch.equal(layer(x), first) and not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert first.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert layer.eval()(x) is x and Dropout(0.0)(x) is x


def test_dropout_of_a_network_is_settable_and_independent_of_threads():
    network = network_of("balanced").train()
    windows = torch.from_numpy(windows_of(64, 90))
    network.dropout_generator = generator_of(7)
    first = network(windows)
    network.dropout_generator = generator_of(7)
    with one_thread():
        masks = [layer(torch.ones(3000)) for layer in network._dropouts()]
    network.dropout_generator = generator_of(7)
    assert all(
        torch.equal(layer(torch.ones(3000)), mask) for layer, mask in zip(network._dropouts(), masks, strict=True)
    )
    network.dropout_generator = generator_of(8)
    assert not torch.equal(network(windows), first)


def test_nan_gives_nan_for_its_own_row_alone():
    network, windows = network_of("quality"), windows_of(4, 120)
    expected = margins_by_rows(network, windows, range(4))
    windows[2, 100, 3] = np.nan
    got = margins_by_rows(network, windows, range(4))
    assert np.isnan(got[2]).all() and got[[0, 1, 3]].tobytes() == expected[[0, 1, 3]].tobytes()


def test_windows_and_networks_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="windows have 9 bars, expected 10 or more"):
        Network(ARCHITECTURES["legacy"], 9, 5, HEADS, generator_of(0))
    with pytest.raises(ValueError, match="got 0 columns and 3 heads"):
        Network(ARCHITECTURES["fast"], 60, 0, HEADS, generator_of(0))
    with pytest.raises(ValueError, match="got 5 columns and 0 heads"):
        Network(ARCHITECTURES["fast"], 60, 5, [], generator_of(0))
    with pytest.raises(ValueError, match=r"expected windows \(n, 60, 11\), got \(2, 59, 11\)"):
        network_of("fast")(torch.zeros(2, 59, 11))


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("Torch has no CUDA device")
    return torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_gpu_gives_nearly_the_margins_of_a_cpu(name, cuda):
    network, windows = network_of(name), windows_of(300, LENGTHS[name])
    expected = margins_by_rows(network, windows, range(300))
    network.to(cuda)
    on_device = torch.from_numpy(windows).to(cuda)
    got = margins(network, lambda part: on_device[part], 300)
    assert got.device.type == "cuda"
    # cuDNN's recurrent layers may multiply in TF32, which has 10 bits after the point.
    np.testing.assert_allclose(got.cpu().numpy(), expected, rtol=0, atol=1e-2)


@pytest.mark.gpu
def test_dropout_in_a_cuda_graph_draws_anew_at_each_replay(cuda):
    layer, x = Dropout(0.5), torch.ones(10_000, device=cuda)
    layer.generator = torch.Generator(device=cuda).manual_seed(1)
    call = CapturedCall(lambda: layer(x), captured=True, generator=lambda: layer.generator)
    draws = [call().clone() for _ in range(WARM_UP_STEPS + 3)]
    assert not any(torch.equal(*pair) for pair in itertools.combinations(draws, 2))
    assert all(draw.mean().item() == pytest.approx(1, abs=0.1) for draw in draws)
