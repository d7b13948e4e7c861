"""Arrays that are larger than memory: written as .npy a few rows after the other, read by rows, never held whole."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
RESIDENT_BYTES: Final = 64_000_000
"""Of a mapped array so much is in memory at a time, about; one that is smaller stays. No result depends on it."""


class RowWriter:
    """A .npy file of a known shape that takes its rows in order; ValueError when they are more or fewer at its end."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._path, self.shape, self.dtype, self._rows = path, shape, np.dtype(dtype), 0
        self._stream: IO[bytes]

    def __enter__(self) -> RowWriter:
        self._stream = self._path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._stream, header)
        return self

    def append(self, rows: Array) -> None:
        """Write rows after those before."""
        if rows.shape[1:] != self.shape[1:]:
            raise ValueError(f"{self._path}: rows of {rows.shape[1:]} in a file of {self.shape[1:]}")
        self._stream.write(np.ascontiguousarray(rows, self.dtype).data if rows.size else b"")
        self._rows += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self._stream.close()
        if kind is None and self._rows != self.shape[0]:
            raise ValueError(f"{self._path}: {self._rows} rows were written instead of {self.shape[0]}")


class RowFile:
    """A .npy file whose rows are read by number; what was read is given back to the system when it gets much.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(Path(folder) / "a.npy", np.arange(6).reshape(3, 2))
    ...     RowFile(Path(folder) / "a.npy").take(np.array([2, 0])).tolist()
    [[4, 5], [0, 1]]
    """

    def __init__(self, path: Path, resident_bytes: int = RESIDENT_BYTES) -> None:
        self._mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        row_bytes = max(1, self._mapped.nbytes // max(1, len(self._mapped)))
        self._most = max(1, resident_bytes // row_bytes)  # rows from which on pages are given back
        self.shape: tuple[int, ...] = self._mapped.shape
        self.dtype: np.dtype[Any] = self._mapped.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: Array) -> Array:
        """Return the rows with these numbers, in this order."""
        if len(self) <= self._most:
            return np.asarray(self._mapped[rows])
        order = np.argsort(rows, kind="stable")
        found, ordered = np.empty((len(rows), *self.shape[1:]), self.dtype), rows[order]
        for low in range(0, len(self), self._most):
            first, stop = np.searchsorted(ordered, [low, low + self._most])
            if first < stop:
                found[order[first:stop]] = self._mapped[ordered[first:stop]]
                self._give_back()
        return found

    def slice(self, first: int, stop: int) -> Array:
        """Return rows that follow each other, a copy."""
        found = np.array(self._mapped[first:stop])
        if len(self) > self._most:
            self._give_back()
        return found

    def _give_back(self) -> None:
        mapping = getattr(self._mapped, "_mmap", None)
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)
