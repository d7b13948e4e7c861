"""In which order the rows of a task come in an epoch.

Shapes: P rows, B rows of a batch, U users.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

MANY_ROWS: Final = 1 << 22
_TOGETHER: Final = 64


def shuffled(rows: int, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield `count` near-equal parts of a random order of the rows.

    Of more than 4,194,304 rows neighbours stay together, 64 at a time from a random place on: the order is an eighth
    of a byte a row instead of eight, and a batch read from a file is a few hundred pages instead of one for each row.
    """
    if rows <= MANY_ROWS:
        yield from torch.randperm(rows, generator=generator).tensor_split(count)
        return
    ahead = int(torch.randint(_TOGETHER, (), generator=generator))
    blocks = -(-(rows + ahead) // _TOGETHER)
    for block_K in torch.randperm(blocks, generator=generator).tensor_split(count):
        row_B = (block_K[:, None] * _TOGETHER + torch.arange(_TOGETHER) - ahead).flatten()
        yield row_B[(row_B >= 0) & (row_B < rows)]


def shuffled_by_user(user_P: Tensor, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield `count` near-equal parts of the rows, users in a random order and each user's rows together.

    Only the user at a border is in two parts. A softmax over the catalogue costs as much as a batch has users, so rows
    that share theirs come cheaply.

    >>> parts = list(shuffled_by_user(torch.tensor([3, 1, 3, 1]), 2, torch.Generator().manual_seed(0)))
    >>> sorted(sorted(part.tolist()) for part in parts)
    [[0, 2], [1, 3]]
    """
    users_U, place_P = torch.unique(user_P, return_inverse=True)
    rank_U = torch.randperm(len(users_U), generator=generator)
    yield from rank_U[place_P].argsort(stable=True).tensor_split(count)
