from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from kgrec.errors import DivergedError, InputError
from kgrec.model.embeddings import NetworkShape
from kgrec.model.network import Encoded, Network
from kgrec.model.propagation import GraphEdges
from kgrec.training.balancer import BalancerName
from kgrec.training.schedule import schedule
from kgrec.training.tasks import TaskConfig, TrainingData, make_network, make_tasks
from kgrec.training.trainer import Progress, TrainingConfig, train
from tests.training.worlds_of_tensors import SMALL, cosine_objective, exposures, relatives, tastes

FAST = TrainingConfig(epochs=20, batch_size=64, evaluate_every=2, patience=0, threads=1)


def constant(_: Network) -> dict[str, float]:
    return {"objective": 0.0}


def test_retrieval_finds_the_planted_taste_and_the_graph_places_items_without_events() -> None:
    shape, data, genre_I = tastes()
    network = make_network(shape, SMALL, data, 1)
    train(network, make_tasks(shape, data, TaskConfig()), FAST, 1, lambda model: cosine_objective(model, genre_I))
    assert cosine_objective(network, genre_I)["objective"] > 0.95
    vectors = network.export()
    cold_U4 = vectors.user_vectors_UD @ vectors.item_vectors_ID[-4:].T
    assert (cold_U4.argmax(dim=1) == torch.arange(shape.num_users) % 4).double().mean() > 0.95  # chance: 0.25


def test_without_its_graph_an_item_without_events_is_nowhere() -> None:
    shape, data, genre_I = tastes()
    data = replace(data, edges=GraphEdges(data.edges.user_item_X2, data.edges.head_tail_X2[:0]), triples_T3=None)
    network = make_network(shape, SMALL, data, 1)
    train(network, make_tasks(shape, data, TaskConfig()), FAST, 1, lambda model: cosine_objective(model, genre_I))
    assert network.export().item_vectors_ID[-4:].abs().sum() == 0


def test_links_learn_a_symmetric_and_an_antisymmetric_relation() -> None:
    shape, triples_T3, held_T3 = relatives()
    data = TrainingData(GraphEdges.empty(), triples_T3=triples_T3)
    network = make_network(shape, SMALL.model_copy(update={"dimensions": 32}), data, 1)
    config = FAST.model_copy(update={"epochs": 200, "batch_size": 32, "learning_rate": 0.02, "kg_weight": 1.0})
    steady = iter(range(10_000))
    train(network, make_tasks(shape, data, TaskConfig(n3=0.02)), config, 1, lambda _: {"objective": next(steady)})
    parent_T3 = triples_T3[triples_T3[:, 1] == 0]
    head, relation, tail = parent_T3.T
    found = network.score_tails(head, relation).argmax(1)
    assert (found == tail).double().mean() > 0.9
    assert (network.score_heads(relation, tail).argmax(1) == head).double().mean() > 0.9
    there = network.score_tails(head, relation)[torch.arange(len(head)), tail]
    back = network.score_tails(tail, relation)[torch.arange(len(head)), head]
    assert (there > back).double().mean() > 0.95  # the ring has a direction
    held_head, held_relation, held_tail = held_T3.T
    scores_BE = network.score_tails(held_head, held_relation)
    rank_B = (scores_BE > scores_BE.gather(1, held_tail[:, None])).sum(1)
    assert (rank_B < 3).double().mean() > 0.7  # chance: 3 of 24


@pytest.mark.parametrize("impressions", [True, False])
def test_towers_learn_the_planted_logits(impressions: bool) -> None:
    table, click_logit_N, conversion_logit_N = exposures(6000, impressions=impressions)
    shape = NetworkShape(
        num_users=20, num_items=20, num_entities=20, num_numeric=2, cardinalities=(3,), heads=table.heads
    )
    data = TrainingData(GraphEdges.empty(), exposures=table)
    network = make_network(shape, SMALL, data, 1)
    steady = iter(range(100))
    config = FAST.model_copy(update={"epochs": 8, "batch_size": 256})
    train(network, make_tasks(shape, data, TaskConfig()), config, 1, lambda _: {"objective": next(steady)})
    with torch.no_grad():
        got = network.predict(table.user_N, table.item_N, table.numeric_NF, table.categorical_NC)
    if impressions:
        assert (got["click"] - click_logit_N.sigmoid()).abs().mean() < 0.05
        both = click_logit_N.sigmoid() * conversion_logit_N.sigmoid()
        assert (got["click_and_conversion"] - both).abs().mean() < 0.05
    assert (got["conversion"] - conversion_logit_N.sigmoid()).abs().mean() < 0.07


def test_the_best_epoch_is_restored_and_patience_ends_it() -> None:
    shape, data, _ = tastes()
    network = make_network(shape, SMALL, data, 1)
    objectives, kept = iter([0.1, 0.5, 0.2, 0.3, 0.9]), []

    def evaluate(model: Network) -> dict[str, float]:
        kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        assert not model.training
        return {"objective": next(objectives), "other": 1.0}

    told: list[Progress] = []
    config = FAST.model_copy(update={"patience": 2})
    result = train(network, make_tasks(shape, data, TaskConfig()), config, 1, evaluate, progress=told.append)
    assert (result.best_epoch, result.stopped_early, len(result.history)) == (4, True, 8)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, kept[1][name])
        assert torch.equal(tensor, result.best_state[name])
    assert result.history[3]["validation/objective"] == 0.5
    assert result.history[3]["validation/other"] == 1.0
    assert "validation/objective" not in result.history[2]
    assert {"loss/retrieval", "loss/link", "epoch"} <= set(result.history[2])
    assert [progress.epoch for progress in told] == list(range(1, 9))


class CountingTask:
    """Notes at which steps its batches fall."""

    rows_at_once = None

    def __init__(self, name: str, rows: int, clock: list[int], main: bool) -> None:
        self.name, self.rows, self.clock, self.main, self.steps = name, rows, clock, main, list[int]()

    def batches(self, generator: torch.Generator, count: int) -> Iterator[Sequence[Tensor]]:
        for part in torch.arange(self.rows).tensor_split(count):
            yield (part,)

    def losses(self, network: Network, encoded: Encoded, batch: Sequence[Tensor]) -> Mapping[str, Tensor]:
        if self.main:
            self.clock[0] += 1
        self.steps.append(self.clock[0])
        return {self.name: encoded.users_UD.sum()}


def test_the_batches_of_smaller_tasks_are_spread_evenly_over_those_of_the_largest() -> None:
    shape, data, _ = tastes()
    clock = [-1]
    tasks = [
        CountingTask("largest", 100, clock, True),
        CountingTask("few", 25, clock, False),
        CountingTask("equal", 96, clock, False),
    ]
    config = FAST.model_copy(update={"epochs": 1, "batch_size": 10, "relations_every": 0})
    train(make_network(shape, SMALL, data, 1), tasks, config, 1, constant)
    assert tasks[0].steps == list(range(10))
    assert tasks[1].steps == [1, 5, 8]
    assert tasks[2].steps == list(range(10))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3}, {"batch_size": 32}, {"learning_rate": 0.05}, {"table_decay": 0.1}, {"kg_weight": 0.0},
        {"task_weights": {"retrieval": 0.5}}, {"evaluate_every": 4},
    ],
    ids=str,
)  # fmt: skip
def test_every_knob_changes_the_result(change: dict[str, object]) -> None:
    def outcome(config: TrainingConfig) -> tuple[dict[str, Tensor], int]:
        shape, data, _ = tastes()
        network, steady = make_network(shape, SMALL, data, 1), iter(range(100))
        result = train(
            network, make_tasks(shape, data, TaskConfig()), config, 1, lambda _: {"objective": float(next(steady))}
        )
        looks = sum("validation/objective" in entry for entry in result.history)
        return result.best_state, looks

    short = FAST.model_copy(update={"epochs": 4})
    (left, looks), (right, other_looks) = outcome(short), outcome(short.model_copy(update=change))
    assert looks != other_looks or any(not torch.equal(left[name], right[name]) for name in left)


def test_weight_decay_pulls_on_the_towers_only() -> None:
    table, *_ = exposures(400, impressions=True)
    shape = NetworkShape(
        num_users=20, num_items=20, num_entities=20, num_numeric=2, cardinalities=(3,), heads=table.heads
    )
    data = TrainingData(GraphEdges.empty(), exposures=table)
    sizes = []
    for decay in (0.0, 5.0):
        network = make_network(shape, SMALL, data, 1)
        config = FAST.model_copy(update={"epochs": 3, "weight_decay": decay})
        steady = iter(range(100))
        train(network, make_tasks(shape, data, TaskConfig()), config, 1, lambda _, s=steady: {"objective": next(s)})
        assert network.towers is not None
        sizes.append(network.towers.deep.weight.norm().item())
    assert sizes[1] < 0.8 * sizes[0]


def test_what_was_set_before_is_set_again() -> None:
    shape, data, _ = tastes()
    threads, seen = torch.get_num_threads(), []

    def evaluate(model: Network) -> dict[str, float]:
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        return {"objective": 0.0}

    config = FAST.model_copy(update={"epochs": 1})
    train(make_network(shape, SMALL, data, 1), make_tasks(shape, data, TaskConfig()), config, 1, evaluate)
    assert seen == [(1, True)]
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_faults_are_told() -> None:
    shape, data, _ = tastes()
    tasks: Callable[[], list[object]] = lambda: make_tasks(shape, data, TaskConfig())  # noqa: E731
    with pytest.raises(ValueError, match="objective"):
        train(make_network(shape, SMALL, data, 1), tasks(), FAST, 1, lambda _: {"recall@10": 0.5})
    network = make_network(shape, SMALL, data, 1)
    with torch.no_grad():
        network.tables.users_UD.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"retrieval(.|\n)*remedy(.|\n)*learning_rate") as diverged:
        train(network, tasks(), FAST, 1, constant)
    assert diverged.value.exit_status == 1
    with pytest.raises(ValidationError, match="fixed"):
        TrainingConfig(balancing="fixt")
    with pytest.raises(InputError, match="validation"):
        train(network, tasks(), FAST.model_copy(update={"balancing": BalancerName.META}), 1, constant)
    with pytest.raises(InputError, match="below 0"):
        TrainingConfig(task_weights={"click": -1})


@pytest.mark.parametrize(("largest", "rows_seen"), [(1, 40), (10, 40), (20, 80), (1000, 100)])
def test_an_epoch_of_a_large_task_ends_after_epoch_steps_and_the_next_draws_other_rows(
    largest: int, rows_seen: int
) -> None:
    shape, data, _ = tastes()
    seen: list[list[int]] = []

    class Noting(CountingTask):
        def batches(self, generator: torch.Generator, count: int) -> Iterator[Sequence[Tensor]]:
            seen.append([])
            for part in torch.randperm(self.rows, generator=generator).tensor_split(count):
                yield (part,)

        def losses(self, network: Network, encoded: Encoded, batch: Sequence[Tensor]) -> Mapping[str, Tensor]:
            seen[-1].extend(batch[0].tolist())
            return super().losses(network, encoded, batch)

    changes = {"epochs": 2, "batch_size": 10, "epoch_steps": 4, "relations_every": 0, "largest_batch": largest}
    task = Noting("large", 100, [-1], True)
    train(make_network(shape, SMALL, data, 1), [task], FAST.model_copy(update=changes), 1, constant)
    assert [len(set(rows)) for rows in seen] == [rows_seen, rows_seen]
    assert seen[0] != seen[1]
    assert rows_seen == 100 or set(seen[0]) != set(seen[1])


def test_a_share_of_an_epoch_holds_some_of_every_task_spread_over_its_steps() -> None:
    class Sized(CountingTask):
        def batches(self, generator: torch.Generator, count: int) -> Iterator[Sequence[Tensor]]:
            for part in torch.randperm(self.rows, generator=generator).tensor_split(count):
                yield (part,)

    tasks = [Sized("large", 400, [-1], True), Sized("middle", 100, [-1], True), Sized("small", 10, [-1], True)]

    def given(share: float, epoch: int = 0) -> list[list[tuple[str, list[int]]]]:
        config = TrainingConfig(batch_size=10, epoch_share=share)
        steps = schedule(tasks, config, 3, epoch)
        return [[(task.name, batch[0].tolist()) for task, batch in step] for step in steps]

    def count(share: float) -> Counter[str]:
        return Counter(name for step in given(share) for name, _ in step)

    assert count(1.0) == {"large": 40, "middle": 10, "small": 1}
    assert (len(given(0.25)), count(0.25)) == (10, {"large": 10, "middle": 3, "small": 1})
    steps_of_middle = [place for place, step in enumerate(given(0.25)) if "middle" in dict(step)]
    assert steps_of_middle == [1, 5, 8], "spread over the steps"
    rows = [row for step in given(0.25) for name, rows in step if name == "large" for row in rows]
    assert len(set(rows)) == len(rows) == 100
    assert given(0.25) != given(0.25, epoch=1), "drawn anew"
    with pytest.raises(ValidationError):
        TrainingConfig(epoch_share=0.0)
