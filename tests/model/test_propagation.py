import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.model.propagation import GraphEdges, build_adjacency, fold_vectors, kept_entities, propagate

U, I, E = 4, 5, 11


def random_edges(seed: int) -> GraphEdges:
    generator = torch.Generator().manual_seed(seed)
    user_item = torch.stack(
        [torch.randint(U, (9,), generator=generator), torch.randint(I, (9,), generator=generator)], 1
    )
    return GraphEdges(user_item, torch.randint(E, (14, 2), generator=generator))


def dense_oracle(edges: GraphEdges, weight: float, kept: list[int]) -> torch.Tensor:
    """The matrix by loops over sets of pairs."""
    node = {item: U + item for item in range(I)} | {entity: U + I + k for k, entity in enumerate(kept)}
    dense = torch.zeros(U + I + len(kept), U + I + len(kept), dtype=torch.float64)
    for user, item in edges.user_item_X2.tolist():
        dense[user, U + item] = dense[U + item, user] = 1.0
    for head, tail in edges.head_tail_X2.tolist():
        if head != tail and head in node and tail in node:
            dense[node[head], node[tail]] = dense[node[tail], node[head]] = weight
    degree = dense.sum(1)
    return dense / (degree[:, None] * degree[None, :]).sqrt().clamp(min=1e-30)


def kept_oracle(edges: GraphEdges) -> list[int]:
    neighbours: dict[int, set[int]] = {entity: set() for entity in range(E)}
    for head, tail in edges.head_tail_X2.tolist():
        if head != tail:
            neighbours[head].add(tail)
            neighbours[tail].add(head)
    while leaves := [e for e in neighbours if e >= I and len(neighbours[e]) <= 1]:
        for leaf in leaves:
            for other in neighbours.pop(leaf):
                if other in neighbours:
                    neighbours[other].discard(leaf)
    return sorted(e for e in neighbours if e >= I)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.integers(0, 3), st.sampled_from([0.25, 1.0, 2.0]))
def test_propagation_is_the_dense_mean_of_powers(seed: int, layers: int, weight: float) -> None:
    edges = random_edges(seed)
    adjacency = build_adjacency(edges, U, I, E, weight)
    assert adjacency.kept_P.tolist() == kept_oracle(edges)
    dense = dense_oracle(edges, weight, adjacency.kept_P.tolist())
    nodes = torch.randn(len(dense), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = sum(torch.linalg.matrix_power(dense, power) @ nodes for power in range(layers + 1)) / (layers + 1)
    got = propagate(nodes.float(), adjacency.matrix_KK, layers)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-4)
    if adjacency.matrix_KK is not None:  # the order of a row decides the bits of its sum
        starts, column_Y = adjacency.matrix_KK.crow_indices(), adjacency.matrix_KK.col_indices()
        for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            assert (column_Y[begin:end].diff() > 0).all()


def test_the_gradient_is_the_dense_one() -> None:
    edges = random_edges(2)
    adjacency = build_adjacency(edges, U, I, E, 0.5)
    dense = dense_oracle(edges, 0.5, adjacency.kept_P.tolist()).float()
    left = torch.randn(len(dense), 3).requires_grad_()
    right = left.detach().clone().requires_grad_()
    pull = torch.randn(len(dense), 3)
    (propagate(left, adjacency.matrix_KK, 2) * pull).sum().backward()
    (((right + dense @ right + dense @ dense @ right) / 3) * pull).sum().backward()
    assert left.grad is not None
    assert right.grad is not None
    torch.testing.assert_close(left.grad, right.grad, atol=1e-5, rtol=1e-4)


def test_a_pruned_leaf_never_carries_anything_between_items() -> None:
    """With and without the tree that hangs on item 0, item 1 hears of item 0 by the same ways."""
    tree = torch.tensor([[0, 5], [1, 5], [0, 6], [6, 7], [7, 8]])
    assert kept_entities(tree, I, E).tolist() == [5]
    assert kept_entities(tree[2:], I, E).tolist() == []


def test_a_cycle_of_entities_stays() -> None:
    assert kept_entities(torch.tensor([[0, 5], [5, 6], [6, 7], [7, 5]]), I, E).tolist() == [5, 6, 7]


def test_a_weight_of_zero_is_the_graph_left_out() -> None:
    edges = random_edges(1)
    without = build_adjacency(GraphEdges(edges.user_item_X2, edges.head_tail_X2[:0]), U, I, E, 1.0)
    zero = build_adjacency(edges, U, I, E, 0.0)
    assert zero.matrix_KK is not None
    assert without.matrix_KK is not None
    assert torch.equal(zero.matrix_KK.to_dense(), without.matrix_KK.to_dense())


def test_without_edges_vectors_stand_alone() -> None:
    adjacency = build_adjacency(GraphEdges.empty(), 2, 2, 3, 1.0)
    nodes = torch.randn(4, 3)
    assert adjacency.matrix_KK is None
    assert torch.equal(propagate(nodes, adjacency.matrix_KK, 3), nodes)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_folding_gives_what_the_encoder_gives_a_user_with_an_empty_row(layers: int) -> None:
    edges = random_edges(4)
    adjacency = build_adjacency(edges, U, I, E, 0.5)
    nodes = torch.randn(len(adjacency.degree_K), 6)
    for user in edges.user_item_X2[:, 0].unique().tolist():
        blank = nodes.clone()
        blank[user] = 0
        history = edges.user_item_X2[edges.user_item_X2[:, 0] == user, 1].unique()
        folded = fold_vectors(blank, adjacency, layers)[history].sum(0) / len(history) ** 0.5
        torch.testing.assert_close(folded, propagate(blank, adjacency.matrix_KK, layers)[user], atol=1e-5, rtol=1e-4)
