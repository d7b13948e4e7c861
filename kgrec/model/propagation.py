"""Linear propagation over the collaborative knowledge graph: one symmetric sparse matrix of users and entities.

Shapes: U users, I items (the first entities), E entities, K kept nodes (users, items, unpruned entities), D dimensions,
X edges, P entities outside the items that were kept.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class GraphEdges:
    """The edges that propagation runs over, int64 rows; either may have no rows at all.

    user_item_X2: one (user row, item row) per train interaction; repeats count once.
    head_tail_X2: one (head row, tail row) per triple, entity rows; direction and repeats do not matter.
    head_tail_weight_X: how much each of these counts, above 0; None: all alike. Of repeats the greatest counts.
    """

    user_item_X2: Tensor
    head_tail_X2: Tensor
    head_tail_weight_X: Tensor | None = None

    @staticmethod
    def empty() -> GraphEdges:
        """Return a graph without edges: vectors then stand alone.

        >>> GraphEdges.empty().user_item_X2.shape
        torch.Size([0, 2])
        """
        return GraphEdges(torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64))


@dataclass(frozen=True)
class Adjacency:
    """The normalised matrix and what it is about.

    matrix_KK: sparse CSR, symmetric, float32; None where there is no edge. kept_P: the entity rows outside the items
    that stayed, ascending; the nodes are users, then items, then these. degree_K: weighted degrees.
    """

    matrix_KK: Tensor | None
    kept_P: Tensor
    degree_K: Tensor
    num_users: int
    num_items: int


def kept_entities(pairs_X2: Tensor, num_items: int, num_entities: int) -> Tensor:
    """Return the rows of the entities beyond the items that lie on a way between two items, ascending.

    A non-item entity with a single distinct neighbour passes nothing on: it would only lend that neighbour one more
    free vector and thin out its other messages. Such leaves are taken off until none is left, so that whole trees that
    hang on one item go, and what remains (the 2-core around the items) decides alike with fewer products.

    >>> kept_entities(torch.tensor([[0, 2], [1, 2], [1, 3], [3, 4]]), num_items=2, num_entities=5).tolist()
    [2]
    """
    return _core(_unordered(pairs_X2, num_entities), num_items, num_entities)


def _core(pairs_X2: Tensor, num_items: int, num_entities: int) -> Tensor:
    """See `kept_entities`; the pairs are distinct."""
    alive_E = torch.ones(num_entities, dtype=torch.bool)
    one_X, other_X = pairs_X2.T.contiguous()
    while True:
        degree_E = torch.bincount(one_X, minlength=num_entities) + torch.bincount(other_X, minlength=num_entities)
        leaf_E = alive_E & (degree_E <= 1)
        leaf_E[:num_items] = False
        if not bool(leaf_E.any()):
            break
        alive_E &= ~leaf_E
        stays_X = alive_E[one_X] & alive_E[other_X]
        one_X, other_X = one_X[stays_X], other_X[stays_X]
    alive_E[:num_items] = False
    return alive_E.nonzero().flatten()


def build_adjacency(
    edges: GraphEdges, num_users: int, num_items: int, num_entities: int, graph_weight: float
) -> Adjacency:
    """Build D^-1/2 W D^-1/2, where an interaction weighs 1 and a pair of linked entities `graph_weight` times its own.

    Normalisation as in LightGCN (He et al., SIGIR 2020). A weight of 0 leaves the knowledge graph out. Several
    relations between the same two entities count once, so that inverse triples are no double weight.
    """
    kept_P = torch.zeros(0, dtype=torch.int64)
    pairs_X2, own_X = edges.head_tail_X2[:0], torch.ones(0)
    if graph_weight > 0 and len(edges.head_tail_X2):
        distinct_X2 = _unordered(edges.head_tail_X2, num_entities)
        kept_P = _core(distinct_X2, num_items, num_entities)
        node_E = torch.full((num_entities,), -1, dtype=torch.int64)
        node_E[:num_items] = torch.arange(num_items)
        node_E[kept_P] = num_items + torch.arange(len(kept_P))
        pairs_X2, own_X = node_E[distinct_X2] + num_users, _weights(edges, distinct_X2, num_entities)
        kept_X = (pairs_X2.amin(dim=1) >= num_users).nonzero().flatten()
        pairs_X2, own_X = pairs_X2.index_select(0, kept_X), own_X[kept_X]
    width = max(num_items, 1)
    key_X = _distinct(edges.user_item_X2[:, 0] * width + edges.user_item_X2[:, 1])
    bought_X2 = torch.stack([key_X // width, key_X % width + num_users], dim=1)
    pairs_X2 = torch.cat([bought_X2, pairs_X2])
    weight_X = torch.ones(len(pairs_X2))
    weight_X[len(bought_X2) :] = graph_weight * own_X
    num_nodes = num_users + num_items + len(kept_P)
    return _normalise(pairs_X2, weight_X, num_nodes, kept_P, num_users, num_items)


def _normalise(
    pairs_X2: Tensor, weight_X: Tensor, num_nodes: int, kept_P: Tensor, num_users: int, num_items: int
) -> Adjacency:
    """Pairs are (smaller node, larger node), distinct and ascending."""
    low_X, high_X = pairs_X2.T.contiguous()
    nodes_Y, weight_Y = torch.cat([low_X, high_X]), weight_X.repeat(2)
    degree_K = torch.zeros(num_nodes, dtype=torch.float64).index_add_(0, nodes_Y, weight_Y.double()).float()
    if len(pairs_X2) == 0:
        return Adjacency(None, kept_P, degree_K, num_users, num_items)
    value_X = weight_X / (degree_K[low_X] * degree_K[high_X]).sqrt()
    starts, column_Y, value_Y = _both_triangles(low_X, high_X, value_X, num_nodes)
    with warnings.catch_warnings():  # torch calls its CSR support beta, once per process
        warnings.simplefilter("ignore", UserWarning)
        matrix_KK = torch.sparse_csr_tensor(starts, column_Y, value_Y, (num_nodes, num_nodes))
    return Adjacency(matrix_KK, kept_P, degree_K, num_users, num_items)


def _both_triangles(
    low_X: Tensor, high_X: Tensor, value_X: Tensor, num_nodes: int
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return CSR (starts, columns, values; int32) of the symmetric matrix whose upper triangle the ascending pairs are.

    A row is its part of the lower triangle, which only wants sorting by row, and then its part of the upper one.
    """
    below_X, order_X = high_X.int().sort(stable=True)
    upper_K, lower_K = (torch.bincount(one_X, minlength=num_nodes) for one_X in (low_X, below_X))
    starts = torch.zeros(num_nodes + 1, dtype=torch.int64)
    starts[1:] = (upper_K + lower_K).cumsum(0)
    at_X = torch.arange(len(low_X))
    lower_X = at_X + (starts[:-1] - (lower_K.cumsum(0) - lower_K))[below_X]
    upper_X = at_X + (starts[:-1] + lower_K - (upper_K.cumsum(0) - upper_K))[low_X]
    column_Y, value_Y = torch.empty(2 * len(low_X), dtype=torch.int32), torch.empty(2 * len(low_X))
    for place_X, column_X, own_X in (
        (lower_X, low_X[order_X], value_X[order_X]),
        (upper_X, high_X, value_X),
    ):
        column_Y[place_X] = column_X.int()
        value_Y[place_X] = own_X
    return starts.int(), column_Y, value_Y


def _distinct(key_X: Tensor) -> Tensor:
    """Return the distinct keys, ascending; numpy sorts whole numbers ten times faster than torch.unique."""
    sorted_X = key_X.clone()
    sorted_X.numpy().sort()
    first_X = torch.ones(len(sorted_X), dtype=torch.bool)
    first_X[1:] = sorted_X[1:] != sorted_X[:-1]
    return sorted_X[first_X]


def _unordered(pairs_X2: Tensor, num_entities: int) -> Tensor:
    """Return the distinct unordered pairs of two different entities, ascending."""
    one_X, other_X = pairs_X2.T.contiguous()
    low_X, high_X = torch.minimum(one_X, other_X), torch.maximum(one_X, other_X)
    key_X = _distinct((low_X * num_entities + high_X)[low_X != high_X])
    return torch.stack([key_X // max(num_entities, 1), key_X % max(num_entities, 1)], dim=1)


def _weights(edges: GraphEdges, distinct_X2: Tensor, num_entities: int) -> Tensor:
    """Return the greatest weight of each distinct unordered pair."""
    if edges.head_tail_weight_X is None:
        return torch.ones(len(distinct_X2))
    low_X, high_X = edges.head_tail_X2.min(dim=1).values, edges.head_tail_X2.max(dim=1).values
    apart_X = low_X != high_X
    keys = distinct_X2[:, 0] * num_entities + distinct_X2[:, 1]  # ascending
    place_X = torch.searchsorted(keys, (low_X * num_entities + high_X)[apart_X])
    weights = torch.zeros(len(distinct_X2))
    return weights.scatter_reduce_(0, place_X, edges.head_tail_weight_X[apart_X], "amax", include_self=False)


def _mean_of_layers(matrix_KK: Tensor, nodes_KD: Tensor, layers: int) -> Tensor:
    total_KD = nodes_KD
    for _ in range(layers):  # Horner: x + A(x + A(x + ...)), one product a layer
        total_KD = torch.addmm(nodes_KD, matrix_KK, total_KD)
    return total_KD.div_(layers + 1) if layers else nodes_KD  # the last product is nobody else's


class _Propagate(torch.autograd.Function):
    """The matrix is symmetric, so the gradient goes through the very same product."""

    @staticmethod
    def forward(ctx: Any, nodes_KD: Tensor, matrix_KK: Tensor, layers: int) -> Tensor:
        ctx.matrix_KK, ctx.layers = matrix_KK, layers
        return _mean_of_layers(matrix_KK, nodes_KD, layers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _mean_of_layers(ctx.matrix_KK, gradients[0].contiguous(), ctx.layers), None, None


def propagate(nodes_KD: Tensor, matrix_KK: Tensor | None, layers: int) -> Tensor:
    """Return the mean of x, Ax, ..., A^layers x, shape (K, D); without a matrix or layers, x itself.

    Deterministic: every row is summed by one thread in column order (MKL's CSR product).
    """
    if matrix_KK is None or layers == 0:
        return nodes_KD
    result_KD: Tensor = _Propagate.apply(nodes_KD, matrix_KK, layers)  # type: ignore[no-untyped-call]
    return result_KD


def fold_vectors(nodes_KD: Tensor, adjacency: Adjacency, layers: int) -> Tensor:
    """Return item_fold_ID, of which a newcomer's vector is made: u = sum over its history H of fold_i / sqrt(|H|).

    The encoder gives a user u with an empty own row z_u = 1/(L+1) sum_{l=1..L} (A^l x)_u, and (A^l x)_u is the sum
    over u's items of (A^(l-1) x)_i / sqrt(|H| deg_i). So fold_i = 1/(L+1) sum_{l=1..L} (A^(l-1) x)_i / sqrt(deg_i).
    For a user of the graph whose own row is zero this is the encoder's output exactly; for a newcomer it leaves
    out only what
    the newcomer's own edges would have changed in others. With 0 layers, the item's own row.
    """
    items = slice(adjacency.num_users, adjacency.num_users + adjacency.num_items)
    if layers == 0:
        return nodes_KD[items]
    mean_ID = propagate(nodes_KD, adjacency.matrix_KK, layers - 1)[items]
    return mean_ID * (layers / (layers + 1)) / adjacency.degree_K[items].clamp(min=1.0).sqrt()[:, None]
