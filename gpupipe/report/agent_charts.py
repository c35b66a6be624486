"""Charts of a run of the agent: equity and drawdown of the sealed tests, positions over the price, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.report.charts import _alt, _panels

Rows = Sequence[Mapping[str, Any]]
AGENT, ORIGINAL, HELD, RANDOM = "agent", "original way", "buy and hold", "random entries, 95 %"
STYLES = {
    AGENT: ("var(--m1)", [1, 0]), ORIGINAL: ("var(--m2)", [6, 3]), HELD: ("var(--base)", [5, 3]),
    RANDOM: ("var(--hold)", [1, 0]),
}  # fmt: skip
SIDES = {"long": "var(--buy)", "short": "var(--sell)"}
CANDIDATES = ["var(--m1)", "var(--m2)", "var(--m3)", "var(--m5)", "var(--m6)", "var(--m7)", "var(--m8)", "var(--m4)"]
MOST_PANELS = 12  # panels of iterations that are shown at once; of more, the reader chooses one
HEIGHT = 260  # of a chart over the width of the page, in pixels


def equity(lines: Rows, band: Rows, begins: Sequence[str], log: bool) -> dict[str, Any]:
    """Equity over time, with the band of random entries and the beginning of each iteration's test.

    lines: "what" (AGENT, ORIGINAL or HELD), "time" (ISO), "equity" (above 0 where `log`).
    band: "time", "low", "median", "high".  begins: ISO times.  log: a logarithmic axis.
    """
    alt = _alt()
    names = [*dict.fromkeys(row["what"] for row in lines), *([RANDOM] if band else [])]
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    y = alt.Y("equity:Q", title="equity", scale=scale, axis=alt.Axis(format="~g", tickCount=5, labelOverlap=True))
    line = _lines(alt, lines, names, y, [alt.Tooltip("equity:Q", format=".4f")])
    nothing = alt.Chart(alt.Data(values=[{}])).mark_rule(color="var(--dim)").encode(y=alt.datum(1))
    layers = [_marks(alt, begins), nothing, line]
    if band:
        shade = alt.Chart(alt.Data(values=[{**row, "what": RANDOM} for row in band])).mark_area(fillOpacity=0.4)
        tooltip = [_time(alt), *(alt.Tooltip(f"{name}:Q", format=".4f") for name in ("low", "median", "high"))]
        shaded = shade.encode(x="time:T", y=alt.Y("low:Q", scale=scale, title="equity"), y2="high:Q",
                              color=_colour(alt, names), tooltip=tooltip)  # fmt: skip
        layers.insert(0, shaded)
    return _wide(alt, layers)


def drawdown(lines: Rows, begins: Sequence[str]) -> dict[str, Any]:
    """Loss since the last peak.  lines: "what", "time" (ISO), "drawdown" in percent, at most 0.  begins: ISO times."""
    alt = _alt()
    names = list(dict.fromkeys(row["what"] for row in lines))
    y = alt.Y("drawdown:Q", title="drawdown, %", axis=alt.Axis(tickCount=5, labelOverlap=True))
    line = _lines(alt, lines, names, y, [alt.Tooltip("drawdown:Q", format=".2f")])
    return _wide(alt, [_marks(alt, begins), line], height=180)


def positions(prices: Rows, spans: Rows, entries: Rows) -> dict[str, Any]:
    """The price, shaded where a position is held.

    prices: "time" (ISO), "price".  spans: "begin", "end" (ISO), "side", "share" (of the span's bars, above 0 to 1).
    entries: "time", "price", "side" of trades, as triangles.
    """
    alt = _alt()
    sides = [side for side in SIDES if any(row["side"] == side for row in spans)]
    colours = alt.Scale(domain=sides, range=[SIDES[side] for side in sides])
    y = alt.Y("price:Q", title="close", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    line = alt.Chart(alt.Data(values=list(prices))).mark_line(strokeWidth=1.2, color="var(--text)").encode(
        x=_by_time(alt), y=y, tooltip=[_time(alt), alt.Tooltip("price:Q", format=",.6~g")]
    )  # fmt: skip
    layers = [line]
    if spans:
        shade = alt.Chart(alt.Data(values=list(spans))).mark_rect().encode(
            x=alt.X("begin:T", title=None), x2="end:T", color=alt.Color("side:N", scale=colours, title=None),
            opacity=alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0, 0.22]), legend=None),
            tooltip=["side:N", _time(alt, "begin"), _time(alt, "end"), alt.Tooltip("share:Q", format=".2f")],
        )  # fmt: skip
        layers.insert(0, shade)
    if entries:
        shape = alt.Scale(domain=list(SIDES), range=["triangle-up", "triangle-down"])
        layers.append(alt.Chart(alt.Data(values=list(entries))).mark_point(filled=True, size=60, opacity=1).encode(
            x="time:T", y="price:Q", color=alt.Color("side:N", scale=colours, title=None),
            shape=alt.Shape("side:N", scale=shape, legend=None),
            tooltip=["side:N", _time(alt), alt.Tooltip("price:Q", format=",.6~g")],
        ))  # fmt: skip
    return _wide(alt, layers)


def scores(rows: Rows) -> dict[str, Any]:
    """Validation score by steps of each candidate: a panel for each iteration, the policy that is kept as a diamond.

    rows: "iteration" (its title), "candidate" (a name), "steps", "score" in percent, "kept" (bool). Of more than
        MOST_PANELS iterations the reader chooses one.
    """
    alt = _alt()
    names, titles = (list(dict.fromkeys(row[name] for row in rows)) for name in ("candidate", "iteration"))
    colours = [CANDIDATES[k % len(CANDIDATES)] for k in range(len(names))]
    score, legend = alt.Tooltip("score:Q", format=".3f"), _legend(alt) if len(names) > 1 else None
    base = alt.Chart().encode(
        x=_steps(alt),
        y=alt.Y("score:Q", title="validation score, %", scale=alt.Scale(zero=False), axis=_few(alt)),
        color=alt.Color("candidate:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
        tooltip=["iteration:N", "candidate:N", alt.Tooltip("steps:Q", format=","), score],
    )
    zero = alt.Chart().mark_rule(strokeDash=[4, 3], color="var(--line)").encode(y=alt.datum(0))
    lines = base.mark_line(strokeWidth=1.5, point={"size": 14, "opacity": 1})
    kept = base.transform_filter("datum.kept").mark_point(
        shape="diamond", filled=True, size=130, opacity=1, stroke="var(--ground)", strokeWidth=1
    )
    layers = alt.layer(zero, lines, kept)
    if len(titles) <= MOST_PANELS:
        return _facets(alt, layers, rows, "iteration", 130)
    picked = alt.param(bind=alt.binding_select(options=titles, name="iteration "), value=titles[0], name="iteration_of")
    one = layers.add_params(picked).transform_filter("datum.iteration === iteration_of")
    return one.properties(width="container", height=HEIGHT, data=alt.Data(values=list(rows))).to_dict()


def values(rows: Rows) -> dict[str, Any]:
    """What the schedule set and what became of it, by steps of all iterations: a panel for each kind of value.

    rows: "what" (the panel's title), "iteration", "steps" since the first iteration's beginning, "value". Lines end
        with their iteration.
    """
    alt = _alt()
    line = alt.Chart().mark_line(strokeWidth=1.5, color="var(--m3)", point={"size": 10, "color": "var(--m3)"}).encode(
        x=_steps(alt),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=_few(alt)),
        detail="iteration:Q",
        tooltip=["what:N", "iteration:Q", alt.Tooltip("steps:Q", format=","), alt.Tooltip("value:Q", format=".4~g")],
    )  # fmt: skip
    return _facets(alt, line, rows, "what", 110)


def _facets(alt: Any, layered: Any, rows: Rows, by: str, height: int) -> dict[str, Any]:
    spec = _panels(alt, layered, rows, by, height, ("x", "y"))
    return {**spec, "columns": min(spec["columns"], len({row[by] for row in rows}))}


def _few(alt: Any) -> Any:
    return alt.Axis(format="~g", tickCount=4, labelOverlap=True)


def _steps(alt: Any) -> Any:
    axis = alt.Axis(format="~s", tickCount=4, labelOverlap=True, grid=False)
    return alt.X("steps:Q", title="steps", scale=alt.Scale(zero=False, nice=False, padding=8), axis=axis)


def _lines(alt: Any, rows: Rows, names: Sequence[str], y: Any, texts: Sequence[Any]) -> Any:
    """Lines over time of each name, told apart by colour and dash."""
    dashes = alt.Scale(domain=list(names), range=[STYLES[name][1] for name in names])
    return alt.Chart(alt.Data(values=list(rows))).mark_line(strokeWidth=1.6).encode(
        x=_by_time(alt), y=y, color=_colour(alt, names),
        strokeDash=alt.StrokeDash("what:N", scale=dashes, legend=_legend(alt)), tooltip=["what:N", _time(alt), *texts],
    )  # fmt: skip


def _colour(alt: Any, names: Sequence[str]) -> Any:
    scale = alt.Scale(domain=list(names), range=[STYLES[name][0] for name in names])
    return alt.Color("what:N", scale=scale, legend=_legend(alt))


def _legend(alt: Any) -> Any:
    return alt.Legend(title=None, symbolType="stroke", symbolSize=200)


def _by_time(alt: Any) -> Any:
    return alt.X("time:T", title=None, axis=alt.Axis(tickCount=6, labelOverlap=True, format="%Y-%m-%d", grid=False))


def _time(alt: Any, name: str = "time") -> Any:
    return alt.Tooltip(f"{name}:T", format="%Y-%m-%d %H:%M")


def _marks(alt: Any, begins: Sequence[str]) -> Any:
    """A vertical line at the beginning of each iteration's test."""
    rows = [{"time": time} for time in begins]
    return alt.Chart(alt.Data(values=rows)).mark_rule(strokeDash=[2, 3], color="var(--line)").encode(x="time:T")


def _wide(alt: Any, layers: Sequence[Any], height: int = HEIGHT) -> dict[str, Any]:
    """One chart over the width of the page."""
    chart: dict[str, Any] = alt.layer(*layers).properties(width="container", height=height).to_dict()
    return chart
