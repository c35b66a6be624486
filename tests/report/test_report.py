"""The report opens from disk without a network, draws all its figures, and shows the figures of the summary."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from gpupipe import report
from gpupipe.artifacts import summary
from gpupipe.cli import main, run
from gpupipe.report import page, signals
from gpupipe.store.content_store import StoreError
from tests.support.tiny import QUICK, SOURCE

pytest.importorskip("altair")
OPTIONS = (
    "--data", SOURCE, "--preset", "fast", "--sectors", "energy,utilities", "--horizons", "1,2", "--thresholds", "0.02",
    "--quiet", *(f"--set={setting}" for setting in QUICK),
)  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "OUT"
    assert run.main([*OPTIONS, "--models", "xgb_joint,linear,meta_learner", "--out", str(folder), "--report"]) == 0
    assert main.main(["backtest", "--models", str(folder), "--data", SOURCE, "--quiet"]) == 0
    scan = ["scan", "--models", str(folder), "--data", SOURCE, "--quiet", "--call", "top:4"]
    scan += ["--to", str(folder / signals.SIGNALS)]
    assert main.main([*scan, "--active", str(folder / signals.ACTIVE)]) == 0
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "OTHER"
    assert run.main([*OPTIONS, "--models", "linear", "--set", "linear.l2=1000", "--out", str(folder)]) == 0
    return folder


# A script that tests keyboard, screen-reader names and sorting once the page is drawn, and stores the results in it.
PROBE = """<script>
const probing = setInterval(() => {
  if (document.documentElement.dataset.drawn === undefined) return;
  clearInterval(probing);
  const name = e => e.getAttribute("aria-label") || e.getAttribute("alt")
    || document.getElementById(e.getAttribute("aria-labelledby") || "")?.textContent;
  const folded = () => document.querySelectorAll("details:not([open])").length;
  const probe = {wide: document.documentElement.scrollWidth - innerWidth, folded: folded(), sorted: []};
  const spoken = [...document.querySelectorAll(".chart, img, section, [role=region]")];
  probe.unnamed = spoken.filter(e => !name(e)?.trim()).length;
  probe.chosen = document.querySelector(".vega-bindings select").closest("[role]").getAttribute("role");
  probe.images = document.querySelectorAll(".chart[role=img]").length;
  const table = [...document.querySelectorAll("table")].find(t => t.caption.textContent.startsWith("All models and"));
  const column = [...table.tHead.rows[0].cells].findIndex(c => c.textContent.trim() === "sealed gain, %");
  const head = table.tHead.rows[0].cells[column], button = head.querySelector("button");
  table.closest("details").open = true;
  for (const turn of [1, 2]) {
    button.focus();
    probe.focused = document.activeElement === button && button.tabIndex === 0;
    button.click();  // what Enter and Space do on a button
    const values = [...table.tBodies[0].rows].map(r => Number(r.cells[column].dataset.value));
    probe.sorted.push([head.getAttribute("aria-sort"), values]);
  }
  table.closest("details").open = false;
  dispatchEvent(new Event("beforeprint")); probe.folded_on_paper = folded();
  dispatchEvent(new Event("afterprint")); probe.folded_after = folded();
  document.documentElement.dataset.probe = JSON.stringify(probe);
}, 50);
</script>"""


def opened(path, width: int = 1100) -> tuple[str, str]:
    """The page after its scripts have run in headless Chromium, and the lines of its console."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000",
         "--enable-logging=stderr", f"--window-size={width},2000", "--host-resolver-rules=MAP * ~NOTFOUND",
         "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console)


def specs(path) -> dict:
    match = re.search(r'<script id="specs" type="application/json">(.*?)</script>', path.read_text(), re.S)
    assert match
    return json.loads(match[1])


@pytest.mark.parametrize("width", [1100, 400])
def test_every_figure_is_drawn_and_the_console_is_silent(out, width, tmp_path):
    assert main.main(["report", str(out)]) == 0
    n_figures = len(specs(out / report.NAME))
    assert n_figures >= 15
    path = tmp_path / report.NAME
    path.write_text((out / report.NAME).read_text() + PROBE)
    dom, console = opened(path, width)
    assert console == ""
    assert f'data-drawn="{n_figures}"' in dom
    for k in range(n_figures):
        drawn = re.search(rf'id="figure{k}".*?</figure>', dom, re.S)
        assert drawn and "<svg" in drawn[0] and drawn[0].count("<path") > 2, f"figure{k}"
    probe = json.loads(html.unescape(re.search(r'data-probe="(.*?)"', dom)[1]))
    assert probe["wide"] <= 0 and probe["unnamed"] == 0 and probe["focused"] and probe["chosen"] == "group"
    assert probe["images"] == n_figures - 2  # all but the two with a control
    (first, down), (second, up) = probe["sorted"]
    assert (first, second) == ("descending", "ascending")
    assert down == sorted(down, reverse=True) and up == sorted(up) and len(set(up)) > 2
    assert probe["folded"] == probe["folded_after"] > 3 and probe["folded_on_paper"] == 0


def test_the_report_shows_the_signals_of_the_scan_and_their_date(out):
    import pyarrow.parquet as pq

    rows = pq.read_table(out / signals.SIGNALS).to_pylist()
    day = max(row["time"] for row in rows)[:10]
    called = {row["symbol"] for row in rows if row["side"] != "HOLD" and row["time"][:10] == day}
    content = html.unescape((out / report.NAME).read_text())
    assert f"of {len(called):,} on {day}, the best first" in content and f"On the bars of {day}" in content
    assert f"{len({row['symbol'] for row in rows}) - len(called):,} of" in content


def test_the_page_loads_no_other_file_and_is_small(out):
    content = (out / report.NAME).read_text()
    assert len(content) < 5_000_000
    ours = content.replace(page.library(), "")
    assert len(ours) < len(content)
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', ours)
    assert "url(" not in ours and "@import" not in ours
    assert "fetch(" not in page._file("page.js")


def test_the_report_shows_the_figures_of_the_summary(out):
    whole, content = summary.read(out), html.unescape((out / report.NAME).read_text())
    for average in whole["averages"]:
        assert f"{100 * average['test_gain_over_prior']:,.3f}" in content
    assert f"{whole['n_models']} of {whole['n_models_wanted']} models" in content
    rows = [row for spec in specs(out / report.NAME).values() for row in _values(spec)]
    of_intervals = [row for row in rows if "low" in row and "skill" in row]
    gains = {(row["label"], row["model"]): row["gain"] for row in of_intervals if "part" not in row}
    titles = {row["label"]: summary.title_of(row) for row in whole["models"]}
    expected = {(titles[a["label"]], a["model"]): 100 * a["test_gain_over_prior"] for a in whole["averages"]}
    assert gains == pytest.approx(expected, rel=1e-5)
    for part in ("touch", "direction"):
        shown = {(row["label"], row["model"]): row["gain"] for row in of_intervals if row.get("part") == part}
        expected = {(titles[a["label"]], a["model"]): 100 * a[f"test_{part}_gain"] for a in whole["averages"]}
        assert shown == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert "tells" in content and "touch: skill on" in content and "direction: skill on" in content
    trades = json.loads((out / "backtest" / "statistics.json").read_text())
    assert f"{trades['draws']} draws of random entries" in content
    for title in ("Training of the networks", "Return of the next bar", "Positions by the predicted return"):
        assert title not in content  # sections of networks


def _values(spec) -> list:
    values = spec["data"].get("values", []) if "data" in spec else []
    return values + [row for data in spec.get("datasets", {}).values() for row in data]


def test_two_runs_side_by_side(out, other, tmp_path):
    assert main.main(["report", str(out), "--compare", str(other), "--to", str(tmp_path / "two.html")]) == 0
    content = html.unescape((tmp_path / "two.html").read_text())
    assert "linear.l2" in content and "training.models" in content
    assert "Both runs were judged on the same rows." in content
    for folder in (out, other):
        average = next(a for a in summary.read(folder)["averages"] if a["model"] == "linear")
        assert f"{100 * average['test_gain_over_prior']:,.2f}" in content
    dom, console = opened(tmp_path / "two.html")
    assert console == "" and 'data-drawn="1"' in dom


def test_a_report_that_cannot_be_written_is_an_error_of_one_line(tmp_path, capsys, other, monkeypatch):
    with pytest.raises(StoreError, match="run again with --out"):
        report.write(tmp_path / "nothing")
    assert main.main(["report", str(tmp_path)]) == 2
    assert "summary.json is missing" in capsys.readouterr().err
    assert main.main(["report", str(other), "--to", "x.html"]) == 2
    assert "--compare" in capsys.readouterr().err
    for content, words in (("{}", "run of another gpupipe version"), ("{half", "is not JSON")):
        (tmp_path / "summary.json").write_text(content)
        assert main.main(["report", str(tmp_path)]) == 2
        assert words in capsys.readouterr().err
        assert main.main(["report", str(other), "--compare", str(tmp_path)]) == 2
        assert words in capsys.readouterr().err
    monkeypatch.setitem(report.NEEDS, "no_such_module", "no-such-package")
    assert main.main(["report", str(other)]) == 2
    assert "pip install -e '.[report]'" in capsys.readouterr().err


def test_text_of_the_data_cannot_become_a_part_of_the_page():
    figure = page.Figure("<b>", {"data": {"values": [{"name": "</script><script>alert(1)</script>"}]}})
    rows = [["<img src=x onerror=alert(1)>", None], ["é", float("nan")]]
    table = page.Table("t", [("name", False), ("n", True)], rows)
    content = page.render("<i>", ["<u>"], [page.Section("<s>", ["<em>"], [figure, table])])
    content = content.replace(page.library(), "")
    assert "<img" not in content and "alert(1)</script>" not in content
    for tag in ("<b>", "<i>", "<u>", "<s>", "<em>"):
        assert tag not in content.split("<script>")[0]
    assert content.count("<script") == 3 and content.count("–") == 2
