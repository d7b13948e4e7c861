"""Each fault a user can bring is refused with where, what, how many, an example and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from kgrec.errors import InputError
from tests.data.ingesting import CLICKS, run

LOG = {"path": "log.csv"}
NO_EVENTS = "user,item,event,timestamp\n"
TRIPLES = "head,relation,tail\nx,by,p\n"


@dataclass(frozen=True)
class Fault:
    """Files to write, the config that reads them, and what the message must hold."""

    says: tuple[str, ...]
    files: dict[str, str | bytes | Callable[[Path], None]] = field(default_factory=dict)
    interactions: dict[str, Any] | None = field(default_factory=lambda: dict(LOG))
    knowledge: dict[str, Any] | None = None


def cut_parquet(path: Path) -> None:
    pl.DataFrame({"user": [1] * 999, "item": range(999)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])


def column_of_lists(path: Path) -> None:
    pl.DataFrame({"user": [1], "item": [1], "timestamp": [[1]]}).write_parquet(path)


def of_type(values: list[Any]) -> Callable[[Path], None]:
    return lambda path: pl.DataFrame({"user": values, "item": values}).write_parquet(path)


FAULTS = {
    "missing file": Fault(
        ("events.csv: the file does not exist (1 time)", "events.csv not found", "did you mean 'event.csv'"),
        {"event.csv": CLICKS}, {"path": "events.csv"},
    ),
    "missing column": Fault(
        ("log.csv: there is no column 'usr' (1 time)", "interactions.columns.user = 'usr'", "did you mean 'user'?"),
        {}, {"path": "log.csv", "columns": {"user": "usr"}},
    ),
    "wrong dtype": Fault(
        ("log.parquet: column 'timestamp' has the type List(Int64)", "(1 time)", "timestamp: List", "cast it"),
        {"log.parquet": column_of_lists}, {"path": "log.parquet"},
    ),
    "empty log": Fault(
        ("log.csv: the log has no rows (0 times)", "0 data rows", "at least one event"), {"log.csv": NO_EVENTS}
    ),
    "log without clicks": Fault(
        ("log.csv: the log has no clicks and no conversions (3 times)", "events seen: wave 2, nod 1", "roles.click"),
        {"log.csv": NO_EVENTS + "a,x,wave,1\na,y,wave,2\nb,x,nod,3\n"},
    ),
    "triples with null or blank ends": Fault(
        ("t.csv: blank head (2 times)", "t.csv line 2: {", "t.csv: blank tail (1 time)", "t.csv line 4", "fill in"),
        {"t.csv": TRIPLES + ",by,p\n  ,by,q\ny,by,\n"}, dict(LOG), {"triples": ["t.csv"]},
    ),
    "link to an item that does not exist": Fault(
        ("links.csv: link to an item that does not exist (1 time)", "links.csv line 2: {", "remove the link"),
        {"t.csv": TRIPLES, "links.csv": "item,entity\nx,x\nghost,nowhere\n"},
        dict(LOG), {"triples": ["t.csv"], "links": "links.csv"},
    ),
    "duplicate rows": Fault(
        ("log.csv: duplicate row (2 times)", "log.csv line 4: {", "remove the repeated rows"),
        {"log.csv": CLICKS + "a,x,click,1700000000\n" * 2},
    ),
    "timestamps in the future": Fault(
        ("log.csv: time in the future (1 time)", "log.csv line 4: {", "check the unit"),
        {"log.csv": CLICKS + "a,x,click,4000000000\n"},
    ),
    "mixed id types": Fault(
        ("*.parquet: column 'user' has mixed types (2 times)", "a.parquet has Int64, b.parquet has String", "one type"),
        {"a.parquet": of_type([1]), "b.parquet": of_type(["x"])}, {"path": "*.parquet"},
    ),
    "invalid UTF-8": Fault(
        ("log.csv: line 5 is not valid UTF-8 (1 time)", "caf", "save the file as UTF-8"),
        {"log.csv": CLICKS.encode() + "c,caf\u00e9,click,5\n".encode("latin-1")},
    ),
    "truncated Parquet": Fault(
        ("log.parquet: the Parquet file cannot be read (1 time)", "parquet: ", "copy or write the file again"),
        {"log.parquet": cut_parquet}, {"path": "log.parquet"},
    ),
    "broken RDF": Fault(
        ("own.nt: broken RDF at line 2 (1 time)", "line 2: ", "correct the line"),
        {"own.nt": "<http://a> <http://b> <http://c> .\n<http://a> b .\n"}, dict(LOG), {"triples": ["own.nt"]},
    ),
}  # fmt: skip


def write(base: Path, files: dict[str, str | bytes | Callable[[Path], None]]) -> None:
    for name, content in files.items():
        if callable(content):
            content(base / name)
        else:
            (base / name).write_bytes(content.encode() if isinstance(content, str) else content)


def refusal(base: Path, **inputs: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        run(base, **inputs)
    return caught.value


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_alone(tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    write(tmp_path, {"log.csv": CLICKS, **fault.files})
    error = refusal(tmp_path, interactions=fault.interactions, knowledge=fault.knowledge)
    assert error.exit_status == 2
    for words in fault.says:
        assert words in str(error)
    for problem in error.problems:
        assert problem.where
        assert problem.what
        assert problem.remedy
        assert problem.count is not None
        assert problem.example
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert (tmp_path / "refused.parquet").exists()


def test_all_faults_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "log.csv": CLICKS + ",x,click,1\na,x,click,never\na,x,click,4000000000\na,x,click,1700000000\n",
            "users.csv": "user,age\na,1\na,2\n",
            "t.csv": TRIPLES + "x,,p\n",
            "own.ttl": "<http://a> .",
            "links.csv": "item,entity\nx,\n",
            "labels.csv": b"entity,label\nx,\xff\n",
            "cells.csv": "item,genre\n,a\n",
        },
    )
    error = refusal(
        tmp_path,
        interactions=dict(LOG),
        users={"path": "users.csv", "features": ["agge"]},
        items={"path": "items.csv"},
        knowledge={
            "triples": ["t.csv", "own.ttl", "gone.nt"],
            "links": "links.csv",
            "labels": "labels.csv",
            "tables": [{"path": "cells.csv", "relations": {"genre": {}}}],
        },
    )
    for words in (
        "log.csv: blank user", "log.csv: unreadable time", "log.csv: time in the future", "log.csv: duplicate row",
        "users.csv: there is no column 'agge'", "items.csv: the file does not exist", "t.csv: blank relation",
        "own.ttl: broken RDF at line 1", "gone.nt: the file does not exist", "links.csv: blank entity",
        "labels.csv: line 2 is not valid UTF-8", "cells.csv: blank item",
    ):  # fmt: skip
        assert words in str(error)
    assert "does not exist (1 time)\n  example: ghost" not in str(error)
    assert pl.read_parquet(tmp_path / "refused.parquet")["source"].to_list() == [
        "log.csv", "log.csv", "log.csv", "log.csv", "t.csv", "cells.csv", "links.csv",
    ]  # fmt: skip


def test_a_log_whose_rows_are_all_bad_is_refused_whatever_is_tolerated(tmp_path: Path) -> None:
    write(tmp_path, {"log.csv": NO_EVENTS + ",x,click,1\n"})
    assert "no rows left" in str(refusal(tmp_path, interactions={**LOG, "tolerated": 1.0}))


def test_roles_without_an_event_column(tmp_path: Path) -> None:
    write(tmp_path, {"log.csv": "user,item\na,x\n"})
    error = refusal(tmp_path, interactions={**LOG, "roles": {"click": ["view"]}})
    assert "the log has no event column" in str(error)


def test_impressions_without_a_label(tmp_path: Path) -> None:
    write(tmp_path, {"log.csv": "user,item\na,x\n"})
    assert "needs a label column" in str(refusal(tmp_path, interactions={**LOG, "layout": "impressions"}))
    write(tmp_path, {"log.csv": "user,item,click\na,x,0\n"})
    assert "every label is 0" in str(refusal(tmp_path, interactions={**LOG, "layout": "impressions"}))


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64])
def test_damage_past_a_parquet_file_s_footer(tmp_path: Path, dtype: type[pl.DataType]) -> None:
    rows = pl.Series(range(50_000), dtype=dtype)
    frame = pl.DataFrame({"user": rows, "item": rows, "timestamp": rows})
    frame.write_parquet(tmp_path / "log.parquet")
    content = bytearray((tmp_path / "log.parquet").read_bytes())
    middle = len(content) // 2
    content[100 : middle * 2 - 4000] = bytes(middle * 2 - 4100)
    (tmp_path / "log.parquet").write_bytes(content)
    assert "log.parquet: the rows cannot be read (1 time)" in str(
        refusal(tmp_path, interactions={"path": "log.parquet"})
    )


def test_a_header_that_names_a_column_twice(tmp_path: Path) -> None:
    write(tmp_path, {"log.csv": "user,item,item,tail\na,x,y,z\n"})
    assert "log.csv: column 'item' is twice in the header" in str(refusal(tmp_path, interactions=LOG))
