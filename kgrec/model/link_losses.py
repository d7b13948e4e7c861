"""Losses of link prediction: pure functions of tensors, each a mean over its triples, smaller is better, never below 0.

Shapes: P triples, V distinct queries (a query is a known entity with a relation), E entities, D dimensions, Q queries
with one answer each, M sampled negatives, R relations.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK_SCORES: Final = 4_000_000  # as many scores as a core's cache nearly holds


def one_vs_all_loss(
    query_VD: Tensor, entities_ED: Tensor, query_P: Tensor, tail_P: Tensor, *, bfloat16: bool = False
) -> Tensor:
    """Return the mean cross-entropy of each triple's tail against every entity, scores being inner products.

    `query_P`, ascending, points into `query_VD`: a query with many answers is scored once. bfloat16: the products are
    made with 8 significant bits (sums in float32), about twice as quick where the CPU has AMX. 0 for no triples.
    Reference: Lacroix et al., ICML 2018 (1-vs-all softmax).

    >>> one = torch.eye(2)
    >>> round(one_vs_all_loss(one, one, torch.tensor([0]), torch.tensor([0])).item(), 4)
    0.3133
    """
    if len(query_P) == 0:
        return query_VD.sum() * 0.0
    kind = torch.bfloat16 if bfloat16 else torch.float32
    loss: Tensor = _OneVersusAll.apply(  # type: ignore[no-untyped-call]
        query_VD, entities_ED, query_P, tail_P, kind
    )
    return loss


class _OneVersusAll(torch.autograd.Function):
    """The gradient is made with the loss, chunk by chunk, while the table of scores is in the cache."""

    @staticmethod
    def forward(
        ctx: Any, query_VD: Tensor, entities_ED: Tensor, query_P: Tensor, tail_P: Tensor, kind: torch.dtype
    ) -> Tensor:
        queries, entities = query_VD.to(kind), entities_ED.to(kind)
        share, size = 1.0 / len(query_P), max(1, _CHUNK_SCORES // len(entities_ED))
        count_V1 = torch.bincount(query_P, minlength=len(query_VD)).to(kind)[:, None]
        pull_VD, pull_ED = torch.empty_like(query_VD), torch.zeros(0)
        room = [torch.empty(min(size, len(queries)), len(entities), dtype=kind) for _ in range(2)]
        total = torch.zeros((), dtype=torch.float64)
        for first in range(0, len(queries), size):
            part_CD = queries[first : first + size]
            scores_CE, chance_CE = (table[: len(part_CD)] for table in room)
            torch.mm(part_CD, entities.T, out=scores_CE)
            torch.softmax(scores_CE, 1, out=chance_CE)
            bounds = torch.searchsorted(query_P, torch.tensor([first, first + len(part_CD)])).tolist()
            row_N, tail_N = query_P[bounds[0] : bounds[1]] - first, tail_P[bounds[0] : bounds[1]]
            log_sum_C = scores_CE.amax(1).float() - chance_CE.amax(1).float().log()
            total += (log_sum_C[row_N] - scores_CE[row_N, tail_N].float()).sum(dtype=torch.float64) * share
            chance_CE.mul_(count_V1[first : first + size] * share)
            taken_N = torch.full((len(row_N),), -share, dtype=kind)
            chance_CE.index_put_((row_N, tail_N), taken_N, accumulate=True)
            pull_VD[first : first + size] = chance_CE @ entities
            pull_ED = (chance_CE.T @ part_CD).to(pull_VD.dtype) if first == 0 else pull_ED.add_(chance_CE.T @ part_CD)
        ctx.save_for_backward(pull_VD, pull_ED)
        return total.to(query_VD.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pull_VD, pull_ED = ctx.saved_tensors
        if gradients[0] != 1:  # the usual weight, and pull_ED is as large as the table
            pull_VD, pull_ED = gradients[0] * pull_VD, gradients[0] * pull_ED
        return pull_VD, pull_ED, None, None, None


def link_softmax_loss(scores_VE: Tensor, query_P: Tensor, tail_P: Tensor) -> Tensor:
    """Return what `one_vs_all_loss` does, of any scores: mean cross-entropy of the tails; 0 for no triples."""
    if len(tail_P) == 0:
        return scores_VE.sum() * 0.0
    return (scores_VE.logsumexp(dim=1)[query_P] - scores_VE[query_P, tail_P]).mean()


def sampled_link_loss(positive_Q: Tensor, negatives_QM: Tensor, target_Q: Tensor, negative_M: Tensor) -> Tensor:
    """Return the mean cross-entropy of the true tail against M shared negatives, itself left out."""
    if len(target_Q) == 0:
        return positive_Q.sum() + negatives_QM.sum()
    negatives_QM = negatives_QM.masked_fill(target_Q[:, None] == negative_M[None, :], -math.inf)
    return functional.softplus(negatives_QM.logsumexp(dim=1) - positive_Q).mean()


def self_adversarial_loss(
    positive_Q: Tensor,
    negatives_QM: Tensor,
    target_Q: Tensor,
    negative_M: Tensor,
    margin: float,
    temperature: float,
) -> Tensor:
    """Return the mean of -log s(margin + positive) - sum_i p_i log s(-margin - negative_i), s the logistic function.

    p is the softmax of temperature * negatives over the M shared draws that are not the tail itself, taken as given
    (no gradient): hard negatives weigh more; a temperature of 0 weighs all alike. 0 for no queries.
    Reference: RotatE (Sun et al., ICLR 2019).
    """
    if len(target_Q) == 0:
        return positive_Q.sum() + negatives_QM.sum()
    hit_QM = target_Q[:, None] == negative_M[None, :]
    hard_QM = (negatives_QM.detach() * temperature).masked_fill(hit_QM, -math.inf)
    weight_QM = torch.softmax(hard_QM, dim=1).nan_to_num(0.0)  # where every draw is the tail, nothing is learned
    pushed_Q = (weight_QM * functional.softplus(margin + negatives_QM)).sum(1)
    return (functional.softplus(-margin - positive_Q) + pushed_Q).mean()


def relation_loss(scores_PR: Tensor, relation_P: Tensor) -> Tensor:
    """Return the mean cross-entropy of each triple's relation among all, its head and tail given; 0 for no triples.

    Reference: Chen et al., Relation Prediction as an Auxiliary Training Objective, AKBC 2021.
    """
    if len(relation_P) == 0:
        return scores_PR.sum()
    return functional.cross_entropy(scores_PR, relation_P)
