"""Each alarm goes off on a planted leak, and stays silent on the honest log beside it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from kgrec import columns as c
from kgrec.evaluation.leaks import (
    inverse_alarms,
    label_alarms,
    part_alarms,
    relation_alarms,
    statistic_alarms,
    telling_alarms,
    telling_categories,
    twin_alarms,
)

START = datetime(2024, 1, 1, tzinfo=UTC)


def log(timed=True, extra=()):
    """Thirty users, a different dozen of forty items each, in order of time, the last three of each in test."""
    generator = np.random.default_rng(4)
    rows = []
    for user in range(30):
        for place, item in enumerate(generator.choice(40, 12, replace=False)):
            part = c.TEST if place >= 9 else c.VALIDATION if place == 8 else c.TRAIN
            rows.append((user, int(item), user * 1_000 + place, float(generator.integers(1, 6)), part))
    schema = {
        c.USER_ROW: c.ROW_TYPE,
        c.ITEM_ROW: c.ROW_TYPE,
        "hour": pl.Int64,
        c.VALUE: pl.Float32,
        c.PART: c.PART_TYPE,
    }
    frame = pl.DataFrame([*rows, *extra], schema=schema, orient="row")
    time = pl.lit(START) + pl.duration(hours="hour") if timed else pl.lit(None)
    return frame.with_columns(time.cast(c.TIME_TYPE).alias(c.TIME), (pl.col(c.VALUE) >= 4).alias(c.CONVERSION)).drop(
        "hour"
    )


def names(alarms):
    return [alarm.name for alarm in alarms]


@pytest.mark.parametrize("timed", [True, False])
def test_an_honest_log_sets_nothing_off(timed):
    events = log(timed)
    assert part_alarms(events, by_time=True) == twin_alarms(events) == []
    train = events.filter(pl.col(c.PART) == c.TRAIN)
    for key in (c.USER_ROW, c.ITEM_ROW):
        honest = train.group_by(key).agg(pl.len().alias("count"), pl.col(c.VALUE).mean().alias("mean"))
        age = pl.Series("age", np.random.default_rng(0).integers(18, 60, honest.height))
        assert statistic_alarms(honest.with_columns(age), key, events) == []


@pytest.mark.parametrize("timed", [True, False])
def test_an_event_in_train_and_test(timed):
    first = log(timed).filter(pl.col(c.PART) == c.TEST)[0]
    copy = first.with_columns(pl.lit(c.TRAIN, c.PART_TYPE).alias(c.PART))
    alarms = part_alarms(pl.concat([log(timed), copy]), by_time=False)
    assert (names(alarms), alarms[0].count) == (["overlap"], 1)
    assert f"item_row {first[c.ITEM_ROW][0]}" in alarms[0].example


def test_a_repeat_at_another_time_is_no_overlap():
    first = log().filter(pl.col(c.PART) == c.TEST)[0]
    earlier = first.with_columns(pl.lit(c.TRAIN, c.PART_TYPE).alias(c.PART), pl.col(c.TIME) - timedelta(days=3))
    assert part_alarms(pl.concat([log(), earlier]), by_time=True) == []


def test_training_on_the_future():
    late = log(extra=[(3, 39, 3_900, 1.0, c.TRAIN)])
    alarms = part_alarms(late, by_time=True)
    assert (names(alarms), alarms[0].count) == (["future"], 1)
    assert part_alarms(late, by_time=False) == [], "a split at random promises nothing, and is labelled so"


@pytest.mark.parametrize("timed", [True, False])
def test_one_person_under_two_ids(timed):
    events = log(timed)
    twin = events.filter(pl.col(c.USER_ROW) == 4).with_columns(pl.lit(77, c.ROW_TYPE).alias(c.USER_ROW))
    alarms = twin_alarms(pl.concat([events, twin]))
    assert (names(alarms), alarms[0].count) == (["duplicated users"], 2)
    assert "[4, 77]" in alarms[0].example


@pytest.mark.parametrize("key", [c.USER_ROW, c.ITEM_ROW])
@pytest.mark.parametrize("made", [pl.len().log(), pl.col(c.VALUE).mean(), pl.col(c.CONVERSION).mean()])
def test_a_statistic_of_the_whole_log_among_the_columns(key, made):
    extra = [(user, user + 1, 90_000 + user, 5.0, c.TEST) for user in range(0, 30, 2) for _ in range(user)]
    events = log(extra=extra)
    whole = events.group_by(key).agg(made.cast(pl.String).alias("told"))  # as text files hold it
    alarms = statistic_alarms(whole, key, events)
    assert names(alarms) == ["statistics over test"]
    assert alarms[0].example.startswith("told")


def test_a_label_among_the_features():
    assert names(label_alarms(["hour", "is_click"], {"is_click", "long_view"})) == ["label among features"]
    assert label_alarms(["hour"], {"is_click"}) == []


def test_a_feature_that_tells_the_label():
    generator = np.random.default_rng(5)
    label = (generator.random(400) < 0.3).astype(float)
    codes = np.stack([label.astype(int) + 1, generator.integers(0, 5, 400), np.arange(400)], axis=1)
    train = np.arange(400) < 200
    found = telling_categories(codes, ["told", "tab", "row"], {"click": label}, train, ~train)
    assert set(found) == {"told"}
    assert names(telling_alarms(found)) == ["telling feature"]
    few = np.arange(400) >= 385
    assert telling_categories(codes, ["told", "tab", "row"], {"click": label}, train, few) == {}
    assert telling_alarms({}) == []


def test_relations_that_the_guard_found():
    assert names(relation_alarms({"also_bought": "its name says so"})) == ["target-derived triples"]
    assert relation_alarms({}) == []


def test_triples_that_train_says_the_other_way_round():
    assert inverse_alarms(0, {}) == []
    (alarm,) = inverse_alarms(7, {"has_part / part_of": 5, "part_of / has_part": 2})
    assert (alarm.name, alarm.count, alarm.example) == ("inverse triples across the split", 7, "has_part / part_of: 5")
    assert "knowledge.merging.inverses" in alarm.remedy
