"""The command `gpupipe features`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from gpupipe.runtime.errors import UserError


@dataclass(frozen=True)
class FeaturesRequest:
    """names: of features, families, sets, or globs; the default set if empty.  modules: Python files of the user.

    >>> FeaturesRequest(names=("momentum", "rsi_*")).names
    ('momentum', 'rsi_*')
    """

    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """It only looks."""
        return ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe features`."""
    parser.add_argument("names", nargs="*", help="default, all, core, a family, a glob, a name")
    parser.add_argument("--module", action="append", default=[], metavar="FILE", help="Python code with features")


def request_of(chosen: argparse.Namespace) -> FeaturesRequest:
    """What the options ask for."""
    return FeaturesRequest(tuple(chosen.names), tuple(chosen.module))


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
    """List the features as a table."""
    from rich.table import Table

    from gpupipe.cli.console import console
    from gpupipe.features.matrix import feature_table

    chosen = set(columns(request.names, request.modules))
    table = Table("name", "family", "formula", "source", "warm-up", box=None, header_style="dim")
    for info in feature_table():
        if info.name in chosen:
            table.add_row(info.name, info.family, info.formula, info.source, str(info.warm_up_bars))
    console(quiet=False).print(table)
    return 0
