"""A log in daily files: only new files are parsed, and the tables are those of an ingest that knew nothing."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

from kgrec.data.partitions import FOLDER
from kgrec.errors import InputError
from tests.data.ingesting import run, table

LOG = {"path": "day-*.csv", "tolerated": 0.5}


def write_days(base: Path, days: int) -> None:
    draw = random.Random(4)
    lines = [f"u{draw.randrange(9)},i{draw.randrange(9)},click,{1_700_000_000 + k}" for k in range(20 * days)]
    for day in range(days):
        rows = [*lines[20 * day : 20 * day + 20], *lines[20 * day - 3 : 20 * day]]  # late repeats of the day before
        (base / f"day-{day}.csv").write_text("\n".join(["user,item,event,timestamp", *rows, ",x,click,1"]) + "\n")


def kept(base: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (base / "scratch" / FOLDER).rglob("*.arrow")}


def test_only_new_files_are_parsed_and_the_tables_are_the_same(tmp_path):
    write_days(tmp_path, 3)
    run(tmp_path, LOG)
    before = kept(tmp_path)
    assert len(before) == 3
    write_days(tmp_path, 4)
    facts = run(tmp_path, LOG)
    after = kept(tmp_path)
    assert {name: after[name] for name in before} == before, "a day that was there is not parsed again"
    assert len(after) == 4
    found = {name: table(tmp_path, name) for name in ("events", "users", "items", "quarantine")}
    anew = run(tmp_path, LOG, scratch="nothing-kept")
    assert facts == anew
    for name, frame in found.items():
        assert frame.equals(table(tmp_path, name)), name
    assert facts["quarantined"] == {"blank user": 4, "duplicate row": 9}, "repeats across files are found"
    assert found["quarantine"]["source"].unique().sort().to_list() == [f"day-{day}.csv" for day in range(4)]


def test_a_changed_or_removed_day_leaves_nothing_behind(tmp_path):
    write_days(tmp_path, 3)
    run(tmp_path, LOG)
    before = kept(tmp_path)
    (tmp_path / "day-1.csv").write_text("user,item,event,timestamp\nlate,x,click,1700000100\n")
    (tmp_path / "day-2.csv").unlink()
    run(tmp_path, LOG)
    assert "late" in table(tmp_path, "users")["user"].to_list()
    after = kept(tmp_path)
    assert len(after) == 2
    assert len(set(after) & set(before)) == 1, "the file of the day that stayed; those of the others are gone"


def test_another_reading_of_the_same_files_is_another_file(tmp_path):
    write_days(tmp_path, 2)
    run(tmp_path, LOG)
    before = kept(tmp_path)
    run(tmp_path, LOG | {"columns": {"user": "item", "item": "user"}})
    assert not set(kept(tmp_path)) & set(before)
    assert set(table(tmp_path, "users")["user"].to_list()) <= {f"i{k}" for k in range(9)} | {"x"}


def test_types_that_differ_between_days_are_read_as_those_of_the_whole(tmp_path):
    rows = {"user": [1, 2], "item": ["x", "y"], "timestamp": [1_700_000_000, 1_700_000_001]}
    pl.DataFrame(rows, schema_overrides={"user": pl.Int32}).write_parquet(tmp_path / "day-0.parquet")
    pl.DataFrame(rows, schema_overrides={"user": pl.Int64}).write_parquet(tmp_path / "day-1.parquet")
    facts = run(tmp_path, {"path": "day-*.parquet", "tolerated": 0.5})
    assert facts["quarantined"] == {"duplicate row": 2}, "1 is 1, whatever the type"


def test_a_day_that_is_damaged_is_named(tmp_path):
    write_days(tmp_path, 2)
    run(tmp_path, LOG)
    (tmp_path / "day-1.csv").write_text("user,item,event,timestamp\na,b\n")
    with pytest.raises(InputError) as fault:
        run(tmp_path, LOG)
    assert "day-1.csv" in str(fault.value)
