"""How the towers' tasks share what lies between their inputs and their logits: a registry of types behind one face.

Shapes: T tasks, B rows, W width of the inputs, O width of a task's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from kgrec.model.experts import Experts
from kgrec.model.layers import FeedForward
from kgrec.model.sharing_role import Mixed, Sharing, SharingConfig, SharingName, once_each


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
