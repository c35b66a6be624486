"""Fingerprint of code: the modules of gpupipe and the libraries that a stage runs, from import statements."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.metadata
import importlib.util
import pathlib
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from gpupipe.store.content_store import sha256, sha256_of

ROOT = pathlib.Path(__file__).parents[1]
# Imports of these modules are not followed. The registry imports every estimator inside its functions; callers name the
# estimator that they use. Keys include the content of a Dataset's arrays, so the code that computes them is left out.
NOT_FOLLOWED = ("gpupipe", "gpupipe.estimators.registry", "gpupipe.dataset.dataset")
# Distributions whose name differs from the imported name; the first that is installed counts.
DISTRIBUTIONS = {
    "sklearn": ("scikit-learn",), "cuml": ("cuml-cu13", "cuml-cu12", "cuml"),
    "cudf": ("cudf-cu13", "cudf-cu12", "cudf"), "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "rmm": ("rmm-cu13", "rmm-cu12", "rmm"),
}  # fmt: skip


@dataclass(frozen=True)
class Module:
    """The imports of a module, and the digest of its text.

    modules: dotted names of modules of gpupipe, or of the module's own package.  libraries: top-level names.

        >>> sorted(module("gpupipe.store.cache").libraries)
        ['numpy']
    """

    modules: frozenset[str]
    libraries: frozenset[str]
    digest: str


def code_hash(roots: Iterable[str], not_followed: Iterable[str] = NOT_FOLLOWED) -> str:
    """SHA-256 over the text of modules and of all modules of gpupipe that they import, also inside functions."""
    return _code_hash(tuple(sorted(set(roots))), tuple(not_followed))


@functools.cache
def _code_hash(roots: tuple[str, ...], not_followed: tuple[str, ...]) -> str:
    return sha256_of([[name, module(name).digest] for name in closure(roots, not_followed)])


def libraries(roots: Iterable[str], not_followed: Iterable[str] = NOT_FOLLOWED) -> dict[str, str]:
    """Versions of Python and of the installed libraries that modules import, directly or through gpupipe."""
    imported = {library for name in closure(roots, not_followed) for library in module(name).libraries}
    if "numba" in imported:
        imported.add("llvmlite")
    return {"python": platform.python_version()} | {
        name: version for name in sorted(imported) if (version := _version(name))
    }


@functools.cache
def xgboost_version() -> str:
    """The version of XGBoost, of any distribution, from its file VERSION: the import would take half a second."""
    spec = importlib.util.find_spec("xgboost")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        if (file := pathlib.Path(folder) / "VERSION").is_file():
            return file.read_text(encoding="utf-8").strip()
    import xgboost

    return xgboost.__version__


@functools.cache
def _version(name: str) -> str:
    if name == "xgboost":
        return xgboost_version()
    for distribution in DISTRIBUTIONS.get(name, (name,)):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return ""


def closure(roots: Iterable[str], not_followed: Iterable[str] = NOT_FOLLOWED) -> list[str]:
    """The roots and all modules of gpupipe that they import, sorted; imports of roots are always followed."""
    return _closure(tuple(roots), tuple(not_followed))


@functools.cache
def _closure(roots: tuple[str, ...], not_followed: tuple[str, ...]) -> list[str]:
    names: set[str] = set()
    waiting = list(roots)
    stop = set(not_followed) - set(waiting)
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += [] if name in stop else module(name).modules
    return sorted(names)


@functools.cache
def module(name: str) -> Module:
    """A module of gpupipe, or of the package of a root, parsed once in a process."""
    file = _file(name)
    if file is None:
        raise ImportError(f"there is no module {name}")
    content = source(file)
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    inside, outside = set[str](), set[str]()
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
            # Imports are statements, so expressions are skipped.
            waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
            continue
        for imported in names:
            # An estimator or a workload may be in another package; its modules count like modules of gpupipe.
            (inside if imported.split(".")[0] in ("gpupipe", package[0]) else outside).add(imported)
    return Module(
        frozenset(part for imported in inside for part in _modules(imported)),
        frozenset(imported.split(".")[0] for imported in outside) - frozenset(sys.stdlib_module_names),
        sha256(content),
    )  # fmt: skip


def source(file: pathlib.Path) -> bytes:
    """The text of a module."""
    return file.read_bytes()


def _modules(name: str) -> list[str]:
    """The modules of an imported name: "gpupipe.data.panel.Panel" gives gpupipe.data and gpupipe.data.panel."""
    parts = name.split(".")
    names = [".".join(parts[:n]) for n in range(2, len(parts) + 1)]
    return [module_name for module_name in names if _file(module_name) is not None]


@functools.cache
def _file(name: str) -> pathlib.Path | None:
    top, *parts = name.split(".")
    if top != "gpupipe":
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # a function or a class of a module
            return None
        return pathlib.Path(spec.origin) if spec and spec.origin else None
    place = ROOT.joinpath(*parts)
    for file in (place / "__init__.py", place.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def forget() -> None:
    """Clear the caches, so that sources are read again."""
    for cached in (module, _closure, _code_hash):
        cached.cache_clear()


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, gpupipe and the libraries that compute."""
    by_name = {"python": platform.python_version()}
    for name in ("gpupipe", "numpy", "numba", "scipy", "scikit-learn", "pyarrow", "dask", "cupy", "rmm", "cudf",
                 "lightgbm", "catboost", "torch"):  # fmt: skip
        try:
            by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**by_name, "xgboost": xgboost_version()}
