"""A network as one thing, wherever its tables live: its whole state, that of the optimiser, and a copy to be judged.

Local tables are part of the network's own state. Sharded ones are gathered under the names of the local, so that a
checkpoint does not know who held what: it goes on with any number of processes, and with local tables.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from kgrec.model.network import Network
from kgrec.training.optimiser import load_optimiser, optimiser_tensors

_TABLES: Final = "tables."
_GATHERED: Final = 2  # sharded tables, which stand before all other parameters in the local optimiser's memory


def whole_state(network: Network) -> dict[str, Tensor]:
    """Return every tensor of the network. Every process must ask at the same time."""
    tables = {f"{_TABLES}{name}": table for name, table in network.tables.gathered().items()}
    return {**network.state_dict(), **tables}


def copied_state(network: Network) -> dict[str, Tensor]:
    """Return a copy of every tensor of the network, as `whole_state` does."""
    return {name: tensor.detach().clone() for name, tensor in whole_state(network).items()}


def take_state(network: Network, state: Mapping[str, Tensor]) -> None:
    """Give the network what `whole_state` returned, here or elsewhere."""
    own = set(network.state_dict())
    network.tables.take({name.removeprefix(_TABLES): part for name, part in state.items() if name not in own})
    sharded = {f"{_TABLES}{name}" for name in network.tables.gathered_names()}
    network.load_state_dict({name: part for name, part in state.items() if name not in sharded})


def whole_memory(network: Network, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's memory as that over local tables would be. Every process must ask at the same time."""
    own, sums = optimiser_tensors(optimiser), network.tables.gathered_sums()
    if not sums:
        return own
    moved = {f"{int(index) + _GATHERED}.{name}": part for index, name, part in _split(own)}
    steps = own["0.step"]
    return moved | {f"{index}.sum": part for index, part in enumerate(sums)} | {
        f"{index}.step": steps.clone() for index in range(_GATHERED)
    }  # fmt: skip


def take_memory(network: Network, optimiser: torch.optim.Optimizer, memory: Mapping[str, Tensor]) -> None:
    """Give the optimiser what `whole_memory` returned, here or elsewhere."""
    if not network.tables.gathered_names():
        load_optimiser(optimiser, memory)
        return
    network.tables.take_sums([memory[f"{index}.sum"] for index in range(_GATHERED)])
    own = {f"{int(index) - _GATHERED}.{name}": part for index, name, part in _split(memory) if int(index) >= _GATHERED}
    load_optimiser(optimiser, own)


def whole_network(network: Network) -> Network:
    """Return the network itself, or one with gathered tables in the place of sharded ones, to encode and to judge."""
    gathered = network.tables.gathered()
    if not gathered:
        return network
    tables = nn.Module()
    for name, table in {**gathered, "relations_RW": network.tables.relations_RW.detach()}.items():
        tables.register_parameter(name, nn.Parameter(table))
    whole = copy.copy(network)
    whole.__dict__["_modules"] = {**network._modules, "tables": tables}
    return whole.eval()


def _split(memory: Mapping[str, Tensor]) -> list[tuple[str, str, Tensor]]:
    return [(*key.split(".", 1), part) for key, part in memory.items()]  # type: ignore[misc]
