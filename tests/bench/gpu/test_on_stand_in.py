"""Every step of `python -m bench.gpu` that a CPU can run, small, on the stand-in for the CUDA libraries."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import defaultdict

import pytest

from bench import runs
from bench.gpu import page
from bench.gpu.steps import STEPS
from tests.support.ptx import why_not
from tests.support.stand_in import cuda_like

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="a GPU needs CPython 3.12: 3.11 gets XGBoost 3.2"),
]
NETWORKS = ("pool", "windows", "epoch", "loss")
HAS_TORCH = importlib.util.find_spec("torch") is not None
DATA = "simulated:symbols=12,bars=260,seed=3"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The file of lines of one run of all steps; those of networks are in it where they are left out."""
    out = tmp_path_factory.mktemp("gpu") / "lines.jsonl"
    steps = [step for step in STEPS if step not in NETWORKS or not HAS_TORCH]
    options = ["--small", "--data", DATA, "--out", str(out), "--steps", ",".join(steps)]
    command = [sys.executable, "-m", "tests.support.stand_in", "bench.gpu", *options]
    path = os.pathsep.join(filter(None, (str(runs.ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(out.parent / "cache")}
    done = subprocess.run(command, cwd=runs.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def lines(file):
    """The lines of each step."""
    found = defaultdict(list)
    for text in file.read_text().splitlines():
        line = json.loads(text)
        found[line.pop("kind")].append(line)
    return found


def numbers(line, *names):
    """Whether a line has these names, with positive numbers."""
    return all(line[name] > 0 for name in names)


def test_every_line_names_the_device_and_the_time(lines):
    for line in (line for several in lines.values() for line in several):
        assert line["device"] == cuda_like.NAME and line["cupy"] and line["time"]


def test_nothing_is_wrong_or_failed(lines):
    assert [line for several in lines.values() for line in several if page.is_wrong(line)] == []


def test_each_step_has_its_seconds(lines):
    ran = [step for step in STEPS if step not in NETWORKS]
    assert [line["step"] for line in lines["seconds"]] == ran and all(line["seconds"] > 0 for line in lines["seconds"])


def test_machine(lines):
    described, compiled = lines["machine"]
    assert described["capability"] == "90" and described["versions"]["xgboost"] and numbers(described, "memory_gb")
    assert compiled["kernels"] > 90 and compiled["compiled"] <= compiled["kernels"]


def test_kernels(lines):
    copies, *others = lines["kernels"]
    assert copies["step"] == "copies"
    assert numbers(copies, "on_device_gb_s", "to_device_gb_s", "to_host_gb_s", "launch_us")
    assert len({line["step"] for line in others}) == 12 and len({line["kernel"] for line in others}) >= 30
    for line in others:
        assert line["differ"] == line["ulps"] == 0 and line["where"] == ""
        assert numbers(line, "values", "calls", "ms", "bytes", "gb_s", "share"), line


def test_boosters(lines):
    turns, cuts, reading, threads, speed = lines["boosters"]
    assert turns["case"].endswith(" zeros") and turns["rounds_unlike_a_fresh_booster"] == []
    assert cuts["differ"] == 0 and reading["inplace_distance"] == reading["cached_distance"] == 0
    assert threads["equal"] is True and threads["alike"] == threads["of"]
    assert numbers(speed, "bins_ms", "plain_ms", "set_param_ms", "async_pool_ms")


def test_tests(lines, file):
    (line,) = lines["tests"]
    assert line["exit_code"] == 0 and line["passed"] > 0 and line["failures"] == []
    assert f"{line['passed']} passed" in file.with_suffix(".tests.log").read_text()


def test_job(lines):
    first, cpu, cuda, compared = lines["job"]
    assert [line["on"] for line in (first, cpu, cuda)] == ["cuda", "cpu", "cuda"] and compared["ratio"] > 0
    assert numbers(cuda, "seconds", "to_device", "to_host") and cpu["to_device"] == cpu["to_host"] == 0
    assert all(line["models"] > 10 and line["gain_apart_largest"] == 0 for line in (first, cpu, cuda))


@pytest.mark.skipif(HAS_TORCH, reason="Torch is installed: the steps of networks are not left out")
@pytest.mark.parametrize("step", NETWORKS)
def test_without_torch_networks_are_left_out_with_the_reason(lines, step):
    assert [line["skipped"] for line in lines[step]] == [
        "torch is not installed: pip install 'gpupipe[torch]', in a build for CUDA"
    ]


def test_agent(lines):
    (line,) = lines["agent"]
    assert line["equal"] is True and line["differ"] == 0 and line["known"] == line["values"] == 12 * 40
    assert numbers(line, "cpu_steps_s", "cuda_steps_s")


def test_bonds(lines):
    (line,) = lines["bonds"]
    assert line["equal"] is True and line["differ"] == 0 and line["known"] > 0.9 * line["values"]
    assert numbers(line, *(f"{kind}_{name}_bonds_s" for kind in ("cpu", "cuda") for name in ("price", "yield")))


def test_cuml(lines):
    assert [line["family"] for line in lines["cuml"]] == ["forest", "linear"]
    for line in lines["cuml"]:
        assert numbers(line, "cuml_ms", "ours_ms") and 0.5 < line["cuml_loss"] < 1.1 and 0.5 < line["ours_loss"] < 1.1


def test_a_page_of_all_lines(file, tmp_path):
    assert page.main([str(file), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert f"gpupipe on {cuda_like.NAME}" in text and "None of them is wrong or failed" in text
    assert all(f"<h2>{step}</h2>" in text for step in STEPS if step not in NETWORKS or not HAS_TORCH)
    assert "labels.label_cube" in text and "class='bar'" in text
