"""The tests that a GPU runs: how many passed, and the names of those that did not, also where one hangs or crashes."""

from __future__ import annotations

import pathlib
import re
import subprocess
from collections import Counter
from collections.abc import Iterator

from bench import runs
from bench.runs import Line
from tests.support.gpu_tests import files_with_gpu_tests

_OUTCOME = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)(?: \(.*\))?(?: +\[ *\d+%\])?$", re.MULTILINE)
_BROKEN = re.compile(r"^_+ ERROR collecting (\S+) _+$", re.MULTILINE)
_WARNING = re.compile(r"^  \S+:\d+: (\w+Warning: .*)$", re.MULTILINE)
_COUNTS = {"PASSED": "passed", "FAILED": "failed", "ERROR": "error_count", "SKIPPED": "skipped"}


def measured(place: str, log: pathlib.Path, limit_s: float) -> Iterator[Line]:
    """Run the GPU tests of the files in a folder, or of one file; a line with counts and names.

    log: a file that has all that pytest writes.

    A test file that cannot be imported is an error, and the others run. A warning, which is an error elsewhere, is
    counted: libraries that warn on this machine alone would else hide what the tests find.
    """
    files = [name for name in files_with_gpu_tests() if name.startswith(place)]
    options = ["-v", "-m", "gpu", "-W", "default", "--color=no", "--tb=short", "-p", "no:cacheprovider"]
    command = [*runs.MODULE, "pytest", *options, "--continue-on-collection-errors", *files]
    with log.open("w") as text:
        try:
            code: int | str = subprocess.run(
                command, stdout=text, stderr=subprocess.STDOUT, cwd=runs.ROOT, timeout=limit_s
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"stopped after {limit_s:.0f} s"
    yield {"exit_code": code, **outcomes(log.read_text(errors="replace"), code)}


def outcomes(text: str, code: int | str) -> Line:
    """What `pytest -v` says of each test: counts, and names that failed; the end of the text where pytest was stopped.

    code: its exit code, or why it has none. The last lines name the test at which it was stopped.
    """
    found = _OUTCOME.findall(text)
    counts = Counter(_COUNTS[outcome] for _, outcome in found)
    failures = [name for name, outcome in found if outcome in ("FAILED", "ERROR")] + _BROKEN.findall(text)
    line: Line = {**counts, "failures": failures[:40], "warnings": sorted(set(_WARNING.findall(text)))[:20]}
    if code not in (0, 1):
        how = code if isinstance(code, str) else f"ended with exit code {code}"
        line |= {"error": f"pytest {how}", "where": text.strip().splitlines()[-3:]}
    return line
