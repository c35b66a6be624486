"""Policies as files and back, refused where they read another observation, and as ONNX graphs walked step by step."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from gpupipe.estimators.torch.policy_files import ARRAYS, DESCRIPTION, StoredPolicy
from gpupipe.estimators.torch.ppo_settings import PPOSettings
from tests.support.policies import N_OBSERVATIONS, arrays_of_policy

NAMES = ("rsi_14", "log_return", "position", "profit", "bars_held")
ACTIONS = ("hold", "buy", "sell", "close")


def stored_of(layers=2, size=8):
    settings = PPOSettings(size=size, layers=layers, heads=(6, 4), learning_rate=1e-3)
    return StoredPolicy(arrays_of_policy(layers, size), NAMES, ACTIONS, settings, "abc", {"iteration": 3})


def test_files_hold_all_of_a_policy_and_equal_ones_have_equal_bytes():
    pytest.importorskip("safetensors", reason="files of policies need safetensors (the extra torch)")
    stored = stored_of()
    contents = stored.contents()
    assert contents == stored_of().contents() and set(contents) == {ARRAYS, DESCRIPTION}
    again = StoredPolicy.from_contents(contents)
    assert dataclasses.replace(again, arrays={}) == dataclasses.replace(stored, arrays={})
    assert all(again.arrays[name].tobytes() == array.tobytes() for name, array in stored.arrays.items())
    assert again.observation_hash == stored.observation_hash and again.contents() == contents
    description = json.loads(contents[DESCRIPTION])
    assert description["observation"] == list(NAMES) and description["settings"]["size"] == 8


def test_a_policy_of_another_observation_is_refused():
    stored = stored_of()
    stored.require_observation(list(NAMES), "abc")
    for names, definitions, problem in [
        (NAMES[:-1], "abc", "5 columns there and 4 here"),
        ((*NAMES[:3], "profit_pct", NAMES[4]), "abc", "column 3 is 'profit' there and 'profit_pct' here"),
        (NAMES, "abd", "its columns have other definitions"),
    ]:
        with pytest.raises(ValueError, match=f"the policy reads another observation: {problem}"):
            stored.require_observation(names, definitions)


def test_damaged_files_are_refused():
    pytest.importorskip("safetensors", reason="files of policies need safetensors (the extra torch)")
    contents = stored_of().contents()

    def described(**changes):
        return json.dumps({**json.loads(contents[DESCRIPTION]), **changes}).encode()

    for changed, problem in [
        ({ARRAYS: contents[ARRAYS][:-1]}, "policy.safetensors is damaged, or of another policy"),
        ({DESCRIPTION: b"{"}, "policy.json describes no policy"),
        ({DESCRIPTION: b"[]"}, "policy.json describes no policy"),
        ({DESCRIPTION: described(format=9)}, "a policy of format 9"),
        ({DESCRIPTION: described(observation=["a"])}, "policy.json was changed"),
        ({DESCRIPTION: described(settings={"heads": [1], "unknown": 1})}, "policy.json describes no policy"),
    ]:
        with pytest.raises(ValueError, match=problem):
            StoredPolicy.from_contents({**contents, **changed})


def test_a_policy_comes_back_as_a_torch_module():
    torch = pytest.importorskip("torch", reason="policies need Torch")
    from gpupipe.estimators.torch.network import arrays_of

    stored = stored_of()
    policy = stored.policy()
    again = StoredPolicy.of(policy, NAMES, ACTIONS, stored.settings, "abc", {"iteration": 3})
    assert again.contents() == stored.contents()
    assert policy.shape == (5, 4, 8, 2, (6, 4)) and torch.is_tensor(policy.lstm.weight_hh_l1)
    assert all(array.tobytes() == stored.arrays[name].tobytes() for name, array in arrays_of(policy).items())
    with pytest.raises(ValueError, match="a policy of 4 actions got 3 names for them"):
        StoredPolicy.of(policy, NAMES, ACTIONS[:3], stored.settings)


@pytest.mark.parametrize(("layers", "size"), [(1, 128), (2, 16)])
def test_onnxruntime_walks_a_sequence_as_the_policy_does(layers, size):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (the extra onnx)")
    from gpupipe.artifacts.onnx.checking import session_of
    from gpupipe.artifacts.onnx.policies import checked_content, largest_difference

    stored = stored_of(layers, size)
    steps = np.random.default_rng(0).normal(size=(60, 3, N_OBSERVATIONS)).cumsum(axis=0).astype(np.float32) / 5
    content = checked_content(stored, steps)
    assert content == checked_content(stored, steps) and largest_difference(content, stored, steps) < 1e-5
    session = session_of(content)
    assert [taken.name for taken in session.get_inputs()] == ["observation", "h", "c"]
    assert [given.name for given in session.get_outputs()] == ["logits", "value", "next_h", "next_c"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["observation"]) == list(NAMES)
    none = np.zeros((layers, 0, size), np.float32)
    logits, *_ = session.run(None, {"observation": steps[0, :0], "h": none, "c": none})
    assert logits.shape == (0, 4)


def test_a_graph_that_differs_is_not_returned(monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (the extra onnx)")
    from gpupipe.artifacts.onnx import policies

    stored = stored_of()
    other = {**stored.arrays, "lstm.bias_hh_l0": stored.arrays["lstm.bias_hh_l0"] + np.float32(1e-3)}
    steps = np.zeros((4, 2, N_OBSERVATIONS), np.float32)
    content = policies.checked_content(dataclasses.replace(stored, arrays=other), steps)
    assert policies.largest_difference(content, stored, steps) > 1e-5
    assert policies.largest_difference(content, stored, steps[:0]) == np.inf
    monkeypatch.setattr(policies, "TOLERANCE", 0.0)
    with pytest.raises(ValueError, match="onnxruntime differs from the policy by"):
        policies.checked_content(stored, steps)
