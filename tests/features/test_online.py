import time
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from feature_store.catalog import OPTIONAL_VIEWS, VIEWS
from kgrec.columns import PART_TYPE, TIME_TYPE
from kgrec.errors import ArtifactError
from kgrec.features.latest import LatestFeatures
from kgrec.features.point_in_time import build_features
from tests.features.looking_at_one_row import START

KEYS = 10_000
SIDE_ITEMS = pl.DataFrame({"item_row": range(200), "author": [f"a{n % 40}" for n in range(200)]}).cast(
    {"item_row": pl.Int32}
)
ENTITIES = pl.DataFrame(
    {"item_row": range(200), "relation": ["genre"] * 200, "entity": [str(n % 7) for n in range(200)]}
)


def world(rows=6000):
    draw = np.random.default_rng(5)
    return pl.DataFrame(
        {
            "user_row": draw.integers(0, 300, rows, np.int32), "item_row": draw.integers(0, 200, rows, np.int32),
            "tab": draw.integers(0, 4, rows), "click": draw.random(rows) < 0.5, "conversion": draw.random(rows) < 0.2,
            "time": [START + timedelta(minutes=n) for n in range(rows)],
            "part": pl.Series(["train"] * (rows * 2 // 3) + ["test"] * (rows // 3), dtype=PART_TYPE),
        },
        schema_overrides={"time": TIME_TYPE},
    )  # fmt: skip


@pytest.fixture(scope="module")
def log():
    return world()


@pytest.fixture(scope="module")
def stored(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("latest")
    past = log.filter(pl.col("part") == "train")
    tables = build_features(
        (*VIEWS, *OPTIONAL_VIEWS),
        past,
        None,
        SIDE_ITEMS,
        context=["tab"],
        events=past,
        entities=ENTITIES.cast({"item_row": pl.Int32}),
    )
    assert not tables.left_out
    tables.latest.save(folder)
    return tables.latest, LatestFeatures.load(folder), folder


def asked(rows):
    draw = np.random.default_rng(6)
    frame = pl.DataFrame(
        {
            "user_row": draw.integers(0, 330, rows, np.int32), "item_row": draw.integers(0, 220, rows, np.int32),
            "tab": draw.integers(0, 5, rows), "time": [START] * rows,
        },
        schema_overrides={"time": TIME_TYPE},
    )  # fmt: skip
    return frame.with_columns(pl.when(pl.col(name) > 1).then(name) for name in ("user_row", "item_row", "tab"))


def test_every_feature_of_ten_thousand_keys_is_the_same_online_and_offline(stored):
    offline, online, _ = stored
    requests = asked(KEYS)
    expected = offline.look_up(requests, None, SIDE_ITEMS, context=["tab"])
    found = online.look_up(requests, None, SIDE_ITEMS, context=["tab"])
    assert found.equals(expected)
    assert found.schema == expected.schema
    assert found.width > 40
    assert found["user_did__click_last_10_item_row"].list.len().n_unique() > 3


def test_replayed_rows_of_the_next_part_read_online_what_the_model_was_judged_on(log, stored):
    """No skew: what the offline build says of the test rows is what the service looks up for them."""
    views = (*VIEWS, *OPTIONAL_VIEWS)
    entities = ENTITIES.cast({"item_row": pl.Int32})
    offline = build_features(views, log, None, SIDE_ITEMS, context=["tab"], events=log, entities=entities)
    test = log.filter(pl.col("part") == "test")
    served = stored[1].look_up(test, None, SIDE_ITEMS, context=["tab"])
    judged = offline.rows.filter(log["part"] == "test")
    assert served.columns == judged.columns
    assert served.equals(judged)


def test_a_thousand_keys_are_read_in_milliseconds(stored):
    online, requests = stored[1], asked(1000)
    keys = requests.with_columns(pl.col("user_row").alias("user"))
    view = next(view for view in online.views if view.name == "user_item")
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        view.find(keys)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.005


def test_a_stored_table_is_read_back_whole(stored):
    offline, online, folder = stored
    for one, other in zip(offline.views, online.views, strict=True):
        assert other.table.equals(one.table.select(other.table.columns))
    LatestFeatures(online.views, online.derived).save(folder / "again")
    again = LatestFeatures.load(folder / "again")
    assert again.views[0].table.equals(online.views[0].table)


def test_a_table_of_another_shape_is_refused(stored, tmp_path):
    stored[0].save(tmp_path)
    np.save(tmp_path / "user.values.npy", np.zeros((3, 1), np.float32))
    with pytest.raises(ArtifactError, match=r"user\.values"):
        LatestFeatures.load(tmp_path)
    (tmp_path / "item.codes.npy").unlink()
    (tmp_path / "user.values.npy").unlink()
    with pytest.raises(ArtifactError, match="no latest features"):
        LatestFeatures.load(tmp_path)
