"""Training reads its rows from files as it reads them from memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kgrec.model.network import NetworkConfig
from kgrec.row_files import RowFile
from kgrec.training import exposures as of_exposures
from kgrec.training import tasks
from kgrec.training.exposures import Exposures, TowerTask
from kgrec.training.mapped_rows import MappedRows
from kgrec.training.step import Step
from kgrec.training.tasks import TaskConfig, TrainingData, make_network, make_tasks
from kgrec.training.trainer import TrainingConfig, train
from tests.training.worlds_of_tensors import exposures, tastes

TRAINING = TrainingConfig(epochs=2, batch_size=100, threads=1, relations_every=0)


def in_files(rows: Exposures, folder: Path, gaps: bool) -> Exposures:
    """Return the same exposures, small types in memory and features in files that hold other rows as well."""
    chosen_N = np.arange(len(rows.user_N) * 2) % 2 == 0 if gaps else np.arange(len(rows.user_N) + 50) >= 50
    mapped = {}
    for name, dtype in (("numeric_NF", np.float32), ("categorical_NC", np.int32)):
        values = np.asarray(getattr(rows, name)).astype(dtype)
        whole = np.full((len(chosen_N), values.shape[1]), 7, dtype)
        whole[chosen_N] = values
        np.save(folder / f"{name}.npy", whole)
        mapped[name] = MappedRows.where(RowFile(folder / f"{name}.npy", 64), chosen_N)
    labels = {name: getattr(rows, name).to(torch.uint8) for name in ("click_N", "conversion_N")}
    return replace(rows, user_N=rows.user_N.int(), item_N=rows.item_N.int(), **labels, **mapped)


@pytest.mark.parametrize("gaps", [True, False])
def test_a_training_from_files_is_that_from_memory_to_the_bit(tmp_path: Path, gaps: bool) -> None:
    rows, _, _ = exposures(600, impressions=True)
    mapped = in_files(rows, tmp_path, gaps)
    assert torch.equal(mapped.numeric_NF.whole(), torch.as_tensor(rows.numeric_NF))  # type: ignore[union-attr]
    shape, data, _ = tastes()
    shape = shape.model_copy(update={"num_numeric": 2, "cardinalities": (3,), "heads": ("click", "conversion")})
    trained = []
    for table in (rows, mapped):
        learned = TrainingData(data.edges, data.positives, table)
        network = make_network(shape, NetworkConfig(dimensions=8), replace(learned, exposures=rows), seed=1)
        train(network, make_tasks(shape, learned, TaskConfig()), TRAINING, 1, None)
        trained.append(network.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_a_large_batch_is_looked_at_in_parts_and_gives_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _, _ = exposures(500, impressions=True)
    shape, data, _ = tastes()
    shape = shape.model_copy(update={"num_numeric": 2, "cardinalities": (3,), "heads": ("click", "conversion")})
    seen: list[int] = []
    original = of_exposures.run_towers
    monkeypatch.setattr(of_exposures, "run_towers", lambda *parts: seen.append(len(parts[2])) or original(*parts))
    found = []
    for most in (None, 120):
        monkeypatch.setattr(TowerTask, "rows_at_once", most)
        network = make_network(shape, NetworkConfig(dimensions=8), TrainingData(data.edges, exposures=rows), seed=1)
        network.eval()  # no dropout: parts draw other numbers than the whole
        task = TowerTask(rows, TaskConfig(conversion="clicked_only"))
        step = Step(network, [(task, [torch.arange(500)])])
        sum(step.losses.values()).backward()  # type: ignore[union-attr]
        found.append((step.losses, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}))
    assert seen[0] == 500
    assert max(seen[1:]) == 120
    assert sum(seen[1:]) == 1_000  # once forwards, once again for the backward pass
    for name, loss in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], loss)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-4, atol=1e-6)


def test_parts_of_a_batch_against_sampled_items_add_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, data, _ = tastes()
    found = []
    for most in (None, 70):
        monkeypatch.setattr(tasks.RetrievalTask, "rows_at_once", most)
        network = make_network(shape, NetworkConfig(dimensions=8), data, seed=1).eval()
        (task,) = make_tasks(shape, replace(data, triples_T3=None), TaskConfig(full_softmax_items=0, sampled_items=16))
        batch = next(iter(task.batches(torch.Generator().manual_seed(0), 1)))
        step = Step(network, [(task, batch)])
        step.losses["retrieval"].backward()  # type: ignore[no-untyped-call]
        found.append((step.losses["retrieval"], network.tables.users_UD.grad))
    assert len(batch[0]) == 300
    torch.testing.assert_close(found[0], found[1])
