"""The source of a kernel: which functions it inlines, which arrays it writes to, and its code as text."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def inlined_functions(function: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """The functions marked with `@inline` that `function` calls by name."""
    named = ((name, function.__globals__.get(name)) for name in function.__code__.co_names)
    return {name: value for name, value in named if value is not None and hasattr(value, "__kernel_inline__")}


def written_parameters(function: Callable[..., Any]) -> set[str]:
    """The names of the parameters to whose items `function`, or a function inlined in it, writes.

    A local name for a part of an array, such as `row = x[i]`, counts as the array.
    """
    inlined = inlined_functions(function)
    nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    parts: dict[str, str] = {}

    def array_of(node: ast.expr) -> str:
        while isinstance(node, ast.Subscript):
            node = node.value
        return parts.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                targets, values = (x.elts if isinstance(x, ast.Tuple) else [x] for x in (target, node.value))
                for name, value in zip(targets, values, strict=False):
                    if isinstance(name, ast.Name) and isinstance(value, ast.Subscript):
                        parts[name.id] = array_of(value)
    stored = set()
    for node in nodes:
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            stored.add(array_of(node))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in inlined:
            callee = inlined[node.func.id]
            theirs = written_parameters(callee)
            pairs = zip(inspect.signature(callee).parameters, node.args, strict=False)
            stored.update(array_of(argument) for name, argument in pairs if name in theirs)
    return stored.intersection(inspect.signature(function).parameters)


def _with_inlined(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    yield function
    for callee in inlined_functions(function).values():
        yield from _with_inlined(callee)


def definition_of(body: Callable[..., Any]) -> str:
    """The normalised code of the body and its inlined functions, followed by the constants they use."""
    parts = {}
    for function in _with_inlined(body):
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        definition = tree.body[0]
        assert isinstance(definition, ast.FunctionDef)
        definition.decorator_list = []
        if ast.get_docstring(definition) is not None:
            definition.body = definition.body[1:]
        parts[function.__name__] = ast.unparse(tree)
        for name in function.__code__.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, (int, float, np.generic)):
                parts[name] = f"{name} = {value!r}"
    return "\n\n".join(parts.values())
