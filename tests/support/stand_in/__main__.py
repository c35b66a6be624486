"""`python -m tests.support.stand_in [options] COMMAND ...`: a command of gpupipe, pytest, or a module, on the stand-in.

--counts FILE: write what was counted as JSON.  --report: print it on standard error.
--exact: results of CuPy are numpy's to the last bit.  --check: races and bounds of kernels are looked for; slow.
"""

from __future__ import annotations

import argparse
import pathlib
import runpy
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
        return perform(chosen.command, chosen.arguments, ["--exact"] * chosen.exact + ["--check"] * chosen.check)
    finally:
        if chosen.counts is not None:
            COUNTS.write(chosen.counts)
        if chosen.report:
            print(*report(COUNTS), sep="\n", file=sys.stderr)


def perform(command: str, arguments: Sequence[str], options: Sequence[str] = ()) -> int:
    """Do a command of gpupipe, pytest, or a module whose name has a dot, such as bench.gpu; its exit code.

    options: of the stand-in, also for the processes that bench starts.
    """
    if command == "pytest" or "." in command:
        from bench import runs

        runs.MODULE = (sys.executable, "-m", "tests.support.stand_in", *options)
        return _pytest(arguments) if command == "pytest" else _module(command, arguments)
    from gpupipe.cli.main import main as gpupipe

    return gpupipe([command, *arguments])


def _pytest(arguments: Sequence[str]) -> int:
    import pytest

    return int(pytest.main(["-p", "no:cacheprovider", *arguments]))


def _module(name: str, arguments: Sequence[str]) -> int:
    """Run a module as `python -m` does."""
    sys.argv = [name, *arguments]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
