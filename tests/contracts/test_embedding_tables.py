"""What every holder of the tables of vectors promises; the list is read from the registry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from kgrec.errors import InputError
from kgrec.model.embeddings import EmbeddingTables, NetworkShape, SharedTables
from kgrec.model.network import Network
from kgrec.training.distributed.sharding import TABLES, group_of_one, refuse_sharded, tables_of
from kgrec.training.optimiser import make_optimiser
from kgrec.training.phases import Knowledge
from kgrec.training.tasks import TaskConfig, make_network, make_tasks
from kgrec.training.trainer import TrainingConfig, train
from kgrec.training.whole import take_memory, take_state, whole_memory, whole_network, whole_state
from tests.training.worlds_of_tensors import SMALL, tastes

SHAPE = NetworkShape(num_users=11, num_items=4, num_entities=70_000, num_relations=3)
SAMPLED = SMALL.model_copy(update={"propagation": "sampled", "fanout": 3})


def config_of(name: str, **changes: Any) -> TrainingConfig:
    return TrainingConfig(tables=name, optimiser="adagrad", threads=1, epochs=2, batch_size=64, relations_every=0,
                          **changes)  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture(params=[
    pytest.param(name, marks=[pytest.mark.distributed] * (name != "local")) for name in sorted(TABLES)
])  # fmt: skip
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A holder's name, in a process group of one."""
    try:
        tables_of(config_of(request.param))
    except InputError as missing:
        pytest.skip(f"cannot be tested here: {missing}")
    with group_of_one():
        yield request.param


def made(name: str) -> EmbeddingTables:
    tables: EmbeddingTables = tables_of(config_of(name))(SHAPE, 8, 6, 0.1, torch.Generator().manual_seed(5))
    return tables


def test_the_start_and_the_rows_are_those_of_local_tables(name: str) -> None:
    tables, local = made(name), SharedTables(SHAPE, 8, 6, 0.1, torch.Generator().manual_seed(5))
    assert torch.equal(tables.relations_RW, local.relations_RW)
    users, entities = torch.tensor([10, 0, 3]), torch.tensor([69_999, 65_536, 65_535, 0])
    for users_V in (users, users[:0]):
        for mine, theirs in zip(tables.rows(users_V, entities), local.rows(users_V, entities), strict=True):
            assert torch.equal(mine, theirs)
    assert sum(part.numel() for part in {**dict(tables.named_parameters()), **tables.gathered()}.values()) == sum(
        part.numel() for part in local.parameters()
    )


def trained(name: str) -> Network:
    shape, data, _ = tastes()
    network = make_network(shape, SAMPLED, data, 3, tables_of(config_of(name)))
    train(network, make_tasks(shape, data, TaskConfig(full_softmax_items=0, sampled_items=8)), config_of(name), 1, None)
    return network


def test_training_moves_the_rows_as_it_moves_local_ones(name: str) -> None:
    mine, theirs = whole_state(trained(name)), whole_state(trained("local"))
    assert mine.keys() == theirs.keys()
    for key, tensor in theirs.items():
        torch.testing.assert_close(mine[key], tensor, rtol=1e-4, atol=1e-5, msg=key)


def test_state_and_memory_go_to_local_tables_and_back(name: str) -> None:
    network, local = trained(name), trained("local")
    memories = [whole_memory(one, make_optimiser(one, config_of(name))) for one in (network, local)]
    assert memories[0].keys() == memories[1].keys()
    drawn = {key: torch.rand(part.shape) if part.ndim == 2 else part for key, part in memories[0].items()}
    state = {key: torch.rand(part.shape) for key, part in whole_state(network).items()}
    for one in (network, local):
        optimiser = make_optimiser(one, config_of(name))
        take_state(one, state)
        take_memory(one, optimiser, drawn)
        for found, given in ((whole_state(one), state), (whole_memory(one, optimiser), drawn)):
            assert found.keys() == given.keys()
            assert all(torch.equal(found[key], given[key]) for key in given)
    vectors, expected = whole_network(network).export(), local.export()
    torch.testing.assert_close(vectors.user_vectors_UD, expected.user_vectors_UD)
    torch.testing.assert_close(vectors.entity_vectors_ED, expected.entity_vectors_ED)


def test_what_sharded_tables_cannot_do_is_refused_all_at_once() -> None:
    training = TrainingConfig(tables="torchrec", table_decay=0.1, knowledge=Knowledge.FROZEN)
    with pytest.raises(InputError) as raised:
        refuse_sharded(training, SMALL.model_copy(update={"adapter_rank": 2}))
    assert {problem.where for problem in raised.value.problems} == {
        "model.propagation", "model.adapter_rank", "training.optimiser", "training.table_decay", "training.knowledge",
    }  # fmt: skip
    refuse_sharded(config_of("torchrec"), SAMPLED)
