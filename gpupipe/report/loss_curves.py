"""The section on the training of networks: losses and learning rate by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.report import sequence_charts
from gpupipe.report.formatting import significant, title_of_label
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.sequence_charts import TRAINING, VALIDATION

Row = Mapping[str, Any]
FILE = "history.parquet"  # in OUT, written by the workload
NOT_HEADS = ("symbol", "epoch", "rate", "loss", "validation_loss")  # the other columns are losses of heads
MOST_EPOCHS, MOST_EPOCHS_OF_HEADS = 200, 60  # points of a line
COLUMNS = [("symbol", False), ("epochs", True), ("best epoch", True), ("training loss", True),
           ("validation loss", True), ("first rate", True), ("last rate", True)]  # fmt: skip


def loss_curves(lines: Sequence[Row] | None, n_groups: int = 0) -> Section | None:
    """Losses by epoch with the epoch that is kept, learning rates, and the losses of the heads; None without epochs.

    lines: rows of history.parquet: "symbol", "epoch", "rate", "loss", "validation_loss", and one column for each head;
        NaN and None are gaps.  n_groups: symbols of the run; more than there are in `lines` share networks.
    """
    if not lines:
        return None
    by_symbol: dict[str, list[Row]] = {}
    for line in lines:
        by_symbol.setdefault(line["symbol"], []).append(line)
    best = {symbol: best_epoch(epochs) for symbol, epochs in by_symbol.items()}
    heads = [name for name in lines[0] if name not in NOT_HEADS]
    validated = any(_number(line["validation_loss"]) is not None for line in lines)
    figures = [
        Figure("Loss by epoch; diamond: the epoch whose network is kept", sequence_charts.losses(_points(by_symbol))),
    ]
    rates = [
        {"symbol": symbol, "epoch": line["epoch"], "rate": line["rate"]}
        for symbol, epochs in by_symbol.items() for line in _thinned(epochs, MOST_EPOCHS, best[symbol])
        if line["epoch"] > 0
    ]  # fmt: skip
    if rates:
        figures.append(Figure("Learning rate of each epoch", sequence_charts.rates(rates)))
    if of_heads := _points_of_heads(by_symbol, heads, VALIDATION if validated else TRAINING):
        caption = f"{'Validation' if validated else 'Training'} loss of each head by epoch"
        figures.append(Figure(caption, sequence_charts.head_losses(of_heads)))
    table = [_summary(symbol, epochs, best[symbol]) for symbol, epochs in by_symbol.items()]
    text = [
        "Loss: the mean over the heads by their weights, of a label the log-loss (nats), of the return the squared "
        "error in units of its variance in the training rows. The training loss is of the steps as they came, with "
        "dropout and while the network changed, so it need not lie below the validation loss. The network of the "
        "lowest validation loss is kept, and the learning rate is halved where that loss stops falling.",
        *_sentences(by_symbol, best, n_groups),
    ]
    return Section("Training of the networks", text, [
        *figures, Table("Epochs of each network", COLUMNS, table, digits=4, folded=len(table) > 3),
    ])  # fmt: skip


def best_epoch(epochs: Sequence[Row]) -> int:
    """The epoch whose network is kept: the first of the lowest validation loss, without validation the last.

    epochs: rows of one network, rising.

    >>> losses = (0.7, 0.5, 0.5, float("nan"))
    >>> best_epoch([{"epoch": k + 1, "validation_loss": loss} for k, loss in enumerate(losses)])
    2
    """
    known = [line for line in epochs if _number(line["validation_loss"]) is not None]
    if not known:
        return int(epochs[-1]["epoch"])
    return int(min(known, key=lambda line: line["validation_loss"])["epoch"])


def _sentences(by_symbol: Mapping[str, Sequence[Row]], best: Mapping[str, int], n_groups: int) -> list[str]:
    """How long the networks were trained, and which would have gone on."""
    n = len(by_symbol)
    sentences = []
    begun = [symbol for symbol, epochs in by_symbol.items() if epochs[0]["epoch"] == 0]
    if begun:
        kept = sum(best[symbol] == 0 for symbol in begun)
        sentences.append(
            f"Epoch 0 is the network of the earlier run, before this training. {kept} of {len(begun)} "
            f"{'is' if kept == 1 else 'are'} kept, because no epoch was better."
        )
    last = [symbol for symbol, epochs in by_symbol.items() if 0 < best[symbol] == epochs[-1]["epoch"]]
    if last:
        which = "its" if len(last) == 1 else "their"
        subject = "The network" if n == 1 else f"{len(last)} of {n} networks"
        verb = "is" if len(last) == 1 else "are"
        names = "" if n == 1 else f" ({', '.join(last[:10])}{' and others' if len(last) > 10 else ''})"
        sentences.append(f"{subject}{names} {verb} best in {which} last epoch: more epochs could lower the loss.")
    if n_groups > n:
        sentences.append(
            f"{n_groups} symbols share {'one network' if n == 1 else f'{n} networks'}, shown under the first of them."
        )
    return sentences


def _points(by_symbol: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """Rows of the chart of losses; the diamond is on the validation loss, without validation on the training loss."""
    points = []
    for symbol, epochs in by_symbol.items():
        best = best_epoch(epochs)
        validated = any(_number(line["validation_loss"]) is not None for line in epochs)
        columns = {TRAINING: "loss", VALIDATION: "validation_loss"} if validated else {TRAINING: "loss"}
        for what, column in columns.items():
            points += [
                {"symbol": symbol, "epoch": line["epoch"], "what": what, "loss": _number(line[column]),
                 "best": line["epoch"] == best and what == list(columns)[-1]}
                for line in _thinned(epochs, MOST_EPOCHS, best)
            ]  # fmt: skip
    return points


def _points_of_heads(by_symbol: Mapping[str, Sequence[Row]], heads: Sequence[str], what: str) -> list[dict[str, Any]]:
    """Rows of the chart of heads; heads that a network does not have are left out."""
    return [
        {"symbol": symbol, "head": title_of_label(head), "epoch": line["epoch"], "what": what, "loss": loss,
         "best": line["epoch"] == best}
        for symbol, epochs in by_symbol.items()
        for best in [best_epoch(epochs)]
        for head in heads
        for line in _thinned(epochs, MOST_EPOCHS_OF_HEADS, best)
        if (loss := _number(line[head])) is not None
    ]  # fmt: skip


def _summary(symbol: str, epochs: Sequence[Row], best: int) -> list[Any]:
    kept = next(line for line in epochs if line["epoch"] == best)
    losses = [_number(kept["loss"]), _number(kept["validation_loss"])]
    n = sum(line["epoch"] > 0 for line in epochs)  # epoch 0 is the network that a training went on from
    return [symbol, n, best, *losses, *(significant(line["rate"], 3) for line in (epochs[0], epochs[-1]))]


def _thinned(epochs: Sequence[Row], most: int, best: int) -> list[Row]:
    """At most about `most` epochs, equally spaced, with the best and the last."""
    step = max(1, -(-len(epochs) // most))
    return [line for k, line in enumerate(epochs) if k % step == 0 or line["epoch"] == best or k == len(epochs) - 1]


def _number(value: float | None) -> float | None:
    """None for None, NaN and infinity."""
    return None if value is None or not math.isfinite(value) else float(value)
