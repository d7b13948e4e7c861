"""Losses: pure functions of tensors, each a mean or weighted mean over its rows, smaller is better, never below 0.

Shapes: P positives, V distinct users of a batch, I items, M sampled negatives, B rows, D dimensions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def full_softmax_loss(
    users_VD: Tensor,
    items_ID: Tensor,
    user_P: Tensor,
    item_P: Tensor,
    weight_P: Tensor,
    temperature: float,
    candidate_I: Tensor | None = None,
) -> Tensor:
    """Return the weighted mean cross-entropy of each positive against all candidate items.

    `user_P` points into `users_VD`, so that a user with many positives is scored against the catalogue once. Vectors
    have length 1: the logits are cosine / temperature. Items outside the boolean `candidate_I` are never negatives:
    an item that no train event names would only be taught to stay buried. Weights that sum to 0 give 0.

    >>> one = torch.eye(2)
    >>> round(full_softmax_loss(one, one, torch.tensor([0]), torch.tensor([0]), torch.ones(1), 1.0).item(), 4)
    0.3133
    """
    share_P = weight_P / weight_P.sum().clamp(min=1e-12)
    loss: Tensor = _CatalogueSoftmax.apply(  # type: ignore[no-untyped-call]
        users_VD / temperature, items_ID, user_P, item_P, share_P, candidate_I
    )
    return loss


class _CatalogueSoftmax(torch.autograd.Function):
    """Sum of share * (log-sum-exp over candidates - score), with its gradient in closed form: two and a half times
    quicker than the chain of small operations, since the (V, I) table is walked as few times as possible.
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
    ) -> Tensor:
        table_VI = users_VD @ items_ID.T
        positive_P = table_VI[user_P, item_P]
        if candidate_I is not None:
            table_VI[:, ~candidate_I] = -math.inf
        top_V1 = table_VI.amax(dim=1, keepdim=True)
        sum_V = table_VI.sub_(top_V1).exp_().sum(dim=1)
        ctx.save_for_backward(users_VD, items_ID, user_P, item_P, share_P, table_VI, sum_V)
        return (share_P * ((sum_V.log() + top_V1[:, 0])[user_P] - positive_P)).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        users_VD, items_ID, user_P, item_P, share_P, table_VI, sum_V = ctx.saved_tensors
        share_V = torch.zeros_like(sum_V).index_add_(0, user_P, share_P) / sum_V
        pull_VI = table_VI * share_V[:, None]
        pull_VI.index_put_((user_P, item_P), -share_P, accumulate=True)
        return gradients[0] * (pull_VI @ items_ID), gradients[0] * (pull_VI.T @ users_VD), None, None, None, None


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
    logits_PM = (users_VD @ negatives_MD.T / temperature)[user_P]
    positive_P = (users_VD[user_P] * positives_PD).sum(-1) / temperature
    hit_PM = item_P[:, None] == negative_M[None, :]
    misses_P = (~hit_PM).sum(1).clamp(min=1)
    lift_P = math.log(max(num_candidates - 1, 1)) - misses_P.log()
    logits_PM = logits_PM.masked_fill(hit_PM, -math.inf) + lift_P[:, None]
    denominator_P = torch.cat([positive_P[:, None], logits_PM], dim=1).logsumexp(dim=1)
    return _weighted_mean(denominator_P - positive_P, weight_P)


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


def _weighted_mean(value_P: Tensor, weight_P: Tensor) -> Tensor:
    return (value_P * weight_P).sum() / weight_P.sum().clamp(min=1e-12)
