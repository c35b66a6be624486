"""What an OUT keeps of environments, and whether it holds a run to go on with."""

from __future__ import annotations

import os
from typing import Any

from gpupipe.runtime.errors import UserError
from gpupipe.store.cache import objects_of
from gpupipe.store.content_store import Store
from gpupipe.workloads.agent.cache import FEATURES, SCALER


def require_begun(out: str | os.PathLike[str]) -> None:
    """UserError where OUT holds no run, finished or stopped."""
    if not Store(out).exists:
        raise UserError(f"--resume: {out} holds no run to go on with; leave --resume out to begin one")


def kept(out: str | os.PathLike[str]) -> dict[str, Any]:
    """How many feature matrices and scalers OUT keeps, and their bytes; UserError where it is no OUT."""
    store = Store(out)
    if not store.exists:
        raise UserError(f"{out} is no folder of a run")
    digests: set[str] = set()
    counts = {"features": 0, "scalers": 0}
    for _, record in store.units():
        name = record["name"]
        if _is_environment(name):
            counts["features" if name == FEATURES else "scalers"] += 1
            digests |= set(objects_of(record))
    return {**counts, "bytes": sum(store.size(digest) for digest in digests)}


def clear(out: str | os.PathLike[str], wait_s: float = 0.0) -> dict[str, Any]:
    """Remove what OUT keeps of environments; what `kept` counted. The next run computes it again.

    Raises StoreError where a run holds OUT, UserError where it is no OUT.
    """
    counted, store = kept(out), Store(out)
    with store.lock(wait_s=wait_s, sweep=False):
        records = dict(store.units())
        gone = {key for key, record in records.items() if _is_environment(record["name"])}
        needed = {digest for key, record in records.items() if key not in gone for digest in objects_of(record)}
        for path in store.unit_files():
            if path.stem in gone:
                path.unlink()
        store.drop({digest for key in gone for digest in objects_of(records[key])} - needed)
    return counted


def _is_environment(name: str) -> bool:
    return name == FEATURES or name.startswith(SCALER)
