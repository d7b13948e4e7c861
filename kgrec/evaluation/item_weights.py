"""Scores that are a history times an items x items matrix of weights, dense or sparse.

Shapes: I items, B lists, N stored weights.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from kgrec.evaluation.pairs import Pairs

_DENSE_WEIGHTS: Final = 4_000  # items up to which a sparse matrix of weights is multiplied as a dense one: 64 MB


class ItemWeights:
    """A scorer: an item's score is the sum of its weights in the rows of the history's items.

    matrix_II: float32, row = item of the history, column = item scored; a NumPy array or a scipy sparse array.
    """

    def __init__(self, matrix_II: Any) -> None:
        matrix_II = matrix_II.astype(np.float32)
        if scipy.sparse.issparse(matrix_II):
            dense = matrix_II.shape[0] <= _DENSE_WEIGHTS
            matrix_II = matrix_II.toarray() if dense else scipy.sparse.csr_array(matrix_II)
        self.matrix_II = matrix_II

    def __call__(self, history_BI: Pairs) -> Tensor:
        """Return scores_BI, float32."""
        scores_BI = yes_no_matrix(history_BI, np.float32) @ self.matrix_II
        return torch.from_numpy(scores_BI.toarray() if scipy.sparse.issparse(scores_BI) else scores_BI)


def yes_no_matrix(pairs: Pairs, dtype: type[np.floating[Any]] = np.float64) -> Any:
    """Return the pairs as a scipy matrix of ones, compressed by rows."""
    data = np.ones(len(pairs.indices), dtype=dtype)
    shape = (pairs.num_rows, pairs.num_columns)
    return scipy.sparse.csr_array((data, pairs.indices.numpy(), pairs.indptr.numpy()), shape=shape)


def largest_of_each_row(matrix_II: Any, keep: int) -> Any:
    """Return the matrix as a sparse one with the `keep` weights of largest magnitude of each row, columns ascending.

    >>> largest_of_each_row(np.array([[1.0, -3.0, 2.0], [0.0, 0.0, 5.0]]), 2).toarray().tolist()
    [[0.0, -3.0, 2.0], [0.0, 0.0, 5.0]]
    """
    matrix_II = scipy.sparse.csr_array(matrix_II)
    matrix_II.eliminate_zeros()
    matrix_II.sort_indices()
    lengths = np.diff(matrix_II.indptr)
    kept_N = np.ones(len(matrix_II.data), dtype=bool)
    for row in np.flatnonzero(lengths > keep):
        window = slice(matrix_II.indptr[row], matrix_II.indptr[row + 1])
        order = np.argsort(-np.abs(matrix_II.data[window]), kind="stable")
        kept_N[window.start + order[keep:]] = False
    indptr = np.concatenate([[0], np.minimum(lengths, keep).cumsum()])
    return scipy.sparse.csr_array((matrix_II.data[kept_N], matrix_II.indices[kept_N], indptr), shape=matrix_II.shape)
