"""A run of bonds in sentences, for the console and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.evaluation.block_bootstrap import NO_SKILL, NOT_KNOWN, SKILL

Row = Mapping[str, Any]
SIMULATED = "simulated"  # the kind of the data report of a market without real quotes
SHORT = {"Nelson-Siegel-Svensson": "Svensson curve"}  # names of baselines in tables
_FOUND = {SKILL: "with skill", NO_SKILL: "without skill", NOT_KNOWN: "and whether with skill is not known"}


def is_simulated(data: Row) -> bool:
    """Whether the quotes are simulated.  data: the summary's entry, or the data report.

    >>> is_simulated({"kind": "simulated"}), is_simulated({"kind": "bonds"}), is_simulated({})
    (True, False, False)
    """
    return data.get("kind") == SIMULATED


def market(data: Row) -> str:
    """Says that a market is simulated; empty for a real one.  data: as in `is_simulated`.

    >>> market({"kind": "simulated"})
    'The market is simulated: its bonds, issuers and quotes are made, and no figure is of a real bond.'
    >>> market({"kind": "treasuries"})
    ''
    """
    if not is_simulated(data):
        return ""
    return "The market is simulated: its bonds, issuers and quotes are made, and no figure is of a real bond."


def has_models(bonds: Row) -> bool:
    """Whether models were fitted.

    >>> has_models({"no_models": "there is 1 row"}), has_models({})
    (False, True)
    """
    return not bonds.get("no_models")


def of_kind(data: Row) -> str:
    """What a section begins with where the market is simulated.

    >>> of_kind({"kind": "simulated"}), of_kind({"kind": "bonds"})
    ('Simulated market. ', '')
    """
    return "Simulated market. " if is_simulated(data) else ""


def lead(whole: Row) -> list[str]:
    """What the page of a run of bonds begins with; empty without bonds.  whole: the summary."""
    bonds = whole.get("bonds")
    if not bonds:
        return []
    if not has_models(bonds):
        return [
            line for line in (market(whole["data"]), f"{bonds['dates']:,} dates up to {bonds['last_date']}.") if line
        ]
    split, sizes = bonds["split"], bonds["sizes"]
    found = (
        f"{bonds['dates']:,} dates. Training has {sizes['train']:,} quotes from {split['train_from']}, validation "
        f"{sizes['validation']:,} from {split['validation_from']}, and the sealed test {sizes['test']:,} from "
        f"{split['test_from']} to {split['test_to']}. No issuer and no date is in two of them."
    )
    return [line for line in (market(whole["data"]), found) if line]


def dates_of_test(whole: Row) -> str:
    """The first and the last date of the sealed test of bonds; empty without bonds.  whole: the summary.

    >>> dates_of_test({"bonds": {"split": {"test_from": "2016-07-29", "test_to": "2017-12-29"}}}), dates_of_test({})
    ('2016-07-29 to 2017-12-29', '')
    """
    bonds = whole.get("bonds")
    return f"{bonds['split']['test_from']} to {bonds['split']['test_to']}" if bonds and has_models(bonds) else ""


def verdict_lines(whole: Row) -> list[str]:
    """What came of a run, each a whole sentence; empty without bonds.  whole: the summary."""
    bonds = whole.get("bonds")
    if not bonds:
        return []
    first = [verdict(bonds)] if has_models(bonds) else [no_models(bonds), curve_fit(bonds)]
    return [f"{sentence}." for sentence in (*first, tail_risk(bonds))]


def no_models(bonds: Row) -> str:
    """That no model was fitted, why, and what would help.

    >>> no_models({"no_models": "there is 1 row"})
    'No model was fitted, and fair values are those of the curve fit: there is 1 row'
    """
    return f"No model was fitted, and fair values are those of the curve fit: {bonds['no_models']}"


def curve_fit(bonds: Row) -> str:
    """How far the quotes lie from the curve fit.

    >>> curve_fit({"curve_fit": {"quotes": 400, "rmse_bp": 4.21, "median_bp": 1.6}})
    'Curve fit: the yields of 400 quotes lie 1.6 bp from the curves of their dates at the median, RMSE 4.2 bp'
    """
    found = bonds["curve_fit"]
    return (
        f"Curve fit: the yields of {found['quotes']:,} quotes lie {found['median_bp']:.1f} bp from the curves of their "
        f"dates at the median, RMSE {found['rmse_bp']:.1f} bp"
    )


def verdict(bonds: Row) -> str:
    """Whether the chosen model is better than the baselines on the sealed test."""
    row = _chosen(bonds)
    if not row["rows"]:
        return (
            f"Whether the model {bonds['chosen']}, chosen on validation, predicts with skill how spreads move against "
            "each other is not known: of no sealed quote do all models and baselines have a prediction"
        )
    gains = ", ".join(f"{name} {gain(row['gain_over'][name])} %" for name in baselines(bonds))
    return (
        f"The model {bonds['chosen']}, chosen on validation, predicts how spreads move against each other "
        f"{_FOUND[row['skill']]}: gain in squared error over {gains}, on {row['rows']:,} sealed quotes "
        "of issuers that it was not trained on"
    )


def baselines(bonds: Row) -> list[str]:
    """The names of the baselines, in the order in which they were measured.

    >>> baselines({"measured": [{"model": "last spread", "kind": "baseline"}, {"model": "basic", "kind": "model"}]})
    ['last spread']
    """
    return [row["model"] for row in bonds["measured"] if row["kind"] == "baseline"]


def gain_sentence(bonds: Row) -> str:
    """Which models have skill."""
    models = [row for row in bonds["measured"] if row["kind"] == "model"]
    able = [row["model"] for row in models if row["skill"] == SKILL]
    if able:
        return f"Skill: {', '.join(able)}."
    unknown = [row for row in models if row["skill"] == NOT_KNOWN]
    return "Whether any model has skill is not known." if len(unknown) == len(models) else "No model has skill."


def skill_of_signals(bonds: Row) -> str:
    """How far the rich and cheap bonds are to be trusted."""
    if not has_models(bonds):
        return "No model was fitted: rich and cheap is what lies off the curve fit, and no forecast."
    found = _chosen(bonds)["skill"]
    if found == SKILL:
        return f"The model {bonds['chosen']} predicted the sealed test with skill."
    verb = "is not known to predict" if found == NOT_KNOWN else "predicted"
    rest = "with skill how spreads move against each other" if found == NOT_KNOWN else "the sealed test without skill"
    return f"The model {bonds['chosen']} {verb} {rest}: its rich and cheap bonds are no advice."


def counts(rows: Sequence[Row]) -> str:
    """How many bonds of the last date are rich or cheap.

    >>> counts([{"date": "2024-01-31", "signal": "cheap"}, {"date": "2024-01-31", "signal": "fair"}])
    '2024-01-31: 2 bonds, 1 cheap and 0 rich beyond the 90 % interval'
    """
    cheap, rich = (sum(row["signal"] == name for row in rows) for name in ("cheap", "rich"))
    return f"{rows[0]['date']}: {len(rows):,} bonds, {cheap:,} cheap and {rich:,} rich beyond the 90 % interval"


def tail_risk(bonds: Row) -> str:
    """VaR and CVaR of equal par of all bonds, with and without the issuers' correlation."""
    risk = bonds["tail_risk"]
    if not risk["scenarios"]:
        return "Tail risk: no curve move of the past is known"
    every, alone, independent = risk["all"], risk["curve alone"], risk["issuers independent"]
    return (
        f"Tail risk of one period, {risk['bonds']:,} bonds revalued under {risk['scenarios']} past moves: 95 % VaR "
        f"{_loss(every['var_95%'])}, CVaR {_loss(every['cvar_95%'])}; by the curve alone "
        f"{_loss(alone['var_95%'])}, with independent issuers {_loss(independent['var_95%'])}"
    )


def _loss(fraction: float | None) -> str:
    return "not known" if fraction is None else f"{100 * fraction:.2f} %"


def drift(bonds: Row) -> str:
    """Which inputs drifted, and what was tuned anew."""
    found = bonds["drift"]
    known = {name: of["psi"] for name, of in found["inputs"].items() if of["psi"] is not None}
    worst = sorted(known, key=lambda name: -known[name])[:3]
    named = ", ".join(f"{name} {known[name]:.2f}" for name in worst)
    most = f"; most in {named}" if named else ""
    return (
        f"Drift from training to test: {100 * found['inputs_drifted']:.0f} % of the inputs (PSI above 0.2{most}); "
        f"tuned anew: {found['benchmark']}"
    )


def gain(ends: Sequence[float | None]) -> str:
    """A gain in percent with its interval; one of 100 % or more has no decimals.

    ends: low, estimate, high, fractions; None where they are not known.

    >>> gain([-0.135, 0.011, 0.2524]), gain([None, 0.011, None]), gain([-54.0, -14.317, -5.4]), gain([None] * 3)
    ('1.1 [-13.5, 25.2]', '1.1', '-1,432 [-5,400, -540]', 'not known')
    """
    low, estimate, high = (None if end is None else _percent(end) for end in ends)
    if estimate is None:
        return "not known"
    return estimate if low is None or high is None else f"{estimate} [{low}, {high}]"


def _percent(fraction: float) -> str:
    value = 100 * fraction
    return f"{value:z,.0f}" if abs(value) >= 99.95 else f"{value:z.1f}"


def _chosen(bonds: Row) -> Row:
    chosen: Row = next(row for row in bonds["measured"] if row["model"] == bonds["chosen"])
    return chosen
