"""The value of an instruction that computes, as an expression of C: PTX ISA, sections 9.7.1 to 9.7.9.

Integers are computed in their unsigned type, where overflow wraps as on a GPU. Functions of runtime.h do what C leaves
open: conversions that clamp, minima of NaN and of zeros, divisions.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.support.ptx.syntax import BITS, C_TYPES, Instruction, UnknownInstructionError

_SPECIAL = {"%tid.x": "tid", "%ntid.x": "ntid", "%ctaid.x": "ctaid", "%nctaid.x": "nctaid"}
_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}
_COMPARED = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}  # false where an operand is NaN
_DOUBLED = {"s16": "int32_t", "u16": "uint32_t", "s32": "int64_t", "u32": "uint64_t", "s64": "__int128",
            "u64": "unsigned __int128"}  # fmt: skip
_ARITHMETIC = {"add", "sub", "mul", "fma", "div", "sqrt", "rcp", "ex2", "min", "max"}  # what computes a NaN anew
REGISTER = r"%(?:p|rs|r|rd|f|fd)\d+|%temp"
_TO_WHOLE = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}  # roundings to whole numbers


def value_of(instruction: Instruction) -> str:
    """What the instruction writes to its first operand; UnknownInstructionError where it does not only compute."""
    make = _MAKERS.get(instruction.name)
    if make is None or not instruction.operands:
        raise UnknownInstructionError(str(instruction))
    value, kind = make(instruction), result_kind(instruction)
    computes = instruction.name in _ARITHMETIC or (instruction.name == "cvt" and instruction.kind.startswith("f"))
    return f"computed_{kind}({value})" if computes and kind.startswith("f") else value


def result_kind(instruction: Instruction) -> str:
    """The type of the value: of a comparison "pred", of a conversion or a wide product not that of the operands."""
    if instruction.name == "setp":
        return "pred"
    if instruction.name == "cvt":
        return instruction.modifiers[-1]
    if instruction.modifiers == ("wide",):
        return f"{instruction.kind[0]}{2 * BITS[instruction.kind]}"
    return instruction.kind


def is_float_register(text: str) -> bool:
    """Whether it is a register of floats, by its name.

    >>> is_float_register("%fd12"), is_float_register("%rd12")
    (True, False)
    """
    return re.fullmatch(r"%fd?\d+", text) is not None


def operand(text: str, kind: str) -> str:
    """An operand as C of the type `kind`: a register, a special register or a constant.

    >>> operand("%r1", "s32"), operand("%f1", "b32"), operand("-1", "u16")
    ('((int32_t)v_r1)', '((uint32_t)bits_of_f32(v_f1))', '((uint16_t)65535u)')
    """
    is_float = kind.startswith("f")
    if kind not in C_TYPES:
        raise UnknownInstructionError(f"operand {text} of type {kind}")
    if text in _SPECIAL and kind == "u32":
        return _SPECIAL[text]
    if re.fullmatch(REGISTER, text):
        name = f"v_{text[1:]}"
        if is_float_register(text):
            bits = 64 if text.startswith("%fd") else 32
            if BITS.get(kind) != bits:
                raise UnknownInstructionError(f"operand {text} of type {kind}")
            return name if is_float else f"(({C_TYPES[kind]})bits_of_f{bits}({name}))"
        if is_float:
            return f"{kind}_of_bits({name})"
        return name if kind == "pred" else f"(({C_TYPES[kind]}){name})"
    if found := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", text):
        bits = 32 if found[1] else 64
        if BITS.get(kind) == bits:
            constant = f"0x{found[1] or found[2]}u{'' if bits == 32 else 'll'}"
            return f"{kind}_of_bits({constant})" if is_float else f"(({C_TYPES[kind]}){constant})"
    elif re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)", text) and not is_float:
        value = int(text, 0)
        if kind == "pred":
            return str(int(value != 0))
        return f"(({C_TYPES[kind]}){value % 2 ** BITS[kind]}u{'ll' if BITS[kind] == 64 else ''})"
    raise UnknownInstructionError(f"operand {text} of type {kind}")


def _operands(instruction: Instruction, count: int, modifiers: tuple[str, ...] | None = ()) -> list[str]:
    """The sources of an instruction, which must have so many, and these modifiers (None: any)."""
    if len(instruction.operands) != count + 1 or (modifiers is not None and instruction.modifiers != modifiers):
        raise UnknownInstructionError(str(instruction))
    return [operand(text, instruction.kind) for text in instruction.operands[1:]]


def _unsigned(kind: str) -> str:
    """The type to compute in: of at least 32 bits, as C promotes shorter ones to signed int."""
    return f"uint{max(32, BITS[kind])}_t"


def _unknown(instruction: Instruction) -> UnknownInstructionError:
    return UnknownInstructionError(str(instruction))


def _is_float(instruction: Instruction) -> bool:
    return instruction.kind.startswith("f")


def _float_rounded(instruction: Instruction, count: int) -> list[str]:
    """The sources of a float instruction that rounds to the nearest, by its modifier or for want of one."""
    return _operands(instruction, count, instruction.modifiers if instruction.modifiers in ((), ("rn",)) else ())


def _move(instruction: Instruction) -> str:
    return _operands(instruction, 1)[0]


def _sum_or_product(instruction: Instruction) -> str:
    sign, kind = _OPERATORS[instruction.name], instruction.kind
    if _is_float(instruction):
        a, b = _float_rounded(instruction, 2)
        return f"{a} {sign} {b}"
    if instruction.name != "mul":
        a, b = _operands(instruction, 2)
        return f"({C_TYPES[kind]})(({_unsigned(kind)}){a} {sign} ({_unsigned(kind)}){b})"
    a, b = _operands(instruction, 2, None)
    product = f"(({_DOUBLED[kind]}){a} * ({_DOUBLED[kind]}){b})"
    parts = {("lo",): f"({C_TYPES[kind]}){product}", ("hi",): f"({C_TYPES[kind]})({product} >> {BITS[kind]})",
             ("wide",): product}  # fmt: skip
    if instruction.modifiers not in parts:
        raise _unknown(instruction)
    return parts[instruction.modifiers]


def _multiply_add(instruction: Instruction) -> str:
    kind, modifiers = instruction.kind, instruction.modifiers
    if instruction.name == "mad" and not _is_float(instruction):
        a, b, c = _operands(instruction, 3, ("lo",))
        u = _unsigned(kind)
        return f"({C_TYPES[kind]})(({u}){a} * ({u}){b} + ({u}){c})"
    if instruction.name != "fma" or (modifiers != ("rn",) and (modifiers, kind) != (("rm",), "f32")):
        raise _unknown(instruction)
    a, b, c = _operands(instruction, 3, modifiers)
    function = {"f32": "fmaf", "f64": "fma"}[kind] if modifiers == ("rn",) else "fmaf_down"
    return f"{function}({a}, {b}, {c})"


def _quotient(instruction: Instruction) -> str:
    kind = instruction.kind
    if not _is_float(instruction):
        a, b = _operands(instruction, 2)
        return f"{instruction.name}_{kind}({a}, {b}, {instruction.line})"
    if instruction.name == "rem":
        raise _unknown(instruction)
    a, b = _operands(instruction, 2, ("rn",))
    return f"{a} / {b}"


def _root(instruction: Instruction) -> str:
    (a,) = _operands(instruction, 1, ("rn",))
    return f"{'sqrtf' if instruction.kind == 'f32' else 'sqrt'}({a})"


def _reciprocal(instruction: Instruction) -> str:
    if (instruction.modifiers, instruction.kind) == (("approx", "ftz"), "f64"):
        return f"rcp_approx({_operands(instruction, 1, None)[0]})"
    (a,) = _operands(instruction, 1, ("rn",))
    return f"({C_TYPES[instruction.kind]})1 / {a}"


def _power_of_two(instruction: Instruction) -> str:
    if instruction.kind != "f32":
        raise _unknown(instruction)
    return f"ex2_approx({_operands(instruction, 1, ('approx', 'ftz'))[0]})"


def _negative(instruction: Instruction) -> str:
    (a,) = _operands(instruction, 1)
    u = "" if _is_float(instruction) else _unsigned(instruction.kind)
    return f"-{a}" if _is_float(instruction) else f"({C_TYPES[instruction.kind]})(0 - ({u}){a})"


def _magnitude(instruction: Instruction) -> str:
    (a,) = _operands(instruction, 1)
    if _is_float(instruction):
        return f"{'fabsf' if instruction.kind == 'f32' else 'fabs'}({a})"
    return f"{a} < 0 ? ({C_TYPES[instruction.kind]})(0 - ({_unsigned(instruction.kind)}){a}) : {a}"


def _extreme(instruction: Instruction) -> str:
    a, b = _operands(instruction, 2)
    if _is_float(instruction):
        return f"{instruction.name}_{instruction.kind}({a}, {b})"
    return f"{a} {'<' if instruction.name == 'min' else '>'} {b} ? {a} : {b}"


def _logic(instruction: Instruction) -> str:
    if instruction.name == "not":
        (a,) = _operands(instruction, 1)
        return f"!{a}" if instruction.kind == "pred" else f"~{a}"
    a, b = _operands(instruction, 2)
    return f"{a} {_OPERATORS[instruction.name]} {b}"


def _shift(instruction: Instruction) -> str:
    """Shifts by more than all bits leave 0, or the sign."""
    kind, (_, text, by) = instruction.kind, instruction.operands
    if instruction.modifiers:
        raise _unknown(instruction)
    a, amount, last = operand(text, kind), operand(by, "u32"), BITS[kind] - 1
    if instruction.name == "shr" and kind.startswith("s"):
        return f"{a} >> ({amount} > {last} ? {last} : {amount})"
    return f"{amount} > {last} ? 0 : {a} {'<<' if instruction.name == 'shl' else '>>'} {amount}"


def _inserted_bits(instruction: Instruction) -> str:
    if len(instruction.operands) != 5 or instruction.modifiers or instruction.kind not in ("b32", "b64"):
        raise _unknown(instruction)
    _, a, b, position, length = instruction.operands
    kind = instruction.kind
    bits = operand(a, kind), operand(b, kind), operand(position, "u32"), operand(length, "u32")
    return f"bfi_{kind}({', '.join(bits)})"


def _comparison(instruction: Instruction) -> str:
    if len(instruction.modifiers) != 1:
        raise _unknown(instruction)
    how, (a, b) = instruction.modifiers[0], _operands(instruction, 2, None)
    has_nan = f"({a} != {a} || {b} != {b})"
    if how in _COMPARED:
        return f"{a} {_COMPARED[how]} {b}"
    if not _is_float(instruction) and how == "ne":
        return f"{a} != {b}"
    if _is_float(instruction):
        if how in ("nan", "num"):
            return has_nan if how == "nan" else f"!{has_nan}"
        if how == "ne":
            return f"{a} < {b} || {a} > {b}"
        if how == "neu":
            return f"{a} != {b}"
        if how.endswith("u") and how[:-1] in _COMPARED:
            return f"{has_nan} || {a} {_COMPARED[how[:-1]]} {b}"
    raise _unknown(instruction)


def _choice(instruction: Instruction) -> str:
    if len(instruction.operands) != 4 or instruction.modifiers:
        raise _unknown(instruction)
    _, a, b, condition = instruction.operands
    kind = instruction.kind
    return f"{operand(condition, 'pred')} ? {operand(a, kind)} : {operand(b, kind)}"


def _conversion(instruction: Instruction) -> str:
    if len(instruction.modifiers) not in (1, 2) or len(instruction.operands) != 2:
        raise _unknown(instruction)
    how, target, source = instruction.modifiers[:-1], instruction.modifiers[-1], instruction.kind
    if not {target, source} <= set(BITS):
        raise _unknown(instruction)
    a, c = operand(instruction.operands[1], source), C_TYPES[target]
    to_float, from_float = target.startswith("f"), source.startswith("f")
    if to_float and from_float:
        if how == ("sat",) and target == source == "f32":
            return f"saturated({a})"
        if target == source and how and how[0] in _TO_WHOLE:
            return f"{_TO_WHOLE[how[0]]}{'f' if target == 'f32' else ''}({a})"
        if (target, source, how) in (("f64", "f32", ()), ("f32", "f64", ("rn",))):
            return f"({c}){a}"
    elif to_float and how == ("rn",):
        return f"({c}){a}"
    elif from_float and how and how[0] in _TO_WHOLE and target[0] in "su" and BITS[target] > 8:
        of_nan = "1" if source == "f64" or BITS[target] == 64 else "0"
        return f"{target}_of_whole({_TO_WHOLE[how[0]]}((double){a}), {of_nan})"
    elif not to_float and not from_float and not how:
        return f"({c}){a}"
    raise _unknown(instruction)


def _to_global(instruction: Instruction) -> str:
    """Generic and global addresses are the same, as there is no shared and no local memory."""
    if (instruction.modifiers, instruction.kind) != (("to", "global"), "u64"):
        raise _unknown(instruction)
    return _operands(instruction, 1, None)[0]


_MAKERS: dict[str, Callable[[Instruction], str]] = {
    "mov": _move, "cvta": _to_global, "cvt": _conversion, "setp": _comparison, "selp": _choice,
    "add": _sum_or_product, "sub": _sum_or_product, "mul": _sum_or_product, "mad": _multiply_add, "fma": _multiply_add,
    "div": _quotient, "rem": _quotient, "sqrt": _root, "rcp": _reciprocal, "ex2": _power_of_two,
    "neg": _negative, "abs": _magnitude, "min": _extreme, "max": _extreme,
    "and": _logic, "or": _logic, "xor": _logic, "not": _logic, "shl": _shift, "shr": _shift,
    "bfi": _inserted_bits,
}  # fmt: skip
