"""A recurrent policy as an ONNX file whose state is an input and an output, checked step by step."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gpupipe.artifacts.onnx import graphs
from gpupipe.artifacts.onnx.checking import session_of
from gpupipe.estimators.torch.onnx import add_policy
from gpupipe.estimators.torch.policy_files import StoredPolicy

TOLERANCE = 1e-5  # of logits, values and states, relative above 1: the two add up float32 values in other orders


def policy_graph(stored: StoredPolicy) -> Any:
    """The onnx.ModelProto of one step of a policy.

    Inputs: observation float32 (rows, n_observations); h, c float32 (layers, rows, size), zero where an episode starts.
    Outputs: logits float32 (rows, n_actions), value (rows, 1), next_h and next_c, to be given to the next step.
    """
    weights = stored.weights
    state = [weights.layers, "rows", weights.size]
    properties = {
        "observation": json.dumps(stored.observation), "observation_hash": stored.observation_hash,
        "actions": json.dumps(stored.actions),
    }  # fmt: skip
    return graphs.graph_of_tensors(
        lambda graph: add_policy(graph, "observation", "h", "c", stored.arrays),
        {"observation": ["rows", weights.n_observations], "h": state, "c": state},
        {"logits": ["rows", weights.n_actions], "value": ["rows", 1], "next_h": state, "next_c": state},
        properties,
    )


def checked_content(stored: StoredPolicy, observations: np.ndarray) -> bytes:
    """The file of a policy, once onnxruntime has walked a sequence with it as the kernel does.

    observations: float32 (n_steps, n_rows, n_observations), at least one step: sequences of n_rows episodes, side by
        side. Both sides carry their own states from step to step.
    Raises ValueError where logits, values or states differ by more than TOLERANCE in any step.
    """
    content = policy_graph(stored).SerializeToString(deterministic=True)
    if (difference := largest_difference(content, stored, observations)) > TOLERANCE:
        raise ValueError(f"onnxruntime differs from the policy by {difference:.2g}, at most {TOLERANCE:g} is expected")
    return content


def largest_difference(content: bytes, stored: StoredPolicy, observations: np.ndarray) -> float:
    """The largest difference in all steps of a sequence, of numbers above 1 as a share of them.

    Infinite where either side is NaN, and without a step.
    """
    session, weights = session_of(content), stored.weights
    own_h, own_c = weights.zero_state(observations.shape[1])
    h, c = np.zeros((2, weights.layers, observations.shape[1], weights.size), np.float32)
    largest = 0.0 if len(observations) else np.inf
    for observation in np.ascontiguousarray(observations, np.float32):
        logits, value, h, c = session.run(None, {"observation": observation, "h": h, "c": c})
        step = weights.step(observation, own_h, own_c)
        own_h, own_c = step.h, step.c
        for got, expected in (
            (logits, step.logits),
            (value[:, 0], step.values),
            (_by_row(h), own_h),
            (_by_row(c), own_c),
        ):
            difference = np.abs(got - expected) / np.maximum(np.abs(expected), 1)
            largest = max(largest, float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0)))
    return largest


def _by_row(state: np.ndarray) -> np.ndarray:
    """(layers, n_rows, size) as (n_rows, layers * size)."""
    return state.transpose(1, 0, 2).reshape(state.shape[1], -1)
