"""What `gpupipe agent` prints: the plan, the iterations, the sealed chain, what the optimisations saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpupipe.config import Config

if TYPE_CHECKING:
    from rich.console import Console


def plan_sentence(settings: Config, tests: Sequence[Any]) -> str:
    """What a run will do, in a sentence.  tests: the iterations of its walk-forward."""
    from gpupipe.workloads.agent.settings import trained

    agent = trained(settings).agent
    each = f"{agent.candidates} candidates" if agent.candidates > 1 else "one policy"
    both = ", and the original way on the same bars" if agent.benchmark else ""
    return (
        f"{len(tests)} iterations: {each} of at most {agent.total_timesteps:,} steps on {agent.training_rows:,} bars, "
        f"chosen on {agent.validation_rows:,}, tested on the next {agent.step_size:,}{both}"
    )


def show(to: Console, whole: Mapping[str, Any], out: str) -> None:
    """Print the iterations, the chain of sealed tests beside buy and hold, and the savings."""
    from rich.table import Table

    from gpupipe.cli.summary_tables import SummaryTables
    from gpupipe.cli.tables import names_of
    from gpupipe.report import agent_sealed

    agent = whole["agent"]
    table = Table(box=None, pad_edge=False, title="iterations", title_justify="left", title_style="")
    for heading in ("", "test from", "to"):
        table.add_column(heading, no_wrap=True)
    for heading in ("steps", "stopped", "validation %", "sealed test %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in agent["iterations"]:
        table.add_row(
            row["name"], *(time[:16].replace("T", " ") for time in row["test"]), f"{sum(row['steps']):,}",
            row["stopped"][row["chosen"]], f"{100 * row['validation_score']:+.2f}", f"{100 * row['test_growth']:+.2f}",
        )  # fmt: skip
    to.print(table)
    _show_sealed(to, agent["sealed"])
    to.print(agent_sealed.verdict_sentence(whole))
    for sentence in savings_sentences(agent["optimisations"]):
        to.print(sentence)
    SummaryTables(to, dict(whole), names_of(()), ()).show_time()
    to.print(f"{out}: positions, trades, equity and training (Parquet), iterations/*/policy.safetensors")


def _show_sealed(to: Console, sealed: Mapping[str, Any]) -> None:
    """The statistics of the chain, a row for each path."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="sealed tests, one after the other", title_justify="left",
                  title_style="")  # fmt: skip
    table.add_column("", no_wrap=True)
    for heading in ("return %", "a day, bps", "over buy and hold, bps", "trades", "draw-down %", "p", "DSR", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in sealed["statistics"]:
        table.add_row(
            row["path"].replace("_", " "), _number(row["total_return"], 100, 2), _interval(row, "day_return"),
            _interval(row, "over_hold"), _number(row.get("trades"), 1, 0), _number(row["max_drawdown"], 100, 1),
            _number(row.get("p_value"), 1, 3), _number(row.get("deflated_sharpe"), 1, 2), row.get("skill", ""),
        )  # fmt: skip
    to.print(table)


def savings_sentences(saved: Mapping[str, Any]) -> list[str]:
    """What the optimisations saved, as far as this run can tell."""
    rate, stops = saved["steps_per_second"], saved["convergence_stop"]
    found = [
        f"{saved['steps']:,} steps at {rate:,.0f} a second; adaptive timesteps saved "
        f"{saved['adaptive_timesteps']['steps_saved']:,}, {stops['candidates']} early stops {stops['steps_saved']:,}; "
        f"{saved['warm_start']['iterations']} warm starts"
    ]
    cache = saved["cache_environments"]
    if cache["asked"]:
        found.append(f"Environment cache: {cache['found']} of {cache['asked']} requests found")
    if saved["original"]:
        found.append(f"The original way took {saved['original']['speedup']:.1f} times as long on the same bars")
    return found


def _number(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{scale * value:,.{digits}f}"


def _interval(row: Mapping[str, Any], name: str) -> str:
    """A mean by day in basis points, with its interval."""
    if row.get(name) is None:
        return "-"
    low, high = (row[f"{name}_{end}"] for end in ("low", "high"))
    ends = "" if low is None else f" [{1e4 * low:.1f}, {1e4 * high:.1f}]"
    return f"{1e4 * row[name]:.1f}{ends}"
