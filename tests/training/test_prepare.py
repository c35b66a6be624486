"""Datasets of all groups from one launch of each kernel, as on a GPU, are those of each group alone, byte for byte."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.data import simulate
from gpupipe.features.formulas import panel_feature
from gpupipe.features.matrix import compute_features
from gpupipe.training.prepare import make_dataset, make_datasets, prepare
from gpupipe.workloads.equity import EQUITY
from gpupipe.workloads.equity.recipe import BASELINE_COLUMNS
from gpupipe.workloads.sequence import SEQUENCE
from tests.support.says_cuda import SaysCuda


def market():
    """Symbols of three sectors in turn, of 200 to 320 bars, some without a price."""
    panel = simulate(n_symbols=9, n_bars=320, seed=3)
    sectors = [("energy", "technology", "utilities")[k % 3] for k in range(panel.n_symbols)]
    close = panel.close.copy()
    close[::97] = np.nan
    keep = np.concatenate([np.arange(320) >= 15 * k for k in range(panel.n_symbols)])
    return panel.replace(sector=sectors, close=close).take(keep)


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for group, dataset in ours.items():
        other = theirs[group]
        for field in dataclasses.fields(dataset):
            one, two = getattr(dataset, field.name), getattr(other, field.name)
            if field.name == "extra":
                assert one.keys() == two.keys()
                for name, column in one.items():
                    np.testing.assert_array_equal(column, two[name], err_msg=f"{group} {name}")
            elif field.name == "windows":
                assert (one is None) == (two is None)
                if one is not None:
                    np.testing.assert_array_equal(one.complete, two.complete)
                    assert (one.n_short, one.n_gaps, one.gap_bars) == (two.n_short, two.n_gaps, two.gap_bars)
            else:
                np.testing.assert_array_equal(one, two, err_msg=f"{group} {field.name}")
        assert dataset.y.flags["F_CONTIGUOUS"] and dataset.X.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(dataset.row_digests, other.row_digests)


@pytest.mark.parametrize(
    ("workload", "group_by", "settings"),
    [
        (EQUITY, "sector", ["features.names=default,rank_of_sector"]),
        (EQUITY, "sector", ["features.names=core", "labels.window=calendar", "training.sample_weight=uniqueness"]),
        (EQUITY, "sector", ["features.names=rsi_14", "labels.horizons=3", "labels.thresholds=0.05"]),
        (SEQUENCE, "symbol", ["labels.multiples=1,2", "split.lookback_rows=30"]),
        (SEQUENCE, "sector", ["features.names=core", "training.sample_weight=uniqueness"]),
    ],
)
def test_of_all_groups_together_and_of_each_alone(workload, group_by, settings, clean_registry):
    @panel_feature("momentum", source="the test")
    def rank_of_sector(panel):
        """a function that compares the symbols it is given"""
        return np.argsort(np.argsort(panel.close)).astype(np.float32)

    panel = market().replace(group_by=group_by)
    chosen = workload.settings("fast", settings=["training.models=linear", *settings])
    together, of_all, _ = make_datasets(workload, panel.by_group(), chosen)
    alone = {group: make_dataset(workload, panel, group, chosen) for group in panel.groups}
    assert_equal(together, {group: dataset for group, (dataset, _, _) in alone.items()})
    assert {of_all} == {one for _, one, _ in alone.values()}
    assert len({id(dataset.X.base) for dataset in together.values()}) == 1


def test_digests_are_of_the_rows_that_a_workload_has_made_of_the_features():
    def doubled(panel, features, labels, group, settings):
        dataset = EQUITY.dataset(panel, features, labels, group, settings)
        return dataclasses.replace(dataset, X=dataset.X * 2)

    twice, settings, panel = dataclasses.replace(EQUITY, dataset=doubled), EQUITY.settings("fast"), market()
    together, _, _ = make_datasets(twice, panel.by_group(), settings)
    assert_equal(together, {group: make_dataset(twice, panel, group, settings)[0] for group in panel.groups})


@pytest.mark.parametrize("names", ["core", "rsi_14,roc_60", "rsi_14"])
def test_columns_of_baselines_are_those_of_the_features(names):
    panel, settings = market(), EQUITY.settings("fast", settings=[f"features.names={names}"])
    for group, dataset in prepare(EQUITY, panel, settings).datasets.items():
        for column, feature in BASELINE_COLUMNS.items():
            expected = compute_features(panel.of_group(group), feature).values[:, 0]
            np.testing.assert_array_equal(dataset.extra[column], expected)


def test_workers_give_every_group_also_on_a_gpu():
    class Workers:
        def dataset(self, group):
            return make_dataset(EQUITY, market(), group, settings)

    settings, panel = EQUITY.settings("fast", settings=["features.names=rsi_14"]), market()
    panel.__dict__["device"] = SaysCuda()
    prepared = prepare(EQUITY, panel, settings, sharded_rows=Workers())
    assert tuple(prepared.datasets) == panel.groups
    assert_equal(prepared.datasets, prepare(EQUITY, market(), settings).datasets)


def test_groups_that_do_not_follow_each_other_are_refused():
    with pytest.raises(ValueError, match="not one after another; by_group"):
        make_datasets(EQUITY, market(), EQUITY.settings("fast"))


def test_rows_of_a_part_say_where_their_windows_end():
    panel = market()
    prepared = prepare(EQUITY, panel, EQUITY.settings("fast"))
    arranged = panel.by_group()
    labels = EQUITY.labels(arranged, EQUITY.settings("fast"))
    for group, rows in arranged.slices_of_groups().items():
        own = panel.of_group(group)
        part = labels.part(rows, own)
        known = (part.y >= 0).all(axis=1)
        shorter = dataclasses.replace(part, decided_bars=np.minimum(part.decided_bars, 1))
        assert not np.array_equal(shorter.weight, part.weight, equal_nan=True)
        assert np.nanmin(shorter.weight) == 1.0
        ends = own.time_ns[part.exit_row.max(axis=1)]
        np.testing.assert_array_equal(prepared.datasets[group].end_time_ns[known], ends[known])
