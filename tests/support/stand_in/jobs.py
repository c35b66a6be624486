"""Small jobs of gpupipe that run on a CPU and on the stand-in: what they write, and what they count, is compared.

    python -m tests.support.stand_in.jobs equity cuda FOLDER

runs the commands of a job one after the other in this process, writes what each of them wrote to FOLDER, and what it
counted to FOLDER/counts.json: by stage, by place in the source, and as gpupipe's own ledger of the bus.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from tests.support import agent_run, bond_run
from tests.support.tiny import QUICK

ROOT = pathlib.Path(__file__).parents[3]
COUNTED = "counts.json"
# Numbers of rounds that do not depend on the last bits of a loss: what is counted is equal on every machine.
_SETTINGS = (*QUICK, "training.early_stopping=100", "labels.horizons=1,3")
_SET = tuple(f"--set={setting}" for setting in _SETTINGS)
_DATA = ("--data", "{folder}/bars.parquet")
_MODELS = ("--models", "{folder}/OUT", *_DATA)
# On the device, fits that are too small for a GPU are placed there all the same.
_ON_CUDA = tuple(
    word for name in ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest") for word in ("--place", f"{name}=cuda")
)
# Commands by name; {folder} is the folder of the run.
JOBS: dict[str, dict[str, tuple[str, ...]]] = {
    "equity": {
        "run": ("run", *_DATA, "--preset", "fast", "--jobs", "1", "--out", "{folder}/OUT", *_SET),
        "scan": ("scan", *_MODELS, "--to", "{folder}/signals.parquet"),
        "backtest": ("backtest", *_MODELS, "--call", "profit"),
        "portfolio": ("backtest", *_MODELS, "--portfolio", "long-short"),
    },
    "nightly": {
        "nightly": (
            "nightly", *_DATA, "--preset", "fast", "--jobs", "1", "--models", "xgb_joint,linear,meta_learner",
            "--family", "linear", "--calendar", "none", "--out", "{folder}/OUT", *_SET,
        ),
    },
    # Those of networks need Torch. With RMM's pool Torch's steps are not captured as CUDA graphs, without it they are.
    "networks": {
        "networks": (
            "run", *_DATA, "--preset", "fast", "--jobs", "1", "--models", "linear,sequence", "--out", "{folder}/OUT",
            *_SET, "--set=sequence.network=fast", "--set=sequence.length=12", "--set=sequence.epochs=2",
            "--set=sequence.step_rows=256", "--set=labels.horizons=1",
        ),
    },
    "sequence": {
        "sequence": (
            "sequence", *_DATA, "--preset", "fast", "--jobs", "1", "--models", "linear,sequence", "--out",
            "{folder}/OUT", "--skip-plots", "--horizons", "1", "--multiples", "1", "--set=linear.max_iterations=10",
            "--set=sequence.length=12", "--set=sequence.epochs=3", "--set=sequence.step_rows=64",
            "--set=sequence.batch=64", "--set=ml.use_rmm=false",
        ),
    },
    "agent": {
        "agent": ("agent", *_DATA, *agent_run.OPTIONS, "--parallel-candidates", "2", "--jobs", "1", "--out",
                  "{folder}/OUT", "--set=ml.use_rmm=false"),
    },
    "bonds": {
        "bonds": ("bonds", "--market", "simulated", *bond_run.MARKET, *bond_run.OPTIONS, "--jobs", "1", "--out",
                  "{folder}/OUT"),
    },
}  # fmt: skip

# Jobs on bars of one symbol, and how many; the others are on a market of 30 symbols.
ONE_SYMBOL = {"sequence": 600, "agent": agent_run.N_ROWS}
_BEGIN_NS = 1_700_000_100 * 10**9  # 2023-11-14, of those bars
NETWORKS = ("networks", "sequence", "agent")
# More words of commands on a device: the run of the equity job fits all trees there, the night what is placed there.
ON_DEVICE = {"run": _ON_CUDA}


def why_not(name: str) -> str:
    """Why a job cannot run here; empty where it can."""
    if name in NETWORKS:
        return "" if importlib.util.find_spec("torch") else "networks need Torch"
    return "" if sys.version_info >= (3, 12) else "a GPU needs CPython 3.12: 3.11 gets XGBoost 3.2"


def run_on_both(name: str, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Run a job on a CPU and on the stand-in, each in a process; their folders. RuntimeError where one fails."""
    folders = {device: folder / device for device in ("cpu", "cuda")}
    for device, place in folders.items():
        done = run_in_process(name, device, place)
        if done.returncode:
            raise RuntimeError(f"{name} on {device}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return folders


def counted_by(folder: pathlib.Path) -> dict[str, Any]:
    """What a job counted: "commands" by stage, "records" by place, and gpupipe's own "ledger"."""
    counted: dict[str, Any] = json.loads((folder / COUNTED).read_text())
    return counted


def run_in_process(name: str, device: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run a job in a process of its own."""
    command = [sys.executable, "-m", "tests.support.stand_in.jobs", name, device, str(folder)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache")}  # no measured rates there
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def perform(name: str, device: str, folder: pathlib.Path) -> int:
    """Run the commands of a job on a device, in this process; the exit code of the first that fails."""
    if device == "cuda":
        from tests.support.stand_in.install import install

        install()
    from gpupipe.cli.main import main as gpupipe
    from gpupipe.runtime.device import pick
    from tests.support.stand_in.counting import COUNTS

    _write_bars(name, folder)
    counted, records = {}, {}
    for command, words in JOBS[name].items():
        COUNTS.clear()
        more = ON_DEVICE.get(command, ()) if device == "cuda" else ()
        code = gpupipe([word.format(folder=folder) for word in words] + ["--device", device, *more])
        if code:
            return code
        counted[command], records[command] = COUNTS.by_stage(), COUNTS.records()
    ledger = pick(device).ledger.as_dict()
    (folder / COUNTED).write_text(json.dumps({"commands": counted, "ledger": ledger, "records": records}))
    return 0


def _write_bars(name: str, folder: pathlib.Path) -> None:
    import pyarrow.parquet as pq

    from tests.support.agent_market import made_bars
    from tests.support.tiny import tiny_market

    folder.mkdir(parents=True, exist_ok=True)
    panel = tiny_market()
    if name in ONE_SYMBOL:
        panel = made_bars(ONE_SYMBOL[name])
        panel = panel.replace(time_ns=panel.time_ns + _BEGIN_NS)
    pq.write_table(panel.to_arrow(), folder / "bars.parquet")


if __name__ == "__main__":
    sys.exit(perform(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])))
