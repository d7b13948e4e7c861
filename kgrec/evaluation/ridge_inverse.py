"""The inverse of a sparse co-occurrence matrix with a ridge, what is sparse in it taken out first.

Shapes: I items, S set-aside items (no two of them were had together), C items of the core, which is the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

_DOUBLE_ITEMS: Final = 6_000  # a core of up to so many is inverted in float64
_ROWS: Final = 256  # of the weights that are put together at once
_FEW: Final = 0.01  # an item that was had together with more of the others than this stays in the core


class RidgeInverse:
    """Inverts G + penalty * 1 for any penalty, G = R'R the items' counts together, given once as a sparse matrix.

    Items that were had with few others and not with each other are eliminated by hand: their block is a diagonal, so
    the rest, the core, has a Schur complement that costs a sparse product, and only the core is inverted densely (by
    Cholesky). The result is the inverse itself, no approximation. Items that were had with no other have off-diagonals
    of zero. Of a log where most items are rare the core is less than half, and its cube an eighth.
    """

    def __init__(self, gram_II: Any) -> None:
        gram_II = scipy.sparse.csr_array(gram_II)
        self._items = gram_II.shape[0]
        self._diagonal_I = gram_II.diagonal().astype(np.float64)
        degree_I = np.diff(gram_II.indptr) - (self._diagonal_I > 0)
        aside_I = _set_aside(gram_II, degree_I, max(1, int(_FEW * self._items)))
        self.core_C = np.flatnonzero(~aside_I & (degree_I > 0))
        self.aside_S = np.flatnonzero(aside_I)
        between = gram_II[self.core_C]
        self._core_CC = between[:, self.core_C].toarray()
        self._links_CS = scipy.sparse.csr_array(between[:, self.aside_S])

    def weights(self, penalty: float) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return -P / diag(P) with an empty diagonal, P = (G + penalty * 1)^-1: float32 (I, I)."""
        aside_S = self._diagonal_I[self.aside_S] + penalty
        damped_CS = scipy.sparse.csr_array(self._links_CS @ scipy.sparse.diags_array(1.0 / aside_S))
        schur_CC = (damped_CS @ self._links_CS.T).toarray()
        np.subtract(self._core_CC, schur_CC, out=schur_CC)
        schur_CC[np.diag_indices_from(schur_CC)] += penalty
        core_CC = _inverse(schur_CC)
        damped_SC = scipy.sparse.csr_array(damped_CS.T.astype(core_CC.dtype))
        cross_SC = -(damped_SC @ core_CC)  # the rows of P that lead from an item set aside to the core
        aside_SS = -(damped_SC @ cross_SC.T)
        diagonal_S = 1.0 / aside_S + aside_SS.diagonal()
        diagonal_C = core_CC.diagonal().copy()
        found_II = np.zeros((self._items, self._items), dtype=np.float32)
        _put(found_II, self.core_C, ((self.core_C, core_CC, diagonal_C), (self.aside_S, cross_SC.T, diagonal_S)))
        _put(found_II, self.aside_S, ((self.core_C, cross_SC, diagonal_C), (self.aside_S, aside_SS, diagonal_S)))
        np.fill_diagonal(found_II, 0.0)
        return found_II


def _put(found_II: Any, rows_R: Any, parts: Sequence[tuple[Any, Any, Any]]) -> None:
    """Write -part / diagonal into some rows, a few at a time: a large table once more costs more than the division.

    parts: columns, the block of these rows and columns, the diagonal of the columns.
    """
    found = torch.from_numpy(found_II)
    for at in range(0, len(rows_R), _ROWS):
        rows = torch.from_numpy(rows_R[at : at + _ROWS])
        wide = torch.zeros((len(rows), len(found)))
        for columns, part, diagonal in parts:
            scaled = torch.from_numpy(part[at : at + _ROWS]) / -torch.from_numpy(diagonal)
            wide.index_copy_(1, torch.from_numpy(columns), scaled.float())
        found.index_copy_(0, rows, wide)


def _inverse(matrix_CC: Any) -> Any:
    """Return the inverse of a symmetric positive definite matrix, in whose place it is computed."""
    dtype = torch.float64 if len(matrix_CC) <= _DOUBLE_ITEMS else torch.float32
    matrix: Tensor = torch.from_numpy(matrix_CC).to(dtype)
    lower = torch.linalg.cholesky(matrix, out=matrix)
    return torch.cholesky_inverse(lower, out=lower).numpy()


def _set_aside(gram_II: Any, degree_I: Any, most: int) -> Any:
    """Return which items are set aside: greedily those with fewest others, none beside another of them. (I,)"""
    aside_I, beside_I = np.zeros(len(degree_I), dtype=bool), np.zeros(len(degree_I), dtype=bool)
    order = np.argsort(degree_I, kind="stable")
    for item in order[(degree_I[order] > 0) & (degree_I[order] <= most)]:
        if not beside_I[item]:
            aside_I[item] = True
            beside_I[gram_II.indices[gram_II.indptr[item] : gram_II.indptr[item + 1]]] = True
    return aside_I
