"""Filtered realistic ranks against a loop over entities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.evaluation.link_prediction import link_metrics, link_ranks, relation_metrics

ENTITIES, RELATIONS = 6, 2
TRIPLE = st.tuples(st.integers(0, ENTITIES - 1), st.integers(0, RELATIONS - 1), st.integers(0, ENTITIES - 1))
SCORES = st.lists(
    st.sampled_from([-math.inf, -1.0, 0.0, 1.0]),
    min_size=ENTITIES * RELATIONS * ENTITIES,
    max_size=ENTITIES * RELATIONS * ENTITIES,
)


def slow_rank(score, target, is_known):
    rivals = [score[e] for e in range(ENTITIES) if e == target or not is_known(e)]
    best = 1 + sum(s > score[target] for s in rivals)
    worst = sum(s >= score[target] for s in rivals)
    return (best + worst) / 2


def rows(triples):
    return torch.tensor(list(triples), dtype=torch.int64).reshape(-1, 3)


@given(st.lists(TRIPLE, max_size=8), st.sets(TRIPLE), SCORES, st.integers(1, 5), st.booleans())
@settings(max_examples=80, deadline=None)
def test_ranks_equal_a_loop_over_entities(triples, known, scores, chunk, with_test):
    table = torch.tensor(scores).reshape(ENTITIES, RELATIONS, ENTITIES)
    known = known | set(triples) if with_test else known
    ranks = link_ranks(
        lambda h, r: table[h, r],
        lambda r, t: table[:, r, t].T,
        rows(triples),
        rows(sorted(known)),
        ENTITIES,
        chunk=chunk,
    )
    for (h, r, t), (tail_rank, head_rank) in zip(triples, ranks.tolist(), strict=True):
        assert tail_rank == slow_rank(table[h, r].tolist(), t, lambda e, h=h, r=r: (h, r, e) in known)
        assert head_rank == slow_rank(table[:, r, t].tolist(), h, lambda e, r=r, t=t: (e, r, t) in known)


def test_a_constant_scorer_gets_the_middle_and_not_the_top():
    constant = lambda a, b: torch.zeros(len(a), 101)  # noqa: E731 - two names for one line would say less
    metrics = link_metrics(constant, constant, rows([(0, 0, 1)]), rows([(0, 0, 1)]), 101)
    assert metrics["mrr"] == pytest.approx(1 / 51)
    assert metrics["hits@10"] == 0.0
    assert metrics["num_triples"] == 1


def test_known_answers_are_no_rivals():
    scores = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    query = rows([(0, 0, 3)])
    args = (lambda h, r: scores, lambda r, t: scores, query)
    assert link_ranks(*args, query, 4)[0, 0] == 3.0
    assert link_ranks(*args, rows([(0, 0, 1), (0, 0, 2), (0, 0, 3)]), 4)[0, 0] == 1.0
    assert link_ranks(*args, rows([(0, 1, 1), (1, 0, 2)]), 4)[0, 0] == 3.0, "other relations and heads filter nothing"


def test_metrics_per_relation_and_of_nothing():
    ranks = np.array([[1.0, 2.0], [10.0, 11.0], [1.0, 1.0]])
    table = relation_metrics(ranks, torch.tensor([4, 0, 4]))
    assert list(table) == [0, 4]
    assert (table[4]["hits@1"], table[0]["hits@10"], table[4]["num_triples"]) == (0.75, 0.5, 2)
    assert link_metrics(lambda h, r: h, lambda r, t: t, rows([]), rows([]), 3) == {"num_triples": 0}


def test_nan_and_strangers_are_refused():
    nan = lambda a, b: torch.tensor([[0.0, math.nan]])  # noqa: E731 - as above
    with pytest.raises(ValueError, match="NaN"):
        link_metrics(nan, nan, rows([(0, 0, 1)]), rows([]), 2)
    with pytest.raises(ValueError, match="entity rows"):
        link_metrics(nan, nan, rows([(0, 0, 5)]), rows([]), 2)
