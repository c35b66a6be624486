"""Windows and training on a GPU against those on the CPU. Run on the stand-in, never on a GPU yet."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need Torch")

from gpupipe.estimators.torch.network import arrays_of  # noqa: E402
from gpupipe.estimators.torch.plan import TrainingPlan  # noqa: E402
from gpupipe.estimators.torch.training import train  # noqa: E402
from gpupipe.runtime.device import pick, why_no_cuda  # noqa: E402
from tests.support.training_problem import LOSSES, network_of, problem  # noqa: E402

pytestmark = pytest.mark.gpu


@pytest.fixture
def cuda():
    if problem_of_cuda := why_no_cuda() or (None if torch.cuda.is_available() else "this Torch is built without CUDA"):
        pytest.skip(problem_of_cuda)
    return pick("cuda")


def test_windows_have_the_bits_of_the_cpu(cuda):
    on_gpu, _ = problem(300, device=cuda)
    on_cpu, _ = problem(300)
    positions = np.random.default_rng(0).permutation(300)
    # Means and deviations are summed in another order on a GPU, so both get the same scaler.
    on_gpu = type(on_gpu)(on_gpu.parts, on_gpu.length, on_cpu.scaler)
    np.testing.assert_array_equal(on_gpu.batch(positions).cpu(), on_cpu.batch(positions))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_captured_training_learns_what_one_on_the_cpu_learns(precision, cuda):
    """Dropout draws other numbers on a GPU, so losses are near each other and not equal."""
    plan = TrainingPlan(epochs=30, rate=0.02, rows_of_step=256, patience=30, precision=precision)
    losses = []
    for device in (pick("cpu"), cuda):
        network = network_of().to(device.kind)
        result = train(network, *problem(3000, device=device), *problem(600, 1, device=device), LOSSES, plan)
        losses.append(min(epoch.validation_loss for epoch in result.history))
        assert all(np.isfinite(array).all() for array in arrays_of(network).values())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_captured_steps_repeat_themselves(cuda):
    """Also across the capture, at another rate: the fourth step is the first that is replayed."""
    plan = TrainingPlan(2, 0.01, 100, rates=(0.01, 0.005))
    results = []
    for _ in range(2):
        network = network_of().to("cuda")
        results.append(train(network, *problem(650, device=cuda), None, None, LOSSES, plan).history)
    for first, second in zip(*results, strict=True):
        assert first.loss == pytest.approx(second.loss, rel=1e-4)
