"""One HTML file that opens from disk: text, sortable tables, charts, and the libraries that draw them, without a network."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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


@dataclass(frozen=True)
class Picture:
    """An SVG document of our own, and what it shows."""

    caption: str
    svg: str


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

    return vl_convert.javascript_bundle().replace("</script", "<\\/script")


def render(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The page as HTML."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    environment.filters["kind"] = lambda part: type(part).__name__
    names = {id(part): f"figure{k}" for k, part in enumerate(_figures(sections))}
    environment.filters["name"] = lambda part: names[id(part)]
    specs = {names[id(part)]: part.spec for part in _figures(sections)}
    return environment.from_string(TEMPLATE).render(
        title=title, lead=lead, sections=sections, style=STYLE, script=SCRIPT, library=library(),
        # In a script element "<" could begin its end; JSON may spell it otherwise.
        specs=json.dumps(specs, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )  # fmt: skip


def _figures(sections: Sequence[Section]) -> list[Figure]:
    return [part for section in sections for part in section.parts if isinstance(part, Figure)]


def _cell(value: Any, digits: int) -> str:
    if value is None or value != value:  # NaN
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>{{ style|safe }}</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
{% for line in lead %}<p>{{ line }}</p>
{% endfor %}
<nav aria-label="Sections"><ul>
{% for section in sections %}<li><a href="#{{ section.anchor }}">{{ section.title }}</a></li>
{% endfor %}</ul></nav>
</header>
<main>
{% for section in sections %}
<section id="{{ section.anchor }}" aria-labelledby="{{ section.anchor }}-title">
<h2 id="{{ section.anchor }}-title">{{ section.title }}</h2>
{% for line in section.text %}<p>{{ line }}</p>
{% endfor %}
{% for part in section.parts %}
{% if part|kind == "Table" %}
{% if part.folded %}<details><summary>{{ part.caption }}</summary>{% endif %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ part.caption }}"><table class="sortable">
<caption{% if part.folded %} class="hidden"{% endif %}>{{ part.caption }}</caption>
<thead><tr>{% for name, number in part.columns %}<th scope="col"{% if number %} class="number"{% endif %}><button type="button">{{ name }}</button></th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.rows %}<tr>{% for value in row %}<td{% if part.columns[loop.index0][1] %} class="number" data-value="{{ "" if value is none else value }}"{% endif %}>{{ value|cell(part.digits) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% if part.folded %}</details>{% endif %}
{% elif part|kind == "Figure" %}
<figure><figcaption>{{ part.caption }}</figcaption><div class="chart" id="{{ part|name }}" role="img" aria-label="{{ part.caption }}"></div></figure>
{% else %}
<figure><figcaption>{{ part.caption }}</figcaption><div class="scroll" role="img" aria-label="{{ part.caption }}">{{ part.svg|safe }}</div></figure>
{% endif %}
{% endfor %}
</section>
{% endfor %}
</main>
<script>{{ library|safe }}</script>
<script id="specs" type="application/json">{{ specs|safe }}</script>
<script>{{ script|safe }}</script>
</body>
</html>
"""

STYLE = """
:root { --ground: #ffffff; --text: #1f2328; --dim: #59636e; --line: #d1d9e0; --panel: #f6f8fa; --link: #0a5cc2; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0d1117; --text: #e6edf3; --dim: #9198a1; --line: #3d444d; --panel: #151b23; --link: #6cb0ff; }
}
@media print {
  :root { --ground: #ffffff; --text: #000000; --dim: #444444; --line: #bbbbbb; --panel: #ffffff; --link: #000000; }
  nav, .vega-bindings { display: none } section { break-inside: auto } figure, tr { break-inside: avoid }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1060px; padding: 1rem; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: .5rem 0 } h2 { font-size: 1.2rem; border-bottom: 1px solid var(--line); margin-top: 2.2rem }
a { color: var(--link) } nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: 0; list-style: none }
p { max-width: 80ch } figure { margin: 1.2rem 0 } figcaption, caption { text-align: left; color: var(--dim); margin-bottom: .3rem }
caption.hidden { display: none } summary { cursor: pointer; color: var(--link); margin: .5rem 0 }
.scroll, .chart { overflow-x: auto; max-width: 100% } .chart { width: 100% } .scroll svg { max-width: none }
table { border-collapse: collapse; font-size: .88rem } td, th { padding: .25rem .6rem; border-bottom: 1px solid var(--line) }
td, th { text-align: left; vertical-align: top } .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
th button { all: unset; cursor: pointer; font-weight: 600 } th button:focus-visible { outline: 2px solid var(--link) }
th[aria-sort="ascending"] button::after { content: " \\2191" } th[aria-sort="descending"] button::after { content: " \\2193" }
tbody tr:hover { background: var(--panel) } .vega-embed { width: 100% }
.vega-bindings { margin: .3rem 0 } .vega-bindings select { font: inherit; color: var(--text); background: var(--panel) }
"""

SCRIPT = """
const specs = JSON.parse(document.getElementById("specs").textContent);
// Colours are the page's own variables, so that light, dark and print need no drawing anew.
const text = "var(--text)", dim = "var(--dim)", line = "var(--line)";
const theme = {background: null, font: "system-ui, sans-serif", view: {stroke: line},
  axis: {labelColor: text, titleColor: dim, gridColor: line, domainColor: dim, tickColor: dim, labelLimit: 220},
  legend: {labelColor: text, titleColor: dim, orient: "top", columns: 4, symbolStrokeWidth: 2, labelLimit: 220},
  header: {labelColor: text, labelFontWeight: "bold", titleColor: dim}, rule: {color: text}, text: {color: text}};
let views = [];
// What is under way is awaited, so that a change of width draws once more with what holds then.
let drawing = Promise.resolve();
function draw() { return drawing = drawing.then(drawAll); }
async function drawAll() {
  views.forEach(view => view.finalize());
  views = [];
  const width = document.querySelector("main").clientWidth;
  for (const [name, spec] of Object.entries(specs)) {
    const fitted = structuredClone(spec);
    if (fitted.columns) {
      fitted.columns = Math.max(1, Math.min(3, Math.floor(width / 330)));
      fitted.spec.width = Math.max(140, Math.min(330, width / fitted.columns - 110));
    }
    const result = await vegaEmbed("#" + name, fitted, {actions: false, renderer: "svg", config: theme});
    views.push(result);
  }
  document.documentElement.dataset.drawn = String(views.length);
}
draw();
let timer, lastWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === lastWidth) return;
  lastWidth = innerWidth; clearTimeout(timer); timer = setTimeout(draw, 200);
});
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.rows[0].querySelectorAll("button").forEach((button, column) => button.addEventListener("click", () => {
    const head = button.parentElement, down = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "ascending" : "descending");
    const value = row => {
      const cell = row.cells[column];
      return cell.classList.contains("number") ? (cell.dataset.value === "" ? NaN : Number(cell.dataset.value)) : cell.textContent;
    };
    const order = (a, b) => typeof a === "number" ? (isNaN(a) - isNaN(b)) || (a - b) * (down ? 1 : -1)
      : a.localeCompare(b) * (down ? -1 : 1);
    [...table.tBodies[0].rows].map(row => [value(row), row]).sort((a, b) => order(a[0], b[0]))
      .forEach(([, row]) => table.tBodies[0].append(row));
  }));
}
"""
