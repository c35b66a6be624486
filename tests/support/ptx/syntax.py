"""The text of PTX as parameters, registers, labels and instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Bits of the types of PTX, but for predicates.
BITS = {f"{letter}{bits}": bits for letter, sizes in (("b", (8, 16, 32, 64)), ("u", (8, 16, 32, 64)),
        ("s", (8, 16, 32, 64)), ("f", (32, 64))) for bits in sizes}  # fmt: skip
C_TYPES = {
    "u8": "uint8_t", "s8": "int8_t", "b8": "uint8_t", "u16": "uint16_t", "s16": "int16_t", "b16": "uint16_t",
    "u32": "uint32_t", "s32": "int32_t", "b32": "uint32_t", "u64": "uint64_t", "s64": "int64_t", "b64": "uint64_t",
    "f32": "float", "f64": "double", "pred": "uint8_t",
}  # fmt: skip


class UnknownInstructionError(Exception):
    """PTX that the translator does not know; it never guesses."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel. kind: its type, such as "u64".

    >>> Parameter("u64", "k_param_0").kind
    'u64'
    """

    kind: str
    name: str


@dataclass(frozen=True)
class Instruction:
    """An instruction. guard: of which predicate it depends, "%p1" or "!%p1", or "".

    >>> instruction = parse_instruction("@!%p1 cvt.rn.f32.s64 %f1, %rd2;", line=7)
    >>> instruction.guard, instruction.name, instruction.modifiers, instruction.kind, instruction.operands
    ('!%p1', 'cvt', ('rn', 'f32'), 's64', ('%f1', '%rd2'))
    """

    line: int
    guard: str
    name: str
    modifiers: tuple[str, ...]
    kind: str
    operands: tuple[str, ...]

    def __str__(self) -> str:
        opcode = ".".join(filter(None, (self.name, *self.modifiers, self.kind)))
        return f"line {self.line}: {opcode} {', '.join(self.operands)}"


@dataclass(frozen=True)
class Registers:
    """Declared registers: `.reg .b64 %rd<9>` are 9 of the prefix "rd"; count is None for a single one.

    >>> parse_registers(".reg .b64 %rd<9>;")
    Registers(kind='b64', prefix='rd', count=9)
    """

    kind: str
    prefix: str
    count: int | None

    @property
    def is_float(self) -> bool:
        """Whether they are floats in C: for sm_100 and newer, registers are typed by size, and named by what they hold.

        >>> parse_registers(".reg .b32 %f<2>;").is_float, parse_registers(".reg .b32 %r<2>;").is_float
        (True, False)
        """
        return self.prefix in ("f", "fd")


@dataclass(frozen=True)
class Label:
    """A place to branch to."""

    name: str


@dataclass(frozen=True)
class Brace:
    """The begin "{" or end "}" of a scope."""

    text: str


@dataclass(frozen=True)
class Entry:
    """A kernel."""

    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[Instruction | Registers | Label | Brace, ...]


def parse(ptx: str) -> Entry:
    """The only kernel of a PTX text.

    Raises UnknownInstructionError where the text has none or several, or a statement that is no instruction.
    """
    names = re.findall(r"\.entry\s+(\w+)", ptx)
    if len(names) != 1:
        raise UnknownInstructionError(f"{len(names)} kernels in the PTX, expected 1")
    head, _, rest = ptx.partition(".entry")
    signature, _, body = rest.partition("\n{")
    parameters = re.findall(r"\.param\s+\.(\w+)\s+(?:\.ptr\s+)?(?:\.align\s+\d+\s+)?([\w$]+)", signature)
    first_line = head.count("\n") + signature.count("\n") + 2
    parts: list[Instruction | Registers | Label | Brace] = [Brace("{")]
    for line, raw in enumerate(body.split("\n"), first_line):
        text = raw.split("//")[0].strip()
        if text in ("{", "}"):
            parts.append(Brace(text))
        elif text.endswith(":"):
            parts.append(Label(text[:-1].strip()))
        else:
            for statement in filter(None, (part.strip() for part in text.split(";"))):
                if statement.startswith(".reg"):
                    parts.append(parse_registers(statement))
                elif not statement.startswith(".pragma"):
                    parts.append(parse_instruction(statement, line))
    return Entry(names[0], tuple(Parameter(kind, name) for kind, name in parameters), tuple(parts))


def parse_registers(text: str) -> Registers:
    """A declaration of registers."""
    found = re.fullmatch(r"\.reg\s+\.(\w+)\s+%(\w+?)(?:<(\d+)>)?\s*;?", text)
    if found is None or found[1] not in C_TYPES:
        raise UnknownInstructionError(text)
    registers = Registers(found[1], found[2], int(found[3]) if found[3] else None)
    of_size = {"f": "b32", "fd": "b64"}.get(registers.prefix)
    if registers.is_float != (registers.kind.startswith("f") or registers.kind == of_size):
        raise UnknownInstructionError(f"{text}: the name does not fit the type")
    return registers


def parse_instruction(text: str, line: int) -> Instruction:
    """An instruction of a line of the text, with or without its guard and its semicolon."""
    guard = re.match(r"@(!?%\w+)\s+", text)
    opcode, _, rest = text[guard.end() if guard else 0 :].rstrip("; ").replace("\t", " ").partition(" ")
    name, *parts = opcode.split(".")
    if not re.fullmatch(r"[a-z]\w*", name):
        raise UnknownInstructionError(f"line {line}: {text}")
    # A comma in braces, of a vector of registers, or in brackets does not end an operand.
    operands = [part.strip() for part in re.split(r",(?![^{]*\}|[^\[]*\])", rest.strip())] if rest.strip() else []
    *modifiers, kind = parts or [""]
    return Instruction(line, guard[1] if guard else "", name, tuple(modifiers), kind, tuple(operands))
