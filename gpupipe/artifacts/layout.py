"""Layout of OUT: where each file of a finished run lies."""

from __future__ import annotations

from gpupipe.targets.classes import percent

MANIFEST = "manifest.json"
SUFFIXES = (".ubj", ".npz", ".txt", ".cbm", ".json", ".py", ".parquet")  # of files that a run publishes in folders
IMPORTANCE = "importance.json"
MODELS = "trained"  # the names of folders of OUT with models begin so
WALKED = "walk_forward"  # the folder of OUT with the predictions of a walk-forward (out_of_sample_store.py)
MODULES = "features"  # the folder of OUT with the Python files of the user's features


def folder_of(sector: str, horizon: int, threshold: float) -> str:
    """The folder of the models of a sector, horizon and threshold, relative to OUT."""
    return f"trained_{percent(threshold)}pct/{sector}/{horizon}d"


def is_model(relative: str) -> bool:
    """Whether a file of the manifest is a model; the metadata beside it holds the seconds of its training."""
    return relative.startswith("trained_") and not relative.endswith("/metadata.json")
