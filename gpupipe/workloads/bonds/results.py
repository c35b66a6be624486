"""What a run of bonds publishes: models, evaluation, rich and cheap bonds, states of dates, tail risk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.backtest.tables import parquet
from gpupipe.pipeline.steps import Outcome
from gpupipe.pipeline.workload import JobContext
from gpupipe.store.content_store import dump_json, pack_arrays
from gpupipe.workloads.bonds import expectations, last_date, recipe, signals
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.ratings import NAMES
from gpupipe.workloads.bonds.steps import regimes

FOLDER = "bonds"
SIGNALS, PREDICTIONS, QUOTES, DATES, CURVES, RISK, LOSSES, LOADINGS = (
    f"{FOLDER}/{name}.parquet"
    for name in ("signals", "predictions", "quotes", "dates", "curves", "risk", "losses", "loadings")
)
INTERVALS, STATES = f"{FOLDER}/intervals.json", f"{FOLDER}/states.npz"
MODEL_STEPS = (*recipe.MODELS, "tuning")
# What the summary says of models where there are none.
WITHOUT_MODELS: dict[str, Any] = {"measured": [], "split": {}, "searches": {}, "fits": {}, "drift": {}}


def conclude(context: JobContext, values: Mapping[str, Found]) -> Outcome:
    """The outcome of a run: of its models, or of the curve fit alone where the rows are too few for models."""
    panel, settings = context.panel, context.settings
    has_models = not values[recipe.ROWS].facts[recipe.NO_MODELS]
    fair = recipe.values_of(values[recipe.VALUES])
    expected = (
        expectations.of_models(values, settings, panel.device.kind)
        if has_models
        else expectations.of_curve(values, fair)
    )
    known = np.isfinite(fair.spread) & np.isfinite(expected.change)
    last = signals.latest(panel.device.to_host(panel.time_ns), known)
    table = signals.table(panel, last, fair, expected.change, expected.intervals, settings.bonds.convention)
    files = {
        SIGNALS: parquet(arrow(table)),
        DATES: parquet(arrow(_dates(values))),
        STATES: pack_arrays(recipe.states_of(values)),
        CURVES: parquet(arrow(last_date.curves(values))),
        RISK: parquet(arrow(last_date.risk(panel, values, settings.bonds.convention))),
        LOSSES: parquet(arrow(last_date.losses(values["tail_risk"]))),
        LOADINGS: parquet(arrow(_loadings(values["factors"]))),
        INTERVALS: dump_json(expected.intervals.record()),
    }
    if has_models:
        files[PREDICTIONS] = parquet(arrow(_predictions(panel, values, settings.bonds.sample)))
        for name in MODEL_STEPS:
            files |= _model_files(name, values[name])
        about = _of_models(context, values)
    else:
        files[QUOTES] = parquet(arrow(_quotes(panel, values)))
        about = WITHOUT_MODELS
    return Outcome(None, files, extra={"bonds": {**_summary(context, values, expected, table), **about}})


def _model_files(name: str, model: Found) -> dict[str, bytes]:
    """The files of a model, and what was found while it was fitted."""
    place = f"{FOLDER}/models/{name}"
    about = {key: value for key, value in model.facts.items() if key != "rows"}
    return {f"{place}.json": dump_json(about), **{place + suffix: content for suffix, content in model.files.items()}}


def _summary(
    context: JobContext, values: Mapping[str, Found], expected: expectations.Expected, table: Mapping[str, Any]
) -> dict[str, Any]:  # fmt: skip
    """What the summary says of every run."""
    found = values[recipe.ROWS]
    counts = {name: int((table["signal"] == name).sum()) for name in (signals.CHEAP, signals.RICH, signals.FAIR)}
    return {
        "chosen": expected.model, recipe.NO_MODELS: found.facts[recipe.NO_MODELS], "sizes": found.facts["sizes"],
        "dates": len(found["dates"]), "last_date": _days(found)[-1], "steps": _steps(context, values),
        "signals": counts, "curve_fit": expectations.residual_of_curve(values),
        "regimes": values["regimes"].facts, "factors": values["factors"].facts,
        "tail_risk": _tail_risk(values["tail_risk"].facts), "sample": context.settings.bonds.sample,
    }  # fmt: skip


def _of_models(context: JobContext, values: Mapping[str, Found]) -> dict[str, Any]:
    """What the summary says of models."""
    measured = [*values["evaluation"].facts["rows"], *values["tuning"].facts["rows"]]
    searches = {name: values[name].facts["search"] for name in MODEL_STEPS if "search" in values[name].facts}
    return {
        "measured": measured, "split": _split(values[recipe.ROWS]), "searches": searches,
        "fits": {name: _fit(values[name]) for name in MODEL_STEPS}, "drift": values["drift"].facts,
    }  # fmt: skip


def _split(found: Found) -> dict[str, str]:
    """The first date of each part, and the last date of all."""
    days = _days(found)
    names = ("train_from", "validation_from", "test_from")
    first = {name: days[k] for name, k in zip(names, (0, *found.facts["first"]), strict=True)}
    return {**first, "test_to": days[-1]}


def _days(found: Found) -> list[str]:
    """The dates of the run as texts."""
    days: list[str] = np.datetime_as_string(found["dates"].astype("datetime64[ns]"), unit="D").tolist()
    return days


def _steps(context: JobContext, values: Mapping[str, Found]) -> list[dict[str, Any]]:
    """Every step with its number of the eleven, None for what they all need, and the steps that it needs.

    Steps of models are left out where there are no models.
    """
    numbers = {name: number for number, name in recipe.NAMES.items()}
    left_out = recipe.OF_MODELS if values[recipe.ROWS].facts[recipe.NO_MODELS] else ()
    made = [step for step in recipe.steps(context.panel, context.settings) if step.name not in left_out]
    return [{"name": step.name, "number": numbers.get(step.name), "needs": list(step.needs)} for step in made]


def _fit(model: Found) -> dict[str, Any]:
    """What a model is: its family, its loss on validation, the trees or rounds or epochs that it kept."""
    names = ("trees", "rounds", "epochs", "depth", "weights")
    kept = {name: model.facts[name] for name in names if name in model.facts}
    return {"kind": model.facts["kind"], "columns": len(model.facts["columns"]),
            "validation_loss": model.facts["validation_loss"], **kept}  # fmt: skip


def _tail_risk(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of tail risk with ratings by their letters."""
    by_rating = facts.get("rating", {})
    return {**facts, "rating": {NAMES[int(rank)]: tail for rank, tail in by_rating.items()}}


def _loadings(factors: Found) -> dict[str, Any]:
    """The loading of each factor at each tenor, percent."""
    return {"years": factors["tenor_years"]} | {f"factor_{k + 1}": own for k, own in enumerate(factors["loading"])}


def _predictions(panel: Any, values: Mapping[str, Found], sample: float) -> dict[str, Any]:
    """What each model and baseline expected of the sealed test rows, and what happened."""
    found = values[recipe.ROWS]
    rows = recipe.judged_rows(found, sample)
    symbol = panel.device.to_host(panel.symbol_of_row)[rows]
    columns: dict[str, Any] = {
        "bond": np.asarray(panel.symbols, object)[symbol],
        "date": found["dates"][found["date"][rows]].astype("datetime64[ns]"),
        "spread": found["spread"][rows],
        "next_spread": found["spread"][rows] + found["change"][rows],
    }
    columns |= {name: found["spread"][rows] + values[name]["change"][rows] for name in MODEL_STEPS}
    return columns | {name: found[f"baseline/{name}"][rows] for name in recipe.BASELINES[1:]}


def _quotes(panel: Any, values: Mapping[str, Found]) -> dict[str, Any]:
    """Every quote with its yield, that of the curve fit, and the spreads of both, percent."""
    found, fair = values[recipe.ROWS], values[recipe.VALUES]
    return {
        "bond": np.asarray(panel.symbols, object)[panel.device.to_host(panel.symbol_of_row)],
        "date": found["dates"][found["date"]].astype("datetime64[ns]"),
        "clean": panel.device.to_host(panel.clean), "years": found["years"], "yield": fair["yield"],
        "fitted": found["fitted"] + fair["curve_yield"], "spread": fair["spread"], "fair_spread": found["fitted"],
    }  # fmt: skip


def _dates(values: Mapping[str, Found]) -> dict[str, Any]:
    """The state of each date: regime, the columns it was found from, scores of factors."""
    found, state, score = values[recipe.ROWS], values["regimes"], values["factors"]["score"]
    names = (*regimes.STATE, "spread_deviation")
    columns: dict[str, Any] = {"date": found["dates"].astype("datetime64[ns]"), "regime": state["regime"]}
    columns |= {name: state["state"][:, k] for k, name in enumerate(names)}
    return columns | {f"factor_{k + 1}": score[:, k] for k in range(score.shape[1])}


def arrow(columns: Mapping[str, Any]) -> Any:
    """An Arrow table of columns."""
    import pyarrow as pa

    return pa.table({name: pa.array(column) for name, column in columns.items()})
