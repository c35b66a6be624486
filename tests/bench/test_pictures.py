"""The pictures are drawn from the lines of their benchmarks."""

from __future__ import annotations

import json

import pytest

from bench import pictures, runs
from bench.kernels import comparison, label_peers
from tests.support.panels import random_panel

pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra bench)")


def test_the_picture_has_a_row_for_each_side(tmp_path):
    panel = random_panel((300, 1, 40, 120, 2, 6))
    run = comparison.Run(panel, panel, 1, 1.0, 1e9)
    about = {"data": "bars.parquet", "device": "a CPU", "cores": 2, "date": "2026-01-01"}
    lines = [{**line, **about} for line in (*comparison.classes(run, label_peers.FASTEST), *comparison.everything(run))]
    names = [row.name for row in pictures.rows_of(lines)]
    assert names.count("gpupipe") == 2 and sum(name.startswith(("numpy", "polars")) for name in names) == 4
    pictures.draw_kernels(lines + [{**line, "data": "simulated"} for line in lines], tmp_path / "kernels.svg")
    assert "<svg" in (tmp_path / "kernels.svg").read_text()
    with pytest.raises(SystemExit, match="no comparison to draw"):
        pictures.draw_kernels([], tmp_path / "none.svg")


@pytest.mark.parametrize("name", ["kernels", "scan", "predecessor"])
def test_the_stored_results_are_drawn(name, tmp_path):
    assert pictures.main([name, "--out", str(tmp_path / "picture.svg")]) == 0
    assert "<svg" in (tmp_path / "picture.svg").read_text()
    assert [json.loads(line) for line in max(runs.RESULTS.glob(pictures.PICTURES[name][1])).read_text().splitlines()]
