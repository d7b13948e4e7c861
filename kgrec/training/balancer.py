"""What every balancer is: losses of a step in, gradients on the parameters out. And the simplest one."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from kgrec.training.step import Step


class BalancerName(StrEnum):
    """How several losses become one update."""

    FIXED = "fixed"
    UNCERTAINTY = "uncertainty"
    DWA = "dwa"
    GRADNORM = "gradnorm"
    FAMO = "famo"
    PCGRAD = "pcgrad"
    CAGRAD = "cagrad"
    MGDA = "mgda"
    NASH_MTL = "nash_mtl"
    ALIGNED_MTL = "aligned_mtl"
    UPGRAD = "upgrad"
    META = "meta"


class BalancingOptions(BaseModel):
    """Settings of single balancers; each is read by those it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight_learning_rate: float = Field(
        default=0.025, gt=0, description="uncertainty, gradnorm, famo, meta: Adam's step size of the weights, > 0"
    )
    weight_decay: float = Field(
        default=0.001, ge=0, description="famo, meta: pull of the weights towards equal ones, a step, >= 0"
    )
    dwa_temperature: float = Field(
        default=2.0, gt=0, description="dwa: divisor of the losses' rates, > 0; large = equal"
    )
    gradnorm_alpha: float = Field(
        default=1.5, ge=0, description="gradnorm: how strongly a loss that falls slowly is favoured, >= 0"
    )
    cagrad_radius: float = Field(
        default=0.4, ge=0, lt=1, description="cagrad: how far the update may leave the mean gradient, in its lengths"
    )
    nash_every: int = Field(
        default=10, ge=1, description="nash_mtl: steps between two bargains, which cost more than the step, >= 1"
    )


class Balancer:
    """Turns the losses of a step into gradients. Its memory is tensors, so that a checkpoint can hold it.

    prior: the configured weight of each loss (lambda for the link loss), 1 where none is named; it is kept in all
    methods, which add factors of their own. weights: what the losses weighed last, where that can change.
    """

    cuts_trunk: ClassVar[bool] = False
    looks_ahead: ClassVar[bool] = False

    def __init__(self, prior: Mapping[str, float], options: BalancingOptions, seed: int) -> None:
        self.prior, self.options, self.seed = dict(prior), options, seed
        self.weights: dict[str, float] = {}

    def backward(self, step: Step) -> None:
        """Put gradients on the parameters: here those of the sum of the losses times prior and factor."""
        factors = self.factors(step.losses)
        weights = {name: self.prior_of(name) * factors.get(name, 1.0) for name in step.losses}
        terms = [loss * weights[name] for name, loss in step.losses.items()]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        total.backward()  # type: ignore[no-untyped-call]
        if factors:
            self.weights = weights

    def factors(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Return what each loss is multiplied with beside its prior; a loss without a factor has 1."""
        return {}

    def prior_of(self, name: str) -> float:
        """Return the configured weight of a loss."""
        return self.prior.get(name, 1.0)

    def observe(self, step: Step) -> None:
        """Look at the step after the parameters were updated."""

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Look at the epoch's mean losses."""

    def state(self) -> dict[str, Tensor]:
        """Return what must survive a restart."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""


class FixedWeights(Balancer):
    """The weighted sum of the losses with weights that do not move."""


class LearnedScalars:
    """One number per loss, moved by Adam (Kingma & Ba, ICLR 2015); one absent from a step stays as it is."""

    def __init__(self, start: float, learning_rate: float) -> None:
        self.start, self.learning_rate = start, learning_rate
        self.memory: dict[str, Tensor] = {}  # value, first moment, second moment, steps

    def values(self, names: Mapping[str, object]) -> Tensor:
        """Return the numbers of some losses, (T,) float64, in the order given."""
        fresh = torch.tensor([self.start, 0.0, 0.0, 0.0], dtype=torch.float64)
        return torch.stack([self.memory.get(name, fresh)[0] for name in names])

    def descend(self, gradients: Mapping[str, float]) -> None:
        """Take one step of Adam against the gradients."""
        for name, gradient in gradients.items():
            value, first, second, steps = self.memory.get(name, torch.tensor([self.start, 0.0, 0.0, 0.0])).tolist()
            steps += 1
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient * gradient
            size = (second / (1 - 0.999**steps)) ** 0.5 + 1e-8
            value -= self.learning_rate * first / (1 - 0.9**steps) / size
            self.memory[name] = torch.tensor([value, first, second, steps], dtype=torch.float64)

    def set(self, name: str, value: float) -> None:
        """Put a number in the place of one that was learned."""
        self.memory[name] = torch.cat([torch.tensor([value], dtype=torch.float64), self.memory[name][1:]])
