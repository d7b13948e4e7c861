"""What every type of sharing promises, and the config of all: `kgrec.model.sharing` holds the types.

Shapes: T tasks, B rows, W width of the inputs, O width of a task's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


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


def once_each(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the module's output for each input, computed once where inputs are the same tensor."""
    done: dict[int, Tensor] = {}
    for part in inputs:
        if id(part) not in done:
            done[id(part)] = module(part)
    return [done[id(part)] for part in inputs]
