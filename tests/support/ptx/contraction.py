"""Which sums of PTX an assembler may still fuse with a product, and so round once where the CPU rounds twice."""

from __future__ import annotations

import re


def may_be_contracted(ptx: str) -> list[str]:
    """Pairs of a product and a sum that ptxas may fuse: `mul` and `add` or `sub` that both lack the modifier `.rn`.

    PTX ISA, add, sub and mul: without a rounding modifier, instructions "may be optimized aggressively by the code
    optimizer"; `mul` followed by `add` may become a fused multiply-add. A product is followed through `neg` and `mov`,
    and through a register that several instructions write.

    >>> may_be_contracted("mul.f32 %f1, %f2, %f3; add.f32 %f4, %f5, %f1;")
    ['mul.f32 %f1, %f2, %f3 -> add.f32 %f4, %f5, %f1']
    >>> may_be_contracted("mul.rn.f32 %f1, %f2, %f3; add.f32 %f4, %f5, %f1;")
    []
    """
    products: dict[str, str] = {}
    sums: list[tuple[str, list[str]]] = []
    copies: list[tuple[str, str, str]] = []
    for statement in re.split(r"[;\n]", ptx):
        text = " ".join(statement.split("//")[0].split())
        match = re.match(r"(?:@!?%\w+ )?(mul|add|sub|neg|mov)(?:\.ftz)?\.(?:f32|f64) (%\w+), (.*)", text)
        if match is None:
            continue
        name, target, rest = match.groups()
        sources = [source.strip() for source in rest.split(",")]
        if name == "mul":
            products[target] = text
        elif name in ("neg", "mov"):
            copies.append((target, sources[0], text))
        else:
            sums.append((text, sources))
    # Registers are not in order of their use where code loops: follow copies until nothing is new.
    found = True
    while found:
        new = {
            target: f"{products[source]} -> {text}"
            for target, source, text in copies
            if source in products and target not in products
        }
        products.update(new)
        found = bool(new)
    return [f"{products[source]} -> {text}" for text, sources in sums for source in sources if source in products]
