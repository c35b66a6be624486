"""Charts of the report: functions from rows to Vega-Lite specifications, built with Altair; page.js sets the theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.estimators import registry
from gpupipe.estimators.contract import Estimator
from gpupipe.evaluation.block_bootstrap import NO_SKILL

Rows = Sequence[Mapping[str, Any]]
CLASSES = {"SELL": "var(--sell)", "HOLD": "var(--hold)", "BUY": "var(--buy)"}
RUNS = ["var(--m1)", "var(--m2)"]
LOSS_TO_GAIN = ["#e08a2e", "#f7f7f7", "#5aa9dd"]  # colour scale of the heat map, light enough for black text
ROW = 22  # height in pixels of a row of a chart


def _alt() -> Any:
    import altair

    return altair


def _model_styles(names: Sequence[str]) -> tuple[list[str], list[str], list[list[int]]]:
    """Colours, shapes and dashes of models, as their estimators say; of baselines those that `Estimator` has.

    A model has the same in every chart; shape or dash alone distinguish the models. Colours are CSS variables: page.css
    defines them for each theme with a contrast of at least 3:1 to the background.
    """
    items = [registry.estimator(name) if name in registry.ESTIMATORS else Estimator for name in names]
    styles = [item.chart_style for item in items]
    return (
        [f"var(--{colour})" for colour, _, _ in styles],
        [shape for _, shape, _ in styles],
        [list(dash) for _, _, dash in styles],
    )


def _shapes(alt: Any) -> Any:
    """A legend of filled shapes without outlines, which would be dashed as the lines are."""
    return alt.Legend(title=None, symbolStrokeWidth=0)


def gains(rows: Rows) -> dict[str, Any]:
    """Gain over the prior with its interval: a panel for each label, in it a row for each model or baseline.

    rows: "label", "model", "gain", "low", "high" (percent; low and high may be None), "skill".
    """
    alt = _alt()
    names = list(dict.fromkeys(row["model"] for row in rows))
    colours, shapes, _ = _model_styles(names)
    # The layers carry no data: the facet gives each panel the rows of its label.
    base = alt.Chart().encode(
        y=alt.Y("model:N", sort=names, title=None),
        color=alt.Color("model:N", scale=alt.Scale(domain=names, range=colours), legend=None),
    )
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("gain:Q", title="gain over the prior, %"),
        shape=alt.Shape("model:N", scale=alt.Scale(domain=names, range=shapes), legend=None),
        tooltip=[alt.Tooltip(f"{name}:N") for name in ("label", "model", "skill")]
        + [alt.Tooltip(f"{name}:Q", format=".1f") for name in ("gain", "low", "high")],
    )
    bars = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    zero = alt.Chart().mark_rule(strokeDash=[4, 3], color="var(--base)").encode(x=alt.datum(0))
    return _panels(alt, alt.layer(zero, bars, dots), rows, "label", height=ROW * len(names))


def parts(rows: Rows) -> dict[str, Any]:
    """Both parts of the gain with their intervals: a panel for each label, in it two rows for each model or baseline.

    rows: "label", "model", "part" ("touch", "direction"), "gain", "low", "high" (percent; low and high may be None),
        "skill". The mark of a part without skill is hollow.
    """
    return _paired(rows, "part", hollow="datum.skill !== 'skill'")


def two_runs(rows: Rows) -> dict[str, Any]:
    """Gains of two runs, a panel for each label. rows: "label", "model", "run", "gain", "low", "high" in percent."""
    return _paired(rows, "run")


def _paired(rows: Rows, by: str, hollow: str = "false") -> dict[str, Any]:
    """Two gains with intervals for each model, one above the other: of the two values of the field `by`.

    hollow: a Vega expression of the row; marks for which it is true are not filled.
    """
    alt = _alt()
    models, pair = (list(dict.fromkeys(row[name] for row in rows)) for name in ("model", by))
    base = alt.Chart().encode(
        y=alt.Y("model:N", sort=models, title=None),
        yOffset=alt.YOffset(f"{by}:N", sort=pair),
        color=alt.Color(f"{by}:N", scale=alt.Scale(domain=pair, range=RUNS), title=None),
    )
    texts = [name for name in ("label", "model", by, "skill") if any(name in row for row in rows)]
    colours = alt.Scale(domain=pair, range=RUNS)
    dots = base.mark_point(filled=False, size=60, opacity=1).encode(
        x=alt.X("gain:Q", title="gain over the prior, %"),
        shape=alt.Shape(f"{by}:N", scale=alt.Scale(domain=pair, range=["circle", "diamond"]), title=None),
        fill=alt.condition(hollow, alt.value("var(--ground)"), alt.Fill(f"{by}:N", scale=colours, title=None)),
        tooltip=[f"{name}:N" for name in texts]
        + [alt.Tooltip(f"{name}:Q", format=".1f") for name in ("gain", "low", "high")],
    )
    bars = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    zero = alt.Chart().mark_rule(strokeDash=[4, 3], color="var(--base)").encode(x=alt.datum(0))
    return _panels(alt, alt.layer(zero, bars, dots), rows, "label", height=2 * ROW * len(models))


def _panels(
    alt: Any, layered: Any, rows: Rows, by: str, height: int, independent: Sequence[str] = ()
) -> dict[str, Any]:
    """A panel for each value of the field `by`, at most three in a row; page.js sets their width.

    independent: the axes, "x" and "y", whose scale differs between panels.
    """
    order = list(dict.fromkeys(row[by] for row in rows))
    chart = layered.properties(width=250, height=height, data=alt.Data(values=list(rows)))
    faceted = chart.facet(facet=alt.Facet(f"{by}:N", sort=order, title=None), columns=3)
    return faceted.resolve_scale(**dict.fromkeys(independent, "independent")).to_dict()


def heat(rows: Rows, models: Sequence[str]) -> dict[str, Any]:
    """Gain by sector and label of the model that the reader chooses.

    rows: "sector", "label", "model", "gain" in percent, "skill".
    """
    alt = _alt()
    picked = alt.binding_select(options=list(models), name="model ")
    model = alt.selection_point(fields=["model"], bind=picked, value=models[0], name="pick")
    labels = list(dict.fromkeys(row["label"] for row in rows))
    # The scale is symmetric about 0. Gains beyond the 90th percentile, of few models, have the colour of its ends.
    far = sorted(abs(row["gain"]) for row in rows)[int(0.9 * (len(rows) - 1))] or 1.0
    scale = alt.Scale(range=LOSS_TO_GAIN, domain=[-far, 0, far], clamp=True)
    narrow = "width < 420"  # on a phone, horizontal axis labels would overlap
    upright = alt.Axis(
        labelAngle=alt.expr(f"{narrow} ? -60 : 0"), labelAlign=alt.expr(f"{narrow} ? 'right' : 'center'"),
        labelBaseline=alt.expr(f"{narrow} ? 'middle' : 'top'"),
    )  # fmt: skip
    base = (
        alt.Chart(alt.Data(values=list(rows)))
        .encode(
            x=alt.X("label:N", sort=labels, title=None, axis=upright),
            y=alt.Y("sector:N", title=None),
        )
        .add_params(model)
        .transform_filter(model)
    )
    fill = base.mark_rect().encode(
        color=alt.Color("gain:Q", scale=scale, title="gain, %"),
        tooltip=["sector:N", "label:N", "model:N", alt.Tooltip("gain:Q", format=".1f"), "skill:N"],
    )
    # A tilde marks "no skill", as in the tables of the console.
    text = f"format(datum.gain, '.1f') + (datum.skill === '{NO_SKILL}' ? '~' : '')"
    texts = base.transform_calculate(text=text).mark_text(fontSize=11, color="black").encode(text="text:N")
    chosen = alt.TitleParams(alt.expr("'model ' + pick_model"), anchor="start", fontSize=12, color="var(--text)")
    chart = (fill + texts).properties(width="container", title=chosen)
    return chart.properties(height=ROW * len({row["sector"] for row in rows})).to_dict()


def shares(rows: Rows) -> dict[str, Any]:
    """Class shares by sector: a panel for each label.

    rows: "label", "sector", "class", "share" in percent, "rows", "order" of the class in the bar.
    """
    alt = _alt()
    chart = alt.Chart(alt.Data(values=list(rows))).mark_bar(stroke="var(--ground)", strokeWidth=1).encode(
        x=alt.X("share:Q", stack="zero", title="share of rows, %", scale=alt.Scale(domain=[0, 100])),
        y=alt.Y("sector:N", title=None),
        color=alt.Color("class:N", scale=alt.Scale(domain=list(CLASSES), range=list(CLASSES.values())), title=None),
        order=alt.Order("order:Q"),
        tooltip=["label:N", "sector:N", "class:N", alt.Tooltip("share:Q", format=".2f"),
                 alt.Tooltip("rows:Q", format=",")],
    )  # fmt: skip
    return _panels(alt, chart, rows, "label", height=16 * len({row["sector"] for row in rows}))


def shares_by_year(rows: Rows) -> dict[str, Any]:
    """BUY and SELL shares by year for the sector that the reader chooses, the sector of the first row to begin with.

    rows: "sector", "label", "year", "class", "share" in percent, "rows".
    """
    alt = _alt()
    called = ["SELL", "BUY"]
    sectors = list(dict.fromkeys(row["sector"] for row in rows))
    picked = alt.binding_select(options=sectors, name="sector ")
    sector = alt.param(bind=picked, value=sectors[0], name="sector_of_years")
    base = alt.Chart().encode(
        x=alt.X("year:O", title=None),
        y=alt.Y("share:Q", title="share of rows, %"),
        color=alt.Color("class:N", scale=alt.Scale(domain=called, range=[CLASSES[name] for name in called]),
                        legend=_shapes(alt)),
        tooltip=["sector:N", "label:N", "year:O", "class:N", alt.Tooltip("share:Q", format=".2f"),
                 alt.Tooltip("rows:Q", format=",")],
    )  # fmt: skip
    dashes, shapes = [[6, 3], [1, 0]], ["triangle-down", "triangle-up"]
    lines = base.mark_line().encode(
        strokeDash=alt.StrokeDash("class:N", scale=alt.Scale(domain=called, range=dashes), title=None)
    )
    marks = base.mark_point(filled=True, size=60, opacity=1).encode(
        shape=alt.Shape("class:N", scale=alt.Scale(domain=called, range=shapes), title=None)
    )
    both = alt.layer(lines, marks).add_params(sector).transform_filter("datum.sector === sector_of_years")
    return _panels(alt, both, rows, "label", height=150)


def curve(
    rows: Rows, x: str, y: str, titles: tuple[str, str], diagonal: bool = False, log: bool = False
) -> dict[str, Any]:
    """A line for each model: a panel for each label.

    rows: "label", "model", "rows", and the fields x and y, which are fractions; with a field "base", which is constant
    for a label, also a horizontal line at its value.
    titles: of the x and y axes.  diagonal: also the line x = y.  log: symmetric log scales, linear below 0.01.
    """
    alt = _alt()
    names = list(dict.fromkeys(row["model"] for row in rows))
    colours, shapes, dashes = _model_styles(names)
    kind = {"type": "symlog", "constant": 0.01} if log else {}
    base = alt.Chart().encode(
        x=alt.X(f"{x}:Q", title=titles[0], scale=alt.Scale(**kind),
                axis=alt.Axis(format="~%", tickCount=4, labelOverlap=True)),
        y=alt.Y(f"{y}:Q", title=titles[1], scale=alt.Scale(**kind),
                axis=alt.Axis(format="~%", tickCount=5, labelOverlap=True)),
        color=alt.Color("model:N", scale=alt.Scale(domain=names, range=colours), legend=_shapes(alt)),
        tooltip=["label:N", "model:N", alt.Tooltip(f"{x}:Q", format=".2%"), alt.Tooltip(f"{y}:Q", format=".2%"),
                 alt.Tooltip("rows:Q", format=",")],
    )  # fmt: skip
    lines = base.mark_line(interpolate="linear").encode(
        strokeDash=alt.StrokeDash("model:N", scale=alt.Scale(domain=names, range=dashes), title=None),
        order=alt.Order(f"{x}:Q"),
    )
    marks = base.mark_point(filled=True, size=30, opacity=1).encode(
        shape=alt.Shape("model:N", scale=alt.Scale(domain=names, range=shapes), title=None)
    )
    layers = [lines, marks]
    if rows and "base" in rows[0]:
        layers.insert(0, alt.Chart().mark_rule(color="var(--base)", strokeDash=[4, 3]).encode(y="mean(base):Q"))
    if diagonal:
        equal = alt.Chart().mark_line(color="var(--base)", strokeDash=[4, 3])
        layers.insert(0, equal.encode(x=f"{x}:Q", y=alt.Y(f"{x}:Q", title=titles[1])))
    independent = ("x", "y") if log else ("y",)
    return _panels(alt, alt.layer(*layers), rows, "label", height=200, independent=independent)


def by_number(rows: Rows, x: str, y: str, titles: tuple[str, str]) -> dict[str, Any]:
    """Lines over whole numbers: a panel for each label.  rows: "label", "model", the fields x (integers) and y."""
    alt = _alt()
    names = list(dict.fromkeys(row["model"] for row in rows))
    colours, shapes, dashes = _model_styles(names)
    base = alt.Chart().encode(
        x=alt.X(f"{x}:O", title=titles[0], axis=alt.Axis(labelAngle=0)),
        y=alt.Y(f"{y}:Q", title=titles[1]),
        color=alt.Color("model:N", scale=alt.Scale(domain=names, range=colours), legend=_shapes(alt)),
        tooltip=["label:N", "model:N", f"{x}:O", alt.Tooltip(f"{y}:Q", format=".1f")],
    )
    lines = base.mark_line().encode(
        strokeDash=alt.StrokeDash("model:N", scale=alt.Scale(domain=names, range=dashes), title=None)
    )
    marks = base.mark_point(filled=True, size=40, opacity=1).encode(
        shape=alt.Shape("model:N", scale=alt.Scale(domain=names, range=shapes), title=None)
    )
    return _panels(alt, alt.layer(lines, marks), rows, "label", height=180)


def bars(rows: Rows, name: str, value: str, title: str) -> dict[str, Any]:
    """Horizontal bars, largest first. rows: the fields name and value."""
    alt = _alt()
    chart = alt.Chart(alt.Data(values=list(rows))).mark_bar(color="var(--m1)").encode(
        x=alt.X(f"{value}:Q", title=title),
        y=alt.Y(f"{name}:N", sort="-x", title=None),
        tooltip=[f"{name}:N", alt.Tooltip(f"{value}:Q", format=".2f")],
    )  # fmt: skip
    return chart.properties(width="container", height=ROW * len(rows)).to_dict()


def over_time(rows: Rows, field: str, title: str) -> dict[str, Any]:
    """Lines over dates: a panel for each label.  rows: "label", "model", "time" as ISO dates, and the field."""
    alt = _alt()
    names = list(dict.fromkeys(row["model"] for row in rows))
    colours, _, dashes = _model_styles(names)
    kept = [{name: row[name] for name in ("label", "model", "time", field)} for row in rows]
    chart = alt.Chart().mark_line(strokeWidth=1.5).encode(
        x=alt.X("time:T", title=None, axis=alt.Axis(tickCount=4, labelOverlap=True)),
        y=alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=False)),
        color=alt.Color("model:N", scale=alt.Scale(domain=names, range=colours), title=None),
        strokeDash=alt.StrokeDash("model:N", scale=alt.Scale(domain=names, range=dashes), title=None),
        tooltip=["label:N", "model:N", "time:T", alt.Tooltip(f"{field}:Q", format=".4g")],
    )  # fmt: skip
    return _panels(alt, chart, kept, "label", height=180)


def counts(rows: Rows) -> dict[str, Any]:
    """Number of rows by probability: a panel for each label.  rows: "label", "model", "probability", "rows"."""
    alt = _alt()
    names = list(dict.fromkeys(row["model"] for row in rows))
    colours, _, dashes = _model_styles(names)
    chart = alt.Chart().mark_line(interpolate="step").encode(
        x=alt.X("probability:Q", title="probability", scale=alt.Scale(type="symlog", constant=0.01),
                axis=alt.Axis(format="~%")),
        y=alt.Y("rows:Q", title="rows", scale=alt.Scale(type="log"), axis=alt.Axis(format="~s", tickCount=4)),
        color=alt.Color("model:N", scale=alt.Scale(domain=names, range=colours), title=None),
        strokeDash=alt.StrokeDash("model:N", scale=alt.Scale(domain=names, range=dashes), title=None),
        order=alt.Order("probability:Q"),
        tooltip=["label:N", "model:N", alt.Tooltip("probability:Q", format=".2%"),
                 alt.Tooltip("rows:Q", format=",")],
    )  # fmt: skip
    return _panels(alt, chart, rows, "label", height=130)


def timeline(rows: Rows, lanes: Sequence[str]) -> dict[str, Any]:
    """Tasks over time: a panel for each lane (thread or worker), in it a row for each stage.

    rows: "lane", "stage", "unit" (the task), "begin" and "end" in seconds since the start; the stage "idle" is the time
    between two tasks.  lanes: their order.
    """
    alt = _alt()
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    chart = alt.Chart(alt.Data(values=list(rows))).mark_bar(stroke="var(--ground)", strokeWidth=0.3).encode(
        x=alt.X("begin:Q", title="seconds since the start"),
        x2="end:Q",
        y=alt.Y("stage:N", title=None, sort=stages, scale=alt.Scale(paddingInner=0.15)),
        color=alt.condition("datum.stage === 'idle'", alt.value("var(--base)"), alt.value("var(--m1)")),
        tooltip=["lane:N", "stage:N", "unit:N", alt.Tooltip("begin:Q", format=".1f"),
                 alt.Tooltip("end:Q", format=".1f")],
    ).properties(width=250, height=alt.Step(15))  # fmt: skip
    head = alt.Header(orient="top", labelAnchor="start")
    faceted = chart.facet(facet=alt.Facet("lane:N", sort=list(lanes), title=None, header=head), columns=1, spacing=8)
    return faceted.resolve_scale(y="independent").to_dict()


def memory(rows: Rows, title: str = "GiB") -> dict[str, Any]:
    """Memory over time.  rows: "what" was measured, "seconds" since the start, "gib"."""
    alt = _alt()
    kinds = list(dict.fromkeys(row["what"] for row in rows))
    colours = ["var(--m1)", "var(--m2)", "var(--m3)", "var(--m5)"][: len(kinds)]
    dashes = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]][: len(kinds)]
    chart = alt.Chart(alt.Data(values=list(rows))).mark_line(interpolate="step-after").encode(
        x=alt.X("seconds:Q", title="seconds since the start"),
        y=alt.Y("gib:Q", title=title),
        color=alt.Color("what:N", scale=alt.Scale(domain=kinds, range=colours), title=None),
        strokeDash=alt.StrokeDash("what:N", scale=alt.Scale(domain=kinds, range=dashes), title=None),
        tooltip=["what:N", alt.Tooltip("seconds:Q", format=".1f"), alt.Tooltip("gib:Q", format=".3f")],
    )  # fmt: skip
    return chart.properties(width="container", height=170).to_dict()
