"""Array code on the device calls nothing that CuPy rounds or adds otherwise than numpy, but where a fit is on the host.

Kernels are held to it instruction by instruction (tests/kernels). This holds the code between them, as far as the
array module is called by its name, xp.
"""

from __future__ import annotations

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1] / "gpupipe"
# numpy and CuPy differ in the last bits of these. Sums and counts of integers are equal in any order.
ROUNDED_OTHERWISE = {
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "power",
    "sum", "nansum", "mean", "nanmean", "average", "std", "nanstd", "var", "nanvar", "prod", "dot", "matmul", "einsum",
    "inner", "tensordot", "interp", "convolve",
}  # fmt: skip
FITTED_ON_THE_HOST = "BLAS adds in an order of its own: by default this is fitted on the host, on both devices"
ALLOWED = {
    "estimators/linear/softmax_linear.py": FITTED_ON_THE_HOST,
    "estimators/linear/softmax_regression.py": FITTED_ON_THE_HOST,
}


def is_array_module(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "xp") or (isinstance(node, ast.Attribute) and node.attr == "xp")


def test_array_code_has_the_same_bits_on_both_devices():
    found: dict[str, set[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ROUNDED_OTHERWISE and is_array_module(node.value):
                found.setdefault(path.relative_to(ROOT).as_posix(), set()).add(f"{node.attr} in line {node.lineno}")
    refused = {name: calls for name, calls in found.items() if name not in ALLOWED}
    assert not refused, f"use gpupipe/estimators/arithmetic.py or a kernel: {refused}"
    assert found.keys() == ALLOWED.keys(), "a file that needs no exception any more"
