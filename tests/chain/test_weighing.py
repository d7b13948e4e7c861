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


def test_where_users_agree_the_best_of_the_grid_is_taken() -> None:
    top = BlockWeights(linear=8.0, popularity=0.4, repeat=1.0)
    assert chosen_weights(GRIDS, hill(top, 0.0, 50), SPREAD) == top
    assert chosen_weights(GRIDS, hill(top, 0.1, 100_000), SPREAD) == top  # many users: the prior is small


def test_where_differences_are_noise_the_parts_are_balanced() -> None:
    top = BlockWeights(linear=16.0, popularity=0.4, repeat=1.0)
    chosen = chosen_weights(GRIDS, hill(top, 1.0, 30, steepness=1e-6), SPREAD)
    assert chosen == BlockWeights(linear=1.0, popularity=0.1, repeat=1.0)  # of repeats there is no prior


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
    assert chosen_weights(GRIDS, counted, SPREAD, before | {"linear": 3.0}) == fresh, "no weight of this grid: as ever"


def test_a_part_that_does_harm_is_dropped() -> None:
    def figures(weights: BlockWeights) -> Tensor:
        return 0.5 - 0.1 * weights.linear - 0.1 * weights.popularity + torch.linspace(0, 0.2, 40)

    assert chosen_weights(GRIDS, figures, SPREAD) == BlockWeights()


def test_the_prior_never_takes_what_is_worse_than_the_trained_part_alone() -> None:
    noise_B = torch.randn(20, generator=torch.Generator().manual_seed(2))
    noise_B = noise_B - noise_B.mean()

    def figures(weights: BlockWeights) -> Tensor:
        mixed = weights.linear + weights.popularity > 0
        best = weights.linear == 16.0
        return torch.full((20,), 0.6 if best else 0.49 if mixed else 0.5) + (50 * noise_B if not best else 0)

    assert chosen_weights(GRIDS, figures, SPREAD).linear == 16.0


def test_the_spread_is_that_of_finite_candidates() -> None:
    scores_BPF = torch.tensor([[[0.0, 1.0], [2.0, 1.0], [-math.inf, -math.inf]], [[5.0, 0.0]] * 2 + [[5.0, 0.0]]])
    assert spread_of(scores_BPF).tolist() == pytest.approx([math.sqrt(2) / 2, 0.0])
    assert spread_of(torch.full((2, 1, 3), -math.inf)).tolist() == [0.0, 0.0, 0.0]
