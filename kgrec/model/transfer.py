"""What some conversion losses ask of the towers: information handed from click to conversion, and imputed errors.

Shapes: B rows, O width of a task's output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Transfer(nn.Module):
    """AITM's adaptive information transfer: conversion attends to itself and to what click hands on.

    With p conversion's output and q = ReLU(Linear(click's output)), and h1, h2, h3 linear: z is the sum over u in
    {p, q} of softmax_u(h2(u) . h3(u) / sqrt(O)) * h1(u). Reference: Xi et al., KDD 2021.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hand_on = nn.Linear(width, width)
        self.value, self.key, self.query = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, click_BO: Tensor, conversion_BO: Tensor) -> Tensor:
        """Return what conversion's head reads, (B, O)."""
        both_B2O = torch.stack([conversion_BO, functional.relu(self.hand_on(click_BO))], dim=1)
        match_B2 = (self.key(both_B2O) * self.query(both_B2O)).sum(-1) / both_B2O.shape[-1] ** 0.5
        mixed_BO: Tensor = (match_B2.softmax(dim=1).unsqueeze(-1) * self.value(both_B2O)).sum(1)
        return mixed_BO


class Imputation(nn.Module):
    """A small tower that says which loss >= 0 to expect of conversion's prediction, clicked or not (ESCM2-DR)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, output_BO: Tensor) -> Tensor:
        """Return the expected losses, (B,)."""
        return functional.softplus(self.layers(output_BO).squeeze(-1))
