"""A checked program finds what it should: faults are planted in kernels, and barriers are left out."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gpupipe.kernels.compile import all_kernels
from tests.support.kernel_calls import calls_in_parts, copies, recorded_calls
from tests.support.kernel_resources import ptx_of
from tests.support.ptx import guarded, may_be_contracted, program, why_not
from tests.support.ptx.comparison import differing, in_few_blocks, launch, outputs_of, with_garbage
from tests.support.ptx.syntax import Instruction, parse

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

KERNELS = {kernel.full_name: kernel for kernel in all_kernels()}
HOPPER = (9, 0)
# x is the address of 8 items of 4 bytes, the thread's own item is at %rd2.
HEAD = """
.visible .entry planted(.param .u64 x)
{
.reg .pred %p<3>;
.reg .b32 %r<9>;
.reg .b64 %rd<9>;
.reg .f32 %f<9>;
ld.param.u64 %rd1, [x];
mov.u32 %r1, %tid.x;
mov.u32 %r2, %ctaid.x;
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd2, %rd1, %rd2;
"""


def faults_of(body, grid=1, block=4, written=True, unknown=False, items=8):
    """The faults of a kernel of these instructions over 8 items."""
    x = guarded(np.zeros(items, np.float32))
    text = HEAD + body.replace("; ", ";\n") + "\nret;\n}\n"
    report = program(text, checked=True).launch([x], grid, block, [x], 7, [written], [unknown])
    assert bool(report.messages) == bool(report.faults)
    return set(report.faults)


@pytest.mark.parametrize(
    ("fault", "body", "options"),
    [
        (None, "st.global.u32 [%rd2], %r1;", {}),
        (None, "st.global.u32 [%rd2], %r1; bar.sync 0; ld.global.u32 %r3, [%rd1];", {}),
        ("outside", "st.global.u32 [%rd2+32], %r1;", {}),
        ("outside", "ld.global.u32 %r3, [%rd1+-4];", {}),
        ("outside", "ld.global.u64 %rd3, [%rd1+28];", {}),
        ("race", "st.global.u32 [%rd2], %r1; ld.global.u32 %r3, [%rd1];", {}),
        ("race", "ld.global.u32 %r3, [%rd2+4]; st.global.u32 [%rd2], %r3;", {}),
        ("race", "st.global.u32 [%rd1], %r1;", {}),
        ("race", "add.u32 %r1, %r1, 1; st.global.u32 [%rd1], %r1;", {}),
        ("same value by two", "mov.u32 %r3, 5; st.global.u32 [%rd1], %r3;", {}),
        ("between blocks", "add.u32 %r3, %r2, 1; st.global.u32 [%rd1], %r3;", {"grid": 2, "block": 1}),
        ("between blocks", "st.global.u32 [%rd1], %r2; ld.global.u32 %r3, [%rd1];", {"grid": 2, "block": 1}),
        ("between blocks", "ld.global.u32 %r3, [%rd1]; st.global.u32 [%rd1], %r3;", {"grid": 2, "block": 1}),
        ("store to input", "st.global.u32 [%rd2], %r1;", {"written": False}),
        ("barrier", "setp.eq.s32 %p1, %r1, 1; @%p1 ret; bar.sync 0;", {}),
        ("barrier", "setp.eq.s32 %p1, %r1, 1;\n@%p1 bra $L1;\nbar.sync 0;\nret;\n$L1:\nbar.sync 0;", {}),
        ("not written", "ld.global.u32 %r3, [%rd2];", {"unknown": True}),
        (None, "st.global.u32 [%rd2], %r1; ld.global.u32 %r3, [%rd2];", {"unknown": True}),
        ("unaligned", "ld.global.u32 %r3, [%rd1+2];", {}),
        ("unaligned", "st.global.u16 [%rd1+1], %r1;", {"block": 1}),
        ("division by zero", "div.u32 %r3, %r1, %r1;", {}),
    ],
)
def test_a_planted_fault_is_found_and_nothing_else(fault, body, options):
    assert faults_of(body, **options) == ({fault} if fault else set())


def first_call(name):
    (call, *_) = (call for call in recorded_calls() if call.kernel.full_name == name)
    return call


def test_one_item_too_many_is_found():
    name = "barriers.barrier_prices"
    ptx, call = ptx_of(KERNELS[name], HOPPER), first_call(name)
    assert ptx.count("setp.ge.s64") == 1
    for text, faults in ((ptx, set()), (ptx.replace("setp.ge.s64", "setp.gt.s64"), {"outside"})):
        checked = program(text, checked=True)
        assert set(launch(checked, call, copies(call.before, guarded), call.n + 1).faults) == faults


def test_an_output_that_is_taken_for_an_input_is_found():
    name = "barriers.barrier_prices"
    checked, call = program(ptx_of(KERNELS[name], HOPPER), checked=True), first_call(name)
    arguments = copies(call.before, guarded)
    faults = launch(checked, call, arguments, call.n, written=[False] * len(arguments)).faults
    assert set(faults) == {"store to input"}


def test_a_product_that_is_fused_with_a_sum_is_found():
    """By its instructions where an assembler may still fuse it, and by its result where it is fused."""
    name = "linear.linear_margin"
    ptx, call = ptx_of(KERNELS[name], HOPPER), first_call(name)
    assert may_be_contracted(ptx) == []
    assert may_be_contracted(ptx.replace(".rn.f", ".f"))
    fused, n = re.subn(
        r"mul\.rn\.f32 \t(%f\d+), (%f\d+), (%f\d+);\n\tadd\.rn\.f32 \t(%f\d+), (%f\d+), \1;",
        r"fma.rn.f32 \t\4, \2, \3, \5;", ptx,
    )  # fmt: skip
    assert n > 0
    arguments = copies(call.before, guarded)
    launch(program(fused, checked=True), call, arguments, 128)
    assert any(differing(a, b).any() for _, a, b in outputs_of(call, arguments, call.after))


def barriers_of(name):
    """The lines of the barriers of a kernel."""
    body = parse(ptx_of(KERNELS[name], HOPPER)).body
    return [part.line for part in body if isinstance(part, Instruction) and part.name == "bar"]


def is_missed(checked, call, line):
    """Whether a call shows that the threads of a block do not wait at a barrier: by a race, or by another output."""
    arguments = with_garbage(call, seed=0)
    expected = copies(arguments)
    if "race" in launch(checked, call, arguments, 128, order=7, skip_barrier=line).faults:
        return True
    call.kernel(call.n, *expected)
    return any(differing(a, b).any() for _, a, b in outputs_of(call, arguments, expected))


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if kernel.cooperative])
def test_each_barrier_is_needed(name):
    checked, lines = program(ptx_of(KERNELS[name], HOPPER), checked=True), barriers_of(name)
    assert lines
    calls = [call for call in (*recorded_calls(), *calls_in_parts()) if call.kernel.full_name == name]
    calls += [in_few_blocks(call, 1) for call in calls]
    found = [line for line in lines if any(is_missed(checked, call, line) for call in calls)]
    assert found == lines


def test_the_sign_of_a_computed_nan_differs_between_orders():
    body = "mov.f32 %f1, 0f7F800000; sub.rn.f32 %f2, %f1, %f1; st.global.f32 [%rd2], %f2;"
    ptx = HEAD + body.replace("; ", ";\n") + "\nret;\n}\n"
    bits = []
    for order in (0, 1):
        x = np.zeros(1, np.float32)
        program(ptx, checked=True).launch([x], 1, 1, [x], order)
        bits.append(x.view(np.uint32)[0])
    assert bits == [0x7FFFFFFF, 0xFFC00000]
