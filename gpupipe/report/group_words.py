"""Words of the page for runs whose groups are single symbols: the sections are written for sectors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from gpupipe.report.page import Figure, Picture, Section, Table

SECTORS = re.compile(r"\b(s|S)ector(s?)\b")
CONTROL = "sector "  # the name of a chart's control; `of_symbols` keeps its space


def of_symbols(text: str) -> str:
    """A text that says symbol in the place of sector; names like volatility_table_sector stay.

    >>> of_symbols("Rows: the sealed test, all sectors together (volatility_table_sector). Sector's prior.")
    "Rows: the sealed test, all symbols together (volatility_table_sector). Symbol's prior."
    """
    return SECTORS.sub(lambda found: f"{'S' if found[1] == 'S' else 's'}ymbol{found[2]}", text)


def in_symbols(section: Section) -> Section:
    """A section whose titles, texts, captions, column titles and controls say symbol in the place of sector.

    Cells of tables and data of charts stay, except for the value "all sectors" of a control and its data.

    >>> section = in_symbols(Section("By sector", ["All sectors."], [Table("t", [("sector", False)], [["sector"]])]))
    >>> section.title, section.text, section.parts[0].columns, section.parts[0].rows
    ('By symbol', ['All symbols.'], [('symbol', False)], [['sector']])
    """
    return Section(
        of_symbols(section.title), [of_symbols(line) for line in section.text], list(map(_part, section.parts))
    )


def _part(part: Table | Figure | Picture) -> Table | Figure | Picture:
    caption = of_symbols(part.caption)
    if isinstance(part, Table):
        return dataclasses.replace(
            part, caption=caption, columns=[(of_symbols(title), number) for title, number in part.columns]
        )
    if isinstance(part, Figure):
        return Figure(caption, _spec(part.spec))
    return Picture(caption, part.svg.replace(">all sectors<", ">all symbols<"))


def _spec(value: Any) -> Any:
    """A part of a Vega-Lite specification with the words of controls and tooltips changed, and no names of fields."""
    if isinstance(value, str):
        return of_symbols(value) if value in ("all sectors", CONTROL) else value
    if isinstance(value, Mapping):
        changed = {key: _spec(item) for key, item in value.items()}
        if changed.get("field") == "sector" and "title" not in changed:
            changed["title"] = "symbol"  # of a tooltip
        return changed
    return [_spec(item) for item in value] if isinstance(value, (list, tuple)) else value
