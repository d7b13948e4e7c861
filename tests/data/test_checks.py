from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.columns import QUARANTINE_SCHEMA
from kgrec.data.checks import Fault, Findings, Tolerance, sift
from kgrec.data.sources import Table, TableSource, materialise
from kgrec.errors import InputError
from tests.data.ingesting import run, table

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", " ", ""]),
        st.sampled_from(["x", "y", ""]),
        st.sampled_from(["click", "purchase", "rating", "login", ""]),
        st.sampled_from(["1700000000", "2024-01-02", "never", "", "99999999999"]),
        st.sampled_from(["1", "5", "much", ""]),
    ),
    max_size=12,
)


def expected_reason(row: tuple[str, ...], earlier: list[tuple[str, ...]], has_time: bool) -> str | None:
    """The slow and obvious oracle: what is wrong with a row; "left out" for events that no role names."""
    user, item, event, time, value = row
    if event not in ("click", "purchase", "rating"):
        return "left out"
    if not user.strip():
        return "blank user"
    if not item.strip():
        return "blank item"
    if has_time and time == "":
        return "missing time"
    if has_time and time == "never":
        return "unreadable time"
    if has_time and time == "99999999999":
        return "time in the future"
    if event == "rating" and value not in ("1", "5"):
        return "unreadable value"
    return "duplicate row" if row in earlier else None


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_no_row_is_lost(rows: list[tuple[str, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        rows = [("a", "x", "click", "1700000000", "7"), *rows]
        lines = [",".join(row) for row in rows]
        (base / "log.csv").write_text("\n".join(["user,item,event,timestamp,value", *lines]) + "\n")
        facts = run(base, {"path": "log.csv", "tolerated": 1.0})
        reasons = [expected_reason(row, rows[:at], has_time=True) for at, row in enumerate(rows)]
        found = facts["inputs"]["interactions"]
        counted = Counter(reason for reason in reasons if reason not in (None, "left out"))
        assert found["quarantined"] == dict(counted)
        assert sum(found["left_out"].values()) == reasons.count("left out")
        assert found["kept"] == reasons.count(None)
        assert found["rows"] == found["kept"] + sum(found["quarantined"].values()) + sum(found["left_out"].values())
        refused = table(base, "quarantine")
        bad = [at for at, reason in enumerate(reasons) if reason not in (None, "left out")]
        assert refused["line"].to_list() == [at + 1 for at in bad]
        assert refused["reason"].to_list() == [reasons[at] for at in bad]
        kept = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
        assert table(base, "events")["user"].to_list() == [row[0] for row in kept]


def numbers(base: Path, text: str) -> Table:
    (base / "scratch").mkdir(exist_ok=True)
    (base / "n.csv").write_text(text)
    return materialise(TableSource(path="n.csv"), base, base / "scratch")


def test_the_share_that_is_tolerated(tmp_path: Path) -> None:
    source = numbers(tmp_path, "v\n1\n2\nx\n4\n")
    values = {"v": pl.col("v").cast(pl.Int64, strict=False)}
    faults = [Fault("no number", pl.col("v").is_null(), "write a number")]
    for share, problems in ((0.0, 1), (0.24, 1), (0.25, 0), (1.0, 0)):
        findings = Findings(tmp_path / "scratch", tmp_path / "q.parquet")
        kept = sift("n", source, values, faults, findings, Tolerance(share, "n.tolerated"))
        assert len(findings.problems) == problems
        assert kept.frame.collect()["v"].to_list() == [1, 2, 4]
        assert (kept.rows_in, kept.rows_kept) == (4, 3)
    assert findings.quarantined() == {"no number": 1}


def test_a_refusal_names_everything_and_writes_the_rows(tmp_path: Path) -> None:
    source = numbers(tmp_path, "v,w\n1,a\n1,a\n,b\n")
    findings = Findings(tmp_path / "scratch", tmp_path / "deep" / "q.parquet")
    faults = [Fault("no number", pl.col("v").is_null(), "write a number")]
    sift("n", source, {"v": pl.col("v")}, faults, findings, Tolerance(0.0, "n.tolerated"))
    with pytest.raises(InputError) as caught:
        findings.refuse_if_any()
    text = str(caught.value)
    assert "n.csv: duplicate row (1 time)\n  example: n.csv line 2:" in text
    assert "n.csv: no number (1 time)\n  example: n.csv line 3:" in text
    assert "write a number" in text
    assert "n.tolerated = 0.6667 would leave them out" in text
    assert str(tmp_path / "deep" / "q.parquet") in text
    rows = pl.read_parquet(tmp_path / "deep" / "q.parquet")
    assert dict(rows.schema) == QUARANTINE_SCHEMA
    assert json.loads(rows["row_text"][0]) == {"v": "1", "w": "a"}


def test_problems_of_several_inputs_are_collected_once(tmp_path: Path) -> None:
    findings = Findings(tmp_path, tmp_path / "q.parquet")
    findings.refuse_if_any()
    for path in ("a.csv", "b.csv", "a.csv"):
        with findings.collecting():
            materialise(TableSource(path=path), tmp_path, tmp_path)
    with pytest.raises(InputError) as caught:
        findings.refuse_if_any()
    assert [problem.where for problem in caught.value.problems] == ["a.csv", "b.csv"]


def test_rows_of_every_type_can_be_written_down(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    row = {"i": 1, "f": 0.5, "s": "t", "l": [1, 2], "b": b"\x01", "n": None}
    frame = pl.DataFrame([row, row]).with_columns(
        d=pl.date(2024, 1, 2), t=pl.datetime(2024, 1, 2, time_zone="UTC"), c=pl.lit("k").cast(pl.Categorical),
        e=pl.lit("1.5").cast(pl.Decimal(5, 2)),
    )  # fmt: skip
    frame.write_parquet(tmp_path / "a.parquet")
    source = materialise(TableSource(path="a.parquet"), tmp_path, tmp_path / "scratch")
    findings = Findings(tmp_path / "scratch", tmp_path / "q.parquet")
    kept = sift("a", source, {"i": pl.col("i")}, [], findings, Tolerance(1.0, "a.tolerated"))
    assert kept.frame.collect().height == 1
    findings.write_quarantine(tmp_path / "q.parquet")
    text = json.loads(pl.read_parquet(tmp_path / "q.parquet")["row_text"][0])
    assert text["l"] == [1, 2]
    assert (text["b"], text["d"], text["c"], text["e"]) == ("01", "2024-01-02", "k", "1.50")
