"""One HTML file that opens from disk: text, sortable tables, charts, and the libraries that draw them."""

from __future__ import annotations

import base64
import functools
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LONG = 40  # characters of a cell that may be broken into lines


@dataclass(frozen=True)
class Table:
    """columns: (title, whether a number).  rows: of cells: text, a number, or None for nothing.

    digits: after the point, of numbers that are not whole.
    """

    caption: str
    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[Any]]
    digits: int = 2
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A Vega-Lite specification and what it shows, in words for who cannot see it."""

    caption: str
    spec: Mapping[str, Any]

    @property
    def interactive(self) -> bool:
        """Whether the reader can choose in it: then it is no mere image to a screen reader."""
        return any("bind" in one for one in self.spec.get("params", ()))


@dataclass(frozen=True)
class Picture:
    """An SVG document of our own, and what it shows."""

    caption: str
    svg: str

    @property
    def source(self) -> str:
        """As a data URL: inside the page itself its style would be everybody's."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()


@dataclass(frozen=True)
class Section:
    """A part of the page: paragraphs, then its tables and figures in order."""

    title: str
    text: Sequence[str] = ()
    parts: Sequence[Table | Figure | Picture] = field(default=())

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


@functools.cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, without the end of a script element inside."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def render(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The page as HTML."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    environment.filters["long"] = lambda value: isinstance(value, str) and len(value) > LONG
    environment.filters["kind"] = lambda part: type(part).__name__
    names = {id(part): f"figure{k}" for k, part in enumerate(_figures(sections))}
    environment.filters["name"] = lambda part: names[id(part)]
    specs = {names[id(part)]: _rounded(part.spec) for part in _figures(sections)}
    return environment.from_string(_file("page.html")).render(
        title=title, lead=lead, sections=sections, style=_file("page.css"), script=_file("page.js"), library=library(),
        # In a script element "<" could begin its end; JSON may spell it otherwise.
        specs=json.dumps(specs, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )  # fmt: skip


def _file(name: str) -> str:
    """A file beside this one."""
    return importlib.resources.files("gpupipe.report").joinpath(name).read_text(encoding="utf-8")


def _figures(sections: Sequence[Section]) -> list[Figure]:
    return [part for section in sections for part in section.parts if isinstance(part, Figure)]


def _rounded(value: Any) -> Any:
    """A specification with six digits of each number, which is more than a chart shows."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


def _cell(value: Any, digits: int) -> str:
    if value is None or value != value:  # NaN
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
