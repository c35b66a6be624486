"""Instructions of PTX with operands and what they compute: PTX ISA, version 9.0, section 9.7.

A case is an opcode, its operands and its result, with their types. `WRITTEN_OUT` are texts that leave 8 bytes at %rd8.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator

import numpy as np

NAN, INF = math.nan, math.inf
PREFIXES = {"f32": "%f", "f64": "%fd", "pred": "%p"}
LOADED = {1: "u32", 8: "u16", 16: "u16", 32: "u32", 64: "u64"}  # types that registers are loaded as, by bits


class Value:
    """A number with its type in PTX, as bits."""

    def __init__(self, kind: str, value: float) -> None:
        self.kind, self.size = kind, 1 if kind == "pred" else int(kind[1:])
        self.is_nan = kind.startswith("f") and math.isnan(value)
        if kind.startswith("f"):
            self.bits = int(np.array(value, f"f{self.size // 8}").view(f"u{self.size // 8}"))
        else:
            self.bits = int(value) % 2**self.size

    @property
    def register(self) -> str:
        """The prefix of the registers that hold it."""
        return PREFIXES.get(self.kind, {64: "%rd", 32: "%r"}.get(self.size, "%rs"))

    @property
    def loaded(self) -> str:
        """The type to load and store it as."""
        return self.kind if self.kind.startswith("f") else LOADED[self.size]


def _of(kind: str) -> Callable[[float], Value]:
    return lambda value: Value(kind, value)


f32, f64, pred = _of("f32"), _of("f64"), _of("pred")
s8, s16, s32, s64 = map(_of, ("s8", "s16", "s32", "s64"))
u8, u16, u32, u64 = map(_of, ("u8", "u16", "u32", "u64"))
b16, b32, b64 = map(_of, ("b16", "b32", "b64"))
ULP = 2.0**-23  # of a float32 in [1, 2)

# Opcode, operands, result.
BY_HAND = [
    # Floats: one rounding to the nearest each, and none between a product and a sum.
    ("add.f32", f32(1), f32(ULP / 2), f32(1)),
    ("add.rn.f32", f32(1), f32(ULP), f32(1 + ULP)),
    ("add.rn.f32", f32(INF), f32(-INF), f32(NAN)),
    ("add.f64", f64(0.1), f64(0.2), f64(0.30000000000000004)),
    ("add.rn.f64", f64(1), f64(2.0**-53), f64(1)),
    ("sub.f32", f32(1), f32(1 - ULP / 2), f32(ULP / 2)),
    ("sub.rn.f32", f32(-0.0), f32(0.0), f32(-0.0)),
    ("sub.f64", f64(0.3), f64(0.1), f64(0.19999999999999998)),
    ("sub.rn.f64", f64(3), f64(5), f64(-2)),
    ("mul.f32", f32(1 + ULP), f32(1 + ULP), f32(1 + 2 * ULP)),
    ("mul.rn.f32", f32(2.0**-100), f32(2.0**-49), f32(2.0**-149)),
    ("mul.f64", f64(0.1), f64(3), f64(0.30000000000000004)),
    ("mul.rn.f64", f64(INF), f64(0), f64(NAN)),
    ("fma.rn.f32", f32(1 + ULP), f32(1 + ULP), f32(-(1 + 2 * ULP)), f32(ULP * ULP)),
    ("fma.rn.f64", f64(1 + 2.0**-52), f64(1 + 2.0**-52), f64(-(1 + 2.0**-51)), f64(2.0**-104)),
    ("fma.rm.f32", f32(1), f32(2.0**-25), f32(1), f32(1)),
    ("fma.rm.f32", f32(-1), f32(2.0**-25), f32(1), f32(1 - ULP / 2)),
    ("div.rn.f32", f32(1), f32(3), f32(1 / 3)),
    ("div.rn.f32", f32(-1), f32(0), f32(-INF)),
    ("div.rn.f64", f64(1), f64(10), f64(0.1)),
    ("rcp.rn.f32", f32(3), f32(1 / 3)),
    ("rcp.rn.f64", f64(-0.0), f64(-INF)),
    ("rcp.approx.ftz.f64", f64(4), f64(0.25)),
    ("rcp.approx.ftz.f64", f64(2.0**-1060), f64(INF)),
    ("sqrt.rn.f32", f32(2), f32(math.sqrt(2))),
    ("sqrt.rn.f64", f64(2), f64(math.sqrt(2))),
    ("sqrt.rn.f64", f64(-1), f64(NAN)),
    ("ex2.approx.ftz.f32", f32(-3), f32(0.125)),
    ("ex2.approx.ftz.f32", f32(-130), f32(0)),
    ("ex2.approx.ftz.f32", f32(200), f32(INF)),
    ("neg.f32", f32(0), f32(-0.0)),
    ("neg.f64", f64(-INF), f64(INF)),
    ("abs.f32", f32(-0.0), f32(0.0)),
    ("abs.f64", f64(-2), f64(2)),
    # The operand that is a number, and -0.0 below 0.0.
    ("min.f32", f32(NAN), f32(1), f32(1)),
    ("min.f32", f32(0.0), f32(-0.0), f32(-0.0)),
    ("min.f32", f32(-0.0), f32(0.0), f32(-0.0)),
    ("min.f64", f64(2), f64(NAN), f64(2)),
    ("min.f64", f64(2), f64(-3), f64(-3)),
    ("max.f32", f32(-0.0), f32(0.0), f32(0.0)),
    ("max.f32", f32(0.0), f32(-0.0), f32(0.0)),
    ("max.f32", f32(NAN), f32(NAN), f32(NAN)),
    ("max.f64", f64(NAN), f64(-INF), f64(-INF)),
    ("max.f64", f64(2), f64(3), f64(3)),
    # Integers wrap; division truncates.
    ("neg.s16", s16(-(2**15)), s16(-(2**15))),
    ("neg.s32", s32(5), s32(-5)),
    ("neg.s64", s64(-(2**63)), s64(-(2**63))),
    ("abs.s32", s32(-7), s32(7)),
    ("abs.s64", s64(-(2**63)), s64(-(2**63))),
    ("div.s32", s32(-7), s32(2), s32(-3)),
    ("div.s64", s64(-7), s64(2), s64(-3)),
    ("div.s64", s64(-(2**63)), s64(-1), s64(-(2**63))),
    ("div.u32", u32(-7), u32(2), u32(2**31 - 4)),
    ("div.u64", u64(2**64 - 1), u64(10), u64(1844674407370955161)),
    ("div.u16", u16(65529), u16(2), u16(32764)),
    ("rem.s32", s32(-7), s32(2), s32(-1)),
    ("rem.s64", s64(7), s64(-2), s64(1)),
    ("rem.s64", s64(-(2**63)), s64(-1), s64(0)),
    ("rem.u32", u32(-7), u32(4), u32(1)),
    ("rem.u64", u64(2**64 - 1), u64(10), u64(5)),
    ("mul.hi.s32", s32(-3), s32(5), s32(-1)),
    ("mul.hi.u32", u32(-3), u32(5), u32(4)),
    ("mul.hi.s64", s64(-3), s64(6148914691236517206), s64(-2)),
    ("mul.hi.u64", u64(-3), u64(6148914691236517206), u64(6148914691236517204)),
    ("mul.wide.s16", s16(-3), s16(5), s32(-15)),
    ("mul.wide.u16", u16(-3), u16(5), u32(327665)),
    ("mul.wide.s32", s32(-1), s32(5), s64(-5)),
    ("mul.wide.u32", u32(-1), u32(5), u64(5 * (2**32 - 1))),
    ("mad.lo.s32", s32(2**31 - 1), s32(2), s32(5), s32(3)),
    ("mad.lo.s64", s64(3), s64(-4), s64(5), s64(-7)),
    # Shifts by all bits or more leave 0, or the sign.
    ("shl.b16", b16(3), u32(15), b16(1 << 15)),
    ("shl.b32", b32(3), u32(31), b32(1 << 31)),
    ("shl.b32", b32(3), u32(32), b32(0)),
    ("shl.b64", b64(3), u32(63), b64(1 << 63)),
    ("shl.b64", b64(-8), u32(99), b64(0)),
    ("shr.u16", u16(-1), u32(9), u16(127)),
    ("shr.s16", s16(-256), u32(4), s16(-16)),
    ("shr.u32", u32(-8), u32(28), u32(15)),
    ("shr.u32", u32(-8), u32(2**31), u32(0)),
    ("shr.s32", s32(-8), u32(1), s32(-4)),
    ("shr.s32", s32(-8), u32(77), s32(-1)),
    ("shr.b32", b32(-8), u32(28), b32(15)),
    ("shr.u64", u64(-8), u32(60), u64(15)),
    ("shr.s64", s64(-8), u32(99), s64(-1)),
    ("shr.b64", b64(-8), u32(60), b64(15)),
    ("bfi.b32", b32(0xFF), b32(0x12345678), u32(8), u32(4), b32(0x12345F78)),
    ("bfi.b32", b32(-1), b32(0), u32(28), u32(255), b32(0xF0000000)),
    ("bfi.b64", b64(0x9), b64(0), u32(60), u32(4), b64(0x9 << 60)),
    ("bfi.b64", b64(-1), b64(5), u32(32), u32(32), b64(0xFFFFFFFF00000005)),
    ("bfi.b64", b64(-1), b64(5), u32(64), u32(1), b64(5)),
    ("bfi.b64", b64(-1), b64(5), u32(0), u32(0), b64(5)),
    ("not.b16", b16(0xF0F0), b16(0x0F0F)),
    ("not.b32", b32(0), b32(-1)),
    ("not.b64", b64(-1), b64(0)),
    ("not.pred", pred(1), pred(0)),
    ("and.pred", pred(1), pred(0), pred(0)),
    ("or.pred", pred(1), pred(0), pred(1)),
    ("xor.pred", pred(1), pred(1), pred(0)),
    # Conversions between floats, and of integers to floats.
    ("cvt.sat.f32.f32", f32(NAN), f32(0)),
    ("cvt.sat.f32.f32", f32(1.5), f32(1)),
    ("cvt.sat.f32.f32", f32(0.25), f32(0.25)),
    ("cvt.f64.f32", f32(0.1), f64(float(np.float32(0.1)))),
    ("cvt.rn.f32.f64", f64(1 + 2.0**-24), f32(1)),
    ("cvt.rn.f32.f64", f64(1e300), f32(INF)),
    ("cvt.rmi.f64.f64", f64(-1.5), f64(-2)),
    ("cvt.rpi.f64.f64", f64(-1.5), f64(-1)),
    ("cvt.rzi.f64.f64", f64(-1.5), f64(-1)),
    ("cvt.rni.f64.f64", f64(2.5), f64(2)),
    ("cvt.rmi.f32.f32", f32(-0.5), f32(-1)),
    ("cvt.rni.f32.f32", f32(-1.5), f32(-2)),
    ("cvt.rn.f32.s16", s16(-3), f32(-3)),
    ("cvt.rn.f32.s32", s32(2**24 + 1), f32(2**24)),
    ("cvt.rn.f32.u32", u32(-1), f32(2.0**32)),
    ("cvt.rn.f32.s64", s64(-(2**53) - 1), f32(-(2.0**53))),
    ("cvt.rn.f32.u64", u64(2**64 - 1), f32(2.0**64)),
    ("cvt.rn.f64.s16", s16(-3), f64(-3)),
    ("cvt.rn.f64.u16", u16(-3), f64(65533)),
    ("cvt.rn.f64.s32", s32(-5), f64(-5)),
    ("cvt.rn.f64.u32", u32(-5), f64(2.0**32 - 5)),
    ("cvt.rn.f64.s64", s64(2**53 + 1), f64(2.0**53)),
    ("cvt.rn.f64.u64", u64(2**64 - 1), f64(2.0**64)),
    # Floats to integers: clamped. NaN is 0, or the highest bit alone where one of the two has 64 bits.
    ("cvt.rzi.s16.f32", f32(1e5), s16(32767)),
    ("cvt.rzi.s16.f32", f32(NAN), s16(0)),
    ("cvt.rzi.u16.f32", f32(-3), u16(0)),
    ("cvt.rzi.s32.f32", f32(-2.75), s32(-2)),
    ("cvt.rzi.s32.f32", f32(NAN), s32(0)),
    ("cvt.rzi.u32.f32", f32(3e9), u32(3000000000)),
    ("cvt.rzi.s64.f32", f32(INF), s64(2**63 - 1)),
    ("cvt.rzi.s64.f32", f32(NAN), s64(-(2**63))),
    ("cvt.rzi.s32.f64", f64(1e10), s32(2**31 - 1)),
    ("cvt.rzi.s32.f64", f64(NAN), s32(-(2**31))),
    ("cvt.rzi.s64.f64", f64(-INF), s64(-(2**63))),
    ("cvt.rzi.s64.f64", f64(-2.5), s64(-2)),
    ("cvt.rzi.u64.f64", f64(2.0**63), u64(2**63)),
    ("cvt.rni.s32.f32", f32(2.5), s32(2)),
    ("cvt.rni.s32.f64", f64(3.5), s32(4)),
    ("cvt.rmi.s64.f64", f64(-2.5), s64(-3)),
    ("cvt.rpi.s32.f32", f32(-2.5), s32(-2)),
    # Integers to integers: cut off, or extended by the sign of the source's type.
    ("cvt.s16.s8", s8(-3), s16(-3)),
    ("cvt.u16.u8", u8(-3), u16(253)),
    ("cvt.s32.s8", s8(-3), s32(-3)),
    ("cvt.s64.s8", s8(-3), s64(-3)),
    ("cvt.u32.u8", u8(-3), u32(253)),
    ("cvt.s32.s16", s16(-3), s32(-3)),
    ("cvt.u32.u16", u16(-3), u32(65533)),
    ("cvt.s64.s16", s16(-3), s64(-3)),
    ("cvt.u64.u16", u16(-3), u64(65533)),
    ("cvt.s64.s32", s32(-3), s64(-3)),
    ("cvt.u64.u32", u32(-3), u64(2**32 - 3)),
    ("cvt.u32.u64", u64(2**40 + 7), u32(7)),
    ("cvt.u16.u64", u64(2**40 + 7), u16(7)),
    ("cvt.u16.u32", u32(2**20 + 7), u16(7)),
    ("cvta.to.global.u64", u64(12345), u64(12345)),
]


def of_integers() -> Iterator[tuple]:
    """Wrapping sums, products, logic and extremes of integers, against those of Python's integers."""
    sums = {"add": operator.add, "sub": operator.sub, "mul.lo": operator.mul, "min": min, "max": max}
    logic = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}
    both: tuple[dict[str, Callable], ...] = (sums, logic)
    for of, size, sign in itertools.product(both, (16, 32, 64), "su"):
        kind = f"{sign}{size}"
        low, high = (-(2 ** (size - 1)), 2 ** (size - 1) - 1) if sign == "s" else (0, 2**size - 1)
        for name, function in of.items():
            written = f"b{size}" if of is logic else kind
            for a, b in ((high, 1), (low, 1), (5, 12), (low, high)):
                yield f"{name}.{written}", Value(kind, a), Value(kind, b), Value(kind, function(a, b))


def comparisons() -> Iterator[tuple]:
    """Comparisons: ordered ones are false of NaN, unordered ones true; integers have neither."""
    orders = {"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt,
              "ge": operator.ge}  # fmt: skip
    for kind, (name, function) in itertools.product(("f32", "f64"), orders.items()):
        for a, b in ((1, 2), (2, 1), (2, 2), (0.0, -0.0), (NAN, 1), (1, NAN), (NAN, NAN)):
            has_nan = math.isnan(a) or math.isnan(b)
            operands = Value(kind, a), Value(kind, b)
            yield f"setp.{name}.{kind}", *operands, pred(not has_nan and function(a, b))
            yield f"setp.{name}u.{kind}", *operands, pred(has_nan or function(a, b))
            yield f"setp.nan.{kind}", *operands, pred(has_nan)
            yield f"setp.num.{kind}", *operands, pred(not has_nan)
    for size, sign, (name, function) in itertools.product((16, 32, 64), "sub", orders.items()):
        kind = f"{sign}{size}"
        for a, b in ((-5, 3), (3, -5), (3, 3)):
            if sign != "b" or name in ("eq", "ne"):
                x, y = (v if sign == "s" else v % 2**size for v in (a, b))
                yield f"setp.{name}.{kind}", Value(kind, a), Value(kind, b), pred(function(x, y))


def moves() -> Iterator[tuple]:
    """Moves and choices of every type."""
    for kind in ("u16", "u32", "u64", "s32", "b16", "b32", "b64", "f32", "f64", "pred"):
        one = Value(kind, 1)
        yield f"mov.{kind}", one, one
    for kind in ("u16", "s16", "b16", "u32", "s32", "b32", "u64", "s64", "b64", "f32", "f64"):
        a, b = Value(kind, 3), Value(kind, 4)
        yield f"selp.{kind}", a, b, pred(1), a
        yield f"selp.{kind}", a, b, pred(0), b


CASES = [*BY_HAND, *of_integers(), *comparisons(), *moves()]
# Written out: constants, guards, special registers, bits of floats, memory. Each leaves 8 bytes at %rd8.
WRITTEN_OUT = [
    ("mov.f32 %f1, 0f40490FDB; st.global.f32 [%rd8], %f1;", 0x40490FDB),
    ("mov.f64 %fd1, 0d400921FB54442D18; st.global.f64 [%rd8], %fd1;", 0x400921FB54442D18),
    ("mov.u64 %rd1, -2; st.global.u64 [%rd8], %rd1;", 2**64 - 2),
    ("mov.u32 %r1, 0xFF; st.global.u32 [%rd8], %r1;", 255),
    ("mov.pred %p1, -1; selp.u32 %r1, 7, 8, %p1; st.global.u32 [%rd8], %r1;", 7),
    ("mov.b32 %r1, 0f40490FDB; st.global.u32 [%rd8], %r1;", 0x40490FDB),
    ("mov.f32 %f1, 0fBF800000; mov.b32 %r1, %f1; st.global.b32 [%rd8], %r1;", 0xBF800000),
    ("mov.u32 %r1, 0xBF800000; mov.b32 %f1, %r1; neg.f32 %f2, %f1; st.global.f32 [%rd8], %f2;", 0x3F800000),
    ("mov.f64 %fd1, 0dC000000000000000; mov.b64 %rd1, %fd1; st.global.b64 [%rd8], %rd1;", 0xC000000000000000),
    ("mov.u64 %rd1, 0xC000000000000000; mov.b64 %fd1, %rd1; st.global.b64 [%rd8], %fd1;", 0xC000000000000000),
    ("mov.f64 %fd1, 0d400921FB54442D18;\n{\n.reg .b32 %temp; mov.b64 {%temp, %r1}, %fd1;\n}\n"
     "st.global.u32 [%rd8], %r1;", 0x400921FB),
    ("mov.u32 %r1, 1; mov.u32 %r2, 2; mov.b64 %rd1, {%r1, %r2}; st.global.u64 [%rd8], %rd1;", 2**33 + 1),
    ("mov.u32 %r1, 1; mov.u32 %r2, 0x40000000; mov.b64 %fd1, {%r1, %r2}; st.global.f64 [%rd8], %fd1;", 2**62 + 1),
    ("mov.u32 %r1, %ntid.x; mov.u32 %r2, %nctaid.x; add.s32 %r1, %r1, %r2; st.global.u32 [%rd8], %r1;", 2),
    ("mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; add.s32 %r1, %r1, %r2; st.global.u32 [%rd8], %r1;", 0),
    ("mov.f32 %f1, 0f40490FDB; st.f32 [%rd8], %f1; ld.f32 %f2, [%rd8]; st.global.f32 [%rd8], %f2;", 0x40490FDB),
    ("ld.param.f32 %f1, [quarter]; st.global.f32 [%rd8], %f1;", 0x3E800000),
    ("ld.param.u32 %r1, [three]; st.global.u32 [%rd8], %r1;", 3),
    ("ld.param.f64 %fd1, [half]; st.global.f64 [%rd8], %fd1;", 0x3FE0000000000000),
    ("ld.param.b64 %fd1, [half]; st.global.b64 [%rd8], %fd1;", 0x3FE0000000000000),
    ("mov.u32 %r1, 0x80FF; st.global.u32 [%rd8], %r1; ld.global.s8 %rs1, [%rd8]; cvt.s64.s16 %rd1, %rs1;"
     " st.global.u64 [%rd8], %rd1;", 2**64 - 1),
    ("mov.u32 %r1, 0x80FF; st.global.u32 [%rd8], %r1; ld.global.u8 %rs1, [%rd8+1]; st.global.u16 [%rd8], %rs1;", 0x80),
    ("mov.u32 %r1, 0x80FF; st.global.u32 [%rd8], %r1; ld.global.s16 %r2, [%rd8]; st.global.u32 [%rd8], %r2;",
     0xFFFF80FF),
    ("mov.u32 %r1, -2; st.global.u32 [%rd8], %r1; ld.global.s32 %rd1, [%rd8]; st.global.u64 [%rd8], %rd1;", 2**64 - 2),
    ("mov.u32 %r1, 0x1234; st.global.u8 [%rd8], %r1;", 0x34),
    ("mov.u32 %r1, 0x12345; st.global.b8 [%rd8+1], %r1;", 0x4500),
    ("mov.f32 %f1, 0f40490FDB; st.global.b32 [%rd8], %f1; ld.global.b32 %f2, [%rd8]; ld.global.f32 %f2, [%rd8];"
     " st.global.f32 [%rd8], %f2;", 0x40490FDB),
    ("mov.f64 %fd1, 0d400921FB54442D18; st.global.b64 [%rd8], %fd1; ld.global.f64 %fd2, [%rd8];"
     " ld.global.b64 %fd2, [%rd8]; st.global.f64 [%rd8], %fd2;", 0x400921FB54442D18),
    ("add.s64 %rd1, %rd8, 8; mov.u16 %rs1, 9; st.global.u16 [%rd1+-8], %rs1; bar.sync 0; ld.global.u16 %rs2, [%rd8];"
     " ld.global.b16 %rs2, [%rd8]; st.global.b16 [%rd8], %rs2;", 9),
    ("mov.u32 %r1, 1; setp.eq.s32 %p1, %r1, 1; @%p1 mov.u32 %r1, 5; @!%p1 mov.u32 %r1, 6; st.global.u32 [%rd8], %r1;",
     5),
    ("mov.u32 %r1, 0;\n$LOOP:\nadd.s32 %r1, %r1, 1; setp.lt.s32 %p1, %r1, 10;\n@%p1 bra $LOOP;\nbra.uni $END;\n"
     "mov.u32 %r1, 99;\n$END:\nst.global.u32 [%rd8], %r1;", 10),
]  # fmt: skip
