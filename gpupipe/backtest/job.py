"""The job: `gpupipe backtest`, from a finished OUT and the data to OUT/backtest/."""

from __future__ import annotations

import io
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.backtest import benchmarks, cutoffs, statistics
from gpupipe.backtest.choices import BUY_AND_HOLD, CROSSED, SEALED, WALKED
from gpupipe.backtest.engine import REASONS, SHORT, Backtest, backtest, title_of
from gpupipe.backtest.rules import Rules
from gpupipe.backtest.sources import OutOfSample, sealed_test, walked
from gpupipe.data.panel import Panel
from gpupipe.evaluation import multiple_testing
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import FORMAT, Store, dump_json, sha256, write_atomic

if TYPE_CHECKING:
    import pyarrow

FOLDER, JSON, ALL, HOLD = "backtest", "statistics.json", "all", BUY_AND_HOLD


def execute(
    panel: Panel, data_hash: str, out: str | os.PathLike[str], rules: Rules, families: Sequence[str] | None = None,
    since: str | None = None, seed: int = 0, kind: str = SEALED,
    cutoff: str = cutoffs.F1,
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """Backtest the models of OUT out of sample; the content of statistics.json, and whether it was made.

    kind: SEALED, or WALKED for what the models of all folds of a walk-forward said of their tests.
    cutoff: cutoffs.F1, the models' own, or cutoffs.PROFIT, of which the sealed test is the only source.
    data_hash: of the panel (data.report).  The same again is checked and left as it is. What was there before of
    other rules is replaced; that these were tried is remembered, as the Deflated Sharpe Ratio asks.
    Raises UserError (InSampleError, StoreError, ...) with what to mend.
    """
    from gpupipe.artifacts import summary
    from gpupipe.store import fingerprint

    store, folder = Store(out), pathlib.Path(out) / FOLDER
    manifest, out_of_sample = _opened(out, kind, families, cutoff, rules)
    code = fingerprint.code_hash([__name__])
    wanted = list(families) if families is not None else None
    what = [manifest["run_key"], data_hash, rules.as_dict(), wanted, since, seed, panel.groups, kind, cutoff,
            code]  # fmt: skip
    key = sha256(dump_json(what))
    before = read(folder)
    if before and before["key"] == key and _unaltered(folder, before["files"]):
        return before, False
    source = out_of_sample(panel, since)
    tried = list(before["tried"]) if before and before["run_key"] == manifest["run_key"] else []
    now = tried_now(source, rules, kind, since, cutoff)
    tried += [now] if now not in tried else []
    found = backtest(source, rules)
    rows, by_year = measured(found, seed, trials_of(tried))
    whole = {
        "format": FORMAT, "key": key, "run_key": manifest["run_key"], "rules": rules.as_dict(),
        "cutoff": cutoff, "tried": tried, "rules_tried": list(dict.fromkeys(one["rules"] for one in tried)),
        "source": "sealed test" if kind == SEALED else source.source,
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


def _opened(
    out: str | os.PathLike[str], kind: str, families: Sequence[str] | None, cutoff: str, rules: Rules
) -> tuple[dict[str, Any], Callable[[Panel, str | None], OutOfSample]]:
    """The manifest of OUT, and what gives its probabilities for a panel from a date on."""
    from gpupipe.artifacts import out_of_sample_store
    from gpupipe.artifacts.layout import MANIFEST
    from gpupipe.artifacts.load import load
    from gpupipe.artifacts.manifest import read_manifest

    if kind == CROSSED:
        raise UserError(
            f"--source {CROSSED}: the folds of a cross-validation learned from rows after those they test, "
            f"and nobody could have traded so; expected {SEALED} or {WALKED} (of a run with --walk-forward N)"
        )
    if kind == WALKED and cutoff == cutoffs.PROFIT:
        raise UserError(
            f"--cutoff {cutoff}: the validation parts of a walk-forward's folds are not kept; use --source {SEALED}"
        )
    if kind == WALKED:
        manifest = read_manifest(out)
        if manifest is None:
            raise UserError(f"{out} has no {MANIFEST}: it is no finished run; run gpupipe with --out {out}")
        stored = out_of_sample_store.read(out, manifest)
        if stored is None:
            raise UserError(
                f"{out} holds no walk-forward: run again with --walk-forward N, which tests N folds each with models "
                f"that have not seen it; or use --source {SEALED}"
            )
        return manifest, lambda panel, since: walked(stored, panel, families, since)
    models = load(out)
    models.columns(families)  # says which families there are

    def sealed(panel: Panel, since: str | None) -> OutOfSample:
        acting = cutoffs.kept(models, panel, rules).of(models) if cutoff == cutoffs.PROFIT else models
        return sealed_test(acting, panel, families, since)

    return models.manifest, sealed


def tried_now(
    source: OutOfSample, rules: Rules, kind: str, since: str | None, cutoff: str = cutoffs.F1
) -> dict[str, Any]:
    """What a backtest tries, for those to come: rules, rows, and the models of each sector."""
    there = source.has_model
    return {
        "rules": rules.digest(), "source": kind, "since": since,
        **({"cutoff": cutoff} if cutoff != cutoffs.F1 else {}),
        "models": {
            sector: [name for name, yes in zip(source.names, there[:, s], strict=True) if yes]
            for s, sector in enumerate(source.panel.groups) if there[:, s].any()
        },
    }  # fmt: skip


def trials_of(tried: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """How many trials were made: models of all sectors together, and of sectors one by one, each times its rules."""
    apart = {
        (one["rules"], one["source"], one["since"], one.get("cutoff"), sector, name)
        for one in tried for sector, names in one["models"].items() for name in names
    }  # fmt: skip
    return len({(*how, name) for *how, _, name in apart}), len(apart)


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """The content of statistics.json of an earlier backtest, or None if there is none that this gpupipe reads."""
    try:
        found = json.loads((folder / JSON).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    known = isinstance(found, dict) and found.get("format") == FORMAT and {"key", "tried"} <= set(found)
    return found if known else None


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
    there: Any = source.has_model.any(axis=0)
    of = [(name, np.array([k])) for k, name in enumerate(source.panel.groups) if there[k]]
    return [(ALL, np.flatnonzero(there)), *of] if len(of) > 1 else of


def measured(
    found: Backtest, seed: int, trials: tuple[int, int] = (0, 0)
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row a model and portfolio, with buy and hold of each portfolio; and the same by calendar year.

    trials: how many were made, of portfolios of all sectors together and of sectors one by one; at least those of
    `found`.
    """
    source, per_year = found.source, statistics.periods_per_year(found.times)
    net = found.panel.device.to_host(found.trades.net)
    groups = found.panel.device.to_host(found.trades.groups)
    entered = found.panel.device.to_host(found.date_of_row[found.trades.row])
    years = found.times.astype("datetime64[ns]").astype("datetime64[Y]").astype(int) + 1970
    drawn, held = benchmarks.random_entries(found, seed), benchmarks.buy_and_hold(found)
    n_sectors = len(found.panel.groups)
    rows: list[dict[str, Any]] = []
    by_year: list[dict[str, Any]] = []
    kept: list[tuple[bool, dict[str, Any], np.ndarray]] = []
    for name, sectors in portfolios(source):
        for m in range(len(source.families)):
            if not source.has_model[m, sectors].any():
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
    _deflate(kept, trials)
    return rows, by_year


def _deflate(kept: list[tuple[bool, dict[str, Any], np.ndarray]], trials: tuple[int, int]) -> None:
    """Add the Deflated Sharpe Ratio, of how many trials, and what it all says, to each row."""
    for together, n_trials in zip((True, False), trials, strict=True):
        own = [(row, series) for is_all, row, series in kept if is_all == together]
        if not own:
            continue
        n_trials = max(n_trials, len(own))
        others = np.stack([series for _, series in own], axis=1)
        for row, series in own:
            deflated = multiple_testing.deflated_sharpe(series, n_trials, others)
            row |= {"deflated_sharpe": deflated, "trials": n_trials}
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
        "sector": _words(panel.group_of_symbol[symbol], panel.groups),
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
            if not source.has_model[m, sectors].any():
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
