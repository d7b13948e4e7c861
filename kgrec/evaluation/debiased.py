"""Figures freed of what the log happens to hold: weights by the chance that a choice was seen at all.

Shapes: B lists, K places, I items.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kgrec.evaluation.pairs import Pairs


def propensities(counts_I: Tensor, power: float, least: float) -> Tensor:
    """Return the chance that a choice of each item is in the log, relative to the most popular item's, in [least, 1].

    (users who had the item / users who had the most popular one) ** power (Yang et al., RecSys 2018).

    >>> propensities(torch.tensor([4, 1, 0]), 0.5, 0.1).tolist()
    [1.0, 0.5, 0.1]
    """
    most = counts_I.max().clamp(min=1) if len(counts_I) else torch.tensor(1)
    answer: Tensor = ((counts_I.double() / most) ** power).clamp(least, 1.0)
    return answer


def debiased_metrics(top_BK: Tensor, truth: Pairs, k: int, propensity_I: Tensor) -> dict[str, float]:
    """Return figures in which a relevant item weighs 1 / propensity, so that rarely seen choices are not forgotten.

    ips_hits@k: estimated hits of a list, were every choice seen (inverse propensity scoring; Schnabel et al., 2016):
    unbiased, and of large variance. snips_recall@k: weighted hits / weighted relevant items over all users at once
    (self-normalised; Swaminathan and Joachims, 2015), in [0, 1]. snips_dcg@k: the same, a hit at place r counting
    1 / log2(r + 1). effective_size: (sum of weights) ** 2 / sum of squares, as how many choices the weights speak.
    Absent without any relevant item.
    """
    weight_N = (1.0 / propensity_I[truth.indices]).numpy()
    if not len(weight_N):
        return {}
    wanted = truth.keys()
    keys_BK = torch.arange(len(top_BK))[:, None] * truth.num_columns + top_BK[:, :k]
    place_BK = torch.searchsorted(wanted, keys_BK).clamp_max(len(wanted) - 1)
    hit_BK = ((wanted[place_BK] == keys_BK) & (top_BK[:, :k] >= 0)).numpy()
    gained_BK = hit_BK * weight_N[place_BK.numpy()]
    discount_K = 1 / np.log2(np.arange(2, gained_BK.shape[1] + 2))
    judged, total = int((truth.counts() > 0).sum()), float(weight_N.sum())
    return {
        f"ips_hits@{k}": float(gained_BK.sum() / judged),
        f"snips_recall@{k}": float(gained_BK.sum() / total),
        f"snips_dcg@{k}": float((gained_BK * discount_K).sum() / total),
        "effective_size": float(total**2 / (weight_N**2).sum()),
    }
