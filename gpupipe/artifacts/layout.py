"""Layout of OUT: where each file of a finished run lies; README.md shows it as a tree.

trained_5pct/energy/2d/     models and metadata.json of one group and target: `Target.folder` names it (publish.py)
summary.json, .parquet      measures, one row for each model (summary.py)
manifest.json               SHA-256 of every published file, written last (manifest.py)
walk_forward/               predictions of each fold on its test (out_of_sample_store.py)
features/                   the Python files of the user's own features (publish.py)
importance.json, curves.parquet, label_shares.parquet, folds.svg, data_report.json: what the report draws
"""

from __future__ import annotations

MANIFEST = "manifest.json"
SUFFIXES = (".ubj", ".npz", ".txt", ".cbm", ".json", ".py", ".parquet")  # of files that a run publishes in folders
IMPORTANCE = "importance.json"
MODELS = "trained"  # the names of folders of OUT with models begin so
WALKED = "walk_forward"  # the folder of OUT with the predictions of a walk-forward (out_of_sample_store.py)
MODULES = "features"  # the folder of OUT with the Python files of the user's features


def is_model(relative: str) -> bool:
    """Whether a file of the manifest is a model; the metadata beside it holds the seconds of its training."""
    return relative.startswith("trained_") and not relative.endswith("/metadata.json")
