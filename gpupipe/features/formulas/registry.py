"""The features there are, by name: each is a decorated function from the columns of a bar to a formula."""

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

from gpupipe.features.expressions import BAR, Across, Series, lower, warm_up
from gpupipe.runtime.errors import UserError

FAMILIES = ("trend", "momentum", "volatility", "range", "volume", "candle", "calendar", "cross_sectional", "alpha158")

Formula = Callable[..., Any]
F = TypeVar("F", bound=Formula)


class FeatureError(UserError):
    """A feature of the user's own that cannot be used; the message names the feature or its file, and what is wrong."""


@dataclass(frozen=True)
class OnPanel:
    """A column that the user's code makes of the panel: nothing keeps it from looking ahead but the audit.

    code: its text, which stands for it in the hash of the features.
    """

    name: str
    user_function: Callable[[Any], Any]
    warm_up_bars: int
    code: str = field(repr=False)

    def function(self, panel: Any) -> Any:
        """Numbers (n_rows,) on the panel's device; FeatureError if the user's code raises, or gives anything else."""
        try:
            values = self.user_function(panel)
        except Exception as error:  # whatever the user's code does wrong
            told = _told(error, self.user_function.__code__.co_filename)
            raise FeatureError(f"feature {self.name} cannot be computed: {told}") from error
        shape, kind = getattr(values, "shape", None), getattr(getattr(values, "dtype", None), "kind", None)
        if shape != (panel.n_rows,) or kind not in ("f", "i", "u", "b"):
            came = type(values).__name__ if kind is None else f"{values.dtype} {shape}"
            raise FeatureError(f"feature {self.name} gave {came}, expected float32 ({panel.n_rows},), one for each row")
        return values


@dataclass(frozen=True)
class Feature:
    """One column: `function` of the bar and `periods`. default: whether it is in the set of that name."""

    name: str
    family: str
    formula: str
    source: str
    function: Formula | OnPanel
    periods: tuple[float, ...]
    default: bool

    @functools.cached_property
    def series(self) -> Series | Across | OnPanel:
        """Its formula, or the function of the panel that makes it; FeatureError if the function gives no formula."""
        if isinstance(self.function, OnPanel):
            return self.function
        made = self.function(BAR, *self.periods)
        if not isinstance(made, Series | Across):
            raise FeatureError(
                f"feature {self.name} gave {type(made).__name__}, expected a formula: return what arithmetic and "
                "gpupipe.features.expressions make of the bar's columns, such as bar.close / bar.open"
            )
        return made

    @property
    def warm_up_bars(self) -> int:
        """The first bar of a symbol, counted from 0, that can be known."""
        return self.series.warm_up_bars if isinstance(self.series, OnPanel) else warm_up(self.series)

    @functools.cached_property
    def definition(self) -> str:
        """What fixes the column's values, as text: its formula, and a hash of what the machine runs for it."""
        from gpupipe.kernels.cross_section import cross_section, group_means
        from gpupipe.kernels.program import run_program

        if isinstance(self.series, OnPanel):
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
    family: str, source: str, periods: Iterable[float | tuple[float, ...]] = ((),),
    extra: Iterable[float | tuple[float, ...]] = (), separator: str = "_",
) -> Callable[[F], F]:  # fmt: skip
    """Decorator: make a feature of each set of periods, named function_period_period.

    The function takes the bar (a `features.expressions.Bar`) and the periods, and gives a formula; its docstring
    begins with it in words, with {periods} by name. periods: sets of the default columns.  extra: sets that must be
    asked for.
    Raises FeatureError for a name that is taken, a family that does not exist, or periods that the function takes not.
    """

    def register(function: F) -> F:
        names = list(inspect.signature(function).parameters)[1:]
        for default, sets in ((True, periods), (False, extra)):
            for one in sets:
                values = one if isinstance(one, tuple) else (one,)
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
    """Decorator: a column that is no formula, made by a function of the Panel: float32 (n_rows,) on the panel's device.

    It is computed by itself and can look anywhere: have it audited (`gpupipe audit`). warm_up_bars: the first bar of a
    symbol that can be known. The name is the function's.
    """

    def register(function: F) -> F:
        name = function.__name__
        try:
            code = inspect.getsource(function)
        except OSError:
            raise FeatureError(f"the code of feature {name} cannot be read: put it in a file") from None
        words = " ".join((function.__doc__ or "").split())
        _add(Feature(name, family, words, source, OnPanel(name, function, warm_up_bars, code), (), True))
        return function

    return register


def _add(one: Feature) -> None:
    if one.family not in FAMILIES:
        raise FeatureError(f"no family {one.family!r}; there are {', '.join(FAMILIES)}")
    if one.name in FEATURES:
        raise FeatureError(f"there is a feature {one.name!r} already; give this one another name")
    FEATURES[one.name] = one


@dataclass(frozen=True)
class Module:
    """A Python file of features of one's own: as it was named, what it held when it ran, and what it registered."""

    path: str
    content: bytes = field(repr=False)
    features: dict[str, Feature] = field(repr=False)


_loaded: tuple[Module, ...] = ()  # their features are in FEATURES
_ran: dict[tuple[pathlib.Path, bytes], Module] = {}
_lock = threading.RLock()


def load_modules(paths: Iterable[str]) -> tuple[Module, ...]:
    """Have the features of these Python files, and of no other file: those that earlier calls loaded are forgotten.

    A file runs once for each content that it has had, so that a changed file replaces its features.
    Raises FeatureError if one cannot be read or run, registers none, or has a formula that cannot be made; then the
    features are those that there were before.
    """
    files = {}
    for path in paths:
        try:
            files[path] = pathlib.Path(path).read_bytes()
        except OSError as error:
            raise FeatureError(f"{path} cannot be read: {error.strerror}; expected Python code with features") from None
    return load_contents(files)


def load_contents(files: dict[str, bytes]) -> tuple[Module, ...]:
    """`load_modules` of files that were read already: content by path."""
    global _loaded
    with _lock:
        if [(one.path, one.content) for one in _loaded] == list(files.items()):
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
    """Register the features of a file; it is run if it has not been with this content."""
    place = pathlib.Path(path).resolve()
    there = set(FEATURES)
    try:
        if (place, content) in _ran:
            for one in _ran[place, content].features.values():
                _add(one)
        else:
            _run(place, content)
        made = {name: one for name, one in FEATURES.items() if name not in there}
        for one in made.values():
            _check(one, place)
    except FeatureError as error:
        raise FeatureError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever the user's code does wrong
        raise FeatureError(f"{path} cannot be run: {_told(error, str(place))}") from error
    if not made:
        raise FeatureError(f"{path} registers no feature; decorate a function with @gpupipe.feature(family, source)")
    _ran[place, content] = Module(path, content, made)
    return _ran[place, content]


# Modules that feature files written for an earlier gpupipe import, and where these are now.
FORMER_MODULES = {"gpupipe.expressions": "gpupipe.features.expressions"}


def _run(place: pathlib.Path, content: bytes) -> None:
    """Run a file as a module with a name of its own; the importer would leave its cache beside the file."""
    for former, current in FORMER_MODULES.items():
        sys.modules.setdefault(former, importlib.import_module(current))
    name = f"features_of_{place.stem}_{hashlib.sha256(content).hexdigest()[:12]}"
    module = types.ModuleType(name)
    module.__file__ = str(place)
    sys.modules[name] = module  # dataclasses and others look there for the module of what they are given
    try:
        exec(compile(content, str(place), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise


def _check(one: Feature, place: pathlib.Path) -> None:
    """Make the formula now, where its file is known, and not in the middle of a run."""
    try:
        _ = one.series
    except FeatureError:
        raise
    except Exception as error:
        raise FeatureError(f"feature {one.name} cannot be made: {_told(error, str(place))}") from error


def _told(error: BaseException, filename: str) -> str:
    """An error of the user's code in one line, with the last line of the file that it passed."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == filename]
    return f"{type(error).__name__}: {error}" + (f" (line {lines[-1]})" if lines else "")
