"""Every call into cudf, cupy, rmm, cuml, xgboost and dask_cuda exists and takes those arguments; no GPU needed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json

import pytest

from gpupipe.workloads.bonds.families import libraries
from tests.support import snapshot_signatures as signatures

SNAPSHOT = json.loads(signatures.SNAPSHOT.read_text())
USES = signatures.uses()
LIBRARIES = sorted({use.path.split(".")[0] for use in USES})


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_use_is_in_the_snapshot(library):
    """A missing name is new, or wrong: make the snapshot again and see."""
    known = SNAPSHOT["signatures"]
    missing = [f"{use.where}: {use.path}" for use in USES if use.path.startswith(library) and use.path not in known]
    assert not missing, f"not in the snapshot (python -m tests.support.snapshot_signatures): {missing}"
    wrong = [signatures.problem(use, known[use.path]) for use in USES if use.path.split(".")[0] == library]
    assert not any(wrong), [text for text in wrong if text]


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_use_exists_in_the_library_itself(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed; the snapshot speaks for it")
    texts = signatures.signatures_of({use.path for use in USES if use.path.split(".")[0] == library})
    wrong = [signatures.problem(use, texts[use.path]) for use in USES if use.path.split(".")[0] == library]
    assert not any(wrong), [text for text in wrong if text]


def test_the_snapshot_of_cupy_is_what_is_installed():
    """The stand-in takes its names and signatures from the snapshot."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("cupy is not installed")
    recorded = {path: text for path, text in SNAPSHOT["signatures"].items() if path.startswith("cupy.")}
    if importlib.metadata.version("cupy-cuda13x") != SNAPSHOT["versions"]["cupy-cuda13x"]:
        pytest.skip("another version of cupy is installed")
    assert signatures.snapshot(["cupy"])["signatures"] == recorded


def test_the_device_layer_was_found():
    paths = {use.path for use in USES}
    assert {"cupy.asarray", "cupy.cuda.runtime.memGetInfo", "rmm.mr.CudaAsyncMemoryResource"} <= paths
    assert "xgboost" in LIBRARIES


def test_the_snapshot_is_of_the_versions_that_the_extra_takes():
    requirements = pytest.importorskip("packaging.requirements")
    try:
        lines = importlib.metadata.requires("gpupipe") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gpupipe is not installed (pip install -e .): its requirements are not known")
    checked = 0
    for line in map(requirements.Requirement, lines):
        if line.name in SNAPSHOT["versions"] and "cuda13" in str(line.marker) and "< '3.12'" not in str(line.marker):
            assert line.specifier.contains(SNAPSHOT["versions"][line.name]), line
            checked += 1
    assert checked >= 5


EXAMPLE = """
import cupy as cp
import xgboost
from rmm.mr import CudaAsyncMemoryResource
def f(device, booster: xgboost.Booster):
    xp = device.xp
    made = xgboost.DMatrix(xp.zeros((3, 2)), label=None)
    made.set_info(label=xp.ones(3))
    booster.predict(made, output_margin=True)
    panel.device.xp.cumsum(made, axis=0)
    cp.cuda.runtime.getDeviceCount()
    CudaAsyncMemoryResource(release_threshold=1)
def g(made, booster):
    made.set_info(anything=1)
"""


def test_uses_are_found_through_aliases_instances_and_xp():
    found = {(use.path, use.arguments) for use in signatures.uses_in(EXAMPLE, "example.py")}
    assert {
        ("cupy.zeros", (1, (), False)),
        ("cupy.cumsum", (1, ("axis",), False)),
        ("cupy.cuda.runtime.getDeviceCount", (0, (), False)),
        ("rmm.mr.CudaAsyncMemoryResource", (0, ("release_threshold",), False)),
        ("xgboost.DMatrix", (1, ("label",), False)),
        ("xgboost.DMatrix.set_info", (0, ("label",), False)),
        ("xgboost.Booster.predict", (1, ("output_margin",), False)),
    } <= found
    assert not any("anything" in (use.arguments or (0, ()))[1] for use in signatures.uses_in(EXAMPLE, "example.py"))


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        ("xp.cumsum(a, axis=0)", None),
        ("xp.cumsum(a, axes=0)", "axes"),
        ("xp.cumsum()", "missing"),
        ("xp.cumsum(*a, axis=1)", None),
        ("xp.maximum(a, b)", None),
        ("xp.maximum(a)", "missing"),
        ("xp.maximum(a, b, initial=0)", "initial"),
        ("xp.cuda.runtime.getDeviceProperties()", "missing"),
        ("xp.cuda.set_allocator(a, b)", "too many"),
    ],
)
def test_a_wrong_call_is_told(call, wrong):
    (use,) = signatures.uses_in(call, "call.py")
    text = signatures.problem(use, SNAPSHOT["signatures"][use.path])
    assert (text is None) if wrong is None else (wrong in text and "call.py:1" in text)


def test_the_estimators_of_bonds_are_among_the_uses_of_cuml():
    of_bonds = [use for use in USES if use.where.startswith("gpupipe/workloads/bonds/")]
    found = {use.path: use.arguments for use in of_bonds if use.path.startswith("cuml.")}
    assert found.keys() == {f"cuml.{module}.{cls}" for module, cls in libraries.CLASSES.values()}
    assert {"n_streams", "max_samples", "min_samples_leaf"} <= set(found["cuml.ensemble.RandomForestRegressor"][1])


def test_an_argument_that_cuml_lacks_is_told():
    (use,) = signatures.estimators_in("estimator('ridge', device, alpha=1.0, n_jobs=2)", "call.py")
    assert "n_jobs" in signatures.problem(use, SNAPSHOT["signatures"][use.path])
    with pytest.raises(ValueError, match=r"call\.py:1: expected estimator"):
        list(signatures.estimators_in("estimator(name, device)", "call.py"))


def test_rmm_resources_have_signatures_though_they_are_compiled():
    assert "release_threshold" in SNAPSHOT["signatures"]["rmm.mr.CudaAsyncMemoryResource"]
