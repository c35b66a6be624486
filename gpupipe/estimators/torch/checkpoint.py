"""Checkpoint: a training as it stood after an epoch, in two files that a kill at any moment leaves readable."""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.store.content_store import sha256, sha256_of, write_atomic

log = logging.getLogger("gpupipe")

SLOTS = ("even", "odd")  # epochs write them in turn: while one is written, the other holds the epoch before
SEAL = "seal"  # the field of a record that holds the checksum of its other fields


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps how it stands: in `folder`, arrays as safetensors and a record as JSON for each slot.

    key: what the training depends on (data, settings, versions), as a text; a checkpoint with another key is ignored.

    The record holds the SHA-256 of the arrays and of itself, and is written after them. So a kill at any moment leaves
    the last epoch or the one before. Files that are damaged, or not there, are ignored with a warning.

        >>> import tempfile
        >>> checkpoint = Checkpoint(pathlib.Path(tempfile.mkdtemp()), "key")
        >>> checkpoint.load() is None
        True
        >>> checkpoint.save(1, {"weights": np.float32([1, 2])}, {"rate": 0.1})  # doctest: +SKIP
        >>> checkpoint.load()  # doctest: +SKIP
        (1, {'weights': array([1., 2.], dtype=float32)}, {'rate': 0.1})
    """

    folder: pathlib.Path
    key: str

    def save(self, epoch: int, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
        """Write how the training stands after an epoch; arrays of numpy's plain types, a record in those of JSON."""
        from safetensors.numpy import save

        slot = SLOTS[epoch % 2]
        content = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
        whole = {"epoch": epoch, "key": self.key, "arrays_sha256": sha256(content), "record": record}
        # No waiting for the disk: what a power failure takes is noticed by its checksum.
        write_atomic(self._arrays(slot), content, sync=False)
        write_atomic(self._record(slot), json.dumps({**whole, SEAL: sha256_of(whole)}).encode(), sync=False)

    def load(self) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
        """(epoch, arrays, record) of the last epoch that is stored whole; None where there is none."""
        stored = [(record["epoch"], slot, record) for slot in SLOTS if (record := self._sound(slot)) is not None]
        for epoch, slot, record in sorted(stored, key=lambda found: found[0], reverse=True):
            try:
                content = self._arrays(slot).read_bytes()
            except OSError as error:
                content = str(error).encode()
            if sha256(content) == record["arrays_sha256"]:
                from safetensors.numpy import load

                return epoch, load(content), record["record"]
            log.warning("%s is damaged: the checkpoint of epoch %d is ignored", self._arrays(slot), epoch)
        return None

    def remove(self) -> None:
        """Remove the files, once the training has ended; the folder too where nothing else is in it."""
        for slot in SLOTS:
            for path in (self._record(slot), self._arrays(slot)):  # no record may outlive its arrays
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".checkpoint_*.tmp"):  # what a kill left half written
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _sound(self, slot: str) -> dict[str, Any] | None:
        """The record of a slot; None where it is not there, damaged, or of another training."""
        path = self._record(slot)
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            record = None
        seal = record.pop(SEAL, None) if isinstance(record, dict) else None
        if record is None or seal != sha256_of(record):
            log.warning("%s is damaged: it is ignored", path)
            return None
        if record["key"] != self.key:
            log.warning("%s is of a training with other data, settings or versions: it is ignored", path)
            return None
        return record

    def _record(self, slot: str) -> pathlib.Path:
        return self.folder / f"checkpoint_{slot}.json"

    def _arrays(self, slot: str) -> pathlib.Path:
        return self.folder / f"checkpoint_{slot}.safetensors"
