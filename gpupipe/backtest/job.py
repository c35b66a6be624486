"""The job: `gpupipe backtest`, from a finished OUT and the data to OUT/backtest/."""

from __future__ import annotations

import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe import deflation
from gpupipe.backtest import benchmarks, statistics
from gpupipe.backtest.engine import REASONS, SHORT, Backtest, backtest, title_of
from gpupipe.backtest.rules import Rules
from gpupipe.backtest.sources import OutOfSample, sealed_test
from gpupipe.panel import Panel
from gpupipe.store import FORMAT, Store, dump_json, sha256, write_atomic

if TYPE_CHECKING:
    import pyarrow

FOLDER, JSON, ALL, HOLD = "backtest", "statistics.json", "all", "buy_and_hold"


def execute(
    panel: Panel, data_hash: str, out: str | os.PathLike[str], rules: Rules, families: Sequence[str] | None = None,
    since: str | None = None, seed: int = 0,
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """Backtest the models of OUT on their sealed test; return the content of statistics.json, and whether it was made.

    data_hash: of the panel (data.report).  The same again is checked and left as it is. What was there before of
    other rules is replaced; that these were tried is remembered, as the Deflated Sharpe Ratio asks.
    Raises UserError (InSampleError, StoreError, ...) with what to mend.
    """
    from gpupipe import artifacts, sources, summary

    store, folder = Store(out), pathlib.Path(out) / FOLDER
    models = artifacts.load(out)
    manifest = artifacts.read_manifest(out)
    chosen = list(models.columns(families))
    assert manifest is not None  # load has read it
    code = sources.code_hash([__name__])
    what = [manifest["run_key"], data_hash, rules.as_dict(), chosen, since, seed, panel.sectors, code]
    key = sha256(dump_json(what))
    before = read(folder)
    if before and before["key"] == key and _unaltered(folder, before["files"]):
        return before, False
    source = sealed_test(models, panel, families, since)
    tried = dict.fromkeys(before["rules_tried"] if before and before["run_key"] == manifest["run_key"] else ())
    tried[rules.digest()] = None
    found = backtest(source, rules)
    rows, by_year = measured(found, seed, len(tried))
    whole = {
        "format": FORMAT, "key": key, "run_key": manifest["run_key"], "rules": rules.as_dict(),
        "rules_tried": list(tried), "source": "sealed test",
        "data": _same_data(summary.read(store.out), panel, data_hash),
        "from": _text(found.times[0]), "to": _text(found.times[-1]), "dates": len(found.times), "seed": seed,
        "draws": benchmarks.N_DRAWS, "block": benchmarks.block_of(len(found.times), max(source.horizons)),
        "device": panel.device.kind, "statistics": rows,
    }  # fmt: skip
    tables = {"trades": trades_table(found), "equity": equity_table(found), "by_year": _table(by_year),
              "statistics": _table(rows)}  # fmt: skip
    with store.lock():
        (folder / JSON).unlink(missing_ok=True)  # it must never speak for tables that are of other rules
        whole["files"] = {}
        for name, table in tables.items():
            content = _parquet(table)
            write_atomic(folder / f"{name}.parquet", content)
            whole["files"][f"{name}.parquet"] = sha256(content)
        write_atomic(folder / JSON, dump_json(whole))
    return json.loads((folder / JSON).read_bytes()), True


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """The content of statistics.json of an earlier backtest, or None if there is none that this gpupipe reads."""
    try:
        found = json.loads((folder / JSON).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT and "key" in found else None


def _unaltered(folder: pathlib.Path, files: dict[str, str]) -> bool:
    paths = {folder / name: digest for name, digest in files.items()}
    return all(path.is_file() and sha256(path.read_bytes()) == digest for path, digest in paths.items())


def _same_data(trained: dict[str, Any], panel: Panel, data_hash: str) -> str:
    """Whether these are the data of the training, in words."""
    about = trained["data"]
    if about.get("data_hash") == data_hash:
        return "the data trained on"
    if "last_time" in about:
        last = np.datetime64(about["last_time"].removesuffix("Z"), "ns").astype(np.int64)
        if int((panel.time_ns <= int(last)).sum()) == about["rows_kept"]:
            return "as many rows as were trained on, and later ones; that these are the same rows is not checked"
    return "not the data trained on, by their hash; that rows are out of sample is known by their dates alone"


def portfolios(source: OutOfSample) -> list[tuple[str, Any]]:
    """Name and positions of the sectors of every portfolio: all sectors that have models, then each alone."""
    there = ~np.isnan(source.cutoffs).all(axis=(0, 2))
    of = [(name, np.array([k])) for k, name in enumerate(source.panel.sectors) if there[k]]
    return [(ALL, np.flatnonzero(there)), *of] if len(of) > 1 else of


def measured(found: Backtest, seed: int, n_rules: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row a model and portfolio, with buy and hold of each portfolio; and the same by calendar year.

    n_rules: sets of rules that were tried on these models: trials are all models of a portfolio's kind, of all sectors
    one by one or of all sectors together, times these.
    """
    source, per_year = found.source, statistics.periods_per_year(found.times)
    net = found.panel.device.to_host(found.trades.net)
    groups = found.panel.device.to_host(found.trades.groups)
    entered = found.panel.device.to_host(found.date_of_row[found.trades.row])
    years = found.times.astype("datetime64[ns]").astype("datetime64[Y]").astype(int) + 1970
    drawn, held = benchmarks.random_entries(found, seed), benchmarks.buy_and_hold(found)
    n_sectors = len(found.panel.sectors)
    rows: list[dict[str, Any]] = []
    by_year: list[dict[str, Any]] = []
    kept: list[tuple[bool, dict[str, Any], np.ndarray]] = []
    for name, sectors in portfolios(source):
        for m in range(len(source.families)):
            if np.isnan(source.cutoffs[m, sectors]).all():
                continue
            title = {"sector": name, **title_of(source, m)}
            series = np.stack(found.series(m, sectors))[:, 1:]
            at = np.concatenate([np.arange(*groups[k : k + 2]) for k in m * n_sectors + sectors])
            drawn_mean, p_value = drawn.of(m, sectors)
            row = {
                **title, **statistics.performance(series, per_year), **statistics.of_trades(net[at]),
                "random_mean_trade": drawn_mean, "p_value": p_value,
            }  # fmt: skip
            rows.append(row)
            kept.append((name == ALL, row, series[0]))
            for year in np.unique(years[1:]):
                of_year = years[1:] == year
                in_year = at[years[entered[at]] == year]
                by_year.append({
                    **title, "year": int(year), **statistics.performance(series[:, of_year], per_year),
                    **statistics.of_trades(net[in_year]),
                })  # fmt: skip
        title = {"sector": name, "model": HOLD, "label": "", "horizon": None, "threshold": None}
        own = held[-1 if name == ALL else sectors[0], 1:]
        series = np.stack([own, np.ones_like(own), np.zeros_like(own)])
        rows.append({**title, **statistics.performance(series, per_year)})
        for year in np.unique(years[1:]):
            of_year = statistics.performance(series[:, years[1:] == year], per_year)
            by_year.append({**title, "year": int(year), **of_year})
    _deflate(kept, n_rules)
    return rows, by_year


def _deflate(kept: list[tuple[bool, dict[str, Any], np.ndarray]], n_rules: int) -> None:
    """Add the Deflated Sharpe Ratio, of how many trials, and what it all says, to each row."""
    for together in (True, False):
        own = [(row, series) for is_all, row, series in kept if is_all == together]
        if not own:
            continue
        others = np.stack([series for _, series in own], axis=1)
        for row, series in own:
            deflated = deflation.deflated_sharpe(series, len(own) * n_rules, others)
            row |= {"deflated_sharpe": deflated, "trials": len(own) * n_rules}
            row["skill"] = statistics.skill(row["p_value"], deflated)


def trades_table(found: Backtest) -> pyarrow.Table:
    """One row a trade: model, label, sector, symbol, side, times and prices of entry and exit, reason, net return."""
    import pyarrow as pa

    panel, trades, host = found.panel, found.trades, found.panel.device.to_host
    model, row = host(trades.model), host(trades.row)
    titles = [title_of(found.source, m) for m in range(len(found.source.families))]
    time, symbol = host(panel.time_ns), host(panel.symbol_of_row)[row]
    columns = {
        "model": _words(model, [title["model"] for title in titles]),
        "label": _words(model, [title["label"] for title in titles]),
        "sector": _words(panel.sector_of_symbol[symbol], panel.sectors),
        "symbol": _words(symbol, panel.symbols),
        "side": _words(host(trades.side) == SHORT, ("long", "short")),
        "call_time": _times(time[row]),
        "entry_time": _times(time[host(trades.first_row)]),
        "entry_price": pa.array(host(trades.entry_price)),
        "exit_time": _times(time[host(trades.last_row)]),
        "exit_price": pa.array(host(trades.exit_price)),
        "reason": _words(host(trades.reason), REASONS),
        "net_return": pa.array(host(trades.net)),
    }
    return pa.table(columns)


def equity_table(found: Backtest) -> pyarrow.Table:
    """One row a model, portfolio and date: return, equity (1 at the first), exposure, positions; then buy and hold."""
    import pyarrow as pa

    source, n = found.source, len(found.times)
    held = benchmarks.buy_and_hold(found)
    titles: list[tuple[str, str, str]] = []
    parts: list[list[np.ndarray]] = []
    for name, sectors in portfolios(source):
        for m in range(len(source.families)):
            if np.isnan(source.cutoffs[m, sectors]).all():
                continue
            returns, exposure, _ = found.series(m, sectors)
            open_ = found.days[m, sectors, 2].sum(axis=0)
            parts.append([returns, statistics.equity_curve(returns), exposure, open_])
            titles.append((source.families[m], title_of(source, m)["label"], name))
        returns = held[-1 if name == ALL else sectors[0]]
        listed = found.listed[sectors].sum(axis=0)
        parts.append([returns, statistics.equity_curve(returns), np.ones(n), listed.astype(float)])
        titles.append((HOLD, "", name))
    names = ("model", "label", "sector")
    columns: dict[str, Any] = {}
    for k, name in enumerate(names):
        columns[name] = _words(np.repeat(np.arange(len(titles)), n), [title[k] for title in titles])
    columns["time"] = _times(np.tile(found.times, len(titles)))
    for k, name in enumerate(("return", "equity", "exposure")):
        columns[name] = pa.array(np.concatenate([part[k] for part in parts]))
    columns["positions"] = pa.array(np.concatenate([part[3] for part in parts]).astype(np.int64))
    return pa.table(columns)


def _words(codes: Any, words: Sequence[str]) -> Any:
    """words[codes] as a dictionary; without duplicates in it, with which the bytes of a Parquet file are by chance."""
    import pyarrow as pa

    place = {word: k for k, word in enumerate(dict.fromkeys(words))}
    at = np.array([place[word] for word in words], np.int32)[np.asarray(codes).astype(np.int64)]
    return pa.DictionaryArray.from_arrays(pa.array(at), pa.array(list(place), pa.string()))


def _times(time_ns: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(time_ns).cast(pa.timestamp("ns", "UTC"))


def _table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def _parquet(table: pyarrow.Table) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _text(time_ns: int) -> str:
    from gpupipe.data.report import time_text

    return time_text(int(time_ns))
