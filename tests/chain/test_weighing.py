"""Weights of a score's parts: the best where users tell, the balanced where they do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kgrec.chain.weighing import chosen_weights, spread_of
from kgrec.model.blocks import BlockWeights

GRIDS = {
    "linear": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    "kernel": (0.0,),
    "popularity": (0.0, 0.1, 0.2, 0.4),
    "repeat": (0.0, 1.0),
}
SPREAD = {"trained": 0.4, "linear": 0.1, "kernel": 0.0, "popularity": 1.0, "repeat": 0.3}  # centre: linear 1, pop .1


def hill(top: BlockWeights, noise: float, users: int, steepness: float = 0.02):
    """A figure that falls with the squared doublings from `top`, each user's with noise of their own."""
    drawn_B = torch.randn(users, generator=torch.Generator().manual_seed(1))
    drawn_B = drawn_B - drawn_B.mean()

    def figures(weights: BlockWeights) -> Tensor:
        off = sum(
            math.log2((got + 0.05) / (wanted + 0.05)) ** 2
            for got, wanted in zip(weights.as_tensor().tolist(), top.as_tensor().tolist(), strict=True)
        )
        return 0.5 - steepness * off + noise * off * drawn_B

    return figures


def near(found: BlockWeights, wanted: BlockWeights, within: float = 0.05) -> bool:
    """Say whether each weight is that wanted, to a share of it."""
    return found.as_tensor().tolist() == pytest.approx(wanted.as_tensor().tolist(), rel=within, abs=1e-9)


def test_where_users_agree_the_best_of_the_grid_is_taken() -> None:
    top = BlockWeights(linear=8.0, popularity=0.4, repeat=1.0)
    assert chosen_weights(GRIDS, hill(top, 0.0, 50), SPREAD) == top
    assert near(chosen_weights(GRIDS, hill(top, 0.1, 1_000_000), SPREAD), top)  # many users: one setting is believed


def test_where_differences_are_noise_the_parts_are_balanced() -> None:
    """The mean over the prior alone: of linear about 1 and of popularity about .1, wherever the best of the grid is."""
    chosen = [
        chosen_weights(GRIDS, hill(BlockWeights(linear=top, popularity=0.4, repeat=1.0), 1.0, 30, 1e-6), SPREAD)
        for top in (0.25, 1.0, 16.0)
    ]
    assert all(0.7 < one.linear < 4.0 and 0.05 < one.popularity < 0.25 for one in chosen)
    assert all(one.repeat == pytest.approx(0.5, abs=0.1) for one in chosen)  # of repeats there is no prior
    assert max(one.linear for one in chosen) < 2 * min(one.linear for one in chosen)


def test_the_mean_moves_less_than_the_best() -> None:
    """Two halves of the same users choose lists that differ little, where the best settings differ by doublings."""
    drawn = torch.randn(2, 60, 8, generator=torch.Generator().manual_seed(5))
    grid = GRIDS["linear"]

    def half(number: int):
        def figures(weights: BlockWeights) -> Tensor:
            place = min(range(len(grid)), key=lambda n: abs(grid[n] - weights.linear))
            return 0.5 - 0.002 * abs(place - 4) + 0.1 * drawn[number, :, place]

        return figures

    only = GRIDS | {"popularity": (0.0,), "repeat": (0.0,)}
    means = [chosen_weights(only, half(number), SPREAD).linear for number in (0, 1)]
    bests = [max(grid, key=lambda weight, n=n: float(half(n)(BlockWeights(linear=weight)).mean())) for n in (0, 1)]
    assert max(bests) >= 4 * min(bests)
    assert max(means) / min(means) < 0.5 * max(bests) / min(bests)


def test_an_increment_climbs_on_from_the_weights_before_alone() -> None:
    asked: list[BlockWeights] = []
    figures = hill(BlockWeights(linear=4.0, popularity=0.2, repeat=1.0), 0.0, 50)

    def counted(weights: BlockWeights) -> Tensor:
        asked.append(weights)
        return figures(weights)

    fresh = chosen_weights(GRIDS, counted, SPREAD)
    of_fresh = len(asked)
    before = {"linear": 2.0, "kernel": 0.0, "popularity": 0.2, "repeat": 1.0}
    assert chosen_weights(GRIDS, counted, SPREAD, before) == fresh
    assert len(asked) - of_fresh < of_fresh / 2
    assert chosen_weights(GRIDS, counted, SPREAD, before | {"linear": 2.9, "popularity": 0.17}) == fresh, (
        "between settings"
    )


def test_a_part_that_does_harm_is_dropped() -> None:
    def figures(weights: BlockWeights) -> Tensor:
        return 0.5 - 0.1 * (weights.linear + weights.popularity + weights.repeat) + torch.linspace(0, 0.2, 40)

    assert chosen_weights(GRIDS, figures, SPREAD) == BlockWeights()


def test_a_mean_over_an_edge_is_not_taken_where_the_trained_part_alone_is_better() -> None:
    """Only the far end of the grid helps and all between does harm: the mean lies between, so the best is taken."""
    noise_B = 0.2 * torch.randn(2_000, generator=torch.Generator().manual_seed(2))

    def figures(weights: BlockWeights) -> Tensor:
        if weights.linear == 16.0:
            return 0.501 + noise_B
        return (0.5 if weights == BlockWeights() else 0.4) + torch.zeros(2_000)

    assert chosen_weights(GRIDS, figures, SPREAD).linear == 16.0


def test_the_spread_is_that_of_finite_candidates() -> None:
    scores_BPF = torch.tensor([[[0.0, 1.0], [2.0, 1.0], [-math.inf, -math.inf]], [[5.0, 0.0]] * 2 + [[5.0, 0.0]]])
    assert spread_of(scores_BPF).tolist() == pytest.approx([math.sqrt(2) / 2, 0.0])
    assert spread_of(torch.full((2, 1, 3), -math.inf)).tolist() == [0.0, 0.0, 0.0]
