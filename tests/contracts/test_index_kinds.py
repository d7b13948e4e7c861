"""What holds of every kind of index, read from the registry: near enough to exact, filters, changes, refusals."""

from functools import cache

import numpy as np
import pytest

from kgrec.artifacts import ArtifactStore
from kgrec.serving.index import KINDS, IndexConfig, ItemIndex, KindName, build_index
from kgrec.serving.index_changes import IndexChanges
from kgrec.serving.index_choice import ORDER, recall_of

COUNT, DIMENSIONS = 4_000, 10
NOBODY = np.empty(0, np.int64)
KINDS_AND_EXACT = [(kind, shards) for kind in (*KINDS, KindName.EXACT) for shards in (1, 3)]


@cache
def world():
    """Return item vectors in forty clusters, their rows (every third), and users of the same clusters."""
    rng = np.random.default_rng(3)
    centres_CD = rng.standard_normal((40, DIMENSIONS))
    items = centres_CD[rng.integers(0, 40, COUNT)] + 0.4 * rng.standard_normal((COUNT, DIMENSIONS))
    users = centres_CD[rng.integers(0, 40, 200)] + 0.4 * rng.standard_normal((200, DIMENSIONS))
    return items.astype(np.float32), 3 * np.arange(COUNT), users.astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return what builds each kind once."""

    @cache
    def make(kind, memory_map=False):
        vectors_ID, rows_I, users_QD = world()
        kind, shards = kind
        config = IndexConfig(kind=kind, threads=1, latency_ms=1e6, memory_map=memory_map, shards=shards)
        store = ArtifactStore(tmp_path_factory.mktemp("index"))
        artifact, _ = store.build(
            "index",
            {"kind": kind.value, "shards": str(shards)},
            {},
            lambda out: build_index(vectors_ID, rows_I, out, config, users_QD),
        )
        return ItemIndex(artifact, config, {}), artifact.facts

    return make


def truth(query_D, k, rows, vectors):
    order = np.lexsort((rows, -(vectors @ query_D)))[:k]
    return rows[order]


def test_every_kind_but_exact_and_auto_is_in_the_registry_and_in_the_order_of_choice():
    assert set(KINDS) == set(ORDER) == set(KindName) - {KindName.EXACT, KindName.AUTO}


@pytest.mark.parametrize("kind", KINDS_AND_EXACT)
def test_it_finds_what_exact_search_finds(made, kind):
    index, facts = made(kind)
    vectors_ID, rows_I, users_QD = world()
    assert (facts["kind"], facts["shards"]) == (kind[0].value, kind[1])
    found = np.stack([index.search(query_D, 10, NOBODY)[0] for query_D in users_QD])
    expected = np.stack([truth(query_D, 10, rows_I, vectors_ID) for query_D in users_QD])
    assert recall_of(found, expected) >= (1.0 if kind[0] is KindName.EXACT else 0.985)
    rows, scores = index.search(users_QD[0], 5, NOBODY)
    assert scores == pytest.approx(vectors_ID[rows // 3] @ users_QD[0], abs=1e-4)
    assert index.dimensions == DIMENSIONS
    assert np.allclose(index.vector(3 * 17), vectors_ID[17])
    assert index.vector(1) is None


@pytest.mark.parametrize("kind", KINDS_AND_EXACT)
def test_left_out_and_filtered_rows_do_not_come(made, kind):
    index, _ = made(kind)
    vectors_ID, rows_I, users_QD = world()
    best = index.search(users_QD[1], 10, NOBODY)[0]
    assert not np.isin(index.search(users_QD[1], 10, best)[0], best).any()
    few_I = np.zeros(3 * COUNT, dtype=bool)
    few_I[rows_I[::400]] = True
    expected = truth(users_QD[1], 7, rows_I[::400], vectors_ID[::400])
    assert index.search(users_QD[1], 7, NOBODY, few_I)[0].tolist() == expected.tolist(), "few items are looked at each"


@pytest.mark.parametrize("kind", KINDS_AND_EXACT)
def test_all_of_the_catalogue_comes_when_it_is_asked_for(made, kind):
    index, _ = made(kind)
    _, rows_I, users_QD = world()
    rows, scores = index.search(users_QD[2], COUNT, rows_I[:100])
    assert sorted(rows.tolist()) == rows_I[100:].tolist()
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("kind", KINDS_AND_EXACT)
def test_items_come_and_go_by_their_rows(made, kind, tmp_path):
    index, _ = made(kind)
    _, rows_I, users_QD = world()
    query_D = users_QD[3]
    first, second, third = index.search(query_D, 3, NOBODY)[0]
    newcomer, moved = 3 * COUNT + 5, int(rows_I[40])
    vectors = np.stack([query_D, 2 * query_D]).astype(np.float32)
    changes = (
        IndexChanges.none(DIMENSIONS).remove(np.array([first, 999_999_999])).add(np.array([newcomer, moved]), vectors)
    )
    changes.save(tmp_path)
    index.change(IndexChanges.load(tmp_path))
    try:
        assert index.search(query_D, 4, NOBODY)[0].tolist() == [moved, newcomer, second, third]
        assert index.search(query_D, 2, np.array([moved]))[0].tolist() == [newcomer, second]
        only_I = np.ones(newcomer + 1, dtype=bool)
        only_I[newcomer] = False
        assert index.search(query_D, 2, NOBODY, only_I)[0].tolist() == [moved, second]
        assert index.vector(int(first)) is None
        assert np.allclose(index.vector(moved), 2 * query_D)
        assert len(index.rows_I) == COUNT
        index.change(changes.remove(np.array([moved])).add(np.array([first]), query_D[None] * 3))
        assert index.search(query_D, 3, NOBODY)[0].tolist() == [first, newcomer, second]
    finally:
        index.change(None)
    assert index.search(query_D, 3, NOBODY)[0].tolist() == [first, second, third]


@pytest.mark.parametrize("kind", KINDS_AND_EXACT)
def test_an_index_left_on_disk_answers_alike(made, kind):
    held, mapped = made(kind)[0], made(kind, memory_map=True)[0]
    for query_D in world()[2][:20]:
        assert held.search(query_D, 10, NOBODY)[0].tolist() == mapped.search(query_D, 10, NOBODY)[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_gate_refuses_what_is_slow_or_misses_and_serves_the_exact_one(tmp_path, kind):
    vectors_ID, rows_I, users_QD = world()
    facts = build_index(vectors_ID, rows_I, tmp_path, IndexConfig(kind=kind, latency_ms=1e-6), users_QD)
    assert facts["kind"] == "exact"
    assert "more than 1e-06" in facts["tried"][0]["refused"]
    users_QD = users_QD.copy()
    users_QD[1::2] = 0  # who judges has nothing near: every item scores alike
    facts = build_index(vectors_ID, rows_I, tmp_path, IndexConfig(kind=kind, latency_ms=1e6), users_QD)
    assert facts["kind"] == "exact"
    assert facts["tried"][0]["recall"] < 0.5
    assert "is below 0.99" in facts["tried"][0]["refused"]


def test_auto_is_exact_while_small_and_the_first_that_passes_beyond(tmp_path):
    vectors_ID, rows_I, users_QD = world()
    asked = {"latency_ms": 1e6}
    small = build_index(vectors_ID, rows_I, tmp_path, IndexConfig(**asked), users_QD)
    assert small["kind"] == "exact"
    assert "tried" not in small
    large = build_index(vectors_ID, rows_I, tmp_path, IndexConfig(exact_items=100, **asked), users_QD)
    assert large["kind"] == "ivf_pq"
    assert [one["kind"] for one in large["tried"]] == ["ivf_pq"]
    assert large["tried"][0]["recall"] >= 0.99
    blind = build_index(vectors_ID, rows_I, tmp_path, IndexConfig(exact_items=100, **asked))
    assert blind["kind"] == "exact", "without users nothing can be judged"


def test_shards_hold_runs_of_the_items_each_in_a_file_of_its_own(tmp_path):
    vectors_ID, rows_I, users_QD = world()
    for folder, shards in ((tmp_path / "one", 1), (tmp_path / "three", 3), (tmp_path / "many", 99)):
        folder.mkdir()
        facts = build_index(vectors_ID[:7], rows_I[:7], folder, IndexConfig(shards=shards), users_QD)
        assert facts["shards"] == min(shards, 7), "no shard is empty"
        assert len(list(folder.glob("index*.faiss"))) == facts["shards"]
        assert {path.name for path in folder.iterdir()} >= {"index.faiss", "index_rows.parquet"}
    sizes = [path.stat().st_size for path in sorted((tmp_path / "three").glob("index*.faiss"))]
    assert max(sizes) - min(sizes) == vectors_ID[0].nbytes, "7 vectors in three: 3, 2 and 2"


def test_nothing_is_left_of_kinds_that_were_refused(tmp_path):
    vectors_ID, rows_I, users_QD = world()
    build_index(vectors_ID, rows_I, tmp_path, IndexConfig(exact_items=0, latency_ms=1e-6, shards=2), users_QD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index-001.faiss", "index.faiss", "index_rows.parquet"]


def test_what_is_added_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        IndexChanges.none(1).add(np.array([2, 2]), np.ones((2, 1), np.float32))
