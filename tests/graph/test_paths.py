from __future__ import annotations

import math
import time
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec import columns as c
from kgrec.graph.paths import PathFinder

ROWS = {c.HEAD_ROW: c.ROW_TYPE, c.RELATION_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE}


def finder(triples, labels, relations=("film.film.genre", "directed_by")):
    degrees = Counter(node for head, _, tail in triples for node in (head, tail))
    nodes = pl.DataFrame(
        {"node": range(len(labels)), c.ID: [f"id{n}" for n in range(len(labels))], c.LABEL: labels,
         "degree": [degrees[node] for node in range(len(labels))]},
        schema={"node": c.ROW_TYPE, c.ID: pl.String, c.LABEL: pl.String, "degree": pl.Int32},
    )  # fmt: skip
    return PathFinder(pl.DataFrame(triples, schema=ROWS, orient="row"), nodes, relations)


def oracle(triples, labels, item, history):
    """Return (node, history nodes, weight) by walking every pair of triples."""
    degrees = Counter(node for head, _, tail in triples for node in (head, tail))
    touching = {
        node: {head if tail == node else tail for head, _, tail in triples if node in (head, tail)}
        for node in range(len(labels))
    }
    found = []
    for node in touching[item]:
        others = tuple(other for other in history if other != item and node in touching[other])
        if others:
            rarity = max(math.log2(len(labels) / (1 + degrees[node])), 0.0)
            found.append((node, others, math.sqrt(len(others) / len(history)) * rarity))
    return sorted(found, key=lambda one: (labels[one[0]] is None, -one[2], one[0]))


def shown(shared):
    return [(one.node, one.history_nodes, one.weight) for one in shared]


WORLD = [(0, 0, 6), (1, 0, 6), (2, 0, 6), (3, 0, 6), (0, 1, 7), (1, 1, 7), (0, 1, 8), (1, 1, 8)]
NAMES = ["A", "B", "C", "D", "E", "F", "Drama", "Nora", None, "x", "y", "z"]


def test_a_rare_entity_says_more_than_a_hub():
    shared = finder(WORLD, NAMES).shared(0, [1, 4], limit=5)
    assert [one.node for one in shared] == [7, 6, 8]
    assert shared[0].weight > shared[1].weight > 0


def test_an_entity_with_a_name_comes_before_a_rarer_one_without():
    shared = finder(WORLD, NAMES).shared(0, [1])
    assert [one.node for one in shared] == [7, 6]
    nameless = finder(WORLD, [*NAMES[:7], None, *NAMES[8:]]).shared(0, [1])
    assert [one.node for one in nameless] == [6, 7], "named first, then equal weights by node"


def test_what_more_of_the_history_has_says_more():
    one, two = (finder(WORLD, NAMES).shared(0, history, limit=9) for history in ([1, 4, 5], [1, 2, 4]))
    drama = [next(entity.weight for entity in found if entity.node == 6) for found in (one, two)]
    assert drama[1] == pytest.approx(drama[0] * math.sqrt(2))


def test_a_hub_that_everything_touches_weighs_nothing_but_is_still_a_reason():
    triples = [(item, 0, 4) for item in range(4)]
    (found,) = finder(triples, ["A", "B", "C", "D", "Film"]).shared(0, [1])
    assert found.weight == 0.0


def test_nothing_is_shared_without_a_history_or_with_itself():
    world = finder(WORLD, NAMES)
    assert world.shared(0, []) == []
    assert world.shared(0, [0]) == []
    assert world.shared(4, [0, 1]) == []
    assert world.shared(0, [1], limit=1)[0].node == 7


def test_direction_and_repeats_do_not_matter():
    triples = [(6, 0, 0), (6, 1, 0), (1, 0, 6), (1, 1, 6)]
    (found,) = finder(triples, NAMES).shared(0, [1])
    assert (found.node, found.history_nodes) == (6, (1,))


TRIPLE = st.tuples(st.integers(0, 11), st.integers(0, 1), st.integers(0, 11))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(TRIPLE, max_size=40, unique=True),
    st.lists(st.sampled_from(["name", None]), min_size=12, max_size=12),
    st.integers(0, 5),
    st.lists(st.integers(0, 5), max_size=6, unique=True),
    st.integers(1, 12),
)
def test_the_answer_is_that_of_the_oracle(triples, labels, item, history, limit):
    found = shown(finder(triples, labels).shared(item, history, limit))
    expected = oracle(triples, labels, item, history)[:limit]
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    assert [one[2] for one in found] == pytest.approx([one[2] for one in expected])


def test_a_sentence_names_relation_entity_and_examples():
    triples = [(item, 0, 6) for item in range(4)] + [(0, 1, 8), (1, 1, 8)]
    world = finder(triples, NAMES)
    shared = world.shared(0, [1, 2, 3])
    assert world.sentence(shared) == 'genre Drama as in "B", "C" and 1 more; directed by id8 as in "B"'
    assert world.sentence(shared[:1]) == 'genre Drama as in "B", "C" and 1 more'
    assert world.name(8) == "id8"


@pytest.mark.parametrize(
    ("relation", "words"),
    [("film.film.directed_by", "directed by"), ("http://x.org/ns#has_part", "has part"), ("genre", "genre"),
     ("http://x.org/author/", "author"), ("...", "..."), ("a__b", "a b")],
)  # fmt: skip
def test_relations_are_shortened_to_what_a_person_reads(relation, words):
    world = finder([(0, 0, 6), (1, 0, 6)], NAMES, [relation])
    assert world.sentence(world.shared(0, [1])).startswith(f"{words} Drama as in")


def test_a_long_history_is_answered_at_once():
    triples = [(item, 0, 2000 + item % 7) for item in range(2000)]
    world = finder(triples, [f"n{number}" for number in range(2007)])
    start = time.perf_counter()
    (found,) = world.shared(0, range(1, 2000))
    assert found.node == 2000
    assert len(found.history_nodes) == 285
    assert time.perf_counter() - start < 1
