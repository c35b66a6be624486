"""A wheel that was installed, not the checkout, runs a job on two workers from any folder."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

from tests.support.tiny import QUICK

ROOT = pathlib.Path(__file__).parents[2]
CACHE = ROOT / "kernels/__pycache__"
BUILT_FROM = ("gpupipe", "kernels", "pyproject.toml", "README.md", "LICENSE")
JOB = (
    "run", "--data", "simulated:symbols=22,bars=260,seed=3", "--sectors", "energy", "--preset", "fast",
    "--horizons", "1,3", "--thresholds", "0.02", "--models", "linear", "--workers", "2", "--jobs", "2",
    *(f"--set={setting}" for setting in (*QUICK, "training.min_rows=10", "features.names=rsi_14,natr_14")),
)  # fmt: skip

# Whether each of the named kernels was found on disk, by a process that comes later.
LOAD = """
import sys
from gpupipe.kernels import compile, notice
for kernel in compile.all_kernels():
    if kernel.full_name in sys.argv:
        kernel.cpu
        print(notice.made[-1].loaded)
"""


def called(*command: object, cwd: pathlib.Path) -> str:
    """Standard output of a process that knows nothing of the checkout."""
    ours = ("PYTHON", "NUMBA_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """A wheel, built from a copy of the sources, so that nothing is written into the checkout."""
    place = tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, place / "source" / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, place / "source" / name)
    # With setuptools at hand nothing is downloaded.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    called(sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "-w", place, place / "source", cwd=place)
    (file,) = place.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> pathlib.Path:
    """The interpreter of a fresh environment with the wheel in it, which sees the packages of the present one.

    They are on its path by a .pth file, whose folders' own .pth files are not read: an editable gpupipe is not seen.
    """
    place = tmp_path_factory.mktemp("environment")
    called(sys.executable, "-m", "venv", "--without-pip", place / "fresh", cwd=place)
    python = place / "fresh/bin/python"
    called(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=place)
    (site,) = place.glob("fresh/lib/python*/site-packages")
    present = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "present.pth").write_text("\n".join(present) + "\n")
    reuse_compiled(site / "gpupipe/kernels")
    return python


def reuse_compiled(kernels: pathlib.Path) -> None:
    """Copy the loops that the checkout has compiled, to save a minute: numba takes them where the source has the same
    time and size. They lie beside the sources, or in the folder that NUMBA_CACHE_DIR names."""
    for source in (ROOT / "kernels").glob("*.py"):
        assert source.read_bytes() == (kernels / source.name).read_bytes()
        shutil.copystat(source, kernels / source.name)
    folder = os.environ.get("NUMBA_CACHE_DIR")
    for compiled in pathlib.Path(folder).glob("kernels_*/*.nb[ci]") if folder else CACHE.glob("*.nb[ci]"):
        (kernels / "__pycache__").mkdir(exist_ok=True)
        shutil.copy(compiled, kernels / "__pycache__")


def test_a_job_of_two_workers_from_a_folder_outside_the_checkout(python, tmp_path):
    where = called(
        python, "-c", "import gpupipe, gpupipe.kernels as k; print(gpupipe.__file__, k.__file__)", cwd=tmp_path
    )
    assert all(pathlib.Path(file).is_relative_to(python.parents[1]) for file in where.split())
    assert ROOT not in tmp_path.parents
    for command in ([python, "-m", "gpupipe"], [python.with_name("gpupipe")]):
        assert called(*command, "--help", cwd=tmp_path).startswith("usage: gpupipe ")
    compiled = python.parents[1].glob("lib/python*/site-packages/gpupipe/kernels/__pycache__/linear.scaled_margin*.nb?")
    for file in compiled:
        file.unlink()
    printed = called(python, "-m", "gpupipe", *JOB, "--out", "OUT", cwd=tmp_path)
    assert "2 workers" in printed and "2 of 2 models" in printed
    events = map(json.loads, (tmp_path / "OUT/run.jsonl").read_text().splitlines())
    (kernels,) = [event for event in events if event["event"] == "kernels"]
    assert "compiling kernels, once (" in printed and "linear.scaled_margin" in kernels["names"] and kernels["kept"]
    assert called(python, "-c", LOAD, *kernels["names"], cwd=tmp_path).split() == ["True"] * len(kernels["names"])
    files = json.loads((tmp_path / "OUT/manifest.json").read_text())["files"]
    published = [name for name in files if pathlib.Path(name).name.startswith("linear.")]
    assert {pathlib.Path(name).parent.as_posix() for name in published} == {
        "trained_2pct/energy/1d", "trained_2pct/energy/3d"
    }  # fmt: skip
    assert all((tmp_path / "OUT" / name).stat().st_size == files[name]["bytes"] for name in published)


def test_the_wheel_has_the_files_that_are_no_code(python, tmp_path):
    script = "import importlib.resources as r; print(*(f.name for m in {} for f in r.files(m).iterdir()))"
    packages = ("gpupipe.data", "gpupipe.report", "gpupipe.workloads.bonds.market")
    names = called(python, "-c", script.format(packages), cwd=tmp_path).split()
    assert {"demo_sectors.csv", "page.html", "page.css", "page.js"} <= set(names)
    assert {"ust_auctions.parquet", "ust_par_curve.parquet"} <= set(names)
