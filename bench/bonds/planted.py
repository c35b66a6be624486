"""What a run finds of a mispricing that was planted, against an oracle that knows it; and what it claims without one.

The signal is the change of the spread that the chosen model predicts for the sealed test rows. By month it is ranked
against the truth, the change that the planted mispricing makes one expect, and against what happened; the oracle's
ranks of the truth against itself are 1. The share is of the oracle's rank correlation with what happened. All changes
are relative to the spread, as the mispricing is: where the market moves, changes in percent are ranked by spreads.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.bonds import markets
from bench.bonds.markets import Market
from bench.runs import Line
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.evaluation import block_bootstrap
from gpupipe.pipeline import job
from gpupipe.workloads.bonds import BONDS, recipe, results
from gpupipe.workloads.bonds.models import scale_of
from gpupipe.workloads.bonds.steps.evaluation import rank_correlation

BAR = 0.5  # of the oracle's


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """A line for each seed with the mispricing, and for each without one; then the bar."""
    found = []
    for seed in range(1, chosen.seeds + 1):
        market = markets.market(chosen.planted_bonds, chosen.n_months, seed, chosen.mispricing)
        summary, predictions = run(market, chosen, seed)
        found.append({"kind": "planted", "seed": seed, **correlations(market, predictions, summary["chosen"])})
        yield {**found[-1], **_gains(summary)}
    claims = []
    for seed in range(1, chosen.seeds + 1):
        summary, _ = run(markets.market(chosen.planted_bonds, chosen.n_months, seed, 0.0), chosen, seed)
        claims += [row["model"] for row in summary["measured"] if row.get("skill") == block_bootstrap.SKILL]
        yield {"kind": "nothing planted", "seed": seed, "chosen": summary["chosen"], **_gains(summary)}
    with_truth, shares = [line["with_truth"] for line in found], [line["share"] for line in found]
    yield {
        "kind": "planted bar", "mispricing": chosen.mispricing, "with_truth": with_truth, "shares": shares, "bar": BAR,
        "claims_where_nothing_is_planted": claims,
        "holds": min(*with_truth, *shares) >= BAR and not claims,
    }  # fmt: skip


def run(market: Market, chosen: argparse.Namespace, seed: int) -> tuple[dict[str, Any], Any]:
    """The summary of a run of bonds, and its predictions of the sealed test rows, Arrow."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as out:
        summary, _ = job.execute(BONDS, market.panel, market.report, markets.settings(chosen, seed), out)
        content = pathlib.Path(out, results.PREDICTIONS).read_bytes()
    return summary["bonds"], pq.read_table(io.BytesIO(content))


def correlations(market: Market, predictions: Any, model: str) -> Line:
    """Mean rank correlations by month over the test rows whose next spread is known."""
    table = {name: predictions[name].to_numpy() for name in ("spread", "next_spread", model)}
    date = predictions["date"].to_numpy().astype("datetime64[D]").astype(np.int64)
    signal, happened = table[model] - table["spread"], table["next_spread"] - table["spread"]
    truth = market.expected[rows_of(market, predictions["bond"].to_pylist(), date)]
    known = np.isfinite(signal) & np.isfinite(happened) & np.isfinite(truth)
    scale = scale_of(table["spread"][known])
    signal, happened, truth = (change[known] / scale for change in (signal, happened, truth))
    date = date[known]
    ours, oracle = rank_correlation(signal, happened, date), rank_correlation(truth, happened, date)
    return {
        "chosen": model, "rows": int(known.sum()), "with_truth": rank_correlation(signal, truth, date) or 0.0,
        "with_change": ours, "oracle_with_change": oracle, "share": (ours or 0.0) / oracle if oracle else 0.0,
    }  # fmt: skip


def rows_of(market: Market, bonds: list[str], date: np.ndarray) -> np.ndarray:
    """int64: the rows of the panel by bond and day."""
    panel = market.panel
    symbols = np.asarray(panel.symbols)
    order = np.argsort(symbols)
    symbol = order[np.searchsorted(symbols[order], bonds)]
    days = panel.time_ns // NS_PER_DAY
    scale = int(days.max()) + 1
    key = panel.symbol_of_row.astype(np.int64) * scale + days
    by_key = np.argsort(key)
    return np.asarray(by_key[np.searchsorted(key[by_key], symbol * scale + date)])


def _gains(summary: dict[str, Any]) -> Line:
    """Of each model the gain over the last spread with its interval, and the verdict against all baselines."""
    rows = [row for row in summary["measured"] if row["kind"] == "model"]
    return {"gains": {row["model"]: row["gain_over"][recipe.BASELINES[0]] for row in rows},
            "verdicts": {row["model"]: row["skill"] for row in rows}}  # fmt: skip
