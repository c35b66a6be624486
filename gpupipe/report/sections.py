"""What the report tells of a finished OUT, part by part."""

from __future__ import annotations

import json
import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.artifacts.summary import title_of
from gpupipe.data import HEADER
from gpupipe.evaluation import calibration
from gpupipe.evaluation.block_bootstrap import NO_SKILL, SKILL
from gpupipe.report import charts, sentences
from gpupipe.report.folds import folds
from gpupipe.report.page import Figure, Picture, Section, Table
from gpupipe.report.running import about, flat, time_and_memory
from gpupipe.report.said import probabilities
from gpupipe.report.signals import signals
from gpupipe.report.trading import backtest
from gpupipe.report.warned import warnings
from gpupipe.report.words import times_100, title_of_label
from gpupipe.runtime import run_log, timeline
from gpupipe.training.score import BASELINES

Row = Mapping[str, Any]
MOST_FEATURES = 30


def of_run(out: pathlib.Path, whole: Mapping[str, Any]) -> list[Section]:
    """All sections that OUT has something for. whole: its summary."""
    events = run_log.read(out / run_log.FILE) if (out / run_log.FILE).exists() else []
    events = [one for one in events if "event" in one and "time" in one]
    found = [
        verdict_of(whole), warnings(out, whole, events), signals(out, whole), data(whole), labels(out),
        split(out, whole), leaderboard(whole), by_sector(whole), probabilities(_table(out / calibration.CURVES)),
        importance(out),
        folds(whole), backtest(out, whole), time_and_memory(whole, timeline.find(events, whole["run_key"])),
        about(whole, events), skipped(whole),
    ]  # fmt: skip
    return [section for section in found if section is not None]


def lead(whole: Mapping[str, Any]) -> list[str]:
    """The run in two sentences."""
    about_data, split = whole["data"], whole["split"]
    n_sectors = len(about_data["sectors"]) if "sectors" in about_data else None
    where = f"{whole['device']['kind']} ({whole['device']['name']})"
    sectors = f" in {n_sectors} sectors" if n_sectors else ""
    return [
        f"{whole['n_models']} of {whole['n_models_wanted']} models from {about_data['rows_kept']:,} bars of "
        f"{about_data['symbols']} symbols{sectors}, preset {whole['settings']['preset']}, in {whole['elapsed_s']:.0f} "
        f"s on {where}.",
        f"Trained from {split['train_from']}, validated from {split['validation_from']}; every figure that is called "
        f"sealed is of rows from {split['test_from']} to {split['test_to']}, which chose nothing.",
    ]  # fmt: skip


def verdict_of(whole: Mapping[str, Any]) -> Section:
    """The verdict in words."""
    text = [
        *sentences.verdict_sentences(whole["verdict"], len({row["sector"] for row in whole["models"]})),
        *sentences.skill_sentences(whole["families"], whole["intervals"]),
        sentences.stacking_sentence(whole["stacking"]),
    ]
    return Section("Verdict", [line for line in text if line])


def of_two(names: Sequence[str], wholes: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Two runs side by side. names: what the page calls them.  wholes: their summaries."""
    verdicts = [
        Section(f"Verdict of {name}", [*lead(whole), *verdict_of(whole).text])
        for name, whole in zip(names, wholes, strict=True)
    ]
    keys = [{(a["label"], a["model"]): a for a in whole["averages"]} for whole in wholes]
    rows, table = [], []
    for key in dict.fromkeys([*keys[0], *keys[1]]):
        gains = [100 * of[key]["test_gain_over_prior"] if key in of else None for of in keys]
        for name, gain, of in zip(names, gains, keys, strict=True):
            if gain is not None and key[1] not in BASELINES:
                average = of[key]
                rows.append({
                    "label": title_of_label(key[0]), "model": key[1], "run": name, "gain": gain,
                    "low": times_100(average.get("test_gain_low")), "high": times_100(average.get("test_gain_high")),
                })  # fmt: skip
        before, after = gains
        difference = None if before is None or after is None else after - before
        table.append([title_of_label(key[0]), key[1], *gains, difference])
    settings = [dict(flat(whole["settings"])) for whole in wholes]
    differing = [
        [key, *(of.get(key, "") for of in settings)]
        for key in dict.fromkeys([*settings[0], *settings[1]]) if settings[0].get(key) != settings[1].get(key)
    ]  # fmt: skip
    about_runs = [
        [name, *(said(whole) for whole in wholes)]
        for name, said in {
            "data": lambda whole: whole["data"].get("data_hash", "")[:12],
            "bars": lambda whole: f"{whole['data']['rows_kept']:,}",
            "sealed test": lambda whole: f"{whole['split']['test_from']} to {whole['split']['test_to']}",
            "models": lambda whole: whole["n_models"],
            "seconds": lambda whole: f"{whole['elapsed_s']:.1f}",
            "peak memory, GiB": lambda whole: f"{whole['peak_bytes'] / 2**30:.2f}",
            "device": lambda whole: whole["device"]["kind"],
        }.items()
    ]  # fmt: skip
    same_test = wholes[0]["split"] == wholes[1]["split"] and about_runs[0][1] == about_runs[0][2]
    text = (
        "Both runs were judged on the same rows."
        if same_test
        else "The runs were judged on other rows, so that gains differ for that reason, too."
    )
    columns = [("", False), *((name, False) for name in names)]
    return [
        Section("Runs", [text], [
            Table("What each is of", columns, about_runs),
            Table("Settings that differ" if differing else "No setting differs", columns, differing),
        ]),
        Section("Gains", [], [
            Figure("Gain over the prior on the sealed test, with 95 % intervals", charts.two_runs(rows)),
            Table("Gains over the prior, %", [("label", False), ("model", False), *((name, True) for name in names),
                                              ("difference", True)], table),
        ]),
        *verdicts,
    ]  # fmt: skip


def data(whole: Mapping[str, Any]) -> Section:
    """What came in, and what was made of it."""
    about_data = whole["data"]
    if "findings" not in about_data:
        return Section("Data", [f"A frame with {about_data['rows_kept']:,} bars of {about_data['symbols']} symbols."])
    columns = [(name, k in (2, 3)) for k, name in enumerate(HEADER)]
    rows = [[one[name] for name in ("kind", "action", "rows", "symbols", "example")] for one in about_data["findings"]]
    text = [
        about_data["description"], about_data["reader"], *about_data["notes"],
        f"{about_data['rows_read']:,} rows read, {about_data['rows_kept']:,} kept, "
        f"{about_data['rows_quarantined']:,} set aside; from {about_data['first_time']} to {about_data['last_time']}.",
    ]  # fmt: skip
    text += [] if rows else ["Validation had nothing to report."]
    parts: list[Any] = [Table("What validation met", columns, rows)] if rows else []
    symbols = [[sector, n] for sector, n in about_data["sectors"].items()]
    parts.append(Table("Symbols by sector", [("sector", False), ("symbols", True)], symbols, folded=True))
    return Section("Data", [_sentence(line) for line in text], parts)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def labels(out: pathlib.Path) -> Section | None:
    """Label shares by sector, and by year of the sector that the reader picks."""
    lines = _table(out / calibration.SHARES)
    if lines is None:
        return None
    by_sector = _totals(lines, "sector")
    sectors = list(dict.fromkeys(line["sector"] for line in lines))
    of_sector = [(sector, [line for line in lines if line["sector"] == sector]) for sector in sectors]
    by_year = [
        {**row, "sector": sector}
        for sector, own in [("all sectors", lines), *(of_sector if len(sectors) > 1 else [])]
        for row in _totals(own, "year") if row["class"] != "HOLD"
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
    return Section(
        "Labels", ["BUY: the take-profit price is reached within the horizon; SELL: the drawdown price is."], parts
    )


def _totals(lines: Sequence[Row], by: str) -> list[dict[str, Any]]:
    counts: dict[tuple[str, Any], dict[str, int]] = defaultdict(lambda: dict.fromkeys(charts.CLASSES, 0))
    for line in lines:
        for name in charts.CLASSES:
            counts[line["label"], line[by]][name] += line[f"n_{name.lower()}"]
    return [
        {"label": title_of_label(label), by: key, "class": name, "rows": n,
         "share": 100 * n / max(1, sum(own.values())),
         "order": order}
        for (label, key), own in counts.items()
        for order, (name, n) in enumerate(own.items())
    ]  # fmt: skip


def split(out: pathlib.Path, whole: Mapping[str, Any]) -> Section:
    """The folds, as OUT/folds.svg shows them."""
    path = out / "folds.svg"
    settings = whole["settings"]["split"]
    text = [
        f"Purged by the end of the longest label, with {settings['embargo_bars']} bars of embargo on top; the training "
        f"part is cut into {settings['parts']} for the out-of-fold predictions that stacking learns from."
    ]
    parts = [Picture("When each fold is fitted, validated and tested", path.read_text())] if path.exists() else []
    return Section("Split", text, parts)


def leaderboard(whole: Mapping[str, Any]) -> Section:
    """Gains over the prior with intervals, of models and baselines."""
    titles = {row["label"]: title_of(row) for row in whole["models"]}
    rows = [
        {
            "label": titles[a["label"]], "model": a["model"], "gain": 100 * a["test_gain_over_prior"],
            "low": times_100(a.get("test_gain_low")), "high": times_100(a.get("test_gain_high")),
            "skill": a.get("test_skill", ""),
        }
        for a in whole["averages"]
    ]  # fmt: skip
    columns = [("label", False), ("model", False), ("sealed gain, %", True), ("from", True), ("to", True),
               ("skill", False), ("sealed log-loss", True), ("validation gain, %", True),
               ("sectors above the prior", True), ("sectors", True), ("mean return after BUY, %", True),
               ("of every row, %", True)]  # fmt: skip
    table = [
        [titles[a["label"]], a["model"], 100 * a["test_gain_over_prior"], times_100(a.get("test_gain_low")),
         times_100(a.get("test_gain_high")), a.get("test_skill", ""), a["test_log_loss"],
         100 * a["validation_gain_over_prior"], a["sectors_above_prior"], a["sectors"],
         times_100(a.get("test_return_when_buy")), times_100(a.get("test_return_buy_and_hold"))]
        for a in whole["averages"]
    ]  # fmt: skip
    text = [
        "Gain: by how much the log-loss on the sealed test is below that of the sector's class prior (the line at 0), "
        "averaged over sectors. Bars are 95 % intervals from blocks of dates drawn again. What is not clearly above "
        f"the prior of the sector and that of all sectors is called “{NO_SKILL}”. {', '.join(BASELINES)} are "
        "baselines, class shares in bins of one column."
    ]
    return Section("Leaderboard", text, [
        Figure("Gain over the prior by model and label, with 95 % intervals", charts.gains(rows)),
        Table("All models and baselines, averaged over sectors", columns, table, digits=3, folded=True),
    ])  # fmt: skip


def by_sector(whole: Mapping[str, Any]) -> Section:
    """Each sector's own figures."""
    rows = [
        {"label": title_of(row), "sector": row["sector"], "model": row["model"],
         "gain": 100 * row["test_gain_over_prior"], "skill": row.get("test_skill", "")}
        for row in whole["models"] if row["test_gain_over_prior"] is not None
    ]  # fmt: skip
    names = list(dict.fromkeys(row["model"] for row in whole["models"] if row["kind"] == "model"))
    names.sort(key=lambda name: name != "meta_learner")
    of_models = [row for row in rows if row["model"] in names]
    columns = [("sector", False), ("label", False), ("model", False), ("sealed gain, %", True), ("skill", False),
               ("sealed log-loss", True), ("prior's", True), ("PR-AUC BUY", True), ("BUY share, %", True),
               ("calls BUY", True), ("precision BUY, %", True), ("scope", False), ("rounds", False)]  # fmt: skip
    table = [
        [row["sector"], title_of(row), row["model"], times_100(row["test_gain_over_prior"]), row.get("test_skill", ""),
         row["test_log_loss"], row["test_prior_log_loss"], row["test_pr_auc_buy"], times_100(row["test_share_buy"]),
         row["test_calls_buy"], times_100(row["test_precision_buy"]), row["scope"], row["rounds"]]
        for row in whole["models"] if row["kind"] == "model"
    ]  # fmt: skip
    n_skill = sum(row["skill"] == SKILL for row in of_models)
    text = [f"{n_skill} of {len(of_models)} models have skill on their own sector's sealed rows."]
    return Section("By sector", text, [
        Figure("Gain over the prior by sector and label, in percent; ~: no skill", charts.heat(of_models, names)),
        Table(f"All {len(table)} models", columns, table, digits=3, folded=True),
    ])  # fmt: skip


def importance(out: pathlib.Path) -> Section | None:
    """What the models look at."""
    from gpupipe.training import importance as found

    path = out / found.JSON
    if not path.exists():
        return None
    about_it = json.loads(path.read_text())
    families = [{"family": name, "points": 100 * value} for name, value in about_it["families"].items()]
    features = [
        {"feature": name, "share": 100 * value} for name, value in list(about_it["features"].items())[:MOST_FEATURES]
    ]
    table = [[name, about_it["family_of"][name], 100 * value] for name, value in about_it["features"].items()]
    text = [
        f"Of {about_it['model']}. By family of features: how many points of the prior's log-loss the model loses on "
        f"{about_it['rows']:,} validation rows when the columns of that family are those of other rows, all labels "
        f"together; as it stands its gain there is {100 * about_it['gain']:.1f}. What families know in common is lost "
        "with neither alone, so these do not add up. By feature: its share of the gain of all splits."
    ]
    return Section("Features", text, [
        Figure("Points lost without a family of features", charts.bars(families, "family", "points", "points lost")),
        Figure("Share of the splits' gain, %", charts.bars(features, "feature", "share", "share of gain, %")),
        Table(
            "All features by share of gain", [("feature", False), ("family", False), ("%", True)], table, folded=True
        ),
    ])  # fmt: skip


def skipped(whole: Mapping[str, Any]) -> Section | None:
    """What was not trained, and why."""
    text = [_sentence(line) for line in sentences.skip_sentences(whole["skipped"])]
    return Section("Not trained", text) if text else None


def _table(path: pathlib.Path) -> list[dict[str, Any]] | None:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist() if path.exists() else None
