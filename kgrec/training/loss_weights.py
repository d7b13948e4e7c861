"""Balancers that look at the losses alone: uncertainty, dynamic weight average, FAMO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from kgrec.training.balancer import Balancer, BalancingOptions, LearnedScalars
from kgrec.training.step import Step

_SMALLEST: Final = 1e-8
_LOG_RANGE: Final = 10.0


class UncertaintyWeights(Balancer):
    """Weighs a loss by exp(-s), where s is learned on exp(-s) * loss + s / 2: the factor settles at 1 / (2 * loss).

    Reference: Kendall, Gal & Cipolla, CVPR 2018, for losses that are cross-entropies; s is kept in [-10, 10].
    """

    def __init__(self, prior: Mapping[str, float], options: BalancingOptions, seed: int) -> None:
        super().__init__(prior, options, seed)
        self._log_variance = LearnedScalars(0.0, options.weight_learning_rate)

    def factors(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Return exp(-s), and move s towards where this step's losses pull it."""
        factor_T = torch.exp(-self._log_variance.values(losses)).tolist()
        found = dict(zip(losses, factor_T, strict=True))
        self._log_variance.descend({name: 0.5 - found[name] * loss.item() for name, loss in losses.items()})
        for name, value in zip(losses, self._log_variance.values(losses).tolist(), strict=True):
            if abs(value) > _LOG_RANGE:
                self._log_variance.set(name, max(-_LOG_RANGE, min(_LOG_RANGE, value)))
        return found

    def state(self) -> dict[str, Tensor]:
        """Return s and Adam's moments by loss."""
        return dict(self._log_variance.memory)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self._log_variance.memory = dict(state)


class DynamicWeightAverage(Balancer):
    """Favours losses that fell little from the last epoch but one to the last; 1 for all in the first two epochs.

    Factors: T * softmax(rate / temperature), rate = loss(t-1) / loss(t-2). Reference: Liu, Johns & Davison, CVPR 2019.
    """

    def __init__(self, prior: Mapping[str, float], options: BalancingOptions, seed: int) -> None:
        super().__init__(prior, options, seed)
        self._last: dict[str, Tensor] = {}  # the means of the last two epochs, the older one NaN where there is none

    def factors(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the factors of this epoch for all losses that were seen in two epochs."""
        known = [name for name, pair in sorted(self._last.items()) if not pair[0].isnan()]  # one order of summing
        if not known:
            return dict.fromkeys(losses, 1.0)
        rate_T = torch.stack([self._last[name][1] / self._last[name][0].clamp(min=_SMALLEST) for name in known])
        factor_T = len(known) * torch.softmax(rate_T / self.options.dwa_temperature, dim=0)
        return dict(zip(known, factor_T.tolist(), strict=True))

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Remember the means of two epochs."""
        for name, mean in means.items():
            older = self._last[name][1].item() if name in self._last else float("nan")
            self._last[name] = torch.tensor([older, mean], dtype=torch.float64)

    def state(self) -> dict[str, Tensor]:
        """Return the means of two epochs by loss."""
        return dict(self._last)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self._last = dict(state)


class Famo(Balancer):
    """Lets all losses fall at the same relative rate: descends the log losses under weights that follow who fell least.

    Factors: T * (z_i / loss_i) / sum_j (z_j / loss_j), z = softmax of learned numbers, which are moved by how much each
    log loss of the same rows changed under the update. Reference: Liu et al., FAMO, NeurIPS 2023.
    """

    def __init__(self, prior: Mapping[str, float], options: BalancingOptions, seed: int) -> None:
        super().__init__(prior, options, seed)
        self._logits = LearnedScalars(0.0, options.weight_learning_rate)

    def factors(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the factors; their mean is 1."""
        share_T = torch.softmax(self._logits.values(losses), dim=0) / _as_vector(losses)
        return dict(zip(losses, (len(losses) * share_T / share_T.sum()).tolist(), strict=True))

    def observe(self, step: Step) -> None:
        """Look at the same rows again: what fell least gets more weight."""
        if len(step.losses) < 2:
            return
        logit_T = self._logits.values(step.losses)
        z_T = torch.softmax(logit_T, dim=0)
        fall_T = _as_vector(step.losses).log() - _as_vector(step.again()).log()
        gradient_T = z_T * (fall_T - (z_T * fall_T).sum()) + self.options.weight_decay * logit_T
        self._logits.descend(dict(zip(step.losses, gradient_T.tolist(), strict=True)))

    def state(self) -> dict[str, Tensor]:
        """Return the learned numbers and Adam's moments by loss."""
        return dict(self._logits.memory)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self._logits.memory = dict(state)


def _as_vector(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.tensor([loss.item() for loss in losses.values()], dtype=torch.float64).clamp(min=_SMALLEST)
