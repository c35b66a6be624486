"""The stand-in for CuPy refuses what CuPy refuses, counts what crosses the bus, and rounds as a GPU may round."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.stand_in import counting, cupy_like, rounding
from tests.support.stand_in.counting import COUNTS

HOST = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def cupy():
    """The module, not installed as `cupy`."""
    return cupy_like.module()


@pytest.fixture
def counted():
    """What is counted in a test, kind by kind."""
    COUNTS.clear()
    return lambda: {kind: sum(stages.values()) for kind, stages in COUNTS.by_stage().items() if stages}


@pytest.mark.parametrize("refused", [
    lambda cupy, a: np.asarray(a),
    lambda cupy, a: cupy.sum(HOST),
    lambda cupy, a: cupy.concatenate([a, HOST]),
    lambda cupy, a: cupy.asarray([HOST, HOST]),
    lambda cupy, a: a + HOST,
    lambda cupy, a: HOST * a,
    lambda cupy, a: a @ HOST.T,
    lambda cupy, a: a < HOST,
    lambda cupy, a: a.__setitem__(0, HOST[0]),
    lambda cupy, a: cupy.sum(a, axes=0),
    lambda cupy, a: cupy.exp(a, where=a > 0),
    lambda cupy, a: a.sum(initial=1),
    lambda cupy, a: a.astype("f8", kind="same"),
    lambda cupy, a: a.item(0),
    lambda cupy, a: cupy.lexsort([a[0], a[1]]),
    lambda cupy, a: cupy.repeat(a[0], cupy.arange(7)),
])  # fmt: skip
def test_what_cupy_refuses_is_refused(cupy, refused):
    with pytest.raises(TypeError):
        refused(cupy, cupy.asarray(HOST))


@pytest.mark.parametrize("name", ["nanpercentile", "insert", "geomspace"])
def test_a_function_of_numpy_that_cupy_lacks_is_not_there(cupy, name):
    with pytest.raises(AttributeError, match=name):
        getattr(cupy, name)


@pytest.mark.parametrize("name", ["ctypes", "setflags", "resize"])
def test_a_method_of_numpy_that_cupy_lacks_is_not_there(cupy, name):
    with pytest.raises(AttributeError, match=name):
        getattr(cupy.asarray(HOST), name)


def test_functions_give_device_arrays_also_for_scalars(cupy):
    a = cupy.asarray(HOST)
    for result in (a.max(), a[0, 0], cupy.sum(a), a + 1, 1 - a, a.T, a.reshape(-1), cupy.where(a > 0, a, 0), -a):
        assert isinstance(result, cupy.ndarray)
    assert all(isinstance(part, cupy.ndarray) for part in cupy.nonzero(a > 0))
    np.testing.assert_array_equal((2 - a * 3).get(), 2 - HOST * 3)
    out = cupy.empty_like(a)
    assert cupy.add(a, a, out=out) is out and out[0, 0].item() == 2 * HOST[0, 0]
    a += 1
    np.testing.assert_array_equal(cupy.asnumpy(a), HOST + 1)


def test_copies_over_the_bus_are_counted(cupy, counted):
    a = cupy.asarray(HOST)
    assert counted() == {counting.TO_DEVICE: HOST.nbytes}
    np.testing.assert_array_equal(a[:2].get(), HOST[:2])
    assert counted() == {counting.TO_DEVICE: HOST.nbytes, counting.TO_HOST: 56, counting.WAITS: 1}


@pytest.mark.parametrize(("step", "kind"), [
    (lambda cupy, a: float(a[0, 0]), counting.WAITS),
    (lambda cupy, a: bool((a > 0).any()), counting.WAITS),
    (lambda cupy, a: cupy.cuda.get_current_stream().synchronize(), counting.WAITS),
    (lambda cupy, a: a[a > 0], counting.SIZES),
    (lambda cupy, a: a.__setitem__(a > 0, 0), counting.SIZES),
    (lambda cupy, a: cupy.flatnonzero(a > 0), counting.SIZES),
    (lambda cupy, a: cupy.unique(a), counting.SIZES),
    (lambda cupy, a: cupy.bincount(cupy.arange(7)), counting.SIZES),
    (lambda cupy, a: a[np.array([0, 2])], counting.UNCOUNTED),
    (lambda cupy, a: a[0, 0].item(), counting.UNCOUNTED),
    (lambda cupy, a: np.exp(a), counting.NOTES),
])  # fmt: skip
def test_waits_and_hidden_copies_are_counted(cupy, counted, step, kind):
    a = cupy.asarray(HOST)
    step(cupy, a)
    assert counted()[kind] > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [3, 8, 16, 40, 1000])
def test_sums_are_added_in_another_order(cupy, n, dtype):
    values = np.random.default_rng(n).normal(size=(50, n)).astype(dtype)
    a = cupy.asarray(values)
    for name in ("sum", "mean", "var"):
        exact, got = getattr(values, name)(axis=1), getattr(a, name)(axis=1).get()
        assert (got != exact).any()
        np.testing.assert_allclose(got, exact, rtol=1e-3 if dtype == np.float32 else 1e-11, atol=1e-5)
    for got, exact in (((a @ a.T).get(), values @ values.T), (cupy.cumsum(a, axis=1).get(), values.cumsum(axis=1))):
        assert (got != exact).any() or n == 3
        np.testing.assert_allclose(got, exact, rtol=1e-3, atol=1e-4)


def test_a_sum_of_two_is_the_same_on_both(cupy):
    values = HOST[:, :2]
    np.testing.assert_array_equal(cupy.asarray(values).sum(axis=1).get(), values.sum(axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["exp", "log", "log1p", "tanh"])
def test_transcendental_functions_differ_by_a_unit_in_the_last_place(cupy, name, dtype):
    values = np.linspace(0.01, 5, 300, dtype=dtype)
    exact, got = getattr(np, name)(values), getattr(cupy, name)(cupy.asarray(values)).get()
    share = (got != exact).mean()
    assert 0.2 < share < 0.5
    np.testing.assert_array_max_ulp(got, exact, maxulp=1)


def test_exact_results_stay_exact(cupy):
    zero_and_one = cupy.asarray(np.array([0.0, 1.0]))
    assert cupy.exp(zero_and_one)[0].item() == 1 and cupy.log(zero_and_one[1:])[0].item() == 0
    np.testing.assert_array_equal(cupy.sqrt(abs(cupy.asarray(HOST))).get(), np.sqrt(abs(HOST)))
    np.testing.assert_array_equal(cupy.asarray(np.arange(99)).cumsum().get(), np.arange(99).cumsum())


def test_rounding_is_turned_off(cupy, monkeypatch):
    monkeypatch.setattr(rounding.EXACT, "on", True)
    a = cupy.asarray(HOST)
    np.testing.assert_array_equal(a.sum(axis=0).get(), HOST.sum(axis=0))
    np.testing.assert_array_equal(cupy.exp(a).get(), np.exp(HOST))


def test_memory_is_held_as_long_as_an_array_or_a_view_of_it(cupy):
    from tests.support.stand_in.memory import ALLOCATIONS

    before = ALLOCATIONS.current_bytes
    a = cupy.zeros(1000, np.float32)
    view = a[:10]
    assert ALLOCATIONS.current_bytes == before + 4096
    del a
    assert ALLOCATIONS.current_bytes == before + 4096
    del view
    assert ALLOCATIONS.current_bytes == before
    assert ALLOCATIONS.peak_bytes >= before + 4096
