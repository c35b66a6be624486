"""Charts of a run of bonds: quotes against fair values, gains, curves, key rates, regimes, drift, tail risk, steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.report.charts import ROW, _alt, _panels

Rows = Sequence[Mapping[str, Any]]
CHEAP, RICH, FAIR, TENTH, QUOTE = "cheap", "rich", "fair", "mean of a tenth", "quote"
# Colour and shape of the points of scatter charts.
POINTS = {
    FAIR: ("var(--base)", "circle"), QUOTE: ("var(--base)", "circle"), CHEAP: ("var(--buy)", "triangle-up"),
    RICH: ("var(--sell)", "triangle-down"), TENTH: ("var(--m2)", "diamond"),
}  # fmt: skip
PAR = "par curve"
GRADES = {
    PAR: ("var(--text)", "square"), "Treasuries": ("var(--m3)", "cross"),
    "investment grade": ("var(--m1)", "circle"), "high yield": ("var(--m2)", "triangle-up"),
}  # fmt: skip
REGIMES = ["var(--m1)", "var(--m3)", "var(--m6)", "var(--m2)", "var(--m5)", "var(--m7)"]
COLOURS = ["var(--m1)", "var(--m2)", "var(--m3)", "var(--m5)", "var(--m6)", "var(--m7)", "var(--m8)", "var(--m4)"]
TAILS = {"VaR 95 %": ("var(--m1)", "circle"), "CVaR 95 %": ("var(--m2)", "diamond")}
STEP = 18  # height in pixels of a row of a chart of many rows


def scatter(rows: Rows, titles: tuple[str, str], level: bool = False) -> dict[str, Any]:
    """Points with the line y = x: a panel for each pair of figures.

    rows: "panel", "x", "y", "kind" (of POINTS), "bond" (its name, or another text).  titles: of both axes.
    level: the line y = 0 instead.
    """
    alt = _alt()
    kinds = [kind for kind in POINTS if any(row["kind"] == kind for row in rows)]
    x, y = (
        alt.X("x:Q", title=titles[0], scale=alt.Scale(zero=False), axis=_few(alt)),
        alt.Y("y:Q", title=titles[1], scale=alt.Scale(zero=False), axis=_few(alt)),
    )
    diagonal = alt.Chart().mark_line(color="var(--dim)", strokeDash=[4, 3])
    equal = diagonal.encode(x=x, y=alt.datum(0) if level else alt.Y("x:Q", title=titles[1]))
    legend = None if len(kinds) == 1 else _shapes(alt)
    points = alt.Chart().mark_point(filled=True).encode(
        x=x, y=y,
        color=alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=[POINTS[kind][0] for kind in kinds]),
                        legend=legend),
        shape=alt.Shape("kind:N", scale=alt.Scale(domain=kinds, range=[POINTS[kind][1] for kind in kinds]),
                        legend=legend),
        size=alt.condition(_is_one_of(FAIR, QUOTE), alt.value(14), alt.value(70)),
        opacity=alt.condition(_is_one_of(FAIR, QUOTE), alt.value(0.55), alt.value(1)),
        tooltip=["bond:N", "kind:N", alt.Tooltip("x:Q", format=".3f"), alt.Tooltip("y:Q", format=".3f")],
    )  # fmt: skip
    return _facets(alt, alt.layer(equal, points), rows, 240)


def intervals(rows: Rows) -> dict[str, Any]:
    """The quoted spread of each bond beside its fair spread with its interval, percent, a row for each bond.

    rows: "bond", "spread", "fair", "low", "high", "signal" (CHEAP or RICH).
    """
    alt = _alt()
    order = [row["bond"] for row in rows]
    base = alt.Chart(alt.Data(values=list(rows))).encode(y=alt.Y("bond:N", sort=order, title=None))
    x = alt.X("low:Q", title="spread, %", scale=alt.Scale(zero=False))
    span = base.mark_rule(strokeWidth=5, color="var(--hold)").encode(x=x, x2="high:Q")
    fair = base.mark_tick(color="var(--text)", thickness=2, height=11).encode(x="fair:Q")
    sides = [side for side in (CHEAP, RICH) if any(row["signal"] == side for row in rows)]
    quote = base.mark_point(filled=True, size=70, opacity=1).encode(
        x="spread:Q",
        color=alt.Color("signal:N", title=None,
                        scale=alt.Scale(domain=sides, range=[POINTS[side][0] for side in sides])),
        shape=alt.Shape("signal:N", title=None,
                        scale=alt.Scale(domain=sides, range=[POINTS[side][1] for side in sides])),
        tooltip=["bond:N", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("spread", "fair", "low", "high"))],
    )  # fmt: skip
    return _wide(alt, [span, fair, quote], STEP * len(rows))


def gains(rows: Rows) -> dict[str, Any]:
    """Gain over each baseline with its interval: a panel for each baseline, in it a row for each model.

    rows: "panel", "model", "gain", "low", "high" (percent; low and high may be None), "skill". The mark of a model
        without skill is hollow.
    """
    alt = _alt()
    models = list(dict.fromkeys(row["model"] for row in rows))
    base = alt.Chart().encode(y=alt.Y("model:N", sort=models, title=None))
    dots = base.mark_point(size=60, opacity=1, stroke="var(--m1)").encode(
        x=alt.X("gain:Q", title="gain, %", axis=_few(alt)),
        fill=alt.condition("datum.skill === 'skill'", alt.value("var(--m1)"), alt.value("var(--ground)")),
        tooltip=["model:N", "skill:N", *(alt.Tooltip(f"{name}:Q", format=".1f") for name in ("gain", "low", "high"))],
    )
    bars = base.mark_rule(strokeWidth=2, color="var(--m1)").encode(x="low:Q", x2="high:Q")
    zero = alt.Chart().mark_rule(strokeDash=[4, 3], color="var(--base)").encode(x=alt.datum(0))
    return _facets(alt, alt.layer(zero, bars, dots), rows, ROW * len(models), ("x",))


def curves(points: Rows, lines: Rows) -> dict[str, Any]:
    """Yields by years to maturity.

    points: "grade" (of GRADES), "years", "yield" (percent), "bond".  lines: "grade", "years", "yield".
    """
    alt = _alt()
    names = [name for name in GRADES if any(row["grade"] == name for row in (*points, *lines))]
    colour, shape = (
        kind("grade:N", legend=_shapes(alt), scale=alt.Scale(domain=names, range=[GRADES[name][k] for name in names]))
        for k, kind in enumerate((alt.Color, alt.Shape))
    )
    x = alt.X("years:Q", title="years to maturity", scale=alt.Scale(type="sqrt"), axis=alt.Axis(tickCount=8))
    y = alt.Y("yield:Q", title="yield, %", scale=alt.Scale(zero=False))
    dots = alt.Chart(alt.Data(values=list(points))).mark_point(filled=True).encode(
        x=x, y=y, color=colour, shape=shape,
        size=alt.condition(f"datum.grade === '{PAR}'", alt.value(50), alt.value(18)),
        opacity=alt.condition(f"datum.grade === '{PAR}'", alt.value(1), alt.value(0.6)),
        tooltip=["bond:N", "grade:N", alt.Tooltip("years:Q", format=".2f"), alt.Tooltip("yield:Q", format=".3f")],
    )  # fmt: skip
    fitted = alt.Chart(alt.Data(values=list(lines))).mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour)
    return _wide(alt, [dots, fitted], 300)


def key_rates(rows: Rows, tenors: Sequence[str]) -> dict[str, Any]:
    """Key-rate durations by tenor as bars: a panel for each group.  rows: "panel", "tenor", "years"."""
    alt = _alt()
    chart = alt.Chart().mark_bar(color="var(--m1)").encode(
        x=alt.X("tenor:N", sort=list(tenors), title="tenor", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("years:Q", title="key-rate duration, years", axis=_few(alt)),
        tooltip=["panel:N", "tenor:N", alt.Tooltip("years:Q", format=".3f")],
    )  # fmt: skip
    return _facets(alt, chart, rows, 160, ())


def over_dates(rows: Rows, regimes: Sequence[str]) -> dict[str, Any]:
    """Lines over dates, one panel below the other, shaded by regime.

    rows: "panel", "kind", and by kind: "line": "time" (ISO), "value"; "band": "begin", "end", "regime"; "split":
        "time", "text".  regimes: names of the bands, in order.
    """
    alt = _alt()
    scale = alt.Scale(domain=list(regimes), range=[REGIMES[k % len(REGIMES)] for k in range(len(regimes))])
    x = alt.X("time:T", title=None, axis=alt.Axis(tickCount=6, labelOverlap=True, grid=False))
    bands = alt.Chart().mark_rect(opacity=0.25).transform_filter("datum.kind === 'band'").encode(
        x=alt.X("begin:T", title=None), x2="end:T", color=alt.Color("regime:N", scale=scale, title=None),
        tooltip=["regime:N", _date(alt, "begin"), _date(alt, "end")],
    )  # fmt: skip
    line = alt.Chart().mark_line(strokeWidth=1.8, color="var(--text)").transform_filter("datum.kind === 'line'").encode(
        x=x, y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=_few(alt)),
        tooltip=[_date(alt, "time"), alt.Tooltip("value:Q", format=".3f")],
    )  # fmt: skip
    marks = alt.Chart().mark_rule(strokeDash=[2, 3], color="var(--text)").transform_filter("datum.kind === 'split'")
    split = marks.encode(x=x, tooltip=["text:N", _date(alt, "time")])
    return _facets(alt, alt.layer(bands, line, split), rows, 130, ("y",), columns=1)


def loadings(rows: Rows) -> dict[str, Any]:
    """Loadings of factors by years.  rows: "factor", "years", "loading"."""
    alt = _alt()
    names = list(dict.fromkeys(row["factor"] for row in rows))
    legend = alt.Legend(title=None, symbolType="stroke", symbolSize=200)
    scale = alt.Scale(domain=names, range=[COLOURS[k % len(COLOURS)] for k in range(len(names))])
    dashes = alt.Scale(domain=names, range=[[[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]][k % 4] for k in range(len(names))])
    chart = alt.Chart(alt.Data(values=list(rows)))
    zero = alt.Chart(alt.Data(values=[{}])).mark_rule(color="var(--line)").encode(y=alt.datum(0))
    line = chart.mark_line(strokeWidth=1.8, point={"size": 20}).encode(
        x=alt.X("years:Q", title="tenor, years", scale=alt.Scale(type="sqrt"), axis=alt.Axis(tickCount=8)),
        y=alt.Y("loading:Q", title="loading", axis=_few(alt)),
        color=alt.Color("factor:N", scale=scale, legend=legend),
        strokeDash=alt.StrokeDash("factor:N", scale=dashes, legend=legend),
        tooltip=["factor:N", alt.Tooltip("years:Q", format=".2f"), alt.Tooltip("loading:Q", format=".3f")],
    )
    return _wide(alt, [zero, line], 180)


def stability(rows: Rows, marks: Sequence[float]) -> dict[str, Any]:
    """Population stability index of each input as bars, largest first; coloured above the last mark.

    rows: "input", "psi", "ks", "about".  marks: values with an upright line, rising.
    """
    alt = _alt()
    scale = alt.Scale(type="symlog", constant=0.1)
    chart = alt.Chart(alt.Data(values=list(rows))).mark_bar().encode(
        x=alt.X("psi:Q", title="population stability index", scale=scale,
                axis=alt.Axis(values=[0.1, 0.2, 0.5, 1, 2, 5, 10], labelOverlap=True)),
        y=alt.Y("input:N", sort="-x", title=None),
        color=alt.condition(f"datum.psi > {marks[-1]}", alt.value("var(--m2)"), alt.value("var(--m1)")),
        tooltip=["input:N", alt.Tooltip("psi:Q", format=".3f"), alt.Tooltip("ks:Q", format=".3f")],
    )  # fmt: skip
    lines = alt.Chart(alt.Data(values=[{"at": at} for at in marks])).mark_rule(color="var(--text)", strokeDash=[4, 3])
    return _wide(alt, [chart, lines.encode(x=alt.X("at:Q", scale=scale))], STEP * len(rows))


def losses(bars: Rows, marks: Rows) -> dict[str, Any]:
    """Scenarios by loss: a panel for each portfolio, with VaR and CVaR as upright lines.

    bars: "panel", "low", "high" (percent of the value), "scenarios".
    marks: "panel", "at" (percent), "what" (of TAILS).
    """
    alt = _alt()
    rows = [{**row, "kind": "bar"} for row in bars] + [{**row, "kind": "mark"} for row in marks]
    drawn = alt.Chart().mark_bar(color="var(--hold)").transform_filter("datum.kind === 'bar'").encode(
        x=alt.X("low:Q", bin="binned", title="loss, % of the value", axis=_few(alt)), x2="high:Q",
        y=alt.Y("scenarios:Q", title="scenarios", axis=_few(alt)),
        tooltip=[alt.Tooltip("low:Q", format=".2f"), alt.Tooltip("high:Q", format=".2f"), "scenarios:Q"],
    )  # fmt: skip
    what = {"domain": list(TAILS), "range": [colour for colour, _ in TAILS.values()]}
    lines = alt.Chart().mark_rule(strokeWidth=2).transform_filter("datum.kind === 'mark'").encode(
        x="at:Q", color=alt.Color("what:N", scale=alt.Scale(**what), title=None),
        strokeDash=alt.StrokeDash("what:N", title=None,
                                  scale=alt.Scale(domain=list(TAILS), range=[[1, 0], [5, 3]])),
        tooltip=["panel:N", "what:N", alt.Tooltip("at:Q", format=".2f")],
    )  # fmt: skip
    return _facets(alt, alt.layer(drawn, lines), rows, 160, ())


def tails(rows: Rows) -> dict[str, Any]:
    """VaR and CVaR of groups of bonds: a panel for each way of grouping.

    rows: "panel", "group", "what" (of TAILS), "loss" (percent).
    """
    alt = _alt()
    order = list(dict.fromkeys(row["group"] for row in rows))
    colour, shape = (
        kind("what:N", title=None, scale=alt.Scale(domain=list(TAILS), range=[style[k] for style in TAILS.values()]))
        for k, kind in enumerate((alt.Color, alt.Shape))
    )
    dots = alt.Chart().mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("loss:Q", title="loss, % of the value", axis=_few(alt), scale=alt.Scale(zero=True)),
        y=alt.Y("group:N", sort=order, title=None), color=colour, shape=shape,
        tooltip=["group:N", "what:N", alt.Tooltip("loss:Q", format=".2f")],
    )  # fmt: skip
    return _facets(alt, dots, rows, 190, ("y",))


def steps(bars: Rows, edges: Rows, names: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """Steps over time, a row for each, coloured by group; a line leads from a step to one that waited for it.

    bars: "step", "group", "lane" (its thread or worker), "begin", "end" (seconds).
    edges: "step", "end" of the step that was waited for, "then", "begin" of the one that waited.
    names: of the steps, from the top.  groups: their order.
    """
    alt = _alt()
    scale = alt.Scale(domain=list(groups), range=["var(--base)", *COLOURS][: len(groups)])
    x = alt.X("begin:Q", title="seconds since the start")
    y = alt.Y("step:N", sort=list(names), title=None, scale=alt.Scale(domain=list(names)))
    drawn = alt.Chart(alt.Data(values=list(bars))).mark_bar(height=12).encode(
        x=x, x2="end:Q", y=y, color=alt.Color("group:N", title=None, scale=scale, sort=list(groups)),
        tooltip=["step:N", "group:N", "lane:N", *(alt.Tooltip(f"{end}:Q", format=".2f") for end in ("begin", "end"))],
    )  # fmt: skip
    lines = alt.Chart(alt.Data(values=list(edges))).mark_rule(color="var(--base)")
    needs = lines.encode(x=alt.X("end:Q", title="seconds since the start"), x2="begin:Q", y=y, y2="then:N")
    return _wide(alt, [needs, drawn], ROW * len(names))


def _is_one_of(*kinds: str) -> str:
    """A Vega expression of a row."""
    return " || ".join(f"datum.kind === '{kind}'" for kind in kinds)


def _facets(
    alt: Any, layered: Any, rows: Rows, height: int, independent: Sequence[str] = ("x", "y"), columns: int = 3
) -> dict[str, Any]:
    """A panel for each value of the field "panel", at most `columns` in a row."""
    spec = _panels(alt, layered, rows, "panel", height, independent)
    return {**spec, "columns": min(columns, len({row["panel"] for row in rows}))}


def _wide(alt: Any, layers: Sequence[Any], height: int) -> dict[str, Any]:
    """One chart over the width of the page."""
    chart: dict[str, Any] = alt.layer(*layers).properties(width="container", height=height).to_dict()
    return chart


def _few(alt: Any) -> Any:
    return alt.Axis(tickCount=5, labelOverlap=True)


def _shapes(alt: Any) -> Any:
    return alt.Legend(title=None, symbolStrokeWidth=0)


def _date(alt: Any, name: str) -> Any:
    return alt.Tooltip(f"{name}:T", format="%Y-%m-%d")
