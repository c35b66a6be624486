"""The training loop: early stopping, rates, heads alone, errors; equal bytes for any number of threads."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need Torch")

from gpupipe.estimators.torch import training  # noqa: E402
from gpupipe.estimators.torch.architecture import ARCHITECTURES  # noqa: E402
from gpupipe.estimators.torch.captured import CapturedSteps  # noqa: E402
from gpupipe.estimators.torch.losses import HeadLosses, HeadTargets  # noqa: E402
from gpupipe.estimators.torch.network import arrays_of, one_thread  # noqa: E402
from gpupipe.estimators.torch.plan import LEAST_RATE, TrainingError, TrainingPlan  # noqa: E402
from gpupipe.estimators.torch.shards import SHARD_ROWS, ShardedSteps, Workers, evaluate, seed_of  # noqa: E402
from gpupipe.estimators.torch.steps import adam, autocast_of, precision_of, training_mode  # noqa: E402
from gpupipe.estimators.torch.training import train  # noqa: E402
from tests.support.training_problem import LOSSES, network_of, problem  # noqa: E402

PLAN = TrainingPlan(epochs=4, rate=0.01, rows_of_step=1100, patience=10, seed=3)


def bytes_of(network) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays_of(network).items()}


def trained(plan=PLAN, n_rows=1500, validation=True, seed=0, **options):
    """(network, Trained) of the small problem."""
    network = network_of(seed)
    windows, targets = problem(n_rows)
    judges = problem(600, seed=1) if validation else (None, None)
    return network, train(network, windows, targets, *judges, LOSSES, plan, **options)


def test_it_learns():
    network, result = trained(TrainingPlan(epochs=40, rate=0.02, rows_of_step=256, patience=40), n_rows=3000)
    before, best = result.history[0], result.history[result.best_epoch - 1]
    assert best.heads["label"] < 0.8 * before.heads["label"] and best.heads["value"] < 0.7 * before.heads["value"]
    assert not network.training


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_threads_change_no_byte(precision):
    """Steps of 1,100 rows are three shards, the last of them small; the last step of an epoch is one shard."""
    plan = TrainingPlan(epochs=3, rate=0.01, rows_of_step=1100, patience=10, seed=3, precision=precision)
    results = [trained(plan, threads=threads) for threads in (1, 2, 3)]
    assert len({str(bytes_of(network)) for network, _ in results}) == 1
    assert len({str(result) for _, result in results}) == 1
    other, _ = trained(TrainingPlan(epochs=3, rate=0.01, rows_of_step=1100, patience=10, seed=4, precision=precision))
    assert bytes_of(other) != bytes_of(results[0][0])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_threads_change_no_byte_of_the_presets_networks(name):
    results = []
    for threads in (1, 2):
        network = network_of(architecture=ARCHITECTURES[name], length=16)
        windows, targets = problem(SHARD_ROWS + 40, length=16)
        plan = TrainingPlan(1, 0.001, 1024, rates=(0.001,))
        train(network, windows, targets, None, None, LOSSES, plan, threads=threads)
        results.append(bytes_of(network))
    assert results[0] == results[1]


def test_the_global_generator_is_neither_read_nor_changed():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, _ = trained()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, _ = trained()
    assert bytes_of(first) == bytes_of(second)


def by_hand(network, windows, targets, steps) -> None:
    """The same training in plain Torch: (positions, seed of the dropout) of each step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, foreach=False)
    network.train()
    losses = HeadLosses(LOSSES)
    for positions, seed in steps:
        network.dropout_generator = torch.Generator().manual_seed(seed)
        optimizer.zero_grad()
        margins, batch = network(windows.batch(positions).clone()), targets.take(positions)
        losses.objective(losses.sums(margins, batch), losses.counts(batch)).backward()
        optimizer.step()


def test_steps_of_one_shard_are_plain_torch_to_the_last_bit():
    windows, targets = problem(900)
    plan = TrainingPlan(epochs=2, rate=0.01, rows_of_step=300, rates=(0.01, 0.01), seed=5)
    network, expected = network_of(), network_of()
    train(network, windows, targets, None, None, LOSSES, plan, threads=2)
    steps = [
        (torch.from_numpy(np.random.default_rng([5, epoch]).permutation(900)[300 * k : 300 * k + 300]), seed)
        for epoch in (1, 2)
        for k in range(3)
        for seed in [seed_of(5, epoch, k, 0)]
    ]
    with one_thread():
        by_hand(expected, windows, targets, steps)
    assert bytes_of(network) == bytes_of(expected)


def test_gradients_of_shards_are_those_of_the_whole_step():
    """Without batch normalisation and dropout, whose shards differ by design, only sums are taken in another order."""
    windows, targets = problem(SHARD_ROWS * 2 + 100)
    positions, losses = torch.arange(windows.n), HeadLosses(LOSSES)
    network = network_of().eval()
    margins = network(windows.batch(positions))
    losses.objective(losses.sums(margins, targets), losses.counts(targets)).backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    optimizer = adam(list(network.parameters()), 0.0, "cpu")
    ShardedSteps(network, windows, targets, losses, optimizer, Workers(1)).step(positions, (0,))
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        np.testing.assert_allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


def test_running_statistics_are_the_mean_of_the_shards():
    windows, targets = problem(SHARD_ROWS + 188)
    positions, losses = torch.arange(windows.n), HeadLosses(LOSSES)
    moments = []
    for part in (positions[:SHARD_ROWS], positions[SHARD_ROWS:]):
        network = network_of()
        with training_mode(network, False) as parameters:
            ShardedSteps(network, windows, targets, losses, adam(parameters, 0.0, "cpu"), Workers(1)).step(part, (0,))
        moments.append(network.convolutions[0].normalisation.running_mean)
    network = network_of()
    with training_mode(network, False) as parameters:
        ShardedSteps(network, windows, targets, losses, adam(parameters, 0.0, "cpu"), Workers(2)).step(positions, (0,))
    share = SHARD_ROWS / windows.n
    expected = share * moments[0] + (1 - share) * moments[1]
    np.testing.assert_allclose(network.convolutions[0].normalisation.running_mean, expected, rtol=1e-5)


def test_steps_for_a_gpu_give_the_bytes_of_one_shard():
    """On a CPU nothing is captured; the last step is smaller than the static buffers."""
    windows, targets = problem(700)
    networks, results = [network_of(), network_of()], []
    with one_thread():
        for network, kind in zip(networks, ("shards", "graph"), strict=True):
            with training_mode(network, False) as parameters:
                parts = (network, windows, targets, HeadLosses(LOSSES), adam(parameters, 0.01, "cpu"))
                steps = ShardedSteps(*parts, Workers(1)) if kind == "shards" else CapturedSteps(*parts, rows=300)
                order = torch.from_numpy(np.random.default_rng(0).permutation(700))
                results.append([
                    [tensor.tolist() for tensor in steps.step(positions, (7, k))]
                    for k, positions in enumerate(order.split(300))
                ])  # fmt: skip
    assert bytes_of(networks[0]) == bytes_of(networks[1]) and results[0] == results[1]


def test_evaluation_is_that_of_the_whole_in_eval_mode():
    windows, targets = problem(1200)
    network, losses = network_of().train(), HeadLosses(LOSSES)
    sums, counts = evaluate(network, windows, targets, losses, Workers(2))
    assert network.training and network.convolutions[0].normalisation.training
    with torch.no_grad():
        margins = network.eval()(windows.batch(torch.arange(1200)))
    np.testing.assert_allclose(sums, losses.sums(margins, targets), rtol=1e-5)
    assert counts.tolist() == losses.counts(targets).tolist()


# Rates, early stopping, the best weights


def with_validation_losses(monkeypatch, losses):
    """Let the validation losses be these, in turn."""
    numbers = iter(losses)
    monkeypatch.setattr(training._Loop, "validated", lambda loop: (next(numbers), {"label": 0.0, "value": 0.0}))


def test_the_rate_is_halved_on_a_plateau_and_training_ends_after_patience(monkeypatch):
    with_validation_losses(monkeypatch, [5, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4])
    plan = TrainingPlan(epochs=50, rate=0.08, rows_of_step=512, patience=9)
    _, result = trained(plan, n_rows=300)
    assert [epoch.rate for epoch in result.history] == [0.08] * 5 + [0.04] * 3 + [0.02] * 3
    assert result.best_epoch == 2 and result.rates == (0.08, 0.08)


def test_the_rate_has_a_floor(monkeypatch):
    with_validation_losses(monkeypatch, [1.0] * 60)
    plan = TrainingPlan(epochs=60, rate=3e-6, rows_of_step=512, patience=60)
    _, result = trained(plan, n_rows=50)
    assert result.history[-1].rate == LEAST_RATE


def test_the_best_weights_are_restored(monkeypatch):
    with_validation_losses(monkeypatch, [3, 2, 4, 5])
    network, result = trained(n_rows=300)
    assert result.best_epoch == 2
    with_validation_losses(monkeypatch, [3, 2])
    shorter, _ = trained(TrainingPlan(epochs=2, rate=0.01, rows_of_step=1100, patience=10, seed=3), n_rows=300)
    assert bytes_of(network) == bytes_of(shorter)


def test_the_network_as_given_may_be_the_best(monkeypatch):
    with_validation_losses(monkeypatch, [1, 2, 4, 5, 5])
    plan = TrainingPlan(epochs=4, rate=0.01, rows_of_step=512, from_start=True)
    network, result = trained(plan, n_rows=300)
    assert result.best_epoch == 0 and result.rates == () and bytes_of(network) == bytes_of(network_of())
    assert [epoch.epoch for epoch in result.history] == [0, 1, 2, 3, 4] and math.isnan(result.history[0].loss)


def test_rates_given_in_advance_repeat_a_training_without_its_validation():
    plan = TrainingPlan(epochs=8, rate=0.02, rows_of_step=256, patience=3, seed=9)
    network, result = trained(plan)
    frozen = TrainingPlan(result.best_epoch, 0.02, 256, rates=result.rates, seed=9)
    again, repeated = trained(frozen, validation=False)
    assert bytes_of(network) == bytes_of(again) and repeated.best_epoch == result.best_epoch
    assert repeated.history[0].validation_loss is None and repeated.history[0].heads.keys() == {"label", "value"}


def test_an_epoch_of_some_rows_draws_them_anew():
    windows, _ = problem(900)
    plan = TrainingPlan(epochs=2, rate=0.01, rows_of_step=200, epoch_rows=500)
    seen = []
    loop = object.__new__(training._Loop)
    loop.plan, loop.fit = plan, windows
    for epoch in (1, 2, 1):
        steps = list(loop.positions(epoch))
        assert [len(step) for step in steps] == [200, 200, 100]
        seen.append(torch.cat(steps).tolist())
        assert len(set(seen[-1])) == 500
    assert seen[0] == seen[2] != seen[1]


def test_heads_alone_leave_the_other_layers_and_their_statistics_as_they_are():
    start = bytes_of(network_of())
    plan = TrainingPlan(epochs=2, rate=0.01, rows_of_step=600, rates=(0.01, 0.01), heads_only=True)
    network, _ = trained(plan, validation=False)
    changed = {name for name, array in bytes_of(network).items() if array != start[name]}
    assert changed == {"output.weight", "output.bias"}
    assert all(parameter.requires_grad for parameter in network.parameters())


# Errors and edges


def test_a_loss_that_is_not_finite_names_the_rate():
    with pytest.raises(TrainingError, match=r"in epoch \d+, at a rate of 1e\+30: choose a lower rate"):
        trained(TrainingPlan(epochs=5, rate=1e30, rows_of_step=100), n_rows=400)


def test_one_row_one_class_and_missing_heads():
    windows, _ = problem(1)
    nan = np.float32([np.nan])
    targets = HeadTargets.of([np.int8([1]), nan])
    result = train(network_of(), windows, targets, windows, targets, LOSSES, PLAN)
    assert result.history[-1].loss < result.history[0].loss and math.isnan(result.history[0].heads["value"])
    with pytest.raises(ValueError, match="no target of the fitted rows is known"):
        train(network_of(), windows, HeadTargets.of([np.int8([-1]), nan]), windows, targets, LOSSES, PLAN)
    with pytest.raises(ValueError, match="no target of the validation rows is known"):
        train(network_of(), windows, targets, windows, HeadTargets.of([np.int8([-1]), nan]), LOSSES, PLAN)


def test_no_rows_are_refused():
    windows, targets = problem(5)
    none, nothing = problem(0)
    with pytest.raises(ValueError, match="got 0 rows"):
        train(network_of(), none, nothing, windows, targets, LOSSES, PLAN)
    with pytest.raises(ValueError, match="validation rows"):
        train(network_of(), windows, targets, none, nothing, LOSSES, PLAN)
    with pytest.raises(ValueError, match="5 rows and 0 targets"):
        train(network_of(), windows, nothing, windows, targets, LOSSES, PLAN)


def test_no_epochs_leave_the_network_as_it_is():
    network, result = trained(TrainingPlan(0, 0.1, 512, rates=()), validation=False)
    assert bytes_of(network) == bytes_of(network_of()) and result.history == () and result.best_epoch == 0


@pytest.mark.parametrize(
    "broken",
    [{"rates": (0.1,)}, {"rate": 0.0}, {"rate": math.nan}, {"rows_of_step": 0}, {"patience": 0}, {"precision": "fp16"}],
    ids=str,
)
def test_plans_that_cannot_be_are_refused(broken):
    with pytest.raises(ValueError):
        TrainingPlan(**{"epochs": 4, "rate": 0.01, "rows_of_step": 512, **broken})


def test_precision_is_fp32_on_a_cpu_unless_asked_for():
    assert precision_of("auto", "cpu") == "fp32" and precision_of("bf16", "cpu") == "bf16"
    windows, _ = problem(4)
    with autocast_of("bf16", "cpu")(), torch.no_grad():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast_of("auto", "cpu")():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
    assert network_of()(windows.batch(np.arange(4))).dtype == torch.float32
