"""OUT/report.html: one file that shows a finished run, and one that shows two side by side."""

from __future__ import annotations

import importlib.util
import os
import pathlib

from gpupipe.artifacts import summary
from gpupipe.report import page, sections
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import StoreError, write_atomic

NAME, COMPARED = "report.html", "compared.html"
NEEDS = {"altair": "altair", "jinja2": "jinja2", "vl_convert": "vl-convert-python"}


def write(out: str | os.PathLike[str]) -> pathlib.Path:
    """Write OUT/report.html from what OUT holds, and return its path.

    The file needs nothing beside it and no network. It is no part of the manifest: it is made anew of what is there.
    Raises StoreError if OUT has no finished run, UserError where the packages that draw are missing.
    """
    require()
    folder = pathlib.Path(out)
    whole = summary.read(folder)
    try:
        content = page.render(_title(folder), sections.lead(whole), sections.of_run(folder, whole))
    except KeyError as error:
        raise _of_another_version(error, folder) from error
    path = folder / NAME
    write_atomic(path, content.encode())
    return path


def compare(
    one: str | os.PathLike[str], other: str | os.PathLike[str], to: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Write a page with two finished runs side by side, to `to` or into the first one's folder; return its path."""
    require()
    folders = [pathlib.Path(one), pathlib.Path(other)]
    path = folders[0] / COMPARED if to is None else pathlib.Path(to)
    names = [str(folder) for folder in folders]
    try:
        found = sections.of_two(names, [summary.read(folder) for folder in folders])
    except KeyError as error:
        raise _of_another_version(error, *folders) from error
    write_atomic(path, page.render(f"gpupipe: {names[0]} and {names[1]}", [], found).encode())
    return path


def _of_another_version(error: KeyError, *folders: pathlib.Path) -> StoreError:
    where = " or ".join(str(folder) for folder in folders)
    return StoreError(f"{where} holds a run of another gpupipe, whose summary lacks {error}: run again with that --out")


def _title(folder: pathlib.Path) -> str:
    return f"gpupipe: {folder.resolve().name}"


def require() -> None:
    """Raise UserError, with the line that installs them, where packages that draw are missing."""
    missing = [package for module, package in NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"the report needs {', '.join(missing)}: pip install -e '.[report]'")


__all__ = ["COMPARED", "NAME", "compare", "write"]
