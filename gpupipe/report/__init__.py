"""HTML reports: OUT/report.html shows a finished run, OUT/compared.html shows two runs side by side."""

from __future__ import annotations

import importlib.util
import os
import pathlib

from gpupipe.artifacts import summary
from gpupipe.report import page, sections
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import StoreError, write_atomic

NAME, COMPARED = "report.html", "compared.html"
NEEDS = {"altair": "altair", "jinja2": "jinja2", "vl_convert": "vl-convert-python"}  # package to install, by module


def write(out: str | os.PathLike[str]) -> pathlib.Path:
    """Write OUT/report.html from the files of OUT, and return its path.

    The page is one file: it loads nothing else and needs no network. The manifest does not list it, because every call
    writes it again.
    Raises StoreError if OUT has no finished run, UserError if a package that draws the charts is missing.
    """
    require()
    folder = pathlib.Path(out)
    whole = summary.read(folder)
    try:
        content = page.render(_title(folder), sections.lead(whole), sections.run_sections(folder, whole))
    except KeyError as error:
        raise _other_version(error, folder) from error
    path = folder / NAME
    write_atomic(path, content.encode())
    return path


def compare(
    first: str | os.PathLike[str], second: str | os.PathLike[str], to: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Write a page that compares two finished runs, and return its path.

    to: the file to write; None for compared.html in the folder of the first run.  Raises as `write`.
    """
    require()
    folders = [pathlib.Path(first), pathlib.Path(second)]
    path = folders[0] / COMPARED if to is None else pathlib.Path(to)
    names = [str(folder) for folder in folders]
    try:
        compared = sections.comparison_sections(names, [summary.read(folder) for folder in folders])
    except KeyError as error:
        raise _other_version(error, *folders) from error
    write_atomic(path, page.render(f"gpupipe: {names[0]} and {names[1]}", [], compared).encode())
    return path


def _other_version(error: KeyError, *folders: pathlib.Path) -> StoreError:
    names = " or ".join(str(folder) for folder in folders)
    return StoreError(
        f"{names} holds a run of another gpupipe version: its summary has no {error}; run again with that --out"
    )


def _title(folder: pathlib.Path) -> str:
    return f"gpupipe: {folder.resolve().name}"


def require() -> None:
    """Raise UserError, with the command that installs them, if packages that draw the charts are missing."""
    missing = [package for module, package in NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"the report needs {', '.join(missing)}: pip install -e '.[report]'")


__all__ = ["COMPARED", "NAME", "compare", "write"]
