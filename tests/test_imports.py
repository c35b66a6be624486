"""Imports point down, importing gpupipe does nothing, and nothing is unpickled."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# From the bottom up. A module may import those of lower layers, and of its own as long as there is no circle.
LAYERS = (
    ("kernels",),
    ("device", "config", "errors"),
    ("panel",),
    ("data", "features", "feature_table", "labels"),
    ("dataset",),
    ("split", "evaluate", "models", "tuning"),
    ("training", "artifacts", "scan", "backtest", "report", "progress", "summary"),
    ("pipeline",),
    ("cluster",),
    ("cli", "run", "doctor", "__init__", "__main__"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
# Libraries that cost start-up time or touch a device; they are imported inside the functions that use them.
HEAVY = (
    "numba", "llvmlite", "pyarrow", "pandas", "polars", "xgboost", "lightgbm", "catboost", "sklearn", "scipy",
    "dask", "distributed", "rich", "cupy", "cudf", "rmm", "cuml", "torch",
)  # fmt: skip
UNSAFE = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle")


def sources() -> dict[str, pathlib.Path]:
    """Dotted module name -> file, of every module of gpupipe; gpupipe/kernels is a symlink to kernels/."""
    files = [*(ROOT / "gpupipe").glob("**/*.py"), *(ROOT / "kernels").glob("**/*.py")]
    found = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        parts = ("gpupipe", *parts) if parts[0] == "kernels" else parts
        if parts[-1] == "__init__" and len(parts) > 2:
            parts = parts[:-1]
        found[".".join(parts)] = file
    return found


SOURCES = sources()


def imported(module: str) -> set[str]:
    """Dotted names of everything that a module imports, inside functions too; relative imports made absolute."""
    file = SOURCES[module]
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names} if base in ("gpupipe", "") else {base}
            # "from gpupipe.models import xgb" names a module too
            names |= {f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in SOURCES}
    return names


def place(module: str) -> str:
    """The name that LAYERS knows: panel of gpupipe.panel, models of gpupipe.models.linear, __init__ of gpupipe."""
    return [*module.split("."), "__init__"][1]


def own_imports(module: str) -> set[str]:
    return {name for name in imported(module) if name.split(".")[0] == "gpupipe"}


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_down(module):
    assert place(module) in RANK, f"{module} has no layer yet: give {place(module)!r} its place in LAYERS"
    upward = {name for name in own_imports(module) if RANK.get(place(name), 99) > RANK[place(module)]}
    assert not upward, f"{module} (layer {RANK[place(module)]}) imports from above: {sorted(upward)}"


def test_kernels_import_nothing_of_gpupipe():
    for module in SOURCES:
        if place(module) == "kernels":
            assert all(place(name) == "kernels" for name in own_imports(module)), module


def test_no_circles():
    graph = {
        module: {name for name in own_imports(module) if name in SOURCES and name != module} for module in SOURCES
    }
    done: set[str] = set()

    def visit(module, path):
        assert module not in path, f"circle: {' -> '.join([*path, module])}"
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def loaded_by(statement: str) -> list[str]:
    """The heavy libraries that a statement loads in a fresh process."""
    code = (
        f"import sys\n{statement}\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
        "device = sys.modules.get('gpupipe.device')\n"
        "assert device is None or not device._devices, 'a device was taken'\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_gpupipe_loads_no_heavy_library_and_takes_no_device():
    assert loaded_by("import gpupipe") == []


def test_no_module_loads_a_heavy_library_before_it_is_used():
    modules = [name for name in sorted(SOURCES) if place(name) not in ("kernels", "__init__", "__main__")]
    statement = "import " + ", ".join(modules)
    loaded = loaded_by(statement)
    blame = {name: got for name in modules if (got := loaded_by(f"import {name}"))} if loaded else {}
    assert not loaded, f"import these inside the functions that use them: {blame}"


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_nothing_is_unpickled(module):
    assert not {name for name in imported(module) if name.split(".")[0] in UNSAFE}
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            safe = node.arg == "weights_only"
            assert isinstance(node.value, ast.Constant) and node.value.value is safe, f"line {node.value.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in ("read_pickle", "from_pickle", "loads_pickle"):
            raise AssertionError(f"line {node.lineno}: {node.attr}")
