"""One step of training as a balancer sees it: the losses, their gradients on what they share, and looks after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kgrec.model.network import Encoded, Network
from kgrec.training.tasks import Task
from kgrec.training.trunk import Parts, Trunk

Batches = Sequence[tuple[Task, Sequence[Tensor]]]


class Step:
    """The losses of one step's batches, each a scalar under its name, in the order of the tasks.

    cut: cut the encoder's output off, so that `gradients` and `send` work; a plain backward pass of the losses then
    ends there. held_out: batches of rows that training never uses, for balancers that look ahead.
    """

    def __init__(self, network: Network, batches: Batches, *, cut: bool = False, held_out: Batches = ()) -> None:
        self._network, self._batches, self._held_out = network, batches, held_out
        self._random = torch.get_rng_state()
        encoded = network.encode()
        self._trunk = Trunk(encoded) if cut else None
        self.losses = losses_of(network, batches, self._trunk.encoded if self._trunk else encoded)

    def gradients(self) -> dict[str, Parts]:
        """Return each loss's gradient on what it reaches outside the encoder. Asked once: it frees the graph."""
        return self._cut().gradients(self.losses, self._network)

    def send(self, gradients: Mapping[str, Parts], shared: Mapping[str, float], own: Mapping[str, float]) -> None:
        """Put gradients on all parameters: weighted by `shared` where losses meet, by `own` elsewhere."""
        self._cut().send(gradients, shared, own, self._network)

    @torch.no_grad()
    def again(self) -> dict[str, Tensor]:
        """Return the losses of the same batches, with the same dropout, under the parameters as they are now."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            return losses_of(self._network, self._batches, self._network.encode())

    def held_out_gradients(self) -> dict[str, Parts]:
        """Return the gradients of the held-out losses under the parameters as they are now, without dropout."""
        training = self._network.training
        self._network.eval()
        with torch.no_grad():
            encoded = self._network.encode()
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
        losses.update(task.losses(network, encoded, batch))
    return losses
