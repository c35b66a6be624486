"""Imports point down, importing gpupipe does nothing, and nothing is unpickled."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# From the bottom up, folder by folder. A module may import those of lower folders, and of its own as long as there is
# no circle.
FOLDERS = (
    "kernels", "runtime", "store", "config", "data", "features", "targets", "dataset", "cross_validation", "evaluation",
    "estimators", "artifacts", "training", "pipeline", "backtest", "serving", "report", "workloads", "cli",
)  # fmt: skip
AT_ROOT = (
    "__init__",
    "__main__",
    "agent",
    "api",
    "bonds",
    "run",
)  # the modules that lie beside the folders, above them all
RANK = {name: rank for rank, name in enumerate(FOLDERS)} | dict.fromkeys(AT_ROOT, len(FOLDERS))
# Libraries that cost start-up time or touch a device; they are imported inside the functions that use them.
HEAVY = (
    "numba", "llvmlite", "pyarrow", "pandas", "polars", "xgboost", "lightgbm", "catboost", "sklearn", "scipy",
    "dask", "distributed", "rich", "cupy", "cudf", "rmm", "cuml", "torch",
    "altair", "jinja2", "vl_convert", "optuna", "sqlalchemy", "exchange_calendars", "yfinance", "mlflow", "nvtx",
    "onnx", "onnxruntime", "gymnasium",
)  # fmt: skip
# They stand on the estimators, whose kernels are made when their modules load; all others load without a compiler.
WITH_KERNELS = (
    "gpupipe.kernels", "gpupipe.estimators", "gpupipe.artifacts", "gpupipe.training", "gpupipe.pipeline",
    "gpupipe.serving", "gpupipe.report", "gpupipe.workloads", "gpupipe.api", "gpupipe.cli.summary_tables",
    "gpupipe.cli.sequence_tables",
)  # fmt: skip
# They define modules of Torch, and so import it at their top; others import them inside the functions that use them.
WITH_TORCH = {
    f"gpupipe.estimators.torch.{name}"
    for name in (
        "network", "losses", "windows", "shards", "captured", "steps", "training", "side_by_side", "recurrent_policy",
        "recurrent_ppo", "rollout",
    )
}  # fmt: skip
# It defines subclasses of Gymnasium's, and is imported by `agent.make_env` when it is called.
WITH_GYMNASIUM = {"gpupipe.workloads.agent.environments"}
UNSAFE = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle")


def sources() -> dict[str, pathlib.Path]:
    """Dotted module name -> file, of every module of gpupipe; gpupipe/kernels is a symlink to kernels/."""
    files = [*(ROOT / "gpupipe").glob("**/*.py"), *(ROOT / "kernels").glob("**/*.py")]
    found = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        parts = ("gpupipe", *parts) if parts[0] == "kernels" else parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = file
    return found


SOURCES = sources()


def imported(module: str, *, at_once: bool = False) -> set[str]:
    """Dotted names of all that a module imports, relative ones made absolute; `at_once`: outside of functions only."""
    file = SOURCES[module]
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if at_once and (isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or _for_types(node)):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1] if node.level else [])
            base = ".".join(filter(None, [base, node.module]))
            # "from gpupipe import config" names a module, "from gpupipe.data.panel import Panel" does not.
            named = [alias.name for alias in node.names if (base, alias.name) != ("gpupipe", "__version__")]
            names |= {f"{base}.{name}" if f"{base}.{name}" in SOURCES else base for name in named}
    return names


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def place(module: str) -> str:
    """The name that LAYERS knows: data of gpupipe.data.panel, __init__ of gpupipe."""
    return [*module.split("."), "__init__"][1]


def own_imports(module: str, *, at_once: bool = False) -> set[str]:
    return {name for name in imported(module, at_once=at_once) if name.split(".")[0] == "gpupipe"}


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
    graph = {module: own_imports(module, at_once=True) & set(SOURCES) - {module} for module in SOURCES}
    done: set[str] = set()

    def visit(module, path):
        assert module not in path, f"circle: {' -> '.join([*path, module])}"
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def holds_kernels(module: str) -> bool:
    """Whether a module is one of WITH_KERNELS, or lies in a folder of them."""
    return any(module == name or module.startswith(f"{name}.") for name in WITH_KERNELS)


def test_torch_is_imported_at_the_top_of_its_own_modules_only():
    at_top = {module: imported(module, at_once=True) for module in SOURCES}
    with_torch = {module for module, names in at_top.items() if any(name.split(".")[0] == "torch" for name in names)}
    assert with_torch <= WITH_TORCH, "import torch inside the functions that use it"
    for module in set(SOURCES) - WITH_TORCH:
        assert not at_top[module] & WITH_TORCH, f"{module}: import these inside the functions that use them"


def loaded_by(statement: str) -> list[str]:
    """The heavy libraries that a statement loads in a fresh process."""
    code = (
        f"import sys\n{statement}\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])\n"
        "device = sys.modules.get('gpupipe.runtime.device')\n"
        "assert device is None or not device._devices, 'a device was taken'\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_gpupipe_loads_no_heavy_library_and_takes_no_device():
    assert loaded_by("import gpupipe") == []


def test_no_module_loads_a_heavy_library_before_it_is_used():
    light = [name for name in sorted(SOURCES) if not holds_kernels(name) or name == "gpupipe.estimators.registry"]
    light = [name for name in light if not name.endswith("__main__")]
    loaded = loaded_by("import " + ", ".join(light))
    blame = {name: got for name in light if (got := loaded_by(f"import {name}"))} if loaded else {}
    assert not loaded, f"import these inside the functions that use them: {blame}"


def test_modules_that_hold_kernels_load_no_more_than_their_compiler():
    holders = [name for name in sorted(SOURCES) if holds_kernels(name) and name not in WITH_TORCH | WITH_GYMNASIUM]
    assert set(loaded_by("import " + ", ".join(holders))) <= {"numba", "llvmlite", "scipy"}  # numba looks for scipy


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_nothing_is_unpickled(module):
    assert not {name for name in imported(module) if name.split(".")[0] in UNSAFE}
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            safe = node.arg == "weights_only"
            assert isinstance(node.value, ast.Constant) and node.value.value is safe, f"line {node.value.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in ("read_pickle", "from_pickle", "loads_pickle"):
            raise AssertionError(f"line {node.lineno}: {node.attr}")


def test_few_modules_lie_beside_the_folders():
    assert {path.stem for path in (ROOT / "gpupipe").glob("*.py")} == {*AT_ROOT}
    assert {path.name for path in (ROOT / "gpupipe").iterdir() if path.is_dir()} - {"__pycache__"} <= {*FOLDERS}


def test_valuing_bonds_loads_nothing_of_the_eleven_steps():
    steps = ("gpupipe.pipeline", "gpupipe.report", "gpupipe.workloads.bonds.recipe")
    loaded = loaded_by(f"import gpupipe.bonds\ngpupipe.bonds.Curve\nassert not sys.modules.keys() & {set(steps)!r}")
    assert set(loaded) <= {"numba", "llvmlite", "scipy"}
    assert loaded_by("import gpupipe.bonds\nassert 'numpy' not in sys.modules") == []
