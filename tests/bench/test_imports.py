"""bench imports in one direction, and only public names of gpupipe that exist; modules load and have docstrings."""

from __future__ import annotations

import ast
import graphlib
import importlib
import pathlib
import pkgutil
import types

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def module_of(file: pathlib.Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_of(file): ast.parse(file.read_text()) for file in sorted((ROOT / "bench").glob("**/*.py"))}


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of all that a module imports, at once or inside functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_in(names: set[str], known: set[str]) -> set[str]:
    """The modules that dotted names of modules, functions and classes belong to."""
    return {name if name in known else name.rpartition(".")[0] for name in names} & known


def names_of_gpupipe(tree: ast.AST) -> set[str]:
    """Local names that stand for something of gpupipe."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gpupipe":
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname or "gpupipe" for alias in node.names if alias.name.split(".")[0] == "gpupipe"}
    return names


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_names(tree: ast.AST) -> set[str]:
    """Private names of gpupipe that a module imports, reads from what it imported, or patches by their text."""
    names = {name for name in imported(tree) if name.startswith("gpupipe.") and any(map(private, name.split(".")))}
    ours = names_of_gpupipe(tree)
    for node in ast.walk(tree):
        inner = node
        while isinstance(inner, (ast.Attribute, ast.Call)):
            inner = inner.value if isinstance(inner, ast.Attribute) else inner.func
        if isinstance(node, ast.Attribute) and private(node.attr) and isinstance(inner, ast.Name) and inner.id in ours:
            names.add(ast.unparse(node))
        # mock.patch.object(module, "_name"), setattr(module, "_name"), getattr(module, "_name")
        second = node.args[1:2] if isinstance(node, ast.Call) else []
        texts = [part.value for part in second if isinstance(part, ast.Constant)]
        if any(private(str(text)) for text in texts):
            names.add(ast.unparse(node))
    return names


def test_imports_of_bench_have_no_circle():
    """Nor through the oracles that tests and benchmarks share."""
    support = {module_of(file): ast.parse(file.read_text()) for file in (ROOT / "tests" / "support").glob("*.py")}
    trees = {**SOURCES, **support}
    graph = {name: modules_in(imported(tree), set(trees)) - {name} for name, tree in trees.items()}
    assert graph["bench.job.memory"] == {"bench.runs"} and "bench.timing" in graph["bench.runs"]
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_a_circle_is_found():
    trees = {"a": "from b import f", "b": "def f():\n    import c", "c": "import a.g, os"}
    graph = {name: modules_in(imported(ast.parse(text)), set(trees)) for name, text in trees.items()}
    assert graph == {"a": {"b"}, "b": {"c"}, "c": {"a"}}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_private_name_of_gpupipe_is_used(name):
    assert private_names(SOURCES[name]) == set()


@pytest.mark.parametrize(
    "text",
    [
        "from gpupipe.training.groups import _Group", "import gpupipe._hidden",
        "from gpupipe.data import load\nload()._rows", "from gpupipe.runtime import run_log\nrun_log._current",
        "from gpupipe.runtime import run_log\nmock.patch.object(run_log, '_current', None)",
    ],
)  # fmt: skip
def test_a_private_name_is_found(text):
    assert len(private_names(ast.parse(text))) == 1
    assert private_names(ast.parse(text.replace("_", ""))) == set()


def needs_torch(module: str) -> bool:
    """Whether a module cannot be loaded here because Torch is not installed (the extra torch)."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return error.name == "torch"
    return False


def absent_names(tree: ast.AST) -> set[str]:
    """Names that a module imports from gpupipe, or reads from its modules, and that are not there."""
    imports, absent = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gpupipe":
            if needs_torch(node.module):
                continue
            for alias in node.names:
                if needs_torch(f"{node.module}.{alias.name}"):
                    continue
                try:
                    imports[alias.asname or alias.name] = pkgutil.resolve_name(f"{node.module}.{alias.name}")
                except (ImportError, AttributeError):
                    absent.add(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = imports.get(node.value.id)
            if isinstance(module, types.ModuleType) and not hasattr(module, node.attr):
                absent.add(f"{module.__name__}.{node.attr}")
    return absent


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_name_of_gpupipe_is_there(name):
    """Also those that only a run of the benchmark reads."""
    assert absent_names(SOURCES[name]) == set()


def test_a_name_that_is_gone_is_found():
    text = "def f():\n    from gpupipe.data import {0}\n    from gpupipe.data import sources\n    return sources.{1}"
    assert absent_names(ast.parse(text.format("load", "read_path"))) == set()
    assert absent_names(ast.parse(text.format("gone", "of_path"))) == {
        "gpupipe.data.gone", "gpupipe.data.sources.of_path"
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_module_loads_and_has_a_docstring(name):
    """Those that run in another interpreter import their library when they are run."""
    if needs_torch(name):
        pytest.skip("torch is not installed (the extra torch)")
    documentation = importlib.import_module(name).__doc__
    assert documentation or (name.count(".") < 2 and name not in ("bench.runs", "bench.timing", "bench.pictures"))
