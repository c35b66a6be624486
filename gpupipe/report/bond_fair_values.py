"""The sections on fair values: quotes of the last date against them, rich and cheap bonds, predicted spreads."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.report import bond_charts, bond_words
from gpupipe.report.bond_charts import CHEAP, FAIR, QUOTE, RICH, TENTH
from gpupipe.report.page import Figure, Section, Shown, Table

Row = Mapping[str, Any]
SIGNALS, PREDICTIONS = "bonds/signals.parquet", "bonds/predictions.parquet"  # in OUT, written by the workload
LEAST_SCALE = 0.25  # percent, as the models' unit of changes
MOST_POINTS = 800  # of a panel of a scatter chart
MOST_BONDS = 15  # cheap ones and rich ones of the chart of intervals
MOST_LISTED, MOST_ROWS = 25, 100  # of the table of cheap and of rich bonds each, and of the folded one of the others
COLUMNS = [
    ("bond", False), ("", False), ("issuer", False), ("rating", False), ("clean price", True), ("fair price", True),
    ("spread, %", True), ("fair spread, %", True), ("yield, %", True), ("duration", True),
]  # fmt: skip


def fair_values(out: pathlib.Path, whole: Row) -> Section | None:
    """Quote against fair value on the last date; None without rows."""
    rows = [row for row in read(out, SIGNALS) if is_known(row, "clean", "fair_clean", "spread", "fair_spread")]
    if not rows:
        return None
    shown = spread_out([row for row in rows if row["signal"] == FAIR], MOST_POINTS)
    shown += [row for row in rows if row["signal"] != FAIR][:MOST_POINTS]
    panels = {"clean price": ("clean", "fair_clean"), "spread, %": ("spread", "fair_spread")}
    points = [
        {"panel": panel, "x": row[x], "y": row[y], "kind": row["signal"], "bond": row["bond"]}
        for panel, (x, y) in panels.items() for row in shown
    ]  # fmt: skip
    distance = np.abs([row["difference"] for row in rows])
    by, expected = f"the model {whole['bonds']['chosen']}", "predicted"
    meaning = "the quoted one moved as bonds that were predicted alike moved on validation, on average, against others"
    if not bond_words.has_models(whole["bonds"]):
        by, expected, meaning = "the curve fit", "fair", "that of the curve of the date"
    text = [
        f"{bond_words.of_kind(whole['data'])}{len(rows):,} bonds on {rows[0]['date']}, by {by}. The fair spread is "
        f"{meaning}; the fair price is that of the yield which this spread gives today. Quotes lie "
        f"{distance.mean():.2f} from their fair prices on average, in percent of par, and {distance.max():.2f} at "
        "most.",
    ]
    axes = ("quoted spread, %", f"{expected} less quoted, bp")
    chart = bond_charts.scatter(_expected(shown), axes, level=True)
    caption = f"Quoted and fair, price and spread; dashed: both equal{_of_all(len(shown), len(rows), 'bonds')}"
    return Section("Fair values", text, [
        Figure(caption, bond_charts.scatter(points, ("quoted", "fair"))),
        Figure(f"{expected.capitalize()} less quoted spread of each bond, by its quoted spread", chart),
    ])  # fmt: skip


def rich_and_cheap(out: pathlib.Path, whole: Row) -> Section | None:
    """Bonds whose quoted spread lies outside the interval of the fair one; None without rows."""
    rows = read(out, SIGNALS)
    if not rows:
        return None
    found = {side: [row for row in rows if row["signal"] == side] for side in (CHEAP, RICH)}
    interval = "The interval holds 90 % of the residuals of the curve fit in the bond's rating."
    if bond_words.has_models(whole["bonds"]):
        interval = (
            "The 90 % interval is of the mean move of the validation quotes that the model predicted alike; a single "
            "bond moves by far more."
        )
    text = [
        f"{bond_words.of_kind(whole['data'])}{bond_words.counts(rows)}. A bond is cheap where even the high end of its "
        f"fair spread lies below the quoted one, and rich where the low end lies above. {interval}",
        bond_words.skill_of_signals(whole["bonds"]),
    ]
    top = [row for side in (CHEAP, RICH) for row in found[side][:MOST_BONDS]]
    listed = [row for side in (CHEAP, RICH) for row in found[side][:MOST_LISTED]]
    parts: list[Any] = []
    if top:
        caption = "Quoted spread beside the fair spread (tick) and its interval (grey), largest predicted move first"
        parts.append(Figure(caption, bond_charts.intervals([_interval(row) for row in top])))
    if listed:
        more = _of_all(len(listed), sum(map(len, found.values())), "rich and cheap bonds")
        parts.append(Table(f"Rich and cheap bonds{more}", COLUMNS, [_row(row) for row in listed], digits=3))
    within = [row for row in rows if row["signal"] == FAIR]
    if within:
        nearest = within[:MOST_ROWS]
        more = _of_all(len(nearest), len(within), "bonds")
        caption = f"Bonds within their intervals, largest predicted move first{more}"
        parts.append(Table(caption, COLUMNS, [_row(row) for row in nearest], digits=3, folded=True))
    return Section("Rich and cheap bonds", text, parts)


def sealed_predictions(out: pathlib.Path, whole: Row) -> Section | None:
    """Predicted against happened spreads of the sealed test; None where no row has both."""
    bonds = whole["bonds"]
    name = bonds["chosen"]
    rows = [row for row in read(out, PREDICTIONS) if is_known(row, "spread", "next_spread", name)]
    if not rows:
        return None
    now, after, expected = (np.array([row[key] for row in rows]) for key in ("spread", "next_spread", name))
    date = np.array([row["date"].timestamp() for row in rows])
    moved, happened = (against_others(change, now, date) for change in (expected - now, after - now))
    level, change = "spread at the next date, %", "its move against the others, % of the spread"
    points = []
    for k in spread_out(range(len(rows)), MOST_POINTS):
        about = {"kind": QUOTE, "bond": f"{rows[k]['bond']}, {rows[k]['date']:%Y-%m-%d}"}
        points.append({"panel": level, "x": expected[k], "y": after[k], **about})
        points.append({"panel": change, "x": moved[k], "y": happened[k], **about})
    tenths = tenths_of(moved, happened)
    points += [
        {"panel": change, "x": x, "y": y, "kind": TENTH, "bond": f"tenth {k + 1}, {n:,} quotes"}
        for k, (x, y, n) in enumerate(tenths)
    ]
    text = [
        f"{len(rows):,} quotes of bonds whose issuers no model was trained on, from {bonds['split']['test_from']} to "
        f"{bonds['split']['test_to']}. The spread itself hardly moves between two dates, so that any model predicts it "
        f"well; what counts is how it moves against the others of its date, in percent of the spread. The moves that "
        f"happened have a standard deviation of {happened.std():.2f} %, the predicted ones of {moved.std():.2f} %; "
        f"their correlation is {correlation(moved, happened)}.",
    ]
    caption = (
        f"Predicted by {name} and happened; dashed: both equal; diamonds: means of tenths of the predicted moves"
        f"{_of_all(min(MOST_POINTS, len(rows)), len(rows), 'quotes')}"
    )
    columns = [("tenth of the predicted moves", True), ("quotes", True), ("mean predicted, %", True),
               ("mean happened, %", True)]  # fmt: skip
    table = [[k + 1, n, x, y] for k, (x, y, n) in enumerate(tenths)]
    return Section("Predicted spreads of the sealed test", text, [
        Figure(caption, bond_charts.scatter(points, ("predicted", "happened"))),
        Table("Tenths of the predicted moves", columns, table, digits=4, folded=True),
    ])  # fmt: skip


def against_others(change: np.ndarray, spread: np.ndarray, date: np.ndarray) -> np.ndarray:
    """Changes in percent of the spread, of `LEAST_SCALE` where it is smaller, less the mean of their date.

    >>> against_others(np.array([0.1, 0.3, 9.0]), np.array([1.0, 1.0, 2.0]), np.array([0, 0, 1])).round(6).tolist()
    [-10.0, 10.0, 0.0]
    """
    relative = 100 * change / np.maximum(spread, LEAST_SCALE)
    on_date = np.unique(date, return_inverse=True)[1].ravel()
    mean = np.bincount(on_date, weights=relative) / np.bincount(on_date)
    return np.asarray(relative - mean[on_date])


def tenths_of(predicted: np.ndarray, happened: np.ndarray) -> list[tuple[float, float, int]]:
    """Mean predicted, mean happened and number of rows of each tenth of the predicted values, rising.

    >>> tenths_of(np.arange(20.0), 2 * np.arange(20.0))[0]
    (0.5, 1.0, 2)
    """
    order = np.argsort(predicted, kind="stable")
    return [
        (float(predicted[rows].mean()), float(happened[rows].mean()), len(rows))
        for rows in np.array_split(order, 10) if len(rows)
    ]  # fmt: skip


def correlation(first: np.ndarray, second: np.ndarray) -> str:
    """The correlation in words.

    >>> correlation(np.arange(3.0), np.arange(3.0)), correlation(np.zeros(3), np.arange(3.0))
    ('1.00', 'not known')
    """
    if len(first) < 3 or not first.std() or not second.std():
        return "not known"
    return f"{np.corrcoef(first, second)[0, 1]:.2f}"


def spread_out(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, equally spaced.

    >>> spread_out(range(5), 3)
    [0, 2, 4]
    """
    if len(items) <= most:
        return list(items)
    return [items[k] for k in np.linspace(0, len(items) - 1, most).round().astype(int)]


def read(out: pathlib.Path, name: str) -> list[dict[str, Any]]:
    """The rows of a table of OUT; none without the file."""
    import pyarrow.parquet as pq

    return pq.read_table(out / name).to_pylist() if (out / name).exists() else []


def is_known(row: Row, *names: str) -> bool:
    """Whether a row has a finite number under each name.

    >>> is_known({"spread": 1.0}, "spread"), is_known({"spread": None}, "spread")
    (True, False)
    """
    return all(row[name] is not None and bool(np.isfinite(row[name])) for name in names)


def _expected(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The change of the spread that the model expects of each bond, in basis points."""
    return [
        {"panel": "expected change", "x": row["spread"], "y": 100 * (row["predicted_spread"] - row["spread"]),
         "kind": row["signal"], "bond": row["bond"]}
        for row in rows
    ]  # fmt: skip


def _interval(row: Row) -> dict[str, Any]:
    ends = {"fair": row["fair_spread"], "low": row["fair_low"], "high": row["fair_high"]}
    return {"bond": f"{row['bond']} ({row['rating']})", "spread": row["spread"], **ends, "signal": row["signal"]}


def _row(row: Row) -> list[Any]:
    texts, figures = ("bond", "signal", "issuer", "rating"), ("clean", "fair_clean", "spread")
    fair, low, high = (row[name] for name in ("fair_spread", "fair_low", "fair_high"))
    interval = Shown(fair, f"{fair:.3f} [{low:.3f}, {high:.3f}]") if is_known(row, "fair_low", "fair_high") else fair
    return [*(row[name] for name in (*texts, *figures)), interval, row["yield"], row["modified"]]


def _of_all(shown: int, n: int, what: str) -> str:
    return f"; {shown:,} of {n:,} {what} are shown" if shown < n else ""
