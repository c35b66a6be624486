"""`read_bonds`: files or frames of instruments, quotes and a curve become the Panel of bonds and the report on it."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data import quarantine_limit
from gpupipe.data.errors import DataError, printable
from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport, Finding, counted, data_hash, quarantine_table, time_text
from gpupipe.runtime.run_log import event
from gpupipe.workloads.bonds import rate_units, source_tables
from gpupipe.workloads.bonds.judge import judge_curve, judge_quotes
from gpupipe.workloads.bonds.judge_instruments import judge_instruments
from gpupipe.workloads.bonds.schema import MAX_CURVE_AGE, PriceOfYield, panel_of
from gpupipe.workloads.bonds.source_tables import SourceTables, open_source
from gpupipe.workloads.bonds.verdict import Verdict

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger("gpupipe")
_SHOWN = 3  # rows of the most frequent reason that a message shows


def read_bonds(
    bonds: Any,
    quotes: Any,
    curve: Any,
    *,
    price_of_yield: PriceOfYield,
    rates: str = rate_units.AUTO,
    max_curve_age: int = MAX_CURVE_AGE,
    group_by: str = "sector",
    strict: bool = False,
    max_quarantined: float = quarantine_limit.DEFAULT,
) -> tuple[Panel, DataReport]:
    """Read instruments, quotes and a par curve, judge every row, and return the Panel and the report; writes nothing.

    bonds, quotes, curve: each a file (Parquet, CSV or CSV.gz, Arrow or Feather), a folder of files, or a frame of
        pandas, polars or pyarrow. Usual spellings of the columns are understood (`source_tables`):

        bonds: id, coupon, issue, maturity; and type, frequency, rating, issuer, sector, callable, day_count,
            first_coupon, call_date, call_price, margin, see `schema.Instruments`.
        quotes: id, date, clean or yield; and traded, rating, coupon, see `schema.Quotes`.
        curve: date, and tenors such as 1m, m3, 10Y or DGS10.

    price_of_yield: makes the clean price of a quote that is a yield, see `schema.PriceOfYield`.
    rates: the unit of coupons, yields and curve: "percent", "fraction", or "auto": told by the values of each column,
        and refused where they do not tell (`rate_units.unit_of_rates`).
    max_curve_age: days after which a curve is no longer taken as known, see `schema.panel_of`.
    group_by: an attribute, "sector" or "issuer", or "symbol": each bond is a group of its own.
    strict: any finding is an error.
    max_quarantined: the share of rows of each source that may be quarantined; with more, and at least 3, nothing is
        read.

    How rows are judged: `judge_instruments`, `judge_quotes`, `judge_curve`. In the report, rows are quotes, and each
    kind of finding begins with its source.

    Raises DataError for data that the user must correct.

    >>> import pyarrow as pa
    >>> bonds = pa.table({"id": ["A"], "type": ["zero"], "coupon": [0.0], "issue": ["2020-01-15"],
    ...                   "maturity": ["2030-01-15"], "sector": ["Energy"]})
    >>> quotes = pa.table({"id": ["A", "A"], "date": ["2024-01-02", "2024-01-09"], "price": [75.5, 76.0]})
    >>> curve = pa.table({"date": ["2024-01-02", "2024-01-03"], "1Y": [4.8, 4.81], "10Y": [3.95, 3.91]})
    >>> panel, report = read_bonds(bonds, quotes, curve, price_of_yield=lambda table: table["yield"])
    >>> panel.symbols, panel.clean, panel.curve_y10, panel.curve_age
    (('A',), array([75.5, 76. ]), array([3.95, 3.91]), array([0, 6]))
    """
    started = time.perf_counter()
    quarantine_limit.check_share(max_quarantined)
    rate_units.check_choice(rates)
    read = (
        open_source("bonds", bonds, source_tables.INSTRUMENTS, ("id", "coupon", "issue", "maturity")),
        open_source("quotes", quotes, source_tables.QUOTES, ("id", "date")),
        open_source("curve", curve, source_tables.CURVE, ("date",)),
    )
    if not (read[1].has("clean") or read[1].has("yield")):
        raise DataError(f"quotes: {read[1].description} has no column for a clean price or a yield")
    judged_bonds = judge_instruments(read[0], rates)
    judged_quotes = judge_quotes(read[1], judged_bonds, rates)
    judged_curve = judge_curve(read[2], rates)
    verdicts = (judged_bonds.verdict, judged_quotes.verdict, judged_curve.verdict)
    findings = [finding for verdict in verdicts for finding in verdict.findings()]
    findings += _malformed(read)
    for source, verdict in zip(read, verdicts, strict=True):
        _check_quarantine(source, verdict, max_quarantined)
    if not len(judged_quotes.quotes.day):
        raise DataError(f"quotes: {read[1].description}: no row is left; {'; '.join(map(_in_words, findings))}")
    if not len(judged_curve.curve.day):
        raise DataError(f"curve: {read[2].description}: no day is left; {'; '.join(map(_in_words, findings))}")
    panel = panel_of(
        judged_bonds.instruments,
        judged_quotes.quotes,
        judged_curve.curve,
        price_of_yield,
        max_curve_age=max_curve_age,
        group_by=group_by,
    )
    findings += _of_panel(panel, max_curve_age)
    if strict and findings:
        raise DataError(f"strict: {'; '.join(map(_in_words, findings))}")
    report = _report(read, verdicts, panel, findings, (*judged_bonds.notes, *judged_quotes.notes, *judged_curve.notes))
    log.info("%s; %s", report.description, report.reader)
    elapsed_s = time.perf_counter() - started
    event("read", stage="read", seconds=elapsed_s, rows=report.rows_read, reader=report.reader, device="cpu")
    return panel, report


def _malformed(read: Sequence[SourceTables]) -> list[Finding]:
    return [
        Finding(f"{source.what}: is not a row", "quarantined", len(rows), 0, printable(rows[0][1]))
        for source in read
        if (rows := source.malformed)
    ]


def _check_quarantine(source: SourceTables, verdict: Verdict, allowed: float) -> None:
    """Raise DataError if more rows of a source are quarantined than allowed."""
    rejected, reasons = verdict.rejected, verdict.reasons
    n_quarantined, n_rows = len(rejected) + len(source.malformed), source.n_rows + len(source.malformed)
    if not quarantine_limit.is_exceeded(n_quarantined, n_rows, allowed):
        return
    words = "; ".join(_in_words(f) for f in (*verdict.findings(), *_malformed([source])) if f.action == "quarantined")
    if reasons:
        most = collections.Counter(reasons).most_common(1)[0][0]
        rows = [row for row, reason in zip(rejected, reasons, strict=True) if reason == most][:_SHOWN]
        meanings = source.tables[0].columns
        texts = dict.fromkeys(source.texts_of_row(int(row), tuple(meanings)[:6]) for row in rows)
        words += f"; it reads {', '.join(texts)}"
    raise DataError(
        f"{source.what}: {source.description}: {quarantine_limit.in_words(n_quarantined, n_rows, allowed, words)}"
    )


def _in_words(finding: Finding) -> str:
    number = counted(finding.rows, "row") if finding.rows or not finding.symbols else counted(finding.symbols, "bond")
    return f"{number} {finding.action}: {finding.kind}" + (f" (first {finding.example})" if finding.example else "")


def _of_panel(panel: Panel, max_curve_age: int) -> list[Finding]:
    """Findings on rows of the panel: those without a curve, and yields without a price."""
    age = panel.curve_age
    masks = {
        "quotes: before the first curve day": age < 0,
        f"quotes: no curve within {max_curve_age} days": age > max_curve_age,
        "quotes: the yield has no price": np.isnan(panel.clean),
    }
    findings = []
    for kind, mask in masks.items():
        rows = np.flatnonzero(mask)
        if len(rows):
            symbols = panel.symbol_of_row[rows]
            example = f"{panel.symbols[symbols[0]]} {time_text(int(panel.time_ns[rows[0]]))}"
            findings.append(Finding(kind, "flagged", len(rows), len(np.unique(symbols)), printable(example)))
    return findings


def _report(
    read: Sequence[SourceTables],
    verdicts: Sequence[Verdict],
    panel: Panel,
    findings: Sequence[Finding],
    notes: Sequence[str],
) -> DataReport:
    bonds, quotes, curve = read
    sector = panel.attributes["sector"]
    return DataReport(
        description=printable(
            f"bonds of {bonds.description}, quotes of {quotes.description}, par curve of {curve.description}"
        ),
        kind="bonds",
        path=quotes.path,
        reader="read by pyarrow",
        notes=tuple(dict.fromkeys(notes)),
        rows_read=quotes.n_rows,
        rows_selected=quotes.n_rows,
        rows_kept=panel.n_rows,
        symbols=panel.n_symbols,
        sectors={name: sector.count(name) for name in panel.sectors},
        first_time=time_text(int(panel.time_ns.min())),
        last_time=time_text(int(panel.time_ns.max())),
        data_hash=data_hash(panel),
        findings=tuple(findings),
        quarantine=_quarantine(read, verdicts),
    )


def _quarantine(read: Sequence[SourceTables], verdicts: Sequence[Verdict]) -> pyarrow.Table:
    """The rejected rows of the three sources, see `report.quarantine_table`; each with its source's columns."""
    import pyarrow as pa

    tables = []
    for source, verdict in zip(read, verdicts, strict=True):
        named = [(table.origin, table.table) for table in source.tables]
        reasons = [f"{source.what}: {reason}" for reason in verdict.reasons]
        tables.append(quarantine_table(named, verdict.rejected, reasons))
        malformed = source.malformed
        tables.append(
            pa.table(
                {
                    "source": pa.array([origin for origin, _ in malformed], pa.string()),
                    "row": pa.nulls(len(malformed), pa.int64()),
                    "reason": pa.array([f"{source.what}: is not a row: {text}" for _, text in malformed], pa.string()),
                }
            )
        )
    return pa.concat_tables(tables, promote_options="default")
