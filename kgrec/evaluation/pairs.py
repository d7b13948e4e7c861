"""Sparse yes/no matrices: which user has which item, as compressed sparse rows.

Shapes: R rows, I columns (items), B rows taken, N pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """A set of (row, column) pairs as compressed sparse rows: sorted within a row, each pair once.

    indptr: int64, R + 1 long. indices: int64, the N columns. num_columns: the width.
    """

    indptr: Tensor
    indices: Tensor
    num_columns: int

    @classmethod
    def of(cls, rows_N: object, columns_N: object, num_rows: int, num_columns: int) -> Pairs:
        """Return the set of the given pairs; repeats fall together. ValueError for a row or column out of range.

        >>> Pairs.of([1, 1, 0], [2, 2, 0], num_rows=2, num_columns=3).indices.tolist()
        [0, 2]
        """
        rows, columns = (torch.as_tensor(x, dtype=torch.int64).reshape(-1) for x in (rows_N, columns_N))
        if rows.shape != columns.shape:
            raise ValueError(f"{rows.numel()} rows and {columns.numel()} columns make no pairs")
        for name, values, bound in (("row", rows, num_rows), ("column", columns, num_columns)):
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < bound:
                raise ValueError(f"{name}s must be in [0, {bound}), got {int(values.min())} .. {int(values.max())}")
        keys_N = torch.unique(rows * num_columns + columns, sorted=True)
        return cls._of_sorted(keys_N, num_rows, num_columns)

    @classmethod
    def _of_sorted(cls, keys_N: Tensor, num_rows: int, num_columns: int) -> Pairs:
        width = max(num_columns, 1)
        counts_R = torch.bincount(keys_N // width, minlength=num_rows)
        return cls(torch.cat([counts_R.new_zeros(1), counts_R.cumsum(0)]), keys_N % width, num_columns)

    @classmethod
    def empty(cls, num_rows: int, num_columns: int) -> Pairs:
        """Return no pairs at all, in the given shape."""
        return cls.of([], [], num_rows, num_columns)

    @property
    def num_rows(self) -> int:
        """How many rows there are, empty ones included."""
        return self.indptr.numel() - 1

    def counts(self) -> Tensor:
        """Return how many columns each row has, int64."""
        return self.indptr.diff()

    def rows(self) -> Tensor:
        """Return the row of each pair, int64, beside `indices`."""
        return torch.repeat_interleave(torch.arange(self.num_rows), self.counts())

    def keys(self) -> Tensor:
        """Return row * num_columns + column of each pair, ascending."""
        return self.rows() * self.num_columns + self.indices

    def take(self, rows_B: Tensor) -> Pairs:
        """Return the pairs of these rows, in this order, as rows 0..B-1."""
        counts_B = self.counts()[rows_B]
        indptr_B1 = torch.cat([counts_B.new_zeros(1), counts_B.cumsum(0)])
        shift_B = self.indptr[:-1][rows_B] - indptr_B1[:-1]
        places_N = torch.arange(int(indptr_B1[-1])) + torch.repeat_interleave(shift_B, counts_B)
        return Pairs(indptr_B1, self.indices[places_N], self.num_columns)

    def union(self, other: Pairs) -> Pairs:
        """Return the pairs that are in either; ValueError when the shapes differ."""
        if (self.num_rows, self.num_columns) != (other.num_rows, other.num_columns):
            raise ValueError("the union of pairs needs equal shapes")
        keys_N = torch.unique(torch.cat([self.keys(), other.keys()]), sorted=True)
        return Pairs._of_sorted(keys_N, self.num_rows, self.num_columns)

    def only_columns(self, keep_I: Tensor) -> Pairs:
        """Return the pairs whose column the boolean mask keeps; the shape stays."""
        return Pairs._of_sorted(self.keys()[keep_I[self.indices]], self.num_rows, self.num_columns)
