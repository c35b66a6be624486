"""Charts of the section on ranking, and of calibration by month and volatility; see charts.py for what they share."""

from __future__ import annotations

from typing import Any

from gpupipe.report.charts import ROW, Rows, _alt, _model_styles, _panels, _shapes


def _zero(alt: Any) -> Any:
    return alt.Chart().mark_rule(strokeDash=[4, 3], color="var(--base)").encode(y=alt.datum(0))


def mean_rank_ic(rows: Rows) -> dict[str, Any]:
    """Mean rank IC with its interval: a panel for each label, in it a row for each model.

    rows: "label", "model", "rank_ic", "low", "high" (low and high may be None).
    """
    alt = _alt()
    names = list(dict.fromkeys(row["model"] for row in rows))
    colours, shapes, _ = _model_styles(names)
    base = alt.Chart().encode(
        y=alt.Y("model:N", sort=names, title=None),
        color=alt.Color("model:N", scale=alt.Scale(domain=names, range=colours), legend=None),
    )
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("rank_ic:Q", title="mean rank IC"),
        shape=alt.Shape("model:N", scale=alt.Scale(domain=names, range=shapes), legend=None),
        tooltip=["label:N", "model:N"]
        + [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("rank_ic", "low", "high")],
    )
    bars = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    zero = alt.Chart().mark_rule(strokeDash=[4, 3], color="var(--base)").encode(x=alt.datum(0))
    return _panels(alt, alt.layer(zero, bars, dots), rows, "label", height=ROW * len(names))


def rolling_ic(rows: Rows) -> dict[str, Any]:
    """The rank IC of each date, and its rolling mean in a band: a panel for each label.

    rows: "label", "time" as ISO dates, "rank_ic", and "mean", "low", "high", which are None before the first window.
    """
    alt = _alt()
    time = alt.X("time:T", title=None, axis=alt.Axis(tickCount=4, labelOverlap=True))
    tooltip = ["label:N", "time:T", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("rank_ic", "mean"))]
    dots = (
        alt.Chart()
        .mark_point(filled=True, size=12, opacity=0.6, color="var(--base)")
        .encode(x=time, y=alt.Y("rank_ic:Q", title="rank IC"), tooltip=tooltip)
    )
    windows = "isValid(datum.mean)"
    band = alt.Chart().transform_filter(windows).mark_area(opacity=0.25, color="var(--m1)")
    line = alt.Chart().transform_filter(windows).mark_line(strokeWidth=2, color="var(--m1)")
    layers = alt.layer(
        dots, band.encode(x=time, y="low:Q", y2="high:Q"), line.encode(x=time, y="mean:Q", tooltip=tooltip), _zero(alt)
    )
    return _panels(alt, layers, rows, "label", height=160)


def quantile_returns(rows: Rows) -> dict[str, Any]:
    """Mean return of each quantile of the score, minus the date's mean, with its interval: a panel for each label.

    rows: "label", "quantile" (1 is the lowest), "return", "low", "high" in percent (low and high may be None).
    """
    alt = _alt()
    quantile = alt.X("quantile:O", title="quantile of the score, highest on the right", axis=alt.Axis(labelAngle=0))
    tooltip = ["label:N", "quantile:O", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("return", "low", "high"))]
    bars = (
        alt.Chart()
        .mark_bar(color="var(--m1)")
        .encode(x=quantile, y=alt.Y("return:Q", title="return over the mean, %"), tooltip=tooltip)
    )
    whiskers = alt.Chart().mark_rule(color="var(--text)").encode(x=quantile, y="low:Q", y2="high:Q")
    # A scale does not ask the second end of a rule.
    ends = alt.Chart().mark_point(opacity=0).encode(x=quantile, y="high:Q")
    return _panels(alt, alt.layer(bars, whiskers, ends, _zero(alt)), rows, "label", height=150, independent=("y",))


def lines_by_date(rows: Rows, title: str, zero: bool = True) -> dict[str, Any]:
    """One or more lines over dates: a panel for each label.

    rows: "label", "what" (name of the line), "time" as ISO dates, "value" (None makes a gap).  title: of the y axis.
    zero: whether a line at 0 is drawn.
    """
    alt = _alt()
    names = list(dict.fromkeys(row["what"] for row in rows))
    colours = ["var(--m1)", "var(--m2)", "var(--m3)"][: len(names)]
    dashes = [[1, 0], [6, 3], [2, 2]][: len(names)]
    legend = {"title": None} if len(names) > 1 else {"legend": None}
    line = (
        alt.Chart()
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X("time:T", title=None, axis=alt.Axis(tickCount=4, labelOverlap=True)),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=zero)),
            color=alt.Color("what:N", scale=alt.Scale(domain=names, range=colours), **legend),
            strokeDash=alt.StrokeDash("what:N", scale=alt.Scale(domain=names, range=dashes), **legend),
            tooltip=["label:N", "what:N", "time:T", alt.Tooltip("value:Q", format=".3f")],
        )
    )
    layers = alt.layer(line, _zero(alt)) if zero else alt.layer(line)
    return _panels(alt, layers, rows, "label", height=150, independent=("y",))


def expected_and_observed(rows: Rows, title: str) -> dict[str, Any]:
    """Expected frequency as a tick, observed frequency as a mark with its interval: a panel for each label.

    rows: "label", "slice", "class" (SELL or BUY), "expected", "observed", "low", "high" in percent (low and high may be
    None), "rows", "off" (standard errors, or None).  title: of the x axis.
    """
    alt = _alt()
    names = [name for name in ("SELL", "BUY") if any(row["class"] == name for row in rows)]
    colours, shapes = {"SELL": "var(--sell)", "BUY": "var(--buy)"}, {"SELL": "triangle-down", "BUY": "triangle-up"}
    slices = list(dict.fromkeys(row["slice"] for row in rows))
    base = alt.Chart().encode(
        x=alt.X("slice:O", title=title, sort=slices, axis=alt.Axis(labelOverlap=True, labelAngle=0)),
        xOffset=alt.XOffset("class:N", sort=names, scale=alt.Scale(paddingOuter=0.5)),
        color=alt.Color("class:N", scale=alt.Scale(domain=names, range=[colours[name] for name in names]),
                        legend=_shapes(alt)),
        tooltip=["label:N", "slice:O", "class:N", *(alt.Tooltip(f"{name}:Q", format=".2f")
                 for name in ("expected", "observed")), alt.Tooltip("off:Q", title="standard errors off", format=".1f"),
                 alt.Tooltip("rows:Q", format=",")],
    )  # fmt: skip
    expected = base.mark_tick(orient="horizontal", thickness=2, width=14, color="var(--text)").encode(
        y=alt.Y("expected:Q", title="frequency, %"), color=alt.value("var(--text)")
    )
    whiskers = base.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q")
    observed = base.mark_point(filled=True, size=50, opacity=1).encode(
        y="observed:Q",
        shape=alt.Shape("class:N", scale=alt.Scale(domain=names, range=[shapes[name] for name in names]), title=None),
    )
    ends = base.mark_point(opacity=0).encode(y="high:Q")  # a scale does not ask the second end of a rule
    layers = alt.layer(whiskers, observed, expected, ends)
    return _panels(alt, layers, rows, "label", height=170, independent=("y",))
