"""A promoted version whose graph grows: new items in the lists at once, everything old where it stood."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import kgrec
from kgrec import columns as c
from kgrec.chain.context import Run
from kgrec.chain.updating import update_graph
from kgrec.config import load_config
from kgrec.serving import package
from kgrec.workspace import Workspace
from tests import worlds
from tests.calling import as_json, call


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """The tiny config over its tables with one blues, one item that nothing is said of, and a new relation."""
    folder = tmp_path / "data"
    shutil.copytree(worlds.TINY.parent / "tiny", folder / "tiny")
    shutil.copyfile(worlds.TINY, folder / "tiny.toml")
    genre = pl.read_csv(folder / "tiny" / "triples.csv").filter(pl.col("relation") == "genre").row(0)[2]
    for name, lines in {
        "items": "new1,The Newest Blues,2024\nnew2,A Title Alone,2024\n", "links": "new1,enew1\nnew2,enew2\n",
        "triples": f"enew1,genre,{genre}\nenew1,label,records\ne00,label,records\n",
    }.items():  # fmt: skip
        path = folder / "tiny" / f"{name}.csv"
        path.write_text(path.read_text().rstrip("\n") + "\n" + lines)
    return folder / "tiny.toml"


def test_what_is_new_is_served_and_what_is_old_stands(tiny_copy: Path, grown: Path) -> None:
    before = kgrec.load(tiny_copy)
    said = as_json(call("graph", "update", grown, "--workspace", tiny_copy, "--json"))
    assert "error" not in said, said
    after = kgrec.load(tiny_copy)
    assert said["version"] == after.number != before.number
    assert (said["new_items"], said["new_relations"], said["new_entities"]) == (2, 1, 1)
    assert said["new_triples"] == 3
    assert 0.5 < said["old_vectors_agree"]["least"] <= said["old_vectors_agree"]["mean"] <= 1.0001

    old, new = before.items.entries, after.items.entries
    assert new.head(len(old)).equals(old), "old rows stand"
    assert set(new.tail(2)) == {"new1", "new2"}
    trained = before._item_fold_ID.shape[1]
    had = np.abs(before.item_vectors_ID[:, :trained]).sum(1) > 0
    assert np.array_equal(after.item_vectors_ID[: len(old)][had], before.item_vectors_ID[had])
    assert np.array_equal(after.user_vectors_UD, before.user_vectors_UD)
    relations = pl.read_parquet(after.artifact.file(package.RELATIONS))[c.ID]
    known = pl.read_parquet(before.artifact.file(package.RELATIONS))[c.ID]
    assert relations.head(len(known)).equals(known)

    assert after.titles[after.item_rows["new1"]] == "The Newest Blues"
    near = after.similar(["new1"], k=10)["neighbour"].to_list()
    genre_of = dict(
        pl.read_csv(grown.parent / "tiny" / "triples.csv").filter(relation="genre").select("head", "tail").rows()
    )
    entity_of = dict(pl.read_csv(grown.parent / "tiny" / "links.csv").rows())
    alike = [genre_of[entity_of[item]] == genre_of["enew1"] for item in near]
    assert np.mean(alike) > 0.5, "a quarter of all items are of its genre"
    assert not after.item_vectors_ID[after.item_rows["new2"]].any(), "nothing places it"
    users = before.users.entries.head(20).to_list()
    assert after.score(pl.DataFrame({"user": ["u00"], "item": ["new1"]})).height == 1
    assert after.explain(users[0], "new1")["title"] == "The Newest Blues"
    old_lists, new_lists = (
        {user: rows["item"].to_list() for (user,), rows in one.recommend(users, k=20).group_by("user")}
        for one in (before, after)
    )
    kept = [len(set(old_lists[u]) & set(new_lists[u])) for u in users]
    assert np.mean(kept) >= 17, "lists hold what they held, but for what came in between"


def test_again_changes_nothing_and_rollback_leads_back(tiny_copy: Path, grown: Path) -> None:
    first = as_json(call("graph", "update", grown, "--workspace", tiny_copy, "--json"))
    files = kgrec.load(tiny_copy).artifact.files
    again = as_json(call("graph", "update", grown, "--workspace", tiny_copy, "--json"))
    assert again["new_items"] == 0
    assert again["new_triples"] == 0
    assert again["old_vectors_agree"] == pytest.approx(first["old_vectors_agree"], abs=0.02)
    now = kgrec.load(tiny_copy).artifact.files
    assert now[package.VECTORS] == files[package.VECTORS]
    call("rollback", "--workspace", tiny_copy)
    call("rollback", "--workspace", tiny_copy)
    assert kgrec.load(tiny_copy).number == "1"
    assert "updated" in (Workspace(tiny_copy).audit).read_text()


def test_a_version_learned_again_is_updated_from_what_it_learned_from(tmp_path: Path) -> None:
    """Nothing is new: a propagation over the events of train and validation gives the vectors that are served."""
    overrides = ['tasks=["click","kg"]', "training.epochs=2", "training.refit=true", "gate.tolerance=0.9"]
    kgrec.run(worlds.TINY, tmp_path / "workspace", overrides=overrides)
    before = kgrec.load(tmp_path / "workspace")
    assert "refit" in before.artifact.inputs
    with (place := Workspace(tmp_path / "workspace")).hold("test"):
        said = update_graph(Run(load_config(worlds.TINY, overrides), place))
    assert said.facts["new_items"] == said.facts["new_triples"] == 0
    assert said.facts["old_vectors_agree"]["least"] > 0.9999
    after = kgrec.load(tmp_path / "workspace")
    assert after.number == said.version != before.number
    assert np.array_equal(after.user_vectors_UD, before.user_vectors_UD)


def test_what_an_update_says_is_no_longer_proposed(tiny_copy: Path, grown: Path) -> None:
    def proposed() -> list[dict[str, str]]:
        return as_json(call("links", "propose", "-k", "9", "--workspace", tiny_copy, "--json"))["links"]

    first = proposed()[0]
    entity_of = dict(pl.read_csv(grown.parent / "tiny" / "links.csv").rows())
    with (grown.parent / "tiny" / "triples.csv").open("a") as triples:
        triples.write(f"{entity_of[first['head']]},{first['relation']},{first['tail']}\n")
    assert call("graph", "update", grown, "--workspace", tiny_copy).exit_code == 0
    again = proposed()
    assert len(again) == 9
    assert first["id"] not in {one["id"] for one in again}
