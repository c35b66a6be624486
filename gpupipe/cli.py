"""The command line: `gpupipe run`, `gpupipe doctor`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

USER_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console command `gpupipe`; returns the exit code."""
    from gpupipe import __version__, doctor, run

    parser = argparse.ArgumentParser(prog="gpupipe", description="From OHLCV bars to trained, verified models.")
    parser.add_argument("--version", action="version", version=f"gpupipe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    run.add_arguments(commands.add_parser("run", help="read, label, compute features, train, evaluate, publish"))
    check = commands.add_parser("doctor", help="what is installed, which device would be used and why, what is missing")
    check.add_argument("--json", action="store_true", help="print JSON")
    features = commands.add_parser("features", help="list every feature with its formula, source and warm-up")
    features.add_argument("names", nargs="*", default=["default"], help="default, all, a family, a glob, a name")
    chosen = parser.parse_args(arguments)
    if chosen.command == "run":
        return run.run(chosen)
    if chosen.command == "doctor":
        return doctor.run(as_json=chosen.json)
    return _features(chosen.names)


def _features(names: list[str]) -> int:
    from rich.table import Table

    from gpupipe.console import console
    from gpupipe.features import feature_names, feature_table

    try:
        chosen = set(feature_names(names))
    except ValueError as error:
        print(f"gpupipe: {error}", file=sys.stderr)
        return USER_ERROR
    table = Table("name", "family", "formula", "source", "warm-up", box=None, header_style="dim")
    for info in feature_table():
        if info.name in chosen:
            table.add_row(info.name, info.family, info.formula, info.source, str(info.warm_up_bars))
    console(quiet=False).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
