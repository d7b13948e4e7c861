from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec import columns as c
from kgrec.graph.binning import bin_numbers
from kgrec.graph.merging import SAME_AS, conflict_facts, merge_same, once, settle_conflicts
from kgrec.graph.parts import Ends, assign_triples, pairs_across_parts
from kgrec.graph.relations import coverage, describe_relations, merge_inverses
from kgrec.seeds import numpy_generator

KEY = [c.HEAD, c.RELATION, c.TAIL, c.HEAD_IS_ITEM]
NO_LABELS = pl.DataFrame(schema=c.LABELS_SCHEMA)


def triples(*rows, weights=None, known=None, source=None):
    frame = pl.DataFrame(list(rows), schema=dict.fromkeys((c.HEAD, c.RELATION, c.TAIL), pl.String), orient="row")
    return frame.with_columns(
        pl.Series(c.SOURCE, source or ["a"] * len(rows), dtype=pl.String),
        pl.lit(False).alias(c.HEAD_IS_ITEM),
        pl.Series(c.WEIGHT, weights or [1.0] * len(rows), dtype=pl.Float32),
        pl.Series(c.KNOWN_AT, known or [None] * len(rows), dtype=c.TIME_TYPE),
    )


def rows_of(*triple_rows):
    schema = dict.fromkeys((c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW), c.ROW_TYPE)
    return pl.DataFrame(list(triple_rows), schema=schema, orient="row").with_columns(
        pl.lit(1.0, pl.Float32).alias(c.WEIGHT), pl.lit(None, c.TIME_TYPE).alias(c.KNOWN_AT),
        pl.lit("a").alias(c.SOURCE),
    )  # fmt: skip


def test_same_as_ties_are_transitive_and_the_first_id_stays():
    frame = triples(
        ("x", "by", "b2"), ("b1", SAME_AS, "b2"), ("b3", SAME_AS, "b1"), ("b3", "in", "rome"), ("x", "by", "b1")
    )
    links = pl.DataFrame({c.ITEM: ["i"], c.ENTITY: ["b3"]})
    labels = pl.DataFrame({c.ENTITY: ["b1", "b2"], c.LABEL: ["One", "Two"]})
    merged, linked, named, gone = merge_same(frame, links, labels, [SAME_AS])
    assert merged.select(KEY[:3]).rows() == [("x", "by", "b2"), ("b2", "in", "rome")]
    assert linked.rows() == [("i", "b2")]
    assert named.rows() == [("b2", "One")]
    assert gone == 2
    assert merge_same(frame, links, labels, ["other"])[0].height == 5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12))
def test_same_as_agrees_with_walking_the_ties(pairs):
    frame = triples(*[(f"e{a}", SAME_AS, f"e{b}") for a, b in pairs], *[(f"e{n}", "is", f"v{n}") for n in range(9)])
    merged = merge_same(frame, None, NO_LABELS, [SAME_AS])[0]
    group = {n: {n} for n in range(9)}
    for _ in range(9):
        for a, b in pairs:
            whole = group[a] | group[b]
            for n in whole:
                group[n] = whole
    heads = {tail: head for head, tail in merged.select(c.HEAD, c.TAIL).iter_rows()}
    for a in range(9):
        for b in range(9):
            assert (heads[f"v{a}"] == heads[f"v{b}"]) == (b in group[a])


def test_repeated_triples_keep_the_greatest_weight_and_the_earliest_instant():
    early, late = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
    frame = triples(
        ("x", "by", "a"), ("x", "by", "a"), ("x", "by", "b"), ("x", "by", "b"),
        weights=[0.5, 2.0, 1.0, 1.0], known=[late, early, early, None], source=["p", "q", "p", "q"],
    )  # fmt: skip
    merged = once(frame, KEY)
    assert merged.select(c.SOURCE, c.WEIGHT, c.KNOWN_AT).rows() == [("p", 2.0, early), ("p", 1.0, None)]


@pytest.mark.parametrize(
    ("policy", "left"),
    [("keep", ["1990", "1991", "1992"]), ("first", ["1990"]), ("heaviest", ["1991"]), ("drop", [])],
)
def test_conflicts_of_functional_relations_are_settled_as_asked(policy, left):
    frame = triples(
        ("a", "born", "1990"), ("a", "born", "1991"), ("b", "born", "1980"), ("a", "likes", "x"), ("a", "likes", "y"),
        ("a", "born", "1992"), weights=[1, 3, 1, 1, 1, 3],
    )  # fmt: skip
    settled, conflicts = settle_conflicts(frame, ["born"], policy)
    assert settled.filter((pl.col(c.HEAD) == "a") & (pl.col(c.RELATION) == "born"))[c.TAIL].to_list() == left
    assert settled.height == 3 + len(left)
    assert conflicts.filter("kept")[c.TAIL].to_list() == left
    assert conflict_facts(conflicts) == {"conflicts": 1, "example_of_conflict": "a born 1990 | 1991 | 1992"}


FILMS = [(0, 0, 5), (1, 0, 5), (2, 0, 6), (5, 1, 0), (5, 1, 1), (6, 1, 2), (3, 2, 4), (4, 2, 3), (0, 3, 7), (7, 3, 0)]


def test_inverse_and_symmetric_relations_are_found():
    report = {row["relation_row"]: row for row in describe_relations(rows_of(*FILMS, (1, 3, 7)), 5, 0.8).to_dicts()}
    assert (report[0]["inverse_of"], report[1]["inverse_of"], report[2]["inverse_of"]) == (1, 0, None)
    assert [report[r]["symmetric"] for r in range(4)] == [0, 0, 1, pytest.approx(2 / 3)]
    assert (report[0]["fan_out"], report[1]["fan_out"], report[1]["fan_out_max"]) == (1.0, 1.5, 2)
    assert report[0]["items"] == pytest.approx(3 / 5)
    assert (report[0]["single_tail"], report[1]["single_tail"]) == (1.0, 0.5)


def test_merged_inverses_say_each_fact_once():
    rows = rows_of(*FILMS)
    merged = merge_inverses(rows, describe_relations(rows, 5, 0.8), 0.8).select(c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW)
    assert merged.rows() == [(0, 0, 5), (1, 0, 5), (2, 0, 6), (3, 2, 4), (0, 3, 7)]
    strict = merge_inverses(rows, describe_relations(rows[:-1], 5, 0.8), 0.8)
    assert strict.height == 6, "half a symmetry is none"


def test_coverage_counts_items_without_triples():
    assert coverage(rows_of((0, 0, 5), (1, 0, 0)), 4) == {
        "items_without_triples": 2, "fan_out_of_items": {"mean": 0.75, "median": 0.5, "max": 2},
    }  # fmt: skip


def test_no_triple_of_train_was_unknown_then():
    def day(number):
        return datetime(2024, 1, number, tzinfo=UTC)

    rows = rows_of(*[(i, 0, 9) for i in range(6)]).with_columns(
        pl.Series(c.KNOWN_AT, [None, day(1), day(5), day(6), day(8), day(9)], dtype=c.TIME_TYPE)
    )

    def parts(frame, ends):
        return assign_triples(frame, (0.0, 0.0), ends, lambda: numpy_generator(1, "triples"))[c.PART].to_list()

    ends = Ends(day(5), day(8))
    assert parts(rows, ends) == ["train", "train", "train", "validation", "validation", "test"]
    given = rows.with_columns(pl.Series(c.PART, ["train", "test", None, "train", "test", "train"], dtype=c.PART_TYPE))
    assert parts(given, ends) == ["train", "test", "train", "validation", "test", "test"]
    assert parts(rows, None) == ["train"] * 6


def test_pairs_across_parts_are_counted_either_way_round():
    part = pl.Series(c.PART, ["train", "test", "validation", "test"], dtype=c.PART_TYPE)
    assert pairs_across_parts(rows_of((0, 0, 5), (5, 1, 0), (0, 2, 5), (1, 0, 5)).with_columns(part)) == 2


def numbers(values, bins=2):
    return pl.DataFrame(
        {c.HEAD: [f"i{at}" for at in range(len(values))], c.RELATION: "year", c.VALUE: values, c.SOURCE: "a",
         c.HEAD_IS_ITEM: True, c.KNOWN_AT: None, c.BINS: bins}
    ).cast(c.NUMBERS_SCHEMA)  # fmt: skip


def test_bins_are_cut_on_train_alone():
    found, labels = bin_numbers(numbers([1990, 1991, 1992, 1993, 2050, 2051]), pl.Series(["i0", "i1", "i2", "i3"]))
    assert found[c.TAIL].to_list() == ["year:below 1992"] * 2 + ["year:from 1992"] * 4
    assert labels.rows() == [("year:below 1992", "below 1992"), ("year:from 1992", "from 1992")]
    everyone, _ = bin_numbers(numbers([1990, 1991, 1992, 1993, 2050, 2051]), None)
    assert everyone[c.TAIL].to_list() == ["year:below 1993"] * 3 + ["year:from 1993"] * 3


def test_a_number_that_became_known_after_train_moves_no_edge():
    known = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 1, 1, 1, 9, 9)]
    frame = numbers([1990, 1991, 1992, 1993, 2050, 2051]).with_columns(pl.Series(c.KNOWN_AT, known, dtype=c.TIME_TYPE))
    everybody = pl.Series([f"i{at}" for at in range(6)])
    assert bin_numbers(frame, everybody, datetime(2024, 1, 5, tzinfo=UTC))[1][c.LABEL].to_list() == [
        "below 1992", "from 1992",
    ]  # fmt: skip
    assert bin_numbers(frame, everybody)[1][c.LABEL].to_list() == ["below 1993", "from 1993"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(2, 8))
def test_every_number_falls_into_the_bin_that_its_name_says(values, bins):
    found, labels = bin_numbers(numbers(values, bins), None)
    assert found.height == len(values)
    assert labels.height <= bins
    for value, tail in zip(values, found[c.TAIL], strict=True):
        name = tail.removeprefix("year:")
        if name.startswith("below "):
            assert value < float(name.removeprefix("below "))
        elif name.startswith("from "):
            assert value >= float(name.removeprefix("from "))
        elif name != "any":
            low, high = map(float, name.split(" to below "))
            assert low <= value < high
    if len(set(values)) == len(values) >= bins:
        sizes = np.unique(found[c.TAIL].to_numpy(), return_counts=True)[1]
        assert sizes.max() <= len(values) / bins + 2
