"""Few parameters beside a large table, and the encoder of entity and relation that all tasks share.

Shapes: E entities, D dimensions, W dimensions of a relation, A the adapter's rank, B rows, H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """A table plus a product of two thin ones, which starts at zero: E * A + A * D numbers instead of E * D.

    Reference: LoRA (Hu et al., ICLR 2022).
    """

    def __init__(self, rows: int, dimensions: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.left_EA = nn.Parameter(torch.randn(rows, rank, generator=generator) / rank**0.5)
        self.right_AD = nn.Parameter(torch.zeros(rank, dimensions))

    def forward(self, table_ED: Tensor) -> Tensor:
        """Return the adapted table, (E, D)."""
        return torch.addmm(table_ED, self.left_EA, self.right_AD)


def adapt_entities(tables: nn.Module, rank: int, generator: torch.Generator) -> None:
    """Make `tables.entities_ED` the adapted table from now on; the table itself and the adapter are two parameters."""
    rows, dimensions = tables.get_parameter("entities_ED").shape
    parametrize.register_parametrization(tables, "entities_ED", LowRank(rows, dimensions, rank, generator))


class SharedEncoder(nn.Module):
    """entity + B tanh(A [entity; relation]): one encoder of concatenated vectors, read by the decoders of all tasks.

    The link decoder reads (head, relation); retrieval and the towers read (item, "interacts"), a relation of its own.
    It starts as the entity alone: B is zero. interacts_W: that relation's vector.
    """

    def __init__(self, dimensions: int, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(dimensions + width, hidden)
        self.outer = nn.Linear(hidden, dimensions)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self.interacts_W = nn.Parameter(torch.zeros(width))

    def forward(self, entity_BD: Tensor, relation_BW: Tensor) -> Tensor:
        """Return the encoded entities, (B, D)."""
        change_BD: Tensor = self.outer(torch.tanh(self.inner(torch.cat([entity_BD, relation_BW], dim=-1))))
        return entity_BD + change_BD

    def items(self, items_ID: Tensor) -> Tensor:
        """Return the items encoded with the relation of being interacted with, (I, D)."""
        return self.forward(items_ID, self.interacts_W.expand(len(items_ID), -1))
