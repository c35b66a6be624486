"""The families by name, and the files of their models. A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from gpupipe.workloads.bonds.families.boosting import Boosting
from gpupipe.workloads.bonds.families.contract import Family, Model
from gpupipe.workloads.bonds.families.forest import Forest
from gpupipe.workloads.bonds.families.linear import Linear
from gpupipe.workloads.bonds.families.network import Network
from gpupipe.workloads.bonds.families.stack import StackModel

FAMILIES: Mapping[str, Family] = {family.name: family for family in (Forest(), Boosting(), Network(), Linear())}
MODELS: Mapping[str, type[Model]] = {
    **{family.model.kind: family.model for family in FAMILIES.values()}, StackModel.kind: StackModel
}  # fmt: skip


def load(kind: str, files: Mapping[str, bytes]) -> Model:
    """The model of a kind from its files by suffix."""
    return MODELS[kind].load(files)
