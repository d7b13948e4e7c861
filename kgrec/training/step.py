"""One step of training as a balancer sees it: the losses, their gradients on what they share, and looks after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kgrec.model.layers import ByteDropout
from kgrec.model.network import Encoded, Network
from kgrec.model.sampled import Rows
from kgrec.training.tasks import Task
from kgrec.training.trunk import Parts, Trunk
from kgrec.training.world import ALONE, World

Batches = Sequence[tuple[Task, Sequence[Tensor]]]


class Step:
    """The losses of one step's batches, each a scalar under its name, in the order of the tasks.

    cut: cut the encoder's output off, so that `gradients` and `send` work; a plain backward pass of the losses then
    ends there. held_out: batches of rows that training never uses, for balancers that look ahead. world: the processes
    that each compute a part of every batch; losses and `gradients` are those of all parts together, a plain backward
    pass gives the gradient of this process's part.
    """

    def __init__(
        self, network: Network, batches: Batches, *, cut: bool = False, held_out: Batches = (), world: World = ALONE
    ) -> None:
        self._network, self._batches, self._held_out, self._world = network, batches, held_out, world
        self._parts = [_part(task, batch, world) for task, batch in batches]
        self._random = torch.get_rng_state()
        encoded = network.encode(self._reads(), aligned=cut)
        self._trunk = Trunk(encoded) if cut else None
        self.losses = self._losses(self._trunk.encoded if self._trunk else encoded)

    def _reads(self) -> Rows | None:
        return reads_of(self._network, [(part.task, part.own) for part in self._parts])

    def _losses(self, encoded: Encoded) -> dict[str, Tensor]:
        if self._world.size == 1:
            return losses_of(self._network, self._batches, encoded)
        losses: dict[str, Tensor] = {}
        for part in self._parts:
            losses.update(_part_of_losses(self._network, part, encoded, self._world))
        return losses

    def gradients(self) -> dict[str, Parts]:
        """Return each loss's gradient on what it reaches outside the encoder. Asked once: it frees the graph."""
        found = self._cut().gradients(self.losses, self._network)
        return {name: {key: self._world.sum(part) for key, part in parts.items()} for name, parts in found.items()}

    def send(self, gradients: Mapping[str, Parts], shared: Mapping[str, float], own: Mapping[str, float]) -> None:
        """Put gradients on all parameters: weighted by `shared` where losses meet, by `own` elsewhere."""
        self._cut().send(gradients, shared, own, self._network)

    @torch.no_grad()
    def again(self) -> dict[str, Tensor]:
        """Return the losses of the same batches, with the same dropout, under the parameters as they are now."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            return self._losses(self._network.encode(self._reads()))

    def held_out_gradients(self) -> dict[str, Parts]:
        """Return the gradients of the held-out losses under the parameters as they are now, without dropout."""
        training = self._network.training
        self._network.eval()
        with torch.no_grad():
            encoded = self._network.encode(reads_of(self._network, self._held_out), aligned=True)
        trunk = Trunk(encoded)
        found = trunk.gradients(losses_of(self._network, self._held_out, trunk.encoded), self._network)
        self._network.train(training)
        return found

    def _cut(self) -> Trunk:
        if self._trunk is None:
            raise ValueError("this step was not cut at the trunk")
        return self._trunk


def losses_of(network: Network, batches: Batches, encoded: Encoded) -> dict[str, Tensor]:
    """Return the losses of some batches of tasks, by name."""
    losses: dict[str, Tensor] = {}
    for task, batch in batches:
        if task.rows_at_once is None or len(batch[0]) <= task.rows_at_once:
            losses.update(task.losses(network, encoded, batch))
        else:
            losses.update(_losses_by_parts(network, task, encoded, batch))
    return losses


def _losses_by_parts(network: Network, task: Task, encoded: Encoded, batch: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the losses of a large batch, of which one part's intermediate results are held at a time.

    They are computed again for the backward pass (Chen et al., 2016, arXiv:1604.06174).
    """
    rows, most, losses = len(batch[0]), task.rows_at_once or len(batch[0]), dict[str, Tensor]()
    whole = task.mass(batch)
    for start in range(0, rows, most):
        part = task.part(batch, slice(start, start + most))
        found: Mapping[str, Tensor] = checkpoint(
            task.losses, network, encoded, part, use_reentrant=False, preserve_rng_state=True
        )
        mass = task.mass(part)
        for name, loss in found.items():
            share = loss * (mass[name] / whole[name]) if whole[name] else loss * 0.0
            losses[name] = losses[name] + share if name in losses else share
    return losses


@dataclass(frozen=True)
class Part:
    """A process's rows of a task's batch. A process without rows has the first one, which then counts nothing."""

    task: Task
    whole: Sequence[Tensor]
    own: Sequence[Tensor]
    first: int
    empty: bool


def _part(task: Task, batch: Sequence[Tensor], world: World) -> Part:
    if world.size == 1:
        return Part(task, batch, batch, 0, empty=False)
    share = world.share(len(batch[0]))
    empty = share.start == share.stop
    rows = slice(0, 1) if empty else share
    return Part(task, batch, task.part(batch, rows), rows.start, empty)


def reads_of(network: Network, batches: Batches) -> Rows | None:
    """Return the rows whose vectors the losses of some batches read; None where the network encodes all rows anyway."""
    if network.config.propagation == "exact":
        return None
    return Rows.joined(task.reads(batch) for task, batch in batches)


def _part_of_losses(network: Network, part: Part, encoded: Encoded, world: World) -> dict[str, Tensor]:
    """Return the losses of the whole batch, whose gradient is that of this process's part.

    A loss is a mean over what `task.mass` counts, so that of the whole is the mean of the parts' by their masses.
    """
    with _drawing_as_part(network, part.first, len(part.whole[0])):
        own = part.task.losses(network, encoded, part.own)
    mass, whole = part.task.mass(part.own), part.task.mass(part.whole)
    scales = [0.0 if part.empty or not whole[name] else mass[name] / whole[name] for name in own]
    total_T = world.sum(torch.stack([loss.detach() * scale for loss, scale in zip(own.values(), scales, strict=True)]))
    return {
        name: _OfTheWhole.apply(loss, scale, total)  # type: ignore[no-untyped-call]
        for (name, loss), scale, total in zip(own.items(), scales, total_T, strict=True)
    }


class _OfTheWhole(torch.autograd.Function):
    """The loss of the whole batch; backwards, the part's share in it."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, scale: float, total: Tensor) -> Tensor:
        ctx.scale = scale
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.scale, None, None


@contextmanager
def _drawing_as_part(network: Network, first: int, rows: int) -> Iterator[None]:
    """Let dropout draw as for the whole batch, so that all processes draw what one would."""
    layers = [module for module in network.modules() if isinstance(module, ByteDropout)]
    for layer in layers:
        layer.part_of = (first, rows)
    try:
        yield
    finally:
        for layer in layers:
            layer.part_of = None
