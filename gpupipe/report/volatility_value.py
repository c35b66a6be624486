"""What the models know about volatility, and what that is worth beside multiples of the plain volatility column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.estimators import registry
from gpupipe.report import charts
from gpupipe.report.formatting import to_percent
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.shown_model import shown_model

Row = Mapping[str, Any]
# Measures that are compared with the rival, and whether larger is better.
USES = {
    "move_ratio": ("finding the symbols that move most", True),
    "rank_correlation": ("ranking symbols by their moves", True),
    "qlike": ("forecasting the size of moves", False),
    "risk_dispersion": ("spreading risk evenly over positions", False),
    "stop_unevenness": ("placing stops at an even distance", False),
    "portfolio_volatility": ("keeping a portfolio steady", False),
}
# Columns of the tables; {} is the rival, from which forecasts differ.
MOVES = [("bars", True), ("forecast", False), ("moves, top tenth", True), ("from", True), ("to", True),
         ("minus {}", True), ("minus {}, from", True), ("minus {}, to", True), ("rank correlation", True)]  # fmt: skip
SIZES = [("bars", True), ("forecast", False), ("QLIKE minus {}", True), ("QLIKE from", True), ("QLIKE to", True),
         ("risk dispersion", True), ("dispersion minus {}", True), ("dispersion from", True),
         ("dispersion to", True)]  # fmt: skip
STOPS = [("bars", True), ("forecast", False), ("stopped, %", True), *((f"group {g}, %", True) for g in range(1, 6)),
         ("unevenness, %", True), ("minus {}", True), ("from", True), ("to", True)]  # fmt: skip
PORTFOLIO = [("bars", True), ("weights", False), ("deviation of a bar, %", True), ("minus {}", True), ("from", True),
             ("to", True), ("worst bar, %", True), ("drawdown, %", True), ("Sharpe", True)]  # fmt: skip


def volatility_value(whole: Mapping[str, Any]) -> Section | None:
    """Moves found, stops and position sizes by each model's implied volatility; None where a run has no such lines.

    whole: the summary.
    """
    section: Mapping[str, Any] = whole.get("volatility_value") or {}
    lines: Sequence[Row] = section.get("lines") or ()
    model = drawn_model(lines)
    if model is None:
        return None
    rival = section["rival"].upper()
    text = [
        "The probability that a price reaches either barrier says how far it is expected to move, whatever its "
        f"direction. Here that is measured on the sealed test against {rival} of the row, in multiples, as it is used "
        "without any model; constant expects the same of all symbols.",
        *(text for horizon in horizons_of(lines) if (text := moves_sentence(section, model, horizon))),
        *uses_sentences(section, model),
        "Stops: half of the positions are long, half short, and a stop at one expected move should close "
        f"{100 * section['intended_stop_share']:.0f} % of them within the bars if prices were a random walk with "
        f"normal steps. The multiple of {rival} closes as many in all. The figure shows how evenly, by groups of "
        "rising volatility.",
        "Portfolio: all symbols, weights 1 / volatility, rebalanced at every close, before costs; the weights of "
        "constant are equal. Deviations are of one bar, the Sharpe ratio is yearly.",
    ]
    moves = Table("Moves of the symbols that each forecast expects to move most, over those of all symbols of the date",
                  _heads(MOVES, rival), [_moves(line) for line in lines])  # fmt: skip
    return Section("What the models know about volatility", text, [
        Figure(f"Positions that a stop closed, %, by group of volatility: at expected moves of {model}, and at a "
               f"multiple of {rival}", _spec(_points(lines, model, rival))),
        *([moves] if any(line["move_ratio"][0] is not None for line in lines) else []),  # a date needs some symbols
        Table("Size of moves, and evenness of the risk of positions", _heads(SIZES, rival),
              [_sizes(line) for line in lines], folded=True),
        Table("Stops at one expected move", _heads(STOPS, rival), [_stops(line) for line in lines], folded=True),
        Table("Portfolio of all symbols, weights 1 / volatility", _heads(PORTFOLIO, rival),
              [_portfolio(line) for line in lines], digits=3, folded=True),
    ])  # fmt: skip


def _heads(columns: Sequence[tuple[str, bool]], rival: str) -> list[tuple[str, bool]]:
    return [(title.format(rival), is_number) for title, is_number in columns]


def drawn_model(lines: Sequence[Row]) -> str | None:
    """The model that is shown; None without a model's line."""
    models = [line["model"] for line in lines if line["model"] in registry.ESTIMATORS]
    return shown_model(models) if models else None


def horizons_of(lines: Sequence[Row]) -> list[int]:
    """The horizons, rising."""
    return sorted({line["horizon"] for line in lines})


def summary_sentence(whole: Mapping[str, Any]) -> str:
    """What the drawn model's knowledge of volatility is worth at the longest horizon; empty where a run has no lines.

    whole: the summary.
    """
    section: Mapping[str, Any] = whole.get("volatility_value") or {}
    lines: Sequence[Row] = section.get("lines") or ()
    model = drawn_model(lines)
    if model is None:
        return ""
    first = moves_sentence(section, model, horizons_of(lines)[-1])
    return " ".join(filter(None, [first, *uses_sentences(section, model)]))


def moves_sentence(section: Mapping[str, Any], model: str, horizon: int) -> str:
    """How much more the symbols moved that a model expected to move most; empty where that was not measured."""
    by_model = {line["model"]: line for line in section["lines"] if line["horizon"] == horizon}
    own, other = by_model.get(model), by_model.get(section["rival"])
    if own is None or own["move_ratio"][0] is None:
        return ""
    bars = "1 bar" if horizon == 1 else f"{horizon} bars"
    text = (
        f"Volatility, {bars}: the tenth of each date's symbols that {model} expects to move most moved "
        f"{_interval(own['move_ratio'])} times as much as the mean symbol"
    )
    if other is not None and other["move_ratio"][0] is not None:
        difference = own["above_rival"]["move_ratio"]
        text += (
            f"; that of {section['rival'].upper()} {_interval(other['move_ratio'])} times (difference "
            f"{_interval(difference, '+.2f')})"
        )
    return f"{text}."


def uses_sentences(section: Mapping[str, Any], model: str) -> list[str]:
    """For which uses a model is clearly better than the rival, and for which clearly worse, by the 95 % intervals."""
    rival = section["rival"].upper()
    found: dict[str, dict[str, list[int]]] = {"better": {}, "worse": {}}
    own = [line for line in section["lines"] if line["model"] == model]
    if all(line["above_rival"][name][1] is None for line in own for name in USES):
        return [f"Whether {model} is better than {rival} is not known: the test has too few dates for intervals."]
    for line in own:
        for name, (use, larger_is_better) in USES.items():
            _, low, high = line["above_rival"][name]
            if low is None or high is None or low <= 0 <= high:
                continue
            found["better" if (low > 0) == larger_is_better else "worse"].setdefault(use, []).append(line["horizon"])
    n = len({line["horizon"] for line in own})
    texts = [
        f"{model} is clearly {word} than {rival} at " + "; ".join(f"{use}{_on(some, n)}" for use, some in uses.items())
        for word, uses in found.items() if uses
    ]  # fmt: skip
    return [f"{text}." for text in texts] or [f"{model} is neither clearly better nor clearly worse than {rival}."]


def _on(horizons: Sequence[int], n: int) -> str:
    """At which horizons, where it is not all of them."""
    if len(horizons) == n:
        return ""
    return f" ({', '.join(map(str, sorted(horizons)))} {'bar' if horizons == [1] else 'bars'})"


def _interval(measure: Sequence[float | None], form: str = ".2f") -> str:
    estimate, low, high = measure
    if estimate is None:
        return "-"
    return f"{estimate:{form}}" + ("" if low is None or high is None else f" [{low:{form}}, {high:{form}}]")


def _moves(line: Row) -> list[Any]:
    above = line["above_rival"]["move_ratio"]
    return [line["horizon"], line["model"], *line["move_ratio"], *above, line["rank_correlation"][0]]


def _sizes(line: Row) -> list[Any]:
    above = line["above_rival"]
    return [line["horizon"], line["model"], *above["qlike"], line["risk_dispersion"][0], *above["risk_dispersion"]]


def _stops(line: Row) -> list[Any]:
    shares = [to_percent(share) for share in (line["stop_share"][0], *line["stop_shares"])]
    uneven = [to_percent(value) for value in (line["stop_unevenness"][0], *line["above_rival"]["stop_unevenness"])]
    return [line["horizon"], line["model"], *shares, *uneven]


def _portfolio(line: Row) -> list[Any]:
    measures = (line["portfolio_volatility"][0], *line["above_rival"]["portfolio_volatility"], line["worst_bar"],
                line["drawdown"])  # fmt: skip
    return [line["horizon"], line["model"], *map(to_percent, measures), line["sharpe"][0]]


def _points(lines: Sequence[Row], model: str, rival: str) -> list[dict[str, Any]]:
    """Rows of the figure: the share of positions stopped, by group, of the model's stops and of the rival's."""
    points = []
    for line in lines:
        if line["model"] != model:
            continue
        bars = "1 bar" if line["horizon"] == 1 else f"{line['horizon']} bars"
        for stop, shares in (("expected moves", line["stop_shares"]), (rival, line["rival_stop_shares"])):
            points += [
                {"bars": bars, "stop": stop, "group": g + 1, "stopped": 100 * share}
                for g, share in enumerate(shares) if share is not None
            ]  # fmt: skip
    return points


def _spec(points: Sequence[Row]) -> dict[str, Any]:
    import altair as alt

    names = list(dict.fromkeys(point["stop"] for point in points))
    scale = alt.Scale(domain=names, range=charts.RUNS)
    base = alt.Chart().encode(
        x=alt.X("group:O", title="group of rising volatility", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("stopped:Q", title="stopped, %", scale=alt.Scale(zero=False)),
        color=alt.Color("stop:N", scale=scale, title=None),
    )
    lines = base.mark_line(strokeWidth=1.5)
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(
        shape=alt.Shape("stop:N", scale=alt.Scale(domain=names, range=["circle", "diamond"]), title=None),
        tooltip=["bars:N", "stop:N", "group:O", alt.Tooltip("stopped:Q", format=".1f")],
    )
    return charts._panels(alt, alt.layer(lines, dots), points, "bars", height=220)
