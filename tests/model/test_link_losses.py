"""Losses of link prediction against loops in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.model import link_losses
from kgrec.model.link_losses import (
    link_softmax_loss,
    one_vs_all_loss,
    relation_loss,
    sampled_link_loss,
    self_adversarial_loss,
)


def slow_cross_entropy(scores: list[float], target: int) -> float:
    return math.log(sum(math.exp(score) for score in scores)) - scores[target]


def drawn(seed: int, queries: int, triples: int, entities: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    query_VD, entities_ED = torch.randn(queries, 4, generator=generator), torch.randn(entities, 4, generator=generator)
    query_P = torch.randint(queries, (triples,), generator=generator).sort().values
    return query_VD, entities_ED, query_P, torch.randint(entities, (triples,), generator=generator)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 6), st.integers(1, 12), st.integers(2, 9), st.integers(1, 40))
def test_one_vs_all_is_the_loop_over_triples_and_entities_whatever_the_chunk(
    seed: int, queries: int, triples: int, entities: int, chunk: int
) -> None:
    query_VD, entities_ED, query_P, tail_P = drawn(seed, queries, triples, entities)
    table = [[float(q @ e) for e in entities_ED] for q in query_VD]
    oracle = sum(slow_cross_entropy(table[q], t) for q, t in zip(query_P.tolist(), tail_P.tolist(), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link_losses, "_CHUNK_SCORES", chunk)
        got = one_vs_all_loss(query_VD, entities_ED, query_P, tail_P)
    assert got.item() == pytest.approx(oracle / triples, rel=1e-4, abs=1e-6)
    plain = link_softmax_loss(query_VD @ entities_ED.T, query_P, tail_P)
    assert plain.item() == pytest.approx(oracle / triples, rel=1e-4, abs=1e-6)


def test_its_gradient_is_that_of_the_plain_operations_and_bfloat16_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    query_VD, entities_ED, query_P, tail_P = drawn(3, 5, 30, 40)
    monkeypatch.setattr(link_losses, "_CHUNK_SCORES", 80)
    gradients = []
    for loss in (
        lambda q, e: link_softmax_loss(q @ e.T, query_P, tail_P),
        lambda q, e: one_vs_all_loss(q, e, query_P, tail_P),
        lambda q, e: one_vs_all_loss(q, e, query_P, tail_P, bfloat16=True),
    ):
        parts = [part.clone().requires_grad_() for part in (query_VD, entities_ED)]
        (3 * loss(*parts)).backward()
        gradients.append([part.grad for part in parts])
    plain, fused, rough = gradients
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(rough, plain, atol=0.02, rtol=0.05)
    assert not torch.equal(rough[0], fused[0])


def test_sampled_softmax_is_the_full_one_when_the_sample_is_every_entity_once() -> None:
    scores_QE = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    target_Q = torch.tensor([0, 5, 2, 2])
    sampled = sampled_link_loss(scores_QE[torch.arange(4), target_Q], scores_QE, target_Q, torch.arange(6))
    full = sum(
        slow_cross_entropy(row, target) for row, target in zip(scores_QE.tolist(), target_Q.tolist(), strict=True)
    )
    assert sampled.item() == pytest.approx(full / 4, rel=1e-5)


def slow_self_adversarial(
    positive: float, negatives: dict[int, float], target: int, margin: float, heat: float
) -> float:
    def log_logistic(x: float) -> float:
        return -math.log(1 + math.exp(-x))

    rivals = [score for entity, score in negatives.items() if entity != target]
    total = sum(math.exp(heat * score) for score in rivals)
    pushed = sum(math.exp(heat * score) / total * log_logistic(-margin - score) for score in rivals)
    return -log_logistic(margin + positive) - pushed


@pytest.mark.parametrize(("margin", "heat"), [(0.0, 0.0), (2.0, 1.0), (6.0, 3.0)])
def test_self_adversarial_weights_are_those_of_the_loop(margin: float, heat: float) -> None:
    generator = torch.Generator().manual_seed(4)
    positive_Q, negatives_QM = -torch.rand(3, generator=generator) * 5, -torch.rand(3, 5, generator=generator) * 5
    target_Q, negative_M = torch.tensor([7, 2, 9]), torch.tensor([1, 2, 3, 4, 9])
    got = self_adversarial_loss(positive_Q, negatives_QM, target_Q, negative_M, margin, heat)
    rows = [dict(zip(negative_M.tolist(), row, strict=True)) for row in negatives_QM.tolist()]
    oracle = [
        slow_self_adversarial(positive, row, target, margin, heat)
        for positive, row, target in zip(positive_Q.tolist(), rows, target_Q.tolist(), strict=True)
    ]
    assert got.item() == pytest.approx(sum(oracle) / 3, rel=1e-5)


def test_its_weights_carry_no_gradient_and_its_own_tail_is_no_negative() -> None:
    negatives_QM = torch.tensor([[-1.0, -3.0, 50.0]], requires_grad=True)
    loss = self_adversarial_loss(torch.zeros(1), negatives_QM, torch.tensor([8]), torch.tensor([1, 2, 8]), 1.0, 1.0)
    (gradient,) = torch.autograd.grad(loss, negatives_QM)
    share = 1 / (1 + math.exp(-2))
    assert gradient[0, 0].item() == pytest.approx(share / (1 + math.exp(-0.0)), rel=1e-4)
    assert gradient[0, 2].item() == 0
    only = self_adversarial_loss(torch.zeros(1), negatives_QM[:, 2:], torch.tensor([8]), torch.tensor([8]), 1.0, 1.0)
    assert only.item() == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-5)


def test_relations_are_told_apart() -> None:
    scores_PR, relation_P = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]), torch.tensor([1, 2])
    oracle = slow_cross_entropy([0, 2, 1], 1) + slow_cross_entropy([3, 0, 0], 2)
    assert relation_loss(scores_PR, relation_P).item() == pytest.approx(oracle / 2, rel=1e-5)


def test_no_rows_give_zero() -> None:
    none, rows, table = torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2)
    assert one_vs_all_loss(table, torch.ones(3, 2), rows, rows).item() == 0
    assert link_softmax_loss(table, rows, rows).item() == 0
    assert sampled_link_loss(none, table, rows, torch.tensor([0, 1])).item() == 0
    assert self_adversarial_loss(none, table, rows, torch.tensor([0, 1]), 1.0, 1.0).item() == 0
    assert relation_loss(table, rows).item() == 0
