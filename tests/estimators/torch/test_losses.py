"""Losses of heads against plain formulas: unknown targets, weights, and parts whose gradients add up."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="losses are computed by Torch, which is not installed")

from gpupipe.estimators.torch.architecture import Head  # noqa: E402
from gpupipe.estimators.torch.losses import HeadLoss, HeadLosses, HeadTargets  # noqa: E402

N = 40
CLASSES, VALUE = Head("label", 3), Head("return", 1)


def problem(seed=0):
    """Margins of a class head and a value head, and their targets, some of them unknown."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(0, 2, (N, 4)).astype(np.float32)
    y = rng.integers(-1, 3, N).astype(np.int8)
    value = rng.normal(0.01, 0.05, N).astype(np.float32)
    value[rng.random(N) < 0.3] = np.nan
    return margins, y, value


def log_losses(margins, y) -> np.ndarray:
    z = margins.astype(float)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), np.maximum(y, 0)]


def test_sums_and_counts_equal_the_plain_formulas():
    margins, y, value = problem()
    row_weights = np.random.default_rng(1).uniform(0.5, 2, N).astype(np.float32)
    class_weights = (2.0, 0.5, 1.5)
    losses = HeadLosses([HeadLoss(CLASSES, class_weights=class_weights), HeadLoss(VALUE, centre=0.01, deviation=0.05)])
    targets = HeadTargets.of([y, value], [row_weights, None])
    known, there = y >= 0, ~np.isnan(value)
    weights = row_weights * np.array(class_weights)[np.maximum(y, 0)] * known
    squares = ((margins[:, 3] - (value - 0.01) / 0.05) ** 2)[there]
    np.testing.assert_allclose(losses.counts(targets), [weights.sum(), there.sum()], rtol=1e-6)
    expected = [(log_losses(margins[:, :3], y) * weights).sum(), squares.sum()]
    np.testing.assert_allclose(losses.sums(torch.from_numpy(margins), targets), expected, rtol=1e-5)


def test_the_objective_is_the_mean_of_the_heads_by_their_weights():
    margins, y, value = problem()
    losses = HeadLosses([HeadLoss(CLASSES, 3.0), HeadLoss(VALUE, 1.0)])
    targets = HeadTargets.of([y, value])
    sums, counts = losses.sums(torch.from_numpy(margins), targets), losses.counts(targets)
    of_classes = log_losses(margins[:, :3], y)[y >= 0].mean()
    of_value = np.nanmean((margins[:, 3] - value) ** 2)
    expected = 0.75 * of_classes + 0.25 * of_value
    np.testing.assert_allclose(float(losses.objective(sums, counts)), expected, rtol=1e-5)
    mean, means = losses.means(sums.numpy(), counts.numpy())
    np.testing.assert_allclose([mean, *means], [expected, of_classes, of_value], rtol=1e-5)


def test_unknown_rows_have_no_gradient_even_where_their_margins_are_nan():
    margins, y, value = problem()
    margins[y < 0, :3] = np.nan
    margins[np.isnan(value), 3] = np.inf
    losses, targets = HeadLosses([HeadLoss(CLASSES), HeadLoss(VALUE)]), HeadTargets.of([y, value])
    leaf = torch.from_numpy(margins).requires_grad_()
    total = losses.objective(losses.sums(leaf, targets), losses.counts(targets))
    total.backward()
    gradient = leaf.grad.numpy()
    assert bool(total.isfinite()) and np.isfinite(gradient).all()
    assert not gradient[y < 0, :3].any() and not gradient[np.isnan(value), 3].any()
    assert gradient[y >= 0, :3].all()


def test_gradients_of_parts_add_up_to_that_of_all_rows():
    margins, y, value = problem()
    losses, targets = HeadLosses([HeadLoss(CLASSES), HeadLoss(VALUE)]), HeadTargets.of([y, value])
    counts = losses.counts(targets)
    whole, parts = (torch.from_numpy(margins.copy()).requires_grad_() for _ in range(2))
    losses.objective(losses.sums(whole, targets), counts).backward()
    for first, last in ((0, 7), (7, 8), (8, N)):
        losses.objective(losses.sums(parts[first:last], targets.slice(first, last)), counts).backward()
    np.testing.assert_allclose(parts.grad, whole.grad, rtol=1e-6, atol=1e-9)


def test_a_head_without_known_targets_is_left_out():
    margins, y, _ = problem()
    losses = HeadLosses([HeadLoss(CLASSES), HeadLoss(VALUE)])
    targets = HeadTargets.of([y, np.full(N, np.nan, np.float32)])
    sums, counts = losses.sums(torch.from_numpy(margins), targets), losses.counts(targets)
    mean, means = losses.means(sums.numpy(), counts.numpy())
    assert counts[1] == 0 and np.isnan(means[1]) and mean == means[0]
    none = HeadTargets.of([np.full(N, -1, np.int8), np.full(N, np.nan, np.float32)])
    nothing = losses.sums(torch.from_numpy(margins), none), losses.counts(none)
    assert float(losses.objective(*nothing)) == 0
    assert np.isnan(losses.means(*(tensor.numpy() for tensor in nothing))[0])


def test_taken_rows_are_those_rows():
    _, y, value = problem()
    weights = np.arange(N, dtype=np.float32)
    some = HeadTargets.of([y, value], [None, weights]).take(torch.tensor([3, 1]))
    assert len(some) == 2 and some.columns[0].tolist() == [y[3], y[1]] and some.weights[1].tolist() == [3, 1]
    assert some.weights[0] is None and some.columns[0].dtype == torch.int8


@pytest.mark.parametrize(
    "broken", [{"weight": -1.0}, {"deviation": 0.0}, {"centre": np.nan}, {"class_weights": (1.0, 2.0)}], ids=str
)
def test_a_loss_that_cannot_be_is_refused(broken):
    with pytest.raises(ValueError, match="label"):
        HeadLoss(CLASSES, **broken)


def test_targets_and_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="rows"):
        HeadTargets.of([np.zeros(3, np.int8), np.zeros(4, np.float32)])
    with pytest.raises(ValueError, match="weight above 0"):
        HeadLosses([HeadLoss(CLASSES, 0.0)])
