"""The estimator sequence: fitted, saved and loaded to the bit, heads of a group's own, weights, values, edges."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import columns, registry
from gpupipe.estimators.fit_context import FitContext
from gpupipe.estimators.torch import sequence_model
from gpupipe.estimators.torch.sequence import LOG_RETURN, network_of
from gpupipe.estimators.torch.sequence_model import predict_head, predict_sequence
from gpupipe.runtime.device import DeviceError, torch_on
from gpupipe.runtime.errors import UserError
from gpupipe.targets.target import Target
from gpupipe.workloads import equity
from tests.support.fitting import fit_all, fit_group, fit_pool
from tests.support.tiny import fold_of, planted, view_of

torch = pytest.importorskip("torch", reason="the family sequence trains with Torch")

SMALL = ("sequence.network=fast", "sequence.length=6", "sequence.epochs=4", "sequence.step_rows=256",
         "sequence.patience=3")  # fmt: skip


def settings_of(*more):
    return equity.make("fast", settings=[*SMALL, *more])


def fold(groups=("a", "b"), n_rows=900, class_weight="none", threads=1, base=(-1.2, 0.0, -1.2), turned=()):
    """A training set of planted rows; in groups that are `turned` the first column tells the opposite."""

    def rows_of(group, seed):
        rows = planted(n_rows, seed, base=base)[0]
        if group not in turned:
            return rows
        return view_of(rows.X, 2 - rows.y, rows.time_ns)

    fit = {group: rows_of(group, k) for k, group in enumerate(groups)}
    validation = {group: rows_of(group, 10 + k) for k, group in enumerate(groups)}
    return fold_of(fit, validation, class_weight, threads)


def values_of(shift=3.0, size=0.02, n_rows=900, seed=0, share_unknown=0.1):
    """A view whose value is a linear function of the first column of the row before, of another size and mean."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 3)).astype(np.float32)
    y = np.append(0.0, X[:-1, 0]) + 0.1 * rng.normal(size=n_rows)
    y = (shift + size * y).astype(np.float32)
    y[rng.random(n_rows) < share_unknown] = np.nan
    rows = np.arange(n_rows)
    dataset = Dataset(
        "a", X, ("x0", "x1", "x2"), y[:, None], Target(("value",), "value", (1,), loss="squared_error"), rows, rows,
        np.ones(n_rows, bool), np.ones(n_rows, bool), np.array([0, n_rows]),
    )  # fmt: skip
    return RowView(dataset, rows)


def contents(models):
    return [model.files() for model in models]


def again(models):
    """The models as their files say."""
    boosters = {}
    return [registry.load_model(model.files(), model.describe(), boosters) for model in models]


@pytest.fixture(scope="module")
def fitted():
    """(training set, models of the pool, models of each group)."""
    training_set = fold(("a", "b", "c"), turned=("c",))
    pooled, by_group = fit_all("sequence", training_set, settings_of())
    return training_set, pooled, by_group


def log_loss(predictions, y):
    return -np.log(predictions[np.arange(len(y)), y]).mean()


def test_it_learns_and_predicts_probabilities(fitted):
    training_set, _, by_group = fitted
    for group, rows in training_set.validation.items():
        predictions = predict_sequence(by_group[group], rows.features)
        assert predictions.dtype == np.float32 and predictions.shape == (rows.n, 2, 3)
        np.testing.assert_allclose(predictions.sum(axis=2), 1, atol=2e-6)
        for k in range(2):
            shares = np.bincount(rows.y[:, k], minlength=3) / rows.n
            assert log_loss(predictions[:, k], rows.y[:, k]) < -(shares * np.log(shares)).sum()


def test_loaded_models_give_the_same_bits_and_share_a_network(fitted):
    training_set, pooled, by_group = fitted
    rows = training_set.validation["c"].features
    for models in (pooled, by_group["a"], by_group["c"]):
        loaded = again(models)
        assert np.array_equal(predict_sequence(models, rows), predict_sequence(loaded, rows))
        assert contents(loaded) == contents(models) and len({id(model.network) for model in loaded}) == 1
        assert [model.describe() for model in loaded] == [model.describe() for model in models]
        assert loaded[0].network.history.shape == (4, 4 + 2)


def test_threads_that_predict_at_once_share_one_network(fitted, monkeypatch):
    network = dataclasses.replace(network_of(fitted[1][0]))
    making = sequence_model._torch_network

    def slowly(*arguments):
        time.sleep(0.05)
        return making(*arguments)

    monkeypatch.setattr(sequence_model, "_torch_network", slowly)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(network.torch_network, ["cpu"] * 4))
    assert all(one is made[0] for one in made)


def test_a_row_has_the_same_bits_alone_and_among_others(fitted):
    training_set, _, by_group = fitted
    rows = training_set.validation["a"].features
    whole = predict_sequence(by_group["a"], rows)
    order = np.random.default_rng(0).permutation(rows.n)
    assert np.array_equal(predict_sequence(by_group["a"], rows.take(order)), whole[order])
    for at in (0, 3, 500, rows.n - 1):
        assert np.array_equal(predict_sequence(by_group["a"], rows.take(slice(at, at + 1)))[0], whole[at])
        assert np.array_equal(predict_sequence(by_group["a"][1:], rows.take(np.array([at])))[0, 0], whole[at, 1])
    assert predict_sequence(by_group["a"], rows.take(slice(0, 0))).shape == (0, 2, 3)


def test_threads_and_runs_change_no_byte(fitted):
    training_set, pooled, _ = fitted
    assert torch.get_num_threads() >= 1
    for threads in (1, 2, 3):
        models = fit_pool("sequence", dataclasses.replace(training_set, threads=threads), settings_of())
        assert contents(models) == contents(pooled)
    other = fit_pool("sequence", dataclasses.replace(training_set, seed=1), settings_of())
    assert contents(other) != contents(pooled)


def test_the_global_generator_of_torch_is_neither_read_nor_moved(fitted):
    training_set, pooled, _ = fitted
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert contents(fit_pool("sequence", training_set, settings_of())) == contents(pooled)
    assert torch.equal(torch.get_rng_state(), before)


def test_heads_of_a_group_are_kept_where_they_are_clearly_better(fitted):
    training_set, pooled, by_group = fitted
    assert [model.own is not None for model in by_group["c"]] == [True, True], "its column tells the opposite"
    assert all(model.scope == "sector" for model in by_group["c"])
    rows = training_set.validation["c"]
    for k in range(2):
        own, all_groups = (predict_sequence(models, rows.features)[:, k] for models in (by_group["c"], pooled))
        assert log_loss(own, rows.y[:, k]) < log_loss(all_groups, rows.y[:, k])
    assert all(model.network is pooled[0].network for models in by_group.values() for model in models)
    misled = dataclasses.replace(training_set, validation={**training_set.validation, "c": fold(("b",)).fit["b"]})
    models = fit_group("sequence", misled, "c", settings_of(), pooled)
    assert models == pooled, "its validation rows do not tell the opposite"


def test_out_of_fold_fits_take_the_final_choices_and_its_rates(fitted):
    training_set, pooled, by_group = fitted
    part = dataclasses.replace(
        training_set, name="part1", fit={g: rows.slice(0, 600) for g, rows in training_set.fit.items()}, validation={}
    )
    epochs = []

    def heard(text):
        epochs.append(text)

    estimator = registry.estimator("sequence").within(FitContext(detail=heard))
    in_part = fit_pool("sequence", part, settings_of(), pooled, estimator)
    rates = pooled[0].network.rates
    assert in_part[0].network.rates == rates and len(epochs) == len(rates)
    assert epochs[-1].startswith(f"epoch {len(rates)} of {len(rates)}, loss ") and "validation" not in epochs[-1]
    for group in training_set.groups:
        models = fit_group("sequence", part, group, settings_of(), in_part, by_group[group])
        assert [m.own is not None for m in models] == [m.own is not None for m in by_group[group]]


def test_one_group_alone_has_no_head_of_its_own():
    training_set = fold(("a",))
    pooled, by_group = fit_all("sequence", training_set, settings_of())
    assert by_group["a"] == pooled and pooled[0].scope == "sector"


@pytest.mark.parametrize("unweighted", [True, False])
def test_class_weights_are_corrected_back(unweighted):
    """Balanced classes are fitted, and probabilities are those of the rows as they are."""
    rare = (-3.2, 0.0, -3.2)
    training_set = fold(("a", "b"), 3_000, "none" if unweighted else "balanced", base=rare)
    pooled, by_group = fit_all("sequence", training_set, settings_of("sequence.epochs=8"))
    weights = pooled[0].class_weight
    assert (weights == 1).all() if unweighted else weights[2] > 2 * weights[1]
    for group, rows in training_set.validation.items():
        predictions = predict_sequence(by_group[group], rows.features)
        for k in range(2):
            shares = np.bincount(rows.y[:, k], minlength=3) / rows.n
            np.testing.assert_allclose(predictions[:, k].mean(axis=0), shares, atol=0.03)
            assert log_loss(predictions[:, k], rows.y[:, k]) < -(shares * np.log(shares)).sum()


def test_rows_weigh_what_they_are_given():
    training_set = fold()

    def weighted(value):
        fit = {g: rows.with_weight(np.full(rows.y.shape, value, np.float32)) for g, rows in training_set.fit.items()}
        return dataclasses.replace(training_set, fit=fit)

    plain = fit_pool("sequence", training_set, settings_of())
    assert contents(fit_pool("sequence", weighted(1), settings_of())) == contents(plain)
    uneven = weighted(1)
    uneven.fit["a"].weight[:, 1] = 0.1
    assert contents(fit_pool("sequence", uneven, settings_of())) != contents(plain)


def test_values_are_predicted_in_their_own_unit():
    fit, validation, test = (values_of(seed=seed) for seed in range(3))
    training_set = dataclasses.replace(
        fold_of({"a": fit}, {"a": validation}), target=fit.dataset.target, class_weight="none"
    )
    pooled, by_group = fit_all("sequence", training_set, settings_of("sequence.epochs=12"))
    (model,) = by_group["a"]
    predictions = predict_sequence([model], test.features)
    assert predictions.shape == (test.n, 1, 1) and by_group["a"] == pooled
    known = ~np.isnan(test.y[:, 0])
    error = ((predictions[:, 0, 0] - test.y[:, 0])[known] ** 2).mean()
    assert error < 0.5 * test.y[known, 0].var()
    for _ in range(20):
        assert np.array_equal(predict_sequence(again([model]), test.features), predictions)


def test_values_and_balanced_classes_in_the_settings():
    """What weighs classes means nothing to values, and disturbs nothing."""
    fit, validation = values_of(seed=0), values_of(seed=1)
    training_set = dataclasses.replace(fold_of({"a": fit}, {"a": validation}, "balanced"), target=fit.dataset.target)
    plain = dataclasses.replace(training_set, class_weight="none")
    assert contents(fit_pool("sequence", training_set, settings_of())) == contents(
        fit_pool("sequence", plain, settings_of())
    )


def test_the_next_bars_return_may_be_a_head_too():
    training_set = fold()
    with pytest.raises(UserError, match="hold no log_return_1; set it to 0"):
        fit_pool("sequence", training_set, settings_of("sequence.return_weight=0.5"))

    def with_return(rows):
        dataset = rows.dataset
        value = (0.01 * np.nan_to_num(dataset.X[:, 0]) + 0.001).astype(np.float32)
        value[::7] = np.nan
        return RowView(dataclasses.replace(dataset, extra={LOG_RETURN: value}), rows.rows)

    training_set = dataclasses.replace(
        training_set, fit={g: with_return(rows) for g, rows in training_set.fit.items()},
        validation={g: with_return(rows) for g, rows in training_set.validation.items()},
    )  # fmt: skip
    models = fit_pool("sequence", training_set, settings_of("sequence.return_weight=1", "sequence.epochs=12"))
    assert len(models) == 2 and models[0].network.heads[2].name == LOG_RETURN
    rows = training_set.validation["a"]
    predicted = predict_head(models[0].network, LOG_RETURN, rows.features)
    assert predicted.shape == (rows.n, 1)
    value = rows.extra(LOG_RETURN)
    known = ~np.isnan(value)
    assert np.corrcoef(predicted[known, 0], value[known])[0, 1] > 0.8
    assert abs(predicted.mean() - 0.001) < 0.003
    with pytest.raises(ValueError, match="no head 'other'"):
        predict_head(models[0].network, "other", rows.features)


def test_a_class_that_no_row_has_and_a_column_that_is_never_there():
    training_set = fold()

    def poorer(rows):
        X = rows.X.copy()
        X[:, 3] = np.nan
        X[:, 4] = 7
        return view_of(X, np.where(rows.y == 2, np.int8(1), rows.y), rows.time_ns)

    training_set = dataclasses.replace(
        training_set, fit={g: poorer(rows) for g, rows in training_set.fit.items()},
        validation={g: poorer(rows) for g, rows in training_set.validation.items()},
    )  # fmt: skip
    models = fit_all("sequence", training_set, settings_of())[1]["a"]
    predictions = predict_sequence(models, training_set.validation["a"].features)
    assert np.isfinite(predictions).all() and (predictions[:, :, 2].mean(axis=0) < 0.02).all()
    rows = training_set.validation["a"]
    nothing = view_of(np.full_like(rows.X, np.nan), rows.y, rows.time_ns)
    assert np.isfinite(predict_sequence(models, nothing.features)).all(), "all columns missing"


def test_few_rows():
    training_set = fold(n_rows=5)
    models = fit_all("sequence", training_set, settings_of())[1]["b"]
    assert np.isfinite(predict_sequence(models, training_set.fit["b"].features)).all()


def test_chosen_columns_are_picked():
    training_set = fold().of_columns(np.array([0, 1, 4]))
    pooled, by_group = fit_all("sequence", training_set, settings_of())
    assert network_of(pooled[0]).scaler.n_columns == 3
    whole = fold().validation["a"]
    estimator = registry.estimator("sequence")
    predictions = columns.predict(estimator, by_group["a"], whole.features)
    changed = whole.X.copy()
    changed[:, [2, 3, 5]] = 9
    other = view_of(changed, whole.y, whole.time_ns)
    assert np.array_equal(columns.predict(estimator, by_group["a"], other.features), predictions)


def test_damaged_files_are_refused(fitted):
    model = fitted[1][0]
    content = model.files()[".safetensors"]
    for broken in (content[: len(content) // 2], content[:-3], b"", b"x" * 40, content[:8] + b"?" + content[9:]):
        with pytest.raises(Exception) as raised:
            registry.load_model({".safetensors": broken}, model.describe(), {})
        assert not isinstance(raised.value, (MemoryError, AttributeError, IndexError)), raised.value


def two_classes(rows):
    """The rows with the class 1 where it was 2, else 0; -1 stays."""
    dataset = rows.dataset
    target = Target(dataset.target.names, "classes", dataset.target.horizon_rows, ("down", "up"))
    y = np.where(dataset.y < 0, dataset.y, dataset.y == 2).astype(np.int8)
    return RowView(dataclasses.replace(dataset, y=y, target=target), rows.rows)


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_two_classes(class_weight):
    training_set = fold(class_weight=class_weight)
    fit, validation = (
        {group: two_classes(rows) for group, rows in part.items()}
        for part in (training_set.fit, training_set.validation)
    )
    training_set = dataclasses.replace(training_set, fit=fit, validation=validation, target=fit["a"].dataset.target)
    pooled, by_group = fit_all("sequence", training_set, settings_of("sequence.epochs=8"))
    assert by_group["a"] == pooled
    rows = validation["a"]
    first = predict_sequence(pooled, rows.features)
    assert first.shape == (rows.n, 2, 2)
    np.testing.assert_allclose(first.sum(axis=2), 1, atol=1e-6)
    np.testing.assert_allclose(first[:, :, 1].mean(axis=0), (rows.y == 1).mean(axis=0), atol=0.05)
    for k in range(2):
        shares = np.bincount(rows.y[:, k], minlength=2) / rows.n
        assert log_loss(first[:, k], rows.y[:, k]) < -(shares * np.log(shares)).sum()
    for _ in range(20):
        assert np.array_equal(predict_sequence(again(pooled), rows.features), first)


def test_four_classes_are_refused():
    rows = fold().fit["a"]
    target = Target(rows.dataset.target.names, "classes", rows.dataset.target.horizon_rows, ("a", "b", "c", "d"))
    view = RowView(dataclasses.replace(rows.dataset, target=target), rows.rows)
    training_set = dataclasses.replace(fold_of({"a": view}, {"a": view}), target=target)
    with pytest.raises(UserError, match="two or three classes, not 4"):
        fit_pool("sequence", training_set, settings_of())


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_validation_measures_the_predicted_probabilities_of_rows_that_count_alike(class_weight):
    """The losses that stop a training are those of the published probabilities, whatever weighs in the fit."""
    training_set = fold(("a", "b"), class_weight=class_weight, base=(-2.5, 0.0, -2.5))
    rng = np.random.default_rng(0)

    def weighted(part):
        views = part.items()
        return {g: rows.with_weight(rng.uniform(0.1, 3, rows.y.shape).astype(np.float32)) for g, rows in views}

    training_set = dataclasses.replace(
        training_set, fit=weighted(training_set.fit), validation=weighted(training_set.validation)
    )
    pooled = fit_pool("sequence", training_set, settings_of())
    network = pooled[0].network
    best = network.history[len(network.rates) - 1]
    views = training_set.validation.values()
    for k, head in enumerate(network.heads):
        predictions = np.concatenate([predict_sequence(pooled, rows.features)[:, k] for rows in views])
        loss = log_loss(predictions.astype(np.float64), np.concatenate([rows.y[:, k] for rows in views]))
        assert best[network.columns.index(head.name)] == pytest.approx(loss, rel=1e-5)


def test_a_torch_without_cuda_is_refused_in_words(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert torch_on("cpu") == "cpu"
    with pytest.raises(DeviceError, match=r"Torch .* cannot use the GPU .*run with --device cpu"):
        torch_on("cuda")
