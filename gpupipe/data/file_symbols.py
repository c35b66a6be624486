"""Symbols that are the names of files: AAPL.csv, BRK.A.csv, and BTCUSDT-1d-2020-10.csv, one of many of a symbol."""

from __future__ import annotations

import dataclasses
import itertools
import re
import urllib.parse
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpupipe.data import column_levels
from gpupipe.data.errors import printable
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.report import Finding, counted
from gpupipe.data.time_column import Times
from gpupipe.data.time_limits import UNKNOWN_TIME

if TYPE_CHECKING:
    from gpupipe.data.sources import RawTable

UNSURE = "files may be parts of one symbol"
SAME = "several files of one symbol overlap in time"
NO_TICKER = "symbol is a file's name that looks like no ticker"
NO_COLUMN = "file has no column for the symbol, others have one"

_COPY = re.compile(r"(?P<name>.+?)(?:\s*\([0-9]{1,2}\)|\s+-\s+Copy(?:\s*\([0-9]{1,2}\))?)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_FIRST = (
    rf"(?:(?:0[1-9]|1[0-2])[-_.]|(?i:{'|'.join(_MONTHS)})[a-z]*[-_.]?)(?:19|20)[0-9]{{2}}"  # 10-2020, Oct-2020
)
_DAY = (
    rf"{_MONTH_FIRST}|"
    r"(?:19|20)[0-9]{2}(?:[-_.]?[qQ][1-4]|[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12][0-9]|3[01]))?)?"  # 2020-10-05
)
_INTERVAL = (
    r"[0-9]{1,3}(?:s|sec|m|min|h|hr|hour|d|day|w|wk|week|mo|mon|M)|M(?:1|5|15|30)|H[14]|D1|W1|MN1?"
    r"|daily|hourly|weekly|monthly|minute|hour|day|week|eod"
)
_PARTS = re.compile(
    rf"(?:(?P<stem>.+?)[-_. ]+)??(?:(?P<before>{_INTERVAL})[-_. ]+)?"
    rf"(?P<first>{_DAY})(?:(?:[-_. ]|[-_ ]to[-_ ])(?P<last>{_DAY}))?(?:[-_. ]+(?P<after>{_INTERVAL}))?"
)
_STEM_AND_INTERVAL = re.compile(rf"(?P<stem>.+)[-_. ](?P<interval>{_INTERVAL})")
_SECONDS = {
    "s": 1, "sec": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600, "hourly": 3600, "H": 3600,
    "d": 86_400, "day": 86_400, "daily": 86_400, "eod": 86_400, "D": 86_400, "w": 604_800, "wk": 604_800,
    "week": 604_800, "weekly": 604_800, "W": 604_800, "mo": 2_629_800, "mon": 2_629_800, "monthly": 2_629_800,
}  # fmt: skip
_MARGIN_NS = NS_PER_DAY  # a zone, and a session that begins on the day before, move bars out of the period in the name
_GENERIC = frozenset((
    "all", "bars", "candles", "data", "download", "export", "histdata", "historical", "history", "ohlc", "ohlcv",
    "output", "price", "prices", "quotes", "sheet1", "stocks", "table", "untitled",
))  # fmt: skip


@dataclass(frozen=True)
class Named:
    """How symbols were named after files.

    >>> Named(("2 files A_YYYY were read as one symbol A",)).findings
    ()
    """

    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _File:
    """A file whose name is its symbol, or holds it.

    number: of its table.  folder: the names of its folders.  symbol: as it stands, without the mark of a copy.
    stem, interval, period: of a name that ends in a period, such as BTCUSDT, 1d and YYYY-MM, or in an interval; else
    empty.  period_ns: the first and last time that a period allows.  range_ns: of the bars; None without any.
    step_ns: the median time between bars of a file whose name ends in an interval; 0 if not known.
    """

    number: int
    folder: tuple[str, ...]
    symbol: str
    stem: str = ""
    interval: str = ""
    period: str = ""
    period_ns: tuple[int, int] = (0, 0)
    range_ns: tuple[int, int] | None = None
    step_ns: int = 0
    rows: int = 0

    @property
    def fits(self) -> bool:
        """Whether all bars lie in the period of the name, or are as far apart as its interval says."""
        if self.range_ns is None:
            return True
        if not self.period:
            return 0.9 < self.step_ns / _interval_ns(self.interval) < 1.1
        return self.period_ns[0] <= self.range_ns[0] and self.range_ns[1] < self.period_ns[1]


def symbol_of(file_name: str, endings: Sequence[str]) -> str:
    """Return the symbol that a file's name gives: the name without its ending, percent-encoding decoded.

    >>> symbol_of("BRK.A.CSV.gz", (".csv", ".csv.gz")), symbol_of("%5EGSPC.csv", (".csv",))
    ('BRK.A', '^GSPC')
    """
    lower = file_name.lower()
    length = max((len(ending) for ending in endings if lower.endswith(ending)), default=0)
    name = file_name[: len(file_name) - length]
    if re.search(r"%[0-9A-Fa-f]{2}", name):
        decoded = urllib.parse.unquote(name, errors="replace")
        name = decoded if decoded.isprintable() and "\ufffd" not in decoded else name
    return name.strip()


def resolve(
    tables: Sequence[RawTable], times: Sequence[Times], known: Collection[str] = ()
) -> tuple[list[RawTable], Named]:
    """Settle the symbols that are names of files: `(tables, notes and findings)`; other tables stay.

    times: of each table.  known: symbols of the sector map; a name that is one of these stays.

    Several files are one symbol if the names of all files with one stem end in a period (a year, quarter, month, day,
    or from one to another, with or without an interval of bars such as 1d), and the bars of each file lie in its
    period. The interval becomes the timeframe. BTCUSDT-1h.csv and BTCUSDT-1d.csv are one symbol of two timeframes if
    their bars are that far apart. "AAPL (1).csv" is a second download of AAPL.csv.

    Findings: names that look like that, while the times do not agree; files of one symbol that overlap in time; a name
    such as prices.csv among others.
    """
    files = [_parse(k, table, times[k], known) for k, table in enumerate(tables) if table.path_names]
    if not files:
        return list(tables), Named()
    settled = list(tables)
    joined, unsure = _join(files, known)
    parts = {file.number for file in joined}
    symbol_of_file = {file.number: file.symbol for file in files} | {file.number: file.stem for file in joined}
    for file in files:
        constants = {**tables[file.number].constants, "symbol": symbol_of_file[file.number]}
        if file.number in parts and file.interval:
            constants.setdefault("timeframe", file.interval)
        settled[file.number] = dataclasses.replace(tables[file.number], constants=constants)
    notes, findings = _shared(files, joined, symbol_of_file, tables)
    mixed = any("symbol" in table.columns and column_levels.NOTE not in table.notes for table in tables)
    generic = {file.number for file in files if symbol_of_file[file.number].casefold() in _GENERIC}
    for kind, odd in (
        (NO_TICKER, [file for file in files if file.rows and file.number in generic]),
        (NO_COLUMN, [file for file in files if file.rows and file.number not in generic and mixed]),
    ):
        if odd and len(tables) > 1:
            findings.append(_finding(kind, "flagged", odd, symbol_of_file[odd[0].number]))
    if unsure:
        findings.append(_finding(UNSURE, "flagged", unsure, unsure[0].symbol))
    copies = [file for file in files if file.symbol != tables[file.number].path_names[-1]]
    if copies:
        name = tables[copies[0].number].path_names[-1]
        notes.append(printable(f"{name!r} was read as a second download of {copies[0].symbol}"))
    return settled, Named((*_joined_notes(joined), *notes), tuple(findings))


def _parse(number: int, table: RawTable, times: Times, known_symbols: Collection[str]) -> _File:
    *folder, name = table.path_names
    copied = None if name in known_symbols else _COPY.fullmatch(name)
    symbol = copied["name"] if copied else name
    clock = times.clock_ns
    is_known = times.time_ns != UNKNOWN_TIME
    known = clock if is_known.all() else clock[is_known]
    file = _File(
        number,
        tuple(folder),
        symbol,
        range_ns=(int(known.min()), int(known.max())) if known.size else None,
        rows=len(table),
    )
    parts = _PARTS.fullmatch(symbol)
    if not parts and (found := _STEM_AND_INTERVAL.fullmatch(symbol)):
        step_ns = int(np.median(np.diff(np.sort(known)))) if known.size > 1 else 0
        return dataclasses.replace(file, stem=found["stem"], interval=found["interval"], step_ns=step_ns)
    stem = parts["stem"] or (folder[-1] if folder else "") if parts else ""
    if not parts or not stem:
        return file
    first, last = _days(parts["first"]), _days(parts["last"] or parts["first"])
    if first is None or last is None:
        return file
    period_ns = (first[0] * NS_PER_DAY - _MARGIN_NS, last[1] * NS_PER_DAY + _MARGIN_NS)
    interval = parts["before"] or parts["after"] or ""
    template = symbol[: parts.start("first")] + _template(parts["first"])
    if parts["last"]:
        template += symbol[parts.end("first") : parts.start("last")] + _template(parts["last"])
    period = template + symbol[parts.end("last") if parts["last"] else parts.end("first") :]
    return dataclasses.replace(file, stem=stem, interval=interval, period=period, period_ns=period_ns)


def _days(text: str) -> tuple[int, int] | None:
    """`(first day, day after the last)` of 2020, 2020Q3, 2020-10, 10-2020, Oct-2020 or 2020-10-05.

    None for a day that does not exist.
    """
    digits = re.sub(r"[^0-9]", "", text)
    if re.fullmatch(_MONTH_FIRST, text):
        name = text[:3].lower()
        digits = digits[-4:] + (f"{_MONTHS.index(name) + 1:02}" if name in _MONTHS else digits[:2])
        text = digits
    year = digits[:4]
    try:
        if "q" in text.lower():
            first = np.datetime64(f"{year}-{3 * int(digits[4]) - 2:02}")
            last = first + 3
        elif len(digits) == 8:
            first = np.datetime64(f"{year}-{digits[4:6]}-{digits[6:]}")
            last = first + 1
        else:
            first = np.datetime64(f"{year}-{digits[4:]}" if len(digits) == 6 else year)
            last = first + 1
    except ValueError:
        return None
    return int(first.astype("M8[D]").astype(np.int64)), int(last.astype("M8[D]").astype(np.int64))


def without_interval(name: str) -> str:
    """The name without the length of a bar at its end.

    >>> without_interval("btcusd_1h"), without_interval("BTCUSD")
    ('btcusd', 'BTCUSD')
    """
    found = _STEM_AND_INTERVAL.fullmatch(name)
    return found["stem"] if found else name


def length_of(timeframe: str) -> int | None:
    """The nanoseconds of a bar of 1h, 15m or daily; None for a text that is no length.

    >>> length_of("1h") == 3_600 * 10**9, length_of("hours")
    (True, None)
    """
    return _interval_ns(timeframe) if re.fullmatch(_INTERVAL, timeframe) else None


def _interval_ns(text: str) -> int:
    """The length of 1h, 15m, 1mo, daily or H4; a capital M is months after a number and minutes before one."""
    number = int(re.sub(r"[^0-9]", "", text) or 1)
    unit = re.sub(r"[0-9]", "", text)
    if unit in ("M", "MN"):
        unit = "m" if text.startswith("M") and unit == "M" else "mo"
    return number * _SECONDS[unit] * 10**9


def _template(text: str) -> str:
    """ "2020-10-05" as YYYY-MM-DD, "Oct-2020" as Mon-YYYY."""
    if re.fullmatch(_MONTH_FIRST, text):
        return ("Mon" if text[0].isalpha() else "MM") + re.sub(r"^[A-Za-z]+|^[0-9]{2}|[0-9]{4}$", "", text) + "YYYY"
    letters = iter("YYYYN" if "q" in text.lower() else "YYYYMMDD")
    return re.sub(r"[0-9]", lambda _: next(letters), text)


def _join(files: Sequence[_File], known: Collection[str]) -> tuple[list[_File], list[_File]]:
    """`(files that are parts of their stem, files of which that is not sure)`."""
    whole = {(file.folder, file.symbol) for file in files if not file.stem}
    groups: dict[tuple[tuple[str, ...], str, bool], list[_File]] = {}
    for file in files:
        if file.stem:
            groups.setdefault((file.folder, file.stem, bool(file.period)), []).append(file)
    joined, unsure = [], []
    for (*key, has_period), group in groups.items():
        fitting = [file for file in group if file.fits]
        if not {file.symbol for file in group}.isdisjoint(known):
            continue
        if not has_period:  # one interval alone may be a part of the symbol's name
            several = len({file.interval for file in group}) > 1 or group[0].stem in known
            joined += group if several and len(fitting) == len(group) and tuple(key) not in whole else []
        elif len(fitting) == len(group) and tuple(key) not in whole and any(file.range_ns for file in group):
            joined += group
        elif any(file.range_ns for file in fitting) or (len(group) > 1 and all(map(_ends_in_date, group))):
            unsure += group
    return joined, unsure


def _ends_in_date(file: _File) -> bool:
    """Whether a name's period can only be one: four or six digits may as well be the code of a stock."""
    return re.search(r"YYYY[-_.]|YYYYMMDD|MM[-_.]YYYY|Mon[-_.]?YYYY", file.period) is not None


def _shared(
    files: Sequence[_File], joined: Sequence[_File], symbol_of_file: dict[int, str], tables: Sequence[RawTable]
) -> tuple[list[str], list[Finding]]:
    """`(notes, findings)` on symbols that have several files, other than the periods of one stem."""
    by_symbol: dict[tuple[str, str], list[_File]] = {}
    parts = {file.number for file in joined}
    for file in files:
        interval = file.interval if file.number in parts else ""
        by_symbol.setdefault((symbol_of_file[file.number], interval), []).append(file)
    apart: list[str] = []
    overlapping: list[list[_File]] = []
    for (symbol, _), group in by_symbol.items():
        in_order = sorted((file for file in group if file.range_ns), key=lambda file: file.range_ns or (0, 0))
        if len(in_order) < 2 or (len({file.folder for file in group}) == 1 and all(f.number in parts for f in group)):
            continue
        pairs = itertools.pairwise(in_order)
        if any(a.range_ns and b.range_ns and b.range_ns[0] <= a.range_ns[1] for a, b in pairs):
            overlapping.append(in_order)
        else:
            apart.append(symbol)
    notes = []
    if apart:
        notes.append(f"several files were read as one symbol, {_such_as(apart)}")
    if not overlapping:
        return notes, []
    names = [tables[file.number].origin for file in overlapping[0][:2]]
    whole = [file for group in overlapping for file in group]
    finding = _finding(SAME, "flagged", whole, " and ".join(_ends_that_differ(names)))
    return notes, [dataclasses.replace(finding, symbols=len(overlapping))]


def _ends_that_differ(paths: Sequence[str]) -> list[str]:
    """The paths from the first folder in which they differ."""
    parts = [re.split(r"[/\\]", path) for path in paths]
    n_same = next(k for k in range(min(map(len, parts)) + 1) if len({tuple(p[: k + 1]) for p in parts}) > 1)
    return ["/".join(p[n_same:]) for p in parts]


def _joined_notes(joined: Sequence[_File]) -> list[str]:
    """One sentence for each form of a name's end."""
    if not joined:
        return []
    stems = list(dict.fromkeys(file.stem for file in joined))
    forms = sorted({file.period or file.symbol for file in joined if file.stem == stems[0]})
    which = f"{counted(len(joined), 'file')} {_such_as(forms)}"
    verb = "was" if len(joined) == 1 else "were"
    if len(stems) == 1:
        return [f"{which} {verb} read as one symbol {stems[0]}"]
    return [f"{which} and the like were read as {len(stems):,} symbols, {_such_as(stems)}"]


def _such_as(names: Sequence[str]) -> str:
    return printable(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))


def _finding(kind: str, action: str, files: Sequence[_File], example: str) -> Finding:
    symbols = len({(file.folder, file.symbol) for file in files})
    return Finding(kind, action, sum(file.rows for file in files), symbols, printable(example))
