"""The registry of features: each is a decorated function from the columns of a bar to a formula.

Users register features in Python files of their own (`load_modules`). A run keeps these files in OUT.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import pathlib
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gpupipe.features.lowering import lower, warm_up
from gpupipe.features.series import BAR, Across, Series
from gpupipe.runtime.errors import UserError

FAMILIES = ("trend", "momentum", "volatility", "range", "volume", "candle", "calendar", "cross_sectional", "alpha158")
# Families whose columns are in no set but their own, not even in "all": levels of prices, which mean nothing at other
# prices; columns of bars within a day, of which daily bars have none; and columns from outside, which only some panels
# have.
SET_APART = ("level", "intraday", "outside")

Formula = Callable[..., Any]
F = TypeVar("F", bound=Formula)


class FeatureError(UserError):
    """A user-defined feature cannot be used; the message names the feature or its file, and the problem."""


@dataclass(frozen=True)
class PanelFunction:
    """A column that a user's function computes from the panel of a group. Only the audit keeps it from looking ahead.

    name: the feature's.  user_function: from a Panel with one group, such as a sector, to numbers (n_rows,).
    warm_up_bars: the first bar of a symbol, counted from 0, whose value is not NaN.
    code: the function's source, which enters the hash of the features.

    `@panel_feature("momentum", source="mine")` on a function makes one and registers its Feature.

        >>> from gpupipe import simulate
        >>> ratio = PanelFunction("ratio", lambda panel: panel.close / panel.open, 0, code="panel.close / panel.open")
        >>> ratio.function(simulate(11, 30, seed=1)).shape, ratio.warm_up_bars
        ((330,), 0)
    """

    name: str
    user_function: Callable[[Any], Any]
    warm_up_bars: int
    code: str = field(repr=False)

    def function(self, panel: Any) -> Any:
        """Numbers (n_rows,) on the panel's device; FeatureError if the user's code raises or returns something else."""
        try:
            values = self.user_function(panel)
        except Exception as error:  # user code may raise anything
            if isinstance(error, FeatureError):
                raise
            problem = _one_line(error, self.user_function.__code__.co_filename)
            raise FeatureError(f"feature {self.name} cannot be computed: {problem}") from error
        shape, kind = getattr(values, "shape", None), getattr(getattr(values, "dtype", None), "kind", None)
        if shape != (panel.n_rows,) or kind not in ("f", "i", "u", "b"):
            result = type(values).__name__ if kind is None else f"{values.dtype} {shape}"
            raise FeatureError(
                f"feature {self.name} returned {result}, expected float32 ({panel.n_rows},), a number for each row"
            )
        return values


@dataclass(frozen=True)
class Feature:
    """One registered column: `function` applied to the bar and `periods`.

    formula: the column in words.  source: the publication or library it follows.
    default: whether the set "default" includes it.

        >>> from gpupipe.features.formulas import FEATURES
        >>> sma = FEATURES["sma_ratio_20"]
        >>> sma.family, sma.periods, sma.formula, sma.warm_up_bars
        ('trend', (20,), 'close / SMA(20) - 1', 19)
    """

    name: str
    family: str
    formula: str
    source: str
    function: Formula | PanelFunction
    periods: tuple[float, ...]
    default: bool

    @functools.cached_property
    def series(self) -> Series | Across | PanelFunction:
        """The formula, or the function of the panel; FeatureError if the function does not return a formula."""
        if isinstance(self.function, PanelFunction):
            return self.function
        formula = self.function(BAR, *self.periods)
        if not isinstance(formula, Series | Across):
            raise FeatureError(
                f"feature {self.name} returned {type(formula).__name__}, expected a formula: return an expression of "
                "the bar's columns and functions of gpupipe.features.expressions, such as bar.close / bar.open"
            )
        return formula

    @functools.cached_property
    def warm_up_bars(self) -> int:
        """The first bar of a symbol, counted from 0, whose value is not NaN."""
        return self.series.warm_up_bars if isinstance(self.series, PanelFunction) else warm_up(self.series)

    @functools.cached_property
    def definition(self) -> str:
        """The text that determines the column's values: formula, and hash of its program and of the kernel's code."""
        from gpupipe.kernels.cross_section import cross_section, group_means
        from gpupipe.kernels.program import run_program

        if isinstance(self.series, PanelFunction):
            return f"{self.formula} | {hashlib.sha256(self.series.code.encode()).hexdigest()}"
        inner = self.series.series if isinstance(self.series, Across) else self.series
        program = lower([inner])
        parts = [run_program.definition, program.operations.tobytes().hex(), program.values.tobytes().hex()]
        if isinstance(self.series, Across):
            parts += [cross_section.definition, group_means.definition, f"{self.series.output} {self.series.n}"]
        digest = hashlib.sha256("\n\n".join(parts).encode()).hexdigest()
        return f"{self.formula} | {digest}"


FEATURES: dict[str, Feature] = {}


def feature(
    family: str,
    source: str,
    periods: Iterable[float | tuple[float, ...]] = ((),),
    extra: Iterable[float | tuple[float, ...]] = (),
    separator: str = "_",
) -> Callable[[F], F]:
    """Decorator: register a feature for each set of periods, named function_period_period.

    The function takes the bar (a `features.expressions.Bar`) and the periods, and returns a formula. Its docstring
    starts with the formula in words, with {names} of the function's parameters in place of the periods.

    family: one of FAMILIES.  source: the publication or library that the formula follows.
    periods: sets of periods whose columns are in "default".  extra: sets whose columns must be selected by name.
    separator: between the function's name and the periods.
    Raises FeatureError for a name that is taken, an unknown family, or periods that the function does not take.
    """

    def register(function: F) -> F:
        names = list(inspect.signature(function).parameters)[1:]
        for default, sets in ((True, periods), (False, extra)):
            for period_set in sets:
                values = period_set if isinstance(period_set, tuple) else (period_set,)
                if len(names) != len(values):
                    takes = f"the bar and {', '.join(names)}" if names else "the bar alone"
                    raise FeatureError(f"feature {function.__name__} takes {takes}, but the periods given are {values}")
                name = separator.join([function.__name__, *(f"{value:g}".replace(".", "p") for value in values)])
                words, _, _ = (function.__doc__ or name).partition("\n\n")
                formula = " ".join(words.split()).format(**dict(zip(names, values, strict=True)))
                _add(Feature(name, family, formula, source, function, values, default))
        return function

    return register


def panel_feature(family: str, source: str, warm_up_bars: int = 0) -> Callable[[F], F]:
    """Decorator: register a function of the Panel of a group as a feature; the feature has the function's name.

    The function returns float32 (n_rows,) on the panel's device. Use it where no formula will do. It can look ahead, so
    audit it (`gpupipe audit`).
    warm_up_bars: the first bar of a symbol, counted from 0, whose value is not NaN.
    Raises FeatureError for a name that is taken, an unknown family, or a function whose source cannot be read.
    """

    def register(function: F) -> F:
        name = function.__name__
        try:
            code = inspect.getsource(function)
        except OSError:
            raise FeatureError(f"the source of feature {name} cannot be read: put it in a file") from None
        words = " ".join((function.__doc__ or "").split())
        _add(Feature(name, family, words, source, PanelFunction(name, function, warm_up_bars, code), (), True))
        return function

    return register


def _add(feature: Feature) -> None:
    if feature.family not in (*FAMILIES, *SET_APART):
        raise FeatureError(f"no family {feature.family!r}; expected one of {', '.join(FAMILIES)}")
    if feature.name in FEATURES:
        raise FeatureError(f"there is a feature {feature.name!r} already; rename this one")
    FEATURES[feature.name] = feature


@dataclass(frozen=True)
class Module:
    """A Python file of user-defined features.

    path: as the user named it.  content: its bytes when it ran.  features: the features it registered, by name.

        >>> code = '''
        ... from gpupipe import feature
        ... @feature("range", source="mine", periods=[2, 3])
        ... def calm(bar, n):
        ...     return bar.close / bar.open - 1
        ... '''
        >>> [module] = load_contents({"mine.py": code.encode()})
        >>> module.path, list(module.features)
        ('mine.py', ['calm_2', 'calm_3'])
        >>> load_contents({})  # without their file, the features are no longer registered
        ()
    """

    path: str
    content: bytes = field(repr=False)
    features: dict[str, Feature] = field(repr=False)


_loaded: tuple[Module, ...] = ()  # files whose features are in FEATURES
_executed: dict[tuple[pathlib.Path, bytes], Module] = {}
_lock = threading.RLock()


def load_modules(paths: Iterable[str]) -> tuple[Module, ...]:
    """Register the features of these Python files and remove those of files that earlier calls loaded.

    A file runs once for each content, so that a changed file replaces its features.
    Raises FeatureError if a file cannot be read or run, registers no feature, or holds an invalid formula; the registry
    is then unchanged.
    """
    files = {}
    for path in paths:
        try:
            files[path] = pathlib.Path(path).read_bytes()
        except OSError as error:
            raise FeatureError(f"{path} cannot be read: {error.strerror}; expected Python code with features") from None
    return load_contents(files)


def load_contents(files: dict[str, bytes]) -> tuple[Module, ...]:
    """`load_modules` of files that are already in memory: content by path."""
    global _loaded
    with _lock:
        if [(module.path, module.content) for module in _loaded] == list(files.items()):
            return _loaded
        before = dict(FEATURES)
        for module in _loaded:
            for name in module.features:
                del FEATURES[name]
        try:
            _loaded = tuple(_features_of(path, content) for path, content in files.items())
        except BaseException:
            FEATURES.clear()
            FEATURES.update(before)
            raise
        return _loaded


def _features_of(path: str, content: bytes) -> Module:
    """Register the features of a file; it runs unless it has run with this content before."""
    file = pathlib.Path(path).resolve()
    before = set(FEATURES)
    try:
        if (file, content) in _executed:
            for feature in _executed[file, content].features.values():
                _add(feature)
        else:
            _run(file, content)
        registered = {name: feature for name, feature in FEATURES.items() if name not in before}
        for feature in registered.values():
            _check(feature, file)
    except FeatureError as error:
        raise FeatureError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise FeatureError(f"{path} cannot be run: {_one_line(error, str(file))}") from error
    if not registered:
        raise FeatureError(f"{path} registers no feature; decorate a function with @gpupipe.feature(family, source)")
    _executed[file, content] = Module(path, content, registered)
    return _executed[file, content]


# Modules that feature files written for an earlier gpupipe import, and their present names.
FORMER_MODULES = {"gpupipe.expressions": "gpupipe.features.expressions"}


def _run(file: pathlib.Path, content: bytes) -> None:
    """Run a file as a module with a unique name; Python's importer would write a cache next to the file."""
    for former, current in FORMER_MODULES.items():
        sys.modules.setdefault(former, importlib.import_module(current))
    name = f"features_of_{file.stem}_{hashlib.sha256(content).hexdigest()[:12]}"
    module = types.ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses look up the module of a class there
    try:
        exec(compile(content, str(file), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise


def _check(feature: Feature, file: pathlib.Path) -> None:
    """Build the formula now, where its file is known, rather than in the middle of a run."""
    try:
        _ = feature.series
    except FeatureError:
        raise
    except Exception as error:
        raise FeatureError(f"feature {feature.name} cannot be built: {_one_line(error, str(file))}") from error


def _one_line(error: BaseException, filename: str) -> str:
    """An exception of user code in one line, with the number of the last line of the user's file in the traceback."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == filename]
    return f"{type(error).__name__}: {error}" + (f" (line {lines[-1]})" if lines else "")
