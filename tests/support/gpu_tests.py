"""The files that hold tests of a GPU."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def files_with_gpu_tests() -> list[str]:
    """Files that mark tests, or use the fixture `device`: collecting all others takes longer than these tests."""
    wanted = re.compile(r"mark\.gpu|def \w+\((?:[^)]*, )?device\b")
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if wanted.search(file.read_text())]
