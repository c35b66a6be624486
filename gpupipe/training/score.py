"""What is measured of one sector: its models and the baselines beside them, on validation and on the sealed test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.estimators.baselines import share_table
from gpupipe.evaluation import block_bootstrap, calibration, metrics
from gpupipe.evaluation.block_bootstrap import PRIOR_ALL
from gpupipe.targets.classes import N_CLASSES
from gpupipe.training.groups import Trained, Work

BASELINES = (PRIOR_ALL, "volatility_table_sector", "volatility_table_all", "last_return")


@dataclass(frozen=True)
class Baselines:
    """Class shares, plain or in bins of one column, learned on the training parts.

    prior: float64 (n_labels, 3), of all sectors together.  by_sector: in bins of NATR 14, each sector's own.
    volatility, last_return: in bins of NATR 14 and of the last return, of all sectors together.
    """

    prior: np.ndarray
    by_sector: dict[str, share_table.ShareTable]
    volatility: share_table.ShareTable
    last_return: share_table.ShareTable

    @classmethod
    def learn(cls, work: Work, sectors: Sequence[str]) -> Baselines:
        """Learn from the training rows of `sectors`."""

        def rows_of(name: str) -> dict[str, np.ndarray]:
            to_host = work.device.to_host
            return {s: to_host(getattr(work.datasets[s], name))[work.splits[s].train] for s in sectors}

        natr, returns, y = rows_of("natr"), rows_of("last_return"), rows_of("y")
        return cls(
            class_shares(np.concatenate(list(y.values()))),
            {s: share_table.fit([natr[s]], [y[s]]) for s in sectors},
            share_table.fit(list(natr.values()), list(y.values())),
            share_table.fit(list(returns.values()), list(y.values())),
        )

    def predict(self, work: Work, sector: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Of each baseline, float64 (n_rows, n_labels, 3): all labels of the dataset, for `rows` of the sector."""
        dataset = work.datasets[sector]
        natr, returns = (work.device.to_host(column)[rows] for column in (dataset.natr, dataset.last_return))
        said = (
            np.broadcast_to(self.prior, (len(rows), *self.prior.shape)),
            self.by_sector[sector].predict(natr),
            self.volatility.predict(natr),
            self.last_return.predict(returns),
        )
        return dict(zip(BASELINES, said, strict=True))


def class_shares(y: np.ndarray) -> np.ndarray:
    """float64 (n_labels, 3): of y int8 (n_rows, n_labels), half a row of each class added; -1 left out."""
    counts = np.stack([np.bincount(column[column >= 0], minlength=N_CLASSES) for column in y.T]) + 0.5
    return counts / counts.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Found:
    """One model or baseline of one label: cutoffs of its calls, and its measures by part and name."""

    cutoffs: dict[str, float]
    metrics: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Measured:
    """All measures of one sector, by (label, model), and the sealed-test losses that intervals are drawn from.

    curves: lines of curves.parquet, see `curves.of_model`.
    """

    trained: Trained
    found: dict[tuple[str, str], Found]
    losses: block_bootstrap.Losses
    curves: list[dict[str, Any]]


def measure(work: Work, one: Trained, baselines: Baselines) -> Measured:
    """Measure every model of one sector, and every baseline."""
    dataset, cut = work.datasets[one.sector], work.splits[one.sector]
    y, forward = work.device.to_host(dataset.y), work.device.to_host(dataset.forward_return)
    parts = {"validation": cut.validation, "test": cut.test}
    base = {part: baselines.predict(work, one.sector, rows) for part, rows in parts.items()}
    priors = class_shares(y[cut.train])
    found: dict[tuple[str, str], Found] = {}
    losses: dict[tuple[str, str], np.ndarray] = {}
    counted: list[dict[str, Any]] = []
    for position, label in enumerate(one.labels):
        k = dataset.label_names.index(label)
        returns = forward[:, dataset.horizons.index(dataset.horizon_of_label[k])]
        prior = priors[k]
        said = {f: {"validation": one.validation[f][:, position], "test": one.test[f][:, position]} for f in one.models}
        said |= {name: {part: base[part][name][:, k] for part in parts} for name in BASELINES}
        happened = y[cut.test, k]
        by_prior = np.broadcast_to(prior, (len(happened), N_CLASSES))
        losses[label, block_bootstrap.PRIOR] = metrics.log_losses(by_prior, happened)
        for name, probability in said.items():
            cutoffs = metrics.call_cutoffs(probability["validation"], y[cut.validation, k])
            found[label, name] = Found(cutoffs, {
                part: metrics.measures(probability[part], y[at, k], prior, cutoffs, returns[at])
                for part, at in parts.items()
            })  # fmt: skip
            losses[label, name] = metrics.log_losses(probability["test"], happened)
            counted += calibration.curve_lines(one.sector, label, name, probability["test"], happened)
    return Measured(
        one, found, block_bootstrap.by_time(work.device.to_host(dataset.time_ns)[cut.test], losses), counted
    )


def add_intervals(measured: Sequence[Measured], longest_horizon: int, seed: int) -> block_bootstrap.Resampled:
    """Give every model and baseline the interval of its gain over the prior on the sealed test, and its skill in words.

    They stand among the measures of the test part, as gain_low, gain_high and skill. Returned is what averages over
    sectors need: the same draws of dates for all.
    """
    times = np.concatenate([one.losses.times for one in measured])
    draws = block_bootstrap.draw(times, longest_horizon, seed)
    resampled = block_bootstrap.resample(draws, {one.trained.sector: one.losses for one in measured})
    for one in measured:
        sectors = [one.trained.sector]
        for (label, name), own in one.found.items():
            test = own.metrics["test"]
            drawn = resampled.gain(sectors, label, name)
            low, high = resampled.interval(sectors, test["gain_over_prior"], drawn)
            above = test["gain_over_prior"] - one.found[label, PRIOR_ALL].metrics["test"]["gain_over_prior"]
            above_low, _ = resampled.interval(sectors, above, drawn - resampled.gain(sectors, label, PRIOR_ALL))
            test |= {"gain_low": low, "gain_high": high, "above_prior_all": above, "above_prior_all_low": above_low}
            test["skill"] = block_bootstrap.skill(low, above_low)
    return resampled
