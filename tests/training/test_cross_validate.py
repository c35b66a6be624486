"""Walk-forward and cross-validation as a run does them: what is measured, what is kept, and how it goes on."""

from __future__ import annotations

import io
import itertools
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from rich.console import Console

from gpupipe import config, load
from gpupipe.cli import console
from gpupipe.cli.summary_tables import SummaryTables, show_summary
from gpupipe.cli.tables import names_of
from gpupipe.cross_validation import diagram
from gpupipe.cross_validation.combinatorial import paths
from gpupipe.cross_validation.diagram import DAY_NS
from gpupipe.cross_validation.folds import Folds, make_folds
from gpupipe.cross_validation.split import split
from gpupipe.cross_validation.walk_forward import holdout
from gpupipe.data.panel import BARS
from gpupipe.dataset.dataset import NEVER
from gpupipe.estimators import registry
from gpupipe.evaluation.block_bootstrap import by_time, draw, interval, joined
from gpupipe.evaluation.losses import log_loss
from gpupipe.pipeline.listener import Listener
from gpupipe.targets.triple_barrier import tp_dd_labels
from gpupipe.training import cross_validate, fold_summaries, prepare
from gpupipe.training.fold_summaries import BlockLoss, FoldScores
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, dataset_of, tiny_market

TABLES = equity.EQUITY.reference_tables
NAMES = names_of(equity.EQUITY.baselines)
WALK = (
    "training.models=linear,xgb_hist,meta_learner", "split.walk_forward=3", "training.min_rows=20", "hist.rounds=4",
    "labels.thresholds=0.02",
)  # fmt: skip
CROSSED = ("training.models=linear", "split.cpcv=4,2")


def job(out, *settings, panel=None, listener=None, jobs=1):
    chosen = equity.make("fast", settings=[*QUICK, *settings])
    return tiny.execute(panel or tiny_market(), None, chosen, out, jobs, listener)[0]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """OUT, the summary and the units of a walk-forward."""
    out, heard = tmp_path_factory.mktemp("walked"), []
    return out, job(out, *WALK, listener=Listener(advanced=heard.append)), heard


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    out = tmp_path_factory.mktemp("crossed")
    return out, job(out, *CROSSED)


def one_of(results, label, model):
    return next(one for one in results if (one["label"], one["model"]) == (label, model))


def test_the_kept_models_are_the_last_origins_and_say_what_was_measured(walked):
    """Its figures again, from the files: probabilities of load(OUT), labels computed anew, the dates of its window."""
    out, summary, _ = walked
    last, panel = summary["walk_forward"]["origins"][-1], tiny_market()
    labels = tp_dd_labels(panel, (1, 3), (0.02,))
    predictions = load(out).predict(panel)
    first, final = (np.datetime64(date, "ns").astype(np.int64) for date in last["test"][0])
    inside = (panel.time_ns >= first) & (panel.time_ns <= final) & (labels.y >= 0).all(axis=1)
    assert inside.sum() == last["rows"]["test"] == 390
    sector = np.array(panel.sector)[panel.symbol_of_row]
    for label, model in itertools.product(labels.names, ("linear", "xgb_hist", "meta_learner")):
        said = predictions.of(label.replace("label", model))
        y = labels.y[:, labels.names.index(label)]
        lost = [log_loss(said[rows], y[rows]).mean() for s in SECTORS if (rows := inside & (sector == s)).any()]
        found = one_of(summary["walk_forward"]["results"], label, model)
        assert found["origins"][-1]["log_loss"] == pytest.approx(np.mean(lost), rel=1e-6)
        kept = one_of(summary["averages"], label, model)
        assert found["origins"][-1]["log_loss"] == pytest.approx(kept["test_log_loss"], rel=1e-12)
        assert found["origins"][-1]["gain_over_prior"] == pytest.approx(kept["test_gain_over_prior"], rel=1e-9)


def test_an_origin_alone_is_measured_as_among_others(walked, monkeypatch, tmp_path):
    """A job whose only fold is the second origin trains the same models, and its summary says the same of them."""
    found = walked[1]["walk_forward"]["results"]
    monkeypatch.setattr(prepare, "make_folds", lambda *given: Folds(make_folds(*given).walk_forward[1], (), ()))
    alone = job(tmp_path, *WALK)
    assert "walk_forward" not in alone
    for one in alone["averages"]:
        second = one_of(found, one["label"], one["model"])["origins"][1]
        assert second["log_loss"] == pytest.approx(one["test_log_loss"], rel=1e-12)
        assert second["prior_log_loss"] == pytest.approx(
            one["test_log_loss"] / (1 - one["test_gain_over_prior"]), rel=1e-9
        )


def test_all_origins_together_are_their_rows_pooled(walked):
    walk = walked[1]["walk_forward"]
    assert [one["name"] for one in walk["origins"]] == ["origin 1", "origin 2", "origin 3"]
    rows = np.array([one["rows"]["test"] for one in walk["origins"]])
    assert len(walk["results"]) == 2 * 8 and len(walk["by_sector"]) == 3 * 2 * 8  # three families, five baselines
    for one in walk["results"]:
        assert one["rows"] == rows.sum() and [o["rows"] for o in one["origins"]] == rows.tolist()
        # Here every sector has as many rows in an origin as the others, so that the mean over sectors is that of rows.
        assert one["log_loss"] == pytest.approx(np.average([o["log_loss"] for o in one["origins"]], weights=rows))
        gains = [o["gain_over_prior"] for o in one["origins"]]
        assert one["gain_over_prior"] == pytest.approx(1 - one["log_loss"] / one["prior_log_loss"])
        assert one["origins_above_prior"] == sum(gain > 0 for gain in gains) and one["n_origins"] == 3
        assert (one["smallest_gain"], one["largest_gain"]) == (min(gains), max(gains))
        assert one["std_of_gains"] == pytest.approx(np.std(gains, ddof=1))
    assert np.mean([one["gain_over_prior"] for one in walk["results"]]) > 0  # a signal is planted


def test_touch_and_direction_add_up_in_every_fold(walked, crossed):
    """Over all origins and in each, by sector, on every path, in the means over labels; with intervals and skill."""
    walk, cpcv = walked[1]["walk_forward"], crossed[1]["cpcv"]
    results = [*walk["results"], *walk["by_sector"], *cpcv["results"]]
    folds = [fold for one in (*walk["results"], *cpcv["results"]) for fold in one.get("origins", one.get("paths"))]
    assert len(folds) > 60
    for one in (*results, *folds):
        assert one["touch_gain"] + one["direction_gain"] == pytest.approx(one["gain_over_prior"], abs=1e-13)
    for family in walk["families"]:
        assert family["touch_gain"] + family["direction_gain"] == pytest.approx(family["gain"], abs=1e-13)
    for one in (*walk["results"], *walk["by_sector"], *walk["families"]):
        for part in ("touch", "direction"):
            low = one[f"{part}_gain_low"]
            assert low <= one[f"{part}_gain"] <= one[f"{part}_gain_high"]
            skill = min(low, one[f"{part}_above_prior_all_low"]) > 1e-6
            assert one[f"{part}_skill"] == ("skill" if skill else "no skill")
    for one in walk["results"]:
        direction = [one_of(walk["results"], one["label"], table)["direction_gain"] for table in TABLES]
        assert one["direction_above_tables"] == pytest.approx(one["direction_gain"] - max(direction), abs=1e-13)
        assert one["direction_above_tables_low"] <= one["direction_above_tables"] <= one["direction_above_tables_high"]
    for average in walked[1]["averages"]:  # the kept models are the last origin's
        last = one_of(walk["results"], average["label"], average["model"])["origins"][-1]
        assert last["touch_gain"] == pytest.approx(average["test_touch_gain"], rel=1e-9)


def test_an_origin_knows_nothing_of_what_came_after_it(walked, tmp_path):
    """Other prices after the first window and its labels: the first origin's figures stay as they were."""
    panel = tiny_market()
    end = np.datetime64(walked[1]["walk_forward"]["origins"][0]["test"][0][1], "ns").astype(np.int64)
    times = np.unique(panel.time_ns)
    known_until = times[np.searchsorted(times, end) + 3]  # the longest label of the window's last row
    later = np.flatnonzero(panel.time_ns > known_until)
    factor = np.exp(np.random.default_rng(0).normal(0, 0.05, len(later))).astype(np.float32)
    columns = {name: getattr(panel, name).copy() for name in BARS}
    for name in ("open", "high", "low", "close"):
        columns[name][later] *= factor
    changed = panel.replace(**columns)
    found = job(tmp_path, *WALK, panel=changed)["walk_forward"]
    for one in walked[1]["walk_forward"]["results"]:
        again = one_of(found["results"], one["label"], one["model"])
        assert again["origins"][0] == one["origins"][0]
        assert again["origins"][-1]["log_loss"] != one["origins"][-1]["log_loss"]


def test_a_walk_forward_goes_on_where_it_was_stopped(walked, tmp_path):
    out, summary, heard = walked
    stored = [name for name in heard if name != "meta_learner"]
    assert len(stored) == len(set(stored)) == 3 * (2 * 4 * 4)  # units have names of their own in every origin
    assert sum("origin2-final" in name for name in heard) == 8
    seen = []

    def stop(name):
        seen.append(name)
        if len(seen) == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, *WALK, listener=Listener(advanced=stop))
    assert not (tmp_path / "manifest.json").exists()
    n_kept = len(list((tmp_path / ".gpupipe/units").iterdir()))
    assert n_kept >= 48
    again = job(tmp_path, *WALK, jobs=2)
    assert again["walk_forward"] == summary["walk_forward"]
    models = [path.relative_to(out) for path in out.glob("trained_*/*/*/*") if path.suffix != ".json"]
    assert len(models) == 18 and all((out / name).read_bytes() == (tmp_path / name).read_bytes() for name in models)
    assert (out / "folds.svg").read_bytes() == (tmp_path / "folds.svg").read_bytes()


def test_units_announced_are_units_done(tmp_path):
    totals, heard, stages = [], [], []
    settings = ("training.models=linear", "split.walk_forward=2", "split.cpcv=4,1", "training.min_rows=20")
    found = job(tmp_path, *settings, listener=Listener(totals.append, heard.append, stages.append))
    assert len(heard) == totals[0]["units"] == (4 + 2) * 4
    assert stages == [
        "features and labels", "training, cpcv 1", "training, cpcv 2", "training, cpcv 3", "training, cpcv 4",
        "training, origin 1", "training, origin 2", "evaluation",
    ]  # fmt: skip
    assert found["cpcv"]["n_paths"] == 1 and found["cpcv"]["results"][0]["std_of_gains"] is None
    shown = shown_of(found, tmp_path)
    assert "±0.0 1/1" in shown and "1 path through 4 groups" in shown


def test_cross_validation_leaves_the_single_split_as_it_is(crossed, tmp_path):
    out, summary = crossed
    plain = job(tmp_path, "training.models=linear")
    for name in ("averages", "verdict", "split"):
        assert summary[name] == plain[name], name
    for path in tmp_path.glob("trained_*/*/*/*.npz"):
        assert (out / path.relative_to(tmp_path)).read_bytes() == path.read_bytes()


def test_every_row_before_the_sealed_test_is_on_every_path(crossed):
    found = crossed[1]["cpcv"]
    assert (found["groups"], found["test_groups"], found["n_paths"], len(found["folds"])) == (4, 2, 3, 6)
    tested = sum(fold["rows"]["test"] for fold in found["folds"])
    for one in found["results"]:
        assert [path["rows"] * 3 for path in one["paths"]] == [tested] * 3
        gains = [path["gain_over_prior"] for path in one["paths"]]
        assert one["gain_over_prior"] == pytest.approx(np.mean(gains)) and len(set(gains)) > 1
        assert one["std_of_gains"] == pytest.approx(np.std(gains, ddof=1))
        assert one["paths_above_prior"] == sum(gain > 0 for gain in gains)
    for fold in found["folds"]:
        assert max(date for dates in fold["test"] for date in dates) < crossed[1]["split"]["test_from"]


def measured(fold, *losses):
    return FoldScores({"name": fold}, [BlockLoss(fold, *one) for one in losses])


def test_a_walk_forward_by_hand():
    """Two sectors and two origins, of which the second has one sector only: sectors weigh alike, rows within them."""
    found = fold_summaries.walk_forward_summary([
        measured("origin1", (0, "a", "label", "m", 2, 1.0, 2.0), (0, "b", "label", "m", 10, 9.0, 10.0)),
        measured("origin2", (0, "a", "label", "m", 8, 9.0, 8.0)),
    ], TABLES)  # fmt: skip
    (one,) = found["results"]
    assert (one["rows"], one["sectors"], one["prior_log_loss"]) == (20, 2, 1.0)
    assert one["log_loss"] == 0.95  # of 1.0 and 0.9
    assert [o["log_loss"] for o in one["origins"]] == [0.7, 1.125] and one["gain_over_prior"] == pytest.approx(0.05)
    assert (one["origins_above_prior"], one["smallest_gain"]) == (1, -0.125)
    by_sector = {s["sector"]: s for s in found["by_sector"]}
    assert by_sector["a"]["log_loss"] == 1.0 and by_sector["a"]["n_origins"] == 2 and by_sector["b"]["n_origins"] == 1


def test_a_sector_whose_rows_hold_one_class_is_left_out_of_a_walk_forward():
    """In origin 1 sector b has no event: the origin is judged by a; over both origins b has events again."""
    quiet, eventful = frozenset({1}), frozenset({1, 2})
    found = fold_summaries.walk_forward_summary([
        measured("origin1", (0, "a", "label", "m", 10, 9.0, 10.0, eventful),
                 (0, "b", "label", "m", 10, 9.0, 0.01, quiet)),
        measured("origin2", (0, "a", "label", "m", 10, 9.5, 10.0, eventful),
                 (0, "b", "label", "m", 10, 8.0, 9.99, frozenset({2}))),
        measured("origin3", (0, "b", "label", "m", 10, 1.0, 0.01, quiet)),
    ], TABLES)  # fmt: skip
    (one,) = found["results"]
    assert [o["gain_over_prior"] for o in one["origins"]][:2] == pytest.approx([0.1, 0.05])
    assert [(o["sectors"], o["sectors_without_events"]) for o in one["origins"]] == [(2, 1), (2, 1), (1, 1)]
    assert np.isnan(one["origins"][2]["gain_over_prior"])
    assert (one["n_origins"], one["smallest_gain"]) == (2, pytest.approx(0.05))
    assert one["gain_over_prior"] == pytest.approx(1 - (18.5 / 20 + 18 / 30) / (20 / 20 + 10.01 / 30))
    by_sector = {s["sector"]: s for s in found["by_sector"]}
    assert by_sector["b"]["n_origins"] == 0 and np.isnan(by_sector["b"]["smallest_gain"])
    crossed = fold_summaries.cpcv_summary([
        measured(f"fold{k}", *((b, "a", "label", "m", 5, 1.0, 0.01, quiet) for b in (0,))) for k in range(3)
    ], 3, 1)  # fmt: skip
    (nothing,) = crossed["results"]
    assert nothing["skill"] == "no events" and np.isnan(nothing["gain_over_prior"]) and nothing["n_paths"] == 0


def test_intervals_of_a_walk_forward_are_those_of_its_rows_as_one_test(walked):
    walk = walked[1]["walk_forward"]
    assert walk["intervals"]["times"] == 3 * walked[1]["intervals"]["times"]  # three windows of as many dates
    assert len(walk["families"]) == 8
    for one in [*walk["results"], *walk["by_sector"], *walk["families"]]:
        gain = one.get("gain_over_prior", one.get("gain"))
        if one["gain_low"] is not None:
            assert one["gain_low"] <= gain <= one["gain_high"]
            skill = one["gain_low"] > 0 and one["above_prior_all_low"] > 0
            assert one["skill"] == ("skill" if skill else "no skill")
    known = [one for one in walk["results"] if one["model"] == "linear"]
    assert all(one["gain_low"] < one["gain_high"] for one in known), "there are blocks enough for intervals"
    assert all(one["skill"] == "no skill" for one in walk["results"] if one["model"] == "prior_all")


def by_date(n_dates, first, gain, rng, models=("m", "prior_all")):
    """Losses of one row a date: the prior's 1 and its noise, the model's less by `gain`."""
    prior = 1 + 0.1 * rng.normal(size=n_dates)
    own = {("l", model): prior - (gain + 0.05 * rng.normal(size=n_dates) if model == "m" else 0) for model in models}
    return by_time(first + np.arange(n_dates), {("l", "prior"): prior, **own})


@pytest.mark.parametrize("gain, word", [(0.05, "skill"), (0.0, "no skill")])
def test_intervals_of_origins_put_together_by_hand(gain, word):
    """Two origins of 60 dates: their 120 dates are drawn as one stretch, whatever the order of the origins."""
    rng = np.random.default_rng(1)
    tables = ("m", "prior_all", *TABLES)
    parts = [by_date(60, first, gain, rng, tables) for first in (0, 60)]
    folds_of = [
        FoldScores({"name": f"origin{k}"}, [
            BlockLoss(f"origin{k}", 0, "a", "l", model, 60, float(part.sums["l", model].sum()),
                      float(part.sums["l", "prior"].sum())) for model in tables
        ], {("l", "a"): part})
        for k, part in enumerate(parts)
    ]  # fmt: skip
    walk = fold_summaries.with_intervals(fold_summaries.walk_forward_summary(folds_of, TABLES), folds_of, 5, 7, TABLES)
    one = one_of(walk["results"], "l", "m")
    assert one["skill"] == word and walk["intervals"]["times"] == 120 and walk["families"][0]["skill"] == word
    draws = draw(np.arange(120), 5, 7)
    own, prior = (np.concatenate([part.sums["l", name] for part in parts]) for name in ("m", "prior"))
    sums = draws.sums(np.stack([own, prior], axis=1))
    low, high = interval(1 - own.sum() / prior.sum(), 1 - sums[:, 0] / sums[:, 1], 12)
    assert (one["gain_low"], one["gain_high"]) == pytest.approx((low, high), rel=1e-9)
    assert one["above_tables_low"] == pytest.approx(low) and one["above_tables_high"] == pytest.approx(high)
    backwards = fold_summaries.with_intervals(
        fold_summaries.walk_forward_summary(folds_of[::-1], TABLES), folds_of[::-1], 5, 7, TABLES
    )
    assert one_of(backwards["results"], "l", "m")["gain_low"] == pytest.approx(one["gain_low"], rel=1e-9)
    with pytest.raises(ValueError, match="do not overlap"):
        joined([parts[0], parts[0]])


def test_intervals_of_a_workload_without_tables_and_without_a_prior_of_all_sectors():
    part = by_date(60, 0, 0.05, np.random.default_rng(1), ("m",))
    sums = [float(part.sums["l", name].sum()) for name in ("m", "prior")]
    folds = [FoldScores({"name": "origin1"}, [BlockLoss("origin1", 0, "a", "l", "m", 60, *sums)], {("l", "a"): part})]
    walk = fold_summaries.with_intervals(fold_summaries.walk_forward_summary(folds, ()), folds, 5, 7, ())
    (one,), (by_sector,), (family,) = walk["results"], walk["by_sector"], walk["families"]
    gain = 1 - sums[0] / sums[1]
    for measures in (one, by_sector, family):
        assert measures["gain_low"] < gain < measures["gain_high"]
        assert measures["above_prior_all"] == pytest.approx(gain)  # nothing to subtract
        assert measures["above_prior_all_low"] == pytest.approx(measures["gain_low"])
    assert np.isnan([one["above_tables"], one["above_tables_low"], one["above_tables_high"]]).all()


def test_a_path_below_a_prior_denies_skill():
    def folds_of(*loss):
        return [measured(f"cpcv{k}", *((block, "a", "label", model, 1, own, 1.0) for block in (0, 1)
                                       for model, own in (("m", lost), ("prior_all", 0.9))))
                for k, lost in enumerate(loss)]  # fmt: skip

    for losses, word, smallest in (
        ((0.5, 0.5, 0.5), "above the prior on every path", 0.4), ((0.5, 0.5, 1.9), "no skill", None),
        ((0.95, 0.95, 0.95), "no skill", -0.05),  # above the sector's prior, not above that of all sectors
    ):  # fmt: skip
        found = fold_summaries.cpcv_summary(folds_of(*losses), 3, 2)
        one = one_of(found["results"], "label", "m")
        assert one["skill"] == word and (smallest is None or one["smallest_above_prior_all"] == pytest.approx(smallest))
        assert one_of(found["results"], "label", "prior_all")["skill"] == "no skill"


def test_paths_of_a_cross_validation_by_hand():
    """Three groups, two tested at a time. Fold k loses 10 ** -k a row on its first block, on its second twice that."""
    folds_of = [
        measured(f"cpcv{k}", (0, "a", "label", "m", 1, 10.0**-k, 1.0), (1, "a", "label", "m", 1, 2 * 10.0**-k, 1.0))
        for k in (1, 2, 3)
    ]
    found = fold_summaries.cpcv_summary(folds_of, 3, 2)
    # Groups of the folds: 0 1, 0 2, 1 2. First path: group 0 of fold 1, 1 of fold 1, 2 of fold 2. Second: 2, 3, 3.
    assert paths(3, 2).tolist() == [[0, 1], [0, 2], [1, 2]]
    (one,) = found["results"]
    assert [path["log_loss"] for path in one["paths"]] == pytest.approx([0.32 / 3, 0.013 / 3])
    assert [path["rows"] for path in one["paths"]] == [3, 3] and one["n_paths"] == one["paths_above_prior"] == 2


def shown_of(summary, out, width=110):
    to = Console(file=io.StringIO(), width=width, highlight=False)
    show_summary(to, summary, out, equity.EQUITY.baselines)
    assert max(map(len, to.file.getvalue().splitlines())) <= width
    return to.file.getvalue()


def test_what_is_printed(walked, crossed):
    out, summary, _ = walked
    shown = shown_of(summary, out)
    said = " ".join(shown.split())
    assert "the test rows of 3 origins together" in said and "folds.svg" in said
    for one in summary["walk_forward"]["results"]:
        if one["model"] not in NAMES.weak:
            assert f"{100 * one['smallest_gain']:.1f} {one['origins_above_prior']}/3" in shown
    won = {"linear": 0, "xgb_hist": 0, "meta_learner": 0}
    for one in summary["walk_forward"]["results"]:
        tables = [one_of(summary["walk_forward"]["results"], one["label"], table) for table in TABLES]
        if one["model"] in won:
            won[one["model"]] += one["gain_over_prior"] > max(0, *(table["gain_over_prior"] for table in tables))
    counts = ", ".join(f"{NAMES[model]} on {n} of 2" for model, n in won.items())
    assert f"Over all origins better than the prior and both volatility tables: {counts} labels." in said
    assert said.count("Over all origins meta_learner tells ") == 1
    for one in summary["walk_forward"]["families"]:
        if one["model"] in won:
            assert f"{one['model']}: {one['skill']}, " in said
    crossed_shown = shown_of(crossed[1], crossed[0])
    denied = sum(one["skill"] == "no skill" for one in crossed[1]["cpcv"]["results"] if one["model"] == "linear")
    assert f"linear on {denied} of 4 labels" in " ".join(crossed_shown.split())
    assert "Paths share rows and are not independent" in " ".join(crossed_shown.split())
    assert "mean of 3 paths through 4 groups, 2 tested at a time" in crossed_shown.replace("\n", " ")
    assert "walk-forward" not in crossed_shown


def test_eight_columns_fit_into_a_pipe():
    others = set(registry.ESTIMATORS) - set(equity.DEFAULT_MODELS)
    usual = [model for model in NAMES.headings if model not in others]
    wide = [{"label": "label_10d_10pct", "model": model, "gain_over_prior": -0.123} for model in usual]
    to = Console(file=io.StringIO(), width=console.PIPE_WIDTH, highlight=False)
    SummaryTables(to, {"models": []}, NAMES, usual).show_steadiness("", wide, lambda one: "-12.3 10/10")
    assert len(usual) - len(NAMES.weak) == 8 and to.file.getvalue().count("-12.3 10/10") == 8


def test_the_plan_shows_the_folds_as_they_are_trained(walked, crossed):
    for (out, summary, *_), name, key in ((walked, "walk_forward", "origins"), (crossed, "cpcv", "folds")):
        chosen = equity.make("fast", settings=[*QUICK, *(WALK if name == "walk_forward" else CROSSED)])
        plan = tiny.plan(tiny_market(), chosen)
        done = [{k: v for k, v in one.items() if k != "skipped"} for one in summary[name][key]]
        assert plan[name] == done and plan["split"] == summary["split"], out


def lanes_of(chosen, n_days=21):
    day = np.arange(n_days)
    day_ns = day * DAY_NS
    end = np.where(day + 1 < n_days, day_ns + DAY_NS, NEVER)
    datasets = {"energy": dataset_of(day_ns, end, end < NEVER, 1)}
    cut = make_folds(list(datasets.values()), chosen)
    return [
        (title, lane.title, " ".join(f"{role} {a // DAY_NS}-{b // DAY_NS}" for role, a, b in lane.spans), lane.rows)
        for title, lanes in diagram.sections(datasets, cut)
        for lane in lanes
    ]


def test_the_picture_shows_rows_as_they_are_used():
    found = lanes_of(config.Split(train=0.6, validation=0.2, embargo_bars=1, parts=2))
    assert found[0][0] == "Single split" and {one[0] for one in found[1:]} == {"Stacking inside its training part"}
    assert [one[1:] for one in found] == [
        ("all sectors", "train 0-10 purged 10-12 validation 12-14 purged 14-16 test 16-20", "10 · 2 · 4"),
        ("part 1", "held_out 0-6 purged 6-8 train 8-10 purged 10-12", "2 · 6"),
        ("part 2", "train 0-4 purged 4-6 held_out 6-10 purged 10-12", "4 · 4"),
    ]


def test_the_picture_of_origins_and_groups():
    found = lanes_of(
        config.Split(
            train=0.6, validation=0.2, embargo_bars=0, parts=2, stacking="forward", walk_forward=2, window="rolling",
            cpcv=(4, 1),
        )
    )  # fmt: skip
    assert [one[1:3] for one in found] == [
        ("origin 1", "train 0-11 purged 11-12 validation 12-15 purged 15-16 test 16-18"),
        ("origin 2", "train 2-13 purged 13-14 validation 14-17 purged 17-18 test 18-20"),
        ("part 2", "train 2-7 purged 7-8 held_out 8-13 purged 13-14"),
        ("fold 1", "test 0-4 purged 4-5 train 5-11 purged 11-12 validation 12-15 purged 15-16"),
        ("fold 2", "train 0-3 purged 3-4 test 4-8 purged 8-9 train 9-11 purged 11-12 validation 12-15 purged 15-16"),
        ("fold 3", "train 0-7 purged 7-8 test 8-12 purged 12-13 validation 13-15 purged 15-16"),
        ("fold 4", "train 0-7 purged 7-8 validation 8-11 purged 11-12 test 12-15 purged 15-16"),
    ]


def test_the_picture_is_in_the_manifest_and_is_svg(walked, crossed):
    for out, *_ in (walked, crossed):
        from gpupipe.artifacts.manifest import altered_files, read_manifest

        manifest = read_manifest(out)
        assert diagram.NAME in manifest["files"] and altered_files(out, manifest) == []
        root = ElementTree.fromstring((out / diagram.NAME).read_text())
        space = "{http://www.w3.org/2000/svg}"
        style = root.find(f"{space}style").text
        used = {rect.get("class") for rect in root.iter(f"{space}rect")}
        assert used == {"train", "validation", "test", "held_out", "purged", "ground"}
        assert all(style.count(f".{role} {{ fill") == 2 for role in used) and "prefers-color-scheme: dark" in style
        right = diagram.WIDTH - diagram.RIGHT
        for rect in root.iter(f"{space}rect"):
            if rect.find(f"{space}title") is not None:
                x, width = float(rect.get("x")), float(rect.get("width"))
                assert x >= diagram.LEFT and x + width <= right + 0.02 and width > 0


@pytest.mark.parametrize(
    "first, last, step",
    [("2009-08-03", "2010-08-02", 2), ("2010-01-04", "2014-12-31", 6), ("1970-01-01", "2025-06-01", 120)],
)
def test_ticks_are_months_that_begin(first, last, step):
    ends = [int(np.datetime64(date, "ns").astype(np.int64)) for date in (first, last)]
    found = diagram.ticks(*ends)
    assert 2 <= len(found) <= diagram.MOST_TICKS and all(ends[0] <= time <= ends[1] for time, _ in found)
    months = np.array([np.datetime64(word, "M").astype(np.int64) for _, word in found])
    assert np.unique(np.diff(months)).tolist() == [step] and not (months % step).any()


@pytest.mark.parametrize("hours", [1, 30, 24 * 12])
def test_ticks_of_short_histories(hours):
    first = int(np.datetime64("2020-02-03T14:30", "ns").astype(np.int64))
    last = first + hours * 3600 * 10**9
    found = diagram.ticks(first, last)
    assert 3 <= len(found) <= 5 and all(first <= time <= last for time, _ in found)


def test_the_fold_that_is_published_is_the_single_split_or_the_last_origin():
    datasets = [dataset_of(np.arange(100), np.arange(100) + 1, np.ones(100, bool), 1)]
    single = holdout(datasets, config.Split())
    assert cross_validate.title(single) == "single split"
    last = make_folds(datasets, config.Split(walk_forward=4)).published
    assert cross_validate.title(last) == "origin 4" and split(datasets[0], last).test.tolist() == [95, 96, 97, 98, 99]
