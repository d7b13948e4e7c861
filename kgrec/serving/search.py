"""The exact top of a score that is an inner product plus a sparse part.

Axes: I items, W served dimensions, H items of a history, J items that the history reaches, K answers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from kgrec.serving.index import Floats, ItemIndex, Rows
from kgrec.serving.neighbours import Neighbours

_MUCH: Final = 0.25
"""Share of the catalogue above which a history that reaches it is answered by scoring every item."""


def best_items(
    index: ItemIndex,
    items_IW: Floats,
    neighbours: Neighbours,
    query_W: Floats,
    history_H: Rows,
    seen: Rows,
    k: int,
    only_I: npt.NDArray[np.bool_] | None = None,
) -> tuple[Rows, Floats]:
    """Return up to k item rows and their scores, best first, equal scores by item row; nothing of `seen`.

    only_I: a flag per item row, None for all of them.
    An item that the history reaches is scored one by one; of all others the inner product alone counts, so that the
    index's best k of them are enough. Together they hold the best k of the whole catalogue. A history that reaches
    much of it is quicker answered by scoring every item.
    """
    extra_I = neighbours.of_one(history_H)
    reached_J = np.flatnonzero(extra_I)
    allowed_I = np.zeros(len(items_IW), dtype=bool)
    allowed_I[index.rows_I] = True
    allowed_I[seen] = False
    if only_I is not None:
        allowed_I &= only_I
    query_W = query_W.astype(np.float32)
    if len(reached_J) > _MUCH * len(index.rows_I):
        scores_I = np.where(allowed_I, items_IW @ query_W + extra_I, -np.inf)
        rows = np.flatnonzero(allowed_I & (scores_I >= _kth(scores_I, k)))
        scores = scores_I[rows].astype(np.float32)
    else:
        reached_J = reached_J[allowed_I[reached_J]]
        others_K, scores_K = index.search(query_W, k, np.concatenate([seen, reached_J]), only_I)
        rows = np.concatenate([others_K, reached_J])
        scores = np.concatenate([scores_K, items_IW[reached_J] @ query_W + extra_I[reached_J]])
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


def _kth(scores_I: Floats, k: int) -> float:
    """Return the k-th largest score, or the smallest where there are fewer."""
    place = max(len(scores_I) - k, 0)
    return float(np.partition(scores_I, place)[place])
