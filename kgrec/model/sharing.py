"""How the towers' tasks share what lies between their inputs and their logits: a registry of types behind one face.

Shapes: T tasks, B rows, W width of the inputs, O width of a task's output, X experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, combinations, pairwise
from types import MappingProxyType
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from kgrec.model.layers import FeedForward


class SharingName(StrEnum):
    """The words that a config may use."""

    HARD = "hard"
    CROSS_STITCH = "cross_stitch"
    SOFT = "soft"
    MMOE = "mmoe"
    CGC = "cgc"
    PLE = "ple"
    ADVERSARIAL = "adversarial"


class SharingConfig(BaseModel):
    """The type of sharing and what it is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sharing: SharingName = Field(
        default=SharingName.HARD,
        description="what click and conversion share: hard (one bottom), cross_stitch, soft (tied parameters), mmoe, "
        "cgc, ple, or adversarial (shared and private parts with a discriminator)",
    )
    hidden: tuple[int, ...] = Field(
        default=(64, 32), min_length=1, description="widths of a bottom's or an expert's layers, units >= 1"
    )
    dropout: float = Field(
        default=0.3, ge=0, lt=1, description="share of the bottom's inputs and units dropped, [0, 1)"
    )
    experts: int = Field(default=3, ge=1, description="mmoe, cgc, ple: experts that all tasks use, >= 1")
    task_experts: int = Field(default=1, ge=1, description="cgc, ple: experts of each task's own, >= 1")
    tie: float = Field(
        default=0.001, ge=0, description="soft: weight of the squared distance between the tasks' parameters, >= 0"
    )
    adversary: float = Field(default=0.05, ge=0, description="adversarial: weight of the discriminator's loss, >= 0")
    orthogonality: float = Field(
        default=0.01, ge=0, description="adversarial: weight of the overlap of shared and private parts, >= 0"
    )


@dataclass(frozen=True)
class Mixed:
    """What sharing makes of the inputs: one output (B, O) a task and, where there is one, the part that all share."""

    outputs: Sequence[Tensor]
    shared_BO: Tensor | None = None


class Sharing(nn.Module):
    """One type of sharing. `width` is O, that of each task's output.

    forward takes one input (B, W) a task; where the inputs are one and the same tensor, shared parts are computed once.
    """

    width: int

    def forward(self, inputs: Sequence[Tensor]) -> Mixed:
        """Return each task's output, (B, O)."""
        raise NotImplementedError

    def penalty(self, mixed: Mixed, rows_TB: Tensor) -> Tensor | None:
        """Return what is added to the loss, a scalar >= 0, or None. rows_TB: True where a row has the task's label."""
        return None

    def private(self, task: int) -> list[nn.Parameter]:
        """Return the parameters that no other task's output depends on."""
        return []


class HardSharing(Sharing):
    """One bottom for all tasks (Caruana, Machine Learning 1997)."""

    def __init__(self, width: int, num_tasks: int, config: SharingConfig) -> None:
        super().__init__()
        self.bottom = FeedForward(width, config.hidden, config.dropout)
        self.width = self.bottom.width

    def forward(self, inputs: Sequence[Tensor]) -> Mixed:
        """Return the bottom's output for every task."""
        outputs = once_each(self.bottom, inputs)
        return Mixed(outputs, outputs[0])


class SoftSharing(Sharing):
    """A bottom for each task, their parameters tied by the squared distance (Duong et al., ACL 2015)."""

    def __init__(self, width: int, num_tasks: int, config: SharingConfig) -> None:
        super().__init__()
        self.bottoms = nn.ModuleList(FeedForward(width, config.hidden, config.dropout) for _ in range(num_tasks))
        for bottom in self.bottoms[1:]:  # one start for all, or the tie would first undo a random distance
            bottom.load_state_dict(self.bottoms[0].state_dict())
        self.width, self.tie = config.hidden[-1], config.tie

    def forward(self, inputs: Sequence[Tensor]) -> Mixed:
        """Return each bottom's output."""
        return Mixed([bottom(part) for bottom, part in zip(self.bottoms, inputs, strict=True)])

    def penalty(self, mixed: Mixed, rows_TB: Tensor) -> Tensor | None:
        """Return tie * the sum over pairs of tasks and parameters of the squared distance."""
        if self.tie == 0 or len(self.bottoms) < 2:
            return None
        distances = [
            (mine - other).square().sum()
            for left, right in combinations(self.bottoms, 2)
            for mine, other in zip(left.parameters(), right.parameters(), strict=True)
        ]
        return self.tie * torch.stack(distances).sum()

    def private(self, task: int) -> list[nn.Parameter]:
        """Return the task's bottom."""
        return list(self.bottoms[task].parameters())


class CrossStitch(Sharing):
    """A bottom for each task; after each layer every task reads a learned mixture of all (Misra et al., CVPR 2016).

    The mixture starts at .9 of its own and .1 spread over the others.
    """

    def __init__(self, width: int, num_tasks: int, config: SharingConfig) -> None:
        super().__init__()
        widths = [width, *config.hidden]
        self.layers = nn.ModuleList(
            nn.ModuleList(FeedForward(before, (after,), config.dropout, of_inputs=not depth) for _ in range(num_tasks))
            for depth, (before, after) in enumerate(pairwise(widths))
        )
        others = 0.1 / (num_tasks - 1) if num_tasks > 1 else 0.0
        start_TT = torch.full((num_tasks, num_tasks), others)
        start_TT.fill_diagonal_(0.9 if num_tasks > 1 else 1.0)
        self.stitches = nn.ParameterList(start_TT.clone() for _ in config.hidden)
        self.width = config.hidden[-1]

    def forward(self, inputs: Sequence[Tensor]) -> Mixed:
        """Return each task's last mixture."""
        outputs = list(inputs)
        for layer, stitch_TT in zip(self.layers, self.stitches, strict=True):
            assert isinstance(layer, nn.ModuleList)  # noqa: S101  for the type checker
            stacked_TBO = torch.stack([part(given) for part, given in zip(layer, outputs, strict=True)])
            outputs = list(torch.einsum("ts,sbo->tbo", stitch_TT, stacked_TBO))
        return Mixed(outputs)


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


class Adversarial(Sharing):
    """A shared part and a private part a task; a discriminator that tells the tasks by the shared part is fooled.

    Reference: Liu, Qiu and Huang, ACL 2017. A row counts for the tasks whose label it has: all exposures for click, the
    clicked ones for conversion, so that the shared part forgets what selects a row into a task, as in
    domain-adversarial training (Ganin et al., JMLR 2016). The penalty is adversary * cross-entropy of the discriminator
    behind the reversal, each task weighing the same, plus orthogonality * the mean squared cosine of shared and private
    parts.
    """

    def __init__(self, width: int, num_tasks: int, config: SharingConfig) -> None:
        super().__init__()
        self.shared = FeedForward(width, config.hidden, config.dropout)
        self.bottoms = nn.ModuleList(FeedForward(width, config.hidden, config.dropout) for _ in range(num_tasks))
        self.discriminator = nn.Linear(config.hidden[-1], num_tasks)
        self.width, self.config = 2 * config.hidden[-1], config

    def forward(self, inputs: Sequence[Tensor]) -> Mixed:
        """Return shared and private part side by side."""
        shared = once_each(self.shared, inputs)
        outputs = [
            torch.cat([common, bottom(part)], 1)
            for common, bottom, part in zip(shared, self.bottoms, inputs, strict=True)
        ]
        return Mixed(outputs, shared[0] if all(part is shared[0] for part in shared) else torch.stack(shared).mean(0))

    def penalty(self, mixed: Mixed, rows_TB: Tensor) -> Tensor | None:
        """Return the discriminator's loss, its gradient reversed for the shared part, and the overlap."""
        if mixed.shared_BO is None or len(rows_TB) < 2:
            return None
        names_BT = functional.log_softmax(self.discriminator(reverse_gradient(mixed.shared_BO)), dim=1)
        shares_T = rows_TB.sum(1).clamp(min=1)
        missed = -((rows_TB * names_BT.T).sum(1) / shares_T).mean()
        half = self.width // 2
        overlaps = [functional.cosine_similarity(output[:, :half], output[:, half:]) for output in mixed.outputs]
        return self.config.adversary * missed + self.config.orthogonality * torch.stack(overlaps).square().mean()

    def private(self, task: int) -> list[nn.Parameter]:
        """Return the task's own part."""
        return list(self.bottoms[task].parameters())


def mixture(gate_BX: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """Return the experts' outputs weighted by the softmax of the gate, (B, O).

    >>> mixture(torch.zeros(1, 2), [torch.tensor([[1.0]]), torch.tensor([[3.0]])]).item()
    2.0
    """
    return torch.einsum("bx,xbo->bo", gate_BX.softmax(dim=1), torch.stack(list(experts)))


def once_each(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the module's output for each input, computed once where inputs are the same tensor."""
    done: dict[int, Tensor] = {}
    for part in inputs:
        if id(part) not in done:
            done[id(part)] = module(part)
    return [done[id(part)] for part in inputs]


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def reverse_gradient(values: Tensor) -> Tensor:
    """Return the values; the gradient that comes back changes its sign (Ganin et al., JMLR 2016)."""
    reversed_: Tensor = _Reversal.apply(values)  # type: ignore[no-untyped-call]
    return reversed_


def _mmoe(width: int, num_tasks: int, config: SharingConfig) -> Sharing:
    return Experts(width, num_tasks, config, [config.hidden], own=0)


def _cgc(width: int, num_tasks: int, config: SharingConfig) -> Sharing:
    return Experts(width, num_tasks, config, [config.hidden], own=config.task_experts)


def _ple(width: int, num_tasks: int, config: SharingConfig) -> Sharing:
    return Experts(width, num_tasks, config, [(size,) for size in config.hidden], own=config.task_experts)


SHARING: Final[Mapping[SharingName, Callable[[int, int, SharingConfig], Sharing]]] = MappingProxyType({
    SharingName.HARD: HardSharing, SharingName.CROSS_STITCH: CrossStitch, SharingName.SOFT: SoftSharing,
    SharingName.MMOE: _mmoe, SharingName.CGC: _cgc, SharingName.PLE: _ple, SharingName.ADVERSARIAL: Adversarial,
})  # fmt: skip
"""Every type of sharing by name, made from the width of the inputs, the number of tasks and the config."""
