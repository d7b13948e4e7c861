"""Pretrained, frozen, tables first: who learns when, that it can be resumed, and what the graph alone decides."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kgrec.errors import InputError
from kgrec.model.network import Network, NetworkConfig
from kgrec.training.phases import GROUPS, HEADS, group_of, phase_at, plan
from kgrec.training.tasks import TaskConfig, TrainingData, make_network, make_tasks
from kgrec.training.trainer import Progress, TrainingConfig, TrainingResult, train
from tests.training.worlds_of_tensors import SMALL, cosine_objective, exposures, tastes

ALL = ("retrieval", "towers", "link")
CONFIG = TrainingConfig(
    epochs=9, batch_size=64, evaluate_every=1, patience=0, checkpoint_every=1, threads=1, pretraining_epochs=3,
    tables_first_epochs=3,
)  # fmt: skip
ENTITIES, RELATIONS = "tables.entities_ED", "tables.relations_RW"


def changed(change: dict[str, object]) -> TrainingConfig:
    return TrainingConfig.model_validate(CONFIG.model_dump() | change)


def world(config: NetworkConfig) -> tuple[Network, TrainingData, torch.Tensor]:
    shape, data, genre_I = tastes()
    table, *_ = exposures(200, impressions=True)
    shape = shape.model_copy(update={"heads": table.heads, "num_numeric": 2, "cardinalities": (3,)})
    data = replace(data, exposures=table)
    return make_network(shape, config, data, 1), data, genre_I


def learn(
    change: dict[str, object], epochs: int = 9, checkpoint: Path | None = None, network: NetworkConfig = SMALL
) -> tuple[Network, TrainingResult, list[dict[str, torch.Tensor]]]:
    """Train, and return the parameters after each epoch as well."""
    model, data, genre_I = world(network)
    after: list[dict[str, torch.Tensor]] = [{name: p.detach().clone() for name, p in model.named_parameters()}]

    def note(progress: Progress) -> None:
        after.append({name: p.detach().clone() for name, p in model.named_parameters()})
        if progress.epoch == epochs < CONFIG.epochs:
            raise KeyboardInterrupt

    tasks = make_tasks(model.shape, data, TaskConfig())
    try:
        result = train(
            model, tasks, changed(change), 1, lambda m: cosine_objective(m, genre_I), checkpoint=checkpoint, owner="me",
            progress=note,
        )  # fmt: skip
    except KeyboardInterrupt:
        return model, TrainingResult({}, [], 0, False), after
    return model, result, after


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {group_of(name) for name in before if not torch.equal(before[name], after[name])}


def test_every_parameter_belongs_to_a_group_and_a_phase_switches_no_other() -> None:
    model, _, _ = world(SMALL.model_copy(update={"adapter_rank": 2, "encoder_hidden": 4}))
    assert {group_of(name) for name, _ in model.named_parameters()} == set(GROUPS)
    phase = plan(changed({"knowledge": "frozen"}), 9, ALL)[1]
    count = phase.switch(model)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {group_of(name) for name in learning} == set(phase.trains)
    assert count == sum(p.numel() for name, p in model.named_parameters() if name in learning)
    assert phase.facts(model)["parameters"] == count


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [("joint", ALL, 9)]),
        ({"knowledge": "pretrained"}, [("pretraining", ("link",), 3), ("tuning", ALL, 9)]),
        ({"knowledge": "frozen"}, [("pretraining", ("link",), 3), ("tuning", ("retrieval", "towers"), 9)]),
        ({"schedule": "tables_first"}, [("tables", ("retrieval", "link"), 3), ("tuning", ("towers",), 9)]),
        (
            {"knowledge": "frozen", "schedule": "tables_first"},
            [("pretraining", ("link",), 3), ("tables", ("retrieval",), 6), ("tuning", ("towers",), 9)],
        ),
    ],
    ids=str,
)
def test_the_plan_says_which_tasks_learn_until_when(
    change: dict[str, object], expected: list[tuple[str, tuple[str, ...], int]]
) -> None:
    phases = plan(changed(change), 9, ALL)
    assert [(phase.name, phase.learns, phase.last) for phase in phases] == expected
    assert [phase.judged for phase in phases] == [False] * (len(phases) - 1) + [True]
    assert [phase_at(phases, epoch).last > epoch for epoch in range(9)] == [True] * 9


@pytest.mark.parametrize(
    ("change", "tasks", "epochs", "message"),
    [
        ({"knowledge": "frozen"}, ("retrieval",), 9, "triples"),
        ({"knowledge": "pretrained"}, ("link",), 9, "another task"),
        ({"schedule": "tables_first"}, ("retrieval", "link"), 9, "labels"),
        ({"knowledge": "pretrained"}, ALL, 3, "leave none"),
    ],
    ids=str,
)
def test_a_plan_without_sense_is_refused(
    change: dict[str, object], tasks: tuple[str, ...], epochs: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan(changed(change), epochs, tasks)


def test_frozen_entities_and_relations_stand_after_pretraining_and_the_rest_learns() -> None:
    _, result, after = learn({"knowledge": "frozen"})
    assert moved(after[0], after[3]) == {"entities", "relations"}
    assert moved(after[3], after[9]) == {"users", HEADS}
    assert [set(entry) >= {"loss/link"} for entry in result.history] == [True] * 3 + [False] * 6
    assert "validation/objective" not in result.history[2]
    assert result.best_epoch > 3


def test_pretrained_entities_go_on_learning() -> None:
    _, _, after = learn({"knowledge": "pretrained"})
    assert moved(after[0], after[3]) == {"entities", "relations"}
    assert moved(after[3], after[9]) == {"users", "entities", "relations", HEADS}


def test_tables_first_holds_the_towers_and_then_the_tables() -> None:
    _, result, after = learn({"schedule": "tables_first"})
    assert moved(after[0], after[3]) == {"users", "entities", "relations"}
    assert moved(after[3], after[9]) == {HEADS}
    assert "loss/click" not in result.history[2]
    assert "loss/retrieval" not in result.history[3]


def test_an_adapter_tunes_a_frozen_table_with_few_numbers() -> None:
    rank_two = SMALL.model_copy(update={"adapter_rank": 2, "dimensions": 16})
    model, _, after = learn({"knowledge": "frozen"}, network=rank_two)
    assert moved(after[3], after[9]) == {"users", "adapter", HEADS}
    adapted_ED = model.tables.entities_ED.detach()
    base_ED = dict(model.named_parameters())["tables.parametrizations.entities_ED.original"].detach()
    singular = torch.linalg.svdvals(adapted_ED - base_ED)
    assert singular[1] > 1e-4
    assert singular[2] < 1e-5, "the change has a rank above the adapter's"
    small = sum(p.numel() for name, p in model.named_parameters() if group_of(name) == "adapter")
    assert small == 2 * (base_ED.shape[0] + 16) < base_ED.numel() / 5


def test_an_untrained_adapter_and_an_untrained_encoder_change_nothing() -> None:
    plain, *_ = world(SMALL)
    for change in ({"adapter_rank": 3}, {"encoder_hidden": 5}):
        other, *_ = world(SMALL.model_copy(update=change))
        torch.testing.assert_close(other.export().item_vectors_ID, plain.export().item_vectors_ID)
        one = torch.tensor([0])
        torch.testing.assert_close(other.score_tails(one, one), plain.score_tails(one, one))


def test_all_decoders_read_the_shared_encoder() -> None:
    model, data, _ = world(SMALL.model_copy(update={"encoder_hidden": 5}))
    encoder = model.shared_encoder
    assert encoder is not None
    for task in make_tasks(model.shape, data, TaskConfig()):
        model.zero_grad()
        batch = next(task.batches(torch.Generator().manual_seed(1), 1))
        sum(task.losses(model, model.encode(), batch).values()).backward()  # type: ignore[union-attr]
        assert encoder.outer.weight.grad is not None, task.name
        assert encoder.outer.weight.grad.abs().sum() > 0, task.name


@pytest.mark.parametrize("optimiser", ["adamw", "adagrad"])
@pytest.mark.parametrize("stop", [2, 3, 4, 6, 7])
def test_a_training_in_phases_is_resumed_bit_for_bit(stop: int, optimiser: str, tmp_path: Path) -> None:
    change = {"knowledge": "frozen", "schedule": "tables_first", "optimiser": optimiser}
    adapted = SMALL.model_copy(update={"adapter_rank": 2})
    _, unbroken, _ = learn(change, network=adapted)
    path = tmp_path / "state.safetensors"
    learn(change, epochs=stop, checkpoint=path, network=adapted)
    _, resumed, _ = learn(change, checkpoint=path, network=adapted)
    assert resumed.history == unbroken.history
    assert all(torch.equal(resumed.best_state[name], tensor) for name, tensor in unbroken.best_state.items())


@pytest.mark.parametrize("knowledge", ["joint", "pretrained", "frozen"])
def test_items_without_events_are_placed_where_the_graph_alone_decides(knowledge: str) -> None:
    shape, data, genre_I = tastes()
    network = make_network(shape, SMALL.model_copy(update={"dimensions": 16}), data, 1)
    config = changed({"knowledge": knowledge, "epochs": 30, "pretraining_epochs": 12})
    tasks = make_tasks(shape, data, TaskConfig())
    train(network, tasks, config, 1, lambda model: cosine_objective(model, genre_I))
    vectors = network.export()
    cold_U4 = vectors.user_vectors_UD @ vectors.item_vectors_ID[-4:].T
    assert (cold_U4.argmax(dim=1) == torch.arange(shape.num_users) % 4).double().mean() > 0.9  # chance: 0.25
