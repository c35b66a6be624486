"""What a step finds, and how it is kept: arrays, facts, and files of models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.store.cache import load_array, save_array
from gpupipe.store.content_store import Store


@dataclass(frozen=True)
class Found:
    """The result of a step.

    arrays: by name.  facts: in the types of JSON.  files: contents of a model by suffix.

        >>> Found({"change": np.zeros(2, np.float32)}, {"kind": "forest"})["change"].tolist()
        [0.0, 0.0]
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]


def save(store: Store, value: Found) -> dict[str, Any]:
    """The record of a result. Its contents are under "arrays" and "models", where `cache.objects_of` finds them."""
    return {
        "arrays": {name: save_array(store, array) for name, array in value.arrays.items()},
        "models": [{"files": {suffix: store.put(content) for suffix, content in value.files.items()}}],
        "facts": dict(value.facts),
    }


def load(store: Store, record: Mapping[str, Any]) -> Found:
    """The result again."""
    (model,) = record["models"]
    return Found(
        {name: load_array(store, digest) for name, digest in record["arrays"].items()},
        record["facts"],
        {suffix: store.get(digest) for suffix, digest in model["files"].items()},
    )
