"""The features there are, by name: each is a decorated function from the columns of a bar to a formula."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import pathlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from gpupipe.expressions import BAR, Across, Series, lower, warm_up

FAMILIES = ("trend", "momentum", "volatility", "range", "volume", "candle", "calendar", "cross_sectional", "alpha158")

Formula = Callable[..., Any]
F = TypeVar("F", bound=Formula)


@dataclass(frozen=True)
class OnPanel:
    """A column that a function of the panel makes by itself: nothing keeps it from looking ahead but the audit."""

    function: Callable[[Any], Any]
    warm_up_bars: int


@dataclass(frozen=True)
class Feature:
    """One column: `function` of the bar and `periods`. default: whether it is in the set of that name."""

    name: str
    family: str
    formula: str
    source: str
    function: Formula
    periods: tuple[float, ...]
    default: bool

    @functools.cached_property
    def series(self) -> Series | Across | OnPanel:
        """Its formula, or the function of the panel that makes it."""
        if isinstance(self.function, OnPanel):
            return self.function
        made = self.function(BAR, *self.periods)
        if not isinstance(made, Series | Across):
            raise TypeError(f"feature {self.name} gave {type(made).__name__}, expected a formula of the bar's columns")
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
            code = inspect.getsource(self.series.function)
            return f"{self.formula} | {hashlib.sha256(code.encode()).hexdigest()}"
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

    The function takes the bar (a `gpupipe.expressions.Bar`) and the periods, and gives a formula; its docstring
    begins with it in words, with {periods} by name. periods: sets of the default columns.  extra: sets that must be
    asked for.
    Raises ValueError for a name that is taken or a family that does not exist.
    """

    def register(function: F) -> F:
        names = list(inspect.signature(function).parameters)[1:]
        for default, sets in ((True, periods), (False, extra)):
            for one in sets:
                values = one if isinstance(one, tuple) else (one,)
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
        made = OnPanel(function, warm_up_bars)
        _add(Feature(function.__name__, family, " ".join((function.__doc__ or "").split()), source, made, (), True))  # type: ignore[arg-type]
        return function

    return register


_modules: dict[tuple[str, bytes], list[str]] = {}


def load_module(path: str) -> list[str]:
    """Run a Python file of one's own, and give the names of the features that it registered; the same file runs once.

    Raises ValueError if it cannot be read or run, or registers none.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise ValueError(f"{path} is not a file; expected Python code that registers features")
    key = (str(file.resolve()), file.read_bytes())
    if key in _modules:
        return _modules[key]
    before = set(FEATURES)
    spec = importlib.util.spec_from_file_location(f"features_of_{pathlib.Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file (its name does not end in .py)")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception as error:  # whatever the user's code does wrong
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    added = [name for name in FEATURES if name not in before]
    if not added:
        raise ValueError(f"{path} registers no feature; decorate a function with @gpupipe.feature(family, source)")
    _modules[key] = added
    return added


def _add(one: Feature) -> None:
    if one.family not in FAMILIES:
        raise ValueError(f"no family {one.family!r}; there are {', '.join(FAMILIES)}")
    if one.name in FEATURES:
        raise ValueError(f"there is a feature {one.name!r} already")
    FEATURES[one.name] = one


def unregister(names: Iterable[str]) -> None:
    """Forget features of one's own."""
    for name in names:
        del FEATURES[name]
