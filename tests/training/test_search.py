"""Tuning: what a trial is scored and pruned by, what studies share, how they go on, and what becomes of their best."""

from __future__ import annotations

import json
import sys
import tomllib
import types

import numpy as np
import optuna
import pytest

from gpupipe.artifacts.manifest import altered_files, read_manifest
from gpupipe.cli import guard, main
from gpupipe.config import ConfigError
from gpupipe.data import load
from gpupipe.estimators import columns, registry
from gpupipe.estimators.boosting import binned_matrix
from gpupipe.estimators.boosting.gradient_boosting import LOOK_ROUNDS
from gpupipe.estimators.contract import EstimatorSettings
from gpupipe.pipeline import tune_job
from gpupipe.report import sentences
from gpupipe.runtime.device import pick
from gpupipe.runtime.errors import UserError
from gpupipe.training import search as tuning
from gpupipe.training import trial
from gpupipe.training.search import Study
from gpupipe.training.trial import TrialRows
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, SOURCE, fold_of, planted, tiny_market, view_of

ROUNDS = 24
SETTINGS = equity.make("fast", settings=[
    f"{name}.rounds={ROUNDS}" for name in ("joint", "hist", "leafwise")] + ["training.early_stopping=4"]
)  # fmt: skip
HIST, LEAFWISE = Study("xgb_hist", "a", "label_0"), Study("xgb_leafwise", "a", "label_0")
GOOD = {"depth": 3, "learning_rate": 0.25, "min_child_weight": 2.0, "l2": 1.0, "subsample": 1.0, "column_share": 1.0}
BAD = {**GOOD, "learning_rate": 0.02, "min_child_weight": 20.0, "l2": 100.0}


def world():
    sectors = ("a", "b")
    return fold_of({s: planted(600, k)[0] for k, s in enumerate(sectors)},
                   {s: planted(400, 10 + k)[0] for k, s in enumerate(sectors)})  # fmt: skip


@pytest.fixture
def storage(tmp_path):
    with tuning.storage_in(tmp_path / "studies.sqlite") as storage:
        yield storage


def search_of(storage, n_trials, pruner="median", training_set=None, **more):
    values = {"rows_key": "r", "key": "k", "settings": SETTINGS, "period_dates": 5, **more}
    return tuning.Search(training_set or world(), storage=storage, n_trials=n_trials, pruner=pruner, **values)


def trials_of(storage, number=0):
    (name,) = [one for one in optuna.get_all_study_names(storage)][number : number + 1]
    return optuna.load_study(study_name=name, storage=storage).get_trials()


def one_by_one(storage, trials, study=HIST, pruner="median"):
    """The states and steps of trials with given values, in a study of their own."""
    search = search_of(storage, 0, pruner)
    scored = tuning._Scored.of(search, study)
    optuna_study = search._optuna_study(study, scored)
    optuna_study.optimize(scored.objective, n_trials=1)  # the settings' own values, which are in line
    for values in trials:
        optuna_study.enqueue_trial(values)
        optuna_study.optimize(scored.objective, n_trials=1)
    return optuna_study.get_trials()


FIVE = [{**GOOD, "depth": depth, "learning_rate": rate} for depth, rate in ((3, 0.06), (2, 0.08), (4, 0.06), (3, 0.07))]


def states(trials):
    return [one.state.name for one in trials]


def test_a_bad_trial_is_pruned_and_a_good_one_is_not(storage):
    trials = one_by_one(storage, [*FIVE, BAD, GOOD])
    assert states(trials) == ["COMPLETE"] * 5 + ["PRUNED", "COMPLETE"]
    assert max(trials[5].intermediate_values) < max(trials[0].intermediate_values)
    assert trials[5].value > max(one.value for one in trials if one.state.name == "COMPLETE")


def test_fed_the_wrong_way_round_the_pruner_would_do_the_opposite(storage, monkeypatch):
    """So the test before this one would see an inverted metric."""
    told = optuna.Trial.report
    monkeypatch.setattr(optuna.Trial, "report", lambda self, value, step: told(self, -value, step))
    trials = one_by_one(storage, [*FIVE, BAD, GOOD])
    assert states(trials)[5:] == ["COMPLETE", "PRUNED"]


def test_hyperband_stops_bad_trials_early_too(storage):
    trials = one_by_one(storage, [*FIVE, GOOD, GOOD, *[BAD] * 5], pruner="hyperband")
    assert states(trials[:1]) + states(trials[5:7]) == ["COMPLETE"] * 3
    stopped = [one for one in trials[7:] if one.state.name == "PRUNED"]
    assert len(stopped) >= 2 and max(len(one.intermediate_values) for one in stopped) <= 3


@pytest.mark.parametrize("study", [HIST, Study("xgb_leafwise", "b", ""), Study("xgb_joint", "", "")])
def test_reports_are_earlier_states_of_what_is_minimised(storage, monkeypatch, study):
    monkeypatch.setattr(tuning, "REPORTS", ROUNDS)  # every round
    (one,) = one_by_one(storage, [], study)
    steps = list(one.intermediate_values)
    assert steps[0] == LOOK_ROUNDS and one.intermediate_values[steps[0]] < 1.0  # 1 is the prior
    labels = 2 if study.sector and not study.label else 1
    last = [value for step, value in one.intermediate_values.items() if step > ROUNDS * (labels - 1)]
    assert max(steps) <= ROUNDS * labels
    if study.sector:
        assert one.value == pytest.approx(min(last), abs=2e-6)
    else:  # each label is taken at its own best round
        assert min(last) - 0.01 < one.value <= min(last) + 2e-6


def test_the_value_is_the_loss_of_what_training_fits():
    training_set = world()

    def no_report(step, loss):
        pass

    for name, targets in (("xgb_hist", [0, 1]), ("xgb_leafwise", [1])):
        estimator = registry.estimator(name)
        settings = EstimatorSettings(SETTINGS, estimator)
        pooled = columns.fit_pool(estimator, training_set, settings, None)
        models = columns.fit_group(estimator, training_set, "a", settings, pooled, None)
        predictions = columns.predict(estimator, models, training_set.validation["a"].features)
        validation = trial.validation_of(training_set, ["a"], targets)
        stage = SETTINGS.hist if name == "xgb_hist" else SETTINGS.leafwise
        rows = TrialRows(training_set, "a", tuple(targets), validation)
        losses = trial.fit_labels(estimator, rows, stage, 4, no_report)
        np.testing.assert_array_equal(losses, trial.losses(predictions[:, targets], validation.y))
    validation = trial.validation_of(training_set, ["a", "b"], [0, 1])
    rows = TrialRows(training_set, "", (0, 1), validation)
    for name, stage in (("xgb_joint", SETTINGS.joint), ("linear", SETTINGS.linear)):
        estimator = registry.estimator(name)
        losses = trial.fit_pool(estimator, rows, stage, SETTINGS.training.early_stopping, no_report)
        pooled = columns.fit_pool(estimator, training_set, EstimatorSettings(SETTINGS, estimator), None)
        predictions = np.concatenate(
            [columns.predict(estimator, pooled, view.features) for view in training_set.validation.values()]
        )
        np.testing.assert_array_equal(losses, trial.losses(predictions, validation.y))
        assert (losses.mean(axis=0) < validation.prior).all()


def test_gains_by_date_are_of_the_prior_and_unknown_rows_are_nowhere():
    loss = np.array([[0.5, 1.0], [1.5, np.nan], [1.0, 2.0]])
    seen = trial.Validation(np.array([7, 3, 7]), np.zeros((3, 2), np.int8),
                            np.array([[1.0, 2.0], [1.0, np.nan], [1.0, 2.0]]))  # fmt: skip
    np.testing.assert_allclose(tuning.gain_by_date(seen, loss), [-0.5, (0.5 + 0.5 + 0 + 0) / 4])


def test_a_label_without_events_on_validation_does_not_count():
    """Its prior loses a thousandth: a model's 0.14 would be 140 times that, whatever the other label says."""
    y, prior, loss = np.int8([[0, 1], [2, 1], [1, 1]]), np.tile([1.0, 0.001], (3, 1)), np.tile([0.9, 0.14], (3, 1))
    seen = trial.Validation(np.arange(3), y, prior)
    assert seen.judged.tolist() == [True, False]
    np.testing.assert_allclose(tuning.gain_by_date(seen, loss), [0.1] * 3)
    scorer = types.SimpleNamespace(rows=types.SimpleNamespace(validation=seen))
    assert tuning._Scored.value(scorer, loss.mean(axis=0)) == pytest.approx(0.9)
    assert trial.Validation(np.arange(3), y[:, 1:], prior[:, 1:]).judged.tolist() == [True]  # there is no other


def test_trials_share_the_bins(storage, monkeypatch):
    made, real = [], binned_matrix.quantile_matrix

    def counted(*given, **more):
        made.append(given)
        return real(*given, **more)

    monkeypatch.setattr(binned_matrix, "quantile_matrix", counted)
    search = search_of(storage, 2)
    studies = tuning.studies_of(search.training_set, ("xgb_hist", "xgb_leafwise", "xgb_joint"), "label", 20)
    assert len(studies) == 2 * 2 * 2 + 1
    found = tune_job._search(search, studies, jobs=2)
    assert sum(one["trials"]["tried"] for one in found) == 2 * 9
    asked = set()
    for one in found:
        study = optuna.load_study(study_name=one["study"], storage=storage)
        asked |= {(one["sector"], round(1 / t.params["subsample"])) for t in study.get_trials()}
    # Cut points of all rows, kept in one, and of each number of samples that was asked for the bins of each: made once.
    assert len(made) == 2 + sum(n for _, n in asked) < 3 * 9


def test_too_few_positives_are_not_tuned():
    fit = {s: planted(600, k)[0] for k, s in enumerate(("a", "b"))}
    fit["b"].y[fit["b"].y[:, 1] == 2, 1] = 1
    fold = fold_of(fit, {s: planted(100, 10)[0] for s in fit})
    assert tuning.studies_of(fold, ("xgb_hist",), "label", 20) == [
        Study("xgb_hist", s, name) for s, name in (("a", "label_0"), ("a", "label_1"), ("b", "label_0"))
    ]  # fmt: skip
    assert tuning.studies_of(fold, ("xgb_hist",), "sector", 10_000) == []


class KilledError(BaseException):
    """As a process that is gone: nothing is tidied up."""


def test_a_killed_study_goes_on_and_ends_as_one_that_never_stopped(tmp_path, monkeypatch):
    study = Study("xgb_hist", "a", "")
    whole, real, calls = {}, trial.fit_labels, []

    def killed(*given):
        calls.append(0)
        if len(calls) == 12:
            raise KilledError
        return real(*given)

    for name in ("whole", "killed"):
        if name == "killed":
            monkeypatch.setattr(trial, "fit_labels", killed)
            with tuning.storage_in(tmp_path / name) as storage, pytest.raises(KilledError):
                search_of(storage, 12).run(study)
        with tuning.storage_in(tmp_path / name) as storage:
            if name == "killed":
                assert states(trials_of(storage)).count("RUNNING") == 1
            advanced = []
            search = search_of(storage, 12, advance=advanced.append)
            whole[name] = search.run(study), trials_of(storage)
            assert len(advanced) == 12
            again = search_of(storage, 5).run(study)
            assert again == whole[name][0] and len(trials_of(storage)) == len(whole[name][1])
    (found, trials), (resumed, more) = whole["whole"], whole["killed"]
    assert resumed["trials"] == {**found["trials"], "failed": 1, "tried": 13}
    assert [one.params for one in more if one.state.name != "FAIL"] == [one.params for one in trials]
    assert resumed["best"] == found["best"] and resumed["best_gain"] == found["best_gain"]


def test_every_trial_on_the_same_rows_is_counted(storage):
    linear = Study("linear", "", "")
    counted = [
        search_of(storage, 3, rows_key=rows, key=key).run(linear)["trials"]["tried"]
        for rows, key in (("one", "a"), ("one", "b"), ("two", "a"), ("one", "a"))
    ]
    assert counted == [3, 6, 3, 6]


def test_own_values_are_the_first_trial_and_widen_the_ranges(storage):
    own = equity.make("fast", settings=["hist.depth=12", "hist.learning_rate=0.5", f"hist.rounds={ROUNDS}"])
    found = search_of(storage, 1, settings=own).run(HIST)
    assert found["best"]["depth"] == 12 and found["best"]["learning_rate"] == 0.5
    assert found["best_gain"] == found["preset_gain"] and found["deflated_sharpe_over_preset"] is None
    ranges = tuning.space(HIST, own)
    assert (ranges["depth"].low, ranges["depth"].high, ranges["learning_rate"].low) == (2, 12, 0.02)
    assert "leaves" in tuning.space(LEAFWISE, own) and "depth" not in tuning.space(LEAFWISE, own)
    assert "subsample" not in tuning.space(HIST, equity.make("fast", settings=["ml.subsample=0.5"]))
    with pytest.raises(ConfigError, match=r"hist.l2 = 0.0 cannot be tuned on a log scale: set it above 0"):
        tuning.space(HIST, equity.make("fast", settings=["hist.l2=0"]))


def test_noise_is_deflated_and_a_signal_is_not(storage):
    def with_noise(seed):
        rows, _ = planted(600, seed)
        rows.X[:, :2] = np.random.default_rng(seed).normal(size=(600, 2))
        return rows

    signal = search_of(storage, 12, key="signal").run(HIST)
    noise = fold_of({"a": with_noise(1)}, {"a": with_noise(2)})
    none = search_of(storage, 12, key="none", rows_key="other", training_set=noise).run(HIST)
    assert signal["deflated_gain"] > 0.1 and signal["deflated_sharpe"] > 0.5 and signal["overfitting"] < 0.25
    assert none["deflated_gain"] < 0.25 * signal["deflated_gain"] and none["best_gain"] < 0.02
    # One draw: that noise is called noise as often as it should be is shown in test_deflation.
    assert none["overfitting"] > 0.25 and (none["deflated_sharpe"] or 0) < 0.95


def test_what_cannot_be_used_is_said(tmp_path, monkeypatch):
    path = tmp_path / "studies.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="delete it, or choose another --out"), tuning.storage_in(path):
        pass
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[tune\]'"), tuning.storage_in(tmp_path / "new"):
        pass


TINY = equity.make("fast", settings=[*QUICK])


def altered_test_part(panel):
    """The panel with every price of the sealed test part multiplied by anything at all."""
    first = tiny.prepare(panel, TINY).folds.published.test[0].start
    factor = np.where(panel.time_ns >= first, np.random.default_rng(0).uniform(0.5, 2, panel.n_rows), 1)
    prices = {name: getattr(panel, name) * factor.astype(np.float32) for name in ("open", "high", "low", "close")}
    return panel.replace(**prices)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """(OUT, what was found, the settings with it): all families, a study for each sector."""
    out = tmp_path_factory.mktemp("tuned") / "OUT"
    return out, *tiny.tune(tiny_market(), None, TINY, tune_job.Wanted(2, accept="best"), out, jobs=2)


def test_the_sealed_test_is_not_read(tuned, tmp_path):
    out, found, _ = tuned
    wanted = tune_job.Wanted(2, families=("xgb_joint", "xgb_hist"), accept="best")
    other, _ = tiny.tune(altered_test_part(tiny_market()), None, TINY, wanted, tmp_path, jobs=1)
    assert found["data_hash"] != other["data_hash"] and len(other["studies"]) == 4
    for one in other["studies"]:
        (same,) = (s for s in found["studies"] if (s["family"], s["sector"]) == (one["family"], one["sector"]))
        assert {**one, "study": ""} == {**same, "study": ""}
    text = (tmp_path / tune_job.TUNED).read_text()
    assert text.split("\n\n[tuning]")[0].split("\n\n")[-1].strip() in (out / tune_job.TUNED).read_text()


def test_what_was_found_is_what_the_file_gives_and_what_is_trained(tuned):
    out, found, settings = tuned
    assert {(one["family"], one["sector"]) for one in found["studies"]} == {
        *((family, sector) for family in ("xgb_hist", "xgb_leafwise") for sector in SECTORS),
        ("xgb_joint", ""), ("linear", ""),
    }  # fmt: skip
    assert equity.make(None, out / tune_job.TUNED, QUICK) == settings and settings.digest() != TINY.digest()
    best = {(one["section"], one["sector"]): one["best"] for one in found["studies"]}
    assert tomllib.loads((out / tune_job.TUNED).read_text())["tuned"]["energy"]["hist"] == best["hist", "energy"]
    for sector in SECTORS:
        assert settings.for_label("hist", sector, "label_1d_2pct").l2 == best["hist", sector]["l2"]
    assert settings.joint.l2 == best["joint", ""]["l2"] and settings.linear.l2 == best["linear", ""]["l2"]
    assert found == tune_job.read(out) == json.loads((out / tune_job.JSON).read_text())
    for one in found["studies"]:
        assert one["trials"]["tried"] == 2 and one["best_gain"] >= one["preset_gain"]


def test_a_best_trial_that_is_not_better_on_other_dates_keeps_the_preset(tuned):
    """The default: as if one study had found something, and the others nothing, or too little to say."""
    _, found, _ = tuned
    as_if = [
        {**one, "deflated_gain": gain, "preset_gain_by_period": 0.01}
        for one, gain in zip(found["studies"], [0.02, 0.01, None, *[-0.1] * 5], strict=True)
    ]
    chosen = [tuning.chosen(one, "deflated") for one in as_if]
    assert [one["accepted"] for one in chosen] == [True] + [False] * 7
    assert all(tuning.chosen(one, "best")["accepted"] for one in as_if)
    first = chosen[0]
    assert first["chosen"] == first["best"] and chosen[1]["chosen"] == chosen[1]["preset"]
    earlier = equity.with_table(TINY, {"tuned": {s: {"hist": {"l2": 9.0}} for s in SECTORS}})
    settings = tune_job.with_results(equity.EQUITY, earlier, chosen)
    assert all(getattr(getattr(settings, first["section"]), name) == value for name, value in first["best"].items())
    assert settings.for_label("hist", "energy", "").l2 == TINY.hist.l2, "the value of an earlier tuning is gone"
    for one in chosen:
        stage = settings.for_label(one["section"], one["sector"], "")
        assert all(getattr(stage, name) == value for name, value in one["chosen"].items())


def test_where_tuned_values_come_from_goes_with_the_file(tuned, tmp_path):
    out, found, settings = tuned
    given = tune_job.provenance([out / tune_job.TUNED])
    told = tune_job.section(given, settings, found["data_hash"])
    assert told == tune_job.section(found, settings, found["data_hash"]), "the file says what the command knew"
    assert told["trials_tried"] == 2 * 8 and told["studies_file"] == "studies.sqlite" and told["same_data"]
    assert all(one["in_use"] and one["chosen"] == one["best"] for one in told["studies"])
    moved = equity.make(None, out / tune_job.TUNED, [*QUICK, "linear.l2=12345"])
    elsewhere = tune_job.section(given, moved, "other data")
    assert not elsewhere["same_data"]
    assert [one["family"] for one in elsewhere["studies"] if not one["in_use"]] == ["linear"]
    said = " ".join(sentences.tuning_sentences(elsewhere))
    assert "16 trials in 8 studies" in said and "other data" in said and "values of 1 of these studies" in said
    plain = tmp_path / "plain.toml"
    plain.write_text('preset = "fast"\n')
    assert tune_job.provenance([]) is None and tune_job.provenance([plain]) is None
    both = tune_job.provenance([plain, out / tune_job.TUNED, out / tune_job.TUNED])
    assert both == given
    plain.write_text("[tuning]\ntrials = 3\n")
    with pytest.raises(ConfigError, match="not what gpupipe tune wrote: delete it"):
        tune_job.provenance([plain])


def test_words_say_what_the_deflated_figure_says(tuned):
    _, found, settings = tuned
    told = tune_job.section({**found, "accept": "deflated"}, settings, found["data_hash"])

    def said(deflated, sharpe, accepted):
        figures = {"best_gain": 0.1, "preset_gain_by_period": 0.05, "deflated_gain": deflated, "accepted": accepted,
                   "deflated_sharpe_over_preset": sharpe}  # fmt: skip
        return sentences.tuning_sentences({**told, "studies": [{**one, **figures} for one in told["studies"]]})

    nothing, something, unknown = said(0.04, None, False), said(0.07, 0.99, True), said(None, None, False)
    assert "0 better than the preset on dates that did not choose, 8 not or not known" in nothing[0]
    assert "no skill in tuning: the best gain 10.0 % on the dates that chose them, 4.0 % on others" in nothing[1]
    assert "tuning found something" in something[1] and "0.95 or more: 8." in something[1]
    assert unknown[1].startswith("Too few validation dates")


def test_values_of_a_label_change_its_model_and_no_other():
    training_set, estimator = world(), registry.estimator("xgb_hist")
    changed = equity.with_table(SETTINGS, {"tuned": {"a": {"label_1": {"hist": {"depth": 1}}}}})

    def files_of(group, settings):
        readable = EstimatorSettings(settings, estimator)
        models = columns.fit_group(estimator, training_set, group, readable, [None, None], None)
        return [model.files() for model in models]

    for group, same in (("a", [True, False]), ("b", [True, True])):
        before, after = (files_of(group, settings) for settings in (SETTINGS, changed))
        assert [one == other for one, other in zip(before, after, strict=True)] == same


def call(capsys, *arguments):
    capsys.readouterr()
    code = main.main([str(one) for one in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


DATA = ("--data", SOURCE, "--sectors", "energy,utilities", "--preset", "fast", *(f"--set={one}" for one in QUICK))


def test_the_command_line_tunes_goes_on_and_trains_with_it(capsys, tmp_path):
    out = tmp_path / "OUT"
    asked = ("tune", *DATA, "--family", "xgb_hist", "--per", "label", "--out", out, "--horizons", "1")
    code, printed, errors = call(capsys, *asked, "--trials", "2")
    assert code == 0 and errors == "" and "label_1d_4pct" in printed and "PBO" in printed and "tuned.toml" in printed
    assert "the preset's values are kept; --accept best takes the best" in " ".join(printed.split())
    assert max(len(line) for line in printed.splitlines()) <= 120
    code, printed, _ = call(capsys, *asked, "--trials", "3", "--pruner", "hyperband", "--json")
    found = json.loads(printed)
    assert code == 0 and [one["trials"]["tried"] for one in found["studies"]] == [3] * 4
    trained = ("run", *DATA, "--models", "xgb_hist", "--horizons", "1", "--out", out)
    code, printed, errors = call(capsys, *trained, "--config", out / "tuned.toml", "--json")
    summary = json.loads(printed)
    told = summary["tuning"]
    accepted = sum(one["accepted"] for one in told["studies"])
    assert code == 0 and errors == "" and len(summary["settings"]["tuned"]) == accepted and summary["n_models"] == 4
    assert told["trials_tried"] == 12 and told["same_data"] and all(one["in_use"] for one in told["studies"])
    assert json.loads((out / "manifest.json").read_text())["tuning"] == told
    # The same in one command, which finds its studies and its models done, and says what the tuning is worth.
    code, printed, errors = call(capsys, *trained, "--tune", "3", "--tune-per", "label")
    assert code == 0 and errors == "" and "Nothing to do" in printed and "PBO" in printed
    assert "Tuning: 12 trials in 4 studies" in " ".join(printed.split())
    assert "energy.label_1d_2pct.hist]" in (out / "tuned.toml").read_text()
    code, _, errors = call(capsys, *trained, "--tune", "3", "--tune-per", "label", "--accept", "best", "--json")
    best = json.loads((out / "summary.json").read_text())
    assert code == 0 and errors == "" and len(best["settings"]["tuned"]) == 4 and best["tuning"]["accept"] == "best"
    # More trials of a finished run's values: the models stay, and the summary and the manifest tell of them.
    told = {**best["tuning"], "trials": 9}
    settings = equity.make("fast", out / "tuned.toml", [*QUICK], training__models=["xgb_hist"], labels__horizons=(1,))
    panel, report = load(SOURCE, None, "energy,utilities", pick("cpu"))
    again, worked = tiny.execute(panel, report, settings, out, tuning=told)
    assert not worked and again["tuning"]["trials"] == 9
    assert not altered_files(out, read_manifest(out))


@pytest.mark.parametrize(
    "words, arguments",
    [
        ("trials 0: expected 1 or more", ("tune", *DATA, "--trials", "0")),
        ("per week: expected sector or label", ("tune", *DATA, "--per", "week")),
        ("pruner best: expected median or hyperband", ("tune", *DATA, "--pruner", "best")),
        ("accept all: expected deflated or best", ("tune", *DATA, "--accept", "all")),
        ("family random_forest: expected one of", ("tune", *DATA, "--family", "random_forest")),
        ("linear: tuned over all sectors at once", ("tune", *DATA, "--family", "linear", "--pool", "none")),
        ("trials 0: expected 1 or more", ("run", *DATA, "--tune", "0")),
        ("nothing to tune in random_forest", ("run", *DATA, "--tune", "2", "--models", "random_forest")),
        ("split.cpcv tests rows that tuning has seen", ("run", *DATA, "--tune", "2", "--cpcv", "4,2")),
        ("cannot be tuned on a log scale", ("tune", *DATA, "--set", "hist.l2=0", "--family", "xgb_hist")),
    ],
)
def test_what_cannot_be_tuned_is_one_line(capsys, tmp_path, words, arguments):
    code, _, errors = call(capsys, *arguments, "--out", tmp_path / "OUT")
    assert code == guard.USER_ERROR and len(errors.splitlines()) == 1 and words in errors


def test_walk_forward_is_tuned_on_what_lies_before_all_its_tests(tuned, tmp_path):
    _, found, _ = tuned
    moving = equity.make("fast", settings=[*QUICK, "split.walk_forward=2"])
    wanted = tune_job.Wanted(2, families=("linear",), accept="best")
    other, settings = tiny.tune(tiny_market(), None, moving, wanted, tmp_path)
    (same,) = (one for one in found["studies"] if one["family"] == "linear")
    assert other["studies"] == [same] and settings.split.walk_forward == 2


def test_columns_that_are_twins_are_left_out_as_in_training(storage):
    def twice(seed):
        rows = planted(300, seed)[0]
        return view_of(np.hstack([rows.X, rows.X[:, :1]]), rows.y, rows.time_ns)

    fold = fold_of({"a": twice(1), "b": twice(2)}, {"a": twice(3), "b": twice(4)})
    scored = tuning._Scored.of(search_of(storage, 1, training_set=fold), HIST)
    assert (fold.n_columns, scored.rows.training_set.n_columns) == (7, 6)
