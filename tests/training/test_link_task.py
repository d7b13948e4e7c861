"""The link task: batches of whole queries, losses that learn, knobs that move it; the defaults of a graph alone."""

import pytest
import torch

from kgrec.errors import InputError
from kgrec.model.kg_scorers import SCORERS, ScorerName
from kgrec.model.network import Network, NetworkConfig
from kgrec.model.propagation import GraphEdges
from kgrec.training.graph_alone import filled, graph_alone_defaults
from kgrec.training.link_task import LinkLoss, LinkTask
from kgrec.training.tasks import TaskConfig, TrainingData, make_network, make_tasks
from kgrec.training.trainer import TrainingConfig, train
from tests.training.worlds_of_tensors import SMALL, line, relatives

ONE_VS_ALL = TaskConfig(link_loss=LinkLoss.ONE_VS_ALL)


def test_against_all_a_batch_holds_whole_queries_and_an_epoch_both_directions_of_all_triples() -> None:
    shape, triples_T3, _ = relatives()
    triples_T3 = torch.cat([triples_T3, torch.tensor([[0, 1, 5], [0, 1, 7], [3, 0, 7]])])
    task = LinkTask(triples_T3, shape, ONE_VS_ALL)
    batches = [row_B for row_B, _ in task.batches(torch.Generator().manual_seed(1), 9)]
    asked = [{(h, r) for h, r, _ in task.queries_T3[row_B].tolist()} for row_B in batches]
    assert sum(map(len, asked)) == len(set().union(*asked)), "a query is in two batches"
    seen = sorted(map(tuple, task.queries_T3[torch.cat(batches)].tolist()))
    inverses = [(t, r + shape.num_relations, h) for h, r, t in triples_T3.tolist()]
    assert seen == sorted([*map(tuple, triples_T3.tolist()), *inverses])
    assert task.rows == 2 * len(triples_T3)


def test_auto_goes_by_the_number_of_entities() -> None:
    shape, triples_T3, _ = relatives()
    for limit, loss in ((shape.num_entities, LinkLoss.ONE_VS_ALL), (shape.num_entities - 1, LinkLoss.SAMPLED)):
        assert LinkTask(triples_T3, shape, TaskConfig(full_softmax_entities=limit)).loss is loss


def network_of(scorer: ScorerName, dimensions: int = 16) -> tuple[Network, torch.Tensor]:
    shape, triples_T3, _ = relatives()
    config = SMALL.model_copy(update={"scorer": scorer, "dimensions": dimensions})
    return make_network(shape, config, TrainingData(GraphEdges.empty(), triples_T3=triples_T3), 1), triples_T3


def loss_of(network: Network, triples_T3: torch.Tensor, **changes: object) -> float:
    task = LinkTask(triples_T3, network.shape, TaskConfig(**{"link_loss": "one_vs_all", **changes}))
    batch = next(task.batches(torch.Generator().manual_seed(2), 1))
    return task.losses(network, network.encode(), batch)["link"].item()


@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_one_vs_all_is_the_mean_over_all_queries_of_the_cross_entropy(scorer: ScorerName) -> None:
    network, triples_T3 = network_of(scorer)
    heads, relations, tails = triples_T3.T
    oracle = []
    for a, r, b in [*zip(heads, relations, tails, strict=True), *zip(tails, relations + 2, heads, strict=True)]:
        scores_E = network.score_tails(a[None], r[None])[0].detach()
        oracle.append(float(scores_E.logsumexp(0) - scores_E[b]))
    assert loss_of(network, triples_T3, n3=0) == pytest.approx(sum(oracle) / len(oracle), rel=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"link_loss": "sampled"}, {"link_loss": "self_adversarial"}, {"n3": 1.0}, {"relation_weight": 1.0},
        {"link_precision": "bfloat16"}, {"link_loss": "self_adversarial", "margin": 1.0},
        {"link_loss": "self_adversarial", "adversarial_temperature": 9.0},
        {"link_loss": "sampled", "sampled_entities": 7},
    ],
    ids=str,
)  # fmt: skip
def test_every_knob_moves_the_loss(change: dict[str, object]) -> None:
    network, triples_T3 = network_of(ScorerName.COMPLEX)
    before = loss_of(network, triples_T3, **({"link_loss": change["link_loss"]} if len(change) > 1 else {}))
    assert loss_of(network, triples_T3, **change) != before


def test_a_scorer_without_relation_queries_refuses_the_relation_loss() -> None:
    network, triples_T3 = network_of(ScorerName.ROTATE)
    with pytest.raises(InputError, match="rotate cannot score all relations"):
        loss_of(network, triples_T3, relation_weight=1.0)


LOSSES = [loss for loss in LinkLoss if loss is not LinkLoss.AUTO]
LEARNS = [  # without distmult, which is symmetric and cannot tell a line's direction
    *((scorer, LinkLoss.ONE_VS_ALL) for scorer in sorted(SCORERS) if SCORERS[scorer].antisymmetric),
    *((ScorerName.COMPLEX, loss) for loss in LOSSES[1:]),
]


@pytest.mark.parametrize(("scorer", "loss"), LEARNS)
def test_every_scorer_and_every_loss_places_what_was_held_out_of_a_line(scorer: ScorerName, loss: LinkLoss) -> None:
    shape, triples_T3, held_T3 = line(16)
    data = TrainingData(GraphEdges.empty(), triples_T3=triples_T3)
    network = make_network(shape, NetworkConfig(dimensions=16, scorer=scorer), data, 1)
    losses = TaskConfig(link_loss=loss, n3=0.01, sampled_entities=32, margin=2.0)
    config = TrainingConfig(epochs=150, batch_size=128, learning_rate=0.05, evaluate_every=150, threads=1, kg_weight=1)
    train(network, make_tasks(shape, data, losses), config, 1, lambda _: {"objective": 0.0})
    head, relation, tail = held_T3.T
    scores_BE = network.score_tails(head, relation)
    rank_B = (scores_BE > scores_BE.gather(1, tail[:, None])).sum(1)
    assert float((1 / (1 + rank_B.double())).mean()) > 0.5  # chance: 0.21


def test_a_graph_alone_gets_defaults_by_its_size_and_what_was_set_stands() -> None:
    small, large = graph_alone_defaults(100, 1000), graph_alone_defaults(1_000_000, 10_000_000)
    assert small["training"]["epochs"] > large["training"]["epochs"]
    assert small["losses"]["full_softmax_entities"] >= 100
    assert large["losses"]["full_softmax_entities"] == 0
    config = filled(TrainingConfig(epochs=3, learning_rate=0.02), small["training"])
    assert isinstance(config, TrainingConfig)
    assert (config.epochs, config.learning_rate, config.optimiser) == (3, 0.02, "adagrad")
    for section, values in ((TrainingConfig(), "training"), (TaskConfig(), "losses"), (NetworkConfig(), "model")):
        assert type(section).model_validate(filled(section, small[values]).model_dump())
