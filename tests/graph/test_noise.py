from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from scipy.sparse import csr_array

from kgrec import columns as c
from kgrec.chain.noise import calm
from kgrec.graph.confidence import triple_confidence
from kgrec.graph.noise import NoiseConfig, cap_degrees, damp_hubs, weigh
from kgrec.graph.pruning import relation_gains
from kgrec.model.propagation import GraphEdges, build_adjacency
from kgrec.seeds import numpy_generator

ITEMS, USERS, TASTES = 120, 150, 6


def triples(rows, weights=None, part=c.TRAIN):
    frame = pl.DataFrame(rows, schema=dict.fromkeys((c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW), c.ROW_TYPE), orient="row")
    return frame.with_columns(
        pl.lit(part, c.PART_TYPE).alias(c.PART), pl.Series(c.WEIGHT, weights or [1.0] * len(rows), dtype=pl.Float32)
    )


def generator(seed=1):
    return numpy_generator(seed, "noise")


def log(seed=2):
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(USERS):
        own = draw.permutation(np.flatnonzero(np.arange(ITEMS) % TASTES == user % TASTES))[:10]
        rows += [(user, int(item), c.TRAIN if at < 7 else c.VALIDATION) for at, item in enumerate(own)]
    return pl.DataFrame(rows, schema={c.USER_ROW: c.ROW_TYPE, c.ITEM_ROW: c.ROW_TYPE, c.PART: pl.String}, orient="row")


def true_rows(relation=0):
    return [(item, relation, ITEMS + item % TASTES) for item in range(ITEMS)]


def random_rows(relation, count=ITEMS, seed=4):
    draw = np.random.default_rng(seed)
    heads, tails = draw.integers(0, ITEMS, count), draw.integers(0, 6, count)
    return [(int(a), relation, ITEMS + TASTES + int(b)) for a, b in zip(heads, tails, strict=True)]


def test_a_cap_keeps_the_heaviest_of_an_entity_and_leaves_items_and_other_parts():
    rows = [(item, 0, 9) for item in range(6)] + [(0, 1, item) for item in range(1, 6)]
    kept = cap_degrees(triples(rows, [1, 5, 3, 4, 2, 1] + [1] * 5), 6, 3, generator())
    assert kept.filter(pl.col(c.TAIL_ROW) == 9)[c.HEAD_ROW].to_list() == [1, 2, 3]
    assert kept.height == 3 + 5
    assert cap_degrees(triples(rows, part=c.TEST), 6, 3, generator()).height == 11
    draws = {tuple(cap_degrees(triples(rows), 6, 3, generator(seed))[c.HEAD_ROW]) for seed in range(5)}
    assert len(draws) > 1


def test_hubs_are_damped_by_their_degree():
    rows = [(0, 0, 8), (1, 0, 8), (2, 0, 8), (3, 0, 8), (0, 0, 9), (0, 1, 1)]
    damped = damp_hubs(triples(rows), 6, 0.5)
    assert damped[c.WEIGHT].to_list() == pytest.approx([0.5] * 4 + [1.0, 1.0])
    assert damp_hubs(triples(rows, part=c.TEST), 6, 0.5)[c.WEIGHT].to_list() == [1.0] * 6


def test_weights_reach_the_matrix_of_propagation():
    pairs = torch.tensor([[0, 2], [1, 2], [2, 1]])
    none = torch.zeros(0, 2, dtype=torch.int64)

    def degrees(weights):
        return build_adjacency(GraphEdges(none, pairs, weights), 0, 2, 3, 2.0).degree_K.tolist()

    assert degrees(None) == [2.0, 2.0, 4.0]
    assert degrees(torch.ones(3)) == [2.0, 2.0, 4.0]
    assert degrees(torch.tensor([0.5, 0.25, 1.5])) == [1.0, 3.0, 4.0]


def test_a_relation_that_only_misleads_is_pruned_and_one_that_helps_is_not():
    misleading = [(item, 1, ITEMS + TASTES + (item // TASTES) % 4) for item in range(ITEMS)]
    gains = {
        gain.relation_row: gain
        for gain in relation_gains(
            triples(true_rows() + misleading, [1.0] * ITEMS + [5.0] * ITEMS), log(), ITEMS, generator()
        )
    }
    assert gains[1].pruned
    assert gains[1].without > gains[1].error
    assert not gains[0].pruned
    pruned, facts = calm(
        triples(true_rows() + misleading, [1.0] * ITEMS + [5.0] * ITEMS), NoiseConfig(prune=True), log(), ITEMS, 1
    )
    assert set(pruned[c.RELATION_ROW]) == {0}
    assert len(facts["relation_gains"]) == 2


def test_pruning_stops_before_nothing_is_left():
    assert [gain.pruned for gain in relation_gains(triples(random_rows(0)), log(), ITEMS, generator())] == [False]


def area(good, bad):
    return float((good[:, None] > bad[None, :]).mean() + 0.5 * (good[:, None] == bad[None, :]).mean())


def test_confidence_tells_planted_triples_from_random_ones():
    good = np.array([*true_rows(0), *((i, 1, ITEMS + TASTES + i % 3 + 3 * (i % TASTES > 2)) for i in range(ITEMS))])
    draw = np.random.default_rng(0)
    bad = np.stack([draw.integers(0, ITEMS, 60), np.zeros(60, int), ITEMS + draw.integers(0, TASTES, 60)], axis=1)
    bad = bad[bad[:, 0] % TASTES != bad[:, 2] - ITEMS]
    events = log().filter(pl.col(c.PART) == c.TRAIN)
    had = csr_array(
        (np.ones(events.height), (events[c.ITEM_ROW].to_numpy(), events[c.USER_ROW].to_numpy())), (ITEMS, USERS)
    )
    rows = np.concatenate([good, bad]).astype(np.int64)
    found = triple_confidence(rows, ITEMS + 20, had, generator())
    assert found.min() >= 0
    assert found.max() <= 1
    assert area(found[:ITEMS], found[len(good) :]) > 0.9
    again = triple_confidence(rows, ITEMS + 20, had, generator())
    assert np.array_equal(found, again)


def test_confidence_does_not_tell_by_degree_what_only_the_rest_of_the_graph_can():
    """Makers of two items each, said both ways: nearly all that speaks for a triple is its inverse."""
    draw, makers = np.random.default_rng(5), ITEMS // 2
    there = np.array([(item, 0, ITEMS + item // 2) for item in range(ITEMS)])
    wrong = np.stack([draw.integers(0, ITEMS, ITEMS), np.zeros(ITEMS, int), ITEMS + draw.integers(0, makers, ITEMS)], 1)
    wrong = wrong[wrong[:, 0] // 2 != wrong[:, 2] - ITEMS]
    rows = np.concatenate([there, there[:, ::-1] + [0, 1, 0], wrong]).astype(np.int64)
    rows[ITEMS : 2 * ITEMS, 1] = 1
    found = triple_confidence(rows, ITEMS + makers, None, generator())
    assert area(found[:ITEMS], found[2 * ITEMS :]) > 0.7


def test_few_triples_are_believed():
    assert triple_confidence(np.array([[0, 0, 1]]), 2, None, generator()).tolist() == [1.0]


def test_confidence_becomes_weight_in_train_alone():
    frame = pl.concat([triples([(0, 0, 9)], [2.0]), triples([(1, 0, 9)], part=c.TEST)])
    assert weigh(frame, np.array([0.25, 0.25]))[c.WEIGHT].to_list() == [0.5, 1.0]
    assert weigh(frame, np.array([0.0, 0.0]))[c.WEIGHT].to_list() == pytest.approx([0.002, 1.0])


@pytest.mark.parametrize("change", [{"prune": True}, {"confidence": True}, {"max_degree": 5}, {"hub_damping": 0.5}])
def test_every_key_changes_the_graph_and_nothing_does_by_default(change):
    misleading = [(item, 1, ITEMS + TASTES + (item // TASTES) % 4) for item in range(ITEMS)]
    frame = triples(true_rows() + misleading, [1.0] * ITEMS + [5.0] * ITEMS)
    same, facts = calm(frame, NoiseConfig(), log(), ITEMS, 1)
    assert same.equals(frame)
    assert facts == {}
    assert not calm(frame, NoiseConfig(**change), log(), ITEMS, 1)[0].equals(frame)
