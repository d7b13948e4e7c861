from __future__ import annotations

import numpy as np
import pytest
import torch

from kgrec.evaluation.calibration import Calibration
from kgrec.graph.completion import Candidates, Completer, Confidence, learn_confidence

ITEMS, GENRES = 6, (6, 7)
KNOWN = [(0, 0, 6), (1, 0, 7), (2, 0, 6), (8, 1, 3), (8, 1, 4), (3, 0, 7), (6, 2, 7)]


def tensor(triples):
    return torch.tensor(triples, dtype=torch.int64).reshape(-1, 3)


def even_likes(head_B, relation_B):
    """A model that knows: even items have genre 6, odd ones 7; the third relation is nonsense."""
    scores_BE = torch.zeros(len(head_B), 10)
    scores_BE[torch.arange(len(head_B)), torch.where(head_B % 2 == 0, 6, 7)] = 5.0
    return scores_BE


def all_made_by_8(relation_B, tail_B):
    scores_BE = torch.zeros(len(tail_B), 10)
    scores_BE[:, 8] = tail_B.float()
    return scores_BE


def completer(known=KNOWN):
    return Completer(even_likes, all_made_by_8, tensor(known), ITEMS)


def test_the_planted_link_comes_first_and_known_ones_do_not_come():
    (found,) = completer().candidates([tensor(KNOWN)], [0])
    triples = [tuple(row) for row in found.triples_C3.tolist()]
    assert triples[0] == (4, 0, 6), "the one item whose genre the model knows and the graph does not"
    assert not set(triples) & set(KNOWN)
    assert (0, 0, 7) in triples
    chance = found.log_chance_C.exp()
    assert chance[0] == pytest.approx(np.exp(5) / (np.exp(5) + 1))
    assert found.best(2).triples_C3.tolist() == found.triples_C3[:2].tolist()


def test_items_are_asked_at_whichever_end_they_are_and_other_relations_are_left_out():
    (found,) = completer().candidates([tensor(KNOWN)])
    triples = [tuple(row) for row in found.triples_C3.tolist()]
    assert (8, 1, 2) in triples, "items are the tails of relation 1"
    assert (8, 1, 3) not in triples
    assert not [triple for triple in triples if triple[1] == 2], "no item is an end of relation 2"
    assert not [triple for triple in triples if 5 in triple], "item 5 is in no triple: the model knows nothing of it"


def test_each_set_of_known_triples_has_its_own_candidates():
    hidden = [triple for triple in KNOWN if triple != (2, 0, 6)]
    all_known, without = completer().candidates([tensor(KNOWN), tensor(hidden)], [0])
    assert [2, 0, 6] not in all_known.triples_C3.tolist()
    assert [2, 0, 6] in without.triples_C3.tolist()


def test_nothing_is_linked_to_itself():
    known = [(0, 0, 1), (1, 0, 2), (2, 0, 0)]
    model = Completer(lambda h, r: torch.eye(3)[h], all_made_by_8, tensor(known), 3)
    (found,) = model.candidates([tensor(known)])
    assert all(head != tail for head, _, tail in found.triples_C3.tolist())


def world(seed, count):
    """Candidates of which each is held out with a chance of half of what the model says."""
    draw = np.random.default_rng(seed)
    chance = draw.uniform(0.01, 0.99, count)
    triples = torch.stack([torch.arange(count), torch.zeros(count, dtype=torch.int64), torch.full((count,), count)], 1)
    return (
        Candidates(triples, torch.tensor(np.log(chance))),
        triples[torch.tensor(draw.random(count) < chance / 2)],
        chance,
    )


def test_the_confidence_is_how_often_such_a_candidate_was_held_out():
    candidates, held_out, _ = world(1, 6000)
    confidence = learn_confidence(candidates, held_out)
    assert confidence.calibrated
    fresh, true, chance = world(2, 6000)
    promised = confidence.of(fresh)
    is_true = torch.isin(fresh.triples_C3[:, 0], true[:, 0]).numpy()
    for low in (0.2, 0.4, 0.6, 0.8):
        bucket = (chance >= low) & (chance < low + 0.2)
        assert promised[bucket].mean() == pytest.approx(is_true[bucket].mean(), abs=0.07)
    assert confidence.facts["calibration_error_after"] < confidence.facts["calibration_error_before"] / 3
    assert confidence.facts["held_out_found"] == len(held_out)
    more = confidence.of(fresh, odds=2.0)
    np.testing.assert_allclose(more / (1 - more), 2 * promised / (1 - promised))


def test_too_few_held_out_triples_calibrate_nothing_and_it_is_said():
    candidates, held_out, chance = world(3, 150)
    confidence = learn_confidence(candidates, held_out[:20])
    assert confidence == Confidence(Calibration(), False, confidence.facts)
    assert confidence.facts["calibrated"] is False
    np.testing.assert_allclose(confidence.of(candidates), chance)
