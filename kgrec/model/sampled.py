"""Propagation for the rows of one step: each node asks a few drawn neighbours a layer instead of all.

For a graph that does not fit a step: what a step costs follows from its rows, layers and fanout, not from the graph.
The draws are a hash of key, layer and node, so that a node asks the same neighbours whichever process computes it.

Shapes: N nodes asked for, M nodes that are reached, Y drawn edges, D dimensions, K nodes of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_GOLDEN, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685  # splitmix64, as int64


def hashed(key: int, *parts: Tensor) -> Tensor:
    """Return numbers in [0, 1), float64, that follow from a key and whole numbers alone (splitmix64).

    >>> one = hashed(3, torch.arange(4))
    >>> bool((one == hashed(3, torch.arange(4))).all()), bool((one == hashed(4, torch.arange(4))).any())
    (True, False)
    """
    mixed: Tensor = torch.full_like(parts[0], key)
    for part in parts:
        mixed = _mix(mixed + part * _GOLDEN + _GOLDEN)
    return ((mixed >> 11) & ((1 << 53) - 1)).double() / (1 << 53)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ ((value >> 30) & ((1 << 34) - 1))) * _FIRST
    value = (value ^ ((value >> 27) & ((1 << 37) - 1))) * _SECOND
    return value ^ ((value >> 31) & ((1 << 33) - 1))


@dataclass(frozen=True)
class Rows:
    """Rows of users, items and entities (items first): what tasks read, or what encoded vectors are of."""

    users: Tensor
    items: Tensor
    entities: Tensor

    @staticmethod
    def of(users: Tensor | None = None, items: Tensor | None = None, entities: Tensor | None = None) -> Rows:
        """Return rows of which any may be left out."""
        none = torch.zeros(0, dtype=torch.int64)
        return Rows(*(none if part is None else part for part in (users, items, entities)))

    @staticmethod
    def joined(parts: Iterable[Rows]) -> Rows:
        """Return all of them once, ascending, without -1 (unknown)."""
        found = list(parts)
        columns = ([rows.users for rows in found], [rows.items for rows in found], [rows.entities for rows in found])
        return Rows(*(distinct(torch.cat(column)) for column in columns))

    def aligned(self, num_items: int) -> Rows:
        """Return rows where every item is among the entities and the other way round, as in the whole tables."""
        if not len(self.entities):
            return self
        entities = distinct(torch.cat([self.items, self.entities]))
        return Rows(self.users, entities[entities < num_items], entities)


def distinct(row_B: Tensor) -> Tensor:
    """Return the rows once, ascending; -1 is left out."""
    found: Tensor = torch.unique(row_B[row_B >= 0])
    return found


def places(held_N: Tensor, row_B: Tensor) -> Tensor:
    """Return where each row stands among ascending rows that hold it; -1 stays.

    >>> places(torch.tensor([2, 5, 9]), torch.tensor([9, -1, 2])).tolist()
    [2, -1, 0]
    """
    return torch.where(row_B < 0, row_B, torch.searchsorted(held_N, row_B.clamp(min=0)))


@dataclass(frozen=True)
class Layer:
    """Drawn edges of one layer: node_N asks, reached_M holds node_N and all who are asked, both ascending.

    own_N and asked_Y are places in reached_M, asking_Y in node_N; weight_Y is the edge's, raised for those not drawn.
    """

    node_N: Tensor
    reached_M: Tensor
    own_N: Tensor
    asking_Y: Tensor
    asked_Y: Tensor
    weight_Y: Tensor


def draw_layer(matrix_KK: Tensor, node_N: Tensor, fanout: int, key: int) -> Layer:
    """Return at most `fanout` neighbours of each node: all where there are no more, else one from each equal stretch.

    A neighbour of a node with d of them is drawn with probability fanout / d and weighs d / fanout times as much, so
    that the expected sum is the whole one.
    """
    starts, columns, values = matrix_KK.crow_indices(), matrix_KK.col_indices(), matrix_KK.values()
    first_N, degree_N = starts[node_N].long(), (starts[node_N + 1] - starts[node_N]).long()
    count_N = degree_N.clamp(max=fanout)
    asking_Y = torch.repeat_interleave(torch.arange(len(node_N)), count_N)
    turn_Y = torch.arange(len(asking_Y)) - (count_N.cumsum(0) - count_N)[asking_Y]
    share_Y = degree_N[asking_Y].double() / count_N[asking_Y]
    drawn_Y = ((turn_Y + hashed(key, node_N[asking_Y], turn_Y)) * share_Y).long().minimum(degree_N[asking_Y] - 1)
    place_Y = first_N[asking_Y] + drawn_Y
    neighbour_Y = columns[place_Y].long()
    reached_M = torch.unique(torch.cat([node_N, neighbour_Y]))
    own_N, asked_Y = torch.searchsorted(reached_M, node_N), torch.searchsorted(reached_M, neighbour_Y)
    return Layer(node_N, reached_M, own_N, asking_Y, asked_Y, values[place_Y] * share_Y.to(values.dtype))


def draw_layers(matrix_KK: Tensor | None, node_N: Tensor, layers: int, fanout: int, key: int) -> list[Layer]:
    """Return the layers from the nodes outward; node_N ascending and distinct. None without a matrix."""
    found: list[Layer] = []
    for layer in range(layers if matrix_KK is not None else 0):
        assert matrix_KK is not None  # noqa: S101  for the type checker
        found.append(draw_layer(matrix_KK, node_N, fanout, key + layer))
        node_N = found[-1].reached_M
    return found


def propagate_drawn(reached_MD: Tensor, layers: list[Layer]) -> Tensor:
    """Return the mean of x, Ax, ..., A^layers x at the nodes asked for, (N, D), every A one of drawn edges.

    reached_MD: the rows of all nodes that the last layer reaches (of the nodes themselves without layers). With a
    fanout above every degree this is `propagate` at these nodes.
    """
    total_MD, own_MD = reached_MD, reached_MD
    place = torch.arange(len(reached_MD))
    kept = []  # of each layer's asking nodes, the places among those that the last layer reaches
    for layer in reversed(layers):
        place = place[layer.own_N]
        kept.append(place)
    for layer, place_N in zip(reversed(layers), kept, strict=True):
        message_YD = total_MD.index_select(0, layer.asked_Y) * layer.weight_Y[:, None]
        total_MD = own_MD.index_select(0, place_N).index_add(0, layer.asking_Y, message_YD)
    return total_MD / (len(layers) + 1)
