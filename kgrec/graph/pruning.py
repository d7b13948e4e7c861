"""Which relations earn their place: the graph alone ranks the validation part, with and without each of them.

Axes: B users asked, I items, N nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from kgrec.columns import HEAD_ROW, ITEM_ROW, PART, RELATION_ROW, TAIL_ROW, TRAIN, USER_ROW, VALIDATION, WEIGHT

Floats = np.ndarray[Any, np.dtype[np.float64]]
_USERS: Final = 1_000
_CELLS: Final = 150_000_000
_K: Final = 10


@dataclass(frozen=True)
class Gain:
    """What leaving a relation out does to NDCG@10 on validation: mean over users, standard error, verdict."""

    relation_row: int
    without: float
    error: float
    pruned: bool


def relation_gains(
    triples: pl.DataFrame, events: pl.DataFrame, num_items: int, generator: np.random.Generator
) -> list[Gain]:
    """Return a verdict on each relation that touches items, from the worst on; those it does not judge stay.

    Items score by the nodes that they share with the user's train items, hubs damped by the logarithm of their degree,
    relation by relation, so that leaving one out is a subtraction. The relation without which the mean NDCG@10 of up to
    1,000 users of validation is highest goes, as long as the gain passes one standard error over users; then again.
    """
    users, history, truth = _questions(events, num_items, generator)
    train = triples.filter(pl.col(PART) == TRAIN)
    relations = train[RELATION_ROW].unique().sort().to_list()
    users = users[: max(_CELLS // max(num_items * len(relations), 1), 20)]
    if not len(users):
        return []
    history, truth = history[users], truth[users]
    scores = {row: found for row in relations if (found := _scores(train, row, history, num_items)) is not None}
    total = np.sum([*scores.values()], axis=0) if scores else np.zeros((len(users), num_items), np.float32)
    seen = history.toarray() > 0
    current, gains = _ndcg(total, seen, truth), list[Gain]()
    while scores:
        trials = {row: _ndcg(total - found, seen, truth) - current for row, found in scores.items()}
        best = max(trials, key=lambda row: (trials[row].mean(), -row))
        mean, error = float(trials[best].mean()), float(trials[best].std() / np.sqrt(len(users)))
        if mean <= error or len(scores) == 1:
            return gains + [
                Gain(row, float(gain.mean()), float(gain.std() / np.sqrt(len(users))), pruned=False)
                for row, gain in sorted(trials.items(), key=lambda item: -float(item[1].mean()))
            ]
        gains.append(Gain(best, mean, error, pruned=True))
        total, current = total - scores.pop(best), current + trials[best]
    return gains


def _questions(
    events: pl.DataFrame, num_items: int, generator: np.random.Generator
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], csr_array, csr_array]:
    """Users that have both parts, in random order; who had what in train, and anew in validation (users x items)."""
    size = (int(events[USER_ROW].max() or 0) + 1, num_items)  # type: ignore[arg-type]
    parts = []
    for part in (TRAIN, VALIDATION):
        rows = events.filter(pl.col(PART) == part).select(USER_ROW, ITEM_ROW).unique(maintain_order=True)
        ones = np.ones(rows.height, np.float32)
        parts.append(csr_array((ones, (rows[USER_ROW].to_numpy(), rows[ITEM_ROW].to_numpy())), shape=size))
    history, later = parts
    fresh = csr_array(later - later.multiply(history))
    fresh.eliminate_zeros()
    asked = np.flatnonzero((np.diff(history.indptr) > 0) & (np.diff(fresh.indptr) > 0))
    return generator.permutation(asked)[:_USERS], history, fresh


def _scores(
    train: pl.DataFrame, relation: int, history: csr_array, num_items: int
) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    rows = train.filter(pl.col(RELATION_ROW) == relation)
    heads, tails = rows[HEAD_ROW].to_numpy(), rows[TAIL_ROW].to_numpy()
    ends, others = np.concatenate([heads, tails]), np.concatenate([tails, heads])
    item = ends < num_items
    if not item.any():
        return None
    weights = np.tile(rows[WEIGHT].to_numpy(), 2)[item]
    width = int(max(ends.max(), others.max())) + 1
    incidence = csr_array((weights, (ends[item], others[item])), shape=(num_items, width))
    degree = np.diff(incidence.tocsc().indptr)
    damped = incidence * (1 / np.log2(2 + degree))[None, :].astype(np.float32)
    found: np.ndarray[Any, np.dtype[np.float32]] = ((history @ csr_array(damped)) @ incidence.T).toarray()
    return found.astype(np.float32)


def _ndcg(scores: np.ndarray[Any, Any], seen: np.ndarray[Any, Any], truth: csr_array) -> Floats:
    """NDCG@10 of each user; seen items are no candidates, ties go to the smaller item."""
    masked = np.where(seen, -np.inf, scores)
    top = np.argsort(-masked, axis=1, kind="stable")[:, :_K]
    hits = np.take_along_axis(truth.toarray(), top, axis=1) > 0
    discount = 1 / np.log2(np.arange(2, _K + 2))
    relevant = np.minimum(np.diff(truth.indptr), _K)
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[relevant]
    ranked: Floats = (hits * discount).sum(axis=1) / np.maximum(ideal, 1e-12)
    return ranked
