"""The processes that train together: who this one is, its share of the rows, and sums over all of them.

Every process holds the same parameters and sees the same draws. Of each batch it computes a run of rows; sums put the
parts together again, so that a step is that of one process up to the order in which numbers are added.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class World:
    """One process among `size`. Alone, nothing is sent and nothing is added."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> World:
        """Return this process's place in torch's process group; alone where there is none."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def leads(self) -> bool:
        """Say whether this is the process that judges, saves and tells."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return this process's run of `count` rows; the runs are near-equal and together every row once.

        >>> [World(rank, 3).share(7) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, the same bits in each; the values themselves where alone."""
        if self.size == 1:
            return values
        total = values.detach().clone().contiguous()
        distributed.all_reduce(total)
        return total

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the sum over all processes in the place of every gradient; none stays none where no process has one."""
        if self.size == 1:
            return
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        has = torch.tensor([0 if parameter.grad is None else 1 for parameter in learning], dtype=torch.int32)
        for parameter, anywhere in zip(learning, self.sum(has).tolist(), strict=True):
            if not anywhere:
                continue
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.contiguous()
            distributed.all_reduce(gradient)
            parameter.grad = gradient

    def from_leader(self, value: Any) -> Any:
        """Return the leader's value, which JSON must be able to hold, in every process."""
        if self.size == 1:
            return value
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8) if self.leads else None
        length = torch.tensor([0 if text is None else len(text)])
        distributed.broadcast(length, 0)
        sent = torch.empty(int(length), dtype=torch.uint8) if text is None else text
        distributed.broadcast(sent, 0)
        return json.loads(bytes(sent.tolist()))

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            distributed.barrier()


ALONE = World()
