"""What makes steps of gradients, and its memory as named tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Final, Literal, Protocol

import torch
from torch import Tensor

from kgrec.model.network import Network

_NOTE: Final = "__dynamo_disable"


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
    _leave_compiler_unloaded()
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


def _leave_compiler_unloaded() -> None:
    """Let optimisers be made and stored without loading torch's compiler: its import takes three processor seconds.

    Methods of Optimizer load the compiler to tell it to leave them alone. They are called plainly here; where this
    torch keeps no such note, nothing changes.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = getattr(getattr(torch.optim.Optimizer, name, None), "__wrapped__", None)
        if method is not None:
            vars(method).setdefault(_NOTE, method)


def take_step(optimiser: torch.optim.Optimizer) -> None:
    """Move the parameters as `optimiser.step()` does, without what is wrapped around it: hooks, and the compiler."""
    step = inspect.unwrap(type(optimiser).step)
    with torch.no_grad():
        step(optimiser)
