"""Upkeep of an OUT: which units are done, whether every file is as it was written, and what nothing refers to."""

from __future__ import annotations

import json
import os
import pathlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from gpupipe.artifacts.layout import MANIFEST
from gpupipe.artifacts.manifest import altered_files, read_manifest
from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError
from gpupipe.store.cache import objects_of
from gpupipe.store.content_store import Store, sha256
from gpupipe.training import planning
from gpupipe.training.recipe import Recipe

STATES = ("done", "stale", "missing")


@dataclass(frozen=True)
class Status:
    """What an OUT holds.

    finished: whether there is a manifest.  stages: of each stage, as "xgb_hist final" or "linear part1", how many units
    are done, stale (there under the same name, of other inputs) and missing.  others: units of no run that is finished
    here or goes on.  object_bytes: what the units keep, and of it what no published file shares.

        >>> stages = {name: {"done": 12, "stale": 0, "missing": 1} for name in ("linear final", "linear part1")}
        >>> status = Status(False, stages, others=0, object_bytes=4096, own_bytes=1024)
        >>> status.count("done"), status.as_dict()["missing"]
        (24, 2)
    """

    finished: bool
    stages: dict[str, dict[str, int]]
    others: int
    object_bytes: int
    own_bytes: int

    def count(self, state: str) -> int:
        """Units in a state, over all stages."""
        return sum(counts[state] for counts in self.stages.values())

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        counts = {state: self.count(state) for state in STATES}
        return {
            "finished": self.finished, **counts, "stages": self.stages, "others": self.others,
            "object_bytes": self.object_bytes, "own_bytes": self.own_bytes,
        }  # fmt: skip


def status(
    out: str | os.PathLike[str],
    workload: Recipe | None = None,
    panel: Panel | None = None,
    settings: Config | None = None,
) -> Status:
    """What of a run is done in OUT; of the runs that OUT itself knows where no run is given.

    workload, panel, settings: the run that is asked about; all three, or none.
    Nothing is written, and nothing trained. Raises UserError where OUT is no folder of a run, ValueError where some of
    the three are missing.
    """
    given = {"workload": workload, "panel": panel, "settings": settings}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise ValueError(
            "status of a run needs workload, panel and settings: give "
            f"{' and '.join(missing)} too, or none of the three"
        )
    store = _store(out)
    needed = set().union(*store.runs().values())
    records = dict(store.units())
    if workload is not None and panel is not None and settings is not None:
        states = planning.survey(workload, panel, settings, out).states
    else:
        states = {record["name"]: "done" for key, record in records.items() if key in needed}
    stages: dict[str, Counter[str]] = defaultdict(Counter)
    for name, state in states.items():
        stages[_stage(name)][state] += 1
    sizes = [path.stat() for path in store.objects()]
    return Status(
        read_manifest(out) is not None,
        {stage: {state: counts[state] for state in STATES} for stage, counts in sorted(stages.items())},
        len(records.keys() - needed),
        sum(size.st_size for size in sizes),
        sum(size.st_size for size in sizes if size.st_nlink == 1),
    )  # fmt: skip


def _stage(name: str) -> str:
    """Family and fold of a unit's name, GROUP/FOLD/FAMILY/..., or GROUP/FOLD/meta_learner of the stack."""
    _, fold, family, *_ = name.split("/")
    return " ".join(filter(None, (family, fold)))


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what is not as it was written: "altered" or "missing", by path within OUT.

    >>> verified = Verified(files=40, objects=120, units=60, wrong={"summary.json": "altered"})
    >>> len(verified.wrong)
    1
    """

    files: int
    objects: int
    units: int
    wrong: dict[str, str]


def verify(out: str | os.PathLike[str]) -> Verified:
    """Recompute every checksum of OUT: files of the manifest, kept objects, and what the units' records name.

    Raises UserError where OUT is no folder of a run.
    """
    store = _store(out)
    manifest = read_manifest(out)
    wrong: dict[str, str] = {}
    files = manifest["files"] if manifest else {}
    for name in altered_files(out, manifest) if manifest else []:
        wrong[name] = "altered" if (store.out / name).is_file() else "missing"
    objects = store.objects()
    for path in objects:
        if sha256(path.read_bytes()) != path.name:
            wrong[path.relative_to(store.out).as_posix()] = "altered"
    there = {path.name for path in objects}
    paths = store.unit_files()
    for path in paths:
        record = store.finished(path.stem)
        if record is None:
            wrong[path.relative_to(store.out).as_posix()] = "altered"
            continue
        for digest in objects_of(record):
            if digest not in there:
                wrong[f".gpupipe/objects/{digest}"] = "missing"
    return Verified(len(files), len(objects), len(paths), wrong)


@dataclass(frozen=True)
class Removed:
    """What was removed, or would be: paths within OUT and their bytes, by kind of thing.

    >>> removed = Removed({"objects": ["cache/ab", "cache/cd"]}, {"objects": 4096})
    >>> removed.n_files, removed.n_bytes
    (2, 4096)
    """

    paths: dict[str, list[str]]
    freed: dict[str, int]

    @property
    def n_files(self) -> int:
        """How many files."""
        return sum(map(len, self.paths.values()))

    @property
    def n_bytes(self) -> int:
        """Bytes that the disk has back: a file of which another name is left frees none."""
        return sum(self.freed.values())


def clean(out: str | os.PathLike[str], dry_run: bool = False, wait_s: float = 0.0) -> Removed:
    """Remove what nothing refers to: units of no run that is finished here or goes on, objects that no unit and no
    published file is, temporary files and caches of killed runs.

    Raises StoreError where a run holds OUT, UserError where OUT is no folder of a run.
    """
    store = _store(out)
    if dry_run:
        return _unreferred(store)
    with store.lock(wait_s=wait_s, sweep=False):
        removed = _unreferred(store)
        for paths in removed.paths.values():
            for name in paths:
                (store.out / name).unlink(missing_ok=True)
        store.remove_empty_folders()
        return removed


def _unreferred(store: Store) -> Removed:
    manifest = read_manifest(store.out)
    published = {entry["sha256"] for entry in manifest["files"].values()} if manifest else set()
    runs = store.runs()
    needed = set().union(*runs.values())
    records = dict(store.units())
    kept = set(published)
    for key, record in records.items():
        if key in needed:
            kept |= set(objects_of(record))
    units = [path for path in store.unit_files() if path.stem not in needed or path.stem not in records]
    objects = [path for path in store.objects() if path.name not in kept]
    by_kind = {"units": units, "objects": objects, "temporary files": store.temporary(), "cache": store.cached()}
    links: Counter[int] = Counter(path.stat().st_ino for paths in by_kind.values() for path in paths)
    freed = {
        kind: sum(stat.st_size for path in paths if (stat := path.stat()).st_nlink <= links[stat.st_ino])
        for kind, paths in by_kind.items()
    }
    return Removed(
        {kind: [path.relative_to(store.out).as_posix() for path in paths] for kind, paths in by_kind.items()}, freed
    )


def _store(out: str | os.PathLike[str]) -> Store:
    store = Store(out)
    if not (store.exists or (pathlib.Path(out) / MANIFEST).exists()):
        raise UserError(f"{out} holds no run: expected the --out of a gpupipe run")
    return store


def text_of(result: Status | Verified | Removed) -> str:
    """As a person reads it."""
    if isinstance(result, Status):
        return _status_text(result)
    if isinstance(result, Verified):
        extent = f"{result.files:,} published files, {result.objects:,} kept objects, {result.units:,} units"
        if not result.wrong:
            return f"{extent}: all as they were written"
        lines = [f"{what:8} {name}" for name, what in sorted(result.wrong.items())]
        count = f"{extent}: {len(result.wrong)} not as they were written; the same run makes them again"
        return "\n".join([*lines, count])
    lines = [
        f"{kind}: {len(paths):,} ({result.freed[kind] / 2**20:,.1f} MiB)"
        for kind, paths in result.paths.items()
        if paths
    ]
    return "\n".join(lines or ["nothing: all that is there is referred to"])


def _status_text(status: Status) -> str:
    lines = ["a finished run" if status.finished else "no finished run: one was stopped, or has not published yet"]
    if status.stages:
        width = max(len(stage) for stage in status.stages)
        lines.append(f"{'':{width}}  {'done':>6} {'stale':>6} {'missing':>7}")
        for stage, counts in [*status.stages.items(), ("all units", {state: status.count(state) for state in STATES})]:
            lines.append(f"{stage:{width}}  {counts['done']:6,} {counts['stale']:6,} {counts['missing']:7,}")
    lines.append(
        f"kept for later runs: {status.object_bytes / 2**20:,.1f} MiB, {status.own_bytes / 2**20:,.1f} of which no "
        f"published file shares; {status.others:,} units of earlier runs, which gpupipe clean removes"
    )
    return "\n".join(lines)


def as_json(result: Status | Verified | Removed) -> str:
    """The same as JSON."""
    if isinstance(result, Status):
        return json.dumps(result.as_dict(), indent=1)
    if isinstance(result, Verified):
        return json.dumps(result.__dict__, indent=1)
    return json.dumps({"paths": result.paths, "freed_bytes": result.freed}, indent=1)
