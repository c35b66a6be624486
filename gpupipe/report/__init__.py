"""OUT/report.html: one file that shows a finished run, and one that shows two side by side."""

from __future__ import annotations

import os
import pathlib

from gpupipe import summary
from gpupipe.report import page, sections
from gpupipe.store import write_atomic

NAME = "report.html"


def write(out: str | os.PathLike[str]) -> pathlib.Path:
    """Write OUT/report.html from what OUT holds; StoreError if OUT has no finished run.

    The file needs nothing beside it and no network. It is no part of the manifest: it is made anew of what is there.
    """
    folder = pathlib.Path(out)
    whole = summary.read(folder)
    data = whole["data"]
    title = f"gpupipe: {data.get('last_time') or folder.name}"
    content = page.render(title, sections.lead(whole), sections.of_run(folder, whole))
    path = folder / NAME
    write_atomic(path, content.encode())
    return path


__all__ = ["NAME", "write"]
