"""Sections of the page of a finished run, and of the page that compares two runs."""

from __future__ import annotations

import json
import pathlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpupipe.artifacts.manifest import read_manifest
from gpupipe.artifacts.published_files import group_by_of
from gpupipe.artifacts.summary import NEXT_BAR, baseline_names, has_calls
from gpupipe.data import HEADER
from gpupipe.data.report import counted
from gpupipe.dataset import window_summary
from gpupipe.evaluation import calibration
from gpupipe.evaluation import calibration_slices as by_slice
from gpupipe.report import bond_words, charts, kept_returns, sentences
from gpupipe.report.agent_learning import learning_curves
from gpupipe.report.agent_positions import positions
from gpupipe.report.agent_savings import savings
from gpupipe.report.agent_sealed import dates_of_tests, drawdowns, lead_sentence, sealed_tests, verdict_sentence
from gpupipe.report.bond_models import compared_models
from gpupipe.report.bond_page import bond_sections
from gpupipe.report.calibration_slices import calibration_by_slice
from gpupipe.report.expected_returns import expected_returns
from gpupipe.report.folds import folds
from gpupipe.report.formatting import title_of_label, titles_in_sentences, to_percent
from gpupipe.report.group_words import in_bonds, in_symbols, of_bonds
from gpupipe.report.leaderboard import by_sector, leaderboard, touch_and_direction
from gpupipe.report.loss_curves import FILE as HISTORY
from gpupipe.report.loss_curves import loss_curves
from gpupipe.report.next_return import next_return, summary_sentence
from gpupipe.report.page import Figure, Picture, Section, Table
from gpupipe.report.portfolio import portfolio
from gpupipe.report.position_paths import position_paths
from gpupipe.report.predictions import probabilities
from gpupipe.report.run_details import flat, run_section, time_and_memory
from gpupipe.report.signals import signals
from gpupipe.report.tear_sheet import ranking
from gpupipe.report.trading import backtest
from gpupipe.report.volatility_value import volatility_value
from gpupipe.report.warnings_section import warnings
from gpupipe.runtime import run_log, timeline

Row = Mapping[str, Any]
MOST_FEATURES = 30  # features in the chart of importances; the table has all


def run_sections(out: pathlib.Path, whole: Mapping[str, Any]) -> list[Section]:
    """All sections of a finished run for which OUT holds data.  whole: its summary."""
    events = run_log.read(out / run_log.FILE) if (out / run_log.FILE).exists() else []
    events = [event for event in events if "event" in event and "time" in event]
    log = timeline.find(events, whole["run_key"])
    calls, returns = has_calls(whole), kept_returns.read(out)
    sections = [
        verdict(whole),
        warnings(out, whole, events),
        signals(out, whole) if calls else None,
        *bond_sections(out, whole, log),
        sealed_tests(out, whole),
        drawdowns(out, whole),
        positions(out, whole),
        learning_curves(out, whole),
        savings(whole),
        data(whole),
        labels(out),
        split(out, whole),
        loss_curves(_table(out / HISTORY), len({row["sector"] for row in whole["models"]})),
        leaderboard(whole),
        touch_and_direction(whole),
        by_sector(whole),
        ranking(out, whole),
        probabilities(_table(out / calibration.CURVES), baseline_names(whole)),
        expected_returns(whole),
        next_return(whole, returns),
        position_paths(whole, returns),
        volatility_value(whole),
        calibration_by_slice(_table(out / by_slice.FILE)) if calls else None,
        importance(out),
        folds(whole),
        backtest(out, whole) if calls else None,
        portfolio(out, whole) if calls else None,
        time_and_memory(whole, log),
        run_section(whole, events),
        skipped(whole),
    ]
    shown = [section for section in sections if section is not None]
    if whole.get("bonds"):
        return list(map(in_bonds, shown))
    by_symbol = group_by_of(read_manifest(out) or {}) == "symbol"
    return list(map(in_symbols, shown)) if by_symbol else shown


def lead(whole: Mapping[str, Any]) -> list[str]:
    """A sentence on models, data and device, and one on the dates of the split, where it has dates.

    A workload that wants no models, as its policies are none that a loss ranks, has no count of them.
    """
    about_data, split = whole["data"], whole["split"]
    n_sectors = len(about_data["sectors"]) if "sectors" in about_data else None
    device = f"{whole['device']['kind']} ({whole['device']['name']})"
    symbols = f"{about_data['symbols']:,} symbol{'' if about_data['symbols'] == 1 else 's'}"
    sectors = f" in {counted(n_sectors, 'sector')}" if n_sectors else ""
    models = f"{whole['n_models']} of {whole['n_models_wanted']} models from " if whole["n_models_wanted"] else ""
    text = [
        f"{models}{about_data['rows_kept']:,} bars of {symbols}{sectors}, preset {whole['settings']['preset']}, in "
        f"{whole['elapsed_s']:.0f} s on {device}."
    ]
    if split:
        text.append(
            f"Training rows begin on {split['train_from']}, validation rows on {split['validation_from']}. The sealed "
            f"test has the rows from {split['test_from']} to {split['test_to']}: no model, parameter or cutoff was "
            "chosen on them."
        )
    if sentence := lead_sentence(whole):
        text.append(sentence)
    return [*map(of_bonds, text), *bond_words.lead(whole)] if whole.get("bonds") else text


def verdict(whole: Mapping[str, Any]) -> Section | None:
    """Sentences on baselines, skill and stacking, or on the sealed tests of an agent; None where there are none."""
    text = [verdict_sentence(whole), summary_sentence(whole.get("returns") or {}), *bond_words.verdict_lines(whole)]
    if whole["models"]:
        titles = titles_in_sentences(whole)
        n_sectors = len({row["sector"] for row in whole["models"]})
        text = [
            *sentences.verdict_sentences(whole["verdict"], n_sectors, titles),
            *sentences.skill_sentences(whole["families"], whole["intervals"], titles=titles),
            sentences.stacking_sentence(whole["stacking"]),
            *text,
        ]
    found = [line for line in text if line]
    return Section("Verdict", found) if found else None


def comparison_sections(names: Sequence[str], wholes: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Two runs side by side.  names: their titles on the page.  wholes: their summaries."""
    verdicts = [
        Section(f"Verdict of {name}", [*lead(whole), *(judged.text if (judged := verdict(whole)) else ())])
        for name, whole in zip(names, wholes, strict=True)
    ]
    columns = [("", False), *((name, False) for name in names)]
    settings = [dict(flat(whole["settings"])) for whole in wholes]
    differing = [
        [key, *(flat_settings.get(key, "") for flat_settings in settings)]
        for key in dict.fromkeys([*settings[0], *settings[1]]) if settings[0].get(key) != settings[1].get(key)
    ]  # fmt: skip
    facts = _facts(wholes)
    same_test = wholes[0]["split"] == wholes[1]["split"] and all(
        first == second for name, first, second in facts if name in ("data", "sealed test")
    )
    text = (
        "Both runs were judged on the same rows."
        if same_test
        else "The runs were judged on different rows, which alone can make their gains differ."
    )
    runs = Section("Runs", [text], [
        Table("Data, models, time and device", columns, facts),
        Table("Settings that differ" if differing else "No setting differs", columns, differing),
    ])  # fmt: skip
    gains = [_compared_gains(names, wholes)] if any(whole["averages"] for whole in wholes) else []
    gains += compared_models(names, wholes)
    return [runs, *gains, *verdicts]


def _facts(wholes: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Rows of a name and a cell for each run."""
    rows = of_bonds("bars") if all(whole.get("bonds") for whole in wholes) else "bars"
    cells: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "data": lambda whole: whole["data"].get("data_hash", "")[:12],
        rows: lambda whole: f"{whole['data']['rows_kept']:,}",
        "sealed test": _test_dates,
        "models": lambda whole: whole["n_models"],
        "seconds": lambda whole: f"{whole['elapsed_s']:.1f}",
        "peak memory, GiB": lambda whole: f"{whole['peak_bytes'] / 2**30:.2f}",
        "device": lambda whole: whole["device"]["kind"],
    }
    return [[name, *(cell(whole) for whole in wholes)] for name, cell in cells.items()]


def _test_dates(whole: Mapping[str, Any]) -> str:
    """The dates of the sealed test; empty for a split without dates, unless an agent or bonds have some."""
    split = whole["split"]
    if split:
        return f"{split['test_from']} to {split['test_to']}"
    return dates_of_tests(whole) or bond_words.dates_of_test(whole)


def _compared_gains(names: Sequence[str], wholes: Sequence[Mapping[str, Any]]) -> Section:
    averages = [{(a["label"], a["model"]): a for a in whole["averages"]} for whole in wholes]
    baselines = {name for whole in wholes for name in baseline_names(whole)}
    rows, table = [], []
    for key in dict.fromkeys([*averages[0], *averages[1]]):
        label, model = title_of_label(key[0]), key[1]
        gains = [to_percent(by_key[key]["test_gain_over_prior"]) if key in by_key else None for by_key in averages]
        for name, gain, by_key in zip(names, gains, averages, strict=True):
            if gain is not None and model not in baselines:
                low, high = (to_percent(by_key[key].get(f"test_gain_{end}")) for end in ("low", "high"))
                rows.append({"label": label, "model": model, "run": name, "gain": gain, "low": low, "high": high})
        first, second = gains
        table.append([label, model, *gains, None if first is None or second is None else second - first])
    columns = [("label", False), ("model", False), *((name, True) for name in names), ("difference", True)]
    return Section("Gains", [], [
        Figure("Gain over the prior on the sealed test, with 95 % intervals", charts.two_runs(rows)),
        Table("Gains over the prior, %", columns, table),
    ])  # fmt: skip


def data(whole: Mapping[str, Any]) -> Section:
    """Source, number of rows read and kept, findings of the validation, and symbols by sector."""
    about_data = whole["data"]
    if "findings" not in about_data:
        frame = f"A data frame with {about_data['rows_kept']:,} bars of {about_data['symbols']} symbols."
        return Section("Data", [frame])
    columns = [(name, k in (2, 3)) for k, name in enumerate(HEADER)]
    keys = ("kind", "action", "rows", "symbols", "example")
    rows = [[finding[key] for key in keys] for finding in about_data["findings"]]
    text = [
        f"Source: {about_data['description']}; {about_data['reader']}.", *map(_sentence, about_data["notes"]),
        f"{about_data['rows_read']:,} rows read, {about_data['rows_kept']:,} kept, "
        f"{about_data['rows_quarantined']:,} quarantined; {about_data['first_time']} to {about_data['last_time']}.",
    ]  # fmt: skip
    text += [] if rows else ["Validation found no problem."]
    parts: list[Any] = [Table("Findings of the validation", columns, rows)] if rows else []
    symbols = [[sector, n] for sector, n in about_data["sectors"].items()]
    if symbols:  # none where symbols have no sector, and are groups of their own
        parts.append(Table("Symbols by sector", [("sector", False), ("symbols", True)], symbols, folded=True))
    return Section("Data", text, parts)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def labels(out: pathlib.Path) -> Section | None:
    """Class shares of each label by sector, and by year for the sector that the reader chooses.

    None where OUT has no shares of these classes.
    """
    lines = _table(out / calibration.SHARES)
    if not lines or not all(f"n_{name.lower()}" in lines[0] for name in charts.CLASSES):
        return None
    by_sector = _totals(lines, "sector")
    sectors = list(dict.fromkeys(line["sector"] for line in lines))
    sector_lines = [(sector, [line for line in lines if line["sector"] == sector]) for sector in sectors]
    by_year = [
        {**row, "sector": sector}
        for sector, some_lines in [("all sectors", lines), *(sector_lines if len(sectors) > 1 else [])]
        for row in _totals(some_lines, "year") if row["class"] != "HOLD"
    ]  # fmt: skip
    parts: list[Any] = [
        Figure("Share of SELL, HOLD and BUY, from left to right, in each sector", charts.shares(by_sector)),
        Figure("Share of SELL and BUY in each year", charts.shares_by_year(by_year)),
        Table(
            "Label shares by sector, %",
            [("label", False), ("sector", False), ("class", False), ("%", True), ("rows", True)],
            [[row["label"], row["sector"], row["class"], row["share"], row["rows"]] for row in by_sector], folded=True,
        ),
    ]  # fmt: skip
    text = "BUY: the price reaches the take-profit barrier within the horizon. SELL: it reaches the drawdown barrier."
    if any(line["label"] in NEXT_BAR for line in lines):
        text += " Of the direction of the next bar, BUY: its close is above that of the row; SELL: it is below."
    return Section("Labels", [text], parts)


def _totals(lines: Sequence[Row], by: str) -> list[dict[str, Any]]:
    counts: dict[tuple[str, Any], dict[str, int]] = defaultdict(lambda: dict.fromkeys(charts.CLASSES, 0))
    for line in lines:
        for name in charts.CLASSES:
            counts[line["label"], line[by]][name] += line[f"n_{name.lower()}"]
    return [
        {"label": title_of_label(label), by: key, "class": name, "rows": n,
         "share": 100 * n / max(1, sum(class_counts.values())),
         "order": order}
        for (label, key), class_counts in counts.items()
        for order, (name, n) in enumerate(class_counts.items())
    ]  # fmt: skip


def split(out: pathlib.Path, whole: Mapping[str, Any]) -> Section | None:
    """The dates of the folds, with the picture OUT/folds.svg; None for a split without dates."""
    path = out / "folds.svg"
    if not whole["split"]:
        return None
    settings = whole["settings"]["split"]
    text = [
        "Rows whose longest label ends in the next part are purged; another "
        f"{settings['embargo_bars']} bars before validation and test are left out as embargo. The training part is "
        f"divided into {settings['parts']} blocks: models trained without a block predict it, and the meta-learner "
        "learns from these out-of-fold predictions."
    ]
    if sentence := window_summary.sentence(whole.get("windows")):
        text.append(f"{_sentence(sentence).removesuffix('.')}: they are not used.")
    parts = (
        [Picture("Training, validation and test dates of each fold", path.read_text(encoding="utf-8"))]
        if path.exists()
        else []
    )
    return Section("Split", text, parts)


def importance(out: pathlib.Path) -> Section | None:
    """Importance of features and of families of features; None if OUT has none."""
    from gpupipe.training.importance import JSON

    path = out / JSON
    if not path.exists():
        return None
    content = json.loads(path.read_bytes())
    families = [{"family": name, "points": 100 * value} for name, value in content["families"].items()]
    features = [
        {"feature": name, "share": 100 * value} for name, value in list(content["features"].items())[:MOST_FEATURES]
    ]
    table = [[name, content["family_of"][name], 100 * value] for name, value in content["features"].items()]
    text = [
        f"Model: {content['model']}. Its gain on {content['rows']:,} validation rows, all labels together, is "
        f"{100 * content['gain']:.1f} % of the prior's loss.",
        "Permutation importance of a family of features: the points of that gain that are lost when the columns of the "
        "family are exchanged with those of other rows. The losses do not add up, since families share information. "
        "Importance of a feature: its share of the gain of all splits.",
    ]
    columns = [("feature", False), ("family", False), ("%", True)]
    return Section("Features", text, [
        Figure("Permutation importance of the families of features",
               charts.bars(families, "family", "points", "points lost")),
        Figure("Importance of features: share of the gain of all splits, %",
               charts.bars(features, "feature", "share", "share of gain, %")),
        Table("All features by share of gain", columns, table, folded=True),
    ])  # fmt: skip


def skipped(whole: Mapping[str, Any]) -> Section | None:
    """Trainings that were skipped, with the reason; None if there are none."""
    text = [_sentence(line) for line in sentences.skip_sentences(whole["skipped"])]
    return Section("Not trained", text) if text else None


def _table(path: pathlib.Path) -> list[dict[str, Any]] | None:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist() if path.exists() else None
