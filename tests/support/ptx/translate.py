"""A kernel in PTX as a function of C, statement by statement: registers are variables, labels and branches stay."""

from __future__ import annotations

import re

from tests.support.ptx.expressions import REGISTER, is_float_register, operand, result_kind, value_of
from tests.support.ptx.syntax import (
    BITS,
    C_TYPES,
    Brace,
    Entry,
    Instruction,
    Label,
    Parameter,
    Registers,
    UnknownInstructionError,
)

SIGNATURE = "void kernel(const uint64_t *parameters, uint32_t tid, uint32_t ntid, uint32_t ctaid, uint32_t nctaid)"


def translate(entry: Entry) -> str:
    """The C function of a kernel; `parameters` are its parameters, each in 8 bytes."""
    places = {parameter.name: k for k, parameter in enumerate(entry.parameters)}
    lines = [SIGNATURE]
    for part in entry.body:
        match part:
            case Brace(text):
                lines.append(text)
            case Registers():
                lines.append(_declaration(part))
            case Label(name):
                lines.append(f"{_label(name)}:;")
            case Instruction():
                try:
                    statement = _statement(part, entry.parameters, places)
                except (KeyError, IndexError, ValueError) as error:
                    raise UnknownInstructionError(str(part)) from error
                lines.append(f"if ({part.guard.replace('%', 'v_')}) {{ {statement} }}" if part.guard else statement)
    return "\n".join(lines)


def _declaration(registers: Registers) -> str:
    c = ("float" if registers.prefix == "f" else "double") if registers.is_float else C_TYPES[registers.kind]
    numbers = [""] if registers.count is None else map(str, range(registers.count))
    return f"{c} {', '.join(f'v_{registers.prefix}{number} = 0' for number in numbers)};"


def _label(name: str) -> str:
    return "L" + name.replace("$", "_")


def _statement(instruction: Instruction, parameters: tuple[Parameter, ...], places: dict[str, int]) -> str:
    name, modifiers, kind, operands = instruction.name, instruction.modifiers, instruction.kind, instruction.operands
    if name == "bra" and not modifiers and kind in ("", "uni") and len(operands) == 1:
        return f"goto {_label(operands[0])};"
    if name == "ret" and not operands:
        return "return;"
    if (name, modifiers, kind, operands) == ("bar", (), "sync", ("0",)):
        return f"barrier({instruction.line});"
    if name == "ld" and modifiers == ("param",):
        return _load_parameter(instruction, parameters, places)
    if name in ("ld", "st"):
        return _access(instruction)
    if name == "mov" and any(text.startswith("{") for text in operands):
        return _packed(instruction)
    return _assignment(operands[0] if operands else "", value_of(instruction), result_kind(instruction))


def _assignment(target: str, value: str, kind: str) -> str:
    """Write a value of the type `kind` to a register; between floats and integers, its bits."""
    if not re.fullmatch(REGISTER, target):
        raise UnknownInstructionError(f"result {target}")
    if kind == "pred":
        return f"v_{target[1:]} = {value};"
    if is_float_register(target):
        if BITS[kind] != (64 if target.startswith("%fd") else 32):
            raise UnknownInstructionError(f"{target} of type {kind}")
        value = value if kind.startswith("f") else f"f{BITS[kind]}_of_bits({value})"
    elif kind.startswith("f"):
        value = f"bits_of_{kind}({value})"
    return f"v_{target[1:]} = {value};"


def _load_parameter(instruction: Instruction, parameters: tuple[Parameter, ...], places: dict[str, int]) -> str:
    target, address = instruction.operands
    k = places[address[1:-1].strip()]
    kind = instruction.kind
    if BITS[parameters[k].kind] != BITS[kind]:
        raise UnknownInstructionError(str(instruction))
    integer = f"({C_TYPES[f'u{BITS[kind]}']})parameters[{k}]"
    return _assignment(target, f"f{BITS[kind]}_of_bits({integer})" if kind.startswith("f") else integer, kind)


def _access(instruction: Instruction) -> str:
    """A load or a store, by a global address or a generic one: the same, without shared and local memory."""
    kind, c = instruction.kind, C_TYPES[instruction.kind]
    if instruction.modifiers not in (("global",), ()) or len(instruction.operands) != 2:
        raise UnknownInstructionError(str(instruction))
    address, register = instruction.operands[:: 1 if instruction.name == "st" else -1]
    found = re.fullmatch(r"\[(%rd\d+)(?:\+(-?\d+))?\]", address)
    if found is None:
        raise UnknownInstructionError(str(instruction))
    where = f"{operand(found[1], 'u64')} + {int(found[2] or 0) % 2**64}ull"
    if instruction.name == "ld":
        return _assignment(register, f"LOAD({c}, {where}, {instruction.line})", kind)
    return f"STORE({c}, {where}, {operand(register, kind)}, {instruction.line});"


def _packed(instruction: Instruction) -> str:
    """Two registers of 32 bits as one of 64 bits, or the reverse."""
    target, source = instruction.operands
    if (instruction.modifiers, instruction.kind) != ((), "b64"):
        raise UnknownInstructionError(str(instruction))
    if target.startswith("{"):
        low, high = (part.strip() for part in target[1:-1].split(","))
        value = operand(source, "b64")
        halves = _assignment(low, f"(uint32_t){value}", "b32"), _assignment(high, f"(uint32_t)({value} >> 32)", "b32")
        return " ".join(halves)
    low, high = (operand(part.strip(), "b32") for part in source[1:-1].split(","))
    return _assignment(target, f"(uint64_t){low} | (uint64_t){high} << 32", "b64")
