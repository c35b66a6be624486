"""Publish trained models into OUT, with the metadata that loading them needs."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from gpupipe.artifacts.layout import DIRECTIONS, IMPORTANCE, MODELS, MODULES, SUFFIXES, WALKED
from gpupipe.artifacts.manifest import entry_of
from gpupipe.features.formulas.registry import Module
from gpupipe.store.content_store import FORMAT, Store, dump_json, write_atomic


def publish(
    store: Store, folder: str, fitted: dict[str, Any], metadata: dict[str, Any], class_names: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Write one model of each estimator and the metadata of all into OUT/folder; return manifest entries by path.

    metadata: JSON; its "models" holds, for each estimator, an addition to the model's description.
    class_names: of the target, in the order of a model's probabilities; empty for other kinds of targets.
    """
    entries: dict[str, dict[str, Any]] = {}
    descriptions = dict(metadata["models"])
    for family, model in fitted.items():
        files = {}
        for suffix, content in model.files().items():
            entries[f"{folder}/{family}{suffix}"] = files[suffix] = store.publish(f"{folder}/{family}{suffix}", content)
        descriptions[family] = {**model.describe(), "files": files, **descriptions.get(family, {})}
    content = dump_json({**metadata, "format": FORMAT, "classes": list(class_names), "models": descriptions})
    write_atomic(store.out / folder / "metadata.json", content)
    entries[f"{folder}/metadata.json"] = entry_of(content)
    return entries


def publish_modules(store: Store, modules: Sequence[Module]) -> dict[str, dict[str, Any]]:
    """Write the Python files of the user's features, as they ran; return their manifest entries by path."""
    return {
        (name := f"{MODULES}/{k:02d}_{pathlib.Path(module.path).stem}.py"): store.publish(name, module.content)
        for k, module in enumerate(modules)
    }


def remove_stale_files(store: Store, entries: dict[str, dict[str, Any]]) -> None:
    """Remove files that an earlier run published and this run did not replace, and folders that this leaves empty.

    entries: the manifest entries of this run.  Only folders that this run or an earlier one publishes into are
    searched, and in them only those that hold files of this run, and the innermost ones, which hold the files of
    others. Files with other suffixes are the user's.
    """
    importance = store.out / IMPORTANCE
    if importance.exists() and IMPORTANCE not in entries:
        importance.unlink()
    holding = {store.out / path.rpartition("/")[0] for path in entries if "/" in path}
    for root in _published_folders(store, entries):
        suffixes = (".py",) if root.name == MODULES else SUFFIXES
        folders = sorted([root, *(path for path in root.rglob("*") if path.is_dir())], reverse=True)
        innermost = {folder for folder in folders if not any(path.is_dir() for path in folder.iterdir())}
        for path in (path for folder in sorted(innermost | holding & set(folders)) for path in folder.iterdir()):
            if path.is_file() and path.suffix in suffixes and path.relative_to(store.out).as_posix() not in entries:
                path.unlink()
        for folder in folders:
            if not any(folder.iterdir()):
                folder.rmdir()


def _published_folders(store: Store, entries: dict[str, dict[str, Any]]) -> list[pathlib.Path]:
    """The folders directly below OUT that hold published files of this run or of an earlier one."""
    names = {path.split("/")[0] for path in entries if "/" in path}
    names |= {MODULES, WALKED, DIRECTIONS, *(path.name for path in store.out.glob(f"{MODELS}*"))}
    return [store.out / name for name in sorted(names) if (store.out / name).is_dir()]
