"""How many cores this process may use: by its affinity, and by the CPU quota of its control groups (containers).

This is the only count of cores in gpupipe. It lies in the lowest folder because the kernels need it too.
"""

from __future__ import annotations

import math
import os
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Cores:
    """The cores that a process may use, and why.

    affinity: cores that it may be scheduled on.
    quota: seconds of CPU time that its control groups allow it a second; None where nothing limits it.

        >>> Cores(affinity=16, quota=2.5).count, str(Cores(affinity=16, quota=2.5))
        (2, '2 cores to use (affinity 16, quota 2.5)')
        >>> Cores(16, quota=0.5).count, str(Cores(4, quota=None))
        (1, '4 cores to use (affinity 4, no quota)')
    """

    affinity: int
    quota: float | None = None

    @property
    def count(self) -> int:
        """Threads that can run at once without being throttled: a quota counts by its whole cores, and at least 1."""
        return self.affinity if self.quota is None else max(1, min(self.affinity, math.floor(self.quota)))

    def __str__(self) -> str:
        quota = "no quota" if self.quota is None else f"quota {self.quota:g}"
        return f"{self.count} core{'s' * (self.count > 1)} to use (affinity {self.affinity}, {quota})"


def available_cores() -> int:
    """The number of cores that this process may use, at least 1."""
    return cores().count


def cores(root: str | os.PathLike[str] = "/") -> Cores:
    """The cores that this process may use.

    root: the folder that /proc and the control groups are read from; tests give another.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cores(affinity, cpu_quota(root))


def cpu_quota(root: str | os.PathLike[str] = "/") -> float | None:
    """Seconds of CPU time a second that the control groups of this process allow; None without a limit.

    The smallest quota of the process's group and of all groups above it, of version 2 (cpu.max) and of version 1
    (cpu.cfs_quota_us over cpu.cfs_period_us). Files that are missing or hold anything else limit nothing, and so do
    systems without control groups.
    """
    top = pathlib.Path(root)
    quotas = [
        quota
        for version, folder, mount_point in _groups(top)
        for group in (folder, *folder.parents)
        if group.is_relative_to(mount_point)
        for quota in [_quota_of(group, version)]
        if quota is not None
    ]
    return min(quotas, default=None)


def _groups(top: pathlib.Path) -> Iterator[tuple[int, pathlib.Path, pathlib.Path]]:
    """(version, folder of the process's group, mount point of the hierarchy) of each hierarchy that limits CPU time."""
    mounts = list(_mounts(top))
    for line in _lines(top / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            version = 2
        elif "cpu" in controllers.split(","):
            version = 1
        else:
            continue
        mounted = [(inside, point) for mounted_version, inside, point in mounts if mounted_version == version]
        # A container may see a part of the hierarchy alone: the group's path is then counted from that part on, or
        # the mount point is the group itself.
        for inside, point in sorted(mounted, key=lambda mount: not _is_below(path, mount[0]))[:1]:
            below = path[len(inside.rstrip("/")) :] if _is_below(path, inside) else ""
            mount_point = top / point.lstrip("/")
            yield version, mount_point / os.path.normpath(f"/{below}").lstrip("/"), mount_point


def _is_below(path: str, inside: str) -> bool:
    return path == inside or path.startswith(f"{inside.rstrip('/')}/")


def _mounts(top: pathlib.Path) -> Iterator[tuple[int, str, str]]:
    """(version, path within the hierarchy, mount point) of each mounted hierarchy that can limit CPU time."""
    for line in _lines(top / "proc/self/mountinfo"):
        mount, separator, kind = line.partition(" - ")
        fields, about = mount.split(" "), kind.split(" ")
        if not separator or len(fields) < 5 or len(about) < 3:
            continue
        inside, point = (re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text) for text in fields[3:5])
        if about[0] == "cgroup2":
            yield 2, inside, point
        elif about[0] == "cgroup" and "cpu" in about[2].split(","):
            yield 1, inside, point


def _quota_of(group: pathlib.Path, version: int) -> float | None:
    """Seconds of CPU time a second that one group allows; None without a limit."""
    if version == 2:
        words = [word for line in _lines(group / "cpu.max")[:1] for word in line.split()]
    else:
        words = [line.strip() for name in ("quota", "period") for line in _lines(group / f"cpu.cfs_{name}_us")[:1]]
    if len(words) != 2 or not all(word.isdecimal() for word in words):  # "max", or -1
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _lines(file: pathlib.Path) -> list[str]:
    """The lines of a file; none where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
