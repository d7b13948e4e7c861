from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kgrec.columns import EVENTS_SCHEMA, EXPOSURES_SCHEMA
from kgrec.data.interactions import InteractionsConfig
from kgrec.errors import InputError
from tests.data.ingesting import run, table

SECOND = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def log(base: Path, columns: dict[str, Any], **keys: Any) -> pl.DataFrame:
    """Write a log of one Parquet file, ingest it, return its events."""
    pl.DataFrame(columns).write_parquet(base / "log.parquet")
    run(base, {"path": "log.parquet", **keys}, split_column="split" if "split" in columns else None)
    return table(base, "events")


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([1_700_000_000]),
        pl.Series([1.7e9]),
        pl.Series([1_700_000_000_000]),
        pl.Series([1_700_000_000_000_000]),
        pl.Series([1_700_000_000_000_000_000]),
        pl.Series(["1700000000"]),
        pl.Series(["1700000000000.0"]),
        pl.Series(["2023-11-14T22:13:20Z"]),
        pl.Series(["2023-11-14 22:13:20"]),
        pl.Series(["2023-11-14T23:13:20.000+01:00"]),
        pl.Series([SECOND.replace(tzinfo=None)]),
        pl.Series([SECOND]).cast(pl.Datetime("ms", "UTC")),
        pl.Series([SECOND]).dt.convert_time_zone("Asia/Tokyo"),
    ],
)
def test_times_of_every_kind(tmp_path: Path, times: pl.Series) -> None:
    events = log(tmp_path, {"user": [1], "item": [1], "timestamp": times})
    assert dict(events.schema) == EVENTS_SCHEMA
    assert events["time"].to_list() == [SECOND]


def test_dates_and_minutes(tmp_path: Path) -> None:
    assert log(tmp_path, {"user": [1], "item": [1], "time": [date(2024, 1, 2)]})["time"][0] == datetime(
        2024, 1, 2, tzinfo=UTC
    )
    times = ["2024-01-02", "2024-01-02T03:04"]
    found = log(tmp_path, {"user": [1, 2], "item": [1, 2], "time": times})["time"].to_list()
    assert found == [datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, 3, 4, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([7, 8], ["7", "8"]),
        ([7.0, 8.0], ["7", "8"]),
        ([" 007", "a b "], ["007", "a b"]),
        (pl.Series(["p", "q"], dtype=pl.Categorical), ["p", "q"]),
        (pl.Series([2**63 + 1, 1], dtype=pl.UInt64), [str(2**63 + 1), "1"]),
    ],
)
def test_ids_of_every_kind(tmp_path: Path, ids: Any, text: list[str]) -> None:
    assert log(tmp_path, {"user": ids, "item": ids})["item"].to_list() == text


@pytest.mark.parametrize("ids", [[1.5, 2.0], [True, False], [date(2024, 1, 1)] * 2, [2.0**60, 1.0]])
def test_what_cannot_be_an_id(tmp_path: Path, ids: Any) -> None:
    with pytest.raises(InputError, match="'item'"):
        log(tmp_path, {"user": [1, 2], "item": ids})


def test_without_events_every_row_is_a_click(tmp_path: Path) -> None:
    events = log(tmp_path, {"user": [1, 1], "item": [1, 2], "timestamp": pl.Series([None, None], dtype=pl.Int64)})
    assert events["click"].to_list() == [True, True]
    assert events["conversion"].to_list() == [False, False]
    assert events["time"].null_count() == 2


def test_default_roles_and_thresholds(tmp_path: Path) -> None:
    events = log(
        tmp_path,
        {
            "user": ["u"] * 6,
            "item": list("abcdef"),
            "event": ["rating", "Rating", "purchase", "VIEW", "cart", "click"],
            "value": ["4", "3.9", "", "much", "1", None],
        },
    )
    assert events["item"].to_list() == ["a", "b", "c", "d", "f"]
    assert events["click"].to_list() == [True, True, False, True, True]
    assert events["conversion"].to_list() == [True, False, True, False, False]


def test_roles_of_the_config(tmp_path: Path) -> None:
    pl.DataFrame({"u": [1, 1, 1], "i": [1, 2, 3], "what": ["see", "star", "star"], "n": [None, 1, 9]}).write_parquet(
        tmp_path / "log.parquet"
    )
    facts = run(
        tmp_path,
        {
            "path": "log.parquet",
            "columns": {"user": "u", "item": "i", "event": "what", "value": "n"},
            "roles": {"click": ["see"], "conversion": [{"event": "star", "at_least": 5}]},
        },
    )
    assert table(tmp_path, "events").select("item", "click", "conversion").rows() == [
        ("1", True, False),
        ("3", False, True),
    ]
    assert facts["left_out"] == {"star": 1}
    assert facts["labels"] == ["click", "conversion"]


TIMED = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from("xy"),
        st.sampled_from(["impression", "click", "purchase"]),
        st.integers(0, 6),
    ),
    min_size=1, max_size=14, unique=True,
)  # fmt: skip


def judged(rows: list[tuple[str, str, str, int]], event: str, has_time: bool) -> list[bool]:
    """The slow and obvious oracle: has this impression the event before the next impression of its pair?"""
    shown = [row for row in rows if row[2] == "impression"]
    answers = []
    for user, item, _, start in shown:
        later = [row[3] for row in shown if row[:2] == (user, item) and row[3] > start]
        end = min(later, default=99)
        hits = [row for row in rows if row[:3] == (user, item, event)]
        answers.append(any(start <= row[3] < end for row in hits) if has_time else bool(hits))
    return answers


@given(TIMED, st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_came_of_impressions(rows: list[tuple[str, str, str, int]], has_time: bool) -> None:
    rows = [("a", "x", "impression", 0), *[row for row in rows if row != ("a", "x", "impression", 0)]]
    rows += [("c", "z", "click", 1), ("c", "z", "purchase", 1)]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        frame = pl.DataFrame(rows, schema=["user", "item", "event", "timestamp"], orient="row")
        tab = pl.int_range(pl.len()).alias("tab")
        frame = frame.with_columns(tab, timestamp=pl.col("timestamp") if has_time else None)
        frame.write_parquet(base / "log.parquet")
        facts = run(base, {"path": "log.parquet", "context": ["tab"]})
        found = table(base, "exposures")
        assert facts["impressions"]
        assert list(found.columns) == [*EXPOSURES_SCHEMA, "tab"]
        assert found["tab"].to_list() == [at for at, row in enumerate(rows) if row[2] == "impression"]
        assert found["click"].to_list() == judged(rows, "click", has_time)
        assert found["conversion"].to_list() == judged(rows, "purchase", has_time)
        assert table(base, "events")["tab"].to_list() == [at for at, row in enumerate(rows) if row[2] != "impression"]


def test_of_impressions_at_one_instant_the_last_is_judged(tmp_path: Path) -> None:
    rows = {
        "user": [1] * 3,
        "item": [1] * 3,
        "event": ["show", "show", "click"],
        "timestamp": [5, 5, 5],
        "n": [1, 2, 3],
    }
    log(tmp_path, rows)
    assert table(tmp_path, "exposures")["click"].to_list() == [False, True]


def test_the_layout_of_impressions(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "user,item,time,clicked,bought,tab,split\n"
        "1,a,1,1,0,home,train\n1,b,2,0,0,home,valid\n2,a,3,TRUE,1,feed,test\n2,b,4,maybe,1,feed,dev\n"
    )
    facts = run(
        tmp_path,
        {
            "path": "log.csv",
            "layout": "impressions",
            "labels": {"click": "clicked", "conversion": "bought"},
            "context": ["tab"],
            "tolerated": 0.25,
        },
        split_column="split",
    )
    exposures = table(tmp_path, "exposures")
    assert exposures.columns == ["user", "item", "time", "click", "conversion", "part", "tab"]
    assert exposures["click"].to_list() == [True, False, True]
    assert exposures["part"].to_list() == ["train", "validation", "test"]
    assert table(tmp_path, "events").select("item", "conversion", "part").rows() == [
        ("a", False, "train"),
        ("a", True, "test"),
    ]
    assert facts["quarantined"] == {"unreadable label": 1}
    assert facts["time_range"] == ["1970-01-01T00:00:01+00:00", "1970-01-01T00:00:03+00:00"]


def test_a_label_that_is_not_configured_is_absent(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1], "item": [1], "click": [0], "long": [True]}).write_parquet(tmp_path / "log.parquet")
    facts = run(tmp_path, {"path": "log.parquet", "layout": "impressions", "labels": {"conversion": "long"}})
    assert "click" not in table(tmp_path, "exposures").columns
    assert facts["labels"] == ["conversion"]


def test_the_future_starts_a_day_after_now(tmp_path: Path) -> None:
    now = datetime(2024, 6, 1, tzinfo=UTC)
    times = [now + timedelta(days=1), now + timedelta(days=1, seconds=1)]
    with pytest.raises(InputError, match=r"time in the future \(1 time\)"):
        log(tmp_path, {"user": [1, 2], "item": [1, 2], "time": times})


def test_config_that_contradicts_itself() -> None:
    for keys in (
        {"context": ["time"]},
        {"context": ["a", "a"]},
        {"labels": {"click": "c"}},
        {"layout": "impressions", "roles": {"click": ["c"]}},
        {"tolerated": 1.5},
        {"colums": {}},
    ):
        with pytest.raises(ValidationError):
            InteractionsConfig.model_validate({"path": "log.csv", **keys})


def test_ids_as_integers_give_the_tables_of_ids_as_text(tmp_path: Path) -> None:
    """Integers stay integers until tables are written, and are joined, told apart and numbered as texts are."""
    size = 3_000
    row = pl.int_range(size, eager=True)
    frame = pl.DataFrame({"user": (row * row) % 97 - 5, "item": (row * 7) % 401, "timestamp": row // 3 + 10**9})
    frame = frame.with_columns(event=pl.Series(["show", "click", "purchase"] * (size // 3)))
    short = (pl.col("user").cast(pl.Int8), pl.col("item").cast(pl.UInt16))
    forms = {"integers": frame, "small": frame.with_columns(*short),
             "text": frame.with_columns(pl.col("user", "item").cast(pl.String))}  # fmt: skip
    found = {}
    for form, rows in forms.items():
        rows.write_parquet(tmp_path / f"{form}.parquet")
        facts = run(tmp_path, {"path": f"{form}.parquet", "tolerated": 1.0})
        tables = {name: table(tmp_path, name) for name in ("events", "exposures", "users", "items")}
        found[form] = (facts["quarantined"], facts["time_range"], tables)
    for form in ("integers", "small"):
        assert found[form][:2] == found["text"][:2]
        for name, expected in found["text"][2].items():
            assert found[form][2][name].equals(expected), (form, name)
    assert found["text"][2]["exposures"]["click"].any()
    assert found["text"][2]["users"]["user"].to_list() == list(dict.fromkeys(forms["text"]["user"]))
