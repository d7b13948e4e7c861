from __future__ import annotations

import logging
import shutil

import numpy as np
import polars as pl
import pytest

import kgrec
from kgrec.artifacts import ArtifactStore
from kgrec.errors import ArtifactError, InputError
from kgrec.evaluation.ranking import ExcludeSeen, Target
from kgrec.serving import package, versions
from kgrec.serving.recommend import Version, load, open_version
from kgrec.serving.standing import Standing
from kgrec.serving.versions import VersionRecord
from kgrec.workspace import Workspace
from tests.serving.small_version import ITEM_VECTORS, make_parts, make_version


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ArtifactStore(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def version(store):
    return Version(make_version(store), "1")


def listed(answer):
    return list(zip(answer["item"], [round(score, 4) for score in answer["score"]], strict=True))


def test_a_trained_user_gets_the_nearest_unseen_items_ties_by_row(version):
    answer = version.recommend(["ann"], k=10)
    assert answer.columns == ["user", "item", "title", "score"]
    assert answer["user"].to_list() == ["ann"] * 3
    assert listed(answer) == [("f", 0.6), ("d", 0.0), ("e", 0.0)]
    assert answer["title"].to_list() == [None, "Film D", "Film E"]
    assert version.standing("ann") is Standing.TRAINED
    assert listed(version.recommend(["bob"], k=2)) == [("b", 0.8), ("c", 0.6)]


def test_a_user_after_training_is_placed_by_history_not_by_the_table(version):
    assert version.standing("cat") is Standing.HISTORY
    assert listed(version.recommend(["cat"], k=2)) == [("d", 1.0), ("b", 0.8)]  # e folds in as (0, 1, 0)


@pytest.mark.parametrize("user", ["nobody", "dan"])
def test_a_user_without_anything_gets_what_is_popular_and_the_log_says_so(version, caplog, user):
    assert version.standing(user) is Standing.POPULARITY
    with caplog.at_level(logging.INFO, logger="kgrec.serving.recommend"):
        answer = version.recommend([user], k=3, explain=True)
    assert listed(answer) == [("a", 0.4), ("b", 0.2), ("c", 0.2)]
    assert "popular" in caplog.text
    assert all("popular" in reason for reason in answer["reason"])


def test_a_history_that_says_nothing_falls_back_to_popularity(version):
    assert version.standing("eve") is Standing.POPULARITY
    assert version.recommend(["eve"], k=1)["item"].to_list() == ["a"]
    assert version.history("eve").rows() == [("gone", None)]


def test_popularity_leaves_out_what_the_user_had(store):
    version = Version(make_version(store))
    version._item_fold_ID[:] = 0.0
    assert version.standing("cat") is Standing.POPULARITY
    assert version.recommend(["cat"], k=10)["item"].to_list() == ["a", "b", "c", "d", "f"]


@pytest.mark.parametrize(
    ("exclude_seen", "target", "ann", "nobody_loses"),
    [
        (ExcludeSeen.ANY, Target.CONVERSION, ["f", "d", "e"], 6),
        (ExcludeSeen.TARGET, Target.CONVERSION, ["a", "b", "f", "d", "e"], 6),
        (ExcludeSeen.TARGET, Target.CLICK, ["f", "d", "e"], 6),
        (ExcludeSeen.NONE, Target.CLICK, ["a", "c", "b", "f", "d", "e"], 6),
    ],
)
def test_seen_items_are_left_out_as_configured(store, exclude_seen, target, ann, nobody_loses):
    version = Version(make_version(store, exclude_seen, target))
    assert version.recommend(["ann"], k=10)["item"].to_list() == ann
    assert version.recommend(["nobody"], k=10).height == nobody_loses


def test_an_item_that_left_the_catalogue_is_never_shown(version):
    answer = version.recommend(["ann", "bob", "cat", "dan", "eve", "nobody"], k=50)
    assert "gone" not in answer["item"].to_list()
    assert version.similar(["a"], k=50)["neighbour"].to_list() == ["c", "b", "f", "d", "e"]


def test_many_users_are_answered_in_their_order_each_as_alone(version):
    together = version.recommend(["bob", "nobody", "ann", "bob"], k=2)
    assert together["user"].to_list() == ["bob", "bob", "nobody", "nobody", "ann", "ann", "bob", "bob"]
    alone = [version.recommend([user], k=2) for user in ("bob", "nobody", "ann", "bob")]
    assert together.equals(pl.concat(alone))
    assert version.recommend([], k=2).height == 0
    assert version.recommend([], k=2, explain=True).columns[-1] == "reason"


def test_ids_may_come_as_numbers_or_with_blanks(version):
    assert listed(version.recommend([" ann "], k=1)) == [("f", 0.6)]
    assert version.recommend([5], k=1)["user"].to_list() == ["5"]


def test_reasons_name_the_shared_entities_or_the_nearest_item(version):
    reasons = dict(version.recommend(["ann"], k=3, explain=True).select("item", "reason").iter_rows())
    assert 'genre Comedy as in "Film A"' in reasons["f"]
    assert 'directed by Nora Ephron as in "Film B"' in reasons["f"]
    assert reasons["d"] == 'chosen by the same people as "Film B"'


def test_similar_leaves_the_item_itself_out(version):
    answer = version.similar(["a", "f"], k=2)
    assert answer.rows() == [
        ("a", "c", "Film C", pytest.approx(0.8)), ("a", "b", "Film B", pytest.approx(0.6)),
        ("f", "e", "Film E", pytest.approx(0.8)), ("f", "a", "Film A", pytest.approx(0.6)),
    ]  # fmt: skip


def test_every_unknown_item_is_named_with_the_nearest_id(version):
    with pytest.raises(InputError) as error:
        version.similar(["a", "aa", "zzz", "gone"])
    problems = error.value.problems
    assert [problem.where for problem in problems] == ["item aa", "item zzz", "item gone"]
    assert problems[0].remedy == "did you mean a?"
    assert problems[1].remedy == "name an item of the catalogue"
    assert "not in the catalogue" in problems[2].what


@pytest.mark.parametrize("item", ["gone", "gonne"])
def test_an_item_that_left_the_catalogue_is_no_proposal(version, item):
    with pytest.raises(InputError) as error:
        version.similar([item])
    assert "did you mean gone?" not in str(error.value)


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_has_at_least_one_place(version, k):
    for ask in (lambda: version.recommend(["ann"], k=k), lambda: version.similar(["a"], k=k)):
        with pytest.raises(InputError, match="ask for 1 or more"):
            ask()


def test_history_and_titles(version):
    assert version.history("ann").rows() == [("c", "Film C"), ("b", "Film B"), ("a", "Film A")]
    assert version.history("nobody").height == 0
    assert version.title_of("a") == "Film A"
    assert version.title_of("f") == "f"
    assert version.title_of("unheard of") == "unheard of"


def test_scores_of_users_come_from_the_table_or_the_given_history(version):
    histories = {"dan": np.array([4, 5]), "nobody": np.array([0]), "ann": np.array([4])}
    found = version.scores_of(pl.Series(["ann", "dan", "nobody", "cat"]), histories)
    vectors = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(found, vectors @ np.array(ITEM_VECTORS).T, atol=1e-6)


def test_scores_are_the_dot_products_of_the_vectors(version):
    answer = version.recommend(["bob"], k=10)
    rows = [version.items.entries.to_list().index(item) for item in answer["item"]]
    np.testing.assert_allclose(answer["score"], np.array(ITEM_VECTORS)[rows] @ [0, 1, 0], atol=1e-6)


def test_a_version_folder_can_be_moved_and_is_checked_when_opened(store, tmp_path):
    artifact = make_version(store)
    moved = tmp_path / "elsewhere"
    shutil.copytree(artifact.path, moved)
    assert open_version(moved).recommend(["ann"], k=1)["item"].to_list() == ["f"]
    for name in artifact.files:
        path = moved / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
            open_version(moved)
        path.write_bytes(whole)
    with pytest.raises(ArtifactError, match="'split' artifact where 'version' was expected"):
        open_version(make_parts(store)[0].path)


def test_parts_of_two_versions_do_not_mix(store):
    other = store.build("version", {"a": "b"}, {}, lambda out: _copy_with_other_vectors(make_version(store), out))[0]
    with pytest.raises(ArtifactError, match="built for another model"):
        Version(other)


def _copy_with_other_vectors(artifact, out):
    shutil.copytree(artifact.path, out, dirs_exist_ok=True)
    (out / "manifest.json").unlink()
    content = bytearray((out / package.VECTORS).read_bytes())
    content[-1] ^= 1
    (out / package.VECTORS).write_bytes(bytes(content))
    return artifact.facts


def test_loading_finds_the_promoted_version_or_the_named_one(tmp_path):
    place = Workspace(tmp_path)
    with pytest.raises(InputError, match="no version is promoted"):
        load(tmp_path)
    for exclude_seen in (ExcludeSeen.ANY, ExcludeSeen.NONE):
        key = make_version(place.store, exclude_seen).key
        record = VersionRecord("", "shop", key, "run", "2024-01-01T00:00:00+00:00", True, (), {})
        versions.register(place, record)
    versions.promote(place, "1", why="test")
    assert load(tmp_path).number == "1"
    assert load(tmp_path).recommend(["ann"], k=1)["item"].to_list() == ["f"]
    named = kgrec.load(tmp_path, version="2")
    assert named.number == "2"
    assert named.recommend(["ann"], k=1)["item"].to_list() == ["a"]
    with pytest.raises(InputError, match="version 7: unknown"):
        load(tmp_path, version="7")
