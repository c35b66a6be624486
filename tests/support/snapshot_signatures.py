"""FoldId names of the CUDA libraries gpupipe uses, and a snapshot of what those libraries offer.

`python -m tests.support.snapshot_signatures` writes rapids_signatures.json. Run it where the extra cuda13 is
installed (no driver needed), after a new name of these libraries came into use or after an upgrade. With names of
libraries (`... cupy`) what is recorded of the others stays. The stand-in (tests/support/stand_in) has the names and
signatures that are recorded.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import json
import pathlib
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from gpupipe.workloads.bonds.families import libraries

ROOT = pathlib.Path(__file__).parents[2]
SNAPSHOT = pathlib.Path(__file__).with_name("rapids_signatures.json")
LIBRARIES = ("cudf", "cupy", "cupyx", "rmm", "cuml", "xgboost", "dask_cuda", "dask_cudf", "nvforest", "nvtx")
DISTRIBUTIONS = {
    "cudf": "cudf-cu13", "cupy": "cupy-cuda13x", "rmm": "rmm-cu13", "cuml": "cuml-cu13", "xgboost": "xgboost",
    "dask_cuda": "dask-cuda", "dask_cudf": "dask-cudf-cu13", "nvtx": "nvtx",
}  # fmt: skip
# Neighbours of what is used, so that a new call to one of them needs no new snapshot.
WHOLE_MODULES = ("cupy", "rmm", "rmm.mr", "cupy.cuda", "cupy.cuda.runtime", "cupy.random", "cupy.linalg")
WHOLE_CLASSES = (
    "xgboost.DMatrix", "xgboost.QuantileDMatrix", "xgboost.ExtMemQuantileDMatrix", "xgboost.Booster",
    "xgboost.DataIter", "cupy.ndarray", "cupy.cuda.Stream", "cupy.cuda.function.Module",
    "cupy.cuda.function.Function",
)  # fmt: skip
EXTRA = (
    "cudf.DataFrame.from_arrow", "cudf.DataFrame.sort_values", "cudf.DataFrame.to_cupy", "cudf.Series.to_cupy",
    "cudf.read_parquet", "cudf.read_csv", "cudf.read_orc", "cudf.concat", "cudf.from_dlpack", "cudf.to_datetime",
    "xgboost.train", "xgboost.build_info", "xgboost.config_context", "xgboost.callback.EarlyStopping",
    "xgboost.callback.TrainingCallback", "dask_cuda.LocalCUDACluster", "cuml.LogisticRegression",
    "cuml.ensemble.RandomForestRegressor.fit", "cuml.ensemble.RandomForestRegressor.as_sklearn",
    "cuml.cluster.KMeans.fit_predict", "cuml.decomposition.PCA.fit", "cuml.linear_model.Ridge.fit",
)  # fmt: skip


@dataclass(frozen=True)
class Use:
    """One use of a library's name: where, the dotted path, and for a call its arguments.

    arguments: None if the name is not called, else (number of positional ones, names of the keyword ones, whether
    `*` or `**` adds others that cannot be counted).
    """

    where: str
    path: str
    arguments: tuple[int, tuple[str, ...], bool] | None


def uses() -> list[Use]:
    """Every use of LIBRARIES in gpupipe/, kernels/ and bench/gpu/; `xp` and what ends in `.xp` count as cupy."""
    files = sorted(file for folder in ("gpupipe", "kernels", "bench/gpu") for file in (ROOT / folder).glob("**/*.py"))
    texts = {str(file.relative_to(ROOT)): file.read_text() for file in files}
    of_bonds = {name: text for name, text in texts.items() if name.startswith("gpupipe/workloads/bonds/")}
    found = [use for name, text in texts.items() for use in uses_in(text, name)]
    return found + [use for name, text in of_bonds.items() for use in estimators_in(text, name)]


def estimators_in(source: str, name: str) -> Iterator[Use]:
    """The calls of cuML's classes that calls of `families.libraries.estimator` in one file make on a GPU."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "estimator"):
            continue
        positional, named, open_ended = _arguments(node) or (0, (), False)
        if positional != 2 or not isinstance(node.args[0], ast.Constant):
            raise ValueError(f"{name}:{node.lineno}: expected estimator(NAME, device, ...) with a name as it stands")
        kind = str(node.args[0].value)
        module, cls = libraries.CLASSES[kind]
        taken = tuple(libraries.cuml_arguments(kind, dict.fromkeys(named)))
        yield Use(f"{name}:{node.lineno}", f"cuml.{module}.{cls}", (0, taken, open_ended))


def uses_in(source: str, name: str) -> list[Use]:
    """The uses in one file."""
    tree = ast.parse(source)
    found = list(_imported(tree, name))
    _walk(tree, _aliases(tree), name, found)
    return found


def _walk(node: ast.AST, aliases: dict[str, str], name: str, found: list[Use]) -> None:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        aliases = {**aliases, **_instances(node, aliases)}  # its variables are its own
    callee = node.func if isinstance(node, ast.Call) else None
    path = _path(callee if callee is not None else node, aliases)
    if path and ("." in path or callee is not None):
        found.append(Use(f"{name}:{node.lineno}", path, _arguments(node)))  # type: ignore[attr-defined]
    # A chain of attributes is one use, not one for each of its links.
    children = ast.iter_child_nodes(node)
    for child in children:
        if not (path and (child is callee or isinstance(node, ast.Attribute))):
            _walk(child, aliases, name, found)


def _arguments(node: ast.AST) -> tuple[int, tuple[str, ...], bool] | None:
    if not isinstance(node, ast.Call):
        return None
    positional = [a for a in node.args if not isinstance(a, ast.Starred)]
    named = tuple(k.arg for k in node.keywords if k.arg is not None)
    return len(positional), named, len(positional) < len(node.args) or len(named) < len(node.keywords)


def _imported(tree: ast.AST, name: str) -> Iterator[Use]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LIBRARIES:
            for alias in node.names:
                yield Use(f"{name}:{node.lineno}", f"{node.module}.{alias.name}", None)


def _aliases(tree: ast.AST) -> dict[str, str]:
    """Name in the file -> dotted path, of what is imported from LIBRARIES."""
    aliases = {"xp": "cupy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in LIBRARIES:
                    bound = alias.asname or alias.name.split(".")[0]
                    aliases[bound] = alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LIBRARIES:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return aliases


def _instances(function: ast.AST, aliases: dict[str, str]) -> dict[str, str]:
    """Variables and arguments of a function that hold an instance of a library's class, by call or annotation."""
    found = {}
    for node in ast.walk(function):
        target, origin = None, None
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.value, ast.Call):
            target, origin = node.targets[0], _path(node.value.func, aliases)
            origin = {"xgboost.train": "xgboost.Booster"}.get(origin or "", origin)
        elif isinstance(node, (ast.AnnAssign, ast.arg)) and isinstance(node.annotation, (ast.Name, ast.Attribute)):
            target = node.target if isinstance(node, ast.AnnAssign) else ast.Name(node.arg)
            origin = _path(node.annotation, aliases)
        if isinstance(target, ast.Name) and origin and re.fullmatch(r"[A-Z]\w*", origin.split(".")[-1]):
            found[target.id] = origin
    return found


def _path(node: ast.AST, aliases: dict[str, str]) -> str | None:
    """The dotted path of a chain of attributes that begins at a library, else None."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id)
    if isinstance(node, ast.Attribute):
        if node.attr == "xp":
            return "cupy"
        base = _path(node.value, aliases)
        return f"{base}.{node.attr}" if base else None
    return None


def resolve(path: str) -> object:
    """The object of a dotted path; raises AttributeError or ImportError if it does not exist."""
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError as error:
            if error.name is None or not ".".join(parts[:n]).startswith(error.name):
                raise  # the module is there, but something that it needs is not
            continue
        for name in parts[n:]:
            value = getattr(value, name)
        return value
    raise ImportError(f"no module {parts[0]!r}")


def describe(value: object) -> str | None:
    """The signature as text, without annotations and with `...` for defaults; None if it is not known.

    Compiled classes and functions have none that can be inspected: their stub, else the first line of their
    docstring, says it.
    """
    if not callable(value):
        return None
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return _stub_signature(value) or _documented_signature(value)
    parameters = [
        p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else ...)
        for p in signature.parameters.values()
    ]
    return re.sub(r"=\s*Ellipsis", "=...", str(inspect.Signature(parameters)))


def _stub_signature(value: object) -> str | None:
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    file = pathlib.Path(getattr(module, "__file__", None) or "none")
    stub = file.with_name(f"{file.name.split('.')[0]}.pyi")
    if not stub.exists():
        return None
    named = {getattr(node, "name", None): node for node in ast.parse(stub.read_text()).body}
    node = named.get(getattr(value, "__name__", None))
    if isinstance(node, ast.ClassDef):
        members = {getattr(member, "name", None): member for member in node.body}
        node = members.get("__init__") or members.get("__cinit__")
    return re.sub(r"^\(self(, )?", "(", _plain(node.args)) if isinstance(node, ast.FunctionDef) else None


def _documented_signature(value: object) -> str | None:
    first = (inspect.getdoc(value) or "").split("\n")[0].replace("\\*", "*")
    match = re.fullmatch(r"[\w.]+\((.*)\)( *->.*)?", first)
    if match is None:
        return None
    # "size_t n=0" is how Cython writes "n=0".
    parts = [re.sub(r"^[\w. ]+ (\w+)(=.*)?$", r"\1\2", part.strip()) for part in match[1].split(",")]
    try:
        function = ast.parse(f"def f({', '.join(parts)}): pass").body[0]
    except SyntaxError:
        return None
    assert isinstance(function, ast.FunctionDef)
    return _plain(function.args)


def _plain(arguments: ast.arguments) -> str:
    """The arguments as text, without annotations and with `...` for defaults."""
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
    for argument in every:
        if argument is not None:
            argument.annotation = None
    arguments.defaults = [ast.Constant(...) for _ in arguments.defaults]
    arguments.kw_defaults = [default and ast.Constant(...) for default in arguments.kw_defaults]
    return f"({ast.unparse(arguments)})"


def problem(use: Use, text: str | None) -> str | None:
    """What is wrong with calling a name of signature `text` as `use` does; None if nothing, or if it is not known."""
    if use.arguments is None or text is None:
        return None
    n_positional, named, open_ended = use.arguments
    namespace: dict[str, object] = {}
    exec(f"def f{text}: pass", namespace)
    signature = inspect.signature(namespace["f"])  # type: ignore[arg-type]
    bind = signature.bind_partial if open_ended else signature.bind
    try:
        bind(*[None] * n_positional, **dict.fromkeys(named))
    except TypeError as error:
        return f"{use.where}: {use.path}{text}: {error}"
    return None


def signatures_of(paths: set[str]) -> dict[str, str | None]:
    """Signature of each dotted path, from the libraries installed here; raises if one does not exist."""
    texts = {}
    for path in sorted(paths):
        value, text = resolve(path), describe(resolve(path))
        # A method is called on an instance: its first argument is not the caller's.
        parent = resolve(path.rpartition(".")[0]) if "." in path else None
        is_method = inspect.isclass(parent) and not inspect.ismethod(value) and not inspect.isclass(value)
        texts[path] = re.sub(r"^\(self(, /)?(, )?", "(", text) if text and is_method else text
    return texts


def snapshot(libraries: Collection[str] = LIBRARIES) -> dict[str, dict[str, str | None]]:
    """Versions, and the signature of every name of some libraries that is used, and of its neighbours."""
    paths = {use.path for use in uses()} | set(EXTRA) | set(WHOLE_CLASSES)
    for whole in (*WHOLE_MODULES, *WHOLE_CLASSES):
        if whole.split(".")[0] in libraries:
            holder = resolve(whole)
            for name in vars(holder) if inspect.ismodule(holder) else dir(holder):
                if not name.startswith("_") and not inspect.ismodule(getattr(holder, name)):
                    paths.add(f"{whole}.{name}")
    return {
        "versions": {DISTRIBUTIONS[name]: _version(DISTRIBUTIONS[name]) for name in libraries if name in DISTRIBUTIONS},
        "signatures": signatures_of({path for path in paths if path.split(".")[0] in libraries}),
    }


def _version(distribution: str) -> str:
    """The version that is installed; of XGBoost also where the build without CUDA is, whose names are the same."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version(f"{distribution}-cpu")


def joined(recorded: dict[str, Any], taken: dict[str, Any], libraries: Collection[str]) -> dict[str, Any]:
    """What is recorded, with all that concerns some libraries replaced by what was taken of them."""
    kept = {path: text for path, text in recorded["signatures"].items() if path.split(".")[0] not in libraries}
    return {
        "versions": recorded["versions"] | taken["versions"],
        "signatures": dict(sorted((kept | taken["signatures"]).items())),
    }


if __name__ == "__main__":
    chosen = sys.argv[1:] or LIBRARIES
    snapshot_now = joined(json.loads(SNAPSHOT.read_text()), snapshot(chosen), chosen)
    SNAPSHOT.write_text(json.dumps(snapshot_now, indent=1) + "\n")
    print(f"{len(snapshot_now['signatures'])} names in {SNAPSHOT.name}")
