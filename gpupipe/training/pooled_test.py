"""PooledTest: the sealed-test rows of all groups together, for measures that compare symbols across groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.dataset.dataset import Dataset
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import GroupModels


@dataclass(frozen=True)
class PooledTest:
    """The sealed-test rows of the groups that have one label, and what their models predict.

    label: its name.  column: its position in the target.  members: (dataset, rows of its sealed test, models), of each
    group.  time_ns: int64 (n,), of all rows, group after group.  symbol, group: int64 (n,), numbers.
    volatility: name of the extra column that says how volatile a row is; "" for none.

    `pooled_tests` makes them.

        >>> dataset, split, models = example()
        >>> test = PooledTest.of("label", [(dataset, split, models)])
        >>> test.predictions("linear").shape, test.models, test.symbol.tolist()
        ((3, 3), ('linear',), [0, 1, 1])
    """

    label: str
    column: int
    members: tuple[tuple[Dataset, np.ndarray, GroupModels], ...]
    time_ns: np.ndarray
    symbol: np.ndarray
    group: np.ndarray
    volatility: str = ""

    @classmethod
    def of(
        cls, label: str, members: Sequence[tuple[Dataset, np.ndarray, GroupModels]], volatility: str = ""
    ) -> PooledTest:
        """The pooled rows of these groups, all of which have the label."""
        time_ns, symbol, group, n_symbols = [], [], [], 0
        for k, (dataset, rows, _) in enumerate(members):
            offsets = dataset.device.to_host(dataset.offsets)
            time_ns.append(dataset.device.to_host(dataset.time_ns)[rows])
            symbol.append(n_symbols + np.searchsorted(offsets, rows, side="right") - 1)
            group.append(np.full(len(rows), k))
            n_symbols += len(offsets) - 1
        column = members[0][0].target.names.index(label)
        times, symbols, groups = (np.concatenate(parts) for parts in (time_ns, symbol, group))
        return cls(label, column, tuple(members), times, symbols, groups, volatility)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that all groups have."""
        names = [set(models.test) for _, _, models in self.members]
        return tuple(name for name in self.members[0][2].test if all(name in of_group for of_group in names))

    def predictions(self, model: str) -> np.ndarray:
        """float32 (n, n_outputs): what a model predicts for the label."""
        return self.by_group(lambda dataset, rows, models: models.test[model][:, models.labels.index(self.label)])

    def column_of(self, name: str) -> np.ndarray | None:
        """(n,): an extra column of the datasets; None where a group lacks it."""
        if not name or any(name not in dataset.extra for dataset, _, _ in self.members):
            return None
        return self.by_group(lambda dataset, rows, models: dataset.device.to_host(dataset.extra[name])[rows])

    def y(self) -> np.ndarray:
        """(n,): the values of the label."""
        return self.by_group(lambda dataset, rows, models: dataset.device.to_host(dataset.y)[rows, self.column])

    def by_group(self, values: Callable[[Dataset, np.ndarray, GroupModels], Any]) -> np.ndarray:
        """Concatenate what a function returns for the dataset, test rows and models of each group."""
        return np.concatenate([values(*member) for member in self.members])


def pooled_tests(context: TrainingContext, trained: Sequence[GroupModels]) -> list[PooledTest]:
    """The pooled sealed test of each label that any group has, in the order of the target."""
    members = [(context.datasets[models.group], context.splits[models.group].test, models) for models in trained]
    names = context.datasets[trained[0].group].target.names if trained else ()
    by_label = {name: [member for member in members if name in member[2].labels] for name in names}
    volatility = volatility_column(context)
    return [PooledTest.of(name, of_label, volatility) for name, of_label in by_label.items() if of_label]


def volatility_column(context: TrainingContext) -> str:
    """The extra column that says how volatile a row is (`Recipe.volatility`); "" where nothing is traded."""
    return context.trades.volatility if context.trades is not None else ""


def training_volatility(context: TrainingContext, trained: Sequence[GroupModels]) -> tuple[np.ndarray, np.ndarray]:
    """(time_ns, volatility) of the training rows of all groups; both empty where a group has no such column."""
    name = volatility_column(context)
    columns: list[list[np.ndarray]] = [[np.zeros(0, np.int64), np.zeros(0)]]
    for models in trained:
        dataset, rows = context.datasets[models.group], context.splits[models.group].train
        if name not in dataset.extra:
            return np.zeros(0, np.int64), np.zeros(0)
        columns.append([dataset.device.to_host(values)[rows] for values in (dataset.time_ns, dataset.extra[name])])
    time_ns, volatility = (np.concatenate([pair[k] for pair in columns]) for k in (0, 1))
    return time_ns, volatility


def example() -> tuple[Dataset, np.ndarray, GroupModels]:
    """A dataset of two symbols, its three test rows and a model: for the examples of docstrings."""
    from gpupipe.targets.target import Target

    target = Target(("label",), "classes", (1,), ("SELL", "HOLD", "BUY"))
    dataset = Dataset(
        "energy", np.zeros((5, 1), np.float32), ("x",), np.array([[0], [2], [1], [1], [2]], np.int8), target,
        np.array([0, 1, 0, 1, 2]), np.array([1, 2, 1, 2, 3]), np.ones(5, bool), np.ones(5, bool), np.array([0, 2, 5]),
        extra={"natr": np.arange(5, dtype=np.float32)},
    )  # fmt: skip
    rows = np.array([1, 3, 4])
    predictions = {"linear": np.full((3, 1, 3), 1 / 3, np.float32)}
    return dataset, rows, GroupModels("energy", ("label",), {}, {}, predictions, {})
