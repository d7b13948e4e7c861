from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from kgrec.artifacts import hash_file
from kgrec.data.ingest import input_digests
from kgrec.data.interactions import InteractionsConfig
from kgrec.data.knowledge import KnowledgeConfig
from kgrec.data.snapshots import sqlalchemy
from kgrec.errors import InputError
from tests.data.ingesting import CLICKS, run, table

FILES = {
    "log.csv": CLICKS + "c,x,wave,1700000003\n",
    "users.csv": "user,age\nc,9\n",
    "items.csv": "item,title,genres\nx,The X,p|q\nz,The Z,q\n",
    "t.csv": "head,relation,tail\ne1,by,f\n",
    "links.csv": "item,entity\nx,e1\n",
}
CONFIG: dict[str, Any] = {
    "interactions": {"path": "log.csv"},
    "users": {"path": "users.csv", "features": ["age"]},
    "items": {"path": "items.csv"},
    "knowledge": {
        "triples": ["t.csv"],
        "links": "links.csv",
        "tables": [{"path": "items.csv", "relations": {"genres": {"separator": "|"}}}],
    },
}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_facts_of_a_small_world(world: Path) -> None:
    facts = run(world, **CONFIG)
    expected = {
        "events": 3, "users": 3, "items": 3, "triples": 4, "links": 1, "labels_of_entities": 2, "cold_items": 0,
        "has_time": True, "impressions": False, "labels": ["click", "conversion"], "left_out": {"wave": 1},
        "time_range": ["2023-11-14T22:13:20+00:00", "2023-11-14T22:13:22+00:00"], "quarantined": {},
        "triples_repeated": 0, "links_given": True, "blank_cells": 0, "attributes": 0, "triples_have_parts": False,
    }  # fmt: skip
    assert {key: facts[key] for key in expected} == expected
    assert json.loads(json.dumps(facts)) == facts
    assert table(world, "users").rows() == [("a", None), ("b", None), ("c", "9")]
    assert not (world / "refused.parquet").exists()
    assert table(world, "quarantine").height == 0
    for name, found in facts["inputs"].items():
        lost = sum(found["quarantined"].values()) + sum(found.get("left_out", {}).values())
        assert found["rows"] == found["kept"] + lost, name


def test_a_second_ingest_writes_the_same_bytes(tmp_path: Path) -> None:
    size = 300_000
    row = pl.int_range(size, eager=True)
    events = ["show", "click", "purchase"]
    frame = pl.DataFrame({"user": row % 997, "item": row % 1009, "timestamp": row + 10**9})
    frame = frame.with_columns(event=pl.Series(events * (size // 3)))
    frame.write_parquet(tmp_path / "log.parquet", row_group_size=10_000)
    (tmp_path / "log").mkdir()
    for out in ("one", "two"):
        run(tmp_path, {"path": "log.parquet"}, out=out, scratch=f"scratch-{out}")
    first = {path.name: hash_file(path) for path in (tmp_path / "one").iterdir()}
    assert first == {path.name: hash_file(path) for path in (tmp_path / "two").iterdir()}
    assert "exposures.parquet" in first
    assert pl.read_parquet(tmp_path / "one" / "events.parquet")["time"].is_sorted()


def test_a_graph_alone(world: Path) -> None:
    facts = run(world, knowledge={"triples": ["t.csv"]})
    assert (facts["events"], facts["items"], facts["triples"]) == (0, 0, 1)
    assert not (world / "out" / "events.parquet").exists()


def digests(base: Path, *, query: str | None = None) -> dict[str, str]:
    log = {"path": "log.csv"} if query is None else {"url": "sqlite:///shop.db", "query": query}
    return input_digests(
        InteractionsConfig.model_validate(log), None, None, KnowledgeConfig.model_validate(CONFIG["knowledge"]),
        base=base, scratch=base / "scratch",
    )  # fmt: skip


def test_digests_follow_each_input_alone(world: Path) -> None:
    before = digests(world)
    assert before == digests(world)
    assert set(before) == {"interactions", "knowledge.triples[0]", "knowledge.tables[0]", "knowledge.links"}
    assert before["interactions"] == run(world, **CONFIG)["digests"]["interactions"]
    (world / "t.csv").write_text(FILES["t.csv"] + "e2,by,f\n")
    after = digests(world)
    assert {name for name in after if after[name] != before[name]} == {"knowledge.triples[0]"}
    (world / "links.csv").unlink()
    (world / "log.csv").unlink()
    with pytest.raises(InputError) as caught:
        digests(world)
    assert {problem.where for problem in caught.value.problems} == {"links.csv", "log.csv"}


def test_an_ingest_reads_the_snapshot_that_was_hashed(world: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{world}/shop.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE log (user TEXT, item TEXT)")
        connection.exec_driver_sql("INSERT INTO log VALUES ('a', 'x')")
    query = "SELECT * FROM log"
    first = digests(world, query=query)["interactions"]
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO log VALUES ('b', 'y')")
    engine.dispose()
    facts = run(world, {"url": "sqlite:///shop.db", "query": query})
    assert facts["digests"]["interactions"] == first
    assert facts["events"] == 1
    assert digests(world, query=query)["interactions"] != first
    assert run(world, {"url": "sqlite:///shop.db", "query": query})["events"] == 2
