"""Memory: how much a run will hold, and columns and bins kept in files where that is more than it may."""

from __future__ import annotations

import os
import pathlib
import re
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.errors import UserError

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
PROGRAM_BYTES = int(0.5 * 2**30)  # Python, the libraries, and compiled kernels


@dataclass(frozen=True)
class Estimate:
    """Bytes that the process will hold at most, about: with everything in memory, and with matrices in files."""

    in_memory: int
    in_files: int


def size(text: str) -> int:
    """Bytes of "8GiB", "900M", "2.5 GB" or "1000000"; K, M, G and T are powers of 1024. UserError for other text."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(i?B)?\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise UserError(f"--memory {text}: expected a size such as 8GiB or 900M")
    return int(float(found[1]) * UNITS[found[2].upper()])


def estimate(n_rows: int, n_features: int, n_labels: int, settings: config.Config) -> Estimate:
    """What a run over so many rows will hold.

    Arrays are counted; the factors were fitted to the peaks of two runs of the preset fast, the demo (0.86 GiB) and 505
    stocks (2.09 GiB), which they meet within 8 %. With pool "none" less is held than this says.
    """
    split, forest = settings.split, settings.forest
    fit, validation = n_rows * split.train, n_rows * split.validation
    n_outputs = n_labels * 2
    columns = (n_rows + fit + validation) * n_features * 4  # all rows, and those fitted and validated gathered
    cuts = [config.cut(getattr(settings, name).subsample) for name in (*config.BOOSTERS, "forest")]
    bins = (1 + max(n - 1 if left_out else 1 for n, left_out in cuts)) * fit * n_features  # in one matrix, in samples
    scaled = fit * n_features * 4 if "linear" in settings.training.models else 0
    margins = fit * n_outputs * 4 * 8  # margins, gradients, Hessians, XGBoost's copies of them
    said = (n_rows - fit) * n_labels * 3 * 4 * len(settings.training.models)
    # A tree cannot have more leaves than its rows allow, and few of them are as small as they may be.
    leaves = min(2.0 ** (forest.depth + 1), fit / max(1.0, 4 * forest.min_rows))
    histograms = leaves * n_features * settings.training.max_bin * n_outputs * 16
    rest = PROGRAM_BYTES + scaled + 4 * margins + said + 2 * histograms
    return Estimate(int(rest + columns + 3 * bins), int(rest))


def must_use_files(expected: Estimate, limit: int | None) -> bool:
    """Whether matrices have to lie in files to stay below `limit` bytes; None is no limit.

    Raises UserError where that would not be enough either.
    """
    if limit is None or expected.in_memory <= limit:
        return False
    if expected.in_files > limit:
        raise UserError(
            f"--memory {limit / 2**30:.2g}GiB is too little: about {expected.in_memory / 2**30:.1f} GiB are needed, "
            f"and {expected.in_files / 2**30:.1f} GiB with columns and bins in files; allow that much, or train on "
            "fewer --sectors or features.names"
        )
    return True


def matrix(shape: tuple[int, int], cache: pathlib.Path) -> Any:
    """A float32 matrix in a file below `cache` that has no name any more: its space is free once it is let go of.

    OSError where the disk has not the space for it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    if min(shape) == 0:  # no file of no bytes can be mapped
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=cache) as file:
        _take(file, 4 * shape[0] * shape[1])  # a disk that is full when a page is written would kill the process
        return np.asarray(np.memmap(file, np.float32, "w+", shape=shape))


def require_space(n_bytes: int, cache: pathlib.Path) -> None:
    """OSError where the disk of `cache` has not so much space: for libraries that end the process where it fails."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache) as file:
        _take(file, n_bytes)


def _take(file: Any, n_bytes: int) -> None:
    """Make the file so large, and its space its own where the system can do that."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)
    else:
        file.truncate(n_bytes)
