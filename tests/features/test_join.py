from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.errors import InputError
from kgrec.features.join import TimedFeatures, point_in_time_join

START = datetime(2024, 3, 30, 22, tzinfo=UTC)  # the clocks of Europe change in the night after
EVENT_TYPES = {"user": pl.String, "item": pl.Int64, "time": pl.Datetime("us", "UTC")}
ROW_TYPES = {"user": pl.String, "item": pl.Int32, "known_at": pl.Datetime("us", "UTC"), "n": pl.Int64}
instants = st.one_of(st.none(), st.integers(0, 9).map(lambda n: START + timedelta(hours=n)))
users, items = st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None])


def slowly(event, rows, keys, ttl):
    """Look at one event alone."""
    if event["time"] is None or any(event[key] is None for key in keys):
        return None
    found, at = None, None
    for row in rows:
        if row["known_at"] is None or any(row[key] != event[key] for key in keys):
            continue
        if row["known_at"] < event["time"] and (at is None or row["known_at"] >= at):
            found, at = row["n"], row["known_at"]
    return None if at is not None and ttl is not None and event["time"] - at > ttl else found


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"user": users, "item": items, "time": instants}), max_size=12),
    st.lists(st.fixed_dictionaries({"user": users, "item": items, "known_at": instants}), max_size=12),
    st.sampled_from([None, timedelta(hours=2)]),
    st.sampled_from(["UTC", "Europe/Kyiv"]),
)
def test_every_event_agrees_with_looking_at_it_alone(events, rows, ttl, zone):
    rows = [row | {"n": n} for n, row in enumerate(rows)]
    frame = pl.DataFrame(rows, schema=ROW_TYPES, orient="row")
    frame = frame.with_columns(pl.col("known_at").dt.convert_time_zone(zone))
    asked = pl.DataFrame(events, schema=EVENT_TYPES, orient="row")
    tables = [TimedFeatures("u", ("user",), frame.drop("item"), ttl), TimedFeatures("ui", ("user", "item"), frame)]
    found = point_in_time_join(asked, tables)
    assert found.select(asked.columns).equals(asked)
    assert found["u__n"].to_list() == [slowly(event, rows, ["user"], ttl) for event in events]
    assert found["ui__n"].to_list() == [slowly(event, rows, ["user", "item"], None) for event in events]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"shop": items, "item": items, "time": instants}), max_size=12),
    st.lists(st.fixed_dictionaries({"shop": items, "item": items, "known_at": instants}), max_size=12),
    st.sampled_from([None, timedelta(hours=2)]),
    st.sampled_from([(0, 1), (-7, 3), (0, 2**40), (-(2**62), 2**61)]),  # small, negative, beyond 63 bits together
)
def test_whole_numbers_for_keys_agree_too(events, rows, ttl, places):
    low, step = places
    for one in (*events, *rows):
        one |= {key: None if one[key] is None else low + step * one[key] for key in ("shop", "item")}
    rows = [row | {"n": n} for n, row in enumerate(rows)]
    frame = pl.DataFrame(rows, schema={"shop": pl.Int64, **ROW_TYPES, "item": pl.Int64}, orient="row").drop("user")
    asked = pl.DataFrame(events, schema={"shop": pl.Int64, "item": pl.Int64, "time": EVENT_TYPES["time"]}, orient="row")
    tables = [TimedFeatures("i", ("item",), frame.drop("shop"), ttl), TimedFeatures("si", ("shop", "item"), frame, ttl)]
    found = point_in_time_join(asked, tables)
    assert found["i__n"].to_list() == [slowly(event, rows, ["item"], ttl) for event in events]
    assert found["si__n"].to_list() == [slowly(event, rows, ["shop", "item"], ttl) for event in events]


def test_a_planted_future_value_is_never_seen():
    events = pl.DataFrame({"item": [1, 1], "time": [START, START + timedelta(hours=2)]})
    rows = pl.DataFrame({"item": [1, 1], "known_at": [START, START + timedelta(hours=3)], "n": [1, 666]})
    assert point_in_time_join(events, [TimedFeatures("t", ("item",), rows)])["t__n"].to_list() == [None, 1]


def test_faults_of_all_tables_come_together():
    events = pl.DataFrame({"item": [1], "time": ["yesterday"], "t__n": [0]})
    rows = pl.DataFrame({"item": [1], "known_at": [START], "n": [1]})
    tables = [TimedFeatures("t", ("item",), rows), TimedFeatures("s", ("usr",), rows.drop("known_at"))]
    with pytest.raises(InputError) as caught:
        point_in_time_join(events, tables)
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("events", "the column 'time' is no time but String"),
        ("feature table 't'", "the column 't__n' is there already"),
        ("feature table 's'", "no column 'usr'"),
        ("feature table 's'", "no column 'known_at'"),
        ("events", "no column 'usr'"),
    ]
