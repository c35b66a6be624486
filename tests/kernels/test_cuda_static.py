"""Checks of the CUDA kernels without a GPU: each compiles, does not spill registers, and equals the CPU loop."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gpupipe.features.expressions import Across, lower
from gpupipe.features.formulas import FEATURES
from gpupipe.features.matrix import feature_names
from gpupipe.kernels import operations
from gpupipe.kernels.compile import all_kernels
from gpupipe.kernels.gpu_code import ptx_target
from tests.support.kernel_calls import EVERY_OPERATION, copies, recorded_calls
from tests.support.kernel_resources import ARCHITECTURES, TABLE, arch_of, ptx_of, resources_of

KERNELS = {kernel.full_name: kernel for kernel in all_kernels()}
REGISTERS = json.loads(TABLE.read_text())
# Another minor version of the compilers may allocate registers a little differently.
MORE_REGISTERS = 1.25
# Bytes that a kernel may keep outside of registers: some addresses, read once a row beside 100,000 products.
SPILLED = {"episodes.policy_episode": 96}


def operations_of(names):
    series = [FEATURES[name].series for name in feature_names(names)]
    program = lower([item.series if isinstance(item, Across) else item for item in series])
    return set(program.operations[:, operations.CODE].tolist())


def test_every_operation_that_features_use_is_tested():
    assert operations_of(EVERY_OPERATION) == operations_of(("all", "session"))


def test_the_table_of_registers_lists_exactly_the_kernels():
    assert set(REGISTERS) == set(KERNELS), "run: python -m tests.support.kernel_resources"


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("cc", ARCHITECTURES, ids=arch_of)
def test_kernel_compiles_for_the_architecture_and_stays_in_registers(cc, name):
    kernel = KERNELS[name]
    ptx = ptx_of(kernel, cc)
    assert f".target {arch_of(ptx_target(cc))}" in ptx
    # In both directions: a kernel that does not need float64 must not declare it.
    assert (".f64" in ptx) == kernel.double_precision
    # Each instruction rounds as IEEE 754 says, products and sums apart, and no library is called: the bits are those of
    # the CPU loop.
    assert not re.search(r"\bfma\.|\.approx|div\.full|\.ftz|^\s*call\b", ptx, re.MULTILINE)
    assert not re.search(r"\b(min|max)\.f", ptx), "see kernels/ordering.py: a GPU's leave NaN out"
    resources = resources_of(ptx, cc)
    spilled = {key: resources[key] for key in ("stack", "spill_stores", "spill_loads")}
    assert max(spilled.values()) <= SPILLED.get(name, 0), spilled
    limit = REGISTERS[name][arch_of(cc)] * MORE_REGISTERS
    assert resources["registers"] <= limit, "more registers than in the table: if intended, regenerate the table"


def assert_same(name, got, expected):
    skipped = int(KERNELS[name].cooperative)  # its scratch memory
    for a, b in zip(got[skipped:], expected[skipped:], strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_plain_body_equals_the_compiled_loop():
    calls = recorded_calls()
    assert {call.kernel.full_name for call in calls} == set(KERNELS), "a kernel that is not called is not tested"
    written = set()
    for call in calls:
        kernel, name, arguments = call.kernel, call.kernel.full_name, copies(call.before)
        outputs = zip(call.before, call.after, strict=True)
        if any(not np.array_equal(a, b, equal_nan=True) for a, b in list(outputs)[int(kernel.cooperative) :]):
            written.add(name)
        with np.errstate(all="ignore"):
            for i in range(call.n):
                first = [arguments[0][0]] if kernel.cooperative else arguments[:1]
                kernel.body(np.int64(i), *first, *arguments[1:])
        assert_same(name, arguments, call.after)
    assert written == set(KERNELS), "a kernel that never writes an output is not tested here"
