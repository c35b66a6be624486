"""What the stand-in's Torch refuses, counts and shares. Run on the stand-in, by test_torch_like.py."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import cupy
import numpy as np
import pytest
import torch

from gpupipe.estimators.torch.captured import WARM_UP_STEPS, CapturedCall, can_capture
from gpupipe.estimators.torch.network import arrays_of
from gpupipe.runtime import device
from tests.support.stand_in import counting, torch_graph, torch_like
from tests.support.stand_in.counting import COUNTS
from tests.support.stand_in.recorded import RefusedError
from tests.support.stand_in.torch_tensor import DeviceTensor

HOST = torch.arange(12, dtype=torch.float32).reshape(3, 4)
UNCOUNTED = counting.UNCOUNTED


@pytest.fixture
def x():
    return HOST.to("cuda")


@pytest.fixture
def counted():
    """Numbers by kind since the fixture was asked, or since the last call."""

    def numbers(*left_out):
        found = {kind: sum(stages.values()) for kind, stages in COUNTS.by_stage().items() if stages}
        COUNTS.clear()
        return {kind: n for kind, n in found.items() if kind not in left_out}

    COUNTS.clear()
    return numbers


def captured(function, generator=None):
    """A call that has been captured, and was replayed once."""
    call = CapturedCall(function, True, None if generator is None else lambda: generator)
    for _ in range(WARM_UP_STEPS + 1):
        call()
    return call


@pytest.mark.parametrize("mixed", [
    lambda x: x + HOST, lambda x: HOST * x, lambda x: x @ HOST.T, lambda x: torch.cat([x, HOST]),
    lambda x: torch.where(x > 0, x, HOST), lambda x: HOST[x[0].long()], lambda x: x.add_(HOST),
    lambda x: torch.add(x, x, out=torch.empty(3, 4)), lambda x: torch.nn.Linear(4, 2)(x),
    lambda x: x.__setitem__(torch.tensor([0], device="cuda"), HOST[:1]), lambda x: setattr(x, "grad", HOST),
])  # fmt: skip
def test_tensors_of_two_devices_are_refused(x, mixed):
    with pytest.raises(RuntimeError, match=r"same device.*cuda:0 and cpu"):
        mixed(x)


def test_a_number_of_the_host_may_meet_a_tensor_of_the_device(x):
    assert (x + torch.tensor(2.0)).cpu().equal(HOST + 2)


@pytest.mark.parametrize("convert", [lambda x: x.numpy(), np.asarray, lambda x: np.ones(4) * x, np.exp])
def test_numpy_is_refused(x, convert):
    with pytest.raises(TypeError, match=r"can't convert cuda:0 device type tensor to numpy|unsupported operand"):
        convert(x)


@pytest.mark.parametrize("draw", [
    lambda: torch.rand(3, generator=torch.Generator(), device="cuda"),
    lambda: torch.rand(3, generator=torch.Generator("cuda")),
    lambda: torch.empty(3, device="cuda").bernoulli_(0.5, generator=torch.Generator()),
])  # fmt: skip
def test_a_generator_of_the_other_device_is_refused(draw):
    with pytest.raises(RuntimeError, match="device type for generator but found"):
        draw()


@pytest.mark.parametrize(("step", "expected"), [
    (lambda x: x + 1, {}),
    (lambda x: x.sum().item(), {counting.WAITS: 1, UNCOUNTED: 4}),
    (lambda x: bool((x > 0).any()), {counting.WAITS: 1, UNCOUNTED: 1}),
    (lambda x: f"{x.mean():.2f}", {counting.WAITS: 1, UNCOUNTED: 4}),
    (lambda x: x.tolist(), {counting.WAITS: 1, UNCOUNTED: 48}),
    (lambda x: x.cpu(), {counting.WAITS: 1, UNCOUNTED: 48}),
    (lambda x: x[:1].to("cpu", torch.float64), {counting.WAITS: 1, UNCOUNTED: 16}),
    (lambda x: torch.zeros(3, 4).copy_(x), {counting.WAITS: 1, UNCOUNTED: 48}),
    (lambda x: x.copy_(HOST), {UNCOUNTED: 48}),
    (lambda x: torch.tensor([1.0, 2.0], device="cuda"), {UNCOUNTED: 8}),
    (lambda x: torch.as_tensor(HOST, device="cuda"), {UNCOUNTED: 48}),
    (lambda x: torch.nn.Linear(4, 2).to("cuda"), {UNCOUNTED: 40}),
    (lambda x: x[torch.tensor([0, 2])], {UNCOUNTED: 16}),
    (lambda x: x[x > 3], {counting.SIZES: 1}),
    (lambda x: x.__setitem__(x > 3, 0), {}),
    (lambda x: (x > 3).nonzero(), {counting.SIZES: 1}),
    (lambda x: torch.equal(x, x), {counting.WAITS: 1}),
    (lambda x: torch.cuda.synchronize(), {counting.WAITS: 1}),
])  # fmt: skip
def test_waits_and_copies_are_counted(x, counted, step, expected):
    step(x)
    assert counted(counting.OPERATORS) == expected


@pytest.mark.parametrize(("move", "kind", "dtype"), [
    (lambda x: HOST.to("cuda:0", torch.float64, non_blocking=True), "cuda", torch.float64),
    (lambda x: HOST.to(device="cuda", dtype=torch.int32), "cuda", torch.int32),
    (lambda x: HOST.to(x), "cuda", torch.float32), (lambda x: HOST.cuda(), "cuda", torch.float32),
    (lambda x: x.to(torch.float64), "cuda", torch.float64), (lambda x: x.double(), "cuda", torch.float64),
    (lambda x: x.to(HOST.long()), "cpu", torch.int64), (lambda x: x.to("cpu", copy=True), "cpu", torch.float32),
    (lambda x: torch.zeros_like(x, device="cpu"), "cpu", torch.float32),
    (lambda x: torch.zeros_like(HOST, device="cuda", dtype=torch.bool), "cuda", torch.bool),
    (lambda x: x.new_zeros(3), "cuda", torch.float32),
])  # fmt: skip
def test_tensors_go_where_they_are_sent(x, move, kind, dtype):
    result = move(x)
    assert (result.device.type, result.is_cuda, result.dtype) == (kind, kind == "cuda", dtype)
    assert isinstance(result, DeviceTensor) == (kind == "cuda") and x.to("cuda") is x


@pytest.mark.parametrize(("step", "n"), [
    (lambda x: x[1:].T.detach().unflatten(0, (2, 2)), 0), (lambda x: x + 1, 1), (lambda x: (x * 2).sum(dim=0), 2),
    (lambda x: x.add_(1), 1), (lambda x: x.__setitem__(0, 1.0), 1), (lambda x: torch.add(x, x, out=x), 1),
    (lambda x: torch.zeros(3, device="cuda"), 1), (lambda x: x.contiguous().float(), 0), (lambda x: len(x), 0),
])  # fmt: skip
def test_operators_are_counted_and_views_are_not(x, counted, step, n):
    step(x)
    assert counted() == ({counting.OPERATORS: n} if n else {})


def test_a_replayed_graph_is_one_launch(x, counted):
    call = captured(lambda: (x * 2).sum())
    counted()
    call()
    assert counted() == {counting.LAUNCHES: 1}


def test_memory_is_shared_with_cupy_without_a_copy(x, counted):
    array = cupy.from_dlpack(x)
    back = torch.as_tensor(array, device="cuda")
    again, through = torch.from_dlpack(array), cupy.asarray(x)
    back[0, 0] = 7
    assert isinstance(back, DeviceTensor) and isinstance(again, DeviceTensor) and counted(counting.OPERATORS) == {}
    assert array[0, 0].item() == x[0, 0].item() == again[0, 0].item() == through[0, 0].item() == 7
    with pytest.raises(RefusedError, match="on the host"):
        cupy.from_dlpack(HOST)


def test_a_module_is_moved_in_place_and_has_gradients_on_the_device(x):
    layer = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2))
    before = list(layer.parameters())
    layer.to("cuda")
    assert all(a is b for a, b in zip(before, layer.parameters(), strict=True))
    assert all(isinstance(tensor, DeviceTensor) for tensor in layer.state_dict().values())
    layer(x).sum().backward()
    assert all(parameter.grad.is_cuda and parameter.is_leaf for parameter in layer.parameters())


def test_the_weights_of_a_network_come_to_the_host_in_one_copy(counted):
    layer = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2))
    layer[1].num_batches_tracked = None
    expected = {name: tensor.numpy().copy() for name, tensor in layer.state_dict().items()}
    layer.to("cuda")
    counted()
    arrays = arrays_of(layer)
    assert counted(counting.OPERATORS) == {counting.WAITS: 1, UNCOUNTED: 72} and arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[name], values) for name, values in expected.items())


def test_memory_that_nobody_wrote_holds_no_numbers():
    assert torch.empty(3, device="cuda").isnan().all() and torch.empty(2, dtype=torch.int64, device="cuda").max() < 0


def test_what_the_stand_in_was_not_taught_is_refused():
    with pytest.raises(RefusedError, match=r"torch\.cuda\.empty_cache: not known"):
        torch.cuda.empty_cache()
    with pytest.raises(RuntimeError, match="already initialized allocator"):
        torch_like.change_current_allocator(None)


def test_torch_that_was_on_the_gpu_before_keeps_its_pool(x, caplog):
    device.pick("cuda")
    device._torch_joins.__wrapped__()
    assert "keeps the memory pool" in caplog.text and can_capture()


def test_a_capture_in_another_librarys_pool_is_refused(x, monkeypatch):
    monkeypatch.setattr(torch_graph, "started", [])
    monkeypatch.setattr(torch_graph, "allocator", ["native"])
    torch_like.change_current_allocator(None)
    assert not can_capture()
    with pytest.raises(RefusedError, match="another library's pool"):
        captured(lambda: x + 1)


def test_a_replay_does_what_a_call_does(x):
    total = torch.zeros((), device="cuda")

    def step():
        total.add_(x.sum())
        return total * 2, [x[0].exp()]

    call = CapturedCall(step, True)
    for k in range(1, WARM_UP_STEPS + 4):
        doubled, (first,) = call()
        assert doubled.item() == 2 * total.item() == k * 132
        assert first.cpu().equal(HOST[0].exp())


def test_a_capture_runs_nothing(x):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = x.add_(1)
        other = x * 2
    graph.bind(lambda: (x.add_(1), x * 2), (result, other))
    assert x.cpu().equal(HOST) and other.isnan().all()
    graph.replay()
    assert x.cpu().equal(HOST + 1) and other.cpu().equal(2 * HOST + 2)


@pytest.mark.parametrize("wait", [
    lambda x: x.sum().item(), lambda x: x.cpu(), lambda x: x[x > 3], lambda x: torch.tensor(1.0, device="cuda"),
    lambda x: x.copy_(HOST), lambda x: torch.cuda.synchronize(), lambda x: cupy.from_dlpack(x).get(),
    lambda x: HOST.to("cuda"), lambda x: x[torch.tensor([0])],
])  # fmt: skip
def test_a_wait_or_a_copy_in_a_capture_is_refused(x, wait):
    with pytest.raises(RuntimeError, match="operation not permitted when stream is capturing"):
        captured(lambda: wait(x))
    x.sum().item()  # the capture has ended


def test_a_tensor_that_moves_after_the_capture_is_refused(x):
    held = {"x": x}
    call = captured(lambda: held["x"] * 2)
    call()
    held["x"] = x.clone()
    with pytest.raises(torch_graph.ReplayError, match=r"mul of a tensor \d+ .*captured with a tensor \d+"):
        call()


def test_another_row_of_the_same_tensor_is_refused(x):
    held = {"row": 0}
    call = captured(lambda: x[held["row"]] * 2)
    held["row"] = 1
    with pytest.raises(torch_graph.ReplayError, match="__getitem__ of a value 1, captured with a value 0"):
        call()


@pytest.mark.parametrize("number", [1.5, 2, True, torch.tensor(3.0)])
def test_a_number_of_the_host_that_changes_is_refused(x, number):
    held = {"factor": torch.tensor(0.0) if isinstance(number, torch.Tensor) else type(number)(0)}
    call = captured(lambda: x * held["factor"])
    held["factor"] = number
    with pytest.raises(torch_graph.ReplayError, match=r"mul of a (value|number of the host) .*captured with"):
        call()


@pytest.mark.parametrize(("before", "after", "message"), [
    (lambda x: x + 1, lambda x: x - 1, "sub.*the capture had add"),
    (lambda x: (x + 1) * 2, lambda x: x + 1, "mul was captured, and is not called now"),
    (lambda x: x + 1, lambda x: (x + 1) * 2, "mul.*the capture had None"),
    (lambda x: torch.zeros(2, device="cuda"), lambda x: torch.zeros(3, device="cuda"), "value 3, captured with a"),
])  # fmt: skip
def test_other_operators_than_the_captured_are_refused(x, before, after, message):
    held = {"step": before}
    call = captured(lambda: held["step"](x))
    held["step"] = after
    with pytest.raises(torch_graph.ReplayError, match=message):
        call()


def test_a_graph_draws_from_the_generator_that_it_knows_alone(x):
    generator = torch.Generator("cuda").manual_seed(0)
    held = {"generator": generator}

    def draw():
        return torch.empty_like(x).bernoulli_(0.5, generator=held["generator"])

    with pytest.raises(RuntimeError, match="not in capture mode"):
        captured(draw)
    call = captured(draw, generator)
    assert not torch.equal(call().clone(), call())
    generator.manual_seed(5)
    first = call().clone()
    generator.manual_seed(5)
    assert torch.equal(first, call())
    held["generator"] = torch.Generator("cuda")
    with pytest.raises(RuntimeError, match="not in capture mode"):
        call()


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)])
def test_a_rate_that_an_optimiser_has_as_a_number_is_refused_once_it_changes(x, rate):
    weights = torch.nn.Parameter(torch.ones(4).to("cuda"))
    rate = rate if isinstance(rate, float) else rate.to("cuda")
    optimizer = torch.optim.Adam([weights], lr=rate, capturable=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        (x @ weights).square().sum().backward()
        optimizer.step()

    call = captured(step)
    call()
    before = weights.detach().clone()
    if not isinstance(rate, float):
        rate.fill_(0.0)
        call()
        assert torch.equal(weights.detach(), before)
        return
    optimizer.param_groups[0]["lr"] = 0.0
    with pytest.raises(torch_graph.ReplayError, match=r"0\.0, captured with .*0\.1"):
        call()


def test_an_optimiser_that_a_graph_cannot_hold_is_refused(x):
    weights = torch.nn.Parameter(torch.ones(4).to("cuda"))
    optimizer = torch.optim.Adam([weights], lr=0.1)

    def step():
        (x @ weights).sum().backward()
        optimizer.step()

    with pytest.raises(RuntimeError, match=r"capturable is False|not permitted when stream is capturing"):
        captured(step)


def test_one_capture_at_a_time_and_no_allocation_beside_a_global_one(x):
    other = ThreadPoolExecutor(1)

    def in_thread(function):
        return other.submit(function).result()

    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing: an allocation"):
            in_thread(lambda: x + 1)
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing: the device is synchronised"):
            in_thread(torch.cuda.synchronize)
    with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
        in_thread(lambda: (x + 1).sum().item())
        with pytest.raises(RuntimeError, match="another capture is underway"):
            in_thread(lambda: torch_graph.CUDAGraph().capture_begin("thread_local"))
    other.shutdown()


def test_threads_capture_their_calls_one_after_the_other():
    """The fault was found here: candidates of the agent train side by side."""
    start = threading.Barrier(4)

    def run(k):
        counter = torch.zeros((), device="cuda")
        call = CapturedCall(lambda: counter.add_(k), captured=True)
        start.wait()
        for _ in range(20):
            call()
        return counter.item()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [0, 20, 40, 60]
