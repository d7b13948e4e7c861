"""The review of links by name: written for a person, filled in, and taken up by the next ingest."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from kgrec.artifacts import Artifact
from kgrec.chain.context import Run
from kgrec.config import load_config
from kgrec.stages import run_chain
from kgrec.workspace import Workspace
from tests.calling import as_json, call

GRAPH = """@prefix e: <http://e/> . @prefix r: <http://www.w3.org/2000/01/rdf-schema#> .
e:1 r:label "Heat" ; e:is e:film . e:2 r:label "Heat" ; e:is e:film . e:3 r:label "Dawn" ; e:is e:film .
"""
CONFIG = """[interactions]
path = "log.csv"
[items]
path = "items.csv"
[knowledge]
triples = ["g.ttl"]
[knowledge.linking]
"""


def ingested(folder: Path, more: str = "") -> pl.DataFrame:
    (folder / "c.toml").write_text(CONFIG + more)
    made = run_chain(Run(load_config(folder / "c.toml"), Workspace(folder / "w")), until="ingest")
    assert isinstance(made, Artifact)
    return pl.read_parquet(made.file("links.parquet"))


def test_a_person_fills_in_the_review_and_the_next_ingest_knows(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,event,timestamp\nu,x,click,1\nu,y,click,2\n")
    (tmp_path / "items.csv").write_text("item,title\nx,Heat\ny,Dawn\n")
    (tmp_path / "g.ttl").write_text(GRAPH)
    out = tmp_path / "review.csv"
    assert ingested(tmp_path).rows() == [("y", "http://e/3")], "two films are called Heat"
    told = as_json(call("graph", "review", "--out", out, "--workspace", tmp_path / "w", "--json"))
    assert (told["links"], told["items"]) == (2, 1)
    waiting = pl.read_csv(out)
    assert waiting.select("item", "entity").rows() == [("x", "http://e/1"), ("x", "http://e/2")]
    assert set(waiting["reason"]) == {"another candidate is as good", "another candidate is at least as good"}
    lines = out.read_text().splitlines()
    at = waiting.columns.index("verdict")
    cells = lines[2].split(",")
    cells[at] = "accept"
    out.write_text("\n".join([*lines[:2], ",".join(cells)]) + "\n")
    assert ingested(tmp_path, 'verdicts = "review.csv"\n').rows() == [("x", "http://e/2"), ("y", "http://e/3")]
    assert as_json(call("graph", "review", "--out", out, "--workspace", tmp_path / "w", "--json"))["links"] == 0


def test_a_review_without_links_by_name_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    refused = call("graph", "review", "--out", tmp_path / "r.csv", "--workspace", tmp_path / "w")
    assert (refused.exit_code, "set knowledge.linking" in refused.stderr) == (2, True)
