"""What makes steps of gradients, and its memory as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

from kgrec.model.network import Network


class OptimiserConfig(Protocol):
    """What of the training's config an optimiser depends on."""

    @property
    def optimiser(self) -> Literal["adamw", "adagrad"]:
        """Which one."""

    @property
    def learning_rate(self) -> float:
        """Step size of the shared tables."""

    @property
    def tower_learning_rate(self) -> float:
        """Step size of the towers."""

    @property
    def weight_decay(self) -> float:
        """Decay of the towers' weights."""

    @property
    def table_decay(self) -> float:
        """Decay of the shared vectors."""


def make_optimiser(network: Network, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Return a new optimiser: the shared tables and the towers each with their own step size and decay."""
    groups = [{"params": list(network.tables.parameters()), "weight_decay": config.table_decay}]
    heads = [parameter for name, parameter in network.named_parameters() if not name.startswith("tables.")]
    if heads:
        groups.append({"params": heads, "weight_decay": config.weight_decay, "lr": config.tower_learning_rate})
    if config.optimiser == "adagrad":
        return torch.optim.Adagrad(groups, lr=config.learning_rate, fused=True)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's memory as named tensors."""
    memory = optimiser.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(value) for index, part in memory.items() for name, value in part.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimiser its memory back."""
    memory: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        memory.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": memory})
