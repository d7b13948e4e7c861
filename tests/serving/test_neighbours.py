"""The sparse part of a score, and the exact top of inner product and sparse part together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.evaluation.item_weights import largest_of_each_row
from kgrec.evaluation.pairs import Pairs
from kgrec.model.blocks import BlockWeights, with_popularity
from kgrec.serving.neighbours import Neighbours, stored_rows, unit_rows
from kgrec.serving.search import best_items

ITEMS = 15


def world(seed: int, weights: BlockWeights, density: float = 0.3) -> Neighbours:
    numbers = np.random.default_rng(seed)
    matrices = {}
    for name in ("linear", "kernel"):
        dense = numbers.normal(size=(ITEMS, ITEMS)) * (numbers.random((ITEMS, ITEMS)) < density)
        matrices[name] = scipy.sparse.csr_array(dense.astype(np.float32))
    return Neighbours(matrices, weights, ITEMS)


def filled(matrix: Any) -> np.ndarray:
    """Return weights with every place filled, however they are held."""
    return matrix.toarray() if scipy.sparse.issparse(matrix) else np.asarray(matrix)


def slow_scores(near: Neighbours, history: list[int]) -> np.ndarray:
    total = np.zeros(ITEMS)
    for name, matrix in near.matrices.items():
        raw = sum((filled(matrix)[item] for item in history), np.zeros(ITEMS))
        length = np.linalg.norm(raw)
        total += getattr(near.weights, name) * (raw / length if length else raw)
    for item in history:
        total[item] += near.weights.repeat
    return total


@pytest.mark.parametrize("density", [0.3, 0.9])
def test_scores_are_each_parts_unit_scores_times_its_weight(density: float) -> None:
    near = world(1, BlockWeights(linear=2.0, kernel=0.5, repeat=0.25), density)
    assert near.scores(Pairs.empty(0, ITEMS)).shape == (0, ITEMS)
    assert not near.scores(Pairs.empty(2, ITEMS)).any()
    history = Pairs.of([0, 0, 2], [3, 7, 1], 3, ITEMS)
    expected = np.stack([slow_scores(near, [3, 7]), np.zeros(ITEMS), slow_scores(near, [1])])
    np.testing.assert_allclose(near.scores(history), expected, atol=1e-6)
    np.testing.assert_allclose(near.of_one(np.array([7, 3, 7])), expected[0], atol=1e-6)
    assert not near.of_one(np.array([], dtype=np.int64)).any()
    assert sum(near.parts(np.array([3, 7]), 3).values()) == pytest.approx(expected[0][3], abs=1e-6)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.9])
def test_one_history_scores_as_among_many_however_full_the_rows_are(density: float) -> None:
    near = world(3, BlockWeights(linear=2.0, kernel=0.5, repeat=0.25), density)
    for history in ([], [4], [0, 3, 9, 14]):
        many = near.scores(Pairs.of([0] * len(history), history, 1, ITEMS))[0]
        np.testing.assert_allclose(near.of_one(np.array(history, dtype=np.int64)), many, atol=1e-6)


def test_full_rows_are_summed_one_after_the_other_to_the_bit() -> None:
    near = world(5, BlockWeights(linear=1.0), 0.9)
    dense = near.matrices["linear"]
    assert isinstance(dense, np.ndarray), "as an array where at least half is there"
    for history in ([2], [0, 3, 9, 14], list(range(ITEMS))):
        expected = np.zeros(ITEMS, dtype=np.float32)
        for item in history:
            expected += dense[item]
        np.testing.assert_array_equal(near._sum_of_rows("linear", np.array(history)), expected)


@pytest.mark.parametrize("density", [0.3, 0.9])
def test_a_part_without_weight_is_not_kept_and_what_is_kept_can_be_read_again(density: float) -> None:
    near = world(2, BlockWeights(kernel=1.5, repeat=0.5), density)
    stored = near.tensors()
    assert sorted(near.matrices) == ["kernel"]
    again = Neighbours.read(stored | {"item_vectors_ID": torch.zeros(ITEMS, 2)})
    history = Pairs.of([0, 0], [3, 7], 1, ITEMS)
    np.testing.assert_array_equal(again.scores(history), near.scores(history))
    assert ("kernel_items" in stored) == (density < 0.5), "whole rows need no places"
    assert not Neighbours.read({"item_vectors_ID": torch.zeros(ITEMS, 2)}).scores(history).any()


def test_full_rows_that_were_stored_with_their_places_score_as_those_without() -> None:
    near, history = world(2, BlockWeights(kernel=1.5), 0.9), Pairs.of([0, 0], [3, 7], 1, ITEMS)
    sparse = scipy.sparse.csr_array(near.matrices["kernel"])
    stored = stored_rows(sparse, "kernel") | {"block_weights": near.weights.as_tensor()}
    again = Neighbours.read(stored | {"item_vectors_ID": torch.zeros(ITEMS, 2)})
    np.testing.assert_array_equal(again.scores(history), near.scores(history))
    explained = {"history_H": np.array([3, 7]), "items_K": np.array([1, 2])}
    np.testing.assert_array_equal(again.contributions(**explained)["kernel"], near.contributions(**explained)["kernel"])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000), history=st.lists(st.integers(0, ITEMS - 1), max_size=6, unique=True),
    weights=st.tuples(*[st.sampled_from([0.0, 0.5, 2.0])] * 3), k=st.integers(1, 8), seen=st.booleans(),
    density=st.sampled_from([0.02, 0.3, 0.9]),
)  # fmt: skip
def test_the_best_are_those_of_the_whole_catalogue(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    history: list[int],
    weights: tuple[float, ...],
    k: int,
    seen: bool,
    density: float,
) -> None:
    near = world(seed, BlockWeights(linear=weights[0], kernel=weights[1], repeat=weights[2]), density)
    numbers = np.random.default_rng(seed + 1)
    items = numbers.integers(-2, 3, size=(ITEMS, 4)).astype(np.float32)  # small whole numbers: ties are common
    query = numbers.integers(-2, 3, size=4).astype(np.float32)
    catalogue = np.flatnonzero(numbers.random(ITEMS) < 0.8)
    only = numbers.random(ITEMS) < 0.7 if seed % 2 else None
    gone = np.array(history if seen else [], dtype=np.int64)
    rows = np.array(history, dtype=np.int64)
    found, scores = best_items(Flat(items, catalogue), items, near, query, rows, gone, k, only)
    exact = items @ query + slow_scores(near, history).astype(np.float32)
    allowed = [row for row in catalogue if row not in gone and (only is None or only[row])]
    best = sorted((exact[row] for row in allowed), reverse=True)[:k]
    np.testing.assert_allclose(scores, best, atol=1e-5)
    np.testing.assert_allclose(exact[found], scores, atol=1e-5)
    assert len(set(found.tolist())) == len(found)


class Flat:
    """What an index promises, written the slow way."""

    def __init__(self, items: np.ndarray, catalogue: np.ndarray) -> None:
        self.items, self.rows_I = items, catalogue

    def search(
        self, query: np.ndarray, k: int, leave_out: np.ndarray, only: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(
            [row for row in self.rows_I if row not in leave_out and (only is None or only[row])], dtype=np.int64
        )
        scores = (self.items[rows] @ query).astype(np.float32)
        order = np.lexsort((rows, -scores))[:k]
        return rows[order], scores[order]


def test_popularity_is_a_dimension_that_unknown_users_do_not_have() -> None:
    users, items = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    served_users, served_items = with_popularity(users, items, torch.tensor([1.0, 0.5]), 0.2)
    torch.testing.assert_close(served_users @ served_items.T, torch.tensor([[0.8, 0.1], [0.0, 0.0]]))


def test_pruning_keeps_the_largest_magnitudes_of_each_row() -> None:
    matrix = np.random.default_rng(4).normal(size=(9, 30)) * (np.random.default_rng(5).random((9, 30)) < 0.5)
    kept = largest_of_each_row(matrix, 4).toarray()
    for row in range(9):
        order = sorted(range(30), key=lambda column: (-abs(matrix[row, column]), column))[:4]
        expected = [matrix[row, column] if column in order else 0.0 for column in range(30)]
        assert kept[row].tolist() == expected


def test_unit_rows_have_the_length_asked_for_and_rows_of_nothing_stay() -> None:
    sparse = scipy.sparse.csr_array(
        np.array([[0.0, 3.0, 4.0], [0.0] * 3, [0.0, 0.0, -2.0], [0.0] * 3], dtype=np.float32)
    )
    sparse.data[-1] = 0.0  # stored, and nothing all the same
    found = unit_rows(sparse, 0.5).toarray()
    np.testing.assert_allclose(found, [[0.0, 0.3, 0.4], [0.0] * 3, [0.0] * 3, [0.0] * 3], rtol=1e-6)
    assert unit_rows(scipy.sparse.csr_array((0, 3), dtype=np.float32)).shape == (0, 3)


def test_scores_are_added_and_what_they_are_added_to_stays() -> None:
    near = world(7, BlockWeights(linear=2.0, repeat=0.25))
    history = Pairs.of([0, 0, 2], [3, 7, 1], 3, ITEMS)
    onto = np.ones((3, ITEMS), dtype=np.float32)
    found = near.scores(history, onto)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 1.0 + near.scores(history), atol=1e-6)
    assert (onto == 1.0).all()
