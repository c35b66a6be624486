"""environment-rapids.yml names what pyproject.toml asks for, in the same ranges; conda itself is not run."""

from __future__ import annotations

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The names of packages that conda-forge and rapidsai call otherwise than PyPI.
CONDA = {
    "xgboost-cu13": "xgboost", "cupy-cuda13x": "cupy", "cudf-cu13": "cudf", "dask-cudf-cu13": "dask-cudf",
    "cuml-cu13": "cuml", "rmm-cu13": "rmm", "torch": "pytorch-gpu", "cuda-toolkit": "cuda-version",
}  # fmt: skip


def listed() -> dict[str, str]:
    """Range of each conda package of the environment, by name."""
    text = (ROOT / "environment-rapids.yml").read_text().partition("dependencies:")[2].partition("- pip:")[0]
    names = re.findall(r"^  - ([\w-]+)(.*)$", text, re.MULTILINE)
    return dict(names)


def asked(lines: list[str]) -> list[tuple[str, str]]:
    """(name in conda, range) of requirements that hold for CPython 3.12."""
    found = []
    for line in lines:
        requirement, _, marker = line.partition(";")
        name, bounds = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(.*)", requirement.strip()).groups()
        if "< '3.12'" not in marker:
            found.append((CONDA.get(name, name), bounds))
    return found


@pytest.mark.parametrize("name", ["dependencies", "cuda13", "torch"])
def test_the_conda_environment_has_what_pip_would_install(name):
    extras, packages = PROJECT["optional-dependencies"], listed()
    lines = PROJECT["dependencies"] if name == "dependencies" else extras[name]
    assert len(lines) >= 2
    for package, bounds in asked(lines):
        assert package in packages, package
        # Conda writes ==26.10.* as =26.10.
        wanted = re.sub(r"^==([\d.]+)\.\*$", r"=\1", bounds)
        assert packages[package] == wanted, package
