"""Tables of vectors that the processes share out among themselves by TorchRec: by rows or whole, as its planner says.

Each process holds its shards alone; a step fetches the rows that it reads and sends their gradients back, and FBGEMM's
Adagrad moves them where they live, inside the backward pass. The relations, few, are held by all.

Shapes: U users, E entities, R relations, D dimensions, W dimensions of a relation, V and F rows that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import Tensor, distributed, nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed.comm_ops import set_gradient_division
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.distributed.types import ShardingEnv

from kgrec.model.embeddings import EmbeddingTables, NetworkShape
from kgrec.training.world import World

Sharding = Literal["auto", "row_wise", "table_wise"]
TABLES: Final = ("users", "entities")
_KEYS: Final = {"users": "users_UD", "entities": "entities_ED"}
_DRAWN: Final = 1 << 16  # rows of the start drawn at once, so that no process ever draws a whole table
_EPS: Final = 1e-10


class ShardedTables(EmbeddingTables):
    """The role of `kgrec.model.embeddings.SharedTables` over the processes of the group; one process is a group of one.

    The start is that of the local tables, row by row. Needs a joined process group.
    """

    def __init__(
        self, shape: NetworkShape, dimensions: int, width: int, spread: float, generator: torch.Generator,
        *, sharding: Sharding = "auto", learning_rate: float = 0.02,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dimensions, self.world = dimensions, World.joined()
        self.sizes = {"users": shape.num_users, "entities": shape.num_entities}
        set_gradient_division(False)  # gradients are sums over the processes, as the losses are parts of a sum
        with torch.random.fork_rng(devices=[]):  # what it draws is overwritten, and must not shift what others draw
            held = self._shard(sharding, learning_rate)
        self._held = (held,)  # in a tuple: its parameters are no optimiser's business
        for name in TABLES:
            self._fill(name, (torch.randn(rows, dimensions, generator=generator) * spread
                              for rows in _blocks(self.sizes[name])))  # fmt: skip
        self.relations_RW = nn.Parameter(torch.randn(2 * shape.num_relations, width, generator=generator) * spread)

    def _shard(self, sharding: Sharding, learning_rate: float) -> Any:
        tables = [
            EmbeddingConfig(num_embeddings=self.sizes[name], embedding_dim=self.dimensions, name=name,
                            feature_names=[name]) for name in TABLES if self.sizes[name]
        ]  # fmt: skip
        whole = EmbeddingCollection(tables=tables, device=torch.device("meta"))
        kinds = ["row_wise", "table_wise"] if sharding == "auto" else [sharding]
        asked = ParameterConstraints(sharding_types=kinds, compute_kernels=["fused"])
        topology = Topology(world_size=self.world.size, compute_device="cpu", local_world_size=self.world.size)
        planner = EmbeddingShardingPlanner(topology=topology, constraints={table.name: asked for table in tables})
        settings = {"optimizer": EmbOptimType.EXACT_ADAGRAD, "learning_rate": learning_rate, "eps": _EPS}
        sharder, group = EmbeddingCollectionSharder(fused_params=settings), distributed.group.WORLD
        self.plan = planner.collective_plan(whole, [sharder], group).plan[""]
        return sharder.shard(whole, self.plan, ShardingEnv.from_process_group(group), torch.device("cpu"))

    def rows(self, user_V: Tensor, entity_F: Tensor) -> tuple[Tensor, Tensor]:
        """Return some rows of users and of entities, (V, D) and (F, D). Every process must ask at the same time."""
        asked = {"users": user_V, "entities": entity_F}
        names = [name for name in TABLES if self.sizes[name]]
        lengths = torch.tensor([len(asked[name]) for name in names])
        values = torch.cat([asked[name] for name in names])
        found = self._held[0](KeyedJaggedTensor(keys=names, values=values, lengths=lengths))
        none = torch.zeros(0, self.dimensions)
        users_VD, entities_FD = (found[name].values() if name in names else none for name in TABLES)
        return users_VD, entities_FD

    def held(self, name: str) -> list[tuple[int, Tensor]]:
        """Return this process's shards of a table: (first row, rows), the rows themselves and no copy."""
        return _shards(self._held[0].state_dict().get(f"embeddings.{name}.weight"))

    def sums(self, name: str) -> list[tuple[int, Tensor]]:
        """Return Adagrad's sums of squared gradients of this process's shards, as `held` returns the rows."""
        memory = self._held[0].fused_optimizer.state_dict()["state"].get(f"embeddings.{name}.weight", {})
        return _shards(memory.get(f"{name}.momentum1"))

    def gathered_names(self) -> tuple[str, ...]:
        """Return the names of both tables."""
        return tuple(_KEYS.values())

    def gathered(self) -> dict[str, Tensor]:
        """Return the whole tables by their names in the local ones. Every process must ask at the same time."""
        return {_KEYS[name]: self._whole(name, self.held) for name in TABLES}

    def gathered_sums(self) -> list[Tensor]:
        """Return the whole sums of users and of entities. Every process must ask at the same time."""
        return [self._whole(name, self.sums) for name in TABLES]

    def take(self, tables: Mapping[str, Tensor]) -> None:
        """Take this process's rows out of whole tables, named as `gathered` names them."""
        for name in TABLES:
            self._fill(name, iter([tables[_KEYS[name]]]))

    def take_sums(self, sums: Sequence[Tensor]) -> None:
        """Take this process's rows out of whole sums, as `gathered_sums` returns them."""
        for name, whole_ND in zip(TABLES, sums, strict=True):
            _copy_rows(self.sums(name), 0, whole_ND)

    def _fill(self, name: str, blocks: Iterator[Tensor]) -> None:
        first, shards = 0, self.held(name)
        for block_ND in blocks:
            _copy_rows(shards, first, block_ND)
            first += len(block_ND)

    def _whole(self, name: str, shards_of: Callable[[str], list[tuple[int, Tensor]]]) -> Tensor:
        """Return a whole table: zeros where others hold the rows, summed over the processes."""
        whole_ND = torch.zeros(self.sizes[name], self.dimensions)
        for first, rows_ND in shards_of(name):
            whole_ND[first : first + len(rows_ND)] = rows_ND.detach()
        return self.world.sum(whole_ND)


def _blocks(rows: int) -> Iterator[int]:
    yield from (min(_DRAWN, rows - first) for first in range(0, rows, _DRAWN))


def _shards(table: Any) -> list[tuple[int, Tensor]]:
    if table is None:
        return []
    return [(int(shard.metadata.shard_offsets[0]), shard.tensor) for shard in table.local_shards()]


@torch.no_grad()
def _copy_rows(shards: list[tuple[int, Tensor]], first: int, block_ND: Tensor) -> None:
    """Copy what of a block, which starts at a row of the whole table, lies within the shards."""
    for start, rows_ND in shards:
        low, high = max(first, start), min(first + len(block_ND), start + len(rows_ND))
        if low < high:
            rows_ND[low - start : high - start] = block_ND[low - first : high - first]
