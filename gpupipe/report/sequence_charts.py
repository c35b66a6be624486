"""Charts of a run of sequence networks: losses and rates by epoch, returns by prediction, equity of positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.evaluation.block_bootstrap import SKILL
from gpupipe.report.charts import ROW, _alt, _panels

Rows = Sequence[Mapping[str, Any]]
TRAINING, VALIDATION = "training", "validation"
POSITIONS, HELD = "positions", "buy and hold"
MARKED = 40  # epochs up to which each has a mark
BEST = "isValid(datum.best) && datum.best"


def losses(rows: Rows) -> dict[str, Any]:
    """Training and validation loss by epoch, the epoch that is kept as a diamond: a panel for each symbol.

    rows: "symbol", "epoch", "what" (TRAINING or VALIDATION), "loss" (None makes a gap), "best" (bool).
    """
    alt = _alt()
    names = [name for name in (TRAINING, VALIDATION) if any(row["what"] == name for row in rows)]
    base = _by_epoch(alt, "loss", "loss", names, ["symbol:N", "what:N"])
    return _facets(alt, _with_best(alt, base, names, _short(rows)), rows, "symbol", height=170, independent=("x", "y"))


def head_losses(rows: Rows) -> dict[str, Any]:
    """Loss of each head by epoch, of the symbol that the reader chooses: a panel for each head.

    rows: "symbol", "head", "epoch", "what", "loss" (None makes a gap), "best" (bool). The first symbol is shown first;
        with one symbol there is no choice.
    """
    alt = _alt()
    symbols = list(dict.fromkeys(row["symbol"] for row in rows))
    names = list(dict.fromkeys(row["what"] for row in rows))
    base = _by_epoch(alt, "loss", "loss", names, ["symbol:N", "head:N", "what:N"])
    layers = _with_best(alt, base, names, _short(rows))
    if len(symbols) > 1:
        picked = alt.binding_select(options=symbols, name="symbol ")
        symbol = alt.param(bind=picked, value=symbols[0], name="symbol_of_heads")
        layers = layers.add_params(symbol).transform_filter("datum.symbol === symbol_of_heads")
    return _facets(alt, layers, rows, "head", height=130, independent=("x", "y"))


def rates(rows: Rows) -> dict[str, Any]:
    """Learning rate of each epoch, on a logarithmic axis: a panel for each symbol.  rows: "symbol", "epoch", "rate"."""
    alt = _alt()
    point: Any = {"color": "var(--m3)", "size": 20} if _short(rows) else False
    line = alt.Chart().mark_line(interpolate="step", color="var(--m3)", strokeWidth=2, point=point)
    chart = line.encode(
        x=_epochs(alt),
        y=alt.Y("rate:Q", title="learning rate", scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(format="~g", labelOverlap=True, tickCount=3, grid=False)),
        tooltip=["symbol:N", "epoch:Q", alt.Tooltip("rate:Q", format="~g")],
    )  # fmt: skip
    return _facets(alt, chart, rows, "symbol", height=80, independent=("x", "y"))


def _epochs(alt: Any) -> Any:
    whole = "datum.value % 1 ? '' : format(datum.value, 'd')"  # few epochs have ticks between them
    axis = alt.Axis(labelExpr=whole, tickCount=6, grid=False)
    return alt.X("epoch:Q", title="epoch", scale=alt.Scale(zero=False, nice=False, padding=8), axis=axis)


def _by_epoch(alt: Any, field: str, title: str, names: Sequence[str], texts: Sequence[str]) -> Any:
    """The encoding that lines and marks over epochs share."""
    return alt.Chart().encode(
        x=_epochs(alt),
        y=alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=False)),
        color=alt.Color("what:N", scale=alt.Scale(domain=names, range=_colours(names)), legend=_legend(alt, names)),
        tooltip=[*texts, "epoch:Q", alt.Tooltip(f"{field}:Q", format=".4f")],
    )


def _short(rows: Rows) -> bool:
    """Whether the lines have so few epochs that each can have a mark."""
    return max((row["epoch"] for row in rows), default=0) <= MARKED


def _with_best(alt: Any, base: Any, names: Sequence[str], marks: bool) -> Any:
    """Lines, with a small mark at each epoch where `marks` is true, and a diamond at the best."""
    point: Any = {"size": 14, "opacity": 1} if marks else False
    dashes = {TRAINING: [5, 3], VALIDATION: [1, 0]}
    scale = alt.Scale(domain=list(names), range=[dashes[name] for name in names])
    lines = base.mark_line(strokeWidth=1.5, point=point).encode(
        strokeDash=alt.StrokeDash("what:N", scale=scale, legend=_legend(alt, names))
    )
    best = base.transform_filter(BEST).mark_point(
        shape="diamond", filled=True, size=130, opacity=1, stroke="var(--ground)", strokeWidth=1
    )
    return alt.layer(lines, best)


def _legend(alt: Any, names: Sequence[str]) -> Any:
    """A legend of lines; None where there is one line only."""
    return alt.Legend(title=None, symbolType="stroke", symbolSize=200) if len(names) > 1 else None


def _facets(alt: Any, layered: Any, rows: Rows, by: str, height: int, independent: Sequence[str]) -> dict[str, Any]:
    """A panel for each value of the field `by`, in as many columns as there are panels, at most three."""
    spec = _panels(alt, layered, rows, by, height, independent)
    return {**spec, "columns": min(spec["columns"], len({row[by] for row in rows}))}


def _colours(names: Sequence[str]) -> list[str]:
    known = {TRAINING: "var(--m1)", VALIDATION: "var(--m2)"}
    return [known[name] for name in names]


def gains_over_references(rows: Rows) -> dict[str, Any]:
    """Gain in squared error with its interval, a row for each symbol: a panel for each reference.

    rows: "reference", "symbol", "gain", "low", "high" in percent (low and high may be None), "skill" (over this
        reference). A mark without skill is hollow.
    """
    alt = _alt()
    symbols = list(dict.fromkeys(row["symbol"] for row in rows))
    base = alt.Chart().encode(y=alt.Y("symbol:N", sort=symbols, title=None), color=alt.value("var(--m1)"))
    dots = base.mark_point(size=70, opacity=1, filled=False, strokeWidth=2).encode(
        x=alt.X("gain:Q", title="gain in squared error, %", axis=alt.Axis(labelOverlap=True, tickCount=5)),
        fill=alt.condition(f"datum.skill === '{SKILL}'", alt.value("var(--m1)"), alt.value("var(--ground)")),
        tooltip=["reference:N", "symbol:N", "skill:N"]
        + [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("gain", "low", "high")],
    )
    bars = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    ends = base.mark_point(opacity=0).encode(x="high:Q")  # a scale does not ask the second end of a rule
    zero = alt.Chart().mark_rule(strokeDash=[4, 3], color="var(--base)").encode(x=alt.datum(0))
    height = max(2, len(symbols)) * ROW
    return _facets(alt, alt.layer(zero, bars, ends, dots), rows, "reference", height=height, independent=("x",))


def realised_by_predicted(rows: Rows) -> dict[str, Any]:
    """Mean realised by mean predicted return of groups of rows, with intervals: a panel for each symbol.

    rows: "symbol", "group" (1 has the lowest predictions), "rows", "predicted", "realised", "low", "high" in percent
        (low and high may be None). On the dashed line both are equal; it reaches as far as the predictions.
    """
    alt = _alt()
    number = alt.Axis(format="~g", tickCount=5, labelOverlap=True)
    x = alt.X("predicted:Q", title="mean predicted return, %", axis=number, scale=alt.Scale(zero=False, padding=10))
    names = ("predicted", "realised", "low", "high")
    base = alt.Chart().encode(
        x=x, tooltip=["symbol:N", "group:Q", "rows:Q", *(alt.Tooltip(f"{name}:Q", format=".4f") for name in names)]
    )
    dots = base.mark_point(filled=True, size=60, opacity=1, color="var(--m1)").encode(
        y=alt.Y("realised:Q", title="mean realised return, %", axis=number)
    )
    bars = base.mark_rule(strokeWidth=1.5, color="var(--m1)").encode(y="low:Q", y2="high:Q")
    ends = base.mark_point(opacity=0).encode(y="high:Q")
    equal = alt.Chart().mark_line(strokeDash=[4, 3], color="var(--base)").encode(x=x, y="predicted:Q")
    zero = alt.Chart().mark_rule(color="var(--line)").encode(y=alt.datum(0))
    layers = alt.layer(zero, equal, bars, ends, dots)
    return _facets(alt, layers, rows, "symbol", height=200, independent=("x", "y"))


def equity(rows: Rows, log: bool) -> dict[str, Any]:
    """Equity over time of positions and of buy and hold: a panel for each symbol.

    rows: "symbol", "what" (POSITIONS or HELD), "time" (ISO), "equity" (above 0).  log: a logarithmic axis.
    """
    alt = _alt()
    names, dashes = [POSITIONS, HELD], [[1, 0], [5, 3]]
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    line = alt.Chart().mark_line(strokeWidth=1.5).encode(
        x=alt.X("time:T", title=None, axis=alt.Axis(tickCount=4, labelOverlap=True)),
        y=alt.Y("equity:Q", title="equity", scale=scale, axis=alt.Axis(format="~g", tickCount=5, labelOverlap=True)),
        color=alt.Color("what:N", scale=alt.Scale(domain=names, range=["var(--m1)", "var(--base)"]), title=None),
        strokeDash=alt.StrokeDash("what:N", scale=alt.Scale(domain=names, range=dashes), title=None),
        tooltip=["symbol:N", "what:N", alt.Tooltip("time:T", format="%Y-%m-%d %H:%M"),
                 alt.Tooltip("equity:Q", format=".3f")],
    )  # fmt: skip
    start = alt.Chart().mark_rule(strokeDash=[4, 3], color="var(--line)").encode(y=alt.datum(1))
    return _facets(alt, alt.layer(start, line), rows, "symbol", height=180, independent=("x", "y"))
