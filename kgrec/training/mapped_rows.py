"""Rows of a matrix on disk, read as a tensor's rows are: what training asks of its features.

Shapes: N rows, F columns, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kgrec.row_files import RowFile

_AT_ONCE = 262_144


class MappedRows:
    """Some rows of a file, in order: [first, stop), or those at `places` (ascending). Whole numbers come as int64."""

    def __init__(self, file: RowFile, first: int, stop: int, places: npt.NDArray[Any] | None = None) -> None:
        self._file, self._first, self._places = file, first, places
        count = stop - first if places is None else len(places)
        self.shape = torch.Size([count, *file.shape[1:]])

    @classmethod
    def where(cls, file: RowFile, chosen_N: npt.NDArray[np.bool_]) -> MappedRows:
        """Return the chosen rows of a file; of a span without gaps nothing is kept but its ends."""
        first = int(chosen_N.argmax()) if len(chosen_N) else 0
        count = int(chosen_N.sum())
        if chosen_N[first : first + count].all():
            return cls(file, first, first + count)
        return cls(file, 0, 0, np.flatnonzero(chosen_N).astype(np.uint32 if len(chosen_N) < 2**32 else np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row_B: Tensor) -> Tensor:
        """Return these rows, (B, F)."""
        rows = row_B.numpy()
        return _tensor(self._file.take(rows + self._first if self._places is None else self._places[rows]))

    def pieces(self) -> Iterator[Tensor]:
        """Yield all rows in order, some at a time."""
        for start in range(0, len(self), _AT_ONCE):
            yield self[torch.arange(start, min(start + _AT_ONCE, len(self)))]

    def whole(self) -> Tensor:
        """Return all rows in memory."""
        return torch.cat([*self.pieces()]) if len(self) else self[torch.arange(0)]


RowsOf: TypeAlias = Tensor | MappedRows
"""What is read by rows: in memory, or from a file."""


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.int64 if np.issubdtype(array.dtype, np.integer) else array.dtype))
