"""Who holds the tables of vectors: a registry of two, what the sharded ones ask of a config, and a group of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

from torch import distributed

from kgrec.errors import InputError, Problem
from kgrec.model.embeddings import SharedTables
from kgrec.model.network import NetworkConfig
from kgrec.training.trainer import TrainingConfig

MakeTables = Callable[..., Any]
"""Makes `EmbeddingTables` of (shape, dimensions, width, spread, generator)."""


def _local(config: TrainingConfig) -> MakeTables:
    return SharedTables


def _torchrec(config: TrainingConfig) -> MakeTables:
    try:
        module = import_module("kgrec.training.distributed.sharded_tables")
    except ModuleNotFoundError as missing:
        what = f"the package {missing.name} is not installed"
        remedy = "pip install --no-deps -r requirements/torchrec-cpu.txt"
        raise InputError(Problem("training.tables", what, remedy)) from None
    return partial(module.ShardedTables, sharding=config.sharding, learning_rate=config.learning_rate)


TABLES: Final[Mapping[str, Callable[[TrainingConfig], MakeTables]]] = MappingProxyType(
    {"local": _local, "torchrec": _torchrec}
)
"""What makes the tables, by the word of `training.tables`; a package is loaded when it is asked for."""


def tables_of(config: TrainingConfig) -> MakeTables:
    """Return what makes the tables of a config; InputError with the remedy where a package is missing."""
    return TABLES[config.tables](config)


def refuse_sharded(training: TrainingConfig, model: NetworkConfig) -> None:
    """Raise InputError with all that sharded tables cannot do."""
    asked = {
        "model.propagation": (model.propagation, "sampled"), "model.adapter_rank": (model.adapter_rank, 0),
        "training.optimiser": (training.optimiser, "adagrad"), "training.table_decay": (training.table_decay, 0.0),
        "training.knowledge": (training.knowledge.value, "joint"), "training.schedule": (training.schedule, "together"),
    }  # fmt: skip
    what = 'training.tables = "torchrec" cannot do this'
    found = [
        Problem(name, what, f"write {wanted!r}, or training.tables = 'local'", example=repr(given))
        for name, (given, wanted) in asked.items()
        if given != wanted
    ]
    if found:
        raise InputError(found)


@contextmanager
def group_of_one() -> Iterator[None]:
    """Join a process group of this process alone, and leave it."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        distributed.destroy_process_group()
