from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec import columns as c
from kgrec.data.vocabulary import Vocabulary
from kgrec.graph.knowledge_graph import TRIPLE_ROWS, Named, build_graph
from kgrec.graph.mapping import LINKED_TO, Known
from kgrec.graph.names import WELL_KNOWN
from kgrec.graph.parts import assign_triples
from kgrec.seeds import numpy_generator

EMPTY = Vocabulary.of(pl.Series([], dtype=pl.String))


def vocabulary(*ids):
    return Vocabulary.of(pl.Series(ids, dtype=pl.String))


def graph(triples, *, items=("a", "b", "c"), links=None, labels=(), titles=(), head_is_item=False, parts=None,
          entities=EMPTY, relations=EMPTY, held_out=(0.0, 0.0), seed=1):  # fmt: skip
    text = dict.fromkeys((c.HEAD, c.RELATION, c.TAIL), pl.String)
    frame = pl.DataFrame(list(triples), schema=text, orient="row").with_columns(
        pl.lit("test").alias(c.SOURCE), pl.lit(head_is_item).alias("head_is_item"),
        pl.lit(1.0, pl.Float32).alias(c.WEIGHT), pl.lit(None, c.TIME_TYPE).alias(c.KNOWN_AT),
    )  # fmt: skip
    if parts is not None:
        frame = frame.with_columns(pl.Series(c.PART, parts, dtype=c.PART_TYPE))
    named = pl.DataFrame(list(labels), schema={c.ENTITY: pl.String, c.LABEL: pl.String}, orient="row")
    titled = pl.DataFrame(list(titles), schema={c.ITEM: pl.String, c.TITLE: pl.String}, orient="row")
    tied = None
    if links is not None:
        tied = pl.DataFrame(list(links), schema={c.ITEM: pl.String, c.ENTITY: pl.String}, orient="row")
    known = items if isinstance(items, Vocabulary) else vocabulary(*items)
    return build_graph(
        frame, tied, Named(named, titled, WELL_KNOWN), Known(known, entities, relations),
        lambda rows: (assign_triples(rows, held_out, None, lambda: numpy_generator(seed, "triples")), {}),
        lambda rows, _: (rows, {}),
    )  # fmt: skip


def named(built):
    """Return the triples as people would read them."""
    ids = built.nodes[c.ID].to_list()
    relations = built.relations.entries.to_list()
    rows = built.triples.select(c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW).iter_rows()
    return [(ids[head], relations[relation], ids[tail]) for head, relation, tail in rows]


def test_items_are_the_first_nodes_and_entities_follow():
    built = graph([("a", "genre", "comedy"), ("c", "by", "nora"), ("nora", "born_in", "rome")])
    assert built.nodes[c.ID].to_list() == ["a", "b", "c", "nora", "comedy", "rome"]
    assert built.nodes["node"].to_list() == list(range(6))
    assert built.nodes["degree"].to_list() == [1, 0, 1, 2, 1, 1]
    assert built.entities.entries.to_list() == ["nora", "comedy", "rome"]
    assert built.triples.select(*TRIPLE_ROWS).rows() == [(0, 0, 4, "train"), (2, 1, 3, "train"), (3, 2, 5, "train")]
    assert built.triples.schema == {
        c.HEAD_ROW: c.ROW_TYPE, c.RELATION_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE, c.PART: c.PART_TYPE,
        c.WEIGHT: pl.Float32, c.KNOWN_AT: c.TIME_TYPE, c.SOURCE: pl.String,
    }  # fmt: skip


def test_links_turn_an_entity_into_its_item_at_both_ends():
    built = graph(
        [("m.1", "genre", "comedy"), ("comedy", "has", "m.1"), ("m.1", "sequel", "m.2")],
        links=[("a", "m.1"), ("b", "m.2")],
    )
    assert named(built) == [("a", "genre", "comedy"), ("comedy", "has", "a"), ("a", "sequel", "b")]
    assert built.entities.entries.to_list() == ["comedy"]


def test_without_a_link_file_an_item_is_its_entity_and_with_one_it_is_not():
    assert graph([("x", "knows", "a")]).triples["tail_row"].to_list() == [0]
    apart = graph([("x", "knows", "a")], links=[("b", "m.1")])
    assert apart.nodes[c.ID].to_list() == ["a", "b", "c", "x", "a"]
    assert apart.triples["tail_row"].to_list() == [4]


def test_heads_that_are_items_need_no_link():
    built = graph([("a", "genre", "comedy"), ("b", "genre", "a")], links=[], head_is_item=True)
    assert built.triples.select(*TRIPLE_ROWS).rows() == [(0, 0, 3, "train"), (1, 0, 4, "train")], (
        "the tail is an entity that is called a"
    )


def test_an_entity_of_several_items_stays_a_node_tied_to_each():
    built = graph([("m.1", "genre", "comedy")], links=[("a", "m.1"), ("b", "m.1"), ("c", "m.3")])
    assert sorted(named(built)) == [("a", LINKED_TO, "m.1"), ("b", LINKED_TO, "m.1"), ("m.1", "genre", "comedy")]
    assert built.facts["links_to_shared_entities"] == 2
    assert built.facts["items_with_triples"] == 2


def test_growing_vocabularies_keep_every_row():
    first = graph([("a", "genre", "comedy"), ("b", "by", "nora")])
    second = graph(
        [("d", "by", "nora"), ("d", "about", "war"), ("a", "genre", "comedy")],
        items=("a", "b", "c", "d"), entities=first.entities, relations=first.relations,
    )  # fmt: skip
    assert second.entities.entries.to_list() == ["comedy", "nora", "war"]
    assert second.relations.entries.to_list() == ["genre", "by", "about"]
    assert second.nodes[c.ID].to_list()[:5] == ["a", "b", "c", "d", "comedy"]
    assert named(second) == [("d", "by", "nora"), ("d", "about", "war"), ("a", "genre", "comedy")]
    nothing = graph([], entities=second.entities, relations=second.relations)
    assert nothing.entities == second.entities
    assert nothing.triples.is_empty()


def test_triples_that_fall_together_are_kept_once_and_counted():
    built = graph([("m.1", "genre", "x"), ("m.2", "genre", "x")], links=[("a", "m.1"), ("a", "m.2")])
    assert named(built) == [("a", "genre", "x")]
    assert built.facts["triples_equal_after_linking"] == 1
    assert built.facts["triples"] == 1


def test_names_come_from_titles_then_labels_then_nobody():
    built = graph(
        [("m.1", "by", "nora"), ("m.2", "by", "jim")], links=[("a", "m.1"), ("b", "m.2")],
        titles=[("a", "Film A"), ("b", None)],
        labels=[("m.1", "not shown"), ("m.2", "Film B"), ("nora", "Nora"), ("nora", "Second Name")],
    )  # fmt: skip
    assert built.nodes[c.LABEL].to_list() == ["Film A", "Film B", None, "Nora", None]


def test_the_facts_are_counts_for_people():
    triples = [(item, "genre", "comedy") for item in "aby"] + [("a", "by", "nora"), ("nora", "by", "x")]
    facts = graph(triples, labels=[("comedy", "Comedy")]).facts
    assert (facts["items"], facts["entities"], facts["relations"], facts["triples"]) == (3, 7, 2, 5)
    assert facts["parts"] == {"train": 5, "validation": 0, "test": 0}
    assert facts["items_with_triples"] == 2
    assert facts["items_with_triples_share"] == pytest.approx(2 / 3)
    assert facts["hubs"][0] == {"id": "comedy", "label": "Comedy", "name": "Comedy", "degree": 3}
    assert facts["triples_per_relation"] == {"genre": 3, "by": 2}


def test_a_graph_of_nothing_is_a_graph():
    assert graph([]).facts["items_with_triples_share"] == 0.0
    assert graph([], items=()).nodes.is_empty()


def test_parts_that_the_triples_name_stand_and_blanks_are_train():
    built = graph([("a", "r", "x"), ("a", "r", "y"), ("b", "r", "x")], parts=["test", None, "validation"],
                  held_out=(0.5, 0.5))  # fmt: skip
    assert built.triples[c.PART].to_list() == ["test", "train", "validation"]


def test_held_out_triples_that_train_says_the_other_way_round_are_found():
    there = [(item, "by", maker) for item, maker in zip("abcxyz", "mmnnoo", strict=True)]
    back = [(maker, "made", item) for item, _, maker in there]
    near = [("p", "near", "q"), ("q", "near", "p"), ("p", "sees", "q"), ("q", "hears", "r")]
    parts = ["train"] * 5 + ["validation"] + ["test"] * 2 + ["train"] * 4 + ["train", "test", "test", "test"]
    facts = graph(there + back + near, parts=parts).facts
    assert facts["inverse_pairs_across_parts"] == 4
    assert facts["inverse_pairs_by_relation"] == {"made / by": 2, "by / made": 1, "near / near": 1}
    assert facts["pairs_across_parts"] == 5, "sees says something else of a pair that train knows"
    whole = graph(there + back + near, held_out=(0.2, 0.3))
    assert whole.facts["inverse_pairs_across_parts"] == 0, "our own split holds pairs together"


def test_items_without_an_entity_are_counted_where_there_are_links():
    built = graph([("m.1", "genre", "comedy")], links=[("a", "m.1"), ("b", "m.9")])
    assert (built.facts["items_without_entity"], built.facts["examples_of_items_without_entity"]) == (1, ["c"])
    assert "items_without_entity" not in graph([("a", "genre", "comedy")]).facts


PAIR = st.tuples(st.sampled_from("abcdxyz"), st.sampled_from(["r", "s", "r_inverse"]), st.sampled_from("abcdxyz"))
SHARES = st.sampled_from([(0.0, 0.0), (0.3, 0.3), (0.1, 0.5), (0.5, 0.0), (0.0, 0.5)])


@settings(max_examples=80, deadline=None)
@given(st.lists(PAIR, max_size=60), SHARES, st.integers(0, 100))
def test_no_pair_of_nodes_is_on_two_sides_whatever_its_direction_and_relation(triples, held_out, seed):
    built = graph(triples, held_out=held_out, seed=seed)
    sides = {}
    for head, _, tail, part in built.triples.select(*TRIPLE_ROWS).iter_rows():
        sides.setdefault(frozenset((head, tail)), set()).add(part)
    assert all(len(parts) == 1 for parts in sides.values())
    assert sorted(named(built)) == sorted(set(triples)), "held out is not lost"
    assert sum(built.facts["parts"].values()) == built.triples.height
    used = {part for parts in sides.values() for part in parts}
    assert used <= {"train", *(["validation"] if held_out[0] else []), *(["test"] if held_out[1] else [])}
    assert built.triples.equals(graph(triples, held_out=held_out, seed=seed).triples)


def test_the_shares_held_out_are_those_asked_for_and_the_seed_decides_which():
    triples = [(f"h{number}", "r", f"t{number}") for number in range(4000)]
    built = graph(triples, held_out=(0.1, 0.2))
    assert built.facts["parts"]["test"] == pytest.approx(800, abs=80)
    assert built.facts["parts"]["validation"] == pytest.approx(400, abs=60)
    other = graph(triples, held_out=(0.1, 0.2), seed=2)
    assert not np.array_equal(built.triples[c.PART].to_physical(), other.triples[c.PART].to_physical())
