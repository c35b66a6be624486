"""OUT/latest: a link to the folder of the newest version of a run's files, replaced in one step."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Mapping

from gpupipe.store.content_store import StoreError, write_atomic

LATEST, VERSIONS = "latest", "versions"
KEPT = 2  # versions, the newest among them
DIGITS = 12  # of the run key, in the name of a version's folder


def publish_latest(out: str | os.PathLike[str], run_key: str, contents: Mapping[str, bytes]) -> pathlib.Path:
    """Write OUT/versions/<first 12 digits of run_key>/ and let the link OUT/latest point to it; returns the folder.

    contents: the files by their path in the folder, as "model.safetensors", or "BTC/model.safetensors".
    Whoever reads OUT/latest finds all files of one version, at any time: the folder is complete before it gets its
    name, and the link is made under another name and renamed. A version that is there already is made again. The last
    two versions are kept.
    Raises ValueError for a path that leaves the folder or no contents, StoreError where OUT/latest is no link.

        >>> import tempfile
        >>> out = pathlib.Path(tempfile.mkdtemp())
        >>> folder = publish_latest(out, "0123456789abcdef", {"metadata.json": b"{}"})
        >>> folder.name, os.readlink(out / "latest"), (out / "latest" / "metadata.json").read_bytes()
        ('0123456789ab', 'versions/0123456789ab', b'{}')
    """
    if not contents:
        raise ValueError("a version needs a file")
    root = pathlib.Path(out)
    link, versions = root / LATEST, root / VERSIONS
    if link.exists() and not link.is_symlink():
        raise StoreError(f"{link} is no link, and would be replaced: move it away")
    folder = versions / run_key[:DIGITS]
    unfinished = versions / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for name, content in contents.items():
            path = unfinished / name
            if not path.resolve().is_relative_to(unfinished.resolve()) or path.resolve() == unfinished.resolve():
                raise ValueError(f"{name!r} is no path inside of a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        replaced = _moved_away(folder)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _point(link, f"{VERSIONS}/{folder.name}")
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)
    os.utime(folder)
    _forget(versions, keep=folder)
    return folder


def _moved_away(folder: pathlib.Path) -> pathlib.Path | None:
    """Give the folder of an earlier publication of this version another name, which is returned; None without one."""
    if not folder.exists():
        return None
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(replaced, ignore_errors=True)
    folder.rename(replaced)
    return replaced


def _point(link: pathlib.Path, target: str) -> None:
    """Let a link point to another folder in one step."""
    new = link.with_name(f".{link.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    os.symlink(target, new, target_is_directory=True)
    os.replace(new, link)


def _forget(versions: pathlib.Path, keep: pathlib.Path) -> None:
    """Remove all versions but one and the newest of the others, and what killed runs have left."""
    others = [path for path in versions.iterdir() if path.is_dir() and path != keep]
    leftovers = [path for path in others if path.name.startswith(".")]
    earlier = sorted(set(others) - set(leftovers), key=lambda path: (-path.stat().st_mtime_ns, path.name))
    for path in (*leftovers, *earlier[KEPT - 1 :]):
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
