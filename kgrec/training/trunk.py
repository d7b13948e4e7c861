"""What the losses of a step share, cut off from the encoder: each loss's gradient there, and their sum sent on.

Shapes: U users, I items, E entities (the first I are the items), D dimensions, T losses.

A task reads a node's vector encoded (retrieval, towers) or as it stands in the table (links). Its gradient on the
trunk is how its loss changes when that vector is shifted, wherever the task reads it: the table of all nodes is never
differentiated once per task, the encoder runs backwards once (MGDA-UB: Sener & Koltun, NeurIPS 2018, section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from kgrec.model.network import Encoded

_UNIT: tuple[str, ...] = ("users_UD", "items_ID")
_ITEMS, _ENTITIES = "items_ID", "entities_ED"
_VECTORS = frozenset(field.name for field in fields(Encoded))
Parts = Mapping[str, Tensor]
"""The gradient of one loss: by name of a shared vector table ("users_UD") or of a parameter ("towers.deep.bias")."""


class Trunk:
    """The encoder's output as leaves. Tasks read `encoded`; `send` puts a combined gradient through the encoder."""

    def __init__(self, encoded: Encoded) -> None:
        found = {field.name: getattr(encoded, field.name) for field in fields(encoded)}
        self._outputs: dict[str, Tensor] = {name: part for name, part in found.items() if isinstance(part, Tensor)}
        self.leaves = {name: part.detach().requires_grad_() for name, part in self._outputs.items()}
        leaves: dict[str, Any] = dict(self.leaves)
        self.encoded = replace(encoded, **leaves)

    def gradients(self, losses: Mapping[str, Tensor], network: nn.Module) -> dict[str, Parts]:
        """Return each loss's gradient by everything it reaches: the leaves, and parameters outside the encoder.

        Along a vector whose length the encoder fixes nothing can change: that part of the gradient is left out.
        """
        named = {**self.leaves, **dict(network.named_parameters())}
        wanted = {name: part for name, part in named.items() if part.requires_grad}
        found: dict[str, Parts] = {}
        for place, (name, loss) in enumerate(losses.items(), start=1):
            if not loss.requires_grad:
                found[name] = {}
                continue
            parts = torch.autograd.grad(loss, list(wanted.values()), retain_graph=place < len(losses),
                                        allow_unused=True)  # fmt: skip
            found[name] = {
                key: _tangent(part, self.leaves[key].detach()) if key in _UNIT else part
                for key, part in zip(wanted, parts, strict=True)
                if part is not None
            }
        return found

    def send(self, gradients: Mapping[str, Parts], shared: Mapping[str, float], own: Mapping[str, float],
             network: nn.Module) -> None:  # fmt: skip
        """Put gradients on all parameters: weighted by `shared` where two losses or more meet, else by `own`."""
        meeting = met(gradients)
        parameters = dict(network.named_parameters())
        combined: dict[str, Tensor] = {}
        for name, parts in gradients.items():
            for key, part in parts.items():
                weight = shared[name] if key in meeting or key in self.leaves else own[name]
                combined[key] = combined[key].add_(part, alpha=weight) if key in combined else part * weight
        for key, gradient in combined.items():
            if key not in self.leaves:
                parameters[key].grad = gradient
        through = [key for key in self.leaves if key in combined and self._outputs[key].requires_grad]
        if through:
            torch.autograd.backward([self._outputs[key] for key in through], [combined[key] for key in through])


def met(gradients: Mapping[str, Parts]) -> set[str]:
    """Return what two losses or more reach.

    >>> one = torch.ones(1)
    >>> met({"click": {"bottom": one, "head": one}, "conversion": {"bottom": one}})
    {'bottom'}
    """
    seen: set[str] = set()
    twice: set[str] = set()
    for parts in gradients.values():
        twice |= seen & set(parts)
        seen |= set(parts)
    return twice


def inner(left: Parts, right: Parts, within: set[str]) -> float:
    """Return the inner product of two gradients over the node vectors and over the parameters named in `within`.

    An item's vector is one node whether it is read encoded or from the table, so both readings are added up.
    """
    counted = within | _VECTORS
    total = sum(_dot(part, right[key]) for key, part in left.items() if key in right and key in counted)
    for here, there in ((left, right), (right, left)):
        if _ITEMS in here and _ENTITIES in there:
            total += _dot(here[_ITEMS], there[_ENTITIES][: len(here[_ITEMS])])
    return total


def gramian(gradients: Mapping[str, Parts]) -> Tensor:
    """Return the inner products of all pairs of gradients over what they share, (T, T) float64, in the order given."""
    within, names = met(gradients), list(gradients)
    table_TT = torch.zeros(len(names), len(names), dtype=torch.float64)
    for row, name in enumerate(names):
        for column, other in enumerate(names[: row + 1]):
            table_TT[row, column] = table_TT[column, row] = inner(gradients[name], gradients[other], within)
    return table_TT


def cosines(gramian_TT: Tensor) -> Tensor:
    """Return the cosines of all pairs of gradients, in [-1, 1]; NaN where one of them is zero.

    >>> cosines(torch.tensor([[4.0, -2.0], [-2.0, 1.0]]))[0, 1].item()
    -1.0
    """
    length_T = gramian_TT.diagonal().sqrt()
    return (gramian_TT / (length_T[:, None] * length_T[None, :])).clamp(-1, 1)


def _dot(left: Tensor, right: Tensor) -> float:
    return float((left * right).sum(dtype=torch.float64))


def _tangent(gradient_ND: Tensor, unit_ND: Tensor) -> Tensor:
    return gradient_ND - (gradient_ND * unit_ND).sum(1, keepdim=True) * unit_ND
