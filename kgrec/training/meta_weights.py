"""Loss weights that are learned on rows which training never uses: what lowers their loss one step ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from kgrec.training.balancer import Balancer, BalancingOptions, LearnedScalars
from kgrec.training.step import Step
from kgrec.training.trunk import Parts, inner


class MetaWeights(Balancer):
    """Moves the weights down the gradient of the held-out loss after the step with respect to the weights before it.

    A plain step of size e along sum_i w_i g_i changes the held-out loss by -e * <g_i, held-out gradient there> per unit
    of w_i; the inner products are those outside the encoder, to first order (Ren et al., Learning to Reweight Examples,
    ICML 2018). Factors: T * softmax of learned numbers, which follow these slopes (exponentiated gradient, Kivinen &
    Warmuth, 1997). The held-out loss is the sum of the held-out losses, each times its prior. The rows are of the
    validation part, never of test.
    """

    cuts_trunk: ClassVar[bool] = True
    looks_ahead: ClassVar[bool] = True

    def __init__(self, prior: Mapping[str, float], options: BalancingOptions, seed: int) -> None:
        super().__init__(prior, options, seed)
        self._logits = LearnedScalars(0.0, options.weight_learning_rate)
        self._gradients: dict[str, Parts] = {}

    def backward(self, step: Step) -> None:
        """Put the gradients of the weighted losses down and remember each for the look ahead."""
        self._gradients = step.gradients()
        factor_T = len(step.losses) * torch.softmax(self._logits.values(step.losses), dim=0)
        self.weights = {n: self.prior_of(n) * f for n, f in zip(step.losses, factor_T.tolist(), strict=True)}
        step.send(self._gradients, self.weights, self.weights)

    def observe(self, step: Step) -> None:
        """Ask what each gradient of this step did for the held-out rows, and move the weights."""
        gradients, self._gradients = self._gradients, {}
        if len(gradients) < 2:
            return
        gain_T = look_ahead(gradients, step.held_out_gradients(), self.prior)
        prior_T = torch.tensor([self.prior_of(name) for name in gradients], dtype=torch.float64)
        slope_T = -len(gradients) * prior_T * gain_T
        gradient_T = slope_T + self.options.weight_decay * slope_T.abs().mean() * self._logits.values(gradients)
        self._logits.descend(dict(zip(gradients, gradient_T.tolist(), strict=True)))

    def state(self) -> dict[str, Tensor]:
        """Return the learned numbers and Adam's moments by loss."""
        return dict(self._logits.memory)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self._logits.memory = dict(state)


def look_ahead(gradients: Mapping[str, Parts], held_out: Mapping[str, Parts], prior: Mapping[str, float]) -> Tensor:
    """Return how fast the held-out loss falls along each gradient, (T,): inner products with the held-out gradient."""
    return torch.tensor(
        [
            sum(prior.get(other, 1.0) * inner(parts, ahead, set(parts)) for other, ahead in held_out.items())
            for parts in gradients.values()
        ],
        dtype=torch.float64,
    )
