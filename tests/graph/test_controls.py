"""The controls take away what they say and nothing else."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgrec import columns as c
from kgrec.graph.controls import GraphControl, controlled, shuffled_tails

SCHEMA = {c.HEAD_ROW: c.ROW_TYPE, c.RELATION_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE, c.PART: c.PART_TYPE}


def world(seed=0, items=300, genres=20):
    """Items with three of twenty genres each and one of forty makers; a tenth is held out."""
    draw = np.random.default_rng(seed)
    rows = [(i, 0, 1000 + g) for i in range(items) for g in draw.choice(genres, 3, replace=False)]
    rows += [(i, 1, 2000 + int(draw.integers(40))) for i in range(items)]
    parts = draw.choice([c.TRAIN, c.VALIDATION, c.TEST], len(rows), p=[0.9, 0.05, 0.05])
    return pl.DataFrame([(*row, part) for row, part in zip(rows, parts, strict=True)], schema=SCHEMA, orient="row")


def degrees(triples, end):
    return triples.group_by(end, c.RELATION_ROW, c.PART).len().sort(end, c.RELATION_ROW, c.PART)


def test_a_shuffled_graph_has_every_degree_and_repeats_nothing_but_says_nothing():
    triples = world()
    shuffled = controlled(triples, GraphControl.SHUFFLED, np.random.default_rng(1))
    for end in (c.HEAD_ROW, c.TAIL_ROW):
        assert degrees(shuffled, end).equals(degrees(triples, end))
    train = pl.col(c.PART) == c.TRAIN
    assert shuffled.filter(train).is_unique().all(), "an item has no genre twice"
    assert shuffled.filter(~train).equals(triples.filter(~train)), "what is asked stays"
    kept = shuffled.filter(train).join(triples.filter(train), on=list(SCHEMA)[:3], how="semi").height
    assert kept / triples.filter(train).height < 0.2, "by chance three of twenty genres, one of forty makers"


def test_the_same_seed_shuffles_alike_and_another_does_not():
    triples = world()
    one, again, other = (controlled(triples, GraphControl.SHUFFLED, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)


def test_off_is_empty_and_as_is_is_the_graph():
    triples = world()
    off = controlled(triples, GraphControl.OFF, np.random.default_rng(0))
    assert off.height == 0
    assert off.schema == triples.schema
    assert controlled(triples, GraphControl.AS_IS, np.random.default_rng(0)) is triples


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=40, unique=True),
    st.integers(0, 99),
)
def test_every_order_keeps_the_tails_of_each_relation(rows, seed):
    head, relation, tail = np.array(rows).T
    found = shuffled_tails(head, relation, tail, np.random.default_rng(seed))
    for row in range(3):
        assert sorted(found[relation == row]) == sorted(tail[relation == row])


@pytest.mark.parametrize("seed", range(5))
def test_loops_go_where_they_can(seed):
    head = np.arange(30)
    found = shuffled_tails(head, np.zeros(30, dtype=np.int64), np.roll(head, 1), np.random.default_rng(seed))
    assert not (found == head).any()


def test_triples_in_ids_are_shuffled_as_well():
    triples = world().select(
        pl.format("i{}", c.HEAD_ROW).alias(c.HEAD), pl.format("r{}", c.RELATION_ROW).alias(c.RELATION),
        pl.format("e{}", c.TAIL_ROW).alias(c.TAIL),
    )  # fmt: skip
    shuffled = controlled(triples, GraphControl.SHUFFLED, np.random.default_rng(1))
    assert shuffled.drop(c.TAIL).equals(triples.drop(c.TAIL))
    counts = [frame.group_by(c.RELATION, c.TAIL).len().sort(c.RELATION, c.TAIL) for frame in (triples, shuffled)]
    assert counts[0].equals(counts[1])
    assert shuffled.join(triples, on=triples.columns, how="semi").height < 0.2 * triples.height
