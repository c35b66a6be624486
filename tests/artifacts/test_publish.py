"""Files of an earlier run leave OUT once a run has published its own; files of the user stay."""

from __future__ import annotations

from gpupipe.artifacts.publish import remove_stale_files
from gpupipe.store.content_store import Store


def test_strangers_leave_whatever_folders_their_target_published_into(tmp_path):
    store = Store(tmp_path)
    entries = {
        name: store.publish(name, b"this run")
        for name in (
            "prices/A/next/linear.npz",
            "trained_5pct/energy/1d/linear.npz",
            "features/00_mine.py",
            "tables/signals.parquet",
            "tables/models/forest.json",
        )
    }
    strangers = (
        "prices/B/next/linear.npz", "prices/A/next/line.json", "trained/A/next_price/line.json",
        "trained_2.5pct/energy/3d/linear.npz", "trained_2.5pct/energy/3d/metadata.json", "features/01_mine.py",
        "trained_5pct/energy/1d/xgb_joint.ubj", "walk_forward/energy.parquet", "walk_forward/folds.json",
        "importance.json", "tables/predictions.parquet", "tables/models/network.json",
    )  # fmt: skip
    of_the_user = (
        "notes.txt", "notes/a.json", "trained_5pct/notes.txt", "trained_5pct/energy/1d/plot.png", "features/notes.txt",
        "backtest/statistics.json", "tables/notes.md",
    )  # fmt: skip
    for name in (*strangers, *of_the_user):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    remove_stale_files(store, entries)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith(".")} == {*entries, *of_the_user}
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert folders == {"prices", "trained_5pct", "features", "notes", "backtest", "tables"}
    assert not (tmp_path / "prices" / "B").exists()
    remove_stale_files(store, entries)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == left
