"""Sources: which of gpupipe's modules and which libraries a piece of work runs, from imports as they are written."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import pathlib
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from gpupipe.store.content_store import dump_json, sha256

ROOT = pathlib.Path(__file__).parents[1]
# A module that chooses among others imports all of them inside its functions: its text counts, what it may choose is
# named by whoever asks. Of a Dataset's arrays a unit's key has the content, whatever code made them.
NOT_FOLLOWED = ("gpupipe", "gpupipe.estimators.registry", "gpupipe.dataset.dataset")
# Distributions whose name is not that of what is imported.
DISTRIBUTIONS = {"sklearn": "scikit-learn"}


@dataclass(frozen=True)
class Module:
    """What a module imports: dotted names of gpupipe's own modules, and top-level names of libraries; and its text."""

    own: frozenset[str]
    libraries: frozenset[str]
    digest: str


def code_hash(roots: Iterable[str], not_followed: Iterable[str] = NOT_FOLLOWED) -> str:
    """SHA-256 over the text of modules and all of gpupipe's that they import, at once or inside functions."""
    return _code_hash(tuple(sorted(set(roots))), tuple(not_followed))


@functools.cache
def _code_hash(roots: tuple[str, ...], not_followed: tuple[str, ...]) -> str:
    return sha256(dump_json([[name, module(name).digest] for name in closure(roots, not_followed)]))


def libraries(roots: Iterable[str], not_followed: Iterable[str] = NOT_FOLLOWED) -> dict[str, str]:
    """Versions of Python and of the installed libraries that modules, and what they import of gpupipe, import."""
    found = {name for own in closure(roots, not_followed) for name in module(own).libraries}
    if "numba" in found:
        found.add("llvmlite")
    return {"python": platform.python_version()} | {
        name: version for name in sorted(found) if (version := _version(name))
    }


@functools.cache
def xgboost_version() -> str:
    """XGBoost's version, of whichever distribution; from its file, as to import it takes half a second."""
    found = importlib.util.find_spec("xgboost")
    for folder in (found.submodule_search_locations if found else None) or []:
        if (file := pathlib.Path(folder) / "VERSION").is_file():
            return file.read_text(encoding="utf-8").strip()
    import xgboost

    return xgboost.__version__


@functools.cache
def _version(name: str) -> str:
    if name == "xgboost":
        return xgboost_version()
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return ""


def closure(roots: Iterable[str], not_followed: Iterable[str] = NOT_FOLLOWED) -> list[str]:
    """The roots and all modules of gpupipe that they import, sorted; roots are followed in any case."""
    return _closure(tuple(roots), tuple(not_followed))


@functools.cache
def _closure(roots: tuple[str, ...], not_followed: tuple[str, ...]) -> list[str]:
    found: set[str] = set()
    waiting = list(roots)
    stop = set(not_followed) - set(waiting)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [] if name in stop else module(name).own
    return sorted(found)


@functools.cache
def module(name: str) -> Module:
    """A module of gpupipe, or of the package that a root is of, read and parsed once a process."""
    file = _file(name)
    if file is None:
        raise ImportError(f"there is no module {name}")
    content = source(file)
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    own, outside = set[str](), set[str]()
    waiting: list[ast.AST] = [ast.parse(content)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1] if node.level else [])
            base = ".".join(filter(None, [base, node.module]))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            # Imports are statements: whatever holds none of them is not looked into.
            waiting += [one for one in ast.iter_child_nodes(node) if not isinstance(one, ast.expr)]
            continue
        for one in names:
            # An estimator or a workload may be of another package, whose modules count as gpupipe's do.
            (own if one.split(".")[0] in ("gpupipe", package[0]) else outside).add(one)
    return Module(
        frozenset(found for one in own for found in _modules(one)),
        frozenset(one.split(".")[0] for one in outside) - frozenset(sys.stdlib_module_names),
        sha256(content),
    )  # fmt: skip


def source(file: pathlib.Path) -> bytes:
    """The text of a module."""
    return file.read_bytes()


def _modules(name: str) -> list[str]:
    """A module and the packages it lies in, but for the outermost; of data.panel.Panel the module data.panel."""
    parts = name.split(".")
    names = [".".join(parts[:n]) for n in range(2, len(parts) + 1)]
    return [one for one in names if _file(one) is not None]


@functools.cache
def _file(name: str) -> pathlib.Path | None:
    top, *parts = name.split(".")
    if top != "gpupipe":
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # a function or a class of a module
            return None
        return pathlib.Path(found.origin) if found and found.origin else None
    place = ROOT.joinpath(*parts)
    for file in (place / "__init__.py", place.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def forget() -> None:
    """Read all sources again."""
    for cached in (module, _closure, _code_hash):
        cached.cache_clear()


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"python": platform.python_version()}
    for name in ("gpupipe", "numpy", "numba", "scipy", "scikit-learn", "pyarrow", "dask", "cupy", "rmm", "cudf",
                 "lightgbm", "catboost"):  # fmt: skip
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "xgboost": xgboost_version()}
