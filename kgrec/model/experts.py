"""Experts mixed by gates: MMoE, CGC and PLE.

Shapes: T tasks, B rows, W width of the inputs, O width of a task's output, X experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from kgrec.model.layers import FeedForward
from kgrec.model.sharing_role import Mixed, Sharing, SharingConfig, once_each


class Experts(Sharing):
    """Experts that all tasks use and experts of each task's own, mixed by a softmax gate of each task's own, in levels.

    Several levels are PLE, one is CGC (Tang et al., RecSys 2020); one without own experts is MMoE (Ma et al., KDD
    2018). A level but the last also mixes all experts into what the next level's shared experts read.
    """

    def __init__(self, width: int, num_tasks: int, config: SharingConfig, levels: Sequence[Sequence[int]], own: int):
        super().__init__()
        self.num_tasks, self.own, self.common = num_tasks, own, config.experts
        self.experts, self.gates, self.common_gates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for depth, hidden in enumerate(levels):
            count = config.experts + own * num_tasks
            self.experts.append(
                nn.ModuleList(FeedForward(width, hidden, config.dropout, of_inputs=not depth) for _ in range(count))
            )
            self.gates.append(nn.ModuleList(nn.Linear(width, config.experts + own) for _ in range(num_tasks)))
            if depth + 1 < len(levels):
                self.common_gates.append(nn.Linear(width, count))
            width = hidden[-1]
        self.width = width

    def forward(self, inputs: Sequence[Tensor]) -> Mixed:
        """Return each task's mixture of the last level.

        Where tasks have inputs of their own (feature gates), a shared expert is asked with each task's, and what the
        shared experts of the next level read is made from the mean of the inputs.
        """
        outputs = list(inputs)
        common_BW = inputs[0] if all(part is inputs[0] for part in inputs) else torch.stack(list(inputs)).mean(0)
        for depth, (experts, gates) in enumerate(zip(self.experts, self.gates, strict=True)):
            assert isinstance(experts, nn.ModuleList)  # noqa: S101  for the type checker
            assert isinstance(gates, nn.ModuleList)  # noqa: S101
            # at the first level the tasks' inputs reach the shared experts themselves, later the shared mixture does
            asked = outputs if depth == 0 else [common_BW] * self.num_tasks
            shared = [once_each(expert, asked) for expert in experts[: self.common]]
            owned = [[expert(outputs[task]) for expert in experts[self._own(task)]] for task in range(self.num_tasks)]
            mixed = [
                mixture(gates[task](outputs[task]), [part[task] for part in shared] + owned[task])
                for task in range(self.num_tasks)
            ]
            if depth < len(self.common_gates):
                everything = [torch.stack(part).mean(0) if depth == 0 else part[0] for part in shared]
                common_BW = mixture(self.common_gates[depth](common_BW), [*everything, *chain.from_iterable(owned)])
            outputs = mixed
        return Mixed(outputs)

    def _own(self, task: int) -> slice:
        first = self.common + task * self.own
        return slice(first, first + self.own)

    def private(self, task: int) -> list[nn.Parameter]:
        """Return the last level's own experts and gate; those of earlier levels feed what all share."""
        experts, gates = self.experts[-1], self.gates[-1]
        assert isinstance(experts, nn.ModuleList)  # noqa: S101  for the type checker
        assert isinstance(gates, nn.ModuleList)  # noqa: S101
        owned = [parameter for expert in experts[self._own(task)] for parameter in expert.parameters()]
        return [*owned, *gates[task].parameters()]


def mixture(gate_BX: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """Return the experts' outputs weighted by the softmax of the gate, (B, O).

    >>> mixture(torch.zeros(1, 2), [torch.tensor([[1.0]]), torch.tensor([[3.0]])]).item()
    2.0
    """
    return torch.einsum("bx,xbo->bo", gate_BX.softmax(dim=1), torch.stack(list(experts)))
