"""Words of the page for runs of single symbols, and of bonds: the sections are written for symbols in sectors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from gpupipe.report.page import Figure, Picture, Section, Table

SECTORS = re.compile(r"\b(s|S)ector(s?)\b")
BONDS = {"bar": "quote", "symbol": "bond"}
NOUNS = re.compile(rf"\b({'|'.join(BONDS)})(s?)\b", re.IGNORECASE)
CONTROL = "sector "  # the name of a chart's control; `of_symbols` keeps its space


def of_symbols(text: str) -> str:
    """A text that says symbol in the place of sector; names like volatility_table_sector stay.

    >>> of_symbols("Rows: the sealed test, all sectors together (volatility_table_sector). Sector's prior.")
    "Rows: the sealed test, all symbols together (volatility_table_sector). Symbol's prior."
    """
    return SECTORS.sub(lambda found: f"{'S' if found[1] == 'S' else 's'}ymbol{found[2]}", text)


def of_bonds(text: str) -> str:
    """A text that says quote in the place of bar, and bond in that of symbol.

    >>> of_bonds("Symbols by sector: 14,516 bars of 393 symbols.")
    'Bonds by sector: 14,516 quotes of 393 bonds.'
    """

    def noun(found: re.Match[str]) -> str:
        word = BONDS[found[1].lower()]
        return f"{word.capitalize() if found[1][0].isupper() else word}{found[2]}"

    return NOUNS.sub(noun, text)


def in_symbols(section: Section) -> Section:
    """A section whose titles, texts, captions, column titles and controls say symbol in the place of sector.

    Cells of tables and data of charts stay, except for the value "all sectors" of a control and its data.

    >>> section = in_symbols(Section("By sector", ["All sectors."], [Table("t", [("sector", False)], [["sector"]])]))
    >>> section.title, section.text, section.parts[0].columns, section.parts[0].rows
    ('By symbol', ['All symbols.'], [('symbol', False)], [['sector']])
    """
    return _in_words(section, of_symbols, _spec)


def in_bonds(section: Section) -> Section:
    """A section whose titles, texts, captions and column titles speak of bonds and quotes; charts stay.

    >>> section = in_bonds(Section("Data", ["3 bars."], [Table("Symbols by sector", [("symbols", True)], [[3]])]))
    >>> section.text, section.parts[0].caption, section.parts[0].columns
    (['3 quotes.'], 'Bonds by sector', [('bonds', True)])
    """
    return _in_words(section, of_bonds, lambda spec: spec)


def _in_words(section: Section, words: Callable[[str], str], spec: Callable[[Any], Any]) -> Section:
    """A section with its texts changed by `words`, and the specifications of its charts by `spec`."""
    parts = [_part(part, words, spec) for part in section.parts]
    return Section(words(section.title), [words(line) for line in section.text], parts)


def _part(
    part: Table | Figure | Picture, words: Callable[[str], str], spec: Callable[[Any], Any]
) -> Table | Figure | Picture:
    caption = words(part.caption)
    if isinstance(part, Table):
        return dataclasses.replace(
            part, caption=caption, columns=[(words(title), number) for title, number in part.columns]
        )
    if isinstance(part, Figure):
        return Figure(caption, spec(part.spec))
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
