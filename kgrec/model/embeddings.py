"""The shared tables of vectors that every task reads and trains.

Shapes: U users, E entities (the first I of them are the items), R relations, D dimensions, W dimensions of a relation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

Head = Literal["click", "conversion"]
TowerPart = Literal["transfer", "imputation"]


class NetworkShape(BaseModel):
    """How many of everything there is: fixed by the data, not chosen. A graph alone has zero users and items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_users: int = Field(ge=0, description="users in the vocabulary, a count >= 0")
    num_items: int = Field(ge=0, description="items, the first entity rows, a count >= 0")
    num_entities: int = Field(ge=0, description="entities including the items, a count >= num_items")
    num_relations: int = Field(default=0, ge=0, description="relations of the triples, without inverses, a count >= 0")
    num_numeric: int = Field(default=0, ge=0, description="columns of numeric features of an exposure, a count >= 0")
    cardinalities: tuple[int, ...] = Field(
        default=(), description="how many values each categorical feature of an exposure has, counts >= 1"
    )
    heads: tuple[Head, ...] = Field(default=(), description="labels that the towers learn: click, conversion")
    tower_parts: tuple[TowerPart, ...] = Field(
        default=(), description="what the loss of conversion asks of the towers besides: transfer, imputation"
    )

    def model_post_init(self, context: object, /) -> None:
        """Refuse counts that contradict each other."""
        if self.num_entities < self.num_items:
            raise ValueError(f"num_entities {self.num_entities} < num_items {self.num_items}: every item is an entity")
        if any(count < 1 for count in self.cardinalities):
            raise ValueError(f"cardinalities must be at least 1: {self.cardinalities}")


class EmbeddingTables(nn.Module):
    """Who holds the vectors of users and entities: this process (`SharedTables`), or several, each its part.

    What several hold is no part of `state_dict`; it is gathered under the names that the local tables have.
    """

    relations_RW: nn.Parameter

    def rows(self, user_V: Tensor, entity_F: Tensor) -> tuple[Tensor, Tensor]:
        """Return some rows of users and of entities, (V, D) and (F, D)."""
        raise NotImplementedError

    def gathered_names(self) -> tuple[str, ...]:
        """Return the names of the tables that several processes hold."""
        return ()

    def gathered(self) -> dict[str, Tensor]:
        """Return these tables whole, by name."""
        return {}

    def gathered_sums(self) -> list[Tensor]:
        """Return the sums of squared gradients by which these tables learn, whole, in the order of the names."""
        return []

    def take(self, tables: Mapping[str, Tensor]) -> None:
        """Take the parts that are held here out of whole tables."""

    def take_sums(self, sums: Sequence[Tensor]) -> None:
        """Take the parts that are held here out of whole sums."""


class SharedTables(EmbeddingTables):
    """users_UD, entities_ED and relations_RW (twice as many rows as relations: row r + R is the inverse of r)."""

    def __init__(
        self, shape: NetworkShape, dimensions: int, width: int, spread: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.users_UD = nn.Parameter(_normal(shape.num_users, dimensions, spread, generator))
        self.entities_ED = nn.Parameter(_normal(shape.num_entities, dimensions, spread, generator))
        self.relations_RW = nn.Parameter(_normal(2 * shape.num_relations, width, spread, generator))

    def rows(self, user_V: Tensor, entity_F: Tensor) -> tuple[Tensor, Tensor]:
        """Return some rows of users and of entities, (V, D) and (F, D)."""
        return self.users_UD.index_select(0, user_V), self.entities_ED.index_select(0, entity_F)


def _normal(rows: int, dimensions: int, spread: float, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, dimensions, generator=generator) * spread


def drop_rows(table_ND: Tensor, share: float) -> Tensor:
    """Return the table with a random `share` of its rows set to zero, so that neighbours alone must place these nodes.

    The rest is not scaled up: the served model sees the same vectors.
    """
    if share <= 0:
        return table_ND
    return table_ND * (torch.rand(len(table_ND), 1, device=table_ND.device) >= share)
