"""What every scorer of triples promises. The list is read from the registry, so that none escapes."""

import cmath
import math
from collections.abc import Callable

import pytest
import torch

from kgrec.model.kg_scorers import SCORERS, KgScorer, ScorerName, n3_penalty

E, R, D = 7, 3, 6
Vectors = tuple[torch.Tensor, torch.Tensor]


def complex_parts(vector: list[float]) -> list[complex]:
    half = len(vector) // 2
    return [complex(vector[k], vector[k + half]) for k in range(half)]


def slow_complex(head: list[float], relation: list[float], tail: list[float]) -> float:
    parts = zip(*(complex_parts(vector) for vector in (head, relation, tail)), strict=True)
    return sum((h * r * t.conjugate()).real for h, r, t in parts)


def slow_distmult(head: list[float], relation: list[float], tail: list[float]) -> float:
    return sum(h * r * t for h, r, t in zip(head, relation, tail, strict=True))


def slow_rescal(head: list[float], relation: list[float], tail: list[float]) -> float:
    return sum(head[i] * relation[i * D + j] * tail[j] for i in range(D) for j in range(D))


def slow_rotate(head: list[float], relation: list[float], tail: list[float]) -> float:
    turned = zip(complex_parts(head), relation, complex_parts(tail), strict=True)
    return -math.sqrt(sum(abs(h * cmath.exp(1j * math.pi * r) - t) ** 2 for h, r, t in turned))


def slow_transe(head: list[float], relation: list[float], tail: list[float]) -> float:
    return -math.sqrt(sum((h + r - t) ** 2 for h, r, t in zip(head, relation, tail, strict=True)))


SLOW: dict[ScorerName, Callable[[list[float], list[float], list[float]], float]] = {
    ScorerName.COMPLEX: slow_complex,
    ScorerName.DISTMULT: slow_distmult,
    ScorerName.RESCAL: slow_rescal,
    ScorerName.ROTATE: slow_rotate,
    ScorerName.TRANSE: slow_transe,
}


@pytest.fixture(params=sorted(SCORERS), ids=str)
def scorer(request: pytest.FixtureRequest) -> KgScorer:
    return SCORERS[request.param]


@pytest.fixture
def vectors(scorer: KgScorer) -> Vectors:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(E, D, generator=generator), torch.randn(R, scorer.width(D), generator=generator)


def test_the_registry_holds_every_word_under_its_own_name() -> None:
    assert set(SCORERS) == set(ScorerName) == set(SLOW)
    assert all(scorer.name == name for name, scorer in SCORERS.items())


def test_a_triple_has_the_score_of_the_formula(scorer: KgScorer, vectors: Vectors) -> None:
    entities_ED, relations_RW = vectors
    heads, tails = torch.tensor([0, 3, 6]), torch.tensor([5, 3, 1])
    scores = scorer.triples(entities_ED[heads], relations_RW, entities_ED[tails])
    for place, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        parts = entities_ED[head].tolist(), relations_RW[place].tolist(), entities_ED[tail].tolist()
        assert scores[place].item() == pytest.approx(SLOW[scorer.name](*parts), abs=2e-5)


@pytest.mark.parametrize("relation", range(R))
def test_rows_of_tails_and_heads_are_the_scores_of_single_triples(
    scorer: KgScorer, vectors: Vectors, relation: int
) -> None:
    entities_ED, relations_RW = vectors
    own_EW = relations_RW[relation].expand(E, -1)
    single_EE = torch.stack([scorer.triples(entities_ED, own_EW, tail.expand(E, D)) for tail in entities_ED], dim=1)
    torch.testing.assert_close(scorer.tails(entities_ED, own_EW, entities_ED), single_EE, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scorer.heads(own_EW, entities_ED, entities_ED), single_EE.T, atol=1e-4, rtol=1e-4)


def test_a_row_of_relations_is_the_scores_of_single_triples(scorer: KgScorer, vectors: Vectors) -> None:
    entities_ED, relations_RW = vectors
    if scorer.relation_query is None:
        assert scorer.name is ScorerName.ROTATE
        return
    heads, tails = entities_ED[:4], entities_ED[3:]
    scores_BR = scorer.against(scorer.relation_query(heads, tails), relations_RW)
    single_BR = torch.stack([scorer.triples(heads, row.expand(4, -1), tails) for row in relations_RW], dim=1)
    torch.testing.assert_close(scores_BR, single_BR, atol=1e-4, rtol=1e-4)


def test_a_composed_relation_leads_where_its_parts_lead_one_after_the_other(scorer: KgScorer, vectors: Vectors) -> None:
    entities_ED, relations_RW = vectors
    first, second = relations_RW[:1].expand(E, -1), relations_RW[1:2].expand(E, -1)
    step_by_step = scorer.tail_query(scorer.tail_query(entities_ED, first), second)
    torch.testing.assert_close(scorer.tail_query(entities_ED, scorer.compose(first, second)), step_by_step)


def test_symmetry_is_as_declared(scorer: KgScorer, vectors: Vectors) -> None:
    entities_ED, relations_RW = vectors
    there = scorer.triples(entities_ED[:3], relations_RW, entities_ED[3:6])
    back = scorer.triples(entities_ED[3:6], relations_RW, entities_ED[:3])
    assert torch.allclose(there, back, atol=1e-5) is not scorer.antisymmetric


def test_distances_are_at_most_zero_and_finite_where_they_vanish(scorer: KgScorer, vectors: Vectors) -> None:
    query_BD = scorer.tail_query(vectors[0][:3], vectors[1]).requires_grad_()
    scores_BE = scorer.against(query_BD, query_BD.detach())
    scores_BE.diagonal().sum().backward()
    assert query_BD.grad is not None
    assert torch.isfinite(query_BD.grad).all()
    if scorer.distance:
        assert (scores_BE <= 0).all()
        assert scores_BE.diagonal().abs().max() < 0.01


def test_gradients_reach_all_three_parts(scorer: KgScorer, vectors: Vectors) -> None:
    entities_ED, relations_RW = (part.double() for part in vectors)
    parts = [part.clone().requires_grad_() for part in (entities_ED[:3], relations_RW, entities_ED[3:6])]
    assert torch.autograd.gradcheck(scorer.triples, parts)
    assert torch.autograd.gradcheck(scorer.tails, parts)


def test_the_penalty_grows_with_the_cube_of_the_length(scorer: KgScorer, vectors: Vectors) -> None:
    entities_ED, relations_RW = vectors
    parts = entities_ED[:3], relations_RW, entities_ED[3:6]
    once, twice = n3_penalty(scorer, *parts), n3_penalty(scorer, *(2 * part for part in parts))
    torch.testing.assert_close(twice, 8 * once, rtol=1e-4, atol=1e-4)
    assert n3_penalty(scorer, *(part[:0] for part in parts)).item() == 0


def test_dimensions_divide_as_declared(scorer: KgScorer) -> None:
    assert D % scorer.multiple == 0
    assert scorer.magnitudes(torch.ones(2, D)).shape == (2, D // scorer.multiple)
    assert (scorer.magnitudes(-torch.ones(2, D)) > 0).all()
    assert (scorer.relation_magnitudes(-torch.ones(2, scorer.width(D))) > 0).all()
