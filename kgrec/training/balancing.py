"""How several losses become one update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from torch import Tensor


class Balancer(Protocol):
    """Turns the losses of a step into gradients. Its memory, if any, is tensors, so that a checkpoint can hold it."""

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Put gradients on the parameters; every loss is a scalar under its task's name, at least one is given."""

    def state(self) -> dict[str, Tensor]:
        """Return what must survive a restart."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""


class FixedBalancer:
    """The weighted sum of the losses with weights that do not move; a name without a weight weighs 1.

    >>> import torch
    >>> x = torch.tensor(1.0, requires_grad=True)
    >>> FixedBalancer({"link": 0.5}).backward({"link": 4 * x, "click": x})
    >>> x.grad.item()
    3.0
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Sum in the order given, then one backward pass."""
        terms = [loss * self.weights.get(name, 1.0) for name, loss in losses.items()]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        total.backward()  # type: ignore[no-untyped-call]

    def state(self) -> dict[str, Tensor]:
        """Return nothing: it has no memory."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take nothing."""


BALANCERS: Final[Mapping[str, Callable[[Mapping[str, float]], Balancer]]] = MappingProxyType({"fixed": FixedBalancer})
"""Every balancer by name; each is made from the configured task weights."""
