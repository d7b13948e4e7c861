from datetime import UTC, datetime, timedelta
from math import log1p
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.columns import PART_TYPE, TIME_TYPE
from kgrec.features.latest import LatestFeatures
from kgrec.features.point_in_time import build_features
from kgrec.features.view import Count, DistinctCount, FeatureView, Of, Rate, Recency

START = datetime(2024, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
SEES = {"train": ("train",), "validation": ("train",), "test": ("train", "validation")}
EVERY = tuple(Of)
RATED = tuple(of for of in Of if of is not Of.ROWS)


def view(name: str, *keys: str, lookback: timedelta | None = None, distinct: bool = False) -> FeatureView:
    features: tuple[Any, ...] = (
        *(Count(of) for of in EVERY),
        *(Rate(of, strength=3.0) for of in RATED),
        *(Recency(of) for of in EVERY),
    )
    if distinct:
        features += (DistinctCount("item_row", Of.CLICK),)
    return FeatureView(name, keys, features, lookback, "what", "who")


VIEWS = (
    view("user", "user_row", distinct=True),
    view("item_hour", "item_row", lookback=timedelta(hours=2)),
    view("tab_user", "user_row", "context:*"),
    view("maker", "item:*"),
)
SIDE_ITEMS = pl.DataFrame({"item_row": [0, 1, 2], "maker": ["a", "a", "b"]}, schema_overrides={"item_row": pl.Int32})


def happened(row: dict[str, Any], of: Of) -> bool:
    if of is Of.ROWS:
        return True
    if of is Of.CONVERSION_GIVEN_CLICK:
        return row["click"] is True and row["conversion"] is True
    return row[of.value] is True


def labelled(row: dict[str, Any], of: Of) -> bool:
    if of is Of.ROWS:
        return True
    if of is Of.CONVERSION_GIVEN_CLICK:
        return row["click"] is True and row["conversion"] is not None
    return row[of.value] is not None


def slowly(world: list[dict[str, Any]], row: dict[str, Any], one: FeatureView) -> list[float | None]:
    """Look at one row alone: pick what it may see by hand, then count."""
    may_see = [other for other in world if other["part"] in SEES[row["part"]] and other["time"] is not None]
    if row["time"] is None:
        before, at = [], START
    else:
        at = row["time"]
        if row["part"] != "train" and may_see:
            at = min(at, max(other["time"] for other in may_see) + TICK)
        before = [other for other in may_see if other["time"] < at]
    keyed = [] if any(row[key] is None for key in one.keys) else before
    keyed = [other for other in keyed if all(other[key] == row[key] for key in one.keys)]
    keyed = [other for other in keyed if one.lookback is None or other["time"] >= at - one.lookback]
    values: list[float | None] = []
    for feature in one.features:
        hits = [other for other in keyed if happened(other, feature.of)]
        if isinstance(feature, Count):
            values.append(len(hits))
        elif isinstance(feature, DistinctCount):
            values.append(len({other[feature.column] for other in hits}))
        elif isinstance(feature, Recency):
            last = max((other["time"] for other in hits), default=None)
            values.append(None if last is None else log1p((at - last).total_seconds()))
        else:
            every = [other for other in before if labelled(other, feature.of)]
            prior = (sum(happened(other, feature.of) for other in every) + 1) / (len(every) + 2)
            base = sum(labelled(other, feature.of) for other in keyed)
            values.append((len(hits) + feature.strength * prior) / (base + feature.strength))
    return values


def as_frame(world: list[dict[str, Any]]) -> pl.DataFrame:
    schema = {
        "user_row": pl.Int32, "item_row": pl.Int32, "tab": pl.Int64, "time": TIME_TYPE, "click": pl.Boolean,
        "conversion": pl.Boolean, "part": PART_TYPE,
    }  # fmt: skip
    return pl.DataFrame([{key: row[key] for key in schema} for row in world], schema=schema, orient="row")


label = st.sampled_from([True, False, None])
row = st.fixed_dictionaries(
    {
        "user_row": st.integers(0, 2),
        "item_row": st.integers(0, 2),
        "tab": st.sampled_from([1, 2, None]),
        "time": st.one_of(st.none(), st.integers(0, 12).map(lambda half: START + timedelta(minutes=30 * half))),
        "click": label,
        "conversion": label,
        "part": st.sampled_from(list(SEES)),
    }
)
anchor = {"user_row": 0, "item_row": 0, "tab": 1, "time": START, "click": True, "conversion": None, "part": "train"}
anchors = [anchor, anchor | {"tab": 2, "time": START + TICK}] * 2


@settings(max_examples=30, deadline=None)
@given(st.lists(row, max_size=25))
def test_every_row_agrees_with_looking_at_it_alone(rows):
    world = [dict(one) for one in [*anchors, *rows]]
    tables = build_features(VIEWS, as_frame(world), None, SIDE_ITEMS, context=["tab"])
    assert not tables.left_out
    for one in world:
        one["item:maker"] = SIDE_ITEMS["maker"][one["item_row"]]
    names = {"user": "user", "item_hour": "item_hour", "tab_user": "tab_user_tab", "maker": "maker_maker"}
    keys = {"tab_user": ("user_row", "tab"), "maker": ("item:maker",)}
    for declared in VIEWS:
        plain = FeatureView(
            names[declared.name], keys.get(declared.name, declared.keys), declared.features, declared.lookback, "", ""
        )
        expected = np.array([slowly(world, one, plain) for one in world], dtype=float)
        found = tables.rows.select(plain.columns).to_numpy().astype(float)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=declared.name)


def planted(**changes: Any) -> list[dict[str, Any]]:
    rows = [
        anchor
        | {"time": START + timedelta(hours=hour), "conversion": hour % 2 == 0, "user_row": hour % 2, "part": part}
        for hour, part in enumerate(["train"] * 6 + ["validation"] * 2 + ["test"] * 3)
    ]
    rows[changes.pop("at", 0)].update(changes)
    return rows


@pytest.mark.parametrize(("changed", "first_to_see"), [(5, 6), (7, 8), (8, 11), (10, 11)])
def test_a_label_is_seen_only_after_it_and_never_within_its_own_test_part(changed, first_to_see):
    before = build_features(VIEWS, as_frame(planted()), None, SIDE_ITEMS, context=["tab"]).rows
    after = build_features(VIEWS, as_frame(planted(at=changed, click=False)), None, SIDE_ITEMS, context=["tab"]).rows
    assert before.head(first_to_see).equals(after.head(first_to_see))
    if first_to_see < 11:
        assert not before.slice(first_to_see).equals(after.slice(first_to_see))


def test_order_of_input_rows_does_not_matter_and_answers_stay_aligned():
    world = as_frame(planted())
    order = np.random.default_rng(0).permutation(world.height)
    straight = build_features(VIEWS, world, None, SIDE_ITEMS, context=["tab"]).rows
    shuffled = build_features(VIEWS, world[order], None, SIDE_ITEMS, context=["tab"]).rows
    assert shuffled.equals(straight[order])


def test_test_rows_of_a_split_by_time_read_what_is_served_after_training_on_the_rest():
    world = as_frame(planted())
    past = world.filter(pl.col("part") != "test")
    views = (VIEWS[0], view("item", "item_row", lookback=timedelta(hours=3)))
    offline = build_features(views, world).rows.filter(world["part"] == "test")
    served = build_features(views, past).latest.look_up(world.filter(pl.col("part") == "test"))
    assert served.equals(offline)


def test_latest_values_are_saved_looked_up_and_defaulted(tmp_path):
    tables = build_features(VIEWS, as_frame(planted()), None, SIDE_ITEMS, context=["tab"])
    tables.latest.save(tmp_path)
    loaded = LatestFeatures.load(tmp_path)
    requests = pl.DataFrame(
        {"user_row": [0, 9, None], "item_row": [0, 0, 2], "tab": [1, 1, 7], "time": [START] * 3},
        schema_overrides={"user_row": pl.Int32, "item_row": pl.Int32, "time": TIME_TYPE},
    )
    answers = loaded.look_up(requests, None, SIDE_ITEMS, context=["tab"])
    assert answers.columns == tables.rows.columns
    assert answers.equals(tables.latest.look_up(requests, None, SIDE_ITEMS, context=["tab"]))
    assert answers["user__rows_count"].to_list() == [6.0, 0.0, 0.0]
    assert answers["user__click_rate"].to_list()[1:] == pytest.approx([12 / 13] * 2)
    assert answers["user__rows_recency"].to_list()[1:] == [None, None]
    assert answers["maker_maker__rows_count"].to_list() == [11.0, 11.0, 0.0]
    assert answers["item:maker"].to_list() == ["a", "a", "b"]


def test_what_the_data_does_not_have_is_left_out_and_named():
    world = as_frame(planted()).drop("conversion")
    views = (*VIEWS[:2], view("device", "device"), view("country", "user:country"))
    tables = build_features(views, world)
    assert {"device", "country", "user__conversion_count"} <= set(tables.left_out)
    assert "user__conversion_rate" not in tables.rows.columns
    assert "user__click_rate" in tables.rows.columns


@pytest.mark.parametrize("timeless", [lambda f: f.drop("time"), lambda f: f.with_columns(time=pl.lit(None, TIME_TYPE))])
def test_without_time_there_are_no_aggregates(timeless):
    tables = build_features(VIEWS, timeless(as_frame(planted())), None, SIDE_ITEMS, context=["tab"])
    assert tables.aggregates == ()
    assert set(tables.left_out) == {one.name for one in VIEWS}
    assert {"tab", "item:maker"} <= set(tables.rows.columns)
    assert tables.rows.height == 11
