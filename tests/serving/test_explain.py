"""Explanations say what is really served: parts that sum to the score, and the history that carries it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import scipy.sparse

from kgrec import columns as c
from kgrec.artifacts import ArtifactStore
from kgrec.errors import InputError
from kgrec.evaluation.pairs import Pairs
from kgrec.graph.paths import PathFinder
from kgrec.model.blocks import BlockWeights
from kgrec.serving import package
from kgrec.serving.explain import LONGEST, Explainer, ServedScore
from kgrec.serving.neighbours import Neighbours
from kgrec.serving.recommend import Version
from kgrec.serving.standing import Asked, Standing
from tests.serving.small_version import make_version
from tests.serving.test_neighbours import filled

ITEMS, GENRES, WIDTH = 12, 3, 5


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return Version(make_version(ArtifactStore(tmp_path_factory.mktemp("artifacts"))), "1")


def neighbours(seed, weights):
    draw = np.random.default_rng(seed)
    dense = {name: draw.random((ITEMS, ITEMS)) * (draw.random((ITEMS, ITEMS)) < 0.5) for name in ("linear", "kernel")}
    matrices = {name: scipy.sparse.csr_array(one.astype(np.float32)) for name, one in dense.items()}
    return Neighbours(matrices, weights, ITEMS)


def graph(genre_of):
    triples = [(item, 0, ITEMS + genre_of[item]) for item in range(ITEMS)]
    schema = {c.HEAD_ROW: c.ROW_TYPE, c.RELATION_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE}
    size = ITEMS + GENRES
    degrees = np.bincount(np.array(triples)[:, [0, 2]].ravel(), minlength=size)
    names = [f"Film {item}" for item in range(ITEMS)] + [f"Genre {at}" for at in range(GENRES)]
    nodes = pl.DataFrame(
        {"node": range(size), c.ID: names, c.LABEL: names, "degree": degrees}, schema_overrides={"node": c.ROW_TYPE}
    )
    return PathFinder(pl.DataFrame(triples, schema=schema, orient="row"), nodes, ["genre"])


def explainer(near, finder=None, seed=0, popularity=0.1):
    draw = np.random.default_rng(seed)
    items = draw.normal(size=(ITEMS, WIDTH)).astype(np.float32)
    items[:, -1] = popularity
    fold = draw.normal(size=(ITEMS, WIDTH - 1)).astype(np.float32)
    served = ServedScore(items, fold, WIDTH - 1, near)
    return Explainer(served, None if finder is None else lambda: finder, lambda row: f"Film {row}"), served


def asked_by_history(served, history):
    rows = np.array(history, dtype=np.int64)
    folded = served.item_fold_ID[rows].sum(axis=0)
    vector = np.append(folded / np.linalg.norm(folded), 1.0).astype(np.float32)
    return Asked(Standing.HISTORY, vector, rows, rows)


@pytest.mark.parametrize("weights", [BlockWeights(), BlockWeights(linear=2.0, kernel=0.5, repeat=0.25)])
def test_parts_sum_to_the_score_and_the_history_to_the_parts_that_rest_on_it(weights):
    near = neighbours(1, weights)
    tell, served = explainer(near)
    asked = asked_by_history(served, [3, 7, 1])
    sparse = near.scores(Pairs.of([0, 0, 0], [3, 7, 1], 1, ITEMS))[0]
    for item in range(ITEMS):
        score = float(served.items_IW[item] @ asked.vector_D) + sparse[item]
        (found,) = tell.explain(asked, np.array([item]), [score])
        assert found.score == pytest.approx(sum(found.parts.values())) == pytest.approx(score, abs=1e-5)
        assert sum(found.history.values()) == pytest.approx(score - found.parts["popularity"], abs=1e-5)
        assert list(found.history.values()) == sorted(found.history.values(), reverse=True)
        carried = tell.carried(np.unique(asked.history_H), np.array([item]))
        for part, value in found.parts.items():
            if part != "popularity":
                assert carried[part].sum() == pytest.approx(value, abs=1e-5)


def test_what_an_item_of_the_history_adds_is_what_its_row_of_the_matrix_says():
    near = neighbours(2, BlockWeights(linear=2.0))
    history = np.array([0, 4, 9])
    raw = filled(near.matrices["linear"])[history]
    expected = 2.0 * raw[:, [5, 6]] / np.linalg.norm(raw.sum(axis=0))
    np.testing.assert_allclose(near.contributions(history, np.array([5, 6]))["linear"], expected, atol=1e-6)


def test_the_reason_names_the_planted_item_that_carries_the_score():
    planted = np.zeros((ITEMS, ITEMS), dtype=np.float32)
    planted[7, 5] = 1.0
    near = Neighbours({"linear": scipy.sparse.csr_array(planted)}, BlockWeights(linear=50.0), ITEMS)
    tell, served = explainer(near)
    (found,) = tell.explain(asked_by_history(served, [3, 7, 1]), np.array([5]), [0.0])
    assert found.reason == 'chosen by the same people as "Film 7"'
    assert next(iter(found.history)) == 7
    with_graph, served = explainer(near, graph([0] * ITEMS))
    (found,) = with_graph.explain(asked_by_history(served, [3, 7, 1]), np.array([5]), [0.0])
    assert found.reason.startswith('genre Genre 0 as in "Film 7"')
    assert found.paths[0].history[0] == 7


def test_reasons_of_a_list_are_not_all_the_same():
    """Every item has two genres, one of them shared by all: without a memory all reasons would name the same one."""
    triples = [(item, 0, ITEMS) for item in range(ITEMS)] + [(item, 0, ITEMS + 1 + item % 2) for item in range(ITEMS)]
    schema = {c.HEAD_ROW: c.ROW_TYPE, c.RELATION_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE}
    names = [f"Film {item}" for item in range(ITEMS)] + ["All", "Even", "Odd"]
    size = len(names)
    degrees = np.zeros(size, dtype=np.int32)  # as if all were equally rare
    nodes = pl.DataFrame(
        {"node": range(size), c.ID: names, c.LABEL: names, "degree": degrees}, schema_overrides={"node": c.ROW_TYPE}
    )
    finder = PathFinder(pl.DataFrame(triples, schema=schema, orient="row"), nodes, ["genre"])
    tell, served = explainer(neighbours(3, BlockWeights()), finder)
    items = np.array([4, 6, 8, 10])
    found = tell.explain(asked_by_history(served, [0, 1, 2]), items, [0.0] * 4)
    assert len({one.reason for one in found}) >= 2
    assert {word for one in found for word in ("All", "Even") if word in one.reason} == {"All", "Even"}


def test_reasons_fit_a_table_and_popularity_is_named_where_it_decides():
    long = graph([0] * ITEMS)
    long._labels = [f"{label} and Everything that Ever Happened After It in Another Town" for label in long._labels]
    tell, served = explainer(neighbours(4, BlockWeights()), long)
    asked = asked_by_history(served, list(range(8)))
    assert all(len(one.reason) <= LONGEST for one in tell.explain(asked, np.arange(8, 12), [0.0] * 4))
    popular, served = explainer(neighbours(4, BlockWeights()), long, popularity=9.0)
    found = popular.explain(asked_by_history(served, [0, 1]), np.array([5]), [0.0])
    assert found[0].reason.startswith("popular; ")


def test_without_a_part_in_the_scores_the_graph_is_no_reason(version):
    with_graph = version.explain("ann", "f")
    assert with_graph["paths"]
    facts = dict(version.artifact.facts) | {package.GRAPH_IN_SCORES: False}
    blind = Version(replace(version.artifact, facts=facts), "1")
    assert blind.explain("ann", "f")["paths"] == []
    assert blind.explain("ann", "f")["reason"].startswith("chosen by the same people as")


def test_an_explanation_in_plain_words(version):
    found = version.explain("ann", "f")
    assert (found["user"], found["item"], found["title"], found["rank"], found["seen"]) == ("ann", "f", None, 1, False)
    assert sum(part["score"] for part in found["parts"]) == pytest.approx(found["score"])
    listed = version.recommend(["ann"], k=1, explain=True)
    assert found["score"] == pytest.approx(listed["score"][0])
    assert found["reason"] == listed["reason"][0]
    (comedy,) = [path for path in found["paths"] if "Comedy" in path["words"]]
    assert comedy["edges"] == [
        {"head": "f", "relation": "genre", "tail": "Comedy", "inferred": False},
        {"head": "Film A", "relation": "genre", "tail": "Comedy", "inferred": False},
    ]
    seen = version.explain("ann", "a")
    assert (seen["seen"], seen["rank"]) == (True, None)
    assert "Film A" not in {one["title"] for one in seen["history"] if one["adds"] <= 0}
    nobody = version.explain("nobody", "a")
    assert nobody["parts"][0]["part"] == "popularity"
    assert (nobody["paths"], nobody["history"], nobody["rank"]) == ([], [], 1)
    with pytest.raises(InputError, match="did you mean a"):
        version.explain("ann", "aa")
