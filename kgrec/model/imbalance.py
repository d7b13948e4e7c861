"""Rare labels: what a row's cross-entropy weighs.

Shapes: B rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional


class Imbalance(StrEnum):
    """What is done about rare labels."""

    NONE = "none"
    FOCAL = "focal"
    BALANCED = "balanced"


@dataclass(frozen=True)
class Weighing:
    """Weights of positive and negative rows, and the power of the error that weighs a row (0 = none).

    A row with label y and probability p of it weighs (positive if y else negative) * (1 - p(y))^gamma
    (gamma: focal loss, Lin et al., ICCV 2017).
    """

    positive: float = 1.0
    negative: float = 1.0
    gamma: float = 0.0

    @classmethod
    def of(cls, imbalance: Imbalance, gamma: float, rate: float) -> Weighing:
        """Return the weighing for a label of this positive rate.

        BALANCED: positives and negatives weigh the same in sum, 1 in the mean; a rate is held within [.001, .999], so
        that no row weighs more than 500.

        >>> Weighing.of(Imbalance.BALANCED, 0.0, 0.1)
        Weighing(positive=5.0, negative=0.5555555555555556, gamma=0.0)
        """
        if imbalance is Imbalance.FOCAL:
            return cls(gamma=gamma)
        if imbalance is Imbalance.BALANCED:
            rate = min(max(rate, 1e-3), 1 - 1e-3)
            return cls(0.5 / rate, 0.5 / (1 - rate))
        return cls()

    def each(self, logit_B: Tensor, label_B: Tensor) -> Tensor:
        """Return each row's weighed cross-entropy, (B,)."""
        if self == Weighing():
            return functional.binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")
        return self.of_logs(functional.logsigmoid(logit_B), functional.logsigmoid(-logit_B), label_B)

    def of_logs(self, log_yes_B: Tensor, log_no_B: Tensor, label_B: Tensor) -> Tensor:
        """Return the same from the logarithms of the probability and of its complement."""
        yes_B, no_B = self.positive * label_B, self.negative * (1 - label_B)
        if self.gamma:
            yes_B = yes_B * (-torch.expm1(log_yes_B)).clamp(min=1e-12) ** self.gamma
            no_B = no_B * (-torch.expm1(log_no_B)).clamp(min=1e-12) ** self.gamma
        return -(yes_B * log_yes_B + no_B * log_no_B)
