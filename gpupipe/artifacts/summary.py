"""The summary of a run: a row for each model, averages, the verdict against the baselines; as JSON and Parquet."""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.evaluation.leaderboard import Measured
from gpupipe.runtime.device import pool_statistics
from gpupipe.store.content_store import FORMAT, Store, StoreError, dump_json, sha256, write_atomic
from gpupipe.targets.classes import percent

if TYPE_CHECKING:
    from gpupipe.data import DataReport

JSON, PARQUET = "summary.json", "summary.parquet"
SHOWN_REASONS = 4
NEXT_BAR = {"direction_1d": "direction of the next bar", "log_return_1": "return of the next bar"}  # titles


@dataclass(frozen=True)
class Skipped:
    """A training that was skipped, and the rule that skipped it; label "" stands for all labels.

    >>> Skipped("energy", "", "40 training rows; training.min_rows = 50 requires 200").label  # all labels
    ''
    """

    sector: str
    label: str
    reason: str


def model_row(
    identity: dict[str, Any],
    family: str,
    model: Any,
    rows_train: int,
    seconds: float | None,
    cutoffs: dict[str, float],
    metrics: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """The row of a model: its description and its measures, with "validation_" and "test_" before their names.

    identity: the group and the target: sector, label, horizon and threshold for equity.
    model: None for a baseline.  seconds: of the estimator's group stage, which all targets of the group share.
    """
    description = model.describe() if model is not None else {}
    started = description.get("warm_start", {"run_key": "", "rounds": []})
    return {
        "kind": "baseline" if model is None else "model",
        **identity,
        "model": family,
        "scope": description.get("scope", ""),
        "rounds": "+".join(str(r) for r in description.get("rounds", [])),
        "warm_start_run": started["run_key"],
        "warm_start_rounds": "+".join(str(r) for r in started["rounds"]),
        "rows_train": rows_train,
        "seconds_sector": seconds,
        **{f"cutoff_{name}": value for name, value in cutoffs.items()},
        **{f"{part}_{name}": value for part, measures in metrics.items() for name, value in measures.items()},
    }


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run that its summary repeats.

    >>> from gpupipe.data import simulate
    >>> from gpupipe.workloads.equity import EQUITY
    >>> facts = RunFacts(
    ...     EQUITY.settings("fast"), None, simulate(n_symbols=2, n_bars=300), {"features": 1.5}, elapsed_s=4.0,
    ...     versions={}, key="ab12", split={}, peak_bytes=1 << 30, jobs=2)
    >>> facts.panel.n_rows / facts.elapsed_s  # rows per second
    150.0
    """

    settings: Config
    report: DataReport | None
    panel: Panel
    seconds: dict[str, float]
    elapsed_s: float
    versions: dict[str, str]
    key: str
    split: dict[str, str]
    peak_bytes: int
    jobs: int


def build(
    measured: Measured | None, skipped: Sequence[Skipped], facts: RunFacts, n_targets: int
) -> dict[str, Any]:  # fmt: skip
    """The summary as JSON holds it.

    measured: None for a workload that measures no losses; its leaderboards are empty.
    n_targets: number of targets of each group, trained or not.
    """
    rows, panel = measured.rows if measured else [], facts.panel
    averages = measured.averages() if measured else []
    report = json.loads(facts.report.to_json()) if facts.report else None
    return {
        "format": FORMAT,
        "run_key": facts.key,
        "data": report or {"rows_kept": panel.n_rows, "symbols": panel.n_symbols},
        "settings": facts.settings.as_dict(),
        "split": facts.split,
        "device": {"kind": panel.device.kind, "name": panel.device.name, "reason": panel.device.reason},
        "jobs": facts.jobs,
        "n_models": sum(row["kind"] == "model" for row in rows),
        "n_models_wanted": len(panel.groups) * n_targets * len(facts.settings.training.models),
        "skipped": [{"sector": s.sector, "label": s.label, "reason": s.reason} for s in skipped],
        "intervals": measured.resampled.about() if measured else {},
        "averages": averages,
        "families": measured.families(averages) if measured else [],
        "verdict": measured.verdict(averages) if measured else [],
        "stacking": measured.best_single(averages) if measured else None,
        "models": rows,
        "seconds": facts.seconds,
        "elapsed_s": facts.elapsed_s,
        "rows_per_second": panel.n_rows / facts.elapsed_s,
        "peak_bytes": facts.peak_bytes,
        "device_peak_bytes": pool_statistics().get("peak_bytes") if panel.device.kind == "cuda" else 0,
        "bus_bytes": panel.device.ledger.as_dict(),
        "versions": facts.versions,
    }


def write(store: Store, whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Write summary.json and summary.parquet; return their manifest entries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    rows = whole["models"]
    # Labels may be defined by different parameters; Arrow would keep those of the first row alone.
    keys = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in keys} for row in rows]), buffer,
                   compression="zstd")  # fmt: skip
    entries = {}
    for name, content in ((JSON, dump_json(whole)), (PARQUET, buffer.getvalue())):
        write_atomic(store.out / name, content)
        entries[name] = {"sha256": sha256(content), "bytes": len(content)}
    return entries


def read(out: pathlib.Path) -> dict[str, Any]:
    """The summary of a finished run; StoreError if it is not there."""
    try:
        return json.loads((out / JSON).read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{out / JSON} is missing: run again with --out {out}") from None
    except ValueError as error:
        raise StoreError(f"{out / JSON} is not JSON ({error}): run again with --out {out}") from None


def warm_sentence(started: dict[str, Any]) -> str:
    """A sentence on the models that a run resumed, by estimator; with rounds where the estimator has such.

    >>> families = {"sequence": {"models": 14, "warm": 14, "old_rounds": None}}
    >>> warm_sentence({"run_key": "6fce11f91552c76d", "families": families})
    'Warm start from run 6fce11f91552: sequence 14 of 14.'
    """
    warm = [
        f"{name} {counts['warm']} of {counts['models']}"
        + ("" if counts["old_rounds"] is None else f" (old rounds: median {counts['old_rounds']:g})")
        for name, counts in started["families"].items()
        if counts["warm"]
    ]
    cold = [name for name, counts in started["families"].items() if not counts["warm"]]
    nothing = f"; trained from nothing: {', '.join(cold)}" if cold else ""
    return f"Warm start from run {started['run_key'][:12]}: {', '.join(warm) or 'no model'}{nothing}."


def reuse_sentence(units: dict[str, Any]) -> str:
    """A sentence on the cached results that a run reused, and why it computed the others; empty where it reused none.

    units: as `ResultCache.counts` returns them.
    """
    counts_by_kind = {kind: counts for kind, counts in units.items() if kind != "why"}
    if not any(counts["reused"] for counts in counts_by_kind.values()):
        return ""
    taken = ", ".join(
        f"{counts['reused']:,} of {counts['reused'] + counts['made']:,} {kind}s"
        for kind, counts in counts_by_kind.items()
    )
    reasons = [f"{reason} ({times:,})" for reason, times in list(units["why"].items())[:SHOWN_REASONS]]
    others = ", ..." if len(units["why"]) > SHOWN_REASONS else ""
    return f"Taken from earlier runs: {taken}" + (f"; computed: {', '.join(reasons)}{others}" if reasons else "")


def placement_sentence(placement: Mapping[str, Any]) -> str:
    """A sentence on the stages that ran on the GPU and beside it, and on the idle share of both.

    placement: the section of the summary.

    >>> stages = {"xgb_joint.pool": {"device": "cuda"}, "xgb_joint.group": {"device": "cpu"}}
    >>> placement_sentence({"stages": stages, "idle": {"cuda": 0.25, "cpu": 0.125}, "bus": {"share": 0.003}})
    'On the GPU: xgb_joint.pool; on CPU threads: xgb_joint.group. Idle: GPU 25 %, threads 12 %; bus in use 0.3 %'
    """
    names: dict[str, list[str]] = {"cuda": [], "cpu": []}
    for name, stage in placement["stages"].items():
        names[stage["device"]].append(name)
    gpu, threads = (", ".join(names[kind]) or "nothing" for kind in ("cuda", "cpu"))
    text = f"On the GPU: {gpu}; on CPU threads: {threads}"
    if idle := placement["idle"]:
        text += f". Idle: GPU {100 * idle['cuda']:.0f} %, threads {100 * idle['cpu']:.0f} %"
    if placement["bus"]["share"] is not None:
        text += f"; bus in use {100 * placement['bus']['share']:.1f} %"
    return text


def title_of(row: Mapping[str, Any]) -> str:
    """The title of a row's target: "5 bars, 10 %" with a horizon and a threshold, else the name of its column of y.

    A multiple of the volatility stands in the place of a threshold; what is predicted of the next bar has words.

    >>> title_of({"label": "label_5d_2vol", "horizon": 5, "multiple": 2.0}), title_of({"label": "direction_1d"})
    ('5 bars, 2 x volatility', 'direction of the next bar')
    >>> title_of({"label": "label_5d_10pct", "horizon": 5, "threshold": 0.1}), title_of({"label": "next_price"})
    ('5 bars, 10 %', 'next_price')
    """
    if row.get("horizon") is None or (row.get("threshold") is None and row.get("multiple") is None):
        return NEXT_BAR.get(row["label"], str(row["label"]))
    bars = "1 bar" if row["horizon"] == 1 else f"{row['horizon']} bars"
    if row.get("threshold") is None:
        return f"{bars}, {row['multiple']:g} x volatility"
    return f"{bars}, {percent(row['threshold'])} %"


def baseline_names(whole: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the baselines in a summary, in the order of its rows."""
    return tuple(dict.fromkeys(row["model"] for row in whole["models"] if row["kind"] == "baseline"))


def loss_name(whole: Mapping[str, Any]) -> str:
    """Name of the loss that a summary's rows hold as test_LOSS beside test_prior_LOSS; "loss" without rows."""
    start = "test_prior_"
    for row in whole["models"]:
        for name in row:
            if name.startswith(start) and f"test_{name.removeprefix(start)}" in row:
                return name.removeprefix(start)
    return "loss"


def has_calls(whole: Mapping[str, Any]) -> bool:
    """Whether the run's models call rows from a cutoff on, as models of classes do."""
    return any(name.startswith("cutoff_") for row in whole["models"] for name in row)
