"""What every scorer of triples promises. The list is read from the registry, so that none escapes."""

import pytest
import torch

from kgrec.model.kg_scorers import SCORERS, KgScorer, ScorerName, n3_penalty

E, R, D = 7, 3, 6


@pytest.fixture(params=sorted(SCORERS), ids=str)
def scorer(request: pytest.FixtureRequest) -> KgScorer:
    return SCORERS[request.param]


@pytest.fixture
def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(E, D, generator=generator), torch.randn(R, D, generator=generator)


def test_the_registry_holds_every_word_under_its_own_name() -> None:
    assert set(SCORERS) == set(ScorerName)
    assert all(scorer.name == name for name, scorer in SCORERS.items())


def test_tails_are_the_scores_of_single_triples(scorer: KgScorer, vectors: tuple[torch.Tensor, torch.Tensor]) -> None:
    entities_ED, relations_RD = vectors
    for relation in range(R):
        scores_EE = scorer.tails(entities_ED, relations_RD[relation].expand(E, D), entities_ED)
        for head in range(E):
            for tail in range(E):
                single = scorer.triples(entities_ED[head], relations_RD[relation], entities_ED[tail])
                torch.testing.assert_close(scores_EE[head, tail], single, atol=1e-5, rtol=1e-5)


def test_heads_are_the_scores_of_single_triples(scorer: KgScorer, vectors: tuple[torch.Tensor, torch.Tensor]) -> None:
    entities_ED, relations_RD = vectors
    for relation in range(R):
        scores_EE = scorer.heads(relations_RD[relation].expand(E, D), entities_ED, entities_ED)
        for tail in range(E):
            for head in range(E):
                single = scorer.triples(entities_ED[head], relations_RD[relation], entities_ED[tail])
                torch.testing.assert_close(scores_EE[tail, head], single, atol=1e-5, rtol=1e-5)


def test_symmetry_is_as_declared(scorer: KgScorer, vectors: tuple[torch.Tensor, torch.Tensor]) -> None:
    entities_ED, relations_RD = vectors
    there = scorer.triples(entities_ED[:3], relations_RD, entities_ED[3:6])
    back = scorer.triples(entities_ED[3:6], relations_RD, entities_ED[:3])
    assert torch.allclose(there, back, atol=1e-5) is not scorer.antisymmetric


def test_gradients_reach_all_three_parts(scorer: KgScorer, vectors: tuple[torch.Tensor, torch.Tensor]) -> None:
    entities_ED, relations_RD = (part.double() for part in vectors)
    parts = [part.clone().requires_grad_() for part in (entities_ED[:3], relations_RD, entities_ED[3:6])]
    assert torch.autograd.gradcheck(scorer.triples, parts)


def test_the_penalty_grows_with_the_cube_of_the_length(
    scorer: KgScorer, vectors: tuple[torch.Tensor, torch.Tensor]
) -> None:
    entities_ED, relations_RD = vectors
    parts = entities_ED[:3], relations_RD, entities_ED[3:6]
    once, twice = n3_penalty(scorer, *parts), n3_penalty(scorer, *(2 * part for part in parts))
    torch.testing.assert_close(twice, 8 * once, rtol=1e-4, atol=1e-4)
    assert n3_penalty(scorer, *(part[:0] for part in parts)).item() == 0


def test_dimensions_divide_as_declared(scorer: KgScorer) -> None:
    assert D % scorer.multiple == 0
    assert scorer.magnitudes(torch.ones(2, D)).shape == (2, D // scorer.multiple)
    assert (scorer.magnitudes(-torch.ones(2, D)) > 0).all()
