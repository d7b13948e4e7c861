"""A step without a network: losses of one shared vector and of vectors of their own, for balancers' arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from kgrec.training.trunk import Parts, met

SHARED = "trunk.x"


class ToyStep:
    """`functions` make each loss of the shared vector x; `own` names losses that also pull on a number of their own."""

    def __init__(self, x: Tensor, functions: Mapping[str, Callable[[Tensor], Tensor]], own: tuple[str, ...] = (),
                 held_out: Mapping[str, Callable[[Tensor], Tensor]] | None = None) -> None:  # fmt: skip
        self.x, self.functions, self.held = x, functions, held_out or {}
        self.own = {name: torch.ones(1, requires_grad=True) for name in own}
        self.losses = self._losses()

    def _losses(self) -> dict[str, Tensor]:
        return {name: f(self.x) + (self.own[name].sum() if name in self.own else 0) for name, f in
                self.functions.items()}  # fmt: skip

    def gradients(self) -> dict[str, Parts]:
        return {name: self._parts(loss, self.own.get(name), name) for name, loss in self.losses.items()}

    def _parts(self, loss: Tensor, own: Tensor | None, name: str) -> Parts:
        wanted = {SHARED: self.x} | ({f"own.{name}": own} if own is not None else {})
        found = torch.autograd.grad(loss, list(wanted.values()), retain_graph=True)
        return dict(zip(wanted, found, strict=True))

    def send(self, gradients: Mapping[str, Parts], shared: Mapping[str, float], own: Mapping[str, float]) -> None:
        assert met(gradients) <= {SHARED}
        self.x.grad = sum(shared[name] * parts[SHARED] for name, parts in gradients.items())
        for name, tensor in self.own.items():
            tensor.grad = own[name] * gradients[name][f"own.{name}"]

    def again(self) -> dict[str, Tensor]:
        with torch.no_grad():
            return self._losses()

    def held_out_gradients(self) -> dict[str, Parts]:
        return {name: self._parts(f(self.x), None, name) for name, f in self.held.items()}


def lines(x: Tensor, *directions: list[float]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Losses a, b, ... that fall along the given directions, all 10 at the origin."""
    return {name: partial(_line, direction) for name, direction in zip("abcdef", directions, strict=False)}


def _line(direction: list[float], y: Tensor) -> Tensor:
    return 10.0 + y @ torch.tensor(direction)
