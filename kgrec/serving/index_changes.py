"""What came and went since an index was built: items by their stable rows, without building it again.

Axes: R removed items, A added items, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
CHANGES_FILE: Final = "index_changes.safetensors"


@dataclass(frozen=True)
class IndexChanges:
    """Item rows that are gone (growing), and rows (growing) with the vectors that they have now.

    An item that is added stands with its new vector alone, whether the index had it or not.
    """

    removed_R: Rows
    added_A: Rows
    vectors_AD: Floats

    @classmethod
    def none(cls, dimensions: int) -> IndexChanges:
        """Return no changes."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, dimensions), np.float32))

    def remove(self, rows: Rows) -> IndexChanges:
        """Return the changes with these rows gone; unknown ones may be named."""
        keep = ~np.isin(self.added_A, rows)
        return IndexChanges(np.union1d(self.removed_R, rows), self.added_A[keep], self.vectors_AD[keep])

    def add(self, rows: Rows, vectors_ND: Floats) -> IndexChanges:
        """Return the changes with these rows there, each once, with their vectors.

        >>> changes = IndexChanges.none(1).add(np.array([7, 3]), np.array([[0.5], [1.0]], np.float32))
        >>> changes.remove(np.array([7])).added_A.tolist()
        [3]
        """
        if len(np.unique(rows)) < len(rows):
            raise ValueError("a row is added twice")
        keep = ~np.isin(self.added_A, rows)
        together = np.concatenate([self.added_A[keep], rows]).astype(np.int64)
        vectors = np.concatenate([self.vectors_AD[keep], vectors_ND]).astype(np.float32)
        order = np.argsort(together)
        return IndexChanges(np.setdiff1d(self.removed_R, rows), together[order], vectors[order])

    def save(self, folder: Path) -> None:
        """Write the changes into a folder."""
        parts = {"removed_R": self.removed_R, "added_A": self.added_A, "vectors_AD": self.vectors_AD}
        save_file({name: np.ascontiguousarray(part) for name, part in parts.items()}, folder / CHANGES_FILE)

    @classmethod
    def load(cls, folder: Path) -> IndexChanges:
        """Read what `save` wrote."""
        return cls(**load_file(folder / CHANGES_FILE))
