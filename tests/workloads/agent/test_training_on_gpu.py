"""Training of the agent's policy on a GPU: steps that are replayed learn what steps of single operators learn."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="policies are trained by Torch, which has no CPU build for this Python")

from gpupipe.estimators.torch import recurrent_ppo  # noqa: E402
from gpupipe.estimators.torch.network import arrays_of  # noqa: E402
from gpupipe.estimators.torch.ppo_settings import PPOSettings  # noqa: E402
from gpupipe.runtime.device import pick, why_no_cuda  # noqa: E402
from gpupipe.workloads.agent.market import Environments, Market  # noqa: E402
from tests.support.agent_market import made_bars  # noqa: E402

pytestmark = pytest.mark.gpu
SETTINGS = PPOSettings(
    n_environments=8, rollout=16, sequence=8, epochs=2, minibatch=64, size=16, heads=(16, 8), learning_rate=5e-3,
)  # fmt: skip


@pytest.fixture
def trainer():
    """Makes a trainer on the GPU: equal ones each time."""
    if reason := why_no_cuda() or (None if torch.cuda.is_available() else "this Torch is built without CUDA"):
        pytest.skip(reason)
    panel = made_bars().to(pick("cuda"))

    def make():
        environments = Environments(Market.of(panel, ("roc_5", "rsi_14"), max_drawdown=0.1), 8, length=30)
        return recurrent_ppo.Trainer(environments, SETTINGS, 3, torch_device="cuda")

    return make


def weights_after(trainer, n_updates):
    for _ in range(n_updates):
        trainer.update()
    return arrays_of(trainer.policy)


def assert_near(arrays, expected):
    """Sums of a GPU may be added in another order in each call."""
    for name, values in expected.items():
        np.testing.assert_allclose(arrays[name], values, rtol=1e-3, atol=1e-4, err_msg=name)


def test_captured_steps_learn_what_single_operators_learn(trainer, monkeypatch):
    captured = weights_after(trainer(), 4)
    monkeypatch.setattr(recurrent_ppo, "can_capture", lambda: False)
    assert_near(captured, weights_after(trainer(), 4))


def test_a_training_that_is_restored_after_its_steps_were_captured_goes_on(trainer):
    """The optimiser's moments lie where the captured steps read them."""
    first = trainer()
    first.update()
    state = first.state()
    expected = weights_after(first, 2)
    weights_after(first, 2)
    first.restore(state)
    assert_near(weights_after(first, 2), expected)


def test_values_that_are_set_reach_the_captured_steps(trainer):
    first = trainer()
    before = weights_after(first, 2)
    first.set(learning_rate=0.0)
    after = weights_after(first, 1)
    assert all(np.array_equal(after[name], values) for name, values in before.items())
