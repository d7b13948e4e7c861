from __future__ import annotations

import math
import time
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec import columns as c
from kgrec.graph.paths import INFERRED, WIDEST, PathFinder, shorter, varied
from kgrec.graph.review import ACCEPTED

ROWS = {c.HEAD_ROW: c.ROW_TYPE, c.RELATION_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE, c.SOURCE: pl.String()}


def finder(triples, labels, relations=("film.film.genre", "directed_by"), sources=None):
    degrees = Counter(node for head, _, tail in triples for node in (head, tail))
    nodes = pl.DataFrame(
        {"node": range(len(labels)), c.ID: [f"id{n}" for n in range(len(labels))], c.LABEL: labels,
         "degree": [degrees[node] for node in range(len(labels))]},
        schema={"node": c.ROW_TYPE, c.ID: pl.String, c.LABEL: pl.String, "degree": pl.Int32},
    )  # fmt: skip
    rows = [(*triple, source) for triple, source in zip(triples, sources or ["file"] * len(triples), strict=True)]
    return PathFinder(pl.DataFrame(rows, schema=ROWS, orient="row"), nodes, relations)


def oracle(triples, labels, item, history, weights):
    """Return {last node: (nodes on the way, history nodes, weight)} by walking every pair of triples."""
    size = len(labels)
    degrees = Counter(node for head, _, tail in triples for node in (head, tail))
    near = {n: {h if t == n else t for h, _, t in triples if n in (h, t)} for n in range(size)}
    rarity = {n: max(math.log2(size / (1 + degrees[n])), 0.0) / max(math.log2(max(size, 2)), 1.0) for n in range(size)}
    share = {h: w for h, w in zip(history, weights, strict=True) if h != item}
    total = sum(share.values())
    share = {h: w / total for h, w in share.items()}
    found = {}
    for node in near[item] - {item}:
        if node in share:
            found[node] = ((), {node}, math.sqrt(share[node]))
        elif others := {h for h in share if node in near[h]}:
            found[node] = ((node,), others, math.sqrt(sum(share[h] for h in others)) * rarity[node])
    firsts = sorted(near[item] - {item} - set(share), key=lambda n: (labels[n] is None, -rarity[n], n))
    for first in firsts:
        for node in near[first] - {item} - set(share):
            others = {h for h in share if node in near[h]}
            if others and node not in found and degrees[first] <= WIDEST:
                weight = 0.5 * math.sqrt(sum(share[h] for h in others)) * min(rarity[first], rarity[node])
                found[node] = ((first, node), others, weight)
    return found


WORLD = [(0, 0, 6), (1, 0, 6), (2, 0, 6), (3, 0, 6), (0, 1, 7), (1, 1, 7), (0, 1, 8), (1, 1, 8)]
NAMES = ["A", "B", "C", "D", "E", "F", "Drama", "Nora", None, "x", "y", "z"]


def test_a_rare_entity_says_more_than_a_hub():
    paths = finder(WORLD, NAMES).paths(0, [1, 4], limit=5)
    assert [path.via for path in paths] == [(7,), (6,), (8,)]
    assert paths[0].weight > paths[1].weight > 0


def test_an_entity_with_a_name_comes_before_a_rarer_one_without():
    assert [path.via for path in finder(WORLD, NAMES).paths(0, [1])] == [(7,), (6,)]
    nameless = finder(WORLD, [*NAMES[:7], None, *NAMES[8:]]).paths(0, [1])
    assert [path.via for path in nameless] == [(6,), (7,)], "named first, then equal weights by node"


def test_what_carries_more_of_the_score_is_told_first():
    world = finder([(0, 0, 6), (1, 0, 6), (0, 1, 7), (2, 1, 7)], NAMES)
    assert [path.via for path in world.paths(0, [1, 2], weights=[0.9, 0.1])] == [(6,), (7,)]
    assert [path.via for path in world.paths(0, [1, 2], weights=[0.1, 0.9])] == [(7,), (6,)]
    shared = finder([(item, 0, 6) for item in range(4)], NAMES)
    assert shared.paths(0, [1, 2, 3], weights=[0.2, 0.1, 0.7])[0].history == (3, 1, 2)


def test_a_triple_between_item_and_history_is_the_shortest_path():
    world = finder([(0, 0, 1), (0, 1, 7), (2, 1, 7)], NAMES, ["sequel_of", "directed_by"])
    direct, via = world.paths(0, [1, 2])
    assert (direct.via, direct.history, world.sentence(direct)) == ((), (1,), 'sequel of: "B"')
    assert (via.via, via.history) == ((7,), (2,))


def test_a_path_may_go_over_two_nodes_but_not_over_three_nor_over_a_hub():
    chain = [(0, 0, 6), (6, 1, 7), (1, 0, 7)]
    world = finder(chain, NAMES)
    (path,) = world.paths(0, [1])
    assert (path.via, path.history) == ((6, 7), (1,))
    assert [(step.head, step.tail) for step in (*path.steps, *path.ends)] == [(0, 6), (6, 7), (1, 7)]
    assert world.sentence(path) == 'genre Drama, directed by Nora as in "B"'
    assert finder([(0, 0, 6), (6, 1, 7), (7, 1, 9), (1, 0, 9)], NAMES).paths(0, [1]) == []
    names = [*NAMES, *(f"n{at}" for at in range(WIDEST))]
    wide = [(len(NAMES) + at, 0, 6) for at in range(WIDEST - 1)]
    assert finder([*chain, *wide], names).paths(0, [1]) == []


def test_an_accepted_triple_is_marked_and_is_not_told_where_a_source_says_the_same():
    triples = [(0, 0, 6), (1, 0, 6)]
    (path,) = finder(triples, NAMES, sources=[ACCEPTED, "file"]).paths(0, [1])
    assert path.inferred
    assert [step.inferred for step in (*path.steps, *path.ends)] == [True, False]
    assert finder(triples, NAMES, sources=[ACCEPTED, "file"]).sentence(path).endswith(INFERRED)
    (both,) = finder([(0, 0, 6), *triples], NAMES, sources=[ACCEPTED, "file", "file"]).paths(0, [1])
    assert not both.inferred


def test_nothing_leads_nowhere_or_back_to_the_item():
    world = finder(WORLD, NAMES)
    assert world.paths(0, []) == world.paths(0, [0]) == world.paths(4, [0, 1]) == []
    assert world.paths(0, [1], weights=[0.0]) == []
    assert all(0 not in path.history for path in world.paths(0, [0, 1], limit=9))


TRIPLE = st.tuples(st.integers(0, 11), st.integers(0, 1), st.integers(0, 11))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(TRIPLE, max_size=40, unique=True),
    st.lists(st.sampled_from(["name", None]), min_size=12, max_size=12),
    st.integers(0, 5),
    st.dictionaries(st.integers(0, 5), st.sampled_from([0.5, 1.0, 3.0]), max_size=6),
    st.integers(1, 12),
)
def test_the_answer_is_that_of_the_oracle(triples, labels, item, history, limit):
    weights = list(history.values())
    expected = oracle(triples, labels, item, list(history), weights) if set(history) - {item} else {}
    found = finder(triples, labels).paths(item, list(history), 99, weights)
    shown = {path.via[-1] if path.via else path.history[0]: path for path in found}
    assert {last: (path.via, set(path.history)) for last, path in shown.items()} == {
        last: one[:2] for last, one in expected.items()
    }
    for last, path in shown.items():
        assert path.weight == pytest.approx(expected[last][2])
        ends = {(step.head, step.relation_row, step.tail) for step in (*path.steps, *path.ends)}
        assert ends <= set(triples)
    order = [(any(labels[node] is None for node in path.via), -path.weight) for path in found]
    assert order == sorted(order)
    assert finder(triples, labels).paths(item, list(history), limit, weights) == found[:limit]


def test_a_sentence_names_relation_entity_and_examples_and_can_be_short():
    triples = [(item, 0, 6) for item in range(4)] + [(0, 1, 8), (1, 1, 8)]
    world = finder(triples, NAMES)
    genre, director = world.paths(0, [1, 2, 3])
    assert world.sentence(genre, titles=2) == 'genre Drama as in "B", "C" and 1 more'
    assert world.sentence(genre) == 'genre Drama as in "B" and 2 more'
    assert world.sentence(director) == 'directed by id8 as in "B"'
    long = finder(triples, ["A", "The Importance of Being Earnest, Once Again and Again", *NAMES[2:]])
    for longest in (60, 80, 100):
        text = long.sentence(long.paths(0, [1, 2, 3])[0], longest=longest)
        assert len(text) <= longest
        assert text.startswith('genre Drama as in "The Import')
        assert text.endswith('…" and 2 more')
    assert shorter("abc", 3) == "abc"


def test_a_long_history_is_answered_at_once():
    triples = [(item, 0, 2000 + item % 7) for item in range(2000)]
    world = finder(triples, [f"n{number}" for number in range(2007)])
    start = time.perf_counter()
    found = world.paths(0, range(1, 2000))[0]
    assert found.via == (2000,)
    assert len(found.history) == 285
    assert time.perf_counter() - start < 1


def test_examples_are_not_the_same_in_every_reason():
    world = finder([(item, 0, 6) for item in range(6)], NAMES)
    (path,) = world.paths(0, [1, 2, 3, 4], limit=1, weights=[0.4, 0.3, 0.2, 0.1])
    given = Counter()
    told = [varied(path, given) for _ in range(5)]
    assert [one.history[0] for one in told] == [1, 2, 3, 4, 1], "each once, the weightiest first"
    assert all(sorted(one.history) == [1, 2, 3, 4] for one in told)
    assert all(step.head == node for one in told for node, step in zip(one.history, one.ends, strict=True))
    assert '"C" and 3 more' in world.sentence(told[1])
