"""Versions of libraries in keys: by the name that is imported, of whatever distribution has it."""

from __future__ import annotations

import importlib.metadata

import pytest

from gpupipe.config import make
from gpupipe.pipeline import job
from gpupipe.runtime.device import pick
from gpupipe.store import fingerprint
from gpupipe.workloads.bonds import BONDS


@pytest.fixture(autouse=True)
def versions_are_asked_again():
    fingerprint._version.cache_clear()
    yield
    fingerprint._version.cache_clear()


def installed(monkeypatch, **versions):
    """What importlib finds, with further distributions; None is not installed."""
    real = importlib.metadata.version

    def version(name):
        if name not in versions:
            return real(name)
        if versions[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize("distribution", ["cuml-cu13", "cuml-cu12", "cuml"])
def test_keys_of_bonds_have_the_version_of_cuml(monkeypatch, distribution):
    found = []
    for version in ("26.10.0", "26.12.0"):
        fingerprint._version.cache_clear()
        names = dict.fromkeys(fingerprint.DISTRIBUTIONS["cuml"])
        installed(monkeypatch, **{**names, distribution: version})
        key = job.run_key("ab", make(BONDS.catalogue()), pick("cpu"), (), job.code_roots(BONDS))
        found.append((fingerprint.libraries(["gpupipe.workloads.bonds"], ())["cuml"], key))
    assert [version for version, _ in found] == ["26.10.0", "26.12.0"]
    assert found[0][1] != found[1][1], "a finished run is not taken for one by another cuML"


def test_scikit_learn_is_found_by_its_imported_name_and_what_is_missing_is_left_out(monkeypatch):
    installed(monkeypatch, **dict.fromkeys(fingerprint.DISTRIBUTIONS["cuml"]))
    found = fingerprint.libraries(["gpupipe.workloads.bonds"], ())
    assert found["sklearn"] == importlib.metadata.version("scikit-learn") and "cuml" not in found
