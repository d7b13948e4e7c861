from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from kgrec.data.rdf import RDFS_LABEL, is_rdf, read_rdf
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
    assert nodes == {"_:own.ttl:0", "_:own.ttl:1"}
    assert ("http://e/film", "http://e/by", "http://e/ann") in rows
    assert len(rows) == 4
    assert found.labels.rows() == [("http://e/film", "The Film")]
    assert found.attributes == 1
    assert read_rdf(path, "own.ttl").triples.equals(found.triples)


@pytest.mark.parametrize("name", ["a.nt", "a.nt.gz", "a.ttl.gz", "a.nq"])
def test_every_format(tmp_path: Path, name: str) -> None:
    text = b'<http://a> <http://p> <http://b> .\n_:n <http://p> <http://b> .\n<http://a> <http://p> "v" .\n'
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert is_rdf(name)
    found = read_rdf(tmp_path / name, name)
    assert found.triples.rows() == [
        ("http://a", "http://p", "http://b", ""),
        (f"_:{name}:0", "http://p", "http://b", ""),
    ]
    assert found.attributes == 1
    assert found.labels.height == 0


def test_a_label_without_a_language_beats_a_foreign_one_only(tmp_path: Path) -> None:
    lines = [f'<http://{e}> <{RDFS_LABEL}> "{text}" .' for e, text in (("a", "one"), ("a", "two"), ("b", " "))]
    (tmp_path / "a.nt").write_text("\n".join([f'<http://a> <{RDFS_LABEL}> "eins"@de .', *lines]))
    found = read_rdf(tmp_path / "a.nt", "a.nt")
    assert found.labels.rows() == [("http://a", "one")]
    assert found.attributes == 1


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
