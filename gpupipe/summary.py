"""The summary of a run: one row a model, averages, the verdict against the baselines; as JSON, Parquet and dict."""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe import config
from gpupipe.labels import percent
from gpupipe.panel import Panel
from gpupipe.store import FORMAT, Store, StoreError, dump_json, sha256, write_atomic

if TYPE_CHECKING:
    from gpupipe.data import DataReport
    from gpupipe.training import Skipped

JSON, PARQUET = "summary.json", "summary.parquet"
TABLES = ("volatility_table_sector", "volatility_table_all")
JUDGED = ("xgb_joint", "meta_learner")  # what the project promises to beat the baselines with


def model_row(
    sector: str, label: str, horizon: int, threshold: float, family: str, model: Any, rows_train: int,
    seconds: float | None, cutoffs: dict[str, float], measured: dict[str, dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """One row: what the model is and every measure, with "validation_" and "test_" before its name.

    model: None for a baseline. seconds: of the family's sector stage, which all labels of the sector share.
    """
    about = model.describe() if model is not None else {}
    return {
        "kind": "baseline" if model is None else "model",
        "sector": sector,
        "label": label,
        "horizon": horizon,
        "threshold": threshold,
        "model": family,
        "scope": about.get("scope", ""),
        "rounds": "+".join(str(r) for r in about.get("rounds", [])),
        "rows_train": rows_train,
        "seconds_sector": seconds,
        **{f"cutoff_{name}": value for name, value in cutoffs.items()},
        **{f"{part}_{name}": value for part, found in measured.items() for name, value in found.items()},
    }


def build(
    *, rows: list[dict[str, Any]], skipped: Sequence[Skipped], settings: config.Config, report: DataReport | None,
    panel: Panel, seconds: dict[str, float], elapsed_s: float, versions: dict[str, str], key: str,
    split: dict[str, str], peak_bytes: int, jobs: int,
) -> dict[str, Any]:  # fmt: skip
    """Everything a reader of the run may ask for, as JSON holds it."""
    n_models = sum(row["kind"] == "model" for row in rows)
    labels = len(settings.labels.horizons) * len(settings.labels.thresholds)
    wanted = len(panel.sectors) * labels * len(settings.training.models)
    data = json.loads(report.to_json()) if report else {"rows_kept": panel.n_rows, "symbols": panel.n_symbols}
    return {
        "format": FORMAT,
        "run_key": key,
        "data": data,
        "settings": settings.as_dict(),
        "split": split,
        "device": {"kind": panel.device.kind, "name": panel.device.name, "reason": panel.device.reason},
        "jobs": jobs,
        "n_models": n_models,
        "n_models_wanted": wanted,
        "skipped": [{"sector": s.sector, "label": s.label, "reason": s.reason} for s in skipped],
        "averages": averages(rows),
        "verdict": verdict(rows),
        "models": rows,
        "seconds": seconds,
        "elapsed_s": elapsed_s,
        "rows_per_second": panel.n_rows / elapsed_s,
        "peak_bytes": peak_bytes,
        "device_peak_bytes": panel.device.peak_bytes() if panel.device.kind == "cuda" else 0,
        "bus_bytes": panel.device.ledger.as_dict(),
        "versions": versions,
    }


def averages(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each label and model, over sectors: mean log-loss, its gain over the prior's, and where it is above 0.

    gain_over_prior: 1 - mean log-loss / mean log-loss of the prior. The mean of the sectors' own gains is kept beside
    it as mean_of_gains: a sector without a single event in the test part can make that anything.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["label"], row["model"]), []).append(row)
    found = []
    for (label, model), own in groups.items():
        average: dict[str, Any] = {"label": label, "model": model, "sectors": len(own)}
        for part in ("validation", "test"):
            loss, prior, gain = (
                float(np.mean([row[f"{part}_{name}"] for row in own]))
                for name in ("log_loss", "prior_log_loss", "gain_over_prior")
            )
            average |= {f"{part}_log_loss": loss, f"{part}_gain_over_prior": 1 - loss / prior}
            average[f"{part}_mean_of_gains"] = gain
        average["sectors_above_prior"] = sum(row["test_gain_over_prior"] > 0 for row in own)
        found.append(average)
    return found


def verdict(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each label and judged model: its average sealed-test gain over the prior and the better volatility table.

    above_prior and above_tables are differences of log-loss averaged over sectors, as a share of the prior's;
    positive is better.
    """
    mean = {(a["label"], a["model"]): a["test_gain_over_prior"] for a in averages(rows)}
    found = []
    for label, model in mean:
        if model in JUDGED:
            best_table = max(mean[label, table] for table in TABLES)
            gain = mean[label, model]
            found.append({
                "label": label, "model": model, "above_prior": gain, "above_tables": gain - best_table,
                "beats_all": bool(gain > 0 and gain > best_table),
            })  # fmt: skip
    return found


def verdict_sentences(found: Sequence[dict[str, Any]], n_sectors: int) -> list[str]:
    """The verdict in words, one sentence a model: where it wins, and by how much it does not."""
    sentences = []
    measured_on = "sealed test" if n_sectors == 1 else f"sealed test, averaged over {n_sectors} sectors"
    for model in JUDGED:
        own = [v for v in found if v["model"] == model]
        if not own:
            continue
        short = [v for v in own if not v["beats_all"]]
        text = (
            f"{model}: better than the prior and both volatility tables on {len(own) - len(short)} of {len(own)} labels"
        )
        for v in short:
            by = min(v["above_prior"], v["above_tables"])
            text += f"; not on {v['label']}, by {-100 * by:.2f} points of the prior's log-loss"
        sentences.append(f"{text} ({measured_on}).")
    return sentences


def skip_sentences(skipped: Sequence[dict[str, Any]]) -> list[str]:
    """What was not trained, one sentence for each label and reason, with the sectors that share them."""
    sectors: dict[tuple[str, str], list[str]] = {}
    for skip in skipped:
        reason = skip["reason"].removeprefix(f"{skip['sector']}: ")
        sectors.setdefault((skip["label"] or "all labels", reason), []).append(skip["sector"])
    return [f"{label} of {', '.join(names)}: {reason}" for (label, reason), names in sectors.items()]


def write(store: Store, whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Write summary.json and summary.parquet; return their manifest entries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(whole["models"]), buffer, compression="zstd")
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


def title_of(row: dict[str, Any]) -> str:
    """A label as a person reads it: "5 bars, 10 %"."""
    bars = "1 bar" if row["horizon"] == 1 else f"{row['horizon']} bars"
    return f"{bars}, {percent(row['threshold'])} %"
