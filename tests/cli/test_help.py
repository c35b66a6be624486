"""Help is quick and the parser is the whole of argparse: no library is loaded for it, and no Namespace goes further."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import pathlib
import subprocess
import sys

import pytest

from gpupipe.cli import guard, main, tune
from gpupipe.training import search

ROOT = pathlib.Path(__file__).parents[2]
HEAVY = ("numpy", "numba", "pyarrow")
ASKING = """
import contextlib, io, sys
from gpupipe.cli import main
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    try:
        main.main(sys.argv[1:])
    except SystemExit as done:
        assert done.code == 0
print(printed.getvalue().split()[0], *(name for name in {heavy} if name in sys.modules))
"""


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), *((verb, "--help") for verb in main.VERBS)])
def test_help_loads_no_heavy_library(arguments):
    script = ASKING.format(heavy=(*HEAVY, "gpupipe.backtest.engine"))
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["gpupipe" if arguments == ("--version",) else "usage:"]


def test_the_module_of_the_run_loads_no_heavy_library_for_its_help():
    script = ASKING.format(heavy=HEAVY).replace("gpupipe.cli import main", "gpupipe.cli import run as main")
    done = subprocess.run([sys.executable, "-c", script, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == ["usage:"], done.stderr


def test_every_command_has_a_module_with_typed_requests(capsys):
    needed = {"status": ["O"], "verify": ["O"], "clean": ["O"], "report": ["O"], "export": ["O", "--to", "D"],
              "ingest": ["x.csv", "--store", "S"]}  # fmt: skip
    for verb in main.VERBS:
        module = importlib.import_module(f"gpupipe.cli.{verb}")
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        request = module.request_of(parser.parse_args(needed.get(verb, [])))
        assert dataclasses.is_dataclass(request) and isinstance(request.folder, str), verb
        with pytest.raises(dataclasses.FrozenInstanceError):
            request.out = "other"
        with pytest.raises(SystemExit):
            main.main([verb, *needed.get(verb, []), "--no-such-option"])
        assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err


def test_only_add_arguments_and_request_of_know_argparse():
    """A Namespace is read by `request_of` alone: whatever does the work takes a request, or plain values."""
    readers = ("request_of", "data_request", "job_request", "_spread", "perform")
    for file in sorted((ROOT / "gpupipe").glob("**/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and "Namespace" in ast.unparse(node.args):
                assert file.parent.name == "cli" and node.name in readers, f"{file}: {node.name}"
            if isinstance(node, ast.Call):
                assert "Namespace" not in ast.unparse(node.func), f"{file}: a forged namespace"


def test_what_is_tunable_is_what_estimators_declare():
    assert tuple(search.searched()) == tune.TUNABLE


def test_a_request_that_cannot_be_is_one_line_and_nothing_is_done(capsys):
    assert main.main(["run", "--cpcv", "six", "--out", "/nowhere/OUT"]) == guard.USER_ERROR
    assert capsys.readouterr().err == "gpupipe: --cpcv six: expected numbers separated by commas, as 6,2\n"
