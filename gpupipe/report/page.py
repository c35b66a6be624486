"""The parts of a page, and the page itself: one HTML file with text, sortable tables, charts and their libraries."""

from __future__ import annotations

import base64
import functools
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LONG = 40  # characters from which on a cell may wrap


@dataclass(frozen=True)
class Shown:
    """A number with a text of its own, such as a price, whose digits depend on the row. The table sorts by the number.

    >>> Shown(0.00002013, "0.00002013").text
    '0.00002013'
    """

    value: float
    text: str


@dataclass(frozen=True)
class Table:
    """A sortable table.

    columns: (title, whether the cells are numbers).  rows: cells are text, numbers, Shown, or None; None and NaN show
    as a dash.  digits: decimals of the floats; integers have none.  folded: shown only after a click on the caption.

    >>> Table("Symbols by sector", [("sector", False), ("symbols", True)], [["energy", 32], ["utilities", None]]).digits
    2
    """

    caption: str
    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[Any]]
    digits: int = 2
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A chart.

    caption: what the chart shows; screen readers read it in place of the chart.  spec: a Vega-Lite specification.

    >>> Figure("Gain, %", {"params": [{"name": "pick", "bind": {"input": "select"}}]}).interactive
    True
    """

    caption: str
    spec: Mapping[str, Any]

    @property
    def interactive(self) -> bool:
        """Whether the chart has a control, so that a screen reader must treat it as a group and not as an image."""
        return any("bind" in parameter for parameter in self.spec.get("params", ()))


@dataclass(frozen=True)
class Picture:
    """An SVG document.  caption: what it shows; also its text for screen readers.

    >>> Picture("Folds", "<svg/>").source
    'data:image/svg+xml;base64,PHN2Zy8+'
    """

    caption: str
    svg: str

    @property
    def source(self) -> str:
        """The picture as a data URL: as an element of the page, its style would apply to the whole page."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()


@dataclass(frozen=True)
class Section:
    """A section of the page: its title, then the paragraphs of `text`, then `parts` in order.

    >>> Section("Fold by fold", ["Each origin tests its own dates."]).anchor
    'fold-by-fold'
    """

    title: str
    text: Sequence[str] = ()
    parts: Sequence[Table | Figure | Picture] = field(default=())

    @property
    def anchor(self) -> str:
        """The name of the section in links."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


@functools.cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; "</script" is escaped, since it would end the script element."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def render(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The page as HTML.  lead: paragraphs above the first section.  All texts are escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    environment.filters["number"] = _number
    environment.filters["long"] = lambda value: isinstance(value, str) and len(value) > LONG
    environment.filters["kind"] = lambda part: type(part).__name__
    names = {id(part): f"figure{k}" for k, part in enumerate(_figures(sections))}
    environment.filters["name"] = lambda part: names[id(part)]
    specs = {names[id(part)]: _rounded(part.spec) for part in _figures(sections)}
    return environment.from_string(_file("page.html")).render(
        title=title, lead=lead, sections=sections, style=_file("page.css"), script=_file("page.js"), library=library(),
        # "</script" inside the JSON would end the script element, so "<" is escaped.
        specs=json.dumps(specs, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )  # fmt: skip


def _file(name: str) -> str:
    """The text of a file in this folder."""
    return importlib.resources.files("gpupipe.report").joinpath(name).read_text(encoding="utf-8")


def _figures(sections: Sequence[Section]) -> list[Figure]:
    return [part for section in sections for part in section.parts if isinstance(part, Figure)]


def _rounded(value: Any) -> Any:
    """A specification with all floats rounded to six significant digits, more than a chart shows."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def _number(value: Any) -> Any:
    """What a cell of numbers is sorted by; an empty text where there is no number."""
    value = value.value if isinstance(value, Shown) else value
    return "" if value is None or value != value else value


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, Shown):
        return value.text
    if value is None or value != value:  # NaN
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
