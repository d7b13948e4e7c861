"""The served vector as blocks: the trained vectors and, beside them, what earns its place on validation.

Shapes: U users, I items, D trained dimensions, W = D + 1 served dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def popularity_block(counts_I: Tensor) -> Tensor:
    """Return log1p of the counts, scaled to at most 1: (I,) in [0, 1]; zeros where nothing was counted.

    >>> popularity_block(torch.tensor([0.0, 1.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    logs_I = torch.log1p(counts_I.float())
    top = logs_I.max() if len(logs_I) else logs_I.sum()
    return logs_I / top if float(top) > 0 else logs_I


def joined(users_UD: Tensor, items_ID: Tensor, block_I: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Return users_UW and items_IW whose inner product is the trained one plus weight * block, for every user alike."""
    ones_U1 = torch.ones(len(users_UD), 1, dtype=users_UD.dtype)
    return torch.cat([users_UD, ones_U1], dim=1), torch.cat([items_ID, weight * block_I[:, None]], dim=1)


def widened(folded_BD: Tensor, width: int) -> Tensor:
    """Return vectors of newcomers in the width of the served ones: the constant 1 in each further block.

    >>> widened(torch.zeros(1, 2), 3).tolist()
    [[0.0, 0.0, 1.0]]
    """
    return torch.cat([folded_BD, torch.ones(len(folded_BD), width - folded_BD.shape[1])], dim=1)
