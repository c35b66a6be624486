"""Rates of this machine, as `gpupipe doctor --measure` measured them, in the user's cache folder."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpupipe.kernels.gpu_code import users_cache
from gpupipe.runtime.device import Device, pick
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.placement import CPU, CUDA, ESTIMATED, Rate, Rates
from gpupipe.store.content_store import dump_json, write_atomic

FILE = "rates.json"
LIBRARIES = (
    "numpy", "xgboost", "xgboost-cpu", "xgboost-cu12", "xgboost-cu13", "numba", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """Known rates, and where they come from.

    when: the date of the measurement, ISO 8601; "" for estimates.

        >>> Known(Rates()).when
        ''
    """

    rates: Rates
    when: str = ""


def folder() -> pathlib.Path:
    """The user's cache folder of gpupipe; UserError for a user without a home."""
    found = users_cache()
    if found is None:
        raise UserError("there is no folder to keep rates in, as this user has no home: set XDG_CACHE_HOME to one")
    return found


def about(device: Device) -> dict[str, Any]:
    """What rates hold for: the processor and its cores, the GPU if the device is one, and versions of libraries."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu = device.name if device.kind == CUDA else ""
    return {"cpu": pick(CPU).name, "cores": os.cpu_count(), "gpu": gpu, "versions": versions}


def known(device: Device) -> Known:
    """The rates that were measured on this machine with these versions; estimates where there are none."""
    key = about(device)
    for entry in _entries():
        if entry.get("about") == key:
            with contextlib.suppress(KeyError, TypeError, AttributeError):  # a damaged entry is none
                return _of_entry(entry)
    return Known(Rates())


def _of_entry(entry: Mapping[str, Any]) -> Known:
    by_device = {
        kind: {work: Rate(*values) for work, values in of_kind.items()} for kind, of_kind in entry["rates"].items()
    }
    return Known(Rates({**ESTIMATED, **by_device}, tuple(by_device), entry["copy_bytes_s"]), entry["when"])


def remember(
    device: Device, measured: Mapping[str, Mapping[str, Rate]], copy_bytes_s: Mapping[str, float], when: str
) -> pathlib.Path:
    """Keep measured rates, to two digits, in the place of earlier ones of this machine; returns the file."""
    key = about(device)
    plain = {
        kind: {work: [rate.rounded.step_s, rate.rounded.value_s] for work, rate in of_kind.items()}
        for kind, of_kind in measured.items()
    }
    copies = {way: float(f"{rate:.1e}") for way, rate in copy_bytes_s.items()}
    entry = {"about": key, "when": when, "rates": plain, "copy_bytes_s": copies}
    path = folder() / FILE
    write_atomic(path, dump_json([entry, *(other for other in _entries() if other.get("about") != key)]))
    return path


def _entries() -> list[dict[str, Any]]:
    try:
        entries = json.loads((folder() / FILE).read_bytes())
    except (OSError, ValueError, UserError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
