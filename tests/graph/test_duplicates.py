from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec import columns as c
from kgrec.graph.duplicates import DUPLICATES_SCHEMA, OTHER, SHARED, duplicate_facts, likely_duplicates

ITEMS = 3


def tables(rows, labels):
    triples = pl.DataFrame(
        rows, schema=dict.fromkeys((c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW), c.ROW_TYPE), orient="row"
    )
    size = len(labels)
    nodes = pl.DataFrame({"node": pl.Series(range(size), dtype=c.ROW_TYPE), c.ID: [f"n{at}" for at in range(size)],
                          c.LABEL: pl.Series(labels, dtype=pl.String)})  # fmt: skip
    return triples, nodes


def found(rows, labels):
    table = likely_duplicates(*tables(rows, labels), ITEMS)
    assert dict(table.schema) == DUPLICATES_SCHEMA
    return table.select(c.ENTITY, OTHER, SHARED, "same_role").rows()


def test_one_person_in_two_graphs_is_found_by_name_and_film():
    labels = ["Film", "Film", "Other", "Renée Zellweger", "RENEE ZELLWEGER.", "Renée Z.", "Ann", "ann"]
    rows = [(0, 0, 3), (0, 1, 4), (1, 0, 3), (1, 1, 4), (2, 0, 5), (2, 0, 6), (7, 2, 0)]
    assert found(rows, labels) == [("n3", "n4", 2, False)], "items, other names and other company are no duplicates"
    facts = duplicate_facts(likely_duplicates(*tables(rows, labels), ITEMS))
    assert facts == {"likely_duplicates": 1, "examples_of_duplicates": ["n3 and n4, both 'Renée Zellweger'"]}


def test_the_same_part_in_a_relation_will_do_and_a_name_of_many_is_none():
    two = found([(0, 0, 3), (1, 0, 4)], ["F", "G", "H", "Ann", "Ann"])
    assert two == [("n3", "n4", 0, True)]
    assert found([(0, 0, 3), (4, 0, 1)], ["F", "G", "H", "Ann", "Ann"]) == [], "one is a head, the other a tail"
    many = found([(0, 0, node) for node in range(3, 14)], ["F", "G", "H", *["Untitled"] * 11])
    assert many == []
    assert duplicate_facts(likely_duplicates(*tables([(0, 0, 3)], ["F", "G", "H", None]), ITEMS)) == {
        "likely_duplicates": 0
    }


NODE = st.integers(0, 7)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NODE, st.integers(0, 2), NODE), max_size=14),
    st.lists(st.sampled_from(["a", "A ", "b", "", None]), min_size=8, max_size=8),
)
def test_the_answer_is_that_of_looking_at_every_pair(rows, labels):
    def near(node):
        return {t for h, _, t in rows if h == node} | {h for h, _, t in rows if t == node}

    def roles(node):
        return {(r, "h") for h, r, _ in rows if h == node} | {(r, "t") for _, r, t in rows if t == node}

    def form(node):
        return (labels[node] or "").strip().casefold()

    expected = {
        (f"n{a}", f"n{b}", len(near(a) & near(b)), bool(roles(a) & roles(b)))
        for a in range(ITEMS, 8) for b in range(a + 1, 8)
        if form(a) and form(a) == form(b) and (near(a) & near(b) or roles(a) & roles(b))
    }  # fmt: skip
    told = found(rows, labels)
    assert set(told) == expected
    assert len(told) == len(expected)
    assert [row[2] for row in told] == sorted((row[2] for row in told), reverse=True)
