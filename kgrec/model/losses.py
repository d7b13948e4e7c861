"""Losses: pure functions of tensors, each a mean or weighted mean over its rows, smaller is better, never below 0.

Shapes: P positives, V distinct users of a batch, C users of a chunk, I items, M sampled negatives, B rows,
D dimensions, W = D + 1.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK_SCORES: Final = 8_000_000  # scores of a chunk, so that they stay in the cache
_SAFE_BOUND: Final = 30.0  # exp(+-30) times millions of items is well inside float32 and bfloat16


def full_softmax_loss(
    users_VD: Tensor,
    items_ID: Tensor,
    user_P: Tensor,
    item_P: Tensor,
    weight_P: Tensor,
    temperature: float,
    candidate_I: Tensor | None = None,
    *,
    bfloat16: bool = False,
) -> Tensor:
    """Return the weighted mean cross-entropy of each positive against all candidate items.

    `user_P` points into `users_VD`, so that a user with many positives is scored against the catalogue once. Vectors
    have length 1: the logits are cosine / temperature. Items outside the boolean `candidate_I` are never negatives:
    an item that no train event names would only be taught to stay buried. Weights that sum to 0 give 0. bfloat16: the
    catalogue's products are made with 8 significant bits (those of the positives are not), quicker where the CPU has
    AMX.

    >>> one = torch.eye(2)
    >>> round(full_softmax_loss(one, one, torch.tensor([0]), torch.tensor([0]), torch.ones(1), 1.0).item(), 4)
    0.3133
    """
    share_P = weight_P / weight_P.sum().clamp(min=1e-12)
    kind = torch.bfloat16 if bfloat16 else torch.float32
    loss: Tensor = _CatalogueSoftmax.apply(  # type: ignore[no-untyped-call]
        users_VD / temperature, items_ID, user_P, item_P, share_P, candidate_I, kind
    )
    return loss


class _CatalogueSoftmax(torch.autograd.Function):
    """Sum of share * (log-sum-exp over candidates - score); the gradient is made with the loss, chunk by chunk.

    The scores of a chunk of users are made, raised to e and multiplied twice while they are in the cache, and never
    kept. A column of ones beside the items brings the sum of a user's exponentials out of the same product as the
    mean of the items that they weigh. Against a table that is kept and walked six times: half the time, a third in
    bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users_VD: Tensor,
        items_ID: Tensor,
        user_P: Tensor,
        item_P: Tensor,
        share_P: Tensor,
        candidate_I: Tensor | None,
        kind: torch.dtype,
    ) -> Tensor:
        num_users, width = users_VD.shape
        share_V = users_VD.new_zeros(num_users).index_add_(0, user_P, share_P)
        bound = _greatest_score(users_VD, items_ID)
        ones_I1 = items_ID.new_ones(len(items_ID), 1)
        items_IW = torch.cat([items_ID, ones_I1 if candidate_I is None else ones_I1 * candidate_I[:, None]], 1)
        if candidate_I is not None:
            items_IW[:, :width] *= candidate_I[:, None]
        catalogue_DI, weighed_IW = items_ID.T.contiguous().to(kind), items_IW.to(kind)
        pull_VD, pull_ID, log_sum_V = torch.empty_like(users_VD), torch.zeros_like(items_ID), torch.empty(num_users)
        size = max(1, _CHUNK_SCORES // max(len(items_ID), 1))
        room = torch.empty(min(size, num_users), len(items_ID), dtype=kind)
        for first in range(0, num_users, size):
            users_CD = users_VD[first : first + size]
            scores_CI = torch.mm(users_CD.to(kind), catalogue_DI, out=room[: len(users_CD)])
            top_C = _raise_to_e(scores_CI, bound, candidate_I)
            mean_CW = (scores_CI @ weighed_IW).float()
            sum_C = mean_CW[:, width]
            log_sum_V[first : first + size] = sum_C.log() + top_C
            scale_C1 = (share_V[first : first + size] / sum_C)[:, None]
            pull_VD[first : first + size] = scale_C1 * mean_CW[:, :width]
            pull_ID += scores_CI.T @ (scale_C1 * users_CD).to(kind)
        if candidate_I is not None:
            pull_ID[~candidate_I] = 0
        positive_PD, asking_PD = items_ID[item_P], users_VD[user_P]
        pull_VD.index_add_(0, user_P, -share_P[:, None] * positive_PD)
        pull_ID.index_add_(0, item_P, -share_P[:, None] * asking_PD)
        ctx.save_for_backward(pull_VD, pull_ID)
        return (share_P * (log_sum_V[user_P] - (asking_PD * positive_PD).sum(1))).sum().clamp(min=0.0)  # by rounding

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pull_VD, pull_ID = ctx.saved_tensors
        return gradients[0] * pull_VD, gradients[0] * pull_ID, None, None, None, None, None


def _greatest_score(users_VD: Tensor, items_ID: Tensor) -> float:
    """Return a bound of every inner product: the product of the greatest lengths. 0 for no vectors."""
    if len(users_VD) == 0 or len(items_ID) == 0:
        return 0.0
    return float(users_VD.norm(dim=1).max() * items_ID.norm(dim=1).max())


def _raise_to_e(scores_CI: Tensor, bound: float, candidate_I: Tensor | None) -> Tensor | float:
    """Replace scores s by exp(s - top) and return top: one bound for all, or each row's own where exp would vanish."""
    if bound <= _SAFE_BOUND:
        scores_CI.exp_()
        return 0.0
    if candidate_I is not None:
        scores_CI[:, ~candidate_I] = -math.inf
    top_C1 = scores_CI.amax(dim=1, keepdim=True)
    scores_CI.sub_(top_C1).exp_()
    return top_C1[:, 0].float()


def sampled_softmax_loss(
    users_VD: Tensor,
    positives_PD: Tensor,
    negatives_MD: Tensor,
    user_P: Tensor,
    item_P: Tensor,
    negative_M: Tensor,
    weight_P: Tensor,
    temperature: float,
    num_candidates: int,
) -> Tensor:
    """Return the full softmax loss estimated from M negatives drawn uniformly with repeats from the candidates.

    The log-q correction lifts each negative by log((num_candidates - 1) / M'), M' being the draws that are not the
    positive itself, so that the denominator estimates that of the whole catalogue without bias
    (Bengio & Senecal, 2008). A row whose draws all hit its positive counts the positive alone.
    """
    share_P = weight_P / weight_P.sum().clamp(min=1e-12)
    drawn_M = negative_M.sort().values
    ends_P = (torch.searchsorted(drawn_M, item_P, right=right) for right in (True, False))
    hits_P = (next(ends_P) - next(ends_P)).to(users_VD.dtype)
    lift_P = max(num_candidates - 1, 1) / (len(negative_M) - hits_P).clamp(min=1)
    loss: Tensor = _SampledSoftmax.apply(  # type: ignore[no-untyped-call]
        users_VD / temperature, positives_PD, negatives_MD, user_P, share_P, hits_P, lift_P
    )
    return loss


class _SampledSoftmax(torch.autograd.Function):
    """Sum of share * (log(e^s + lift * (sum of e^draws - hits * e^s)) - s); the gradient is made with the loss.

    As `_CatalogueSoftmax` does: a user's draws are scored once, however many positives the user has, and the scores of
    a chunk of users are never kept. A table of positives times draws took about twenty times as long.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users_VD: Tensor,
        positives_PD: Tensor,
        negatives_MD: Tensor,
        user_P: Tensor,
        share_P: Tensor,
        hits_P: Tensor,
        lift_P: Tensor,
    ) -> Tensor:
        num_users, asking_PD = len(users_VD), users_VD[user_P]
        score_P = (asking_PD * positives_PD).sum(1)
        bound = max(_greatest_score(users_VD, negatives_MD), float(score_P.max()) if len(score_P) else 0.0)
        order_P, draws_DM = torch.argsort(user_P, stable=True), negatives_MD.T.contiguous()
        pull_VD, pull_MD = torch.empty_like(users_VD), torch.zeros_like(negatives_MD)
        pull_P, loss_P = torch.empty_like(score_P), torch.empty_like(score_P)
        size = max(1, _CHUNK_SCORES // max(len(negatives_MD), 1))
        starts = torch.searchsorted(user_P[order_P], torch.arange(0, num_users + size, size)).tolist()
        for chunk, first in enumerate(range(0, num_users, size)):
            users_CD, own = users_VD[first : first + size], order_P[starts[chunk] : starts[chunk + 1]]
            user_B, score_B, scores_CM = user_P[own] - first, score_P[own], users_CD @ draws_DM
            top_C = users_CD.new_zeros(len(users_CD))
            if bound > _SAFE_BOUND:
                top_C = scores_CM.amax(1).scatter_reduce(0, user_B, score_B, "amax")
            sum_C = scores_CM.sub_(top_C[:, None]).exp_().sum(1)
            positive_B = (score_B - top_C[user_B]).exp()
            others_B = sum_C[user_B] - hits_P[own] * positive_B
            others_B = torch.where(hits_P[own] < len(negatives_MD), others_B, 0.0).clamp(min=0.0)
            all_B = positive_B + lift_P[own] * others_B
            loss_P[own] = share_P[own] * (all_B.log() + top_C[user_B] - score_B).clamp(min=0.0)  # by rounding
            scale_B = torch.where(others_B > 0, share_P[own] * lift_P[own] / all_B, 0.0)
            scale_C1 = torch.zeros_like(sum_C).index_add_(0, user_B, scale_B)[:, None]
            pull_P[own] = (share_P[own] / all_B - scale_B * hits_P[own]) * positive_B - share_P[own]
            pull_VD[first : first + size] = scale_C1 * (scores_CM @ negatives_MD)
            pull_MD += scores_CM.T @ (scale_C1 * users_CD)
        pull_VD.index_add_(0, user_P, pull_P[:, None] * positives_PD)
        ctx.save_for_backward(pull_VD, pull_P[:, None] * asking_PD, pull_MD)
        return loss_P.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradients[0] * pull for pull in ctx.saved_tensors), None, None, None, None)


def click_loss(click_logit_B: Tensor, click_B: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of logits against 0/1 labels; 0 for no rows."""
    if len(click_B) == 0:
        return click_logit_B.sum()
    return functional.binary_cross_entropy_with_logits(click_logit_B, click_B)


def entire_space_loss(click_logit_B: Tensor, conversion_logit_B: Tensor, conversion_B: Tensor) -> Tensor:
    """Return the mean cross-entropy of p(click) * p(conversion | click) against click-and-conversion on all exposures.

    Reference: ESMM (Ma et al., SIGIR 2018). The product is formed in log space, so that it cannot underflow.

    >>> zero = torch.zeros(1)
    >>> round(entire_space_loss(zero, zero, torch.ones(1)).item(), 4)  # -log(1/2 * 1/2)
    1.3863
    """
    if len(conversion_B) == 0:
        return (click_logit_B + conversion_logit_B).sum()
    log_both_B = functional.logsigmoid(click_logit_B) + functional.logsigmoid(conversion_logit_B)
    log_not_both_B = torch.log(-torch.expm1(log_both_B.clamp(max=-1e-6)))
    return -(conversion_B * log_both_B + (1 - conversion_B) * log_not_both_B).mean()
