from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from kgrec.columns import TRIPLES_SCHEMA
from kgrec.data.knowledge import KnowledgeConfig
from kgrec.data.rdf import RDFS_LABEL
from kgrec.errors import InputError
from tests.data.ingesting import CLICKS, run, table


def build(base: Path, files: dict[str, str], split_column: str | None = None, **knowledge: Any) -> dict[str, Any]:
    for name, text in {"log.csv": CLICKS, **files}.items():
        (base / name).write_text(text)
    return run(base, {"path": "log.csv"}, knowledge=knowledge, split_column=split_column)


def test_tables_and_rdf_become_one_list(tmp_path: Path) -> None:
    facts = build(
        tmp_path,
        {
            "a.tsv": "tail\thead\trelation\n1\tx\tby\n2\ty\tby\n",
            "b.csv": "head,relation,tail\nx,by,1\nx,in,3\n",
            "c.nt": f'<http://x> <http://by> <http://z> .\n<http://x> <{RDFS_LABEL}> "The X" .\n',
        },
        triples=["a.tsv", "b.csv", "*.nt"],
    )
    found = table(tmp_path, "triples")
    assert dict(found.schema) == TRIPLES_SCHEMA
    assert found.drop("weight", "known_at").rows() == [
        ("x", "by", "1", "a.tsv", False),
        ("y", "by", "2", "a.tsv", False),
        ("x", "in", "3", "b.csv", False),
        ("http://x", "http://by", "http://z", "c.nt", False),
    ]
    assert facts["triples_repeated"] == 1
    assert facts["triples"] == 4
    assert table(tmp_path, "labels").rows() == [("http://x", "The X")]


def test_a_triple_twice_in_one_file_is_a_bad_row(tmp_path: Path) -> None:
    files = {
        "a.csv": "head,relation,tail,source\nx,by,1,p\nx,by,1,q\n",
        "b.nt": "<http://x> <http://y> <http://z> .\n" * 3,
    }
    with pytest.raises(InputError) as caught:
        build(tmp_path, files, triples=["a.csv", "b.nt"])
    assert "a.csv: duplicate row (1 time)\n  example: a.csv line 2:" in str(caught.value)
    assert "b.nt: duplicate row (2 times)" in str(caught.value)
    facts = build(tmp_path, files, triples=["a.csv", "b.nt"], tolerated=0.7)
    assert facts["quarantined"] == {"duplicate row": 3}


def test_a_statement_in_two_named_graphs_is_no_fault(tmp_path: Path) -> None:
    quads = "".join(f"<http://x> <http://y> <http://z> <http://{graph}> .\n" for graph in "gh")
    facts = build(tmp_path, {"a.nq": quads}, triples=["a.nq"])
    assert (facts["triples"], facts["triples_repeated"]) == (1, 1)
    others = "<http://x> <http://y> <http://w> .\n<http://x> <http://y> <http://v> _:blank .\n"
    build(tmp_path, {"a.nq": others + quads}, triples=["a.nq"])
    assert table(tmp_path, "triples")["source"].to_list() == ["a.nq", "a.nq", "a.nq <http://g>"]


def test_the_split_column_of_triples(tmp_path: Path) -> None:
    files = {
        "a.csv": "head,relation,tail,fold\nx,r,1,train\nx,r,2,dev\nx,r,3,test\n",
        "b.csv": "head,relation,tail\nx,r,4\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    run(tmp_path, knowledge={"triples": ["a.csv", "b.csv"]}, split_column="fold")
    assert table(tmp_path, "triples")["part"].to_list() == ["train", "validation", "test", "train"]
    with pytest.raises(InputError, match="no table of triples has the column 'flod'"):
        run(tmp_path, knowledge={"triples": ["a.csv"]}, split_column="flod")


def test_cells_become_triples_of_items(tmp_path: Path) -> None:
    pl.DataFrame(
        {
            "item": [1, 2, 3],
            "genres": ["a b|c", " |c|c", None],
            "words": ["p  q", " ", ""],
            "year": [1999.0, None, 2000.5],
            "tags": [["t", "u"], [], None],
        }
    ).write_parquet(tmp_path / "items.parquet")
    relations = {"genres": {"separator": "|"}, "words": {"separator": ""}, "year": {}, "tags": {}}
    facts = build(tmp_path, {}, tables=[{"path": "items.parquet", "relations": relations}])
    found = table(tmp_path, "triples")
    assert found.select("head", "tail").rows() == [
        ("1", "genres:a b"), ("1", "genres:c"), ("2", "genres:c"), ("1", "words:p"), ("1", "words:q"),
        ("1", "year:1999"), ("3", "year:2000.5"), ("1", "tags:t"), ("1", "tags:u"),
    ]  # fmt: skip
    assert found["head_is_item"].all()
    assert set(found["source"]) == {"items.parquet"}
    assert facts["blank_cells"] == 1 + 2 + 1 + 2
    assert facts["triples_repeated"] == 1
    assert ("genres:a b", "a b") in table(tmp_path, "labels").rows()
    assert table(tmp_path, "items")["item"].to_list() == ["x", "y", "1", "2", "3"]


def test_labels_of_the_file_come_first(tmp_path: Path) -> None:
    files = {
        "l.csv": "entity,label\n1,One\n1,Uno\nhttp://x,Mine\n",
        "c.nt": f'<http://x> <{RDFS_LABEL}> "The X" .\n<http://w> <{RDFS_LABEL}> "W" .\n',
    }
    build(tmp_path, files, labels="l.csv", triples=["c.nt"])
    assert table(tmp_path, "labels").rows() == [("1", "One"), ("http://x", "Mine"), ("http://w", "W")]


TRIPLES = "head,relation,tail\ne1,by,p\ne2,by,p\ne3,by,q\n"


def test_links_bring_in_cold_items_that_nobody_contests(tmp_path: Path) -> None:
    files = {"t.csv": TRIPLES, "links.csv": "item,entity\nx,e1\ncold,e2\n"}
    facts = build(tmp_path, files, triples=["t.csv"], links="links.csv")
    assert table(tmp_path, "items")["item"].to_list() == ["x", "y", "cold"]
    assert table(tmp_path, "links").rows() == [("x", "e1"), ("cold", "e2")]
    assert (facts["cold_items"], facts["links_given"]) == (1, True)


@pytest.mark.parametrize("link", ["ghost,e9", "ghost,e1", "ghost,e2\nghost2,e2"])
def test_links_to_items_that_do_not_exist(tmp_path: Path, link: str) -> None:
    files = {"t.csv": TRIPLES, "links.csv": f"item,entity\nx,e1\n{link}\n"}
    with pytest.raises(InputError, match="link to an item that does not exist") as caught:
        build(tmp_path, files, triples=["t.csv"], links="links.csv")
    assert "links.csv line 2" in str(caught.value)
    facts = build(tmp_path, files, triples=["t.csv"], links="links.csv", tolerated=0.7)
    assert facts["items"] == 2
    assert table(tmp_path, "links").rows() == [("x", "e1")]


def test_without_links_an_item_is_its_entity(tmp_path: Path) -> None:
    facts = build(tmp_path, {"t.csv": TRIPLES}, triples=["t.csv"])
    assert table(tmp_path, "links").rows() == [("x", "x"), ("y", "y")]
    assert facts["links_given"] is False


def test_dates_nested_lists_and_numbers(tmp_path: Path) -> None:
    pl.DataFrame(
        {
            "item": ["x", "y"],
            "out": ["1999-05-03", "2001"],
            "cast": [[["ann", "bob"], ["cid"]], [[], None]],
            "price": ["9.5", " "],
        }
    ).write_parquet(tmp_path / "items.parquet")
    relations = {"out": {"date": "decade"}, "cast": {}, "price": {"bins": 3}}
    facts = build(tmp_path, {}, tables=[{"path": "items.parquet", "relations": relations}])
    assert table(tmp_path, "triples").select("head", "tail").rows() == [
        ("x", "out:1990s"), ("y", "out:2000s"), ("x", "cast:ann"), ("x", "cast:bob"), ("x", "cast:cid"),
    ]  # fmt: skip
    assert table(tmp_path, "numbers").select("head", "relation", "value", "bins").rows() == [("x", "price", 9.5, 3)]
    assert (facts["numbers"], facts["blank_cells"], facts["unreadable_cells"]) == (1, 2, 0)


@pytest.mark.parametrize(
    ("keep", "expected"), [("year", "1999"), ("month", "1999-05"), ("decade", "1990s"), ("weekday", "Monday")]
)
def test_what_is_kept_of_a_date(tmp_path: Path, keep: str, expected: str) -> None:
    (tmp_path / "i.csv").write_text("item,out\nx,1999-05-03T12:00:00Z\n")
    build(tmp_path, {}, tables=[{"path": "i.csv", "relations": {"out": {"date": keep}}}])
    assert table(tmp_path, "labels")["label"].to_list() == [expected]


def test_a_cell_that_is_no_number_or_date_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text("item,out,price\nx,soon,9\ny,1999,cheap\n")
    tables = [{"path": "i.csv", "relations": {"out": {"date": "year"}, "price": {"bins": 2}}}]
    with pytest.raises(InputError) as caught:
        build(tmp_path, {}, tables=tables)
    assert "relations.out: a value that is no date (1 time)\n  example: x: 'soon'" in str(caught.value)
    assert "relations.price: a value that is no number (1 time)\n  example: y: 'cheap'" in str(caught.value)
    assert build(tmp_path, {}, tables=tables, tolerated=0.5)["unreadable_cells"] == 2


def test_literals_of_rdf_become_relations_where_the_config_names_them(tmp_path: Path) -> None:
    text = '@prefix e: <http://e/> . e:x e:year 1999 ; e:mood "dark" , "düster"@de . e:y e:year 2005 .'
    facts = build(tmp_path, {"a.ttl": text}, triples=["a.ttl"], attributes={"e:mood": {}, "e:year": {"bins": 2}})
    assert table(tmp_path, "triples").select("head", "relation", "tail").rows() == [
        ("http://e/x", "e:mood", "e:mood:dark")
    ]
    assert table(tmp_path, "numbers")["value"].to_list() == [1999, 2005]
    assert facts["attributes"] == 3
    assert facts["attributes_in_other_languages"] == 1
    assert facts["prefixes"] == {"e": "http://e/"}
    with pytest.raises(InputError, match="no literal of an RDF file has this property"):
        build(tmp_path, {}, triples=["a.ttl"], attributes={"e:yeer": {}})


def test_the_languages_of_labels_and_attributes_are_those_of_the_config(tmp_path: Path) -> None:
    name = f'<{RDFS_LABEL}> "Film"@en , "Der Film"@de'
    text = f'@prefix e: <http://e/> . e:x e:by e:y ; {name} ; e:mood "dark"@en , "düster"@de .'
    for languages, label, moods in (
        (["en"], "Film", ["dark"]), (["de"], "Der Film", ["düster"]), (["de", "en"], "Der Film", ["dark", "düster"])
    ):  # fmt: skip
        facts = build(tmp_path, {"a.ttl": text}, triples=["a.ttl"], languages=languages, attributes={"e:mood": {}})
        assert table(tmp_path, "labels").filter(entity="http://e/x")["label"].to_list() == [label]
        found = table(tmp_path, "triples").filter(relation="e:mood")["tail"].to_list()
        assert sorted(found) == [f"e:mood:{mood}" for mood in moods]
        assert facts["attributes_in_other_languages"] == 2 - len(moods)


def test_weight_and_known_at_are_read(tmp_path: Path) -> None:
    text = "head,relation,tail,weight,known_at,w2\nx,by,1,0.5,2024-01-02,7\nx,by,2,,,\n"
    build(tmp_path, {"t.csv": text}, triples=["t.csv"])
    found = table(tmp_path, "triples")
    assert found["weight"].to_list() == [0.5, 1.0]
    assert [None if at is None else at.isoformat() for at in found["known_at"]] == ["2024-01-02T00:00:00+00:00", None]
    build(tmp_path, {}, triples=["t.csv"], weight="w2", known_at="none")
    found = table(tmp_path, "triples")
    assert found["weight"].to_list() == [7.0, 1.0]
    assert found["known_at"].null_count() == 2
    bad = "head,relation,tail,weight,known_at\nx,by,1,0,2024-01-02\nx,by,2,1,someday\n"
    with pytest.raises(InputError) as caught:
        build(tmp_path, {"t.csv": bad}, triples=["t.csv"])
    assert "weight that is no number above 0 (1 time)" in str(caught.value)
    assert "unreadable known_at (1 time)" in str(caught.value)


def test_two_tables_may_not_cut_one_relation_into_different_bins():
    def tables(*bins):
        return [{"path": f"{place}.csv", "relations": {"price": {"bins": many}}} for place, many in enumerate(bins)]

    with pytest.raises(ValueError, match="cut the relation `price` into bins of 4 and 8: give both one number"):
        KnowledgeConfig(tables=tables(8, 4))
    assert len(KnowledgeConfig(tables=tables(4, 4)).tables) == 2
