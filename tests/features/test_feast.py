"""What is written for Feast is applied and read by a real Feast, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from feature_store.catalog import OPTIONAL_VIEWS, VIEWS
from kgrec.columns import PART_TYPE, TIME_TYPE
from kgrec.features.feast import DATA, DEFINITIONS, SETTINGS, Ids, join_key, write_feast
from kgrec.features.point_in_time import FeatureTables, build_features
from tests import worlds
from tests.calling import as_json, call
from tests.features.looking_at_one_row import START

FEAST = os.environ.get("KGREC_FEAST_PYTHON")
USERS = pl.Series([f"person {n}" for n in range(6)])
ITEMS = pl.Series([f"i{n}" for n in range(8)])
SIDE = pl.DataFrame(
    {"item_row": range(8), "author name": [f"a{n % 3}" for n in range(8)]}, schema_overrides={"item_row": pl.Int32}
)
ENTITIES = pl.DataFrame(
    {"item_row": [0, 1, 1, 5], "relation": ["genre"] * 4, "entity": ["x", "x", "y", "y"]},
    schema_overrides={"item_row": pl.Int32},
)
ASK = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
import pandas as pd
from feast.cli.cli import cli
folder = Path(sys.argv[1])
cli(["--chdir", str(folder), "apply"], standalone_mode=False)
from feast import FeatureStore
store = FeatureStore(repo_path=str(folder))
service = store.list_feature_services()[0]
events = pd.read_parquet(folder / "events.parquet")
found = store.get_historical_features(events, service, full_feature_names=True).to_df()
found.to_parquet(folder / "historical.parquet")
until = pd.Timestamp(sys.argv[2]).to_pydatetime()
store.materialize(until - timedelta(days=400), until + timedelta(seconds=1))
asked = pd.read_parquet(folder / "asked.parquet")
online = store.get_online_features(service, asked.to_dict("records"), full_feature_names=True).to_dict()
pd.DataFrame(online).to_parquet(folder / "online.parquet")
"""


def log(rows: int = 150) -> pl.DataFrame:
    draw = np.random.default_rng(8)
    return pl.DataFrame(
        {
            "user_row": draw.integers(0, 5, rows, np.int32), "item_row": draw.integers(0, 7, rows, np.int32),
            "tab": draw.integers(0, 3, rows), "click": draw.random(rows) < 0.5, "conversion": draw.random(rows) < 0.2,
            "time": [START + timedelta(hours=3 * (n // 2)) for n in range(rows)],
            "part": pl.Series(["train"] * 100 + ["validation"] * 20 + ["test"] * 30, dtype=PART_TYPE),
        },
        schema_overrides={"time": TIME_TYPE},
    )  # fmt: skip


@pytest.fixture(scope="module")
def world() -> tuple[pl.DataFrame, FeatureTables]:
    labelled = log()
    tables = build_features(
        (*VIEWS, *OPTIONAL_VIEWS), labelled, None, SIDE, context=["tab"], events=labelled, entities=ENTITIES
    )
    return labelled, tables


def ids_of(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(
        USERS.gather(rows["user_row"]).alias("user"), ITEMS.gather(rows["item_row"]).alias("item"), "tab",
        pl.col("item:author name").alias("item_author_name"),
    )  # fmt: skip


def test_sources_hold_each_rows_values_and_those_served_at_the_end(
    world: tuple[pl.DataFrame, FeatureTables], tmp_path: Path
) -> None:
    labelled, tables = world
    told = write_feast(tmp_path, "my shop-1", labelled, tables, Ids(USERS, ITEMS))
    assert set(told["views"]) == {view.name for view in tables.views}
    of_node = {column for column in tables.aggregates if column.startswith("item_node__")}
    assert set(told["left_out"]) == {"item_trend"} | of_node
    assert told["entities"] == ["user", "tab", "item", "item_author_name"]
    source = pl.read_parquet(tmp_path / DATA / "user_context_tab.parquet")
    assert source.columns == ["user", "tab", "event_timestamp", "rows_count", "click_rate",
                              "conversion_given_click_rate"]  # fmt: skip
    assert not source.select("user", "tab", "event_timestamp").is_duplicated().any()
    end = source["event_timestamp"].max()
    assert end == labelled["time"].max() + timedelta(microseconds=1)
    served = next(view for view in tables.latest.views if view.name == "user_context_tab").table
    assert source.filter(pl.col("event_timestamp") == end).height == served.height
    tied = pl.read_parquet(tmp_path / DATA / "item_neighbours.parquet").filter(pl.col("event_timestamp") == end)
    assert tied["item"].n_unique() == labelled["item_row"].n_unique(), "also of items that the graph does not know"
    assert compile((tmp_path / DEFINITIONS).read_text(), DEFINITIONS, "exec")
    assert "project: my_shop_1\n" in (tmp_path / SETTINGS).read_text()


def test_settings_of_ones_own_are_left_alone(world: tuple[pl.DataFrame, FeatureTables], tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text("project: mine\n")
    write_feast(tmp_path, "shop", *world, Ids(USERS, ITEMS))
    assert (tmp_path / SETTINGS).read_text() == "project: mine\n"


def test_a_person_without_an_id_does_not_exist_and_names_become_words() -> None:
    assert [join_key(key) for key in ("user_row", "item_row", "tab", "user:home town", "9lives")] == [
        "user", "item", "tab", "user_home_town", "kgrec_9lives",
    ]  # fmt: skip


def test_the_command_exports_the_features_of_a_config(tmp_path: Path) -> None:
    told = as_json(call("features", "export", worlds.TINY, "--feast", tmp_path / "repo", "--workspace",
                        tmp_path / "w", "--json"))  # fmt: skip
    assert told["views"] == ["user", "item", "item_last_day", "user_item"]
    users = pl.read_parquet(tmp_path / "repo" / DATA / "user.parquet")
    assert users["user"].str.starts_with("u").all()
    assert told["rows"] > users.height > 500
    timeless = call("features", "export", worlds.TINY, "--feast", tmp_path / "repo", "--workspace", tmp_path / "w",
                    "--set", 'tasks=["kg"]', "--set", 'features.backend="nowhere"')  # fmt: skip
    assert timeless.exit_code == 2


@pytest.mark.slow
@pytest.mark.skipif(FEAST is None, reason="KGREC_FEAST_PYTHON names no interpreter that has feast")
def test_a_real_feast_applies_it_and_reads_what_training_read_and_what_is_served(
    world: tuple[pl.DataFrame, FeatureTables], tmp_path: Path
) -> None:
    labelled, tables = world
    told = write_feast(tmp_path, "shop", labelled, tables, Ids(USERS, ITEMS))
    keyed = pl.concat([labelled, tables.rows.select(pl.exclude(labelled.columns))], how="horizontal")
    columns = [column for view in tables.views for column in view.columns]
    instants = keyed.select(pl.col("time").alias("event_timestamp"), *columns)
    events = pl.concat([ids_of(keyed), instants], how="horizontal").with_row_index("place")
    events = events.unique("event_timestamp", keep="last", maintain_order=True)  # of rows that tie Feast drops some
    events.drop(columns).write_parquet(tmp_path / "events.parquet")
    asked = keyed.unique(["user_row", "item_row", "tab"], maintain_order=True)
    ids_of(asked).write_parquet(tmp_path / "asked.parquet")
    done = subprocess.run([str(FEAST), "-c", ASK, str(tmp_path), told["until"]], capture_output=True, text=True,
                          check=False, env={**os.environ, "FEAST_USAGE": "False", "PYTHONPATH": ""})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    historical = pl.read_parquet(tmp_path / "historical.parquet").sort("place")
    assert historical.height == events.height == 75
    same(historical, events, columns)
    online = pl.read_parquet(tmp_path / "online.parquet")
    offline = tables.latest.look_up(asked, None, SIDE, context=["tab"])
    same(online, offline, columns)


def same(found: pl.DataFrame, expected: pl.DataFrame, columns: list[str]) -> None:
    assert len(columns) > 35
    for name in columns:
        if expected.schema[name] == pl.List(pl.String):
            assert found[name].fill_null([]).to_list() == expected[name].to_list(), name
        else:
            numbers = [one[name].cast(pl.Float32).fill_null(np.nan).to_numpy() for one in (found, expected)]
            np.testing.assert_array_equal(*numbers, err_msg=name)
