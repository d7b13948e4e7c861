"""The served vector as blocks: the trained vectors and, beside them, what earns its place on validation.

A user's vector is [trained, linear, 1], an item's [trained, w * linear, p * popularity], so that one inner product is
the weighted sum of the blocks. Each block of a user has length 1, or 0 where nothing is known.

Shapes: U users, I items, B users, D trained and R linear dimensions, W = D + R + 1 served dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional


class BlocksConfig(BaseModel):
    """[blocks]: what may stand beside the trained vectors. Validation chooses the weights; 0 switches a block off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    linear_rank: int = Field(
        default=128, ge=0, description="dimensions kept of the best linear baseline's scores, >= 0; 0 = no such block"
    )
    linear_weights: tuple[float, ...] = Field(
        default=(0.0, 0.5, 1.0, 2.0, 4.0, 8.0), min_length=1, description="weights of the linear block to try, >= 0"
    )
    popularity_weights: tuple[float, ...] = Field(
        default=(0.0, 0.05, 0.1, 0.2, 0.4, 0.8),
        min_length=1,
        description="weights of log popularity (0 to 1) to try, >= 0",
    )


def popularity_block(counts_I: Tensor) -> Tensor:
    """Return log1p of the counts, scaled to at most 1: (I,) in [0, 1]; zeros where nothing was counted.

    >>> popularity_block(torch.tensor([0.0, 1.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    logs_I = torch.log1p(counts_I.float())
    top = logs_I.max() if len(logs_I) else logs_I.sum()
    return logs_I / top if float(top) > 0 else logs_I


def joined_items(items_ID: Tensor, linear_IR: Tensor, popularity_I: Tensor, weights: tuple[float, float]) -> Tensor:
    """Return items_IW; weights: of the linear block and of popularity."""
    linear, popularity = weights
    return torch.cat([items_ID, linear * linear_IR, popularity * popularity_I[:, None]], dim=1)


def unit_blocks(blocks_BX: Tensor, widths: Sequence[int]) -> Tensor:
    """Return users' blocks with each block of length 1 (0 stays 0), and the constant 1 behind: (B, sum(widths) + 1).

    >>> unit_blocks(torch.tensor([[3.0, 4.0, 0.0]]), [2, 1]).tolist()
    [[0.6000000238418579, 0.800000011920929, 0.0, 1.0]]
    """
    parts = [functional.normalize(part_BD, dim=1) for part_BD in torch.split(blocks_BX, list(widths), dim=1)]
    return torch.cat([*parts, torch.ones(len(blocks_BX), 1)], dim=1)
