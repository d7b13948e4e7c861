"""The sparse part of a score: weights from the items of a history to other items, as served.

Shapes: I items, B lists, H items of a history, J items that a history reaches, N stored weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from kgrec.evaluation.item_weights import yes_no_matrix
from kgrec.evaluation.pairs import Pairs
from kgrec.model.blocks import BlockWeights

PARTS: Final = ("linear", "kernel")
WEIGHTS: Final = "block_weights"

_ONE_BAG: Final = torch.zeros(1, dtype=torch.int64)

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Neighbours:
    """Item neighbours of up to two kinds, each kind's scores of a history scaled to length 1, and the repeat.

    matrices: by kind, float32 (I, I), row = item of the history, a NumPy array or a scipy sparse array; held as
    `compact` has them. A kind that is not there adds nothing.
    """

    def __init__(self, matrices: Mapping[str, Any], weights: BlockWeights, num_items: int) -> None:
        used = {name: getattr(weights, name) for name in PARTS}
        self.matrices = {name: compact(matrices[name]) for name in PARTS if name in matrices and used[name]}
        self.weights, self.num_items = weights, num_items

    @classmethod
    def read(cls, tensors: Mapping[str, Any]) -> Neighbours:
        """Return what `tensors` of another wrote, from NumPy arrays or torch tensors; nothing where there is none."""
        num_items = len(tensors["item_vectors_ID"])
        if WEIGHTS not in tensors:
            return cls({}, BlockWeights(), num_items)
        weights = BlockWeights.of_tensor(torch.as_tensor(tensors[WEIGHTS]))
        return cls(
            {name: read_rows(tensors, name) for name in PARTS if f"{name}_values" in tensors}, weights, num_items
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return what `read` takes, to be stored beside the vectors."""
        found = {WEIGHTS: self.weights.as_tensor()}
        for name, matrix_II in self.matrices.items():
            found |= {part: torch.from_numpy(array) for part, array in stored_rows(matrix_II, name).items()}
        return found

    def scores(self, history_BI: Pairs, onto_BI: Floats | None = None) -> Floats:
        """Return the weighted sum of all parts for these histories, (B, I). onto_BI: to what it is added; it stays."""
        shape = (history_BI.num_rows, self.num_items)
        total_BI = np.zeros(shape, dtype=np.float32) if onto_BI is None else onto_BI
        had_BI = yes_no_matrix(history_BI, np.float32)
        for name, matrix_II in self.matrices.items():
            weight = getattr(self.weights, name)
            if scipy.sparse.issparse(matrix_II):
                total_BI = unit_rows(had_BI @ matrix_II, weight) + total_BI
            else:
                total_BI = _unit_sums(history_BI, torch.from_numpy(matrix_II), weight) + total_BI
        if self.weights.repeat:
            total_BI = had_BI * np.float32(self.weights.repeat) + total_BI
        return total_BI

    def of_one(self, history_H: Rows) -> Floats:
        """Return the weighted sum of all parts for one history, (I,): a row of `scores`, quicker."""
        total_I, rows_H = np.zeros(self.num_items, dtype=np.float32), np.unique(history_H)
        for name in self.matrices:
            sum_I = self._sum_of_rows(name, rows_H)
            if (length := np.sqrt(sum_I @ sum_I)) > 0:
                total_I += sum_I * (np.float32(1.0) / length) * np.float32(getattr(self.weights, name))
        if self.weights.repeat:
            total_I[rows_H] += np.float32(self.weights.repeat)
        return total_I

    def _sum_of_rows(self, name: str, rows_H: Rows) -> Floats:
        matrix_II = self.matrices[name]
        if not scipy.sparse.issparse(matrix_II):
            return _sum_of_dense_rows(torch.from_numpy(matrix_II), rows_H)
        windows = [slice(matrix_II.indptr[row], matrix_II.indptr[row + 1]) for row in rows_H]
        items_N = np.concatenate([matrix_II.indices[one] for one in windows] or [np.empty(0, np.int64)])
        values_N = np.concatenate([matrix_II.data[one] for one in windows] or [np.empty(0, np.float32)])
        return np.bincount(items_N, values_N, minlength=self.num_items).astype(np.float32)

    def parts(self, history_H: Rows, item_row: int) -> dict[str, float]:
        """Return what each part adds to the score of one item, for an explanation; absent parts are left out."""
        history_BI = Pairs.of(np.zeros(len(history_H), dtype=np.int64), history_H.copy(), 1, self.num_items)
        found = {}
        for name, matrix_II in self.matrices.items():
            row_1I = unit_rows(yes_no_matrix(history_BI, np.float32) @ matrix_II)
            found[name] = float(row_1I[[0], [item_row]][0]) * getattr(self.weights, name)
        if self.weights.repeat:
            found["repeat"] = self.weights.repeat * float(np.isin(item_row, history_H))
        return found

    def contributions(self, history_H: Rows, items_K: Rows) -> dict[str, Floats]:
        """Return what each item of the history adds to each item's score, (H, K), by part; they sum to `parts`.

        history_H: each row once.
        """
        history_BI = Pairs.of(np.zeros(len(history_H), dtype=np.int64), history_H.copy(), 1, self.num_items)
        found = {}
        for name, matrix_II in self.matrices.items():
            raw_1I = scipy.sparse.csr_array(yes_no_matrix(history_BI, np.float32) @ matrix_II)
            length = float(np.sqrt(raw_1I.multiply(raw_1I).sum()))
            own_HK = matrix_II[history_H][:, items_K]
            own_HK = own_HK.toarray() if scipy.sparse.issparse(own_HK) else own_HK
            found[name] = (own_HK * (getattr(self.weights, name) / (length or 1.0))).astype(np.float32)
        if self.weights.repeat:
            found["repeat"] = np.float32(self.weights.repeat) * (history_H[:, None] == items_K).astype(np.float32)
        return found


def compact(matrix_II: Any) -> Any:
    """Return weights of items as an array where at least half are there, which takes no more memory and is far quicker.

    Else sparse, by rows, with rows in four bytes where they fit.
    """
    if not scipy.sparse.issparse(matrix_II):
        return matrix_II
    if 2 * matrix_II.nnz >= matrix_II.shape[0] * matrix_II.shape[1]:
        return matrix_II.toarray()
    whole = np.int32 if max(matrix_II.nnz, *matrix_II.shape) < np.iinfo(np.int32).max else np.int64
    rows = matrix_II.indices.astype(whole, copy=False), matrix_II.indptr.astype(whole, copy=False)
    return scipy.sparse.csr_array((matrix_II.data, *rows), shape=matrix_II.shape)


def stored_rows(matrix_II: Any, name: str) -> dict[str, Any]:
    """Return a `compact` matrix as arrays by name, as `read_rows` takes them: its values and, if sparse, their places.

    NAME_values: (I, I) or (N,) float32; NAME_items: (N,) int32 columns; NAME_ends: (I,) int64, where each row ends.
    """
    values = f"{name}_values"
    if not scipy.sparse.issparse(matrix_II):
        return {values: np.ascontiguousarray(matrix_II, dtype=np.float32)}
    return {values: matrix_II.data.astype(np.float32, copy=False),
            f"{name}_items": matrix_II.indices.astype(np.int32, copy=False),
            f"{name}_ends": matrix_II.indptr[1:].astype(np.int64)}  # fmt: skip


def read_rows(arrays: Mapping[str, Any], name: str) -> Any:
    """Return the weights that `stored_rows` gave, from NumPy arrays or torch tensors."""
    values = np.asarray(arrays[f"{name}_values"])
    if values.ndim == 2:
        return values
    items, ends = np.asarray(arrays[f"{name}_items"]), np.asarray(arrays[f"{name}_ends"])
    return scipy.sparse.csr_array((values, items, np.concatenate([[0], ends])), shape=(len(ends), len(ends)))


def _sum_of_dense_rows(matrix_II: Tensor, rows_H: Rows) -> Floats:
    """Return the sum of some rows, added one after the other, without a copy of them between."""
    total_1I = torch.nn.functional.embedding_bag(torch.from_numpy(rows_H), matrix_II, _ONE_BAG, mode="sum")
    found: Floats = total_1I.numpy()[0]
    return found


def _unit_sums(history_BI: Pairs, matrix_II: Tensor, length: float) -> Floats:
    """Return `unit_rows` of the sums of each history's rows of a dense matrix."""
    ends_B = history_BI.indptr[:-1]
    sums_BI = torch.nn.functional.embedding_bag(history_BI.indices, matrix_II, ends_B, mode="sum")
    norm_B1 = sums_BI.norm(dim=1, keepdim=True)
    found: Floats = (sums_BI * torch.where(norm_B1 > 0, length / norm_B1, 1.0)).numpy()
    return found


def unit_rows(scores_BI: Any, length: float = 1.0) -> Any:
    """Return the sparse rows scaled to one length; a row of zeros stays.

    >>> unit_rows(scipy.sparse.csr_array(np.array([[0.0, 4.0], [0.0, 0.0]]))).toarray().tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    found = scipy.sparse.csr_array(scores_BI)
    count_B = np.diff(found.indptr)
    filled = np.flatnonzero(count_B)
    scale_B = np.ones(len(count_B), dtype=found.dtype)
    if len(filled):
        squares = np.add.reduceat(np.square(found.data), found.indptr[filled])
        scale_B[filled] = np.where(squares > 0, length / np.sqrt(np.where(squares > 0, squares, 1.0)), 1.0)
    return scipy.sparse.csr_array((found.data * np.repeat(scale_B, count_B), found.indices, found.indptr), found.shape)
