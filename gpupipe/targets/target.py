"""Target: what estimators predict, as a value that every layer above reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

KINDS = ("classes", "value", "position")
# Path separators, control characters, a first dot, and what would be read as an encoded character.
_NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f\x7f]|^\.|%(?=[0-9A-Fa-f]{2})")


def folder_name(group: str) -> str:
    """A group's name as the name of a file or folder: what systems do not allow there is percent-encoded.

    >>> folder_name("real_estate"), folder_name("BRK.B"), folder_name("BTC/USD")
    ('real_estate', 'BRK.B', 'BTC%2FUSD')
    """
    return _NOT_IN_NAMES.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), group)


@dataclass(frozen=True)
class Target:
    """What is predicted for each row: one or more columns of y, all of one kind.

    names: of the columns of y.
    kind: "classes" (y int8, -1 where not known), "value" (y float32, NaN where not known) or "position" (no y: the
        estimator chooses a position and is judged by what it earns).
    horizon_rows: for each column, how many rows of the same symbol after the row its value depends on, at most.
    class_names: of kind "classes", in the order of their numbers in y; empty otherwise.
    loss: the loss that is reported, "log_loss", "squared_error" or "none"; see `gpupipe.evaluation.losses`.
    reference: what a model has to be better than: "class_prior" or "last_value"; gain = 1 - loss / loss(reference).
    parameters: for each column, what defines it ({"horizon": 5, "threshold": 0.1}); published with its models.
    folders: for each column, where its models are published below OUT; "{group}" stands for the group's name.

    Raises ValueError where the lengths differ or the kind is not known.

        >>> target = Target(("up_5",), "classes", (5,), ("down", "up"), folders=("up/{group}",))
        >>> target.n_outputs, target.folder(0, "energy")
        (2, 'up/energy')
    """

    names: tuple[str, ...]
    kind: str
    horizon_rows: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    loss: str = "log_loss"
    reference: str = "class_prior"
    parameters: tuple[Mapping[str, Any], ...] = ()
    folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, expected {', '.join(KINDS)}")
        if (self.kind == "classes") != (self.n_classes >= 2):
            raise ValueError(
                f"{self.n_classes} class_names for kind {self.kind!r}, expected 2 or more for classes alone"
            )
        for name in ("horizon_rows", "parameters", "folders"):
            values = getattr(self, name)
            if (values or name == "horizon_rows") and len(values) != len(self.names):
                raise ValueError(f"{name} has {len(values)} entries, expected {len(self.names)}: one for each of names")

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for other kinds."""
        return len(self.class_names)

    @property
    def n_outputs(self) -> int:
        """Numbers that a model predicts for one row and column: a probability for each class, or one value."""
        return self.n_classes or 1

    @property
    def y_dtype(self) -> str:
        """The dtype of y."""
        return "int8" if self.kind == "classes" else "float32"

    def folder(self, column: int, group: str) -> str:
        """Where the models of a column and a group are published, relative to OUT."""
        return self.folders[column].format(group=folder_name(group))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Target:
        """The target of `as_dict`, also after JSON has made lists of its tuples."""
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in plain.items()}
        return cls(**values)

    def take(self, columns: Sequence[int]) -> Target:
        """The target with some of its columns, by position."""

        def some(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[k] for k in columns) if values else ()

        return replace(
            self,
            names=some(self.names),
            horizon_rows=some(self.horizon_rows),
            parameters=some(self.parameters),
            folders=some(self.folders),
        )
