"""Propagation over drawn neighbours: exact where all are asked, right in the mean elsewhere, nearer with more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kgrec.errors import InputError
from kgrec.model.network import Network, NetworkConfig
from kgrec.model.propagation import propagate
from kgrec.model.sampled import Rows, draw_layers, hashed, propagate_drawn
from kgrec.model.towers import TowerConfig
from kgrec.training.balancer import BalancerName
from kgrec.training.tasks import TaskConfig, make_network, make_tasks
from kgrec.training.trainer import TrainingConfig, train
from kgrec.training.world import ALONE, World
from tests.training.resume_script import run
from tests.training.worlds_of_tensors import SMALL, cosine_objective, tastes

ALL = 10_000
SAMPLED = SMALL.model_copy(update={"propagation": "sampled", "fanout": ALL})
READS = Rows.joined([
    Rows.of(torch.tensor([7, 3, -1, 3]), torch.tensor([39, 0, 12])),
    Rows.of(items=torch.tensor([12, 5]), entities=torch.tensor([41, 2])),
])  # fmt: skip


def network_of(config: NetworkConfig = SAMPLED) -> Network:
    shape, data, _ = tastes()
    return make_network(shape, config, data, seed=3)


def test_rows_are_distinct_ascending_and_known() -> None:
    assert [part.tolist() for part in (READS.users, READS.items, READS.entities)] == [[3, 7], [0, 5, 12, 39], [2, 41]]
    aligned = READS.aligned(40)
    assert aligned.items.tolist() == [0, 2, 5, 12, 39]
    assert aligned.entities.tolist() == [0, 2, 5, 12, 39, 41]


@pytest.mark.parametrize("layers", range(4))
def test_with_all_neighbours_it_is_the_exact_encoder_and_its_gradient(layers: int) -> None:
    network = network_of(SAMPLED.model_copy(update={"layers": layers})).eval()
    exact, drawn = network.encode(), network.encode(READS)

    def gradients(users_VD: Tensor, items_JD: Tensor, entities_FD: Tensor) -> list[Tensor]:
        pull = torch.arange(users_VD.numel()).reshape(users_VD.shape).float()
        loss = (users_VD * pull).sum() + items_JD[:, 0].sum() + (entities_FD**2).sum()
        return list(torch.autograd.grad(loss, [network.tables.users_UD, network.tables.entities_ED]))

    assert exact.entities_ED is not None
    assert drawn.entities_ED is not None
    whole = (exact.users_UD[READS.users], exact.items_ID[READS.items], exact.entities_ED[READS.entities])
    parts = (drawn.users_UD, drawn.items_ID, drawn.entities_ED)
    for mine, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(mine, theirs)
    for mine, theirs in zip(gradients(*parts), gradients(*whole), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def errors(fanout: int, draws: int) -> tuple[float, float]:
    """Return the relative error of one draw, in the mean, and that of the mean of many."""
    network = network_of()
    nodes_KD, matrix_KK = network._nodes().detach(), network.adjacency.matrix_KK
    exact_KD = propagate(nodes_KD, matrix_KK, 2)
    every_K, single, total_KD = torch.arange(len(nodes_KD)), 0.0, torch.zeros_like(nodes_KD)
    for key in range(draws):
        drawn_KD = propagate_drawn(nodes_KD, draw_layers(matrix_KK, every_K, 2, fanout, 1000 * key))
        single += float((drawn_KD - exact_KD).norm() / exact_KD.norm()) / draws
        total_KD += drawn_KD / draws
    return single, float((total_KD - exact_KD).norm() / exact_KD.norm())


def test_the_error_falls_with_the_fanout_and_there_is_none_in_the_mean() -> None:
    singles = {fanout: errors(fanout, 3)[0] for fanout in (1, 4, 16)}
    assert singles[1] > 1.5 * singles[4] > 3 * singles[16]
    single, mean = errors(2, 200)
    assert mean < 2 * single / 200**0.5, "the mean of many draws must come near to the exact one as chance has it"


def test_a_node_asks_the_same_neighbours_in_any_company() -> None:
    network = network_of()
    matrix_KK = network.adjacency.matrix_KK
    alone, among = (draw_layers(matrix_KK, nodes, 2, 2, 5) for nodes in (torch.tensor([60]), torch.arange(100)))
    x_KD = torch.randn(len(network.adjacency.degree_K), 3, generator=torch.Generator().manual_seed(1))
    mine, theirs = (propagate_drawn(x_KD[layers[-1].reached_M], layers) for layers in (alone, among))
    assert torch.equal(mine[0], theirs[60])


def test_hashes_are_uniform_and_differ_by_every_part() -> None:
    row_B = torch.arange(20_000)
    drawn = hashed(9, row_B, row_B % 7)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) < 1
    assert torch.histc(drawn, 10, 0, 1).sub(2000).abs().max() < 200
    assert not torch.equal(drawn, hashed(9, row_B, row_B % 5))


def test_training_on_four_neighbours_learns_the_tastes() -> None:
    shape, data, genre_I = tastes()
    config = TrainingConfig(epochs=12, batch_size=64, learning_rate=0.05, threads=1)
    network = make_network(shape, SAMPLED.model_copy(update={"fanout": 4}), data, 1)
    train(network, make_tasks(shape, data, TaskConfig()), config, 1, lambda model: cosine_objective(model, genre_I))
    assert cosine_objective(network, genre_I)["objective"] > 0.9  # chance: .25


@pytest.mark.parametrize("name", [BalancerName.FIXED, BalancerName.PCGRAD])
def test_balancers_and_relations_see_the_same_on_drawn_rows(name: BalancerName) -> None:
    config = TrainingConfig(epochs=2, batch_size=64, balancing=name, threads=1)
    plain = {"id_dropout": 0.0, "towers": TowerConfig(dropout=0.0)}  # the streams of dropout differ
    drawn, exact = (
        run(None, config, lambda _: None, model=model.model_copy(update=plain))[1].history for model in (SAMPLED, SMALL)
    )
    for mine, theirs in zip(drawn, exact, strict=True):
        for key in [key for key in theirs if key.split("/")[0] in ("loss", "cosine")]:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-3), key


@pytest.mark.parametrize(("name", "world"), [(BalancerName.PCGRAD, World(0, 2)), (BalancerName.META, ALONE)])
def test_balancers_that_compare_vectors_of_other_rows_are_refused(name: BalancerName, world: World) -> None:
    shape, data, _ = tastes()
    network, tasks = make_network(shape, SAMPLED, data, 1), make_tasks(shape, data, TaskConfig())
    with pytest.raises(InputError, match="sampled propagation"):
        train(network, tasks, TrainingConfig(balancing=name, threads=1), 1, None, world=world, held_out=tasks)
