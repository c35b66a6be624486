"""Instructions of PTX one by one, on the CPU, against what the PTX ISA (version 9.0) defines: section 9.7."""

from __future__ import annotations

import doctest
import importlib
import re

import numpy as np
import pytest

from gpupipe.kernels.compile import all_kernels
from tests.support.kernel_resources import ptx_of
from tests.support.ptx import Program, UnknownInstructionError, may_be_contracted, why_not
from tests.support.ptx.instructions import CASES, WRITTEN_OUT
from tests.support.ptx.syntax import Instruction, parse

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

HEAD = """
.visible .entry instructions(.param .u64 inputs, .param .u64 outputs, .param .u32 three, .param .f64 half,
                                 .param .f32 quarter)
{
.reg .pred %p<9>;
.reg .b16 %rs<9>;
.reg .b32 %r<9>;
.reg .b64 %rd<9>;
.reg .f32 %f<9>;
.reg .f64 %fd<9>;
ld.param.u64 %rd7, [inputs];
ld.param.u64 %rd8, [outputs];
"""


def kernel_of_cases():
    """A kernel that loads the operands of each case, runs its instruction, and stores the result in 8 bytes."""
    lines, inputs = [], []
    for at, (opcode, *operands, result) in enumerate(CASES):
        names = []
        for k, value in enumerate(operands, 1):
            names.append(f"{value.register}{k}")
            loaded = f"%r{k}" if value.kind == "pred" else names[-1]
            lines.append(f"ld.global.{value.loaded} {loaded}, [%rd7+{8 * len(inputs)}];")
            if value.kind == "pred":
                lines.append(f"setp.ne.s32 {names[-1]}, {loaded}, 0;")
            inputs.append(value.bits)
        target = f"{result.register}6"
        lines.append(f"{opcode} {target}, {', '.join(names)};")
        if result.kind == "pred":
            lines.append(f"selp.u32 %r6, 1, 0, {target};")
            target = "%r6"
        lines.append(f"st.global.{result.loaded} [%rd8+{8 * at}], {target};")
    return HEAD + "\n".join(lines) + "\nret;\n}\n", np.array(inputs, np.uint64)


def run(ptx, inputs, outputs):
    arrays = [inputs, outputs]
    parameters = [*arrays, np.uint32(3), np.float64(0.5), np.float32(0.25)]
    report = Program(ptx, checked=True).launch(parameters, 1, 1, arrays)
    assert not report.faults, report.messages


def test_instructions_compute_what_the_isa_defines():
    ptx, inputs = kernel_of_cases()
    outputs = np.zeros(len(CASES), np.uint64)
    run(ptx, inputs, outputs)
    wrong = []
    for (opcode, *operands, result), got in zip(CASES, outputs.tolist(), strict=True):
        if result.is_nan:
            is_right = np.isnan(np.array(got, np.uint64).view("f8" if result.size == 64 else "2f4").flat[0])
        else:
            is_right = got == result.bits
        if not is_right:
            wrong.append(f"{opcode} {[hex(value.bits) for value in operands]}: {got:#x}, expected {result.bits:#x}")
    assert not wrong, "\n".join(wrong)


def kernel_of_texts():
    """A kernel of all texts that are written out, each with its own labels."""
    parts = [body.replace("; ", ";\n") + "\nadd.s64 %rd8, %rd8, 8;" for body, _ in WRITTEN_OUT]
    parts = [re.sub(r"\$(LOOP|END)", rf"$\1_{k}", part) for k, part in enumerate(parts)]
    return HEAD + "\n".join(parts) + "\nret;\n}\n"


def test_constants_guards_and_memory_are_as_the_isa_defines():
    outputs = np.zeros(len(WRITTEN_OUT), np.uint64)
    run(kernel_of_texts(), np.zeros(1, np.uint64), outputs)
    for (body, expected), got in zip(WRITTEN_OUT, outputs.tolist(), strict=True):
        assert got == expected, f"{body}: {got:#x}"


def forms_of(ptx):
    """The instructions of a kernel, each by its name, modifiers and type."""
    body = (part for part in parse(ptx).body if isinstance(part, Instruction))
    return {".".join(filter(None, (part.name, *part.modifiers, part.kind))) for part in body}


@pytest.mark.parametrize("cc", ((8, 6), (9, 0), (12, 0)))
def test_every_instruction_that_kernels_use_is_tested(cc):
    used = set().union(*(forms_of(ptx_of(kernel, cc)) for kernel in all_kernels()))
    assert used - forms_of(kernel_of_cases()[0]) - forms_of(kernel_of_texts()) == set()


@pytest.mark.parametrize(
    "statement",
    (
        "atom.global.add.u32 %r1, [%rd8], 1;", "shfl.sync.down.b32 %r1, %r2, 1, 31, -1;", "call.uni f, (%r1);",
        "ld.shared.f32 %f1, [%rd8];", "ld.local.f32 %f1, [%rd8];", "ld.global.v2.f32 {%f1, %f2}, [%rd8];",
        "ld.global.nc.f32 %f1, [%rd8];", "st.shared.f32 [%rd8], %f1;", "membar.gl;",
        "st.global.f32 [symbol], %f1;", "mov.u64 %rd1, symbol;", "mov.u32 %r1, %laneid;", "mov.u32 %r1, %tid.y;",
        "bar.sync 1;", "barrier.sync 0;", "bar.arrive 0, 32;", "vote.sync.all.pred %p1, %p2, -1;",
        "add.ftz.f32 %f1, %f2, %f3;", "add.sat.s32 %r1, %r2, %r3;", "add.rz.f32 %f1, %f2, %f3;",
        "add.cc.u32 %r1, 1, 1;", "add.f16 %rs1, %rs2, %rs3;", "mul.s32 %r1, %r2, %r3;", "mul24.lo.s32 %r1, %r2, %r3;",
        "fma.rz.f32 %f1, 1, 1, 1;", "mad.f32 %f1, %f2, %f3, %f4;", "div.full.f32 %f1, %f2, %f3;",
        "div.approx.f32 %f1, %f2, %f3;", "sqrt.approx.f32 %f1, %f2;", "rsqrt.approx.f32 %f1, %f2;",
        "ex2.approx.f32 %f1, %f2;", "sin.approx.f32 %f1, %f2;", "min.NaN.f32 %f1, %f2, %f3;",
        "setp.lt.and.f32 %p1, %f1, %f2, %p2;", "setp.lt.f32 %p1|%p2, %f1, %f2;", "setp.ltu.s32 %p1, %r1, %r2;",
        "cvt.rn.f16.f32 %rs1, %f1;", "cvt.f32.f64 %f1, %fd1;", "cvt.rz.f32.f64 %f1, %fd1;", "cvt.s32.f32 %r1, %f1;",
        "cvt.sat.s8.s32 %r1, %r2;", "add.f32 %f1, %f2, 1;", "add.f32 %f1, %f2;", "add.f32 %f1, %fd2, %f3;",
        "mov.f64 %fd1, 0f3F800000;", "popc.b32 %r1, %r2;", "prmt.b32 %r1, %r2, %r3, 0;",
        "lop3.b32 %r1, %r2, %r3, %r4, 0x80;", "bfe.u32 %r1, %r2, 0, 4;", "trap;", "exit;", "@%p1 brx.idx %r1, list;",
        ".shared .align 4 .b8 memory[4];", ".local .align 4 .b8 memory[4];", ".reg .b128 %rq<2>;", ".reg .b16 %f<2>;",
    ),
)  # fmt: skip
def test_what_is_not_known_is_an_error(statement):
    with pytest.raises(UnknownInstructionError):
        Program(HEAD + statement + "\nret;\n}\n")


def test_several_kernels_in_a_text_are_an_error():
    with pytest.raises(UnknownInstructionError, match="2 kernels"):
        Program(2 * (HEAD + "ret;\n}\n"))


def test_parameters_of_another_number_or_size_are_an_error():
    program = Program(HEAD + "ret;\n}\n")
    with pytest.raises(ValueError, match="has 5 parameters, got 1"):
        program.launch([0], 1, 1)
    with pytest.raises(ValueError, match="type u32"):
        program.launch([0, 0, np.int64(3), 0.5, np.float32(0.25)], 1, 1)
    with pytest.raises(ValueError, match="type f64"):
        program.launch([0, 0, 3, np.float32(0.5), np.float32(0.25)], 1, 1)


def test_products_that_an_assembler_may_fuse_are_found():
    fused = may_be_contracted("mul.f32 %f1, %f2, %f3;\n neg.f32 %f4, %f1;\n@%p1 sub.f32 %f5, %f6, %f4;\n")
    assert len(fused) == 1 and "neg.f32" in fused[0]
    through_loop = "mov.f64 %fd1, %fd2; add.f64 %fd3, %fd1, %fd4; mul.f64 %fd2, %fd5, %fd6;"
    assert len(may_be_contracted(through_loop)) == 1
    for kept in ("mul.rn.f32 %f1, %f2, %f3; add.f32 %f4, %f1, %f5;", "mul.f32 %f1, %f2, %f3; add.rn.f32 %f4, %f1, %f5;",
                 "mul.lo.s32 %r1, %r2, %r3; add.s32 %r4, %r1, %r5;", "fma.rn.f32 %f1, %f2, %f3, %f4;"):  # fmt: skip
        assert may_be_contracted(kept) == []


@pytest.mark.parametrize("name", ("", ".syntax", ".expressions", ".contraction", ".program", ".comparison"))
def test_examples_of_docstrings(name):
    results = doctest.testmod(importlib.import_module(f"tests.support.ptx{name}"))
    assert results.attempted and not results.failed
