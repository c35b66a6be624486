"""The job of `gpupipe backtest`: from a finished OUT and the data to OUT/backtest/."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.backtest import benchmarks, statistics
from gpupipe.backtest.calling import registry
from gpupipe.backtest.calling.calls import calls_of, sentences
from gpupipe.backtest.calling.contract import CallingRule
from gpupipe.backtest.choices import CROSSED, HALTS, SEALED, WALKED
from gpupipe.backtest.engine import Backtest, backtest, cut, title_of
from gpupipe.backtest.rules import Rules
from gpupipe.backtest.sources import OutOfSample, absent_sentence, sealed_test, walked
from gpupipe.backtest.tables import ALL, HOLD, equity_table, parquet, portfolios, table_of, trades_table
from gpupipe.data.panel import Panel
from gpupipe.evaluation import multiple_testing
from gpupipe.evaluation.block_bootstrap import block_length
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import FORMAT, Store, dump_json, sha256, sha256_of, write_atomic
from gpupipe.targets.classes import untraded_sentence

if TYPE_CHECKING:
    import pyarrow

FOLDER, JSON = "backtest", "statistics.json"


@dataclass(frozen=True)
class Request:
    """The choices of a backtest.

    families: names of the estimators; None for all.  since: an ISO date; earlier rows are left out.
    seed: of the random entries.
    source: SEALED, or WALKED for the stored predictions of all folds of a walk-forward.
    call: the calling rule, as `--call` takes it.

    >>> Request(Rules(side="both")).source
    'sealed-test'
    """

    rules: Rules = field(default_factory=Rules)
    families: Sequence[str] | None = None
    since: str | None = None
    seed: int = 0
    source: str = SEALED
    call: str = registry.DEFAULT


def execute(panel: Panel, data_hash: str, out: str | os.PathLike[str], request: Request) -> tuple[dict[str, Any], bool]:
    """Backtest the models of OUT out of sample; the content of statistics.json, and whether it was computed now.

    data_hash: of the panel (data.report).  An earlier backtest of the same models, data and request is checked and
    left. One of other rules is replaced; its rules stay in the list of those tried, for the Deflated Sharpe Ratio.
    Raises UserError (InSampleError, StoreError, ...) with the way to mend it.
    """
    from gpupipe.artifacts import summary
    from gpupipe.store import fingerprint

    store, folder, rules = Store(out), pathlib.Path(out) / FOLDER, request.rules
    rule = registry.rule(request.call)
    manifest, out_of_sample = _opened(out, request, rule)
    families = list(request.families) if request.families is not None else None
    inputs = [manifest["run_key"], data_hash, rules.as_dict(), families, request.since, request.seed, panel.groups,
              request.source, rule.text, fingerprint.code_hash([__name__, type(rule).__module__])]  # fmt: skip
    key = sha256_of(inputs)
    before = read(folder)
    if before and before["key"] == key and _unaltered(folder, before["files"]):
        return before, False
    source = out_of_sample(panel)
    tried = list(before["tried"]) if before and before["run_key"] == manifest["run_key"] else []
    now = tried_now(source, request, rule)
    tried += [now] if now not in tried else []
    calls = calls_of(source, cut(source)[1], rule, rules)
    result = backtest(source, rules, calls.called)
    rows, by_year = measured(result, request.seed, trials_of(tried))
    whole = {
        "format": FORMAT, "key": key, "run_key": manifest["run_key"], "rules": rules.as_dict(),
        "call": rule.text, "without_calls": sentences(calls.refusals, rule),
        "tried": tried, "rules_tried": list(dict.fromkeys(trial["rules"] for trial in tried)),
        "source": "sealed test" if request.source == SEALED else source.source,
        "data": _same_data(summary.read(store.out), source, data_hash),
        "from": _text(result.times[0]), "to": _text(result.times[-1]), "dates": len(result.times),
        "seed": request.seed, "draws": benchmarks.N_DRAWS,
        "block": block_length(len(result.times), max(source.horizons)),
        "device": panel.device.kind, "statistics": rows,
    }  # fmt: skip
    tables = {
        "trades": trades_table(result), "equity": equity_table(result), "by_year": table_of(by_year),
        "statistics": table_of(rows),
    }  # fmt: skip
    _write(store, folder, whole, tables)
    return json.loads((folder / JSON).read_bytes()), True


def _write(store: Store, folder: pathlib.Path, whole: dict[str, Any], tables: dict[str, pyarrow.Table]) -> None:
    """Write the tables as Parquet, and statistics.json last, with their hashes."""
    with store.lock():
        (folder / JSON).unlink(missing_ok=True)  # it must never describe tables of other rules
        whole["files"] = {}
        for name, table in tables.items():
            content = parquet(table)
            write_atomic(folder / f"{name}.parquet", content)
            whole["files"][f"{name}.parquet"] = sha256(content)
        write_atomic(folder / JSON, dump_json(whole))


def _opened(
    out: str | os.PathLike[str], request: Request, rule: CallingRule
) -> tuple[dict[str, Any], Callable[[Panel], OutOfSample]]:
    """The manifest of OUT, and a function from a panel to its out-of-sample probabilities."""
    from gpupipe.artifacts import out_of_sample_store
    from gpupipe.artifacts.layout import MANIFEST
    from gpupipe.artifacts.load import load
    from gpupipe.artifacts.manifest import read_manifest

    if request.source == CROSSED:
        raise UserError(
            f"--source {CROSSED}: the folds of a cross-validation learned from rows after those they test, "
            f"and nobody could have traded so; expected {SEALED} or {WALKED} (of a run with --walk-forward N)"
        )
    if request.source == WALKED and rule.reads_validation:
        raise UserError(
            f"--call {rule.text}: the validation parts of a walk-forward's folds are not kept; use --source {SEALED}, "
            f"or --call {registry.DEFAULT}"
        )
    if request.source == WALKED:
        manifest = read_manifest(out)
        if manifest is None:
            raise UserError(f"{out} has no {MANIFEST}: it is no finished run; run gpupipe with --out {out}")
        stored = out_of_sample_store.read(out, manifest)
        if stored is None:
            raise UserError(
                f"{out} holds no walk-forward: run again with --walk-forward N, which tests N folds each with models "
                f"that have not seen it; or use --source {SEALED}"
            )
        return manifest, lambda panel: walked(stored, panel, request.families, request.since)
    models = load(out)
    models.columns(request.families)  # raises for a name that was not trained

    def sealed(panel: Panel) -> OutOfSample:
        return sealed_test(rule.prepared(models, panel, request.rules), panel, request.families, request.since)

    return models.manifest, sealed


def tried_now(source: OutOfSample, request: Request, rule: CallingRule) -> dict[str, Any]:
    """An entry of the list of trials: the rules, the rows, and the models of each sector."""
    has_model = source.has_model
    return {
        "rules": request.rules.digest(), "source": request.source, "since": request.since,
        "call": rule.text,
        "models": {
            sector: [name for name, exists in zip(source.names, has_model[:, s], strict=True) if exists]
            for s, sector in enumerate(source.panel.groups) if has_model[:, s].any()
        },
    }  # fmt: skip


def trials_of(tried: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Numbers of trials, a trial being a model with its rules: on all sectors together, and on single sectors."""
    single = {
        (trial["rules"], trial["source"], trial["since"], _call_of(trial), sector, name)
        for trial in tried for sector, names in trial["models"].items() for name in names
    }  # fmt: skip
    return len({(*how, name) for *how, _, name in single}), len(single)


def _call_of(trial: dict[str, Any]) -> str:
    """The calling rule of a trial; older trials name the way that cutoffs were chosen, or none for F1."""
    return str(trial.get("call") or trial.get("cutoff") or "f1")


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """The content of statistics.json of an earlier backtest, or None if there is none that this gpupipe reads."""
    try:
        content = json.loads((folder / JSON).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    known = isinstance(content, dict) and content.get("format") == FORMAT and {"key", "tried"} <= set(content)
    return content if known else None


def _unaltered(folder: pathlib.Path, files: dict[str, str]) -> bool:
    paths = {folder / name: digest for name, digest in files.items()}
    return all(path.is_file() and sha256(path.read_bytes()) == digest for path, digest in paths.items())


def _same_data(trained: dict[str, Any], source: OutOfSample, data_hash: str) -> str:
    """Whether these are the data of the training, in words.  trained: the summary of the run."""
    sentences = [_rows_of(trained, source.panel, data_hash), absent_sentence(source.absent)]
    if source.untraded:
        sentences.append(untraded_sentence(source.untraded).rstrip("."))
    return "; ".join(filter(None, sentences))


def _rows_of(trained: dict[str, Any], panel: Panel, data_hash: str) -> str:
    """Whether these are the rows of the training, in words."""
    data = trained["data"]
    if data.get("data_hash") == data_hash:
        return "the data trained on"
    if "last_time" in data:
        last = np.datetime64(data["last_time"].removesuffix("Z"), "ns").astype(np.int64)
        if int((panel.time_ns <= int(last)).sum()) == data["rows_kept"]:
            return "as many rows as were trained on, and later ones; that these are the same rows is not checked"
    return "not the data trained on, by their hash; that rows are out of sample is known by their dates alone"


@dataclass(frozen=True)
class _HostTrades:
    """Trades on the host.  net, waited, groups: see engine.Trades.  year: int (n_trades,), of the call."""

    net: np.ndarray
    waited: np.ndarray
    year: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, result: Backtest, years: np.ndarray) -> _HostTrades:
        """The trades of a backtest.  years: int (n_dates,), of its dates."""
        to_host, trades = result.panel.device.to_host, result.trades
        year = years[to_host(result.date_of_row[trades.row])]
        return cls(to_host(trades.net), to_host(trades.waited), year, to_host(trades.groups))

    def rows(self, groups: np.ndarray) -> np.ndarray:
        """Numbers of the trades of some groups."""
        return np.concatenate([np.arange(*self.groups[k : k + 2]) for k in groups])


@dataclass(frozen=True)
class _Portfolio:
    """A model over some sectors, or buy and hold of them.

    title: its columns in every table.  series: float64 (3, n_dates - 1), see `statistics.performance`.
    net, years: of its trades, the net return and the year of the call; None for buy and hold.
    halts: calls that a halt left unfilled, and exits that waited for its end.
    """

    title: dict[str, Any]
    series: np.ndarray
    net: np.ndarray | None = None
    years: np.ndarray | None = None
    halts: dict[str, int] = field(default_factory=dict)

    def row(self, per_year: float) -> dict[str, Any]:
        """Measures of the whole time."""
        trades = {} if self.net is None else statistics.trade_measures(self.net)
        return {**self.title, **statistics.performance(self.series, per_year), **trades, **self.halts}

    def by_year(self, years: np.ndarray, per_year: float) -> list[dict[str, Any]]:
        """The same of each calendar year.  years: int (n_dates - 1,), of the dates."""
        rows = []
        for year in np.unique(years):
            row = {
                **self.title, "year": int(year), **statistics.performance(self.series[:, years == year], per_year)
            }  # fmt: skip
            if self.net is not None:
                row |= statistics.trade_measures(self.net[self.years == year])
            rows.append(row)
        return rows


def measured(
    result: Backtest, seed: int, trials: tuple[int, int] = (0, 0)
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row for each model and portfolio, with buy and hold of each portfolio; and the same by calendar year.

    trials: the numbers of trials on all sectors together and on single sectors; those of `result` are the least.
    """
    source, per_year = result.source, statistics.periods_per_year(result.times)
    years = result.times.astype("datetime64[ns]").astype("datetime64[Y]").astype(int) + 1970
    trades = _HostTrades.of(result, years)
    drawn, held = benchmarks.random_entries(result, seed), benchmarks.buy_and_hold(result)
    rows: list[dict[str, Any]] = []
    by_year: list[dict[str, Any]] = []
    traded: list[tuple[bool, dict[str, Any], np.ndarray]] = []
    for name, sectors in portfolios(source):
        for m in range(len(source.families)):
            if not source.has_model[m, sectors].any():
                continue
            portfolio = _portfolio(result, trades, m, name, sectors)
            random_mean, p_value = drawn.of(m, sectors)
            row = {**portfolio.row(per_year), "random_mean_trade": random_mean, "p_value": p_value}
            rows.append(row)
            traded.append((name == ALL, row, portfolio.series[0]))
            by_year += portfolio.by_year(years[1:], per_year)
        returns = held[-1 if name == ALL else sectors[0], 1:]
        title = {"sector": name, "model": HOLD, "label": "", "horizon": None, "threshold": None}
        hold = _Portfolio(title, np.stack([returns, np.ones_like(returns), np.zeros_like(returns)]))
        rows.append(hold.row(per_year))
        by_year += hold.by_year(years[1:], per_year)
    _deflate(traded, trials)
    return rows, by_year


def _portfolio(result: Backtest, trades: _HostTrades, model: int, name: str, sectors: np.ndarray) -> _Portfolio:
    """The portfolio of a model.  name: of the sectors."""
    groups = model * len(result.panel.groups) + sectors
    rows = trades.rows(groups)
    counts = int(result.trades.unfilled[groups].sum()), int(trades.waited[rows].sum())
    series = np.stack(result.series(model, sectors))[:, 1:]
    title = {"sector": name, **title_of(result.source, model)}
    return _Portfolio(title, series, trades.net[rows], trades.year[rows], dict(zip(HALTS, counts, strict=True)))


def _deflate(traded: list[tuple[bool, dict[str, Any], np.ndarray]], trials: tuple[int, int]) -> None:
    """Add the Deflated Sharpe Ratio, its number of trials, and the skill to each row.

    traded: whether the portfolio holds all sectors, its row, its returns.
    """
    for together, n_trials in zip((True, False), trials, strict=True):
        portfolios_of_kind = [(row, returns) for is_all, row, returns in traded if is_all == together]
        if not portfolios_of_kind:
            continue
        n_trials = max(n_trials, len(portfolios_of_kind))
        all_returns = np.stack([returns for _, returns in portfolios_of_kind], axis=1)
        for row, returns in portfolios_of_kind:
            deflated = multiple_testing.deflated_sharpe(returns, n_trials, all_returns)
            row |= {"deflated_sharpe": deflated, "trials": n_trials}
            row["skill"] = statistics.skill(row["p_value"], deflated)


def _text(time_ns: int) -> str:
    from gpupipe.data.report import time_text

    return time_text(int(time_ns))
