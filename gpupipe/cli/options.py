"""Options that several commands share, and what they are as values."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from gpupipe.data import DataReport
    from gpupipe.data.panel import Panel
    from gpupipe.runtime.device import Device

ALL = "all"  # sectors


@dataclass(frozen=True)
class DataRequest:
    """Which data are read, and how strictly; see `gpupipe.data.load`.

    source: --data; None for the demo.  sectors: "all", or names separated by commas.  max_quarantined: the share of
    rows that may be quarantined.  no_sector: what is done with symbols without a sector; None is "error", or "drop" for
    `gpupipe ingest`.  symbols: the only ones; all if None.  outside: files of columns from outside, see `data.outside`.
    least_coverage: share of the rows that a column from outside must be known for; None where all are joined.
    outside_names: the only columns from outside; all if None.  group_by: sector or symbol.  known_symbols: others are
    left out, unless none of these is there; all if empty.

        >>> DataRequest("prices/*.csv", sectors="energy,utilities").sectors.split(",")
        ['energy', 'utilities']
    """

    source: str | None = None
    sector_map: str | None = None
    timeframe: str | None = None
    adjusted: bool = False
    strict: bool = False
    sectors: str = ALL
    max_quarantined: float = 0.05
    no_sector: str | None = None
    symbols: tuple[str, ...] | None = None
    outside: tuple[str, ...] = ()
    least_coverage: float | None = None
    outside_names: tuple[str, ...] | None = None
    group_by: str = "sector"
    known_symbols: tuple[str, ...] = ()

    def of_run(self, manifest: Mapping[str, Any]) -> DataRequest:
        """The same data for the models of a run: its groups, its columns from outside, and no symbols that it lacks.

        manifest: of the run; an empty one is that of an older run, of sectors.

        >>> DataRequest("btc.csv").of_run({"group_by": "symbol", "groups": ["BTC"]}).known_symbols
        ('BTC',)
        """
        from gpupipe.data.outside import PREFIX

        if manifest.get("group_by", "sector") != "symbol":
            return self
        names = manifest.get("settings", {}).get("features", {}).get("names", [])
        return dataclasses.replace(
            self,
            group_by="symbol",
            known_symbols=tuple(manifest.get("groups", ())),
            outside_names=tuple(name for name in names if name.startswith(PREFIX)),
        )

    def load(self, device: Device) -> tuple[Panel, DataReport]:
        """The panel and the report on it."""
        from gpupipe.data import load, outside
        from gpupipe.data.symbol_choice import select_symbols

        panel, report = load(
            self.source,
            self.sector_map,
            self.sectors,
            device,
            strict=self.strict,
            timeframe=self.timeframe,
            adjusted=self.adjusted,
            max_quarantined=self.max_quarantined,
            no_sector=self.no_sector or "error",
            group_by=self.group_by,
        )
        symbols = self.symbols
        if symbols is None and set(panel.symbols) & set(self.known_symbols):
            symbols = tuple(name for name in panel.symbols if name in self.known_symbols)
        panel, report = select_symbols(panel, report, symbols)
        for path in self.outside:
            panel, report = outside.join_reported(panel, report, path, self.least_coverage, self.outside_names)
        return panel, report


def data_request(chosen: argparse.Namespace, sectors: str = ALL, strict: bool = False) -> DataRequest:
    """The data that the options of `add_data_arguments` name."""
    return DataRequest(
        source=chosen.data,
        sector_map=getattr(chosen, "sector_map", None),
        timeframe=chosen.timeframe,
        adjusted=chosen.adjusted,
        strict=strict,
        sectors=sectors,
        max_quarantined=chosen.max_quarantined,
        no_sector=getattr(chosen, "no_sector", None),
        symbols=words(getattr(chosen, "symbol", None)),
        outside=tuple(getattr(chosen, "outside", ())),
    )


def add_data_arguments(parser: argparse.ArgumentParser, data_help: str) -> None:
    """The options of data, for commands that read them as `gpupipe run` does."""
    parser.add_argument("--data", help=data_help)
    parser.add_argument("--sector-map", help="as for gpupipe run")
    parser.add_argument("--timeframe", help="as for gpupipe run")
    parser.add_argument("--adjusted", action="store_true", help="as for gpupipe run")
    add_max_quarantined(parser)
    add_no_sector(parser, "as for gpupipe run")
    add_outside(parser, "columns from outside that the models were trained with")


def add_outside(parser: argparse.ArgumentParser, text: str) -> None:
    """The option of columns from outside."""
    parser.add_argument("--with", dest="outside", action="append", default=[], metavar="FILE", help=text)


def add_max_quarantined(parser: argparse.ArgumentParser) -> None:
    """The option of the share of rows that may be quarantined."""
    parser.add_argument(
        "--max-quarantined",
        type=float,
        default=DataRequest.max_quarantined,
        metavar="SHARE",
        help="stop if a larger share of rows is quarantined, and at least 3 (default: 0.05; 1 never stops)",
    )


def add_no_sector(parser: argparse.ArgumentParser, words: str) -> None:
    """The option for symbols without a sector."""
    parser.add_argument("--no-sector", choices=("error", "drop", "other"), help=words)


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option of the device."""
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def add_output(parser: argparse.ArgumentParser, json_help: str) -> None:
    """The options of what is printed."""
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help=json_help)


def add_wait(parser: argparse.ArgumentParser, words: str) -> None:
    """The option to wait for another process; words: what it holds."""
    parser.add_argument(
        "--wait",
        nargs="?",
        type=float,
        const=float("inf"),
        default=0.0,
        metavar="SECONDS",
        help=f"where {words}, wait for it (so long at most) instead of refusing",
    )


def words(text: str | None) -> tuple[str, ...] | None:
    """The names in a text, which commas separate; None for None."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str | None, kind: Callable[[str], Any], option: str) -> tuple[Any, ...] | None:
    """The numbers in a text, which commas separate; None for None. UserError for other text."""
    try:
        return None if text is None else tuple(kind(word) for word in text.split(","))
    except ValueError:
        example = {"--cpcv": "6,2", "--horizons": "1,2,5"}.get(option, "0.05,0.10")
        raise UserError(f"{option} {text}: expected numbers separated by commas, as {example}") from None
