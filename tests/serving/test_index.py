from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.artifacts import ArtifactStore
from kgrec.errors import ArtifactError
from kgrec.serving.index import FILE, ROWS_FILE, IndexConfig, ItemIndex, build_index

BOUND = {"item vocabulary": "v1", "model": "m1"}
CONFIG = IndexConfig(threads=1)


def artifact_of(folder, vectors, rows, bound=BOUND):
    def make(out):
        return build_index(np.asarray(vectors, dtype=np.float32), np.asarray(rows), out) | {"bound_to": bound}

    return ArtifactStore(folder).build("index", {"rows": str(list(rows)), "vectors": str(vectors)}, {}, make)[0]


def brute_force(vectors, rows, query, k, leave_out):
    scores = {row: float(np.dot(vector, query)) for row, vector in zip(rows, vectors, strict=True)}
    left = [row for row in scores if row not in leave_out]
    best = sorted(left, key=lambda row: (-scores[row], row))[:k]
    return best, [scores[row] for row in best]


@st.composite
def questions(draw):
    """Small whole numbers: exact in float32, and full of ties."""
    count, dimensions = draw(st.integers(1, 60)), draw(st.integers(1, 3))
    number = st.integers(-2, 2)
    vectors = draw(st.lists(st.lists(number, min_size=dimensions, max_size=dimensions), min_size=count, max_size=count))
    rows = sorted(draw(st.sets(st.integers(0, 100), min_size=count, max_size=count)))
    query = draw(st.lists(number, min_size=dimensions, max_size=dimensions))
    leave_out = draw(st.lists(st.integers(0, 100), max_size=30))
    return vectors, rows, query, draw(st.integers(1, 70)), leave_out


@settings(max_examples=150, deadline=None)
@given(questions())
def test_the_answer_is_that_of_brute_force_ties_by_item_row(tmp_path_factory, asked):
    vectors, rows, query, k, leave_out = asked
    index = ItemIndex(artifact_of(tmp_path_factory.mktemp("index"), vectors, rows), CONFIG, BOUND)
    found, scores = index.search(np.array(query, dtype=np.float32), k, np.array(leave_out, dtype=np.int64))
    expected, expected_scores = brute_force(vectors, rows, query, k, set(leave_out))
    assert found.tolist() == expected
    assert scores.tolist() == expected_scores
    assert len(found) == min(k, len(set(rows) - set(leave_out)))


@pytest.mark.parametrize("k", [1, 3, 20])
def test_ties_beyond_the_first_look_are_broken_by_item_row(tmp_path, k):
    vectors = [[1.0, 0.0]] * 500
    index = ItemIndex(artifact_of(tmp_path, vectors, range(500)), CONFIG, BOUND)
    query = np.array([1, 0], dtype=np.float32)
    assert index.search(query, k, np.arange(100))[0].tolist() == list(range(100, 100 + k))
    assert index.search(query, k, np.arange(499))[0].tolist() == [499]


class LastFirst:
    """An index as exact as the real one, which of equal scores returns the last first."""

    d, ntotal = 1, 200

    def __init__(self):
        self.asked = []

    def search(self, query_1D, wanted, params=None):
        self.asked.append(wanted)
        places = np.arange(self.ntotal)[::-1]
        scores = np.where(places < 5, 2.0, 1.0).astype(np.float32)
        best = np.argsort(-scores, kind="stable")[:wanted]
        return scores[best][None], places[best][None]


@pytest.mark.parametrize(("k", "looks"), [(3, 1), (5, 1), (6, 3), (30, 3)])
def test_it_looks_further_until_no_tie_can_hide_beyond_the_border(tmp_path, k, looks):
    index = ItemIndex(artifact_of(tmp_path, [[1.0]] * 200, range(200)), CONFIG, BOUND)
    index._index = LastFirst()
    found, _ = index.search(np.array([1], dtype=np.float32), k, np.empty(0, dtype=np.int64))
    assert found.tolist() == list(range(k))
    assert len(index._index.asked) == looks


def test_left_out_rows_that_are_unknown_or_repeated_cost_nothing(tmp_path):
    index = ItemIndex(artifact_of(tmp_path, [[3.0], [2.0], [1.0]], [4, 7, 9]), CONFIG, BOUND)
    query = np.array([1], dtype=np.float32)
    found, scores = index.search(query, 2, np.array([7, 7, 7, 1000, 5]))
    assert found.tolist() == [4, 9]
    assert scores.tolist() == [3.0, 1.0]
    assert index.search(query, 2, np.array([4, 7, 9]))[0].tolist() == []


def test_a_short_catalogue_gives_what_it_has(tmp_path):
    index = ItemIndex(artifact_of(tmp_path, [[1.0, 1.0]], [3]), CONFIG, BOUND)
    found, _ = index.search(np.array([1, 1], dtype=np.float32), 50, np.empty(0, dtype=np.int64))
    assert found.tolist() == [3]


def test_vectors_come_back_by_item_row_and_unknown_rows_have_none(tmp_path):
    index = ItemIndex(artifact_of(tmp_path, [[1.0, 2.0], [3.0, 4.0]], [2, 5]), CONFIG, BOUND)
    assert index.dimensions == 2
    assert index.vector(2).tolist() == [1, 2]
    assert index.vector(5).tolist() == [3, 4]
    assert [index.vector(row) for row in (0, 3, 6, 100)] == [None] * 4


@pytest.mark.parametrize(
    ("expected", "part"),
    [
        ({"item vocabulary": "v2", "model": "m1"}, "item vocabulary"),
        ({"item vocabulary": "v1", "model": "m2"}, "model"),
    ],
)
def test_an_index_refuses_another_vocabulary_or_model(tmp_path, expected, part):
    artifact = artifact_of(tmp_path, [[1.0]], [0])
    ItemIndex(artifact, CONFIG, BOUND)
    with pytest.raises(ArtifactError, match=f"built for another {part}") as error:
        ItemIndex(artifact, CONFIG, expected)
    assert "kgrec index CONFIG" in str(error.value)


def test_an_index_that_is_bound_to_nothing_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="built for another"):
        ItemIndex(artifact_of(tmp_path, [[1.0]], [0], bound={}), CONFIG, BOUND)


def test_an_index_with_other_rows_than_vectors_is_refused(tmp_path):
    one, two = (artifact_of(tmp_path, [[1.0]] * count, range(count)) for count in (1, 2))
    one.file(ROWS_FILE).write_bytes(two.file(ROWS_FILE).read_bytes())
    with pytest.raises(ArtifactError, match="1 vectors for 2 item rows"):
        ItemIndex(one, CONFIG, BOUND)


def test_the_facts_say_what_was_built_and_equal_vectors_give_equal_bytes(tmp_path):
    first = artifact_of(tmp_path / "a", [[0.6, 0.8], [0.0, 0.0]], [0, 1])
    assert {name: first.facts[name] for name in ("metric", "normalised", "kind", "count", "dimensions")} == {
        "metric": "inner_product", "normalised": True, "kind": "exact", "count": 2, "dimensions": 2,
    }  # fmt: skip
    assert artifact_of(tmp_path / "c", [[3.0, 4.0]], [0]).facts["normalised"] is False
    again = artifact_of(tmp_path / "b", [[0.6, 0.8], [0.0, 0.0]], [0, 1])
    assert again.files[FILE] == first.files[FILE]
