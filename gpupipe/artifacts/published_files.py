"""What `load` reads from the files of a run: its target, the metadata of a label, the models in a folder."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from gpupipe.estimators import registry
from gpupipe.estimators.contract import Model
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import FORMAT, StoreError
from gpupipe.targets.target import Target


def group_by_of(manifest: Mapping[str, Any]) -> str:
    """What the run of a manifest grouped symbols by; "sector" for an older one, which does not say it."""
    return str(manifest.get("group_by", "sector"))


def target_of(manifest: dict[str, Any], folders: dict[str, tuple[str, dict[str, Any]]]) -> Target:
    """The target of a run, from its manifest; that of an older run from its labels' folders and metadata."""
    if "target" in manifest:
        return Target.from_dict(manifest["target"])
    label_folders = sorted(folders.values(), key=lambda item: (item[1]["horizon"], item[1]["threshold"]))
    return Target(
        names=tuple(about["label"] for _, about in label_folders),
        kind="classes",
        horizon_rows=tuple(about["horizon"] for _, about in label_folders),
        class_names=tuple(label_folders[0][1]["classes"]) if label_folders else ("", ""),
        parameters=tuple({name: about[name] for name in ("horizon", "threshold")} for _, about in label_folders),
        folders=tuple(folder.replace(f"/{about['sector']}/", "/{group}/") for folder, about in label_folders),
    )


def metadata_of(path: pathlib.Path, content: bytes) -> dict[str, Any]:
    """The metadata of a label's models; StoreError if it is not JSON or of another format."""
    try:
        about = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON ({error}): run again") from error
    if about["format"] != FORMAT:
        raise StoreError(
            f"{path} has format {about['format']!r}, this gpupipe reads {FORMAT}: use the gpupipe that wrote it"
        )
    return about


def models_of(
    root: pathlib.Path, folder: str, about: dict[str, Any], contents: dict[str, bytes], boosters: dict[bytes, Any]
) -> dict[str, Model]:
    """The model of each family in a folder; StoreError, which names it, for one that cannot be read."""
    fitted = {}
    for family, described in about["models"].items():
        files = {suffix: contents[f"{folder}{family}{suffix}"] for suffix in described["files"]}
        try:
            fitted[family] = registry.load_model(files, described, boosters)
        except UserError:  # the library is not installed
            raise
        except Exception as error:  # libraries raise errors of many types for damaged files
            problem = (str(error).splitlines() or [""])[0]
            names = " and ".join(str(root / f"{folder}{family}{suffix}") for suffix in files)
            raise StoreError(
                f"{names} cannot be read as a model of {family} "
                f"({type(error).__name__}: {problem}): use the gpupipe that wrote it, or run again with --out {root}"
            ) from error
    return fitted
