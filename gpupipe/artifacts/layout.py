"""Layout of OUT: where each file of a finished run lies."""

from __future__ import annotations

from gpupipe.targets.classes import percent

MANIFEST = "manifest.json"
SUFFIXES = (".ubj", ".npz", ".txt", ".cbm", ".json", ".py", ".parquet")  # of what a run publishes in folders of its own
IMPORTANCE = "importance.json"
WALKED = "walk_forward"  # the folder of OUT with what the models of a walk-forward said (walk_forward.py)
MODULES = "features"  # the folder of OUT with the Python files of the user's own features


def folder_of(sector: str, horizon: int, threshold: float) -> str:
    """Where the models of one sector, horizon and threshold are, relative to OUT."""
    return f"trained_{percent(threshold)}pct/{sector}/{horizon}d"


def is_model(relative: str) -> bool:
    """Whether a file of the manifest is a model's; metadata beside it says how many seconds it took."""
    return relative.startswith("trained_") and not relative.endswith("/metadata.json")
