from __future__ import annotations

import polars as pl
import pytest
from safetensors.numpy import load_file

from kgrec.artifacts import ArtifactStore, load_artifact
from kgrec.evaluation.ranking import ExcludeSeen, Target
from kgrec.serving import package
from kgrec.serving.recommend import open_version
from tests.serving.small_version import ITEMS, make_parts, make_version


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path)


def seen_pairs(version):
    history = pl.read_parquet(version.file(package.HISTORY))
    return set(history.filter(package.SEEN).select("user_row", "item_row").iter_rows())


def test_a_version_stands_alone(store):
    version = make_version(store)
    assert set(version.files) == {
        package.USERS, package.ITEMS, package.ENTITIES, package.RELATIONS, package.VECTORS, package.HISTORY,
        package.CATALOGUE, package.TRAINED_USERS, package.GRAPH_TRIPLES, package.GRAPH_NODES, "index.faiss",
        "index_rows.parquet",
    }  # fmt: skip
    assert not any(path.is_symlink() for path in version.path.rglob("*"))
    assert version.facts["name"] == "shop"


def test_copied_files_are_equal_and_the_binding_comes_along(store):
    log, graph, trained, index = make_parts(store)
    version = make_version(store)
    assert version.files[package.VECTORS] == trained.files[package.VECTORS] == version.facts["bound_to"]["model"]
    assert version.files["index.faiss"] == index.files["index.faiss"]
    assert version.files[package.GRAPH_TRIPLES] == graph.files["triples.parquet"]
    assert version.files[package.ITEMS] == log.files[package.ITEMS]


def test_the_history_is_of_every_part_once_per_pair_by_the_last_time(store):
    history = pl.read_parquet(make_version(store).file(package.HISTORY))
    assert list(history.select("user_row", "item_row").iter_rows()) == [
        (0, 2), (0, 1), (0, 0), (1, 3), (1, 0), (2, 4), (4, 6),
    ]  # fmt: skip
    assert history["time"].max().day == 8


@pytest.mark.parametrize(
    ("exclude_seen", "target", "left"),
    [
        (ExcludeSeen.ANY, Target.CONVERSION, {(0, 2), (0, 0), (0, 1), (1, 3), (1, 0), (2, 4), (4, 6)}),
        (ExcludeSeen.TARGET, Target.CONVERSION, {(0, 2), (1, 0)}),
        (ExcludeSeen.TARGET, Target.CLICK, {(0, 2), (0, 0), (0, 1), (1, 3), (1, 0), (2, 4), (4, 6)}),
        (ExcludeSeen.NONE, Target.CLICK, set()),
    ],
)
def test_what_counts_as_seen_follows_the_config(store, exclude_seen, target, left):
    assert seen_pairs(make_version(store, exclude_seen, target)) == left


def test_only_users_of_train_events_are_trained(store):
    trained = load_file(make_version(store).file(package.TRAINED_USERS))["trained_U"]
    assert trained.tolist() == [1, 1, 0, 0, 0]


def test_popularity_is_the_share_of_users_and_the_gone_item_is_no_part_of_the_catalogue(store):
    catalogue = pl.read_parquet(make_version(store).file(package.CATALOGUE))
    assert catalogue["item_row"].to_list() == list(range(6))
    assert catalogue[package.POPULARITY].to_list() == pytest.approx([0.4, 0.2, 0.2, 0.2, 0.2, 0.0])
    assert len(ITEMS) == 7


def test_two_writings_are_equal_byte_for_byte(tmp_path):
    first, second = (make_version(ArtifactStore(tmp_path / name)) for name in ("one", "two"))
    assert first.files == second.files
    assert first.digest == second.digest
    load_artifact(second.path, "version")


def test_all_shards_of_an_index_come_along_and_answer(store):
    whole, cut = (open_version(make_version(store, shards=shards).path) for shards in (1, 3))
    assert {"index.faiss", "index-001.faiss", "index-002.faiss"} <= set(cut.artifact.files)
    asked = whole.users.entries.to_list()
    assert cut.recommend(asked, k=4).equals(whole.recommend(asked, k=4))
