"""Planted conflicts have cosine -1, identical tasks +1, and a proposal keeps apart what harms each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kgrec.model.network import Encoded, Network
from kgrec.training.relations import look, loss_correlations, propose_groups, summary
from kgrec.training.tasks import Task, TaskConfig, make_network, make_tasks
from kgrec.training.trainer import TrainingConfig, train
from tests.training.worlds_of_tensors import SMALL, exposures, tastes


class Pull:
    """Wants the vectors that it reads (encoded items, or entities from the table) along or against a direction."""

    rows = 10
    rows_at_once = None

    def __init__(self, name: str, sign: float, read: str = "items_ID", axis: int = 0) -> None:
        self.name, self.sign, self.read, self.axis = name, sign, read, axis

    def batches(self, generator: torch.Generator, count: int) -> Iterator[Sequence[Tensor]]:
        for part in torch.arange(self.rows).tensor_split(count):
            yield (part,)

    def losses(self, network: Network, encoded: Encoded, batch: Sequence[Tensor]) -> Mapping[str, Tensor]:
        return {self.name: 3.0 - self.sign * getattr(encoded, self.read)[batch[0]][:, self.axis].mean()}


def seen(*tasks: Task) -> dict[str, float]:
    shape, data, _ = tastes()
    return look(make_network(shape, SMALL, data, 1), tasks, 1, 0)


def test_identical_tasks_have_cosine_one_and_help_each_other() -> None:
    found = seen(Pull("a", 1.0), Pull("b", 1.0))
    assert found["cosine/a/b"] == pytest.approx(1.0, abs=1e-6)
    assert found["affinity/a/b"] == pytest.approx(found["affinity/b/a"]) != 0
    assert found["affinity/a/b"] > 0


def test_opposed_tasks_have_cosine_minus_one_and_harm_each_other() -> None:
    found = seen(Pull("a", 1.0), Pull("b", -1.0))
    assert found["cosine/a/b"] == pytest.approx(-1.0, abs=1e-6)
    assert found["affinity/a/b"] < 0
    assert found["affinity/b/a"] < 0


def test_an_item_read_encoded_and_from_the_table_is_one_node() -> None:
    with_table = seen(Pull("a", 1.0), Pull("b", 1.0, "entities_ED"), Pull("c", -1.0, "entities_ED"))
    assert with_table["cosine/a/b"] > 0.5  # what is along an encoded vector itself is left out, so not 1
    assert with_table["cosine/a/c"] == pytest.approx(-with_table["cosine/a/b"])
    assert with_table["affinity/b/a"] > 0 > with_table["affinity/c/a"]


def test_a_look_changes_nothing() -> None:
    shape, data, _ = tastes()
    table, *_ = exposures(300, impressions=True)
    shape = shape.model_copy(update={"heads": table.heads, "num_numeric": 2, "cardinalities": (3,)})
    data = replace(data, exposures=table)
    network = make_network(shape, SMALL, data, 1).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    tasks = make_tasks(shape, data, TaskConfig())
    found = look(network, tasks, 1, 0)
    assert {"cosine/click/conversion", "affinity/link/retrieval", "affinity/retrieval/click"} <= set(found)
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert look(network, tasks, 1, 0) == found
    assert look(network, tasks, 1, 1) != found


def test_a_single_loss_relates_to_nothing() -> None:
    assert seen(Pull("a", 1.0)) == {}
    assert summary([{"epoch": 1.0, "loss/a": 2.0}]) == {}


def test_training_notes_how_the_tasks_relate_and_can_be_told_not_to() -> None:
    def history(every: int) -> list[dict[str, float]]:
        shape, data, _ = tastes()
        config = TrainingConfig(epochs=4, batch_size=64, patience=0, threads=1, relations_every=every)
        network = make_network(shape, SMALL, data, 1)
        tasks = make_tasks(shape, data, TaskConfig())
        return train(network, tasks, config, 1, lambda _: {"objective": 0.0}).history

    looked = ["cosine/retrieval/link" in entry for entry in history(2)]
    assert looked == [False, True, False, True]
    never = history(0)
    assert not any(key.startswith(("cosine", "affinity", "correlation")) for entry in never for key in entry)
    kept = [{k: v for k, v in entry.items() if k.startswith("loss/")} for entry in history(1)]
    assert kept == [{k: v for k, v in entry.items() if k.startswith("loss/")} for entry in never]


def test_correlations_are_those_of_the_textbook() -> None:
    left, right = [1.0, 2.0, 4.0, 3.0], [2.0, 1.0, 0.0, 1.5]
    mean = [sum(part) / 4 for part in (left, right)]
    covariance = sum((a - mean[0]) * (b - mean[1]) for a, b in zip(left, right, strict=True))
    sizes = [sum((a - m) ** 2 for a in part) ** 0.5 for part, m in zip((left, right), mean, strict=True)]
    found = loss_correlations({"a": left, "b": right, "short": [1.0, 2.0, 3.0], "flat": [1.0] * 4})
    assert found == {"correlation/a/b": pytest.approx(covariance / sizes[0] / sizes[1])}


def test_the_summary_proposes_to_keep_apart_what_harms_each_other() -> None:
    harm = {"affinity/a/b": 0.2, "affinity/b/a": 0.1, "affinity/a/c": -0.3, "affinity/c/a": -0.2, "affinity/c/b": -0.1,
            "affinity/b/c": 0.05, "cosine/a/b": 0.5, "cosine/a/c": -0.5, "cosine/b/c": -0.1}  # fmt: skip
    found = summary([{"epoch": 1.0, **harm}, {"epoch": 2.0, **harm}])
    assert found["groups"] == [["a", "b"], ["c"]]
    assert found["proposal"] == "Train a and b together; train c on its own."
    assert found["gradient_cosine"] == [[1.0, 0.5, -0.5], [0.5, 1.0, -0.1], [-0.5, -0.1, 1.0]]
    assert found["affinity"][0] == [None, pytest.approx(0.2), pytest.approx(-0.3)]
    assert found["loss_correlation"][0][1] is None
    everybody = {f"affinity/{a}/{b}": 0.1 for a in "abc" for b in "abc" if a != b}
    assert propose_groups(list("abc"), everybody) == [["a", "b", "c"]]
