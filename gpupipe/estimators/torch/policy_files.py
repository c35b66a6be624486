"""StoredPolicy: a recurrent policy as two files, safetensors and a description, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.estimators.torch.policy_weights import PolicyWeights
from gpupipe.estimators.torch.ppo_settings import PPOSettings
from gpupipe.store.content_store import dump_json, sha256, sha256_of

if TYPE_CHECKING:
    from gpupipe.estimators.torch.recurrent_policy import RecurrentPolicy

FORMAT = 1
ARRAYS, DESCRIPTION = "policy.safetensors", "policy.json"


def observation_hash(names: Sequence[str], definitions: str = "") -> str:
    """The hash of an observation: of the names of its columns in order, and of what defines them.

    >>> observation_hash(["rsi_14", "position"]) == observation_hash(["position", "rsi_14"])
    False
    """
    return sha256_of([list(names), definitions])


@dataclass(frozen=True)
class StoredPolicy:
    """The weights of a policy, and what is needed to use it.

    arrays: as `network.arrays_of` gives them.  observation: names of the columns that it reads, in order.
    definitions: the hash of what defines these columns; "" where names say it all.
    actions: names, in the order of the logits.  settings: with which it was trained.
    about: what else the description holds, in the types of JSON.

        >>> stored = StoredPolicy({}, ("price", "position"), ("hold", "buy", "sell"), PPOSettings())
        >>> stored.require_observation(["position", "price"])
        Traceback (most recent call last):
        ValueError: the policy reads another observation: column 0 is 'price' there and 'position' here
    """

    arrays: Mapping[str, np.ndarray]
    observation: tuple[str, ...]
    actions: tuple[str, ...]
    settings: PPOSettings
    definitions: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        policy: RecurrentPolicy,
        observation: Sequence[str],
        actions: Sequence[str],
        settings: PPOSettings,
        definitions: str = "",
        about: Mapping[str, Any] | None = None,
    ) -> StoredPolicy:
        """A policy as it is now; ValueError where there are not as many names as columns and actions."""
        from gpupipe.estimators.torch.network import arrays_of

        for names, n, what in ((observation, policy.n_observations, "columns"), (actions, policy.n_actions, "actions")):
            if len(names) != n:
                raise ValueError(f"a policy of {n} {what} got {len(names)} names for them")
        return cls(arrays_of(policy), tuple(observation), tuple(actions), settings, definitions, about or {})

    @property
    def observation_hash(self) -> str:
        """See the function of that name."""
        return observation_hash(self.observation, self.definitions)

    @property
    def weights(self) -> PolicyWeights:
        """The policy as the kernel reads it."""
        return PolicyWeights.of(self.arrays)

    def policy(self) -> RecurrentPolicy:
        """The policy as a Torch module on the CPU."""
        import torch

        from gpupipe.estimators.torch.network import load_arrays
        from gpupipe.estimators.torch.recurrent_policy import RecurrentPolicy

        own, generator = self.settings, torch.Generator().manual_seed(0)
        shape = len(self.observation), len(self.actions)
        policy = RecurrentPolicy(*shape, own.size, own.layers, own.heads, generator=generator)
        load_arrays(policy, self.arrays)
        return policy

    def contents(self) -> dict[str, bytes]:
        """The files by name; equal policies have equal bytes."""
        from safetensors.numpy import save

        arrays = save({name: np.ascontiguousarray(array) for name, array in self.arrays.items()})
        description = {
            "format": FORMAT, "observation": self.observation, "definitions": self.definitions,
            "observation_hash": self.observation_hash, "actions": self.actions, "settings": asdict(self.settings),
            "about": dict(self.about), "arrays_sha256": sha256(arrays),
        }  # fmt: skip
        return {ARRAYS: arrays, DESCRIPTION: dump_json(description)}

    @classmethod
    def from_contents(cls, contents: Mapping[str, bytes]) -> StoredPolicy:
        """The policy of two files; ValueError where they are damaged, of another format, or not of one policy."""
        from safetensors.numpy import load

        try:
            description = json.loads(contents[DESCRIPTION])
            if description["format"] != FORMAT:
                raise ValueError(f"a policy of format {description['format']!r}, this gpupipe reads {FORMAT}")
            if description["arrays_sha256"] != sha256(contents[ARRAYS]):
                raise ValueError(f"{ARRAYS} is damaged, or of another policy than {DESCRIPTION}")
            settings = PPOSettings(**{**description["settings"], "heads": tuple(description["settings"]["heads"])})
            stored = cls(
                load(contents[ARRAYS]), tuple(description["observation"]), tuple(description["actions"]), settings,
                description["definitions"], description["about"],
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{DESCRIPTION} describes no policy ({error!r})") from None
        if description["observation_hash"] != stored.observation_hash:
            raise ValueError(f"{DESCRIPTION} was changed: the hash of its observation is another")
        return stored

    def require_observation(self, names: Sequence[str], definitions: str = "") -> None:
        """Raise ValueError, which names the first difference, unless the policy reads this observation."""
        if tuple(names) == self.observation and definitions == self.definitions:
            return
        differs = "its columns have other definitions"
        if len(names) != len(self.observation):
            differs = f"{len(self.observation)} columns there and {len(names)} here"
        for k, (there, here) in enumerate(zip(self.observation, names, strict=False)):
            if there != here:
                differs = f"column {k} is {there!r} there and {here!r} here"
                break
        raise ValueError(f"the policy reads another observation: {differs}")
