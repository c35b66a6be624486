"""The table of a tuning job's studies."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EXPLANATION = (
    "\nTuned on validation: gain over the class prior in log-loss, in percent, mean of a study's labels. Deflated "
    "is what the trial that is best on one half of the dates gains on the other, over all ways to halve them, "
    "and beside it the preset's own values on the same dates. PBO is the probability of backtest overfitting: how "
    "often that trial comes out in the lower half of all. Skill and improvement are Deflated Sharpe Ratios: the "
    "probability that the best trial is better than the prior, and than the preset, given how many were tried. "
    "An asterisk (*): the best trial's values are used."
)


def show_tuning(to: Console, tuning: dict[str, Any], out: str | os.PathLike[str]) -> None:
    """A table of the studies (trials, the best gain on validation, and beside it what it is worth), and sentences."""
    from gpupipe.cli.plain_console import styled
    from gpupipe.report import sentences

    to.print(EXPLANATION)
    to.print(_study_table(tuning["studies"]))
    for sentence in sentences.skip_sentences(tuning["skipped"]):
        to.print(styled("not tuned", "yellow"), sentence)
    for sentence in _worth_sentences(tuning):
        to.print(sentence)
    to.print(f"In {out}: tuned.toml for gpupipe run --config, tuning.json with all of this, studies.sqlite.")


def _study_table(studies: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    from gpupipe.cli.tables import short_name

    table = Table(header_style="dim", box=None, padding=(0, 1))
    for name in ("family", "sector", "label"):
        table.add_column(name)
    measures = ("preset", "best", "deflated\n(preset)", "PBO", "skill", "improve-\nment")
    for name in ("trials", "pruned", "failed", *measures):
        table.add_column(name, justify="right", no_wrap=True)
    for study in studies:
        trials = study["trials"]
        deflated = f"{_share(study['deflated_gain'])} ({_share(study['preset_gain_by_period'])})"
        table.add_row(
            short_name(study["family"]), study["sector"] or "all", study["label"] or "all",
            *(f"{trials[name]}" for name in ("tried", "pruned", "failed")),
            _share(study["preset_gain"]), _share(study["best_gain"]) + "*" * study["accepted"], deflated,
            *(_share(study[name], 2, 1) for name in ("overfitting", "deflated_sharpe", "deflated_sharpe_over_preset")),
        )  # fmt: skip
    return table


def _worth_sentences(tuning: dict[str, Any]) -> list[str]:
    """What the best trials are worth on dates that did not choose them."""
    sentences, studies = [], tuning["studies"]
    known = [study for study in studies if study["deflated_gain"] is not None]
    better = sum(study["deflated_gain"] > study["preset_gain_by_period"] for study in known)
    if len(known) < len(studies):
        unknown = len(studies) - len(known)
        sentences.append(
            f"Too few validation dates or complete trials to say what the best is worth in {unknown} studies."
        )
    if known:
        count = f"{better} of {len(known)} studies"
        sentences.append(f"Chosen on one half of the dates, the best beats the preset on the other in {count}.")
    if tuning["accept"] != "best":
        sentences.append(
            "Where it does not, or that is not known, the preset's values are kept; --accept best takes the best."
        )
    return sentences


def _share(value: float | None, digits: int = 1, factor: float = 100) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"
