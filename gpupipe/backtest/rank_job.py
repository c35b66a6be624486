"""The job of `gpupipe backtest --portfolio`: from a finished OUT and the data to OUT/backtest/portfolio/."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from gpupipe.backtest import benchmarks, job, rank_statistics
from gpupipe.backtest.calling import registry
from gpupipe.backtest.choices import SEALED
from gpupipe.backtest.rank_bars import score_in_words
from gpupipe.backtest.rank_portfolio import rank_portfolio
from gpupipe.backtest.rank_rules import RankRules
from gpupipe.backtest.rank_trades import round_trips, trips_table
from gpupipe.backtest.tables import ALL, table_of
from gpupipe.data.panel import Panel
from gpupipe.evaluation.block_bootstrap import block_length
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import FORMAT, Store, sha256_of

FOLDER, JSON = f"{job.FOLDER}/portfolio", job.JSON


def execute(
    panel: Panel, data_hash: str, out: str | os.PathLike[str], rules: RankRules, request: job.Request
) -> tuple[dict[str, Any], bool]:
    """Simulate the models' portfolios out of sample; the content of statistics.json, and whether it was computed now.

    request: its families, since, seed and source apply.  data_hash: of the panel (data.report).
    An earlier result of the same models, data and rules is checked and left; one of other rules is replaced, and its
    rules stay in the list of those tried. The Deflated Sharpe Ratio counts these, and the backtests of calls in
    OUT/backtest as they are then.
    Raises UserError (InSampleError, StoreError, ...) with the way to mend it.
    """
    from gpupipe.artifacts import summary
    from gpupipe.store import fingerprint

    store, folder = Store(out), pathlib.Path(out) / FOLDER
    manifest, out_of_sample = job._opened(out, request, registry.rule(request.call))
    families = list(request.families) if request.families is not None else None
    key = sha256_of([
        manifest["run_key"], data_hash, rules.as_dict(), families, request.since, request.seed, panel.groups,
        request.source, fingerprint.code_hash([__name__]),
    ])  # fmt: skip
    before = job.read(folder)
    if before and before["key"] == key and job._unaltered(folder, before["files"]):
        return before, False
    source = out_of_sample(panel)
    result = rank_portfolio(source, rules)
    models = rank_statistics.models_with_scores(result)
    if not models:
        raise UserError(
            f"no row of the {source.source} has a score, because there is no expected return: if the run is older "
            "than these, run gpupipe again; if it has too few dates before its test, train on more bars, or with "
            "meta_learner, whose out-of-fold rows count too"
        )
    names = [source.names[m] for m in models]
    now = {"rules": rules.digest(), "source": request.source, "since": request.since, "models": {ALL: names}}
    tried = _tried(before, manifest["run_key"])
    tried += [now] if now not in tried else []
    calls_tried = _tried(job.read(pathlib.Path(out) / job.FOLDER), manifest["run_key"])
    trips = round_trips(result)
    rows = rank_statistics.measured(result, trips, request.seed, job.trials_of([*tried, *calls_tried])[0])
    times = result.bars.times
    whole = {
        "format": FORMAT, "key": key, "run_key": manifest["run_key"], "rules": rules.as_dict(),
        "score": score_in_words(source), "tried": tried, "calls_tried": len(calls_tried),
        "source": "sealed test" if request.source == SEALED else source.source,
        "data": job._same_data(summary.read(store.out), source, data_hash),
        "from": job._text(times[0]), "to": job._text(times[-1]), "dates": len(times), "seed": request.seed,
        "draws": benchmarks.N_DRAWS, "block": block_length(len(times), max(source.horizons)),
        "statistics": rows,
    }  # fmt: skip
    tables = {
        "trades": trips_table(result, trips), "equity": rank_statistics.equity_table(result),
        "statistics": table_of(rows),
    }  # fmt: skip
    job._write(store, folder, whole, tables)
    return json.loads((folder / JSON).read_bytes()), True


def _tried(content: dict[str, Any] | None, run_key: str) -> list[dict[str, Any]]:
    """The trials of an earlier result of the same run."""
    return list(content["tried"]) if content and content["run_key"] == run_key else []
