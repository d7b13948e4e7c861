"""Chains of relations: composed as their oracle says, learned on a ring, told from chains that lead elsewhere."""

import pytest
import torch

from kgrec.model.kg_scorers import SCORERS, ScorerName
from kgrec.model.network import Network, NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.model.reasoning import compose_path, path_consistency, path_scores
from kgrec.training.link_task import LinkTask, Onward
from kgrec.training.tasks import TaskConfig, TrainingData, make_network, make_tasks
from kgrec.training.trainer import TrainingConfig, train
from tests.training.worlds_of_tensors import line


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_a_chain_is_its_relations_one_after_the_other(name: ScorerName) -> None:
    scorer, generator = SCORERS[name], torch.Generator().manual_seed(2)
    head_BD, entities_ED = torch.randn(3, 4, generator=generator), torch.randn(5, 4, generator=generator)
    path_BLW = torch.randn(3, 3, scorer.width(4), generator=generator)
    query_BD = head_BD
    for step in range(3):
        query_BD = scorer.tail_query(query_BD, path_BLW[:, step])
    expected = scorer.against(query_BD, entities_ED)
    torch.testing.assert_close(path_scores(scorer, head_BD, path_BLW, entities_ED), expected, atol=1e-4, rtol=1e-4)
    own = path_consistency(scorer, head_BD, compose_path(scorer, path_BLW), path_BLW)
    torch.testing.assert_close(own, torch.ones(3))
    assert torch.equal(compose_path(scorer, path_BLW[:, :1]), path_BLW[:, 0])


def test_onward_draws_every_way_out_of_an_entity_and_no_other() -> None:
    queries_T3 = torch.tensor([[2, 0, 1], [0, 1, 2], [2, 1, 0], [1, 0, 2]])
    rows = Onward(queries_T3, 3).draw(torch.tensor([2] * 200 + [1] * 5), torch.Generator().manual_seed(1))
    assert set(rows[:200].tolist()) == {0, 2}
    assert set(rows[200:].tolist()) == {3}


def trained(path_weight: float) -> tuple[Network, float]:
    """Train on steps of 1, 2, 3 and 4 along a line; return the share of chains (1, then 2) whose end is found first."""
    shape, triples_T3, _ = line(16)
    data = TrainingData(GraphEdges.empty(), triples_T3=triples_T3)
    network = make_network(shape, NetworkConfig(dimensions=16), data, 1)
    config = TrainingConfig(epochs=120, batch_size=128, learning_rate=0.05, evaluate_every=120, threads=1, kg_weight=1)
    losses = TaskConfig(n3=0.01, path_weight=path_weight)
    train(network, make_tasks(shape, data, losses), config, 1, lambda _: {"objective": 0.0})
    heads = torch.arange(12)
    ends = network.score_path(heads, torch.tensor([[0, 1]]).expand(12, -1)).argmax(1)
    return network, float((ends == heads + 3).double().mean())


def test_training_on_chains_finds_their_ends_and_tells_consistent_links_from_others() -> None:
    network, found = trained(1.0)
    assert found > 0.9, found
    heads = torch.arange(8)
    chain = torch.tensor([[0, 1]]).expand(8, -1)
    with torch.no_grad():
        consistency = [network.path_consistency(heads, torch.full((8,), r), chain) for r in range(4)]
    by_relation = torch.stack(consistency).mean(1)
    assert by_relation.argmax() == 2, by_relation  # one step and two steps are three
    assert ((torch.stack(consistency) >= -1.0001) & (torch.stack(consistency) <= 1.0001)).all()


def test_the_path_loss_is_the_loop_over_chains() -> None:
    shape, triples_T3, _ = line(6)
    data = TrainingData(GraphEdges.empty(), triples_T3=triples_T3)
    network = make_network(shape, NetworkConfig(dimensions=8), data, 1)
    loss = {}
    for weight in (0.0, 2.0):
        task = LinkTask(triples_T3, shape, TaskConfig(n3=0, path_weight=weight))
        batch = list(next(task.batches(torch.Generator().manual_seed(3), 1)))
        loss[weight] = task.losses(network, network.encode(), batch)["link"].item()
    first, second = task.queries_T3[batch[0]].tolist(), task.queries_T3[batch[2]].tolist()
    chains = [(a, b) for a, b in zip(first, second, strict=True) if a[0] != b[2]]
    assert all(a[2] == b[0] for a, b in chains)
    ends, oracle = [b[2] for _, b in chains], 0.0
    for a, b in chains:
        scores_E = network.score_path(torch.tensor([a[0]]), torch.tensor([[a[1], b[1]]]))[0].detach()
        rivals = torch.stack([scores_E[b[2]], *(scores_E[end] for end in ends if end != b[2])])
        oracle += float(rivals.logsumexp(0) - scores_E[b[2]]) / len(chains)
    assert loss[2.0] - loss[0.0] == pytest.approx(2 * oracle, rel=1e-4)
