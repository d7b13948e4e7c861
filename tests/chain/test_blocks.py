"""The choice of a score's parts on validation."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from kgrec.artifacts import load_artifact
from kgrec.chain.blocks import Pool
from kgrec.chain.questions import Judge
from kgrec.config import TaskName
from kgrec.evaluation.ranking import EvaluationConfig
from kgrec.model.blocks import BlockWeights
from kgrec.serving.placing import Placing
from kgrec.stages import RunResult


def facts_of(tiny: RunResult) -> dict:
    (folder,) = (tiny.workspace / "artifacts" / "train").iterdir()
    return load_artifact(folder, "train").facts["blocks"]


def test_the_pooled_figure_is_that_of_the_whole_catalogue_where_the_pool_holds_it(tiny: RunResult) -> None:
    told = facts_of(tiny)
    assert told["validation_ndcg@5"] == pytest.approx(tiny.metrics["validation"]["ranking"]["ndcg@5"], abs=1e-6)
    assert told["validation_ndcg@5"] >= told["validation_ndcg@5_trained_alone"]
    assert told["users"] == tiny.metrics["validation"]["ranking"]["num_users"]


def test_the_history_shows_what_was_trained_alone_before_parts_were_added(tiny: RunResult) -> None:
    (folder,) = (tiny.workspace / "artifacts" / "train").iterdir()
    history = json.loads((folder / "history.json").read_text())
    best = max(epoch["validation/ndcg@5"] for epoch in history if "validation/ndcg@5" in epoch)
    assert facts_of(tiny)["validation_ndcg@5_trained_alone"] <= best + 1e-6


def test_users_stand_where_training_put_them_until_their_history_grows(tiny: RunResult) -> None:
    (folder,) = (tiny.workspace / "artifacts" / "train").iterdir()
    vectors = load_file(folder / "vectors.safetensors")
    (log,) = (tiny.workspace / "artifacts" / "split").iterdir()
    judge = Judge(EvaluationConfig(k=(5,)), load_artifact(log, "split"), None, None, (TaskName.CLICK,))
    trained_U = judge.question("validation").history.counts() > 0
    then = judge.user_vectors(vectors, judge.question("validation").history)
    torch.testing.assert_close(then[trained_U], vectors["user_vectors_UD"][trained_U], atol=1e-5, rtol=0)
    history = judge.question("test").history
    now = judge.user_vectors(vectors, history)
    grown_U = trained_U & (history.counts() > judge.question("validation").history.counts())
    assert grown_U.any()
    assert bool(((now - then).abs().amax(dim=1) > 1e-4)[grown_U].all())
    same_U = trained_U & ~grown_U
    assert torch.equal(now[same_U], then[same_U])
    user = int(grown_U.nonzero()[0])
    placed = Placing({name: tensor.numpy() for name, tensor in vectors.items()}, trained_U.numpy())
    served = placed.vector(user, history.take(torch.tensor([user])).indices.numpy())
    torch.testing.assert_close(torch.from_numpy(served), now[user], atol=1e-6, rtol=0)


def test_the_pools_figure_is_that_of_a_slow_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    parts_FBP = torch.randint(0, 3, (5, 40, 30), generator=generator).float()  # many equals
    parts_FBP[:, torch.rand(40, 30, generator=generator) < 0.3] = -torch.inf  # no candidates
    parts_FBP[:, 7, 3:] = -torch.inf  # fewer than k
    pool = Pool.__new__(Pool)
    pool.hit_BP = torch.rand(40, 30, generator=generator) < 0.2
    pool.relevant_B = pool.hit_BP.sum(1).clamp(min=1) + 2
    monkeypatch.setattr(pool, "_parts_FBP", parts_FBP, raising=False)
    pool.names = ("trained", "popularity", "linear", "kernel", "repeat")
    weights = BlockWeights(linear=0.5, kernel=0.0, popularity=0.25, repeat=1.0)
    factors = [1.0, 0.25, 0.5, 0.0, 1.0]
    for row, found in enumerate(pool.each_ndcg(weights, 5).tolist()):
        scores = [sum(f * float(parts_FBP[p, row, i]) for p, f in enumerate(factors) if f) for i in range(30)]
        order = [i for i in sorted(range(30), key=lambda i: (-scores[i], i)) if scores[i] > -math.inf][:5]
        gain = sum(1 / math.log2(place + 2) for place, i in enumerate(order) if pool.hit_BP[row, i])
        ideal = sum(1 / math.log2(place + 2) for place in range(min(5, int(pool.relevant_B[row]))))
        assert found == pytest.approx(gain / ideal, abs=1e-6)
