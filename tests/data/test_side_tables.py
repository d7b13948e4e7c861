from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from kgrec.data.side_tables import ItemsConfig, UsersConfig
from kgrec.errors import InputError
from tests.data.ingesting import CLICKS, run, table


def write(base: Path, **tables: str) -> None:
    for name, text in {"log": CLICKS, **tables}.items():
        (base / f"{name}.csv").write_text(text)


def test_users_of_the_log_come_first_then_those_of_the_table(tmp_path: Path) -> None:
    write(tmp_path)
    pl.DataFrame({"id": ["z", "b"], "age": [30, 40], "unused": [1, 2]}).write_parquet(tmp_path / "users.parquet")
    facts = run(tmp_path, {"path": "log.csv"}, {"path": "users.parquet", "id": "id", "features": ["age"]})
    users = table(tmp_path, "users")
    assert users.rows() == [("a", None), ("b", 40), ("z", 30)]
    assert users.schema["age"] == pl.Int64
    assert facts["users"] == 3


def test_items_keep_titles_and_types(tmp_path: Path) -> None:
    write(tmp_path)
    pl.DataFrame(
        {"item": ["y", "new"], "name": [" The Y ", " "], "tags": [["p"], ["q", "r"]], "year": [1999, None]}
    ).write_parquet(tmp_path / "items.parquet")
    run(tmp_path, {"path": "log.csv"}, items={"path": "items.parquet", "title": "name", "features": ["tags", "year"]})
    items = table(tmp_path, "items")
    assert items.columns == ["item", "title", "tags", "year"]
    assert items.rows() == [
        ("x", None, None, None),
        ("y", "The Y", ["p"], 1999),
        ("new", None, ["q", "r"], None),
    ]


def test_a_title_column_is_found_without_being_named(tmp_path: Path) -> None:
    write(tmp_path, items="item,title\nx,The X\n")
    run(tmp_path, {"path": "log.csv"}, items={"path": "items.csv"})
    assert table(tmp_path, "items").rows() == [("x", "The X"), ("y", None)]


def test_without_a_table_items_have_no_title(tmp_path: Path) -> None:
    write(tmp_path)
    run(tmp_path, {"path": "log.csv"})
    assert table(tmp_path, "items").rows() == [("x", None), ("y", None)]
    assert table(tmp_path, "users").rows() == [("a",), ("b",)]


def test_repeated_and_blank_ids(tmp_path: Path) -> None:
    write(tmp_path, users="user,age\na,1\na,2\n ,3\n,4\n")
    with pytest.raises(InputError) as caught:
        run(tmp_path, {"path": "log.csv"}, {"path": "users.csv"})
    text = str(caught.value)
    assert "users.csv: blank user id (2 times)\n  example: users.csv line 3:" in text
    assert "users.csv: repeated user id (1 time)\n  example: users.csv line 2:" in text
    facts = run(tmp_path, {"path": "log.csv"}, {"path": "users.csv", "features": ["age"], "tolerated": 0.75})
    assert facts["inputs"]["users"]["kept"] == 1
    assert table(tmp_path, "users").rows() == [("a", "1"), ("b", None)]


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path, items="item,title\nx,The X\n")
    with pytest.raises(InputError) as caught:
        run(tmp_path, {"path": "log.csv"}, items={"path": "items.csv", "id": "itm", "features": ["titel"]})
    assert "set items.id: did you mean 'item'?" in str(caught.value)
    assert "set items.features: did you mean 'title'?" in str(caught.value)


def test_features_may_not_be_called_like_ids() -> None:
    with pytest.raises(ValidationError):
        UsersConfig(path="u.csv", features=("user",))
    with pytest.raises(ValidationError):
        ItemsConfig(path="i.csv", features=("title",))
    with pytest.raises(ValidationError):
        ItemsConfig(path="i.csv", features=("year", "year"))
