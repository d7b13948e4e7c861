"""Features of an item's place in the graph, against counting by hand and the whole decomposition."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.columns import PART_TYPE, TIME_TYPE
from kgrec.errors import InputError
from kgrec.features.declarations import check_declarations
from kgrec.features.derived import Derived, How
from kgrec.features.nodes import NODE_FEATURES, Degree, GraphEmbedding, NodeView, node_values
from kgrec.features.point_in_time import build_features
from kgrec.features.view import Count, FeatureView
from tests.features.looking_at_one_row import START

TIES = [(0, "genre", "x"), (0, "genre", "y"), (0, "cast", "x"), (1, "genre", "x"), (3, "cast", "z")]
VIEW = NodeView("node", (Degree(), Degree("cast"), GraphEmbedding(3)), "what", "who")


def ties(rows=TIES):
    schema = {"item_row": pl.Int32, "relation": pl.String, "entity": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def slowly(rows, items):
    """Return the normalised matrix of item and entity, entry by entry."""
    entities = sorted({entity for _, _, entity in rows})
    has = {(item, entity) for item, _, entity in rows}
    degree = {entity: len({item for item, other in has if other == entity}) for entity in entities}
    matrix = np.array([[degree[e] ** -0.5 if (item, e) in has else 0.0 for e in entities] for item in items])
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def test_every_kind_is_declared_here():
    assert {type(feature) for feature in VIEW.features} == set(NODE_FEATURES.values())


def test_degrees_count_distinct_entities_and_the_unknown_has_none():
    found = node_values([VIEW], ties()).rows(pl.Series([0, 1, 2, 3, None, 0], dtype=pl.Int32))
    assert found["node__degree"].to_list() == [2, 1, 0, 1, 0, 2]
    assert found["node__degree_cast"].to_list() == [1, 0, 0, 1, 0, 1]
    assert found.row(2)[2:] == found.row(4)[2:] == (0.0, 0.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 7), st.sampled_from("pq"), st.sampled_from("abcdef")), min_size=1, max_size=20),
    st.integers(1, 7),
)
def test_the_embedding_is_the_best_of_its_dimension(rows, dimensions):
    items = sorted({item for item, _, _ in rows})
    view = NodeView("e", (GraphEmbedding(dimensions),), "what", "who")
    found = view.latest(ties(sorted(rows))).table.select(view.columns).to_numpy().astype(float)
    matrix = slowly(rows, items)
    sizes = np.linalg.svd(matrix, compute_uv=False)
    rank = min(dimensions, len(sizes))
    np.testing.assert_allclose(np.linalg.norm(found[:, :rank], axis=0), sizes[:rank], atol=1e-4)
    assert not found[:, rank:].any()
    # its columns are left singular vectors times their sizes: M M' v = size^2 v, and no two point the same way
    np.testing.assert_allclose(matrix @ matrix.T @ found[:, :rank], found[:, :rank] * sizes[:rank] ** 2, atol=1e-4)
    np.testing.assert_allclose(found.T @ found, np.diag(np.pad(sizes[:rank], (0, dimensions - rank)) ** 2), atol=1e-4)
    assert (found.max(axis=0) >= -found.min(axis=0) - 1e-6).all()


def test_a_large_graph_is_decomposed_in_parts_and_gives_the_same():
    draw = np.random.default_rng(3)
    rows = sorted({(int(i), "r", str(e)) for i, e in zip(draw.integers(0, 400, 3000), draw.integers(0, 300, 3000),
                                                         strict=True)})  # fmt: skip
    view = NodeView("e", (GraphEmbedding(4),), "what", "who")
    table = view.latest(ties(rows)).table
    sizes = np.linalg.svd(slowly(rows, table["item_row"].to_list()), compute_uv=False)
    found = table.select(view.columns).to_numpy().astype(float)
    np.testing.assert_allclose(found.T @ found, np.diag(sizes[:4] ** 2), atol=1e-3)
    assert view.latest(ties(rows)).table.equals(table), "the same bits again"


def test_items_of_one_entity_are_near_and_others_are_not():
    rows = [(item, "genre", "blues" if item < 5 else "polka") for item in range(10)]
    rows += [(item, "label", str(item % 3)) for item in range(10)]
    view = NodeView("e", (GraphEmbedding(2),), "what", "who")
    at = view.latest(ties(rows)).table.select(view.columns).to_numpy()
    within, across = np.linalg.norm(at[0] - at[3]), np.linalg.norm(at[0] - at[6])
    assert within < across / 2


def world(**changes):
    frame = pl.DataFrame(
        {"user_row": [0, 1, 0], "item_row": [0, 2, 3], "click": [True, False, True],
         "time": [START + timedelta(hours=n) for n in range(3)],
         "part": pl.Series(["train", "train", "test"], dtype=PART_TYPE)},
        schema_overrides={"user_row": pl.Int32, "item_row": pl.Int32, "time": TIME_TYPE},
    )  # fmt: skip
    return frame.with_columns(**changes)


def test_rows_and_requests_read_the_same_and_derived_features_may_use_them(tmp_path):
    count = FeatureView("user", ("user_row",), (Count(),), None, "what", "who")
    more = Derived("more", How.PRODUCT, ("node__degree", "node__embedding_0"), "what", "who")
    tables = build_features([count, VIEW, more], world(), entities=ties())
    assert not tables.left_out
    assert {"node__degree", "node__degree_cast"} <= set(tables.counts)
    asked = world().drop("click", "part")
    assert tables.latest.look_up(asked).select(VIEW.columns).equals(tables.rows.select(VIEW.columns))
    tables.latest.save(tmp_path)
    again = type(tables.latest).load(tmp_path).look_up(asked)
    assert again.select(*VIEW.columns, "more").equals(tables.rows.select(*VIEW.columns, "more"))


def test_they_need_no_time_but_a_graph():
    timeless = build_features([VIEW], world().drop("time"), entities=ties())
    assert timeless.rows["node__degree"].to_list() == [2, 0, 1]
    assert timeless.aggregates == VIEW.columns
    without = build_features([VIEW], world())
    assert without.aggregates == ()
    assert "entity" in without.left_out["node"]


@pytest.mark.parametrize(
    "wrong",
    [{"name": "two words"}, {"features": ()}, {"features": (Degree(), Degree())}, {"features": (GraphEmbedding(0),)}],
)
def test_each_senseless_view_is_refused(wrong):
    with pytest.raises(InputError) as caught:
        NodeView(**{"name": "n", "features": (Degree(),), "description": "what", "owner": "who"} | wrong)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].remedy


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(InputError, match="declared twice"):
        check_declarations([VIEW, VIEW])
