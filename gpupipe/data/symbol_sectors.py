"""Sectors of symbols: from a map or a column, the symbols that have none, and the selection of sectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data import columns
from gpupipe.data import sectors as sector_names
from gpupipe.data.errors import DataError, printable
from gpupipe.data.report import Finding, counted
from gpupipe.runtime.device import Device, device_of

if TYPE_CHECKING:
    import pyarrow

    from gpupipe.data.bars import Bars

ERROR, DROP, OTHER = CHOICES = ("error", "drop", "other")  # what is done with symbols without a sector
UNKNOWN = "?"  # cannot be the name of a sector in the data: those are slugs
_NOT_MET = "no symbol of the sector map"
_SHOWN, _EXAMPLES = 5, 2  # names in a message


def sector_fields(
    names: tuple[str, ...],
    symbol: np.ndarray,
    code: np.ndarray,
    raw_names: tuple[str, ...],
    sector_map: Mapping[str, str] | None,
) -> dict[str, Any]:
    """The fields sectors, slugs and notes of Bars; arguments and errors as in `resolve_sectors`."""
    return {
        "sectors": resolve_sectors(names, symbol, code, raw_names, sector_map),
        "slugs": sector_names.distinct(_sector_texts(raw_names, sector_map)),
        "notes": notes_on_sectors(names, raw_names, sector_map),
    }


def resolve_sectors(
    names: tuple[str, ...],
    symbol: np.ndarray,
    code: np.ndarray,
    raw_names: tuple[str, ...],
    sector_map: Mapping[str, str] | None,
) -> tuple[str, ...]:
    """Return the sector of each of `names`: from the map, else from the column, else "".

    symbol, code: int32 (n,), pairs of symbol and sector in the column; symbol is a position in `names`, code a position
    in `raw_names`, -1 is unknown. Pairs may repeat.

    Raises DataError if the column gives a symbol two sectors and the map does not name that symbol.

    >>> resolve_sectors(("A", "B", "C"), np.int32([0, 1]), np.int32([0, 0]), ("Energy",), {"B": "Utilities"})
    ('energy', 'utilities', '')
    """
    slugs = sector_names.distinct(_sector_texts(raw_names, sector_map))
    canonical = tuple(slugs[name] for name in raw_names)
    known = tuple(sorted(set(canonical)))
    code = np.array([known.index(name) for name in canonical] + [-1], np.int32)[code]
    complete = np.flatnonzero((symbol >= 0) & (code >= 0))
    code_of_name = np.full(len(names), -1, np.int32)
    code_of_name[symbol[complete]] = code[complete]
    mapped = {str(name).strip(): slugs[str(value)] for name, value in (sector_map or {}).items()}
    for row in complete[code_of_name[symbol[complete]] != code[complete]]:
        if (name := names[symbol[row]]) not in mapped:
            both = sorted({known[code_of_name[symbol[row]]], known[code[row]]})
            raise DataError(f"symbol {name!r} has two sectors, {' and '.join(both)}; settle it with --sector-map")
    return tuple(mapped.get(name) or (known[k] if k >= 0 else "") for name, k in zip(names, code_of_name, strict=True))


def _sector_texts(raw_names: Sequence[str], sector_map: Mapping[str, str] | None) -> set[str]:
    return {*raw_names, *map(str, (sector_map or {}).values())}


def case_findings(symbol: Any, names: tuple[str, ...]) -> tuple[Finding, ...]:
    """Report symbols that differ in case only. symbol: int32 (n,), position in `names`, on any device."""
    if len({name.casefold() for name in names}) == len(names):
        return ()
    device = device_of(symbol)
    n_rows = device.to_host(device.xp.bincount(symbol + 1, minlength=len(names) + 1))[1:]
    folded: dict[str, list[int]] = {}
    for k in np.flatnonzero(n_rows):
        folded.setdefault(names[k].casefold(), []).append(int(k))
    alike = [k for codes in folded.values() if len(codes) > 1 for k in codes]
    if not alike:
        return ()
    example = printable(" and ".join(names[k] for k in alike[:2]))
    return (Finding("symbols differ in case only", "flagged", int(n_rows[alike].sum()), len(alike), example),)


def notes_on_sectors(
    names: Sequence[str], raw_names: Sequence[str], sector_map: Mapping[str, str] | None
) -> tuple[str, ...]:
    """Say which sectors' names look alike, and whether the map meets no symbol; arguments as in `resolve_sectors`.

    >>> notes_on_sectors(["BRK.A", "BRK.B"], [], {"BRK-A": "Financials"})[0]
    "no symbol of the sector map occurs in the data: the map has 'BRK-A', the data have 'BRK.A', 'BRK.B'"
    """
    notes = list(sector_names.remarks(_sector_texts(raw_names, sector_map)))
    mapped = {str(name).strip() for name in sector_map or {}}
    if mapped and names and mapped.isdisjoint(names):
        both = (_shown(sorted(mapped), _EXAMPLES), _shown(names, _EXAMPLES))
        notes.append(f"{_NOT_MET} occurs in the data: the map has {both[0]}, the data have {both[1]}")
    return tuple(notes)


def _shown(names: Sequence[str], most: int) -> str:
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")


def check_no_sector(no_sector: str) -> None:
    """Raise DataError unless `settle_sectors` understands the value."""
    if no_sector not in (*CHOICES, UNKNOWN):
        raise DataError(f"no_sector is {no_sector!r}, expected error, drop or other")


def settle_sectors(bars: Bars, no_sector: str) -> tuple[Bars, tuple[str, ...], tuple[Finding, ...]]:
    """Give each symbol that has rows a sector: `(bars, notes, findings)`.

    no_sector: for symbols without one, "error" is a DataError; "drop" leaves their rows out, which is a finding;
    "other" is the sector that they get, which is a note; UNKNOWN is the same without a note.

    >>> from gpupipe.data.bars import Bars
    >>> prices = {name: np.float32([10, 20]) for name in ("open", "high", "low", "close", "volume")}
    >>> bars = Bars(np.int32([0, 1]), ("A", "B"), np.int64([0, 0]), **prices, sectors=("energy", ""))
    >>> settle_sectors(bars, "drop")[0].close, settle_sectors(bars, "other")[0].sectors
    (array([10.], dtype=float32), ('energy', 'other'))
    """
    device = device_of(bars.symbol)
    has_rows = device.to_host(_occurs(bars.symbol, len(bars.names), device))
    without = [name for k, name in enumerate(bars.names) if has_rows[k] and not bars.sectors[k]]
    if not without:
        return bars, (), ()
    shown = _shown(without, _SHOWN)
    kept = np.array([bool(sector) for sector in bars.sectors] + [True])  # the last is for symbol -1
    if no_sector == ERROR or (no_sector == DROP and not has_rows[kept[:-1]].any()):
        raise DataError(
            f"{len(without)} of {int(has_rows.sum())} symbols have no sector: {shown}; "
            "give --sector-map CSV (columns symbol, sector), sector_map=, or a sector column; --no-sector drop leaves "
            "such symbols out, --no-sector other makes them a sector"
            + "".join(f" ({note})" for note in bars.notes if note.startswith(_NOT_MET))
        )
    if no_sector == DROP:
        keep = device.asarray(kept)[bars.symbol]
        n_rows = int(bars.symbol.size) - int(keep.sum())
        finding = Finding("symbol has no sector", "left out", n_rows, len(without), printable(without[0]))
        return bars.take(keep), (), (finding,)
    named = dataclasses.replace(bars, sectors=tuple(sector or no_sector for sector in bars.sectors))
    if no_sector == UNKNOWN:
        return named, (), ()
    note = f"{counted(len(without), 'symbol')} without a sector: in the sector {no_sector} ({shown})"
    return named, (note,), ()


def select_sectors(bars: Bars, requested: Sequence[str] | None) -> Bars:
    """Select the bars of the requested sectors (None: all). Rows of unknown symbols stay, for validation to reject.

    requested: names, see `sectors.choose`. Raises DataError for a sector without a symbol.
    """
    if requested is None:
        return bars
    device = device_of(bars.symbol)
    has_rows = device.to_host(_occurs(bars.symbol, len(bars.names), device))
    slugs = sector_names.choose(requested, {bars.sectors[k] for k in range(len(bars.names)) if has_rows[k]}, bars.slugs)
    chosen = np.array([name in slugs for name in bars.sectors] + [True])  # the last is for symbol -1
    return bars.take(device.asarray(chosen)[bars.symbol])


def _occurs(symbol: Any, n_names: int, device: Device) -> Any:
    """bool (n_names,): whether each code occurs in `symbol`; only the first row of each run is looked at."""
    xp = device.xp
    occurs = xp.zeros(n_names + 1, bool)  # the last is for symbol -1
    occurs[symbol[:1]] = True
    occurs[symbol[1:][symbol[1:] != symbol[:-1]]] = True
    return occurs[:-1]


def of_mapping(mapping: Mapping[Any, Any]) -> dict[str, str]:
    """`{symbol: sector}` as texts, without symbols or sectors that are None, NaN or blank: they are not known.

    >>> of_mapping({"A": "energy", "B": float("nan"), "C": None, 600519: "materials"})
    {'A': 'energy', '600519': 'materials'}
    """
    known = {symbol: sector for symbol, sector in mapping.items() if not (_is_missing(symbol) or _is_missing(sector))}
    return {str(symbol): str(sector) for symbol, sector in known.items()}


def _is_missing(value: Any) -> bool:
    try:
        return value is None or not str(value).strip() or bool(value != value)
    except TypeError:  # pandas.NA is neither equal to itself nor not
        return True


def parse_sector_map(table: pyarrow.Table, matches: dict[str, str], where: str) -> dict[str, str]:
    """Read `{symbol: sector}` from a table; DataError if a symbol has two sectors. matches: see `columns.find`."""
    for meaning in ("symbol", "sector"):
        columns.require_utf8(table[matches[meaning]], f"{where}: column {matches[meaning]!r}")
    symbols, names = columns.encode_names(table[matches["symbol"]], f"{where}: column {matches['symbol']!r}")
    values, raw_sectors = columns.encode_names(table[matches["sector"]], f"{where}: column {matches['sector']!r}")
    slugs = sector_names.distinct(raw_sectors)
    mapping: dict[str, str] = {}
    for symbol, sector in zip(symbols, values, strict=True):
        if symbol < 0 or sector < 0:
            continue
        name, value = names[symbol], raw_sectors[sector]
        if slugs[mapping.setdefault(name, value)] != slugs[value]:
            raise DataError(f"{where}: symbol {name!r} has two sectors, {mapping[name]!r} and {value!r}")
    return mapping
