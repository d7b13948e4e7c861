"""The round of a missing link: proposed, accepted by a person, in the next graph, marked, and never rejected twice."""

from __future__ import annotations

import json

import polars as pl
import pytest

from feature_store.catalog import VIEWS
from kgrec import columns as c
from kgrec.artifacts import ArtifactStore
from kgrec.chain.completing import learned_links, propose_links, with_accepted
from kgrec.chain.context import Run
from kgrec.config import load_config
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import InputError
from kgrec.graph.parts import keep_in_train
from kgrec.graph.paths import INFERRED
from kgrec.graph.review import ACCEPTED, PROPOSALS_SCHEMA, LinkReview, link_id
from kgrec.serving.package import RELATIONS
from kgrec.serving.recommend import load
from kgrec.stages import run_chain
from kgrec.workspace import Workspace
from tests import worlds
from tests.calling import as_json, call


def graph_of(workspace):
    return run_chain(Run(load_config(worlds.TINY), Workspace(workspace), VIEWS), until="graph")


def named(graph):
    """Return the triples of a graph in ids, with part and source."""
    ids = pl.read_parquet(graph.file("nodes.parquet"))[c.ID]
    relations = Vocabulary.load(graph.file(RELATIONS)).entries
    triples = pl.read_parquet(graph.file("triples.parquet"))
    return {
        (ids[head], relations[relation], ids[tail]): (part, source)
        for head, relation, tail, part, source in triples.select(
            c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW, c.PART, c.SOURCE
        ).iter_rows()
    }


def test_the_whole_round(tiny_copy):
    before = graph_of(tiny_copy)
    said = as_json(call("links", "propose", "-k", "12", "--workspace", tiny_copy, "--json"))
    assert (said["proposed"], said["new"], said["model"]) == (12, 12, "version 1")
    known = named(before)
    links = {one["id"]: (one["head"], one["relation"], one["tail"]) for one in said["links"]}
    assert not set(links.values()) & set(known), "what the graph says is no proposal, whatever its part"
    first, second, third, *_ = links
    accepted = call("links", "accept", first, second, "--by", "ann", "--workspace", tiny_copy, "--json")
    assert [one["by"] for one in as_json(accepted)["verdicts"]] == ["ann", "ann"]
    assert call("links", "reject", third, "--workspace", tiny_copy).exit_code == 0
    after = graph_of(tiny_copy)
    fresh = {triple: said for triple, said in named(after).items() if triple not in known}
    assert fresh == {links[first]: (c.TRAIN, ACCEPTED), links[second]: (c.TRAIN, ACCEPTED)}
    assert {triple: said for triple, said in named(after).items() if triple in known} == known, "no other part changed"
    assert after.facts["links_accepted"] == 2
    again = as_json(call("links", "propose", "-k", "12", "--workspace", tiny_copy, "--json"))
    assert not {first, second, third} & {one["id"] for one in again["links"]}
    listed = as_json(call("links", "list", "--status", "accepted", "--workspace", tiny_copy, "--json"))
    assert {one["id"] for one in listed["links"]} == {first, second}
    assert sum(one["accepted"] for one in listed["relations"]) == 2
    assert sum(one["rejected"] for one in listed["relations"]) == 1
    plain = call("links", "list", "--workspace", tiny_copy)
    assert "accepted by" in plain.stdout
    assert "How often the model was right" in plain.stdout
    refused = call("links", "accept", third, "--workspace", tiny_copy, "--json")
    assert refused.exit_code == 2
    assert "already rejected" in json.loads(refused.stdout)["error"]["message"]


def test_an_accepted_link_is_marked_in_what_is_served(tiny_copy):
    place = Workspace(tiny_copy)
    one = propose_links(place, 40, "genre").proposals.row(0, named=True)
    LinkReview(place.links).judge([one[c.ID]], ACCEPTED, "ann")
    result = run_chain(Run(load_config(worlds.TINY), place, VIEWS, reports={}))
    version = load(tiny_copy, result.released.version)
    item, genre = version.item_rows[one[c.HEAD]], one["tail_name"]
    others = [row for row in range(len(version.items)) if row != item]
    (path,) = [path for path in version.paths.paths(item, others, 99) if version.paths.name(path.via[0]) == genre]
    assert path.inferred
    assert INFERRED in version.paths.sentence(path)
    assert len([step for step in (*path.steps, *path.ends) if step.inferred]) == 1


def test_relations_are_named_by_id_or_words_and_unknown_ones_have_a_nearest(tiny_copy):
    place = Workspace(tiny_copy)
    found = propose_links(place, 5, "genre")
    assert set(found.proposals[c.RELATION]) == {"genre"}
    with pytest.raises(InputError, match="did you mean 'genre'"):
        propose_links(place, 5, "gener")


def test_a_workspace_without_a_model_of_links_says_so(tmp_path):
    with pytest.raises(InputError, match="no trained model"):
        learned_links(Workspace(tmp_path))
    store = ArtifactStore(tmp_path / "artifacts")
    graph, _ = store.build("graph", {}, {"name": "shop"}, lambda out: {})
    store.build("train", {"graph": graph.digest}, {}, lambda out: {"tasks": ["click"]})
    with pytest.raises(InputError, match="learned no links"):
        learned_links(Workspace(tmp_path))


def accept(place, *links):
    rows = [
        (link_id("shop", *link[:3]), "shop", *link, "", "", "", 0.0, 0.5, "version 1", "2026-01-01") for link in links
    ]
    review = LinkReview(place.links)
    review.add(pl.DataFrame(rows, schema=PROPOSALS_SCHEMA, orient="row"))
    review.judge([row[0] for row in rows], ACCEPTED, "ann")


def test_ends_that_are_items_become_their_entities_and_what_has_none_is_counted(tmp_path):
    place = Workspace(tmp_path)
    accept(
        place, ("i1", "genre", "g1", True, False), ("m", "made", "i2", False, True), ("m", "made", "i9", False, True)
    )
    triples = pl.DataFrame(schema={**c.TRIPLES_SCHEMA, c.PART: c.PART_TYPE})
    links = pl.DataFrame({c.ITEM: ["i1", "i2"], c.ENTITY: ["e1", "e2"]})
    rows, facts = with_accepted(place, "shop", triples, links)
    told = sorted(rows.select(c.HEAD, c.HEAD_IS_ITEM, c.TAIL, c.SOURCE, c.PART).iter_rows())
    assert told == [("i1", True, "g1", ACCEPTED, c.TRAIN), ("m", False, "e2", ACCEPTED, c.TRAIN)]
    assert facts == {"links_accepted": 2, "links_accepted_left_out": 1}
    assert with_accepted(place, "shop", triples, None)[0].height == 3
    assert with_accepted(place, "another", triples, links) == (triples, {})


def test_an_accepted_link_neither_judges_the_model_nor_shows_it_a_held_out_pair():
    rows = [(0, 1, "file", c.TRAIN), (2, 3, ACCEPTED, c.TEST), (4, 5, "file", c.TEST), (5, 4, ACCEPTED, c.TEST)]
    schema = {c.HEAD_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE, c.SOURCE: pl.String, c.PART: c.PART_TYPE}
    parted = keep_in_train(pl.DataFrame(rows, schema=schema, orient="row"), ACCEPTED)
    assert parted[c.PART].to_list() == [c.TRAIN, c.TRAIN, c.TEST, c.TEST]
