"""Forest, boosting, network and stack: parameters act, training stops early, files give the same predictions."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import warnings

import numpy as np
import optuna
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from gpupipe.workloads.bonds.families import network, registry
from gpupipe.workloads.bonds.families.contract import FitRows, Imputer, mean_squared
from gpupipe.workloads.bonds.families.forest import Forest, _below, samples_of_a_tree
from gpupipe.workloads.bonds.families.libraries import CLASSES, estimator, one_blas_thread
from gpupipe.workloads.bonds.families.stack import StackModel, meta_weights
from gpupipe.workloads.bonds.settings import BoostingSettings, ForestSettings, LinearSettings, NetworkSettings
from tests.support.bond_run import made_rows

QUICK = {
    "forest": ForestSettings(n_trees=12, trees_at_once=3, max_depth=4, least_leaf=5, patience=3),
    "boosting": BoostingSettings(rounds=30, max_depth=3, least_leaf=5.0, patience=5),
    "network": NetworkSettings(width=16, layers=1, epochs=25, batch=32, learning_rate=0.01),
    "linear": LinearSettings(l2=0.01),
}
FAMILIES = tuple(registry.FAMILIES)


def fit_rows(seed=1, threads=1, noise=False, **changed):
    """What a fit sees; with noise, a target that nothing predicts."""
    rows = made_rows(seed)
    found = dataclasses.replace(rows, threads=threads).fit_rows(rows.split.train, rows.split.validation, 1)
    if noise:
        rng = np.random.default_rng(seed)
        y, of_validation = (rng.standard_normal(len(part)).astype(np.float32) for part in (found.y, found.validation_y))
        found = dataclasses.replace(found, y=y, validation_y=of_validation)
    return dataclasses.replace(found, **changed)


def fitted(name, rows=None, report=None, **changed):
    settings = dataclasses.replace(QUICK[name], **changed)
    return registry.FAMILIES[name].fit(rows or fit_rows(), settings, report)


@pytest.fixture(scope="module")
def models():
    return {name: fitted(name) for name in FAMILIES}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_finds_what_predicts(name, models):
    rows = fit_rows()
    loss = mean_squared(models[name].predict(rows.validation_x), rows.validation_y)
    assert loss < 0.8 * np.var(rows.validation_y)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_rows_give_the_same_files_on_one_and_two_threads(name, models):
    again = fitted(name, fit_rows(threads=2))
    assert again.files() == models[name].files() == fitted(name).files()
    assert fitted(name, fit_rows(seed=2)).files() != again.files()


@pytest.mark.parametrize("name", FAMILIES)
def test_another_seed_is_another_model_where_any_is_drawn(name, models):
    other = fitted(name, dataclasses.replace(fit_rows(), seed=77))
    assert (other.files() != models[name].files()) == (name != "linear")


@pytest.mark.parametrize("seed", [2**31, 2**32 - 1, 2**32, 10**12])
@pytest.mark.parametrize("name", FAMILIES)
def test_any_seed_fits(name, seed):
    rows = fit_rows(seed=seed)
    assert np.isfinite(fitted(name, rows).predict(rows.X)).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_files_load_to_equal_predictions_and_hold_no_pickle(name, models):
    files = models[name].files()
    X = fit_rows().validation_x
    assert np.array_equal(registry.load(name, files).predict(X), models[name].predict(X))
    for suffix, content in files.items():
        assert suffix.startswith(f".{name}.") and suffix.endswith((".npz", ".ubj"))
        assert not content.startswith(b"\x80")  # the first byte of a pickle


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_of_the_search_space_acts(name, models):
    """A trial's values differ from those fitted here one by one, and each of them changes the model."""
    values = {"max_depth": 2, "max_features": 0.2, "least_leaf": 90, "learning_rate": 0.003, "subsample": 0.21,
              "l2": 0.9, "width": 9, "layers": 2}  # fmt: skip
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    space = registry.FAMILIES[name].space(study.ask())
    assert set(space) <= set(values)
    for parameter in space:
        assert hasattr(QUICK[name], parameter)
        assert fitted(name, **{parameter: values[parameter]}).files() != models[name].files(), parameter


def test_other_settings_act(models):
    for name, changed in (
        ("forest", {"max_samples": 0.9}), ("boosting", {"colsample": 0.3}), ("network", {"batch": 64}),
        ("forest", {"n_trees": 2}), ("boosting", {"rounds": 2}), ("network", {"epochs": 1}),
    ):  # fmt: skip
        assert fitted(name, **changed).files() != models[name].files(), (name, changed)


@pytest.mark.parametrize(("name", "rounds", "kept"), [
    ("forest", {"n_trees": 60, "trees_at_once": 2, "patience": 2}, "trees"),
    ("boosting", {"rounds": 200, "patience": 4, "learning_rate": 0.2}, "rounds"),
    ("network", {"epochs": 60, "patience": 2, "learning_rate": 0.05}, "epochs"),
])  # fmt: skip
def test_training_stops_early_and_keeps_the_best(name, rounds, kept):
    rows, told = fit_rows(noise=True), []
    model = fitted(name, rows, lambda count, loss: told.append((count, loss)), **rounds)
    about = model.about()
    losses = about["validation_losses"]
    at = int(np.argmin(losses))
    assert len(losses) == at + 1 + rounds["patience"] < 25, losses
    assert about[kept] == (at + 1) * rounds.get("trees_at_once", 1)
    assert told == list(enumerate(losses, start=1)) or name == "boosting"
    assert [count for count, _ in told] == list(range(1, len(losses) + 1))
    # The losses of trees and epochs are of the very models; XGBoost tells a rounded one.
    assert mean_squared(model.predict(rows.validation_x), rows.validation_y) == pytest.approx(min(losses), rel=1e-5)


def test_a_forest_that_stopped_is_the_first_trees_of_the_whole_one():
    rows = fit_rows(noise=True)
    few = fitted("forest", rows, n_trees=60, trees_at_once=2, patience=1)
    whole = fitted("forest", rows, n_trees=60, trees_at_once=60)
    n = few.about()["trees"]
    assert n < 60 and np.array_equal(few.nodes["root"], whole.nodes["root"][:n])
    assert np.array_equal(few.nodes["value"], whole.nodes["value"][: len(few.nodes["value"])])


def test_a_fit_ends_where_the_report_raises():
    class EnoughError(Exception):
        pass

    def stop(count, loss):
        raise EnoughError

    for name in FAMILIES:
        with pytest.raises(EnoughError):
            fitted(name, None, stop)


def test_the_walk_over_arrays_is_scikit_learns_prediction():
    rows = fit_rows()
    model = fitted("forest", n_trees=9, trees_at_once=9, max_depth=7)
    imputer, settings = Imputer.of(rows.X), QUICK["forest"]
    forest = estimator(
        "forest", "cpu", n_estimators=9, max_depth=7, random_state=rows.seed,
        max_features=settings.max_features, max_samples=settings.max_samples, min_samples_leaf=settings.least_leaf,
    ).fit(imputer(rows.X), rows.y.astype(np.float64))  # fmt: skip
    # Rows exactly on thresholds, and just beside them, walk the same way too.
    thresholds = np.concatenate([tree.tree_.threshold[tree.tree_.feature == 0] for tree in forest.estimators_])
    edges = np.repeat(rows.validation_x[:1], 3 * len(thresholds), axis=0)
    near = thresholds.astype(np.float32)
    edges[:, 0] = np.concatenate([near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))])
    for X in (rows.validation_x, rows.X, edges):
        expected = forest.predict(imputer(X))
        assert np.abs(model.predict(X) - expected).max() <= 4 * np.spacing(np.float32(np.abs(expected).max()))


def test_a_threshold_keeps_its_side_for_every_float32():
    rng = np.random.default_rng(0)
    threshold = np.concatenate(
        [rng.standard_normal(300), np.float32(rng.standard_normal(300)).astype(np.float64), [0.0]]
    )
    near = threshold.astype(np.float32)
    for x in (near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))):
        assert np.array_equal(x < _below(threshold), x.astype(np.float64) <= threshold)


@pytest.mark.parametrize("name", FAMILIES)
def test_nan_and_infinite_columns_are_missing_values(name):
    rows = fit_rows()
    X, validation = rows.X.copy(), rows.validation_x.copy()
    X[:, 3], validation[:, 3] = np.nan, np.inf
    X[::7, 2], X[1::7, 2], validation[:, 4] = np.inf, -np.inf, np.nan
    rows = dataclasses.replace(rows, X=X, validation_x=validation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fitted(name, rows)
        predicted = model.predict(validation)
    assert np.isfinite(predicted).all() and predicted.dtype == np.float32
    missing = np.where(np.isfinite(validation), validation, np.float32(np.nan))
    assert np.array_equal(model.predict(missing), predicted)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_target_without_spread_is_predicted_as_it_is(name):
    rows = fit_rows()
    rows = dataclasses.replace(rows, y=np.full_like(rows.y, 0.25), validation_y=np.full_like(rows.validation_y, 0.25))
    model = fitted(name, rows, **({"epochs": 40, "learning_rate": 0.02, "patience": 40} if name == "network" else {}))
    assert np.abs(model.predict(rows.validation_x) - 0.25).max() < (0.3 if name == "network" else 1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_rows_have_no_predictions(name, models):
    assert models[name].predict(np.zeros((0, 5), np.float32)).shape == (0,)


BATCHES = (1, 2, 3, 5, 7, 17, 100, 191, 192, 193, 384, 577)


@pytest.mark.parametrize(("width", "layers"), [(8, 1), (32, 2), (64, 3)])
def test_the_outputs_of_a_row_do_not_depend_on_the_rows_beside_it(width, layers):
    """To the last bit of float64, for any number of rows and any place of the row."""
    rng = np.random.default_rng(width)
    sizes = [42, *[width] * layers, 1]
    arrays = {f"weight_{k}": rng.normal(size=pair) for k, pair in enumerate(itertools.pairwise(sizes))}
    arrays |= {f"bias_{k}": rng.normal(size=n) for k, n in enumerate(sizes[1:])}
    X = rng.normal(size=(600, 42))
    whole = network.outputs(X, arrays)
    hidden = X
    for k in range(layers + 1):
        hidden = hidden @ arrays[f"weight_{k}"] + arrays[f"bias_{k}"]
        hidden = np.maximum(hidden, 0) if k < layers else hidden
    assert whole == pytest.approx(hidden[:, 0], rel=1e-10, abs=1e-10)
    for n in BATCHES:
        for begin in {0, 1, 13, 600 - n} - set(range(600 - n + 1, 600)):
            assert np.array_equal(network.outputs(X[begin : begin + n], arrays), whole[begin : begin + n]), (n, begin)


def test_predictions_of_a_row_do_not_depend_on_the_number_of_rows(models):
    rows = fit_rows()
    X = np.vstack([rows.X, rows.validation_x])
    stack = StackModel(models, np.array([0.1, 0.3, 0.2, 0.4, 0.1]), {})
    for name, model in {**models, "stack": stack}.items():
        whole = model.predict(X)
        for n in (k for k in BATCHES if k <= len(X)):
            assert np.array_equal(model.predict(X[-n:]), whole[-n:]), (name, n)


def test_the_network_shuffles_anew_in_every_epoch(monkeypatch):
    from sklearn.neural_network import _multilayer_perceptron as sklearns

    orders, shuffle = [], sklearns.shuffle
    monkeypatch.setattr(sklearns, "shuffle", lambda *a, **k: orders.append(shuffle(*a, **k)) or orders[-1])
    fitted("network", epochs=3, patience=9)
    assert len(orders) == 3 and not np.array_equal(orders[1], orders[2]) and not np.array_equal(orders[0], orders[1])


def test_a_stack_is_the_weighted_sum_of_its_members(models):
    weights = np.array([0.01, 0.5, 0.3, 0.1, 0.2])
    stack = StackModel(models, weights, {})
    X = fit_rows().validation_x
    expected = 0.01 + sum(w * models[name].predict(X) for w, name in zip(weights[1:], models, strict=True))
    assert np.allclose(stack.predict(X), expected, atol=1e-7)
    files = stack.files()
    assert np.array_equal(registry.load("stack", files).predict(X), stack.predict(X))
    assert {suffix.split(".")[1] for suffix in files} == {"stack", *FAMILIES}
    assert stack.about()["weights"] == dict(zip(("intercept", *FAMILIES), weights, strict=True))


def test_meta_weights_are_those_of_ridge_regression():
    rng = np.random.default_rng(3)
    members = [rng.standard_normal(200).astype(np.float32) for _ in range(3)]
    y = (0.2 + 0.7 * members[0] + 0.1 * members[2] + 0.01 * rng.standard_normal(200)).astype(np.float32)
    columns = np.stack(members, axis=1).astype(np.float64)
    centered, alpha = columns - columns.mean(axis=0), 0.05 * 200 * columns.var(axis=0).mean()
    expected = np.linalg.solve(centered.T @ centered + alpha * np.eye(3), centered.T @ (y - y.mean()))
    found = meta_weights(members, y, 0.05, "cpu")
    assert found[1:] == pytest.approx(expected, rel=1e-5) and found[0] == pytest.approx(
        y.mean() - columns.mean(axis=0) @ expected, rel=1e-5
    )


def test_no_member_of_a_stack_has_a_negative_weight():
    rng = np.random.default_rng(3)
    first, noise, y = (rng.standard_normal(300).astype(np.float32) for _ in range(3))
    y = first + 0.1 * y
    found = meta_weights([first + noise, noise, -y], y, 0.01, "cpu")  # noise alone would get a weight below 0
    assert (found[1:] >= 0).all() and found[1] > 0.3 and found[2] == found[3] == 0
    against = meta_weights([-y, -first], y, 0.01, "cpu")
    assert against.tolist() == [pytest.approx(float(y.mean()), rel=1e-6), 0, 0]


@pytest.fixture
def blas_threads():
    """The numbers of threads that BLAS has, which are 2 before the test."""
    with threadpool_limits(2, "blas"):
        yield lambda: {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("fails", [False, True])
def test_blas_has_one_thread_until_the_last_step_ends(blas_threads, fails):
    inside, leave = threading.Event(), threading.Event()
    assert blas_threads() == {2}

    def step():
        with contextlib.suppress(ValueError), one_blas_thread():
            inside.set()
            leave.wait(10)
            if fails:
                raise ValueError

    other = threading.Thread(target=step)
    with one_blas_thread():
        other.start()
        inside.wait(10)
        assert blas_threads() == {1}
    assert blas_threads() == {1}  # this step has ended, the other one has not
    leave.set()
    other.join()
    assert blas_threads() == {2}


def test_steps_on_threads_that_live_on_leave_no_limit(blas_threads):
    """The thread that enters first leaves first, and both live on, as those of a pool do."""
    first_in, second_in, first_out, both_out, end = (threading.Event() for _ in range(5))
    seen = []

    def first():
        with one_blas_thread():
            first_in.set()
            second_in.wait(10)
        first_out.set()
        end.wait(10)

    def second():
        first_in.wait(10)
        with one_blas_thread():
            second_in.set()
            first_out.wait(10)
            seen.append(blas_threads())
        both_out.set()
        end.wait(10)

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    both_out.wait(10)
    assert seen == [{1}] and blas_threads() == {2}
    end.set()
    for thread in threads:
        thread.join()


def test_a_step_within_a_step_that_fails_gives_back_the_threads(blas_threads):
    with pytest.raises(ValueError, match="inner"), one_blas_thread():
        with contextlib.suppress(KeyError), one_blas_thread():
            raise KeyError
        assert blas_threads() == {1}
        raise ValueError("inner")
    assert blas_threads() == {2}


@pytest.mark.parametrize("share", [1e-9, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_forest_of_few_rows_has_a_row_for_each_tree(n, share):
    X, y = np.arange(n, dtype=np.float32)[:, None], np.arange(n, dtype=np.float32)
    own = ForestSettings(n_trees=4, trees_at_once=2, max_samples=share, least_leaf=1)
    model = Forest().fit(FitRows(X, y, X, y, seed=1), own)
    assert ((model.predict(X) >= 0) & (model.predict(X) <= n - 1)).all()
    if share < 0.3:  # one row a tree, so that each tree has a single leaf with that row's target
        assert len(model.nodes["column"]) == len(model.nodes["root"]) and set(model.nodes["value"]) <= set(y)


@pytest.mark.parametrize("share", [1e-9, 0.001, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 150, 1001])
def test_both_libraries_draw_equally_many_rows_for_a_tree(n, share):
    """scikit-learn takes a number of rows, cuML a share in float32, whichever way it is rounded."""
    count, part = (samples_of_a_tree(share, n, device) for device in ("cpu", "cuda"))
    assert 1 <= count <= n and count == max(1, int(share * n))
    assert 0 < part <= 1 and int(np.float32(part) * n) == round(np.float32(part) * n) == count


def test_estimators_are_scikit_learns_on_a_cpu():
    for name in CLASSES:
        assert type(estimator(name, "cpu")).__module__.startswith("sklearn.")


def test_fit_rows_are_what_the_contract_says():
    assert FitRows(np.zeros((2, 1)), np.zeros(2), np.zeros((1, 1)), np.zeros(1), seed=1).threads == 1
