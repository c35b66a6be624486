"""Tables of `gpupipe sequence`: the presets, and the gain of each symbol and head with its interval."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpupipe.artifacts import summary
from gpupipe.cli.plain_console import styled
from gpupipe.cli.summary_tables import SummaryTables
from gpupipe.cli.tables import figures_table, names_of, print_whole
from gpupipe.estimators.torch.architecture import ARCHITECTURES, Architecture
from gpupipe.estimators.torch.settings import PRESETS
from gpupipe.evaluation import next_return
from gpupipe.evaluation.block_bootstrap import NO_EVENTS, SKILL
from gpupipe.evaluation.next_return import MODEL, REFERENCES, ZERO
from gpupipe.report import position_paths, sentences
from gpupipe.report.formatting import significant
from gpupipe.report.group_words import of_symbols

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.estimators.baselines.contract import Baseline


def preset_rows() -> list[dict[str, Any]]:
    """Each preset as it is in the code: name, network in words, epochs, batch, length, patience, rate and the step's.

    >>> row = preset_rows()[0]
    >>> row["preset"], row["batch"], row["length"], row["network"]
    ('fast', 64, 60, 'Conv1D 32 + BN + pool; GRU 64 -> GRU 32; Dense 32; dropout 0.2')
    """
    return [
        {
            "preset": name,
            "network": network_text(ARCHITECTURES[settings.network]),
            "epochs": settings.epochs,
            "batch": settings.batch,
            "length": settings.length,
            "patience": settings.patience,
            "rate": settings.rate,
            "step_rows": settings.rows_of_step,
            "step_rate": settings.step_rate,
        }
        for name, settings in PRESETS.items()
    ]


def network_text(network: Architecture) -> str:
    """The layers of a network in one line.

    >>> network_text(ARCHITECTURES["legacy"])
    'Conv1D 64 (valid) + pool, Conv1D 128 (valid) + pool; LSTM 100 -> LSTM 50; Dense 50; dropout 0.2'
    """
    convolutions = ", ".join(
        f"Conv1D {layer.channels}{'' if layer.same else ' (valid)'}{' + BN' if layer.normalised else ''}"
        f"{' + pool' if layer.pooled else ''}"
        for layer in network.convolutions
    )
    recurrent = " -> ".join(
        f"{'bidirectional ' if layer.both else ''}{layer.kind.upper()} {layer.size}"
        f"{' + LN' if layer.normalised else ''}"
        for layer in network.recurrent
    )
    dense = " -> ".join(f"Dense {size}" for size in network.dense)
    return "; ".join(filter(None, (convolutions, recurrent, dense, f"dropout {network.dropout:g}")))


def show_presets(to: Console, rows: Sequence[dict[str, Any]]) -> None:
    """The presets as a table, and how a batch is scaled."""
    table = figures_table(("preset",), ("epochs", "batch", "L", "patience", "rate", "step", "its rate"))
    for row in rows:
        table.add_row(
            row["preset"], f"{row['epochs']}", f"{row['batch']}", f"{row['length']}", f"{row['patience']}",
            f"{row['rate']:g}", f"{row['step_rows']:,}", f"{row['step_rate']:.3g}",
        )  # fmt: skip
    print_whole(to, table)
    for row in rows:
        to.print(f"{row['preset']}: {row['network']}")
    to.print(
        "epochs: at most; L: bars of a window; rate: of Adam for steps of `batch` rows; step: the rows of a step as it "
        "is taken, with the rate times the square root of step / batch. --batch-size N takes steps of N rows."
    )


def show(to: Console, whole: dict[str, Any], out: pathlib.Path, baselines: Sequence[Baseline] = ()) -> None:
    """A finished run: the gain of each symbol and head, walk-forward, verdict, what was skipped, time.

    whole: the summary.  baselines: of the workload.
    """
    names = names_of(baselines)
    rows = whole["models"]
    tables = SummaryTables(to, whole, names, names.order({row["model"] for row in rows} - set(names.weak)), "symbol")
    tables.show_windows()
    show_heads(to, whole)
    show_returns(to, whole)
    tables.show_walk_forward()
    for sentence in sentences.verdict_sentences(whole["verdict"], len({row["sector"] for row in rows}), tables.titles):
        to.print(of_symbols(sentence))
    tables.show_end(f"{out}: summary.json and summary.parquet (one row a model), data_report.json, manifest.json")


def show_heads(to: Console, whole: dict[str, Any]) -> None:
    """For each symbol, head and model: loss on the sealed test, that of the reference, the gain with its interval."""
    loss = summary.loss_name(whole)
    drawn = whole["intervals"]
    to.print(
        styled("sealed test", "bold"),
        f": {loss.replace('_', '-')} beside that of the reference (the class prior of the symbol's training rows), and "
        f"the gain in percent with its 95 % interval ({drawn['draws']:,} draws of {drawn['times']} times in blocks of "
        f"{drawn['block']}). Skill: the interval lies above 0, against the priors of the symbol and of all symbols.",
        sep="",
    )
    table = figures_table(("symbol", "head", "model"), ("loss", "reference", "gain %", ""))
    for row in (row for row in whole["models"] if row["kind"] == "model"):
        gain, skill = row.get("test_gain_over_prior"), row.get("test_skill") or ""
        known = gain is not None and gain == gain
        interval = sentences.interval_text(gain, row.get("test_gain_low"), row.get("test_gain_high")) if known else "-"
        style = "bold" if skill == SKILL else "dim"
        table.add_row(
            row["sector"], summary.title_of(row), row["model"], _number(row.get(f"test_{loss}")),
            _number(row.get(f"test_prior_{loss}")), interval, skill if known else NO_EVENTS, style=style,
        )  # fmt: skip
    print_whole(to, table)


def show_returns(to: Console, whole: dict[str, Any]) -> None:
    """For each symbol the gain of the predicted return over its references, errors of prices, and the sentences.

    Nothing for runs without a head of the next bar's return.
    """
    measures: dict[str, dict[str, Any]] = whole.get("returns") or {}
    judged = {symbol: values for symbol, values in measures.items() if values["rows"]}
    origins = (whole.get("walk_forward") or {}).get("origins", ())
    if judged:
        to.print(
            styled("return of the next bar", "bold"),
            ": gain in squared error, in percent, with its 95 % interval, over zero return (the price stays), the last "
            "return again, and the mean return of the training bars. Skill: all three intervals lie above 0. Sign: the "
            "share of bars whose return has the predicted sign. RMSE of the price: of the network, beside that of a "
            "price that stays." + (f" The test bars of {len(origins)} origins together." if origins else ""),
            sep="",
        )
        table = figures_table(("symbol",), ("over zero %", "over last %", "over mean %", "", "sign %", "RMSE", "stays"))
        for symbol, values in judged.items():
            gains = [_gain_text(values["gain"][name]) for name in REFERENCES]
            share, prices = values["sign_share"], values["rmse_price"]
            sign = "-" if share is None or share != share else f"{100 * share:.1f}"
            shown = [significant(prices[name]) for name in (MODEL, ZERO)]
            errors = ("-" if price is None else price.text for price in shown)
            style = "bold" if values["skill"] == SKILL else "dim"
            table.add_row(symbol, *gains, values["skill"], sign, *errors, style=style)
        print_whole(to, table)
    for symbol, values in measures.items():
        to.print(f"{next_return.sentence(symbol, values)}.")
        if values["rows"]:
            to.print(position_paths.sentence(symbol, values["positions"]))


def _gain_text(gain: dict[str, Any]) -> str:
    """A gain in percent with its interval; "-" where it is not known."""
    value, low, high = (gain[name] for name in ("gain", "low", "high"))
    if value is None or value != value:
        return "-"
    text = f"{100 * value:z.2f}"
    return text if low is None or low != low else f"{text} [{100 * low:z.2f}, {100 * high:z.2f}]"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"
