"""`python -m tests.support.stand_in [options] COMMAND ...`: a command of gpupipe, or pytest, on the stand-in.

--counts FILE: write what was counted as JSON.  --report: print it on standard error.
--exact: results of CuPy are numpy's to the last bit.  --check: races and bounds of kernels are looked for; slow.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    """Install the stand-in, do the command, and tell what was counted."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.stand_in", description=__doc__.split("\n")[0])
    parser.add_argument("--counts", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("command")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(words)

    from tests.support.stand_in import install

    install.install(exact=chosen.exact, checked=chosen.check)
    from tests.support.stand_in.counting import COUNTS, report

    try:
        return perform(chosen.command, chosen.arguments)
    finally:
        if chosen.counts is not None:
            COUNTS.write(chosen.counts)
        if chosen.report:
            print(*report(COUNTS), sep="\n", file=sys.stderr)


def perform(command: str, arguments: Sequence[str]) -> int:
    """Do a command of gpupipe, pytest, or a module of Python; its exit code."""
    if command == "pytest":
        import pytest

        return int(pytest.main(["-p", "no:cacheprovider", *arguments]))
    from gpupipe.cli.main import main as gpupipe

    return gpupipe([command, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
