"""Publish trained models into OUT, with the metadata that loading them needs."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from gpupipe.artifacts.layout import IMPORTANCE, MODULES, SUFFIXES, WALKED
from gpupipe.artifacts.manifest import entry_of
from gpupipe.features.formulas.registry import Module
from gpupipe.store.content_store import FORMAT, Store, dump_json, write_atomic
from gpupipe.targets.classes import CLASSES


def publish(store: Store, folder: str, fitted: dict[str, Any], metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Write one model of each estimator and the metadata of all into OUT/folder; return manifest entries by path.

    metadata: JSON; its "models" holds, for each estimator, what to add to the model's own description.
    """
    entries: dict[str, dict[str, Any]] = {}
    about = dict(metadata["models"])
    for family, model in fitted.items():
        files = {}
        for suffix, content in model.files().items():
            entries[f"{folder}/{family}{suffix}"] = files[suffix] = store.publish(f"{folder}/{family}{suffix}", content)
        about[family] = {**model.describe(), "files": files, **about.get(family, {})}
    content = dump_json({**metadata, "format": FORMAT, "classes": list(CLASSES), "models": about})
    write_atomic(store.out / folder / "metadata.json", content)
    entries[f"{folder}/metadata.json"] = entry_of(content)
    return entries


def publish_modules(store: Store, modules: Sequence[Module]) -> dict[str, dict[str, Any]]:
    """Write the Python files of the user's own features, as they ran; return their manifest entries by path."""
    return {
        (name := f"{MODULES}/{k:02d}_{pathlib.Path(module.path).stem}.py"): store.publish(name, module.content)
        for k, module in enumerate(modules)
    }


def remove_strangers(store: Store, entries: dict[str, dict[str, Any]]) -> None:
    """Remove what an earlier run published and this one did not replace, and folders left empty.

    Models, metadata, modules, what a walk-forward said, and the file that only some models have.
    """
    sometimes = [path for path in [store.out / IMPORTANCE] if path.exists()]
    for path in (
        *store.out.glob("trained_*pct/*/*d/*"),
        *store.out.glob(f"{MODULES}/*.py"),
        *store.out.glob(f"{WALKED}/*"),
        *sometimes,
    ):
        if path.suffix in SUFFIXES and path.relative_to(store.out).as_posix() not in entries:
            path.unlink()
    for folder in sorted(
        [*store.out.glob("trained_*pct/**/"), *store.out.glob(f"{MODULES}/"), *store.out.glob(f"{WALKED}/")],
        reverse=True,
    ):
        if not any(folder.iterdir()):
            folder.rmdir()
