"""The stand-ins for XGBoost, RMM and cuML, each in a process of its own, as they change modules for good."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.support.ptx import why_not

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="a GPU needs CPython 3.12: 3.11 gets XGBoost 3.2"),
]
BEGIN = """
import numpy as np
from tests.support.stand_in.install import install
install()
import cupy, xgboost
from tests.support.stand_in.counting import COUNTS
from tests.support.stand_in.recorded import RefusedError

def refused(call):
    try:
        call()
    except RefusedError as error:
        return str(error)
    raise AssertionError("not refused")

X = cupy.asarray(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
rows = [xgboost.QuantileDMatrix(X), xgboost.QuantileDMatrix(X[:40].copy())]
notes = COUNTS.by_stage()["notes"]
assert notes == {"other": 2}, notes  # cut points that a GPU finds are its own
parameters = {"device": "cuda", "tree_method": "hist", "base_score": 0.0, "nthread": 1}
booster = xgboost.Booster(parameters, [rows[0]])
def derivatives(n):
    return {"grad": cupy.ones((n, 1), np.float32), "hess": cupy.ones((n, 1), np.float32)}
"""
XGBOOST = {
    "another matrix is refused": """
booster.boost(rows[0], 0, **derivatives(50))
booster.boost(rows[0], 1, **derivatives(50))
assert "keeps the rows and bins" in refused(lambda: booster.boost(rows[1], 2, **derivatives(40)))
""",
    "another matrix is taken once a parameter is set": """
booster.boost(rows[0], 0, **derivatives(50))
booster.set_param({"nthread": 1})
booster.boost(rows[1], 1, **derivatives(40))
assert COUNTS.by_stage()["boosts"] == {"other": 2}
""",
    "the CPU takes matrices in turn": """
booster = xgboost.Booster({**parameters, "device": "cpu"}, [rows[0]])
for k in range(4):
    n = rows[k % 2].num_row()
    booster.boost(rows[k % 2], k, grad=np.ones((n, 1), np.float32), hess=np.ones((n, 1), np.float32))
""",
    "training by its own objective is held to the same": """
for matrix, n in zip(rows, (50, 40)):
    matrix.set_label(np.zeros(n))
booster.update(rows[0], 0)
assert "keeps the rows and bins" in refused(lambda: booster.update(rows[1], 1))
""",
    "it says where it trained": """
assert '"device": "cuda:0"' in booster.save_config() and xgboost.build_info()["USE_CUDA"]
with xgboost.config_context(verbosity=0, use_cuda_async_pool=True):
    pass
""",
    "predictions are where rows are": """
booster.boost(rows[0], 0, **derivatives(50))
on_device = booster.inplace_predict(X, predict_type="margin")
assert isinstance(on_device, cupy.ndarray) and "notes" in COUNTS.by_stage()
before = sum(COUNTS.by_stage()["notes"].values())
on_host = booster.inplace_predict(X.get(), predict_type="margin")
assert isinstance(on_host, np.ndarray) and sum(COUNTS.by_stage()["notes"].values()) == before + 1
np.testing.assert_array_equal(on_host, on_device.get())
""",
    "float64 on the device is refused": """
assert "expected float32" in refused(lambda: booster.inplace_predict(X.astype(np.float64)))
""",
    "derivatives of the host are counted": """
booster.boost(rows[0], 0, grad=np.ones((50, 1), np.float32), hess=np.ones((50, 1), np.float32))
assert COUNTS.by_stage()["bytes that Device does not count"] == {"other": 400}
""",
}
LIBRARIES = {
    "RMM's pool counts, and refuses to grow above its limit": """
from gpupipe.runtime.device import pick, pool_statistics
pick("cuda", limit_bytes=2**20)
held = cupy.zeros(1000, np.float32)
counts = pool_statistics()
assert counts["current_bytes"] >= 4096 and counts["peak_bytes"] >= counts["current_bytes"] > 0, counts
try:
    cupy.zeros(2**20, np.float32)
    raise AssertionError("not refused")
except MemoryError:
    pass
""",
    "an argument that RMM lacks is refused": """
import rmm
assert "CudaAsyncMemoryResource" in refused(lambda: rmm.mr.CudaAsyncMemoryResource(threshold=1))
""",
    "cuML has its signatures": """
from cuml.linear_model import Ridge
from cuml.ensemble import RandomForestRegressor
assert "n_jobs" in refused(lambda: RandomForestRegressor(n_jobs=2))
model = Ridge(alpha=1.0).fit(X.get(), X[:, 0].get())
assert model.coef_.shape == (3,)
assert not hasattr(RandomForestRegressor(n_estimators=2, n_streams=1), "estimators_")
""",
    "cuML's classifiers take labels and give probabilities where the rows are": """
from cuml.ensemble import RandomForestClassifier
from cuml.linear_model import LogisticRegression
assert "l1" in refused(lambda: LogisticRegression(l1=2))
y = cupy.asarray(np.arange(50) % 3)
for model in (RandomForestClassifier(n_estimators=2, n_bins=16, random_state=1), LogisticRegression()):
    probability = model.fit(X, y).predict_proba(X)
    assert isinstance(probability, cupy.ndarray) and probability.shape == (50, 3)
    np.testing.assert_allclose(probability.get().sum(axis=1), 1, rtol=1e-6)
    assert isinstance(model.predict_proba(X.get()), np.ndarray)
""",
}


@pytest.mark.parametrize("code", [*XGBOOST.values(), *LIBRARIES.values()], ids=[*XGBOOST, *LIBRARIES])
def test_the_libraries(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", BEGIN + code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
