"""The command `gpupipe features`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpupipe.runtime.errors import UserError


@dataclass(frozen=True)
class FeaturesRequest:
    """names: of features, families, sets, or globs; the default set if empty.  modules: Python files of the user.

    json: whether they are printed as JSON, or as a table.

    >>> FeaturesRequest(names=("momentum", "rsi_*")).names
    ('momentum', 'rsi_*')
    """

    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    json: bool = False

    @property
    def folder(self) -> str:
        """It only looks."""
        return ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe features`."""
    parser.add_argument("names", nargs="*", help="default, all, core, session, a family, a glob, a name")
    parser.add_argument("--module", action="append", default=[], metavar="FILE", help="Python code with features")
    parser.add_argument("--json", action="store_true", help="print JSON")


def request_of(chosen: argparse.Namespace) -> FeaturesRequest:
    """What the options ask for."""
    return FeaturesRequest(tuple(chosen.names), tuple(chosen.module), chosen.json)


def columns(names: Sequence[str], modules: Sequence[str]) -> tuple[str, ...]:
    """The features that are named and those of the user's files; the default set where neither is named."""
    from gpupipe.features.formulas.registry import load_modules
    from gpupipe.features.matrix import feature_names

    of_user = [name for module in load_modules(tuple(modules)) for name in module.features]
    try:
        return feature_names([*names, *of_user] or "default")
    except ValueError as error:
        raise UserError(str(error)) from None


def run(request: FeaturesRequest) -> int:
    """List the features as a table or as JSON."""
    from rich.table import Table

    from gpupipe.cli.console import console
    from gpupipe.features.matrix import feature_table

    chosen = set(columns(request.names, request.modules))
    if request.json:
        print(json.dumps([described(info.name) for info in feature_table() if info.name in chosen], indent=1))
        return 0
    table = Table("name", "family", "formula", "source", "warm-up", box=None, header_style="dim")
    for info in feature_table():
        if info.name in chosen:
            table.add_row(info.name, info.family, info.formula, info.source, str(info.warm_up_bars))
    console(quiet=False).print(table)
    return 0


def described(name: str) -> dict[str, Any]:
    """A registered feature as JSON holds it.

    formula: in words.  doc: the docstring of its function.  periods: the function's arguments after the bar.
    definition: formula and hash of the code that computes it; equal definitions are equal columns.
    warm_up_bars: the first bar of a symbol, counted from 0, whose value is not NaN.  default: whether the default set
    has it.

    >>> sma = described("sma_ratio_20")
    >>> sma["formula"], sma["periods"], sma["warm_up_bars"], sma["definition"].startswith(sma["formula"])
    ('close / SMA(20) - 1', [20], 19, True)
    """
    import inspect

    from gpupipe.features.formulas import FEATURES
    from gpupipe.features.formulas.registry import PanelFunction

    feature = FEATURES[name]
    function = feature.function
    code = function.user_function if isinstance(function, PanelFunction) else function
    return {
        "name": feature.name,
        "family": feature.family,
        "formula": feature.formula,
        "source": feature.source,
        "periods": list(feature.periods),
        "warm_up_bars": feature.warm_up_bars,
        "default": feature.default,
        "definition": feature.definition,
        "doc": inspect.getdoc(code) or "",
    }
