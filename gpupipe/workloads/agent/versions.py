"""OUT/latest: the newest policy of a finished run as files that stand alone, and what it decides in the last bar."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.artifacts import summary
from gpupipe.artifacts.latest import publish_latest
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.estimators.torch.policy_files import ARRAYS, DESCRIPTION, StoredPolicy
from gpupipe.estimators.torch.scaler import WindowScaler
from gpupipe.features.matrix import hash_of
from gpupipe.store.content_store import dump_json
from gpupipe.workloads.agent.market import ACTIONS, Environments, Market
from gpupipe.workloads.agent.results import FOLDER

ONNX, DECISION = "policy.onnx", "decision.json"
POSITIONS = {-1: "short", 0: "flat", 1: "long"}
LOOKED_BACK = 500  # bars before the last that the policy steps through, from a flat position


@dataclass(frozen=True)
class Version:
    """What was written of a finished run.

    folder: of the version.  decision: of the last bar, as decision.json has it.
    largest_difference: between onnxruntime and the policy, of any output in any step; None without an ONNX file.

        >>> decision = {"time": "2024-04-01T23:45:00Z", "position": "flat", "action": "buy"}
        >>> Version(pathlib.Path("OUT/versions/0123456789ab"), decision, 2e-07).sentences()[1]
        'policy.onnx steps as the policy does, to 2.0e-07 on real bars'
    """

    folder: pathlib.Path
    decision: dict[str, Any]
    largest_difference: float | None = None

    def sentences(self) -> list[str]:
        """What was written and checked, and the decision, in words."""
        decision = self.decision
        found = [
            f"In the last bar, {decision['time']}, the newest policy is {decision['position']} and decides to "
            f"{decision['action']}"
        ]
        if self.largest_difference is not None:
            found.append(f"{ONNX} steps as the policy does, to {self.largest_difference:.1e} on real bars")
        return found


def write_version(out: str | os.PathLike[str], panel: Panel, settings: Config, onnx: bool = True) -> Version:
    """Write OUT/versions/<run key>/ with the policy of the last iteration, and let OUT/latest point to it.

    panel: the data of the run.  onnx: also write policy.onnx, once onnxruntime has stepped through real bars with it
    as the policy does. Raises ValueError where it differs, or where the policy reads another observation.
    """
    folder, whole = pathlib.Path(out), summary.read(pathlib.Path(out))
    newest = folder / FOLDER / whole["agent"]["iterations"][-1]["name"]
    stored = StoredPolicy.from_contents({name: (newest / name).read_bytes() for name in (ARRAYS, DESCRIPTION)})
    scaler = WindowScaler.from_dict(stored.about["scaler"])
    market = Market.of(panel, settings.features.names, scaler=scaler, **settings.market.rules())
    stored.require_observation(market.observed, hash_of(market.features.names, market.features.definitions))
    observations, decision = walked(stored, market)
    contents = {**stored.contents(), DECISION: dump_json(decision)}
    difference = None
    if onnx:
        from gpupipe.artifacts.onnx import policies

        contents[ONNX] = policies.checked_content(stored, observations)
        difference = policies.largest_difference(contents[ONNX], stored, observations)
    return Version(publish_latest(folder, whole["run_key"], contents), decision, difference)


def walked(stored: StoredPolicy, market: Market) -> tuple[np.ndarray, dict[str, Any]]:
    """Observations of the last bars, float32 (n_steps, 1, width), with the policy's own positions; its last decision.

    The policy starts flat LOOKED_BACK bars before the last one, or where the features begin.
    """
    last, to_host = market.n_rows - 1, market.device.to_host
    first = min(max(market.first_row, last - LOOKED_BACK), last - 1)
    weights = stored.weights
    environments = Environments(market, 1, (first, last))
    observation, ended = to_host(environments.reset()), False
    h, c = weights.zero_state(1)
    seen, position = [], 0
    while True:
        seen.append(np.array(observation))
        step = weights.step(seen[-1], h, c)
        h, c = step.h, step.c
        if ended:
            break
        outcome = environments.step(step.actions)
        ends = outcome.terminated | outcome.truncated
        (position,), (ended,), final, following = market.device.to_hosts(
            [outcome.position, ends, outcome.final_observation, outcome.observation]
        )
        observation = final if ended else following
    decision = {
        "time": time_text(int(to_host(market.time_ns)[last])), "position": POSITIONS[int(position)],
        "action": ACTIONS[int(step.actions[0])],
    }  # fmt: skip
    return np.stack(seen), decision
