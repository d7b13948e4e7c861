"""What stands beside the trained vectors in a score, and with what weights.

A score is the cosine of the trained vectors, plus the weighted parts that validation found worth it: two of item
neighbours (the best linear baseline's weights; the graph kernel's), log popularity, and a constant for what the user
had before and may have again. Popularity is a dimension of the served vectors; the neighbours are sparse rows.

Shapes: I items, D trained dimensions, W = D + 1 served dimensions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

_LINEAR = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_KERNEL = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
_POPULARITY = (0.0, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
_REPEAT = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)


class BlocksConfig(BaseModel):
    """[blocks]: what may stand beside the trained vectors. Validation chooses the weights; 0 switches a part off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbour_weights: int = Field(
        default=8_000_000,
        ge=0,
        description="stored weights of each part of item neighbours, at most, the largest of each item's; 0 = neither",
    )
    linear: tuple[float, ...] = Field(
        default=_LINEAR, min_length=1, description="weights of the best linear baseline to try, >= 0"
    )
    kernel: tuple[float, ...] = Field(
        default=_KERNEL, min_length=1, description="weights of the graph kernel to try, >= 0"
    )
    popularity: tuple[float, ...] = Field(
        default=_POPULARITY, min_length=1, description="weights of log popularity (0 to 1) to try, >= 0"
    )
    repeat: tuple[float, ...] = Field(
        default=_REPEAT,
        min_length=1,
        description="weights of what the user had before to try, >= 0; without effect where that is no candidate",
    )
    choosing_users: int = Field(
        default=5_000, ge=1, description="users of validation that choose the weights, at most; evenly taken"
    )


@dataclass(frozen=True)
class BlockWeights:
    """How much each part counts beside the trained cosine's 1."""

    linear: float = 0.0
    kernel: float = 0.0
    popularity: float = 0.0
    repeat: float = 0.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the parts beside the trained one, in the order of the fields."""
        return tuple(field.name for field in fields(cls))

    def as_tensor(self) -> Tensor:
        """Return the four weights in the order of the fields, float32."""
        return torch.tensor(list(asdict(self).values()))

    @classmethod
    def of_tensor(cls, weights_4: Tensor) -> BlockWeights:
        """Return what `as_tensor` gave.

        >>> BlockWeights.of_tensor(BlockWeights(linear=2.0, repeat=0.5).as_tensor())
        BlockWeights(linear=2.0, kernel=0.0, popularity=0.0, repeat=0.5)
        """
        return cls(*weights_4.tolist())


def with_popularity(users_UD: Tensor, items_ID: Tensor, popularity_I: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Return users_UW = [user, 1], zeros where the user is unknown, and items_IW = [item, weight * popularity]."""
    known_U1 = (users_UD.abs().sum(dim=1, keepdim=True) > 0).to(users_UD.dtype)
    return torch.cat([users_UD, known_U1], dim=1), torch.cat([items_ID, weight * popularity_I[:, None]], dim=1)
