"""The command line: `gpupipe run` and all other commands."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

# A command, whose options and work are in the module of its name, and what it does.
VERBS = {
    "run": "read, label, compute features, train, evaluate, publish",
    "sequence": "recurrent networks on windows of bars, of one symbol or of several",
    "agent": "a recurrent policy that trades one instrument, retrained in a walk-forward",
    "bonds": "fair values of bonds in eleven steps, and today's rich and cheap ones",
    "tune": "search settings by validation log-loss, and say what the best is worth",
    "backtest": "act on a run's calls in its sealed test, after costs",
    "scan": "what a run's models predict for every symbol's latest bar",
    "export": "a run's models as ONNX files, each checked in onnxruntime",
    "doctor": "what is installed, which device would be used and why, what is missing",
    "features": "list every feature with its formula, source and warm-up",
    "audit": "change the future, and see whether a feature or label before it moves",
    "status": "which units of a run are done, stale and missing in an OUT",
    "verify": "recompute every checksum of an OUT, and name what was altered",
    "clean": "remove from an OUT what nothing refers to",
    "report": "a finished run as one HTML file, OUT/report.html; or two side by side",
    "ingest": "append new bars to a local store of Parquet",
    "nightly": "ingest, train what is stale, backtest, scan, report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console command `gpupipe`; returns the exit code."""
    from gpupipe.cli.guard import entry, perform

    words = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        chosen = parser_for(words).parse_args(words)
        return perform(importlib.import_module(f"gpupipe.cli.{chosen.command}"), chosen)

    return entry(command)


def parser_for(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of all commands, and of the options of the one that the arguments name; only that one is imported."""
    from gpupipe import __version__

    parser = argparse.ArgumentParser(prog="gpupipe", description="From OHLCV bars to trained, verified models.")
    parser.add_argument("--version", action="version", version=f"gpupipe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    named = next((word for word in arguments if not word.startswith("-")), None)
    for verb, summary in VERBS.items():
        options = commands.add_parser(verb, help=summary)
        if verb == named:
            importlib.import_module(f"gpupipe.cli.{verb}").add_arguments(options)
    return parser


if __name__ == "__main__":
    sys.exit(main())
