"""Small runs of the agent for tests: settings that train within a second, and what OUT holds of them."""

from __future__ import annotations

import pathlib

import pyarrow.parquet as pq

from gpupipe.config import make
from gpupipe.pipeline import job
from gpupipe.workloads.agent import AGENT
from tests.support.agent_market import made_bars

N_ROWS, WINDOW, STEP = 254, 150, 40  # with a warm-up of 14 rows: tests of 40, 40 and 10 rows
SMALL = (
    "features.names=roc_1,rsi_14", "market.spread=2 bps", f"agent.initial_window={WINDOW}", f"agent.step_size={STEP}",
    "agent.total_timesteps=384", "agent.min_timesteps=128", "agent.eval_freq=128", "ppo.size=8", "ppo.heads=8,4",
    "ppo.n_environments=4", "ppo.rollout=16", "ppo.sequence=8", "ppo.minibatch=32", "ppo.epochs=2",
    "ppo.learning_rate=0.01",
)  # fmt: skip
OPTIONS = tuple(word for setting in SMALL for word in ("--set", setting))  # the same on a command line


def small_settings(*more: str, seed: int = 0):
    return make(AGENT.catalogue(), settings=[*SMALL, *more], seed=seed)


def run_agent(out, *more: str, panel=None, seed: int = 0, jobs: int = 1):
    """The summary of a run, and whether there was anything to do."""
    bars = made_bars(N_ROWS) if panel is None else panel
    return job.execute(AGENT, bars, None, small_settings(*more, seed=seed), out, job.JobOptions(jobs=jobs))


def lasting(out) -> dict[str, bytes]:
    """Files of OUT that equal input makes equal: all but summaries and logs, which hold seconds."""
    paths = [path for path in pathlib.Path(out).rglob("*") if path.is_file() and ".gpupipe" not in path.parts]
    kept = {str(path.relative_to(out)): path.read_bytes() for path in paths}
    return {name: content for name, content in kept.items() if name.endswith((".parquet", ".safetensors"))}


def rows_of(out, name: str) -> list[dict]:
    return pq.read_table(pathlib.Path(out) / name).to_pylist()
