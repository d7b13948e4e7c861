from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from kgrec.data.rdf import LABEL_PROPERTIES, RDFS_LABEL, is_rdf, read_rdf
from kgrec.errors import InputError

TURTLE = f"""@prefix e: <http://e/> .
e:film e:by e:ann , [ e:part e:crew ] ;
  <{RDFS_LABEL}> "Der Film"@de , "The Film"@en , "A Film" ;
  e:year 1999 .
_:x e:by e:ann .
"""


def test_turtle(tmp_path: Path) -> None:
    path = tmp_path / "own.ttl"
    path.write_text(TURTLE)
    found = read_rdf(path, "own.ttl")
    rows = {(row[0], row[1], row[2]) for row in found.triples.iter_rows()}
    nodes = {end for row in rows for end in (row[0], row[2]) if end.startswith("_:")}
    assert len(nodes) == 2
    assert all(re.fullmatch(r"_:own\.ttl:[0-9a-f]{16}", node) for node in nodes)
    assert ("http://e/film", "http://e/by", "http://e/ann") in rows
    assert len(rows) == 4
    assert found.labels.rows() == [("http://e/film", "The Film")]
    assert found.attributes.rows() == [("http://e/film", "http://e/year", "1999", "", "own.ttl")]
    assert found.prefixes == {"e": "http://e/"}
    assert read_rdf(path, "own.ttl").triples.equals(found.triples)


def test_blank_nodes_keep_their_names_when_lines_are_added_or_moved(tmp_path: Path) -> None:
    lines = [
        "_:b1 <http://p> <http://b> .",
        '_:b1 <http://q> "v" .',
        "<http://a> <http://p> _:b2 .",
        "_:b2 <http://p> _:b1 .",
    ]
    twins = ["_:t1 <http://same> <http://c> .", "_:t2 <http://same> <http://c> ."]

    def names(text: list[str]) -> set[str]:
        (tmp_path / "a.nt").write_text("\n".join(text) + "\n")
        triples = read_rdf(tmp_path / "a.nt", "a.nt").triples
        return {end for end in (*triples["head"], *triples["tail"]) if end.startswith("_:")}

    first = names(lines)
    assert len(first) == 2
    assert names(lines[::-1]) == first
    assert names(["_:new <http://p> <http://z> .", *[line.replace("_:b", "_:other") for line in lines]]) > first
    changed = names([*lines, '_:b2 <http://q> "more" .'])
    assert len(changed) == 2
    assert changed != first
    assert len(names(twins)) == 2, "equal to the eye and still two"


def test_languages_are_chosen(tmp_path: Path) -> None:
    (tmp_path / "a.ttl").write_text(
        f"""@prefix e: <http://e/> .
        e:x <{LABEL_PROPERTIES[1]}> "Pref"@de ; <{RDFS_LABEL}> "X"@en-GB , "iks"@de-AT, "plain" ;
            e:plot "a story"@en , "eine Geschichte"@de , "untold" ; e:year 1999 ."""
    )

    def read(*languages: str) -> tuple[str, list[str], int]:
        found = read_rdf(tmp_path / "a.ttl", "a.ttl", languages)
        return found.labels["label"].item(), found.attributes["value"].to_list(), found.other_languages

    assert read("en", "") == ("X", ["a story", "untold", "1999"], 1)
    assert read("", "en") == ("plain", ["a story", "untold", "1999"], 1)
    assert read("de") == ("iks", ["eine Geschichte", "untold", "1999"], 1)
    assert read("de", "en") == ("iks", ["a story", "eine Geschichte", "untold", "1999"], 0)
    assert read("fr") == ("plain", ["untold", "1999"], 2)


@pytest.mark.parametrize("name", ["a.nt", "a.nt.gz", "a.ttl.gz", "a.nq"])
def test_every_format(tmp_path: Path, name: str) -> None:
    text = b'<http://a> <http://p> <http://b> .\n_:n <http://p> <http://b> .\n<http://a> <http://p> "v" .\n'
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert is_rdf(name)
    found = read_rdf(tmp_path / name, name)
    assert found.triples.rows() == [
        ("http://a", "http://p", "http://b", ""),
        (found.triples["head"][1], "http://p", "http://b", ""),
    ]
    assert found.triples["head"][1].startswith(f"_:{name}:")
    assert found.attributes["value"].to_list() == ["v"]
    assert found.labels.height == 0


def test_a_label_without_a_language_beats_a_foreign_one_only(tmp_path: Path) -> None:
    lines = [f'<http://{e}> <{RDFS_LABEL}> "{text}" .' for e, text in (("a", "one"), ("a", "two"), ("b", " "))]
    (tmp_path / "a.nt").write_text("\n".join([f'<http://a> <{RDFS_LABEL}> "eins"@de .', *lines]))
    found = read_rdf(tmp_path / "a.nt", "a.nt")
    assert found.labels.rows() == [("http://a", "one")]
    assert found.attributes.is_empty()


def test_faults_say_the_line(tmp_path: Path) -> None:
    good = "<http://a> <http://p> <http://b> .\n"
    (tmp_path / "a.nt").write_text(good * 2 + "<http://a> broken .\n")
    (tmp_path / "u.nt").write_bytes(good.encode() + b'<http://a> <http://p> "\xff" .\n')
    (tmp_path / "c.nt.gz").write_bytes(gzip.compress(good.encode() * 9999)[:-30])
    with pytest.raises(InputError, match=r"a\.nt: broken RDF at line 3"):
        read_rdf(tmp_path / "a.nt", "a.nt")
    with pytest.raises(InputError, match=r"u\.nt: broken RDF at line 2"):
        read_rdf(tmp_path / "u.nt", "u.nt")
    with pytest.raises(InputError, match=r"c\.nt\.gz: the RDF file is damaged or cut off"):
        read_rdf(tmp_path / "c.nt.gz", "c.nt.gz")
