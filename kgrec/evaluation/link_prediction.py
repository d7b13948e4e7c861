"""Link prediction: filtered ranks of heads and tails over all entities (conventions of record: contract part 5).

Shapes: T triples, K known triples, B triples of a chunk, E entities; a triple is (head, relation, tail) rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kgrec.evaluation.pairs import Pairs

FloatArray = npt.NDArray[np.float64]
Scorer = Callable[[Tensor, Tensor], Tensor]

HITS: Final = (1, 3, 10)
_CHUNK_SCORES: Final = 4_000_000
_FLOAT32_COUNTS: Final = 1 << 24  # beyond it, float32 no longer counts exactly


def link_metrics(
    score_tails: Scorer,
    score_heads: Scorer,
    triples_T3: Tensor,
    known_triples_K3: Tensor,
    num_entities: int,
    *,
    chunk: int | None = None,
) -> dict[str, float]:
    """Return mrr, hits@1, hits@3, hits@10 over both directions, and num_triples, of `link_ranks`.

    In (0, 1], higher is better. Without any triple only num_triples is there.
    """
    ranks_T2 = link_ranks(score_tails, score_heads, triples_T3, known_triples_K3, num_entities, chunk=chunk)
    return summarise_ranks(ranks_T2)


def link_ranks(
    score_tails: Scorer,
    score_heads: Scorer,
    triples_T3: Tensor,
    known_triples_K3: Tensor,
    num_entities: int,
    *,
    chunk: int | None = None,
) -> FloatArray:
    """Return the rank of each triple's tail (column 0) and head (column 1) among all entities, from 1, float64.

    score_tails: (head_B, relation_B) -> scores_BE. score_heads: (relation_B, tail_B) -> scores_BE. An entity that makes
    another known triple is no rival (Bordes et al., 2013; give train, validation and test as known). Among equals the
    rank is the mean of the best and the worst place (realistic rank; Berrendorf et al., 2020), so it may end in .5.
    Entities that training never saw stay in. ValueError for a NaN score or a row outside the entities.
    """
    _check_rows(triples_T3, num_entities)
    _check_rows(known_triples_K3, num_entities)
    if not len(triples_T3):
        return np.empty((0, 2))
    heads_T, relations_T, tails_T = triples_T3.unbind(1)
    chunk = chunk or max(1, _CHUNK_SCORES // max(num_entities, 1))
    known_tails = _Known(known_triples_K3[:, 0], known_triples_K3[:, 1], known_triples_K3[:, 2], num_entities)
    known_heads = _Known(known_triples_K3[:, 2], known_triples_K3[:, 1], known_triples_K3[:, 0], num_entities)
    count_type = torch.float32 if num_entities < _FLOAT32_COUNTS else torch.float64
    rivals_BE = torch.empty(min(chunk, len(triples_T3)), num_entities, dtype=count_type)
    columns: tuple[list[Tensor], list[Tensor]] = ([], [])
    for places in torch.split(torch.arange(len(triples_T3)), chunk):
        heads, relations, tails = heads_T[places], relations_T[places], tails_T[places]
        columns[0].append(_ranks(score_tails(heads, relations), tails, known_tails.take(heads, relations), rivals_BE))
        columns[1].append(_ranks(score_heads(relations, tails), heads, known_heads.take(tails, relations), rivals_BE))
    return torch.stack([torch.cat(column) for column in columns], dim=1).numpy()


def summarise_ranks(ranks_T2: FloatArray) -> dict[str, float]:
    """Return mrr and hits@k (share of ranks at most k) over all ranks, and num_triples.

    >>> summarise_ranks(np.array([[1.0, 2.0]]))["mrr"]
    0.75
    """
    if not len(ranks_T2):
        return {"num_triples": 0}
    hits = {f"hits@{k}": float((ranks_T2 <= k).mean()) for k in HITS}
    return {"mrr": float((1.0 / ranks_T2).mean()), **hits, "num_triples": len(ranks_T2)}


def relation_metrics(ranks_T2: FloatArray, relations_T: Tensor) -> dict[int, dict[str, float]]:
    """Return `summarise_ranks` for each relation row that occurs, ascending."""
    relations = relations_T.numpy()
    return {int(row): summarise_ranks(ranks_T2[relations == row]) for row in np.unique(relations)}


class _Known:
    """Known answers to (entity, relation), as sparse rows found by binary search."""

    def __init__(self, given_K: Tensor, relation_K: Tensor, answer_K: Tensor, num_entities: int) -> None:
        self._num_entities = num_entities
        self._keys_Q, rows_K = torch.unique(self._key(given_K, relation_K), sorted=True, return_inverse=True)
        # One row more, and empty, for a question that nobody knows an answer to.
        self._answers = Pairs.of(rows_K, answer_K, len(self._keys_Q) + 1, num_entities)

    def _key(self, given: Tensor, relation: Tensor) -> Tensor:
        return relation * self._num_entities + given

    def take(self, given_B: Tensor, relation_B: Tensor) -> Pairs:
        """Return the known answers of each question."""
        keys_B = self._key(given_B, relation_B)
        places_B = torch.searchsorted(self._keys_Q, keys_B)
        nobody = len(self._keys_Q)
        padded_Q1 = torch.cat([self._keys_Q, torch.tensor([-1])])
        return self._answers.take(torch.where(padded_Q1[places_B] == keys_B, places_B, nobody))


@torch.no_grad()
def _ranks(scores_BE: Tensor, target_B: Tensor, known: Pairs, rivals_BE: Tensor) -> Tensor:
    """Return realistic ranks: count rivals among all, then take the known ones off again, so no score is copied.

    rivals_BE is room to count in: comparing into floats and adding those is several times faster than adding booleans.
    """
    if bool(scores_BE.sum(1).isnan().any()) and bool(scores_BE.isnan().any()):
        raise ValueError("a score is NaN")
    target_scores_B1 = scores_BE.gather(1, target_B[:, None])
    room_BE = rivals_BE[: len(target_B)]
    better_B = torch.gt(scores_BE, target_scores_B1, out=room_BE).sum(1).long()
    not_worse_B = torch.ge(scores_BE, target_scores_B1, out=room_BE).sum(1).long()
    rows_N, rivals_N = known.rows(), known.indices
    known_scores_N, compared_N = scores_BE[rows_N, rivals_N], target_scores_B1[rows_N, 0]
    other_N = rivals_N != target_B[rows_N]
    size = len(target_B)
    better_B -= torch.bincount(rows_N[other_N & (known_scores_N > compared_N)], minlength=size)
    not_worse_B -= torch.bincount(rows_N[other_N & (known_scores_N >= compared_N)], minlength=size)
    # not_worse counts the target itself: the best place is better + 1, the worst is not_worse.
    return (better_B + 1 + not_worse_B).to(torch.float64) / 2


def _check_rows(triples_T3: Tensor, num_entities: int) -> None:
    if triples_T3.ndim != 2 or triples_T3.shape[1] != 3:
        raise ValueError(f"triples are (head, relation, tail) rows, got shape {tuple(triples_T3.shape)}")
    ends = triples_T3[:, [0, 2]]
    if ends.numel() and not 0 <= int(ends.min()) <= int(ends.max()) < num_entities:
        raise ValueError(f"entity rows must be in [0, {num_entities}), got {int(ends.min())} .. {int(ends.max())}")
