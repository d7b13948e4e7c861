from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kgrec.errors import InputError
from tests.data.ingesting import CLICKS, run, table

GRAPH = """@prefix e: <http://e/> . @prefix r: <http://www.w3.org/2000/01/rdf-schema#> .
e:1 r:label "The Heat" ; e:out "1995-05-01" ; e:is e:film . e:2 r:label "Heat" ; e:out "1986" ; e:is e:film .
e:3 r:label "Dawn" ; e:out "1990" ; e:is e:book . e:4 r:label "Dawn" ; e:out "1990" ; e:is e:film .
e:film r:label "Film" . e:book r:label "Book" .
"""
ITEMS = 'item,title,year\nx,"Heat, The",1995\ny,Dawn,1990\n'


def build(base: Path, **linking: Any) -> dict[str, Any]:
    for name, text in {"log.csv": CLICKS, "g.ttl": GRAPH, "i.csv": ITEMS}.items():
        (base / name).write_text(text)
    items = {"path": "i.csv", "features": ["year"]}
    return run(base, {"path": "log.csv"}, items=items, knowledge={"triples": ["g.ttl"], "linking": linking})


def links(base: Path) -> list[tuple[str, str]]:
    return table(base, "links").rows()


def test_names_years_and_types_make_links(tmp_path: Path) -> None:
    facts = build(tmp_path, item_year="year", entity_year="e:out", type_relation="e:is", types=["Film"])
    assert links(tmp_path) == [("x", "http://e/1"), ("y", "http://e/4")]
    assert facts["linking"] == {
        "sure": 2, "by_method": {"exact": 1, "normalised": 1}, "items_to_review": 0, "items_without_candidate": 0,
    }  # fmt: skip
    assert facts["links_given"] is True


def test_without_a_tie_breaker_the_unsure_ones_wait(tmp_path: Path) -> None:
    facts = build(tmp_path)
    assert links(tmp_path) == []
    assert facts["linking"]["items_to_review"] == 2
    found = table(tmp_path, "found_links")
    assert set(found["verdict"]) == {"review"}
    assert found.filter(found["item"] == "y").height == 2


def test_verdicts_enter_the_next_build(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("item,entity,verdict\nx,http://e/1,accept\nx,http://e/2,\ny,http://e/3,Reject\n")
    build(tmp_path, verdicts="v.csv", item_year="year", entity_year="http://e/out")
    assert links(tmp_path) == [("x", "http://e/1"), ("y", "http://e/4")]
    (tmp_path / "v.csv").write_text("item,entity,verdict\nx,http://e/1,perhaps\n")
    with pytest.raises(InputError, match="unknown verdict"):
        build(tmp_path, verdicts="v.csv")


def test_faults_of_linking_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no feature is called 'yaer'"):
        build(tmp_path, item_year="yaer")
    with pytest.raises(InputError, match="links by name need the items' titles"):
        run(tmp_path, {"path": "log.csv"}, knowledge={"triples": ["g.ttl"], "linking": {}})
