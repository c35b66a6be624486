"""The graph of a run: values and rows, then eleven steps with their true edges."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.data.panel import NS_PER_DAY, Panel
from gpupipe.pipeline.steps import Step
from gpupipe.pipeline.workload import JobContext
from gpupipe.runtime.errors import UserError
from gpupipe.targets.next_period import next_row
from gpupipe.workloads.bonds import baselines as references
from gpupipe.workloads.bonds import columns, curve_fit, fair_values, schema
from gpupipe.workloads.bonds.dates import earlier, positions
from gpupipe.workloads.bonds.fair_values import FairValues
from gpupipe.workloads.bonds.families import libraries
from gpupipe.workloads.bonds.families.registry import FAMILIES
from gpupipe.workloads.bonds.found import Found, load, save
from gpupipe.workloads.bonds.models import ModelRows
from gpupipe.workloads.bonds.ratings import TREASURY
from gpupipe.workloads.bonds.split import PARTS, BondSplit, TooFewRowsError, issuer_share, split_rows
from gpupipe.workloads.bonds.steps import (
    automatic,
    basic,
    bayesian,
    drift,
    enhanced,
    evaluation,
    factors,
    regimes,
    stacked,
    tail_risk,
    tuning,
)

VALUES, ROWS = "values", "rows"
# The eleven steps by number, and the models among them by the step that makes each.
NAMES = {
    1: "basic", 2: "enhanced", 3: "stacked", 4: "automatic", 5: "regimes", 6: "factors", 7: "tail_risk", 8: "bayesian",
    9: "evaluation", 10: "drift", 11: "tuning",
}  # fmt: skip
MODELS = ("basic", "enhanced", "stacked", "automatic", "bayesian")
OF_MODELS = (*MODELS, "evaluation", "drift", "tuning")  # steps that a run with too few rows leaves out
NO_MODELS = "no_models"  # the fact of the rows that says why; "" where models are fitted
SIDE_BY_SIDE = 7  # steps that can run at the same time: 1 to 7
# Bytes of the process with its libraries; of a row in the panel and in values; of a row in a step that runs.
OF_PROCESS, OF_ROW, OF_ROW_IN_STEP = 430 << 20, 1_000, 900
LIBRARIES = (
    "scipy.stats", "sklearn.metrics", "sklearn.neural_network", "sklearn.ensemble", "sklearn.cluster",
    "sklearn.decomposition", "sklearn.linear_model", "xgboost", "optuna",
)  # fmt: skip
# Settings of the step `rows`: which quotes are a target, and the split.
SPLIT = tuple(
    f"bonds.{name}"
    for name in ("most_gap_days", "train", "validation", "issuers_train", "issuers_validation", "least_rows")
)
BASELINES = (references.LAST, references.RATING, references.SVENSSON)


def kernels_of(settings: Config) -> tuple[str, ...]:
    """The kernels that a run calls."""
    return ("trees.leaves_of_trees",)


def peak_bytes(panel: Panel, settings: Config, jobs: int) -> int:
    """Bytes that a run holds at most, about: measured on 7,000 to 142,000 quotes, with one step and two at a time."""
    return OF_PROCESS + panel.n_rows * (OF_ROW + OF_ROW_IN_STEP * min(jobs, SIDE_BY_SIDE))


def require(settings: Config) -> None:
    """UserError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError("bonds need Optuna: pip install -e '.[tune]'")


def steps(panel: Panel, settings: Config) -> list[Step]:
    """Values and rows, then the eleven: 1 to 4, 5 to 7 side by side, 8 after 4 to 6, 9 to 11 after what they need.

    The libraries of the steps are loaded here, on one thread: two that begin to load SciPy at once find it half loaded.

    Raises UserError where the panel is on a GPU and cuML is not installed.
    """
    libraries.require(panel.device.kind)
    for name in LIBRARIES:
        importlib.import_module(name)

    def step(
        name: str, make: Any, needs: tuple[str, ...], sections: tuple[str, ...], reads_panel: bool = False
    ) -> Step:
        made = _unless_too_few(make) if name in OF_MODELS else make
        return Step(name, _on_one_thread(made), save, load, needs, sections, reads_panel)

    search = (*FAMILIES, "search.trials", "search.folds")
    return [
        step(VALUES, _values, (), ("bonds.convention",), reads_panel=True),
        step(ROWS, _rows, (VALUES,), SPLIT, reads_panel=True),
        step("basic", _model(basic), (ROWS,), ("forest",)),
        step("enhanced", _model(enhanced), (ROWS,), ("forest", "search.depths")),
        step("stacked", _model(stacked), (ROWS,), (*FAMILIES, "search.folds")),
        step("automatic", _model(automatic), (ROWS,), search),
        step("regimes", _regimes, (ROWS,), ("bonds.n_regimes",)),
        step("factors", _factors, (ROWS,), ("bonds.n_factors",)),
        step("tail_risk", _tail_risk, (VALUES, ROWS), ("bonds.convention", "bonds.tail_dates"), reads_panel=True),
        step("bayesian", _bayesian, (ROWS, "automatic", "regimes", "factors"), search),
        step("evaluation", _evaluation, (ROWS, *MODELS), ("bonds.sample",)),
        step("drift", _drift, (ROWS, *MODELS), ("bonds.sample",)),
        step("tuning", _tuning, (ROWS, "drift", "regimes", "factors", *MODELS), (*search, "bonds.sample")),
    ]


def _on_one_thread(make: Any) -> Any:
    """A step whose BLAS has one thread, so that neither --jobs nor the number of cores decides the last bits."""

    @functools.wraps(make)
    def made(context: JobContext, values: Mapping[str, Found]) -> Found:
        with libraries.one_blas_thread():
            found: Found = make(context, values)
        return found

    return made


def _unless_too_few(make: Any) -> Any:
    """A step of models, which finds nothing where the rows are too few for models."""

    def made(context: JobContext, values: Mapping[str, Found]) -> Found:
        found: Found = Found() if values[ROWS].facts[NO_MODELS] else make(context, values)
        return found

    return made


def _values(context: JobContext, values: Mapping[str, Found]) -> Found:
    """Every quote valued once."""
    return Found(fair_values.fair_values(context.panel, context.settings.bonds.convention).arrays())


def values_of(found: Found) -> FairValues:
    """The fair values of the step's arrays."""
    return FairValues(*(found[name] for name in fair_values.ARRAYS))


def _rows(context: JobContext, values: Mapping[str, Found]) -> Found:
    """Columns, target, split and baselines of all rows."""
    panel, settings = context.panel, context.settings
    to_host, fair = panel.device.to_host, values_of(values[VALUES])
    _require_spreads(fair)
    made = columns.rows_of(panel, fair)
    time_ns, offsets = to_host(panel.time_ns), to_host(panel.offsets)
    after = next_row(fair.spread, time_ns, offsets, int(settings.bonds.most_gap_days * NS_PER_DAY))
    after[~np.isfinite(fair.spread)] = -1
    change = np.where(after >= 0, fair.spread[after] - fair.spread, np.nan).astype(np.float32)
    share = _share(panel, settings.seed)
    split, sizes, no_models = _split(made, after, share, settings)
    arrays = {
        "X": made.X, "spread": fair.spread, "change": change, "date": made.date, "dates": made.dates,
        "next_row": after, "share": share, "issuer": made.issuer, "rating": made.rating, "years": fair.years,
        "place": issuer_share(panel.symbols, settings.seed)[to_host(panel.symbol_of_row)],
        "curve": made.curves.rates, "tenor_years": made.curves.years,
        **{part: getattr(split, part) for part in PARTS},
    }  # fmt: skip
    host = fair_values.on_host(panel)
    at_maturity = schema.rate_at_maturity(host)
    expected = references.baselines(fair.spread, at_maturity, fair.years, made.rating, made.date)
    arrays |= {f"baseline/{name}": column for name, column in expected.items()}
    arrays["at_maturity"] = at_maturity
    arrays["fitted"] = curve_fit.fitted_spreads(host, fair, made, expected[references.SVENSSON])
    facts = {"names": list(made.names), "first": list(split.first), "sizes": sizes, NO_MODELS: no_models}
    return Found(arrays, facts)


def _split(
    rows: columns.BondRows, after: np.ndarray, share: np.ndarray, settings: Config
) -> tuple[BondSplit, dict[str, int], str]:
    """The split, its sizes, and "", or why there is none."""
    try:
        split = split_rows(rows.date, len(rows.dates), after, share, settings.bonds)
    except TooFewRowsError as error:
        return BondSplit.nothing(len(rows.dates)), error.sizes, str(error)
    return split, split.sizes, ""


def _require_spreads(fair: FairValues) -> None:
    """UserError where no quote has a spread."""
    if not np.isfinite(fair.spread).any():
        lacking = (int(np.isnan(column).sum()) for column in (fair.yield_, fair.curve_yield))
        of_yield, of_curve = (f"{n:,}" for n in lacking)
        raise UserError(
            f"none of the {len(fair.spread):,} quotes has a spread: {of_yield} have no yield, and {of_curve} no par "
            "curve of their date; give prices that have a yield, and a curve of the quotes' dates"
        )


def _share(panel: Panel, seed: int) -> np.ndarray:
    """float64 (n_rows,): the number of each row's issuer, see `issuer_share`.

    A Treasury counts as an issuer of its own, as all of them have one, and could not be split.
    """
    bonds = zip(panel.attributes["issuer"], panel.attributes["rating"], panel.symbols, strict=True)
    names = [f"{issuer}/{symbol}" if rating == TREASURY else issuer for issuer, rating, symbol in bonds]
    return issuer_share(names, seed)[panel.device.to_host(panel.symbol_of_row)]


def model_rows(found: Found, settings: Config, device: str) -> ModelRows:
    """The rows that models are fitted on."""
    first = tuple(found.facts["first"])
    split = BondSplit(found["train"], found["validation"], found["test"], (int(first[0]), int(first[1])))
    judged = np.flatnonzero((found["date"] >= first[0]) & np.isfinite(found["spread"]))
    return ModelRows(
        found["X"], tuple(found.facts["names"]), found["spread"], found["change"], found["date"], found["next_row"],
        found["share"], judged, split, settings.seed, device,
    )  # fmt: skip


def _rows_of(context: JobContext, values: Mapping[str, Found]) -> ModelRows:
    return model_rows(values[ROWS], context.settings, context.panel.device.kind)


def _model(step: Any) -> Any:
    """A step that fits a model on the rows alone."""
    return lambda context, values: step.run(_rows_of(context, values), context.settings, context.fit)


def _regimes(context: JobContext, values: Mapping[str, Found]) -> Found:
    n_dates = len(values[ROWS]["dates"])
    return regimes.run(_rows_of(context, values), n_dates, context.settings, context.fit)


def _factors(context: JobContext, values: Mapping[str, Found]) -> Found:
    found = values[ROWS]
    rows = _rows_of(context, values)
    return factors.run(rows, found["curve"], found["tenor_years"], context.settings, context.fit)


# Arrays of steps 5 and 6 from which the states of dates follow that the run has not seen.
_STATES = {"regimes": ("mean", "scale", "centers"), "factors": ("loading", "mean", "tenor_years")}


def states_of(values: Mapping[str, Found]) -> dict[str, np.ndarray]:
    """What `state_columns` needs, by "STEP/ARRAY"."""
    return {f"{step}/{name}": values[step][name] for step, names in _STATES.items() for name in names}


def state_columns(states: Mapping[str, np.ndarray], rows: columns.BondRows, fair: FairValues) -> dict[str, np.ndarray]:
    """The columns of regimes and factors for rows of any dates, float (n_rows,) by name.

    states: of `states_of`.  Raises UserError where the rows' curve has other tenors than the run's.
    """
    own = {step: {name: states[f"{step}/{name}"] for name in names} for step, names in _STATES.items()}
    if not np.array_equal(own["factors"]["tenor_years"], rows.curves.years):
        raise UserError(
            f"the curve has tenors of {rows.curves.years.tolist()} years, that of the run had "
            f"{own['factors']['tenor_years'].tolist()}: give a curve with the same tenors"
        )
    state = regimes.state_of_dates(rows.X, rows.names, fair.spread, rows.date, len(rows.dates))
    regime, score = regimes.nearest(own["regimes"], state), factors.scores(own["factors"], rows.curves.rates)
    more = regimes.columns(regime, len(own["regimes"]["centers"]), rows.date)
    return more | factors.columns(own["factors"], score, rows.date, fair.years)


def with_states(rows: ModelRows, values: Mapping[str, Found]) -> ModelRows:
    """The rows with the columns of regimes and factors."""
    found = values[ROWS]
    state, curve = values["regimes"], values["factors"]
    more = regimes.columns(state["regime"], len(state["centers"]), found["date"])
    more |= factors.columns(curve.arrays, curve["score"], found["date"], found["years"])
    return rows.with_columns(more) if more else rows


def _on_all_threads(rows: ModelRows, context: JobContext) -> ModelRows:
    """The rows for a step that others wait for, and beside which little or nothing runs."""
    return dataclasses.replace(rows, threads=context.jobs)


def _bayesian(context: JobContext, values: Mapping[str, Found]) -> Found:
    rows = _on_all_threads(with_states(_rows_of(context, values), values), context)
    family = values["automatic"].facts["search"]["family"]
    return bayesian.run(rows, family, context.settings, context.fit)


def _tail_risk(context: JobContext, values: Mapping[str, Found]) -> Found:
    panel, settings, found = fair_values.on_host(context.panel), context.settings, values[ROWS]
    fair, date, device = values_of(values[VALUES]), found["date"], context.panel.device
    priced = np.flatnonzero(np.isfinite(fair.yield_))
    last = priced[date[priced] == date[priced].max()]
    symbol = panel.symbol_of_row[last]
    move = np.diff(found["curve"], axis=0)
    scenarios = np.flatnonzero(np.isfinite(move).all(axis=1))[-settings.bonds.tail_dates :] + 1
    floats = (np.asarray(panel.attributes["type"]) == schema.FLOATING)[symbol]
    years = np.where(floats, 1.0 / np.maximum(panel.columns["frequency"][last], 1), fair.years[last])
    moves_of_curve = columns.Curves(found["tenor_years"], move)
    curve_move = np.array([moves_of_curve.at(np.full(len(last), s - 1), years) for s in scenarios])
    sectors, sector = positions(np.asarray(panel.attributes["sector"]))
    group = {"issuer": found["issuer"][last], "rating": found["rating"][last], "sector": sector[symbol]}
    holdings = tail_risk.Holdings(
        schema.bond_table(panel, last), fair.yield_[last], panel.columns["clean"][last] + fair.accrued[last], floats,
        curve_move.reshape(-1, len(last)), group,
    )  # fmt: skip
    is_next = date - earlier(date, panel.offsets, 1) == 1
    change = np.where(is_next, fair.spread - earlier(fair.spread, panel.offsets, 1), np.nan)
    moves = tail_risk.issuer_moves(
        change, date, found["issuer"], found["rating"], group["issuer"], group["rating"], scenarios
    )  # fmt: skip

    def price(of: Mapping[str, Any]) -> np.ndarray:
        return fair_values.valued(of, "yield", settings.bonds.convention, device, "dirty")[0]

    risk = tail_risk.run(holdings, moves, price, settings, context.fit)
    named = {str(sectors[int(k)]): tail for k, tail in risk.facts["sector"].items()}
    return dataclasses.replace(
        risk, arrays={**risk.arrays, "row": last}, facts={**risk.facts, "sector": named}
    )  # fmt: skip


def judged_rows(found: Found, sample: float) -> np.ndarray:
    """int64: the sealed test rows that steps 9 to 11 judge, of all bonds, or of some of them.

    sample: a share of the bonds that have test rows, or a number of them; 0: all. Their ids and the seed choose.
    """
    test = found["test"]
    if not sample:
        return test
    place = found["place"][test]
    bonds = np.unique(place)
    count = max(1, round(sample * len(bonds)) if sample < 1 else int(sample))
    return test[place <= bonds[min(count, len(bonds)) - 1]]


def _baselines(found: Found) -> dict[str, np.ndarray]:
    return {name: found[f"baseline/{name}"] for name in BASELINES}


def _evaluation(context: JobContext, values: Mapping[str, Found]) -> Found:
    found = values[ROWS]
    models = {name: values[name] for name in MODELS}
    rows, settings = _rows_of(context, values), context.settings
    return evaluation.run(rows, models, _baselines(found), judged_rows(found, settings.bonds.sample), settings)


def _drift(context: JobContext, values: Mapping[str, Found]) -> Found:
    models, sample = {name: values[name] for name in MODELS}, context.settings.bonds.sample
    return drift.run(_rows_of(context, values), models, judged_rows(values[ROWS], sample))


def _tuning(context: JobContext, values: Mapping[str, Found]) -> Found:
    found, benchmark = values[ROWS], values["drift"].facts["benchmark"]
    test = judged_rows(found, context.settings.bonds.sample)
    rows = _on_all_threads(with_states(_rows_of(context, values), values), context)
    rows = rows.with_only(values[benchmark].facts["columns"])
    return tuning.run(
        rows, benchmark, values[benchmark], _baselines(found), test, context.settings, context.fit,
    )  # fmt: skip
