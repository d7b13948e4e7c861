"""The exact best k of rows of scores, ties broken by column: what `torch.topk` leaves open is settled here.

Shapes: B rows, I columns (items), K places, P places and the next one, T rows with equal scores.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

NO_ITEM: Final = -1
_NEVER: Final = float("-inf")


def best_of(scores_BI: Tensor, k: int) -> Tensor:
    """Return the columns of each row's k best scores, best first, ties by the smaller column: int64 top_BK.

    A score of minus infinity is never chosen; what stays empty is -1. ValueError when a score is NaN. All that follows
    the selection itself is small, so NumPy does it, without waking any thread.

    >>> best_of(torch.tensor([[1.0, 2.0, 2.0, float("-inf")]]), k=4).tolist()
    [[1, 2, 0, -1]]
    """
    num_users, num_items = scores_BI.shape
    places = min(k, num_items)
    values, items = scores_BI.topk(min(k + 1, num_items), dim=1)
    values_BP, items_BP = (values if values.itemsize >= 4 else values.float()).numpy(), items.numpy()
    if np.isnan(values_BP[:, :1]).any():  # topk holds NaN for the greatest of all, so one would come first
        raise ValueError("a score is NaN")
    never_BP = values_BP == _NEVER
    tied_T = np.flatnonzero(((values_BP[:, 1:] == values_BP[:, :-1]) & ~never_BP[:, 1:]).any(axis=1))
    if len(tied_T):
        items_BP[tied_T] = _by_value_and_item(scores_BI, values_BP[tied_T], items_BP[tied_T], tied_T, k)
    top_BK = np.full((num_users, k), NO_ITEM, dtype=np.int64)
    top_BK[:, :places] = np.where(never_BP[:, :places], NO_ITEM, items_BP[:, :places])
    return torch.from_numpy(top_BK)


def places_of(scores_AP: Tensor, wanted_N2: Tensor, k: int) -> Tensor:
    """Return whether each of a row's k best places holds a wanted column, ties as in `best_of`: bool (A, K).

    wanted_N2: rows and columns, each once. Only the wanted are put in order, which is far less than a selection where
    they are few and the rows short. ValueError when a score is NaN.

    >>> places_of(torch.tensor([[1.0, 2.0, 2.0, 0.5]]), torch.tensor([[0, 2], [0, 3]]), k=3).tolist()
    [[False, True, False]]
    """
    scores, (row_N, column_N) = scores_AP.numpy(), wanted_N2.numpy().T
    places = min(k, scores.shape[1])
    best_AK = np.partition(scores, scores.shape[1] - places, axis=1)[:, scores.shape[1] - places :]
    if np.isnan(best_AK).any():  # NaN is held for the greatest of all
        raise ValueError("a score is NaN")
    own_N = scores[row_N, column_N]
    (near,) = np.nonzero((own_N >= best_AK[row_N, 0]) & (own_N > _NEVER))
    own_M1, best_MK = own_N[near, None], best_AK[row_N[near]]
    ahead_M = (best_MK > own_M1).sum(axis=1)
    equal = np.flatnonzero(((best_MK == own_M1).sum(axis=1) > 1) | (own_M1[:, 0] == best_MK[:, 0]))
    before_EP = np.arange(scores.shape[1]) < column_N[near][equal, None]
    ahead_M[equal] += (before_EP & (scores[row_N[near][equal]] == own_M1[equal])).sum(axis=1)
    found_AK = np.zeros((len(scores), places), dtype=bool)
    shown = ahead_M < places
    found_AK[row_N[near][shown], ahead_M[shown]] = True
    return torch.from_numpy(found_AK)


def _by_value_and_item(scores_BI: Tensor, values_TP: Any, items_TP: Any, tied_T: Any, k: int) -> Any:
    """Return the items of lists that hold equal scores, best first, equals by row, also where k cuts between equals."""
    if values_TP.shape[1] > k:
        border_T = values_TP[:, k - 1]
        cut = np.flatnonzero((border_T == values_TP[:, k]) & (border_T != _NEVER))
        if len(cut):
            values_TK, items_TK = (torch.from_numpy(array[cut, :k]) for array in (values_TP, items_TP))
            items_TP[cut, :k] = _resolve_border(scores_BI, values_TK, items_TK, torch.from_numpy(tied_T[cut])).numpy()
    head = slice(min(k, values_TP.shape[1]))
    by_item = np.argsort(items_TP[:, head], axis=1)
    items, values = (np.take_along_axis(array[:, head], by_item, axis=1) for array in (items_TP, values_TP))
    by_value = np.argsort(-values, axis=1, kind="stable")
    items_TP[:, head] = np.take_along_axis(items, by_value, axis=1)
    return items_TP


def _resolve_border(scores_BI: Tensor, values_TK: Tensor, items_TK: Tensor, tied_T: Tensor) -> Tensor:
    """Of the items that tie at the k-th place, let the smallest rows in; those above the border stay."""
    border_T1 = values_TK[:, -1:]
    at_border_TK = values_TK == border_T1
    for start in range(0, len(tied_T), 64):  # a popular border is rare: small blocks keep the memory low
        block = slice(start, start + 64)
        equal_TI = scores_BI[tied_T[block]] == border_T1[block]
        allowed_T1 = at_border_TK[block].sum(1, keepdim=True)
        admitted_TI = equal_TI & (equal_TI.cumsum(1, dtype=torch.int32) <= allowed_T1)
        items_TK[block][at_border_TK[block]] = admitted_TI.nonzero()[:, 1]
    return items_TK
