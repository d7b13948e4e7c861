"""What lists are like besides right: how much of the catalogue they show, how varied, new, surprising, true to taste.

Shapes: B lists, K places, I items, E nodes of the graph, U users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from kgrec.evaluation.item_weights import yes_no_matrix
from kgrec.evaluation.pairs import Pairs

FloatArray = npt.NDArray[np.float64]
_SMOOTHING: Final = 0.01
_CHUNK: Final = 4_096


@dataclass(frozen=True)
class Background:
    """What lists are held against, all of it of the time before the judged part.

    history: what each of the B users had. counts_I: how many users had each item. candidates_I: the catalogue.
    unit_IE: items x nodes of the graph, rows of length 1 (`node_vectors`), None without one. taste_IE: items x tastes
    (genres), 1 where the item has it, None where none was named. popular_BK: the lists of popularity alone, the
    primitive recommender of serendipity, None where it did not run.
    """

    history: Pairs
    counts_I: Tensor
    candidates_I: Tensor
    unit_IE: Any = None
    taste_IE: Any = None
    popular_BK: Tensor | None = None


def node_vectors(incidence_IE: Any, hub_exponent: float = 0.5) -> Any:
    """Return each item as its nodes of the graph, hubs damped by degree ** -exponent, at length 1 (0 without any)."""
    degree_E = np.maximum(np.asarray(incidence_IE.sum(axis=0)).reshape(-1), 1.0)
    damped_IE = incidence_IE @ scipy.sparse.diags_array(degree_E ** (-hub_exponent / 2))
    length_I = np.sqrt(np.asarray(damped_IE.multiply(damped_IE).sum(axis=1)).reshape(-1))
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1.0 / np.where(length_I > 0, length_I, 1.0)) @ damped_IE)


def beyond_accuracy(top_BK: Tensor, truth: Pairs, k: int, background: Background) -> dict[str, float]:
    """Return the figures of the first k places; what does not apply is absent. An empty place (-1) counts nowhere.

    coverage@k: share of the catalogue that is in any list. gini@k: how unequally the catalogue is shown, 0 (all items
    alike) to 1 (one item alone). novelty@k: mean surprise -log2(users who had the item + 1 / users + 1), in bits.
    popularity_bias@k: mean popularity in the lists over that in the users' histories, less 1 (Abdollahpouri et al.,
    2019): above 0 the lists are more popular than what these users choose. diversity@k: mean over lists of 1 - cosine
    of two items' nodes of the graph (Ziegler et al., 2005): 1 where nothing is shared. distance_to_history@k: the same
    between an item of the list and one of the history. serendipity@k: share of the k places that are a hit which
    popularity alone does not list (Ge et al., 2010). miscalibration@k: Kullback-Leibler divergence in bits of the
    tastes of a list from those of the history, smoothed by .01 (Steck, 2018); 0 is best.
    """
    items_BK = top_BK[:, :k].numpy()
    shown_BK = items_BK >= 0
    if not shown_BK.any():
        return {}
    num_items = len(background.counts_I)
    shown = np.bincount(items_BK[shown_BK], minlength=num_items).astype(np.float64)
    lists_BI = _lists(items_BK, num_items)
    history_BI = scipy.sparse.csr_array(yes_no_matrix(background.history))
    catalogue = background.candidates_I.numpy()
    found = {f"coverage@{k}": float((shown[catalogue] > 0).mean()), f"gini@{k}": gini(shown[catalogue])}
    found |= _popularity(lists_BI, history_BI, background, k)
    if background.unit_IE is not None:
        found |= _distances(lists_BI, history_BI, background.unit_IE, k)
    if background.popular_BK is not None:
        found[f"serendipity@{k}"] = _serendipity(lists_BI, truth, background.popular_BK[:, :k].numpy(), k)
    if background.taste_IE is not None:
        found |= _miscalibration(lists_BI, history_BI, background.taste_IE, k)
    return found


def gini(amounts: npt.ArrayLike) -> float:
    """Return the Gini coefficient of amounts of 0 or more: 0 when all are equal, 1 - 1/n when one has all; 0 of none.

    >>> gini([1, 1, 1, 1]), gini([0, 0, 0, 4])
    (0.0, 0.75)
    """
    ordered = np.sort(np.asarray(amounts, dtype=np.float64))
    total, count = ordered.sum(), len(ordered)
    if not total:
        return 0.0
    places = np.arange(1, count + 1)
    return float(((2 * places - count - 1) * ordered).sum() / (count * total))


def _lists(items_BK: npt.NDArray[np.int64], num_items: int) -> Any:
    """Return lists x items, 1 where the list shows the item."""
    rows, places = np.nonzero(items_BK >= 0)
    entries = (np.ones(len(rows)), (rows, items_BK[rows, places]))
    return scipy.sparse.csr_array(entries, shape=(len(items_BK), num_items))


def _popularity(lists_BI: Any, history_BI: Any, background: Background, k: int) -> dict[str, float]:
    counts_I = background.counts_I.numpy().astype(np.float64)
    num_users = max(float(counts_I.max()), background.history.num_rows)
    surprise_I = -np.log2((counts_I + 1) / (num_users + 1))
    lengths_B, had_B = _row_sums(lists_BI), _row_sums(history_BI)
    both = (lengths_B > 0) & (had_B > 0)
    found = {f"novelty@{k}": float(np.mean((lists_BI @ surprise_I)[lengths_B > 0] / lengths_B[lengths_B > 0]))}
    if both.any():
        of_lists = ((lists_BI @ counts_I)[both] / lengths_B[both]).mean()
        of_history = ((history_BI @ counts_I)[both] / had_B[both]).mean()
        found |= {f"popularity_bias@{k}": float(of_lists / of_history - 1)} if of_history > 0 else {}
    return found


def _distances(lists_BI: Any, history_BI: Any, unit_IE: Any, k: int) -> dict[str, float]:
    """Return the mean distances within lists and to the histories, from sums of vectors, never from pairs of items."""
    own_I = _row_sums(unit_IE.multiply(unit_IE))
    within, apart = [], []
    for start in range(0, lists_BI.shape[0], _CHUNK):
        lists, history = lists_BI[start : start + _CHUNK], history_BI[start : start + _CHUNK]
        sums, had = scipy.sparse.csr_array(lists @ unit_IE), scipy.sparse.csr_array(history @ unit_IE)
        length, size = _row_sums(lists), _row_sums(history)
        pairs = length * (length - 1)
        alike = _row_sums(sums.multiply(sums)) - lists @ own_I
        within.append(1 - alike[pairs > 0] / pairs[pairs > 0])
        both = (length > 0) & (size > 0)
        apart.append(1 - _row_sums(sums.multiply(had))[both] / (length * size)[both])
    named = {f"diversity@{k}": np.concatenate(within), f"distance_to_history@{k}": np.concatenate(apart)}
    return {name: float(values.mean()) for name, values in named.items() if len(values)}


def _serendipity(lists_BI: Any, truth: Pairs, popular_BK: npt.NDArray[np.int64], k: int) -> float:
    hits_BI = lists_BI.multiply(scipy.sparse.csr_array(yes_no_matrix(truth)))
    expected = hits_BI.multiply(_lists(popular_BK, lists_BI.shape[1]))
    judged = (truth.counts() > 0).numpy()
    per_list = (_row_sums(hits_BI) - _row_sums(expected))[judged] / k
    return float(per_list.mean()) if len(per_list) else 0.0


def _miscalibration(lists_BI: Any, history_BI: Any, taste_IE: Any, k: int) -> dict[str, float]:
    share_IE = scipy.sparse.diags_array(1.0 / np.maximum(_row_sums(taste_IE), 1.0)) @ taste_IE
    wanted_BE, given_BE = ((matrix @ share_IE).toarray() for matrix in (history_BI, lists_BI))
    known = (wanted_BE.sum(axis=1) > 0) & (given_BE.sum(axis=1) > 0)
    if not known.any():
        return {}
    wanted, given = (matrix[known] / matrix[known].sum(axis=1, keepdims=True) for matrix in (wanted_BE, given_BE))
    smooth = (1 - _SMOOTHING) * given + _SMOOTHING * wanted
    ratio = np.divide(wanted, smooth, out=np.ones_like(wanted), where=wanted > 0)
    return {f"miscalibration@{k}": float((wanted * np.log2(ratio)).sum(axis=1).mean())}


def _row_sums(matrix: Any) -> FloatArray:
    sums: FloatArray = np.asarray(matrix.sum(axis=1), dtype=np.float64).reshape(-1)
    return sums


def as_background(
    question_history: Pairs, users_B: Tensor, candidates_I: Tensor, matrices: Mapping[str, Any],
    popular_BK: Tensor | None,
) -> Background:  # fmt: skip
    """Return the background of the asked users; matrices: unit_IE and taste_IE where there are any."""
    counts_I = torch.bincount(question_history.indices, minlength=question_history.num_columns)
    return Background(question_history.take(users_B), counts_I, candidates_I, **matrices, popular_BK=popular_BK)
