"""The exact top of a score that is an inner product plus a sparse part.

Axes: W served dimensions, H items of a history, J items that the history reaches, K answers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kgrec.serving.index import Floats, ItemIndex, Rows
from kgrec.serving.neighbours import Neighbours


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
    index's best k of them are enough. Together they hold the best k of the whole catalogue.
    """
    reached_J, extra_J = neighbours.reached(history_H)
    in_catalogue_J = np.isin(reached_J, index.rows_I) & ~np.isin(reached_J, seen)
    if only_I is not None:
        in_catalogue_J &= only_I[reached_J]
    others_K, scores_K = index.search(query_W, k, np.concatenate([seen, reached_J[in_catalogue_J]]), only_I)
    reached_J, extra_J = reached_J[in_catalogue_J], extra_J[in_catalogue_J]
    rows = np.concatenate([others_K, reached_J])
    scores = np.concatenate([scores_K, items_IW[reached_J] @ query_W.astype(np.float32) + extra_J])
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
