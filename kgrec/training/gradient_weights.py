"""Balancers that look at the losses' gradients on what they share: GradNorm, and torchjd's combiners.

Shapes: T losses of a step that take part. A loss takes part when its prior is above 0 and it reaches the trunk.
The combiners decide the update of what the losses share; what one loss alone reaches gets that loss's own gradient
times its prior. All weights of a step sum to about T, so that a step with one loss is no larger or smaller than fixed.
"""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor

from kgrec.seeds import derive_seed
from kgrec.training.balancer import Balancer, BalancingOptions, LearnedScalars
from kgrec.training.step import Step
from kgrec.training.trunk import gramian

_log = logging.getLogger(__name__)


class GradNorm(Balancer):
    """Weighs losses so that their gradients on the trunk have like lengths, longer for a loss that lags behind.

    Target length of loss i: mean length * rate_i ** alpha, rate_i = (loss_i / first loss_i) / mean of that ratio, each
    loss with its own rate. The weights keep their sum. Reference: Chen et al., ICML 2018.
    """

    cuts_trunk: ClassVar[bool] = True

    def __init__(self, prior: Mapping[str, float], options: BalancingOptions, seed: int) -> None:
        super().__init__(prior, options, seed)
        self._factors = LearnedScalars(1.0, options.weight_learning_rate)
        self._first: dict[str, Tensor] = {}

    def backward(self, step: Step) -> None:
        """Put the gradients of the weighted losses down, and move the weights towards the target lengths."""
        gradients = step.gradients()
        factor_T = self._factors.values(step.losses).tolist()
        self.weights = {n: self.prior_of(n) * f for n, f in zip(step.losses, factor_T, strict=True)}
        length_T = gramian(gradients).diagonal().sqrt().tolist()
        step.send(gradients, self.weights, self.weights)
        self._learn(step.losses, dict(zip(step.losses, length_T, strict=True)))

    def _learn(self, losses: Mapping[str, Tensor], lengths: Mapping[str, float]) -> None:
        for name, loss in losses.items():
            self._first.setdefault(name, loss.detach().double())
        taking = {name: loss for name, loss in losses.items() if 0 < lengths[name] < float("inf")}
        if len(taking) < 2:
            return
        length_T = torch.tensor([lengths[name] for name in taking], dtype=torch.float64)
        ratio_T = torch.stack([loss.detach().double() / self._first[name] for name, loss in taking.items()])
        weighted_T = self._factors.values(taking) * length_T
        target_T = weighted_T.mean() * (ratio_T / ratio_T.mean()).clamp(min=1e-8) ** self.options.gradnorm_alpha
        gradient_T = torch.sign(weighted_T - target_T) * length_T
        before = float(self._factors.values(taking).sum())
        self._factors.descend(dict(zip(taking, gradient_T.tolist(), strict=True)))
        moved_T = self._factors.values(taking).clamp(min=1e-3)
        for name, value in zip(taking, (moved_T * before / moved_T.sum()).tolist(), strict=True):
            self._factors.set(name, value)

    def state(self) -> dict[str, Tensor]:
        """Return factors with Adam's moments, and the first losses."""
        kept = {f"factor.{name}": part for name, part in self._factors.memory.items()}
        return kept | {f"first.{name}": part for name, part in self._first.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self._factors.memory = _below("factor.", state)
        self._first = _below("first.", state)


class Combiner(Balancer, ABC):
    """Asks a member of torchjd how the gradients on the trunk combine; it sees their inner products alone."""

    cuts_trunk: ClassVar[bool] = True

    def backward(self, step: Step) -> None:
        """Put the combined gradient on what is shared, and each loss's own on the rest."""
        gradients = step.gradients()
        own = {name: self.prior_of(name) for name in step.losses}
        shared = dict(own)
        table_TT, names = gramian(gradients), list(step.losses)
        taking = [at for at, name in enumerate(names) if own[name] > 0 and 0 < float(table_TT[at, at]) < float("inf")]
        if len(taking) > 1:
            prior_T = torch.tensor([own[names[at]] for at in taking], dtype=torch.float64)
            found_T = self._combined(table_TT[taking][:, taking], prior_T, tuple(names[at] for at in taking))
            shared |= {names[at]: float(found_T[place]) for place, at in enumerate(taking)}
        self.weights = shared
        step.send(gradients, shared, own)

    def _combined(self, gramian_TT: Tensor, prior_T: Tensor, names: tuple[str, ...]) -> Tensor:
        """Return what `combine` finds, or the prior, with a warning, where its solver gives up."""
        try:
            found_T = self.combine(gramian_TT, prior_T, names)
        except (ValueError, TypeError, ArithmeticError, solver_error()) as fault:
            _log.warning("no combined gradient in this step (%s); the configured weights are used", fault)
            return prior_T
        return found_T if bool(found_T.isfinite().all()) else prior_T

    @abstractmethod
    def combine(self, gramian_TT: Tensor, prior_T: Tensor, names: tuple[str, ...]) -> Tensor:
        """Return the weights of the gradients, (T,), prior included. gramian_TT: float64, its diagonal above 0."""


class PCGrad(Combiner):
    """Takes from each gradient what conflicts with another's, then adds up. Reference: Yu et al., NeurIPS 2020.

    The order in which conflicts are met is drawn anew for each step.
    """

    def __init__(self, prior: Mapping[str, float], options: BalancingOptions, seed: int) -> None:
        super().__init__(prior, options, seed)
        self._steps = torch.zeros((), dtype=torch.int64)
        self._weighting = torchjd().PCGradWeighting()

    def combine(self, gramian_TT: Tensor, prior_T: Tensor, names: tuple[str, ...]) -> Tensor:
        """Project the gradients times their priors: a projection is the same at any length of the other gradient."""
        self._steps += 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "pcgrad", int(self._steps)))
            factor_T: Tensor = self._weighting(_scaled(gramian_TT, prior_T))
        return prior_T * factor_T

    def state(self) -> dict[str, Tensor]:
        """Return how many orders were drawn."""
        return {"steps": self._steps}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self._steps = state["steps"].clone()


class CAGrad(Combiner):
    """Helps the worst-off loss most, within a ball around the mean gradient. Reference: Liu et al., NeurIPS 2021."""

    def combine(self, gramian_TT: Tensor, prior_T: Tensor, names: tuple[str, ...]) -> Tensor:
        """Ask for the gradients times their priors, so that the ball's centre is the prior's mean."""
        weighting = torchjd().CAGradWeighting(c=self.options.cagrad_radius)
        factor_T: Tensor = weighting(_scaled(gramian_TT, prior_T))
        return len(names) * prior_T * factor_T


class MGDA(Combiner):
    """Takes the shortest vector among all weighted means of the gradients. Reference: Sener & Koltun, NeurIPS 2018."""

    def combine(self, gramian_TT: Tensor, prior_T: Tensor, names: tuple[str, ...]) -> Tensor:
        """Multiply the prior afterwards: the shortest vector would favour a gradient for having been made small."""
        factor_T: Tensor = torchjd().MGDAWeighting()(_scaled(gramian_TT, torch.ones_like(prior_T)))
        return len(names) * prior_T * factor_T


class NashMtl(Combiner):
    """Bargains: the update on which the product of the losses' gains is largest. Reference: Navon et al., ICML 2022.

    Which scale a gradient has does not matter to it, so the prior multiplies the weight afterwards. torchjd's solver
    starts from the last weights of the same losses, which are its memory.
    """

    def __init__(self, prior: Mapping[str, float], options: BalancingOptions, seed: int) -> None:
        super().__init__(prior, options, seed)
        self._solvers: dict[str, Any] = {}
        self._last: dict[str, Tensor] = {}  # per set of losses: solver's weights, and how often they were asked for

    def combine(self, gramian_TT: Tensor, prior_T: Tensor, names: tuple[str, ...]) -> Tensor:
        """Hand in a square root of the inner products, every `nash_every` steps that have the same losses."""
        key = "/".join(names)
        asked = int(self._last[key][-1]) if key in self._last else 0
        if asked % self.options.nash_every == 0:
            self._last[key] = torch.cat([self._bargain(key, gramian_TT), torch.zeros(1, dtype=torch.float64)])
        self._last[key][-1] = asked + 1
        weight_T = self._last[key][:-1]
        return len(names) * prior_T * weight_T / weight_T.sum()

    def _bargain(self, key: str, gramian_TT: Tensor) -> Tensor:
        if key not in self._solvers:
            self._solvers[key] = torchjd().NashMTL(n_tasks=len(gramian_TT), max_norm=0.0)
            if key in self._last:
                self._solvers[key].weighting.prvs_alpha = self._last[key][:-1].numpy().copy()
        value_T, vector_TT = torch.linalg.eigh(_scaled(gramian_TT, torch.ones(len(gramian_TT), dtype=torch.float64)))
        with warnings.catch_warnings():  # cvxpy remarks that torchjd's problem is not of the kind that it can keep
            warnings.simplefilter("ignore", UserWarning)
            weight_T: Tensor = self._solvers[key].weighting(vector_TT * value_T.clamp(min=0).sqrt())
        return weight_T.double()

    def state(self) -> dict[str, Tensor]:
        """Return the last weights of each set of losses."""
        return dict(self._last)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self._last, self._solvers = {key: part.clone() for key, part in state.items()}, {}


class AlignedMtl(Combiner):
    """Turns the gradients into orthogonal ones of one length, then takes the prior's mean.

    Reference: Senushkin et al., CVPR 2023.
    """

    def combine(self, gramian_TT: Tensor, prior_T: Tensor, names: tuple[str, ...]) -> Tensor:
        """Hand in the prior as the method's own preference."""
        weight_T: Tensor = torchjd().AlignedMTLWeighting(pref_vector=prior_T)(
            _scaled(gramian_TT, torch.ones_like(prior_T))
        )
        return weight_T


class UPGrad(Combiner):
    """Projects each gradient onto the cone where no loss rises, then adds up. Reference: Quinton & Rey, 2024."""

    def combine(self, gramian_TT: Tensor, prior_T: Tensor, names: tuple[str, ...]) -> Tensor:
        """Hand in the prior as the method's own preference."""
        weight_T: Tensor = torchjd().UPGradWeighting(pref_vector=prior_T)(_scaled(gramian_TT, torch.ones_like(prior_T)))
        return weight_T


def torchjd() -> Any:
    """Return torchjd's combiners. They load cvxpy, which takes seconds that a run with other weights does not pay."""
    return import_module("torchjd.aggregation")


def solver_error() -> Any:
    """Return what cvxpy raises when a solver gives up."""
    return import_module("cvxpy.error").SolverError


def _scaled(gramian_TT: Tensor, prior_T: Tensor) -> Tensor:
    """Return the products of the gradients times `prior_T`, with a mean square of 1: solvers have absolute limits."""
    scaled_TT = gramian_TT * prior_T[:, None] * prior_T[None, :]
    return scaled_TT / scaled_TT.diagonal().mean()


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): part for name, part in state.items() if name.startswith(prefix)}
