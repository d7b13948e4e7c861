from __future__ import annotations

import polars as pl
import pytest

from kgrec import columns as c
from kgrec.errors import InputError
from kgrec.graph.review import ACCEPTED, CONFIDENCE, PROPOSALS_SCHEMA, PROPOSED, REJECTED, STATUS, LinkReview, link_id


def proposals(*links, confidence=0.5):
    rows = [
        (link_id("shop", *link), "shop", *link, True, False, link[0].upper(), link[1].split(".")[-1], link[2].upper(),
         -1.0, confidence - at / 10, "version 1", "2026-01-01T00:00:00+00:00")
        for at, link in enumerate(links)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=PROPOSALS_SCHEMA, orient="row")


LINKS = [("a", "film.genre", "g"), ("b", "film.genre", "h"), ("c", "maker", "m")]
IDS = [link_id("shop", *link) for link in LINKS]


@pytest.fixture
def review(tmp_path):
    made = LinkReview(tmp_path / "links")
    assert made.add(proposals(*LINKS)) == 3
    return made


def test_the_most_confident_come_first_with_their_status(review):
    assert review.listed()[c.ID].to_list() == IDS
    review.judge(IDS[:1], ACCEPTED, "ann", "I saw it")
    review.judge(IDS[1:2], REJECTED, "bob")
    table = review.listed()
    assert table[STATUS].to_list() == [ACCEPTED, REJECTED, PROPOSED]
    assert table["by"].to_list() == ["ann", "bob", None]
    assert table["note"].to_list() == ["I saw it", "", None]
    assert review.listed(status=REJECTED)[c.ID].to_list() == IDS[1:2]
    assert review.listed("genre")[c.ID].to_list() == review.listed("film.genre")[c.ID].to_list() == IDS[:2]
    with pytest.raises(InputError, match="did you mean 'genre'"):
        review.listed("genr")


def test_a_link_is_judged_once_unless_the_verdict_is_to_change(review):
    review.judge(IDS[:1], ACCEPTED, "ann")
    with pytest.raises(InputError, match="already accepted by ann") as error:
        review.judge([IDS[0], "nope", IDS[1]], REJECTED, "bob")
    assert len(error.value.problems) == 2
    assert list(review.verdicts()) == IDS[:1], "all or none"
    with pytest.raises(InputError, match="nothing is to be done"):
        review.judge(IDS[:1], ACCEPTED, "bob", change=True)
    review.judge(IDS[:1], REJECTED, "bob", change=True)
    assert review.verdicts()[IDS[0]].verdict == REJECTED
    assert review.accepted("shop").is_empty()
    with pytest.raises(InputError, match=f"did you mean {IDS[0]}"):
        review.judge([IDS[0][:-1] + "~"], ACCEPTED, "ann")


def test_verdicts_are_rows_that_only_get_more(review, tmp_path):
    path = tmp_path / "links" / "verdicts.jsonl"
    review.judge(IDS[:1], ACCEPTED, "ann")
    first = path.read_bytes()
    review.judge(IDS[:1], REJECTED, "bob", change=True)
    assert path.read_bytes().startswith(first)
    path.write_bytes(path.read_bytes() + b'{"id": "cut sh')  # a crash in the middle of a line
    review.judge(IDS[1:2], ACCEPTED, "ann")
    assert {one: said.verdict for one, said in review.verdicts().items()} == {IDS[0]: REJECTED, IDS[1]: ACCEPTED}


def test_proposing_again_renews_what_is_open_and_leaves_what_was_judged(review):
    review.judge(IDS[:1], REJECTED, "ann")
    assert review.add(proposals(*LINKS, ("d", "maker", "m"), confidence=0.9)) == 1
    confidence = dict(review.proposals().select(c.ID, CONFIDENCE).iter_rows())
    assert confidence[IDS[0]] == 0.5
    assert confidence[IDS[1]] == pytest.approx(0.8)
    assert len(confidence) == 4


def test_precision_is_that_of_the_judged_by_relation(review):
    assert [one["precision"] for one in review.precision()] == [None, None]
    review.judge(IDS[:1], ACCEPTED, "ann")
    review.judge(IDS[1:], REJECTED, "ann")
    genre, maker = review.precision()
    assert (genre["relation"], genre["links"], genre["accepted"], genre["rejected"]) == ("film.genre", 2, 1, 1)
    assert genre["precision"] == 0.5
    assert genre["mean_confidence"] == pytest.approx(0.45)
    assert maker["precision"] == 0.0


def test_only_the_graph_of_the_same_config_takes_what_was_accepted(review):
    review.judge(IDS, ACCEPTED, "ann")
    assert sorted(review.accepted("shop")[c.ID]) == sorted(IDS)
    assert review.accepted("another").is_empty()
