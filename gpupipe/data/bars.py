"""Bars: the rows of all parts as arrays, before anything is judged; and which of them are wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data import columns, sectors
from gpupipe.data.errors import DataError
from gpupipe.data.sources import Part
from gpupipe.runtime.device import Device, device_of

if TYPE_CHECKING:
    import pyarrow

PRICES = ("open", "high", "low", "close")
_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Bars:
    """Rows as they came, on one device.

    symbol: int32 (n,), position in `names` (sorted) or -1.  time_ns: int64 (n,), columns.NOT_KNOWN where unknown.
    open, high, low, close, volume: float32 (n,), NaN where unknown.  row: int64 (n,), number among all rows read,
    or None where it is 0, 1, 2 ...  sector_of: sector of each name, "" where it has none.
    """

    symbol: Any
    names: tuple[str, ...]
    time_ns: Any
    open: Any
    high: Any
    low: Any
    close: Any
    volume: Any
    sector_of: tuple[str, ...]
    row: Any = None

    def take(self, keep: Any) -> Bars:
        """The rows for which `keep` bool (n,) is true."""
        rows = device_of(keep).xp.flatnonzero(keep)
        arrays = {name: getattr(self, name)[rows] for name in ("symbol", "time_ns", *PRICES, "volume")}
        return dataclasses.replace(self, **arrays, row=rows if self.row is None else self.row[rows])


def of_parts(
    parts: Sequence[Part], sector_map: Mapping[str, str] | None, timeframe: str | None, *, adjusted: bool
) -> Bars:
    """All parts as one, on the host, with the sector of each symbol.

    sector_map goes before a sector column. adjusted: open, high, low and close are multiplied by adj_close / close
    in float64. Raises DataError: two timeframes and none chosen, a chosen one that is not there, two sectors for
    one symbol, no adjusted close.
    """
    collected: dict[str, list[np.ndarray]] = {name: [] for name in ("time_ns", *PRICES, "volume")}
    for part in parts:
        collected["time_ns"].append(columns.times(part.table[part.found["time"]], _where(part, "time")))
        for name, values in _prices(part, adjusted=adjusted).items():
            collected[name].append(values)
        collected["volume"].append(columns.floats(part.table[part.found["volume"]], _where(part, "volume")))
    symbol, names = columns.joined([_codes(part, "symbol") for part in parts])
    bars = Bars(
        symbol=symbol,
        names=names,
        sector_of=_sectors(parts, symbol, names, sector_map),
        **{name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in collected.items()},
    )
    return _of_timeframe(bars, parts, timeframe)


def _where(part: Part, meaning: str) -> str:
    return f"{part.origin}: column {part.found[meaning]!r}"


def _codes(part: Part, meaning: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if meaning in part.found:
        return columns.codes(part.table[part.found[meaning]], _where(part, meaning))
    return columns.constant(part.constants.get(meaning), part.table.num_rows)


def _have(parts: Sequence[Part], meaning: str) -> bool:
    """Whether any part says something of it, in a column or for all of its rows."""
    return any(meaning in part.found or part.constants.get(meaning) is not None for part in parts)


def _prices(part: Part, *, adjusted: bool) -> dict[str, np.ndarray]:
    if not adjusted:
        return {name: columns.floats(part.table[part.found[name]], _where(part, name)) for name in PRICES}
    if "adj_close" not in part.found:
        raise DataError(f"{part.origin}: adjusted prices were asked for, but there is no column for adj_close")
    wide = {name: _wide(part, name) for name in (*PRICES, "adj_close")}
    with np.errstate(all="ignore"):
        factor = wide["adj_close"] / wide["close"]
        scaled = {name: (wide[name] * factor).astype(np.float32) for name in ("open", "high", "low")}
        return {**scaled, "close": wide["adj_close"].astype(np.float32)}


def _wide(part: Part, name: str) -> np.ndarray:
    return columns.floats(part.table[part.found[name]], _where(part, name), np.float64)


def _of_timeframe(bars: Bars, parts: Sequence[Part], timeframe: str | None) -> Bars:
    if timeframe is None and not _have(parts, "timeframe"):
        return bars
    code, names = columns.joined([_codes(part, "timeframe") for part in parts])
    n_rows = np.bincount(code + 1, minlength=len(names) + 1)[1:]
    present = [name for name, n in zip(names, n_rows, strict=True) if n]
    if timeframe is None:
        if len(present) > 1:
            raise DataError(f"the data have bars of {', '.join(present)}; choose one with timeframe=...")
        return bars
    if timeframe not in present:
        raise DataError(f"no bars of timeframe {timeframe!r}; the data have {', '.join(present) or 'no timeframes'}")
    wanted = code == names.index(timeframe)
    return bars if wanted.all() else bars.take(wanted)


def _sectors(
    parts: Sequence[Part], symbol: np.ndarray, names: tuple[str, ...], sector_map: Mapping[str, str] | None
) -> tuple[str, ...]:
    if not _have(parts, "sector"):
        symbol = symbol[:0]
        return sector_of_names(names, symbol, symbol, (), sector_map)
    code, raw = columns.joined([_codes(part, "sector") for part in parts])
    first = np.ones(len(symbol), bool)  # of a run of the same symbol and sector
    first[1:] = (symbol[1:] != symbol[:-1]) | (code[1:] != code[:-1])
    return sector_of_names(names, symbol[first], code[first], raw, sector_map)


def sector_of_names(
    names: tuple[str, ...],
    symbol: np.ndarray,
    code: np.ndarray,
    raw: tuple[str, ...],
    sector_map: Mapping[str, str] | None,
) -> tuple[str, ...]:
    """The sector of each of `names`: of the map, else of a column, "" where neither has one.

    symbol, code: int32 (n,), rows (or different pairs) of symbol and sector in the column, -1 unknown; raw: what
    code means. Raises DataError where the column gives a symbol two sectors and the map does not settle it.
    """
    spelt = tuple(map(sectors.canonical, raw))
    known = tuple(sorted(set(spelt)))
    code = np.array([known.index(name) for name in spelt] + [-1], np.int32)[code]
    both = np.flatnonzero((symbol >= 0) & (code >= 0))
    of_name = np.full(len(names), -1, np.int32)
    of_name[symbol[both]] = code[both]
    mapped = {str(name).strip(): sectors.canonical(str(value)) for name, value in (sector_map or {}).items()}
    for row in both[of_name[symbol[both]] != code[both]]:
        if (name := names[symbol[row]]) not in mapped:
            two = sorted({known[of_name[symbol[row]]], known[code[row]]})
            raise DataError(f"symbol {name!r} has two sectors, {' and '.join(two)}; settle it with --sector-map")
    return tuple(mapped.get(name) or (known[k] if k >= 0 else "") for name, k in zip(names, of_name, strict=True))


def of_sectors(bars: Bars, wanted: Sequence[str] | None) -> Bars:
    """The bars of the wanted sectors (None: of all), and rows of unknown symbols, which validation will judge.

    Raises DataError for symbols that have rows and no sector, and for a sector that no symbol is of.
    """
    device = device_of(bars.symbol)
    has_rows = device.to_host(_seen(bars.symbol, len(bars.names), device))
    without = [name for k, name in enumerate(bars.names) if has_rows[k] and not bars.sector_of[k]]
    if without:
        shown = ", ".join(map(repr, without[:_SHOWN])) + (", ..." if len(without) > _SHOWN else "")
        raise DataError(
            f"{len(without)} of {int(has_rows.sum())} symbols have no sector: {shown}; "
            "give --sector-map CSV (columns symbol, sector), sector_map=, or a sector column"
        )
    if wanted is None:
        return bars
    there = sorted({bars.sector_of[k] for k in range(len(bars.names)) if has_rows[k]})
    sectors.check_known(wanted, there)
    chosen = np.array([name in wanted for name in bars.sector_of] + [True])  # the last is for symbol -1
    return bars.take(device.asarray(chosen)[bars.symbol])


def _seen(symbol: Any, n_names: int, device: Device) -> Any:
    """bool (n_names,): which numbers occur in `symbol`; of a run of equal ones the first is asked."""
    xp = device.xp
    seen = xp.zeros(n_names + 1, bool)  # the last is for symbol -1
    seen[symbol[:1]] = True
    seen[symbol[1:][symbol[1:] != symbol[:-1]]] = True
    return seen[:-1]


def read_sector_map(table: pyarrow.Table, found: dict[str, str], where: str) -> dict[str, str]:
    """`{symbol: sector}` of a table; DataError where a symbol stands there with two sectors."""
    symbols, names = columns.codes(table[found["symbol"]], f"{where}: column {found['symbol']!r}")
    values, sector_names = columns.codes(table[found["sector"]], f"{where}: column {found['sector']!r}")
    mapping: dict[str, str] = {}
    for symbol, sector in zip(symbols, values, strict=True):
        if symbol < 0 or sector < 0:
            continue
        name, value = names[symbol], sector_names[sector]
        if sectors.canonical(mapping.setdefault(name, value)) != sectors.canonical(value):
            raise DataError(f"{where}: symbol {name!r} has two sectors, {mapping[name]!r} and {value!r}")
    return mapping
