"""Scores that are a history times an items x items matrix of weights, dense or sparse.

Shapes: I items, B lists, N stored weights.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.nn import functional

from kgrec.evaluation.pairs import Pairs

_ALWAYS_DENSE: Final = 4_000  # items up to which weights are always held dense: 64 MB
_PERHAPS_DENSE: Final = 16_000  # items up to which they are where one in 25 is there: 1 GB, and faster to sum
_SPARSE: Final = 25
_ROWS: Final = 256  # of an array that are cut at once


class ItemWeights:
    """A scorer: an item's score is the sum of its weights in the rows of the history's items.

    matrix_II: float32, row = item of the history, column = item scored; a NumPy array or a scipy sparse array.
    most: weights to keep at most where the matrix is too large to be held dense, the largest of each row. once: it is
    asked too few lists for a dense copy to be worth its memory.
    """

    def __init__(self, matrix_II: Any, most: int | None = None, *, once: bool = False) -> None:
        if not scipy.sparse.issparse(matrix_II):
            matrix_II = matrix_II.astype(np.float32, copy=False)
        else:
            matrix_II = _single(scipy.sparse.csr_array(matrix_II))
            items = matrix_II.shape[0]
            full = items <= _PERHAPS_DENSE and matrix_II.nnz * _SPARSE >= items**2
            if items <= _ALWAYS_DENSE or (full and not once):
                matrix_II = matrix_II.toarray()
            elif most is not None and matrix_II.nnz > most:
                matrix_II = largest_of_each_row(matrix_II, most // items)
        self.matrix_II = matrix_II

    def __call__(self, history_BI: Pairs) -> Tensor:
        """Return scores_BI, float32."""
        if scipy.sparse.issparse(self.matrix_II):
            scores_BI = yes_no_matrix(history_BI, np.float32) @ scipy.sparse.csr_array(self.matrix_II)
            return torch.from_numpy(scores_BI.toarray())
        weights_II = torch.from_numpy(self.matrix_II)
        return functional.embedding_bag(history_BI.indices, weights_II, history_BI.indptr[:-1], mode="sum")


def _single(matrix_II: Any) -> Any:
    """Return a sparse matrix in float32, its columns in the order they have: SciPy's `astype` would sort them first."""
    parts = matrix_II.data.astype(np.float32, copy=False), matrix_II.indices, matrix_II.indptr
    return scipy.sparse.csr_array(parts, shape=matrix_II.shape)


def yes_no_matrix(pairs: Pairs, dtype: type[np.floating[Any]] = np.float64) -> Any:
    """Return the pairs as a scipy matrix of ones, compressed by rows."""
    data = np.ones(len(pairs.indices), dtype=dtype)
    shape = (pairs.num_rows, pairs.num_columns)
    whole = np.int32 if max(*shape, len(data)) < np.iinfo(np.int32).max else np.int64
    indices, indptr = pairs.indices.numpy().astype(whole), pairs.indptr.numpy().astype(whole)
    return scipy.sparse.csr_array((data, indices, indptr), shape=shape)


def largest_of_each_row(matrix_II: Any, keep: int) -> Any:
    """Return the matrix as a sparse one with the `keep` weights of largest magnitude of each row, columns ascending.

    Of equals at the border the smaller columns stay.

    >>> largest_of_each_row(np.array([[1.0, -3.0, 2.0], [0.0, 0.0, 5.0]]), 2).toarray().tolist()
    [[0.0, -3.0, 2.0], [0.0, 0.0, 5.0]]
    """
    if not scipy.sparse.issparse(matrix_II) and len(matrix_II):
        blocks = (_compressed(matrix_II[at : at + _ROWS]) for at in range(0, len(matrix_II), _ROWS))
        return scipy.sparse.vstack([largest_of_each_row(one, keep) for one in blocks], format="csr")
    matrix_II = scipy.sparse.csr_array(matrix_II)
    matrix_II.eliminate_zeros()
    matrix_II.sort_indices()
    lengths = np.diff(matrix_II.indptr)
    kept_N = np.ones(len(matrix_II.data), dtype=bool)
    for row in np.flatnonzero(lengths > keep):
        window = slice(matrix_II.indptr[row], matrix_II.indptr[row + 1])
        size_M = np.abs(matrix_II.data[window])
        border = np.partition(size_M, len(size_M) - keep)[len(size_M) - keep]
        kept_N[window] = size_M > border
        at_border = window.start + np.flatnonzero(size_M == border)
        kept_N[at_border[: keep - int(kept_N[window].sum())]] = True
    indptr = np.concatenate([[0], np.minimum(lengths, keep).cumsum()]).astype(matrix_II.indptr.dtype)
    return scipy.sparse.csr_array((matrix_II.data[kept_N], matrix_II.indices[kept_N], indptr), shape=matrix_II.shape)


def _compressed(rows_RI: Any) -> Any:
    """Return some rows of an array as a sparse one, by places of four bytes: SciPy makes pairs of eight first."""
    there_RI = rows_RI != 0
    places_N = np.flatnonzero(there_RI)
    ends = np.concatenate([[0], np.count_nonzero(there_RI, axis=1).cumsum()]).astype(np.int32)
    columns_N = (places_N % rows_RI.shape[1]).astype(np.int32)
    return scipy.sparse.csr_array((rows_RI.ravel()[places_N], columns_N, ends), shape=rows_RI.shape)
