"""The files that hold tests of a GPU."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def files_with_gpu_tests(of_networks: bool = False) -> list[str]:
    """Files that mark tests, or use the fixture `device`: collecting all others takes longer than these tests.

    of_networks: those alone that need Torch.
    """
    wanted = re.compile(r"mark\.gpu|def \w+\((?:[^)]*, )?device\b")
    texts = {file: file.read_text() for file in sorted((ROOT / "tests").rglob("test_*.py"))}
    found = [file for file, text in texts.items() if wanted.search(text)]
    return [str(file.relative_to(ROOT)) for file in found if not of_networks or 'importorskip("torch"' in texts[file]]
