"""Scores of items by weights: dense or sparse, cut or whole, the sums are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from kgrec.evaluation import item_weights
from kgrec.evaluation.item_weights import ItemWeights, largest_of_each_row
from kgrec.evaluation.pairs import Pairs

HISTORY = Pairs.of([0, 0, 2], [1, 3, 0], num_rows=3, num_columns=5)  # the list in the middle is empty


def some_weights() -> np.ndarray:
    """Small whole numbers with many zeros: float32 sums them without rounding."""
    return np.random.default_rng(3).integers(0, 3, (5, 5)).astype(np.float64)


@pytest.mark.parametrize("always_dense", [0, 10])
@pytest.mark.parametrize("one_in", [1, 25])
def test_dense_and_sparse_weights_give_the_plain_sum(
    monkeypatch: pytest.MonkeyPatch, always_dense: int, one_in: int
) -> None:
    monkeypatch.setattr(item_weights, "_ALWAYS_DENSE", always_dense)
    monkeypatch.setattr(item_weights, "_SPARSE", one_in)
    weights = some_weights()
    expected = np.stack([weights[1] + weights[3], np.zeros(5), weights[0]])
    for given in (weights, scipy.sparse.csr_array(weights)):
        assert ItemWeights(given)(HISTORY).tolist() == expected.tolist()


def test_weights_are_cut_only_where_the_matrix_is_too_large_to_be_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = scipy.sparse.csr_array(some_weights() + 1.0)
    assert np.count_nonzero(ItemWeights(weights, most=10).matrix_II) == 25
    monkeypatch.setattr(item_weights, "_ALWAYS_DENSE", 0)
    monkeypatch.setattr(item_weights, "_PERHAPS_DENSE", 0)
    assert ItemWeights(weights, most=10).matrix_II.nnz == 10
    assert ItemWeights(weights).matrix_II.nnz == 25


@pytest.mark.parametrize("keep", [1, 7, 25, 30, 99])
@pytest.mark.parametrize("held", [np.asarray, scipy.sparse.csr_array])
def test_the_largest_of_a_row_are_those_of_a_stable_sort(monkeypatch: pytest.MonkeyPatch, held: Any, keep: int) -> None:
    monkeypatch.setattr(item_weights, "_ROWS", 16)
    values = np.random.default_rng(5).integers(-3, 4, (40, 30)).astype(np.float64)
    values[3] = 0.0
    found = largest_of_each_row(held(values), keep)
    assert found.has_canonical_format
    kept = found.toarray()
    for row, row_kept in zip(values, kept, strict=True):
        columns = sorted((c for c in range(30) if row[c]), key=lambda c: (-abs(row[c]), c))[:keep]
        assert sorted(columns) == np.flatnonzero(row_kept).tolist()
        assert row_kept[columns].tolist() == row[columns].tolist()


def test_the_largest_of_no_rows_are_none() -> None:
    assert largest_of_each_row(np.zeros((0, 0), dtype=np.float32), 3).shape == (0, 0)


def test_a_list_of_nothing_at_all_scores_zero() -> None:
    nothing = Pairs.empty(2, 5)
    assert torch.equal(ItemWeights(some_weights())(nothing), torch.zeros(2, 5))
