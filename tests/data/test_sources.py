from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kgrec.data import snapshots
from kgrec.data.sources import LINE_OF_ROW, SOURCE_OF_ROW, Table, TableSource, digest_of, materialise, reading
from kgrec.errors import InputError


def read(base: Path, path: str) -> Table:
    scratch = base / "scratch"
    scratch.mkdir(exist_ok=True)
    return materialise(TableSource(path=path), base, scratch)


def message(base: Path, path: str) -> str:
    with pytest.raises(InputError) as caught:
        read(base, path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.tsv.gz"])
def test_text_is_read_as_strings_with_lines(tmp_path: Path, name: str) -> None:
    mark = "\t" if ".tsv" in name else ","
    text = f"user{mark}item\n007{mark}1.50\n\n8{mark}\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    found = read(tmp_path, name)
    assert found.is_text
    assert found.frame.collect().rows() == [(1, "007", "1.50", name), (3, "8", None, name)]


def test_byte_order_mark_crlf_quotes_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfu,i\r\n1,"a,b"\r\n\r\n,\r\n"two\nlines",2\r\n\r\n')
    rows = read(tmp_path, "a.csv").frame.collect()
    assert rows["u"].to_list() == ["1", None, "two\nlines"]
    assert rows["i"].to_list() == ["a,b", None, "2"]


def test_a_glob_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for name in ("b", "a", "c"):
        pl.DataFrame({"v": [name, name]}).write_parquet(tmp_path / "log" / f"{name}.parquet")
    found = read(tmp_path, "log/*.parquet")
    rows = found.frame.collect()
    assert rows["v"].to_list() == list("aabbcc")
    assert rows[LINE_OF_ROW].to_list() == [1, 2] * 3
    assert rows[SOURCE_OF_ROW].unique(maintain_order=True).to_list() == [f"log/{n}.parquet" for n in "abc"]


def test_the_digest_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    digests = []
    for folder, text in (("p", "u\n1\n"), ("q", "u\n1\n"), ("r", "u\n2\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text(text)
        digests.append(digest_of(TableSource(path="a.csv"), tmp_path / folder, tmp_path))
        assert digests[-1] == read(tmp_path / folder, "a.csv").digest
    assert digests[0] == digests[1] != digests[2]


@given(st.lists(st.lists(st.text("ab \"',\n\u00e9", max_size=4), min_size=2, max_size=2), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_polars_writes_is_read_back(tmp_path: Path, rows: list[list[str]]) -> None:
    frame = pl.DataFrame(rows, schema={"u": pl.String, "i": pl.String}, orient="row")
    frame.write_csv(tmp_path / "a.csv", quote_style="always")
    found = read(tmp_path, "a.csv").frame.collect()
    assert found.select(pl.col("u", "i").fill_null("")).rows() == frame.rows()


def test_missing_files_name_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "events.parquet").touch()
    assert "did you mean 'events.parquet'" in message(tmp_path, "event.parquet")
    assert "no file matches the glob" in message(tmp_path, "log/*.csv")
    assert "is a folder" in message(tmp_path, ".")


def test_damaged_files_are_told_apart(tmp_path: Path) -> None:
    pl.DataFrame({"u": range(1000)}).write_parquet(tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.parquet").write_text("user,item\n1,2\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"u,i\n" + b"1,2\n" * 9999)[:-20])
    (tmp_path / "latin.csv").write_bytes("u,i\n1,2\n1,caf\u00e9\n".encode("latin-1"))
    (tmp_path / "ragged.csv").write_text("u,i\n1,2\n1\n1,2,3\n")
    (tmp_path / "a.xlsx").touch()
    assert "cut.parquet: the Parquet file cannot be read" in message(tmp_path, "cut.parquet")
    assert "text.parquet: the Parquet file cannot be read" in message(tmp_path, "text.parquet")
    assert "empty" in message(tmp_path, "empty.csv")
    assert "cut off" in message(tmp_path, "cut.csv.gz")
    assert "line 3 is not valid UTF-8" in message(tmp_path, "latin.csv")
    assert "(2 times)\n  example: line 3 has 1 fields, the header has 2" in message(tmp_path, "ragged.csv")
    assert "not a kind of file" in message(tmp_path, "a.xlsx")


def test_ragged_lines_are_found_beside_quotes_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('u,i\n"1,2",3\n"1,2"\n')
    assert "(1 time)\n  example: line 3 has 1 fields" in message(tmp_path, "a.csv")


def test_files_of_one_glob_must_agree(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1], "item": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"user": ["x"], "other": [1]}).write_parquet(tmp_path / "b.parquet")
    text = message(tmp_path, "*.parquet")
    assert "column 'user' has mixed types" in text
    assert "a.parquet has Int64, b.parquet has String" in text
    assert "a.parquet has it, b.parquet lacks it" in text
    assert "b.parquet has it, a.parquet lacks it" in text


def test_kindred_types_of_one_glob_join(tmp_path: Path) -> None:
    pl.DataFrame({"v": [1]}, schema={"v": pl.Int32}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"v": [None]}).write_parquet(tmp_path / "b.parquet")
    pl.DataFrame({"v": [2]}).write_parquet(tmp_path / "c.parquet")
    assert read(tmp_path, "*.parquet").frame.collect()["v"].to_list() == [1, None, 2]


def test_a_delta_table(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    frame = pl.DataFrame({"user": [1, 2], "item": ["x", "y"]})
    frame.write_delta(str(tmp_path / "lake"))
    first = digest_of(TableSource(path="lake"), tmp_path, tmp_path)
    assert digest_of(TableSource(path="lake"), tmp_path, tmp_path) == first
    found = read(tmp_path, "lake")
    assert found.frame.collect().sort("user")["item"].to_list() == ["x", "y"]
    frame.write_delta(str(tmp_path / "lake"), mode="append")
    assert digest_of(TableSource(path="lake"), tmp_path, tmp_path) != first


def test_a_delta_table_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lake" / "_delta_log").mkdir(parents=True)
    monkeypatch.setattr(snapshots.importlib.util, "find_spec", lambda _: None)
    assert "pip install 'kgrec[delta]'" in message(tmp_path, "lake")


def query(base: Path, sql: str, url: str = "sqlite:///shop.db") -> pl.DataFrame:
    scratch = base / "scratch"
    scratch.mkdir(exist_ok=True)
    source = TableSource(url=url, query=sql)
    digest_of(source, base, scratch)  # takes the snapshot that is read next
    return materialise(source, base, scratch).frame.collect()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    rows = [f"({n}, 'i{n % 3}', {n}.5)" for n in range(1, 6)]
    connect = snapshots.sqlalchemy.create_engine(f"sqlite:///{tmp_path}/shop.db")
    with connect.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE log (user, item, value)")
        connection.exec_driver_sql(f"INSERT INTO log VALUES {', '.join(rows)}")
    connect.dispose()
    return tmp_path


def test_a_query_is_read_in_batches(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_BATCH_ROWS", 2)
    found = query(shop, "SELECT * FROM log ORDER BY user")
    assert len(list((shop / "scratch").glob("sql-*/*.parquet"))) == 3
    assert found["user"].to_list() == [1, 2, 3, 4, 5]
    assert found["value"].to_list() == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert found[LINE_OF_ROW].null_count() == 5


def test_queries_that_cannot_be_used(shop: Path) -> None:
    for sql, what in (
        ("SELECT nothing FROM log", "the query fails"),
        ("SELECT user, item AS user FROM log", "two columns of one name"),
        ("SELECT user AS v FROM log UNION ALL SELECT item FROM log", "mixed types"),
    ):
        with pytest.raises(InputError, match=what):
            query(shop, sql)
    with pytest.raises(InputError, match="does not exist"):
        query(shop, "SELECT 1", "sqlite:///other.db")
    with pytest.raises(InputError, match="cannot be read"):
        query(shop, "SELECT 1", "not a url")
    nothing = query(shop, "SELECT user, item FROM log WHERE user > 99")
    assert nothing.height == 0
    assert {"user", "item"} < set(nothing.columns)


def test_a_source_is_one_place_and_hides_its_password() -> None:
    for keys in (
        {},
        {"path": "a", "url": "sqlite://", "query": "q"},
        {"url": "sqlite://"},
        {"path": "a", "query": "q"},
    ):
        with pytest.raises(ValidationError):
            TableSource.model_validate(keys)
    source = TableSource(url="postgresql://ann:secret@db/shop", query="SELECT 1")
    assert "secret" not in repr(source) + source.name + source.model_dump_json()
    with pytest.raises(ValidationError) as caught:
        TableSource.model_validate({"url": "postgresql://ann:secret@db/shop"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ('a,b\n1,x\n2,"y\n3,""\n4,z\n', 3, "is never closed"),
        ('a,b\n1,x\n2,"y', 3, "is never closed"),
        ('a,b\n"1\n1",x\n2,"y\n', 4, "is never closed"),
        ('a,b\n1,"x\ny"z\n2,y\n', 2, "has text behind its end"),
    ],
)
def test_a_quote_that_does_not_end_well_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, fault: str
) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=f"a quote {fault} .*\n.*begins in line {line}:"):
        materialise(TableSource(path="a.csv"), tmp_path, tmp_path)
    (tmp_path / "b.csv").write_text('a,b\n1,"x\n\n"\n2,"y ""so"""\n')
    assert materialise(TableSource(path="b.csv"), tmp_path, tmp_path).frame.collect().height == 2


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a,b\n12" vinyl,1\nz,2\n', [('12" vinyl', "1"), ("z", "2")]),
        ('a,b\nx",1\n\nz,""\n', [('x"', "1"), ("z", None)]),
        ('a,b\n "p,q"\n', [(' "p', 'q"')]),
        ('a,b\n1,"x\r\ny"\r2,3\n', [("1", "x\r\ny"), ("2", "3")]),
    ],
)
def test_a_quote_inside_a_bare_field_is_text(
    tmp_path: Path, text: str, rows: list[tuple[str | None, str | None]]
) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    found = read(tmp_path, "a.csv").frame.collect()
    blank_is_null = pl.col("a", "b").replace("", None)
    assert found.select(blank_is_null).rows() == rows
    assert found[LINE_OF_ROW].to_list() == [1, *([3] if "\n\n" in text else [2])][: len(rows)]


@given(st.text('ab"\n\r,', max_size=14))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_quotes_are_read_as_pythons_parser_does_or_refused_with_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(f'u,"i"\n{text}'.encode())
    try:
        records = [record for record in csv.reader(io.StringIO(text, newline=""), strict=True) if record]
    except csv.Error:
        records = [[]]
    if any(len(record) != 2 for record in records):
        assert "line" in message(tmp_path, "a.csv")
        return
    found = read(tmp_path, "a.csv").frame.collect()
    assert found.select(pl.col("u", "i").fill_null("")).rows() == [tuple(record) for record in records]


def test_a_panic_of_the_parser_is_damage_in_the_source() -> None:
    with pytest.raises(InputError, match=r"a\.parquet: the rows cannot be read .*\n.*left: 0"), reading("a.parquet"):
        raise pl.exceptions.PanicException("left: 0")
