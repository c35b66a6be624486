"""A run of sequence networks leaves a page with its own sections, drawn from the files that it wrote."""

from __future__ import annotations

import html

import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="the networks of a run are trained with Torch")
pytest.importorskip("altair")

from gpupipe import report
from gpupipe.artifacts import summary
from gpupipe.cli import main
from gpupipe.data import simulate
from gpupipe.evaluation import next_return
from gpupipe.report import kept_returns, loss_curves, position_paths
from gpupipe.workloads.sequence import measures
from tests.report.test_report import opened, specs

QUICK = ("--preset", "fast", "--epochs", "2", "--sequence-length", "8", "--features", "roc_1,natr_14,rsi_14", "--jobs",
         "1", "--horizons", "1", "--thresholds", "0.02", "--skip-onnx", "--quiet")  # fmt: skip
SECTIONS = ("Training of the networks", "Return of the next bar", "Positions by the predicted return")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    place = tmp_path_factory.mktemp("sequence_report")
    panel = simulate(n_symbols=2, n_bars=600, seed=7).replace(group_by="symbol")
    pq.write_table(panel.to_arrow(), place / "bars.parquet")
    arguments = ("--data", str(place / "bars.parquet"), "--folds", "2", "--multiples", "1")
    assert main.main(["sequence", *QUICK, *arguments, "--out", str(place / "OUT")]) == 0
    return place / "OUT"


def test_the_page_shows_what_the_run_left(out):
    assert (loss_curves.FILE, kept_returns.FILE) == (measures.HISTORY, measures.RETURNS)
    content = html.unescape((out / report.NAME).read_text())
    whole = summary.read(out)
    for title in SECTIONS:
        assert f">{title}</h2>" in content
    for symbol, values in whole["returns"].items():
        assert f"{next_return.sentence(symbol, values)}." in content
        assert position_paths.sentence(symbol, values["positions"]) in content
    assert "Windows of 8 bars: 14 of 1,200 rows have too few bars before them" in content
    rows = kept_returns.read(out)
    assert {symbol: kept.n for symbol, kept in rows.items()} == {
        symbol: values["rows"] for symbol, values in whole["returns"].items()
    }
    assert all(len(kept.folds) == 2 for kept in rows.values()) and "test bars of 2 folds together" in content


def test_labels_have_words_and_groups_are_symbols(out):
    content = html.unescape((out / report.NAME).read_text())
    shown = content.partition("<script>")[0]
    assert "direction of the next bar" in shown and "1 bar, 1 x volatility" in shown
    for name in ("direction_1d", "log_return_1", "label_1d", "all sectors", "in each sector"):
        assert name not in shown
    assert "averaged over 2 symbols" in shown


def test_every_figure_of_the_page_is_drawn(out):
    dom, console = opened(out / report.NAME)
    assert console == "" and f'data-drawn="{len(specs(out / report.NAME))}"' in dom
    assert "Seconds by stage" in dom and ">direction of the next bar<" in dom
