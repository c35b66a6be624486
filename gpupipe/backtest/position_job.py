"""The job of `gpupipe backtest --positions`: from a file of positions and the data to statistics and tables."""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass, field
from typing import Any

from gpupipe.backtest.job import JSON
from gpupipe.backtest.position_file import read_positions
from gpupipe.backtest.position_measures import position_statistics
from gpupipe.backtest.position_rules import PositionRules
from gpupipe.backtest.position_tables import equity_table, trades_table
from gpupipe.backtest.position_trades import PositionBacktest, backtest_positions
from gpupipe.backtest.tables import parquet, table_of
from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import FORMAT, dump_json, sha256, write_atomic


@dataclass(frozen=True)
class PositionJob:
    """The choices of a backtest of positions.

    file: of positions, see `position_file.read_positions`.  trials: how many paths were tried to get this one; 1 if
    None.  seed: of random entries and intervals.  out: the folder for the tables; nothing is written if None.

        >>> PositionJob("positions.csv").rules.fill
        'open'
    """

    file: str
    rules: PositionRules = field(default_factory=PositionRules)
    trials: int | None = None
    seed: int = 0
    out: str | None = None

    def __post_init__(self) -> None:
        if self.trials is not None and self.trials < 1:
            raise UserError(f"--trials {self.trials}: expected the number of paths that were tried, 1 or more")


def execute(panel: Panel, data_hash: str, job: PositionJob) -> dict[str, Any]:
    """Backtest the positions of a file; the content of statistics.json.

    panel: bars grouped by symbol.  data_hash: of the panel (data.report). In `job.out`, an earlier backtest of
    positions is replaced; equal input gives equal bytes.
    Raises DataError for positions that do not fit the bars, UserError for a folder that holds another backtest.
    """
    folder = None if job.out is None else _folder(job.out)
    rows = read_positions(job.file, panel)
    result = backtest_positions(rows.path, job.rules)
    whole = {
        "format": FORMAT, "data_hash": data_hash, **position_statistics(result, job.seed, job.trials),
        "positions": {"rows": rows.rows, "kept": rows.kept, "sha256": _digest(result)},
    }  # fmt: skip
    if folder is not None:
        _write(folder, whole, result)
    content: dict[str, Any] = json.loads(dump_json(whole))
    return content


def _digest(result: PositionBacktest) -> str:
    return sha256(result.path.panel.device.to_host(result.path.positions).tobytes())


def _folder(out: str) -> pathlib.Path:
    """The folder, which must not hold another backtest."""
    folder = pathlib.Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder} is a file, expected a folder")
    try:
        before = json.loads((folder / JSON).read_bytes())
    except FileNotFoundError:
        return folder
    except ValueError:
        before = None
    if not isinstance(before, dict) or "positions" not in before:
        raise UserError(f"--out {folder} holds a {JSON} that is not of positions: choose another --out")
    return folder


def _write(folder: pathlib.Path, whole: dict[str, Any], result: PositionBacktest) -> None:
    """Write the tables as Parquet, and statistics.json last, with their hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON).unlink(missing_ok=True)  # it must never describe tables of other positions
    tables = {
        "trades": trades_table(result), "equity": equity_table(result), "statistics": table_of(whole["statistics"])
    }  # fmt: skip
    whole["files"] = {}
    for name, table in tables.items():
        content = parquet(table)
        write_atomic(folder / f"{name}.parquet", content)
        whole["files"][f"{name}.parquet"] = sha256(content)
    write_atomic(folder / JSON, dump_json(whole))
