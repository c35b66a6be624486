"""Layout of OUT: where each file of a finished run lies; README.md shows it as a tree.

trained_5pct/energy/2d/     models and metadata.json of one group and target: `Target.folder` names it (publish.py)
summary.json, .parquet      measures, one row for each model (summary.py)
manifest.json               SHA-256 of every published file, written last (manifest.py)
walk_forward/               predictions of each fold on its test (out_of_sample_store.py)
features/                   the Python files of the user's own features (publish.py)
importance.json, curves.parquet, label_shares.parquet, calibration_slices.parquet, ranking.parquet, folds.svg,
data_report.json: what the report draws
"""

from __future__ import annotations

from collections.abc import Iterable

MANIFEST = "manifest.json"
SUFFIXES = (  # of files that a run publishes in folders
    ".ubj", ".npz", ".txt", ".cbm", ".safetensors", ".json", ".py", ".parquet",
)  # fmt: skip
IMPORTANCE = "importance.json"
MODELS = "trained"  # the names of folders of OUT with models begin so
DIRECTIONS = "direction"  # or are this, of labels of the next bar's direction
WALKED = "walk_forward"  # the folder of OUT with the predictions of a walk-forward (out_of_sample_store.py)
MODULES = "features"  # the folder of OUT with the Python files of the user's features


def model_files(files: Iterable[str]) -> list[str]:
    """The models among the manifest's files, sorted: those beside a metadata.json, whatever their folder is called.

    >>> model_files(["up/a/metadata.json", "up/a/linear.npz", "features/00_mine.py"])
    ['up/a/linear.npz']
    """
    names = sorted(files)
    folders = {name.removesuffix("metadata.json") for name in names if name.endswith("/metadata.json")}
    return [name for name in names if f"{name.rpartition('/')[0]}/" in folders and not name.endswith("/metadata.json")]
