"""Low-rank factors reproduce a linear scorer, and blocks add up in one inner product."""

from __future__ import annotations

import torch
from torch import Tensor

from kgrec.evaluation.low_rank import low_rank
from kgrec.evaluation.pairs import Pairs
from kgrec.model.blocks import joined_items, popularity_block, unit_blocks

USERS, ITEMS = 40, 24


def world() -> tuple[Tensor, Pairs]:
    generator = torch.Generator().manual_seed(3)
    weights_II = torch.randn(ITEMS, 5, generator=generator) @ torch.randn(5, ITEMS, generator=generator)
    had_UI = torch.rand(USERS, ITEMS, generator=generator) < 0.2
    rows, columns = had_UI.nonzero().T
    return weights_II, Pairs.of(rows, columns, USERS, ITEMS)


def dense(history: Pairs) -> Tensor:
    matrix = torch.zeros(history.num_rows, history.num_columns)
    matrix[history.rows(), history.indices] = 1.0
    return matrix


def test_factors_of_a_scorer_of_rank_five_reproduce_it() -> None:
    weights_II, history = world()
    fold_IR, items_IR = low_rank(lambda h: dense(h) @ weights_II, history, 5, torch.Generator().manual_seed(1))
    assert fold_IR.shape == items_IR.shape == (ITEMS, 5)
    assert torch.allclose(dense(history) @ fold_IR @ items_IR.T, dense(history) @ weights_II, atol=1e-3)
    assert torch.allclose(items_IR.T @ items_IR, torch.eye(5), atol=1e-5)


def test_fewer_dimensions_keep_what_the_best_approximation_keeps() -> None:
    weights_II, history = world()
    wanted = dense(history) @ weights_II
    fold_IR, items_IR = low_rank(lambda h: dense(h) @ weights_II, history, 3, torch.Generator().manual_seed(1))
    error = (dense(history) @ fold_IR @ items_IR.T - wanted).norm()
    best = torch.linalg.svdvals(wanted)[3:].norm()
    assert error <= best * 1.01


def test_the_same_generator_gives_the_same_bits() -> None:
    weights_II, history = world()
    first, second = (
        low_rank(lambda h: dense(h) @ weights_II, history, 4, torch.Generator().manual_seed(9)) for _ in range(2)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_one_inner_product_is_the_weighted_sum_of_the_blocks() -> None:
    generator = torch.Generator().manual_seed(5)
    users, items = torch.randn(6, 4, generator=generator), torch.randn(8, 4, generator=generator)
    sums, linear = torch.randn(6, 3, generator=generator), torch.randn(8, 3, generator=generator)
    popularity = popularity_block(torch.arange(8))
    served_users = unit_blocks(torch.cat([users, sums], dim=1), [4, 3])
    served_items = joined_items(items, linear, popularity, (2.0, 0.5))
    unit = torch.nn.functional.normalize
    expected = unit(users, dim=1) @ items.T + 2.0 * unit(sums, dim=1) @ linear.T + 0.5 * popularity
    assert torch.allclose(served_users @ served_items.T, expected, atol=1e-6)


def test_a_user_of_whom_nothing_is_known_has_empty_blocks() -> None:
    assert unit_blocks(torch.zeros(1, 5), [3, 2]).tolist() == [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
