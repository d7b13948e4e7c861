from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.graph.linking import FOUND_SCHEMA, LinkingConfig, find_links
from kgrec.graph.titles import normal_form, read_title


def link(items, entities, verdicts=None, **config):
    known = pl.DataFrame(items, schema={"item": pl.String, "title": pl.String, "year": pl.Int64}, orient="row")
    named = pl.DataFrame(entities, schema={"entity": pl.String, "label": pl.String, "year": pl.Int64}, orient="row")
    found = find_links(known, named, LinkingConfig(**config), verdicts or {})
    assert found.schema == FOUND_SCHEMA
    return {(row["item"], row["entity"]): (row["verdict"], row["method"]) for row in found.iter_rows(named=True)}


@pytest.mark.parametrize(
    ("title", "label", "method"),
    [
        ("Heat", "Heat", "exact"),
        ("Usual Suspects, The", "the usual suspects!", "normalised"),
        ("Misérables, Les", "LES MISERABLES", "normalised"),
        ("Seven (Se7en)", "Se7en", "normalised"),
        ("Heat", "Heat (film)", "normalised"),
        ("Shawshank Redemption, The", "The Shawshenk Redemption", "fuzzy"),
    ],
)
def test_what_is_alike_is_found_and_sure_with_the_year(title, label, method):
    assert link([("i", title, 1995)], [("x", "Other Thing", 1995), ("e", label, 1995)]) == {
        ("i", "e"): ("sure", method)
    }


def test_only_the_methods_asked_for_are_used():
    items, entities = (
        [("i", "Usual Suspects, The", 1995)],
        [("e", "The Usual Suspects", 1995), ("f", "Usual Suspect", 1995)],
    )
    assert link(items, entities, methods=("exact",)) == {}
    assert link(items, entities, methods=("normalised",)) == {("i", "e"): ("sure", "normalised")}
    assert ("i", "f") in link(items, entities)


def test_the_year_tells_a_film_from_its_remake():
    remake = [("new", "Psycho", 1998), ("old", "Psycho", 1960)]
    assert link([("i", "Psycho", 1960)], remake) == {("i", "old"): ("sure", "exact")}
    assert link([("i", "Psycho (1998)", None)], remake)["i", "new"] == ("sure", "normalised")
    unsure = link([("i", "Psycho", None)], remake)
    assert {verdict for verdict, _ in unsure.values()} == {"review"}
    assert len(unsure) == 2
    assert link([("i", "Psycho", 1960)], remake[:1]) == {}, "the remake alone is no candidate"


def test_a_sequel_is_not_its_first_part():
    found = link([("i", "Rocky III", 1982)], [("two", "Rocky II", 1982), ("three", "Rocky 3", 1982)])
    assert found == {("i", "three"): ("sure", "normalised")}


def test_a_misspelt_title_without_a_year_goes_to_review():
    assert link([("i", "Shawshank Redemption", None)], [("e", "Shawshenk Redemption", 1994)]) == {
        ("i", "e"): ("review", "fuzzy")
    }


def test_two_items_that_claim_one_entity_equally_go_to_review():
    twins = [("a", "Ulee's Gold", 1997), ("b", "Ulee's Gold", 1997)]
    assert {v for v, _ in link(twins, [("e", "Ulee's Gold", 1997)]).values()} == {"review"}
    better = [("a", "Ulee's Gold", 1997), ("b", "Ulees Gold", 1997)]
    found = link(better, [("e", "Ulee's Gold", 1997)])
    assert (found["a", "e"][0], found["b", "e"][0]) == ("sure", "review")


def test_thresholds_and_margin_decide():
    items, entities = [("i", "Heat", 1995)], [("e", "Heat", 1996)]
    assert link(items, entities)["i", "e"][0] == "sure"
    assert link(items, entities, sure=0.99)["i", "e"][0] == "review"
    assert link(items, entities, sure=1.0, unsure=0.99) == {}
    close = [("e", "Heat", 1995), ("f", "Heat", 1996)]
    assert link(items, close, margin=0.01)["i", "e"][0] == "sure"
    assert link(items, close, margin=0.1)["i", "e"][0] == "review"


def test_a_persons_word_is_final():
    items, entities = [("i", "Heat", 1995), ("j", "Dawn", 1990)], [("e", "Heat", 1995), ("f", "Heat (album)", 1995)]
    found = link(items, entities, {("i", "e"): "reject", ("j", "e"): "accept"})
    assert ("i", "e") not in found
    assert found["j", "e"] == ("sure", "person")
    assert found["i", "f"][0] == "sure"
    assert link(items, entities, {("i", "f"): "accept"}) == {("i", "f"): ("sure", "person")}


def test_an_item_without_a_title_finds_nothing():
    assert link([("i", None, 1995)], [("e", "None", 1995)]) == {}


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_a_normal_form_is_its_own_normal_form(text):
    form = normal_form(text)
    assert form == form.casefold() or not form
    assert len(normal_form(form).split()) <= len(form.split())
    assert read_title(text).forms
