"""Boundaries found by counting are those found by sorting, however few rows may be in memory."""

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kgrec.data.order_statistics import streamed_boundaries
from kgrec.data.split import SplitConfig, SplitKind, assign_parts, find_boundaries
from kgrec.data.split_rule import find_rule
from kgrec.errors import InputError
from tests.data.test_split import START, log

INSTANT = (START + timedelta(days=12)).isoformat()
CONFIGS = [
    SplitConfig(),
    SplitConfig(validation=0.3, test=0.25),
    SplitConfig(validation=0.05, test=0.6),
    SplitConfig(validation=0.2, test=INSTANT),
    SplitConfig(validation=INSTANT, test=(START + timedelta(days=20, microseconds=1)).isoformat()),
]


def said(call):
    """Return what a call returns, or the text of its refusal."""
    try:
        return call()
    except InputError as error:
        return str(error)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.none() | st.integers(0, 30) | st.floats(0, 30), min_size=1, max_size=40), st.sampled_from(CONFIGS),
    st.integers(1, 5),
)  # fmt: skip
def test_counting_finds_what_sorting_finds(days, config, at_once):
    frame = log(days)
    assume(frame["time"].count())  # a log without any time is not split by time
    expected = said(lambda: find_boundaries(frame["time"], config))
    assert said(lambda: streamed_boundaries(frame.lazy(), config, at_once)) == expected


def test_many_rows_of_a_wide_span_need_more_than_one_look(monkeypatch):
    """Two clusters of times far apart: the first histogram cannot tell the times of one cluster from each other."""
    days = [k / 1e6 for k in range(500)] + [10_000 + k / 1e6 for k in range(500)]
    frame = log(days)
    looks = []
    original = pl.LazyFrame.group_by
    monkeypatch.setattr(pl.LazyFrame, "group_by", lambda self, *by: looks.append(by) or original(self, *by))
    found = streamed_boundaries(frame.lazy(), SplitConfig(validation=0.2, test=0.2), 10)
    assert found == find_boundaries(frame["time"], SplitConfig(validation=0.2, test=0.2))
    assert len(looks) > 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.none() | st.integers(0, 20), min_size=1, max_size=30), st.integers(1, 40))
def test_the_rule_gives_the_parts_that_holding_all_rows_gives(days, at_once):
    frame = log(days)
    assume(frame["time"].count())
    done = said(lambda: assign_parts(frame, SplitConfig(), 7, has_time=True))
    rule = said(lambda: find_rule(frame.lazy(), SplitConfig(), has_time=True, at_once=at_once))
    if isinstance(done, str):
        assert rule == done
        return
    assert frame.select(rule.part.alias("part"))["part"].equals(done.parts)
    assert rule.summary == done.summary


def test_the_rule_of_a_column_is_the_column_and_tells_of_overlaps():
    config = SplitConfig(kind="column")
    frame = log([3, 1, 2, 4], parts=["train", "validation", "test", "train"])
    rule = find_rule(frame.lazy(), config, has_time=True, at_once=1)
    done = assign_parts(frame, config, 7, has_time=True)
    assert rule.summary == done.summary
    assert rule.warnings[0].startswith("2 of 2 train rows that do not come before the first validation row")
    assert frame.select(rule.part.alias("part"))["part"].equals(done.parts)


@pytest.mark.parametrize(
    "config",
    [SplitConfig(kind="random"), SplitConfig(kind="user_time"), SplitConfig(kind="column")],
    ids=lambda config: config.kind,
)
def test_what_needs_all_rows_has_no_rule(config):
    frame = log([1, 2, 3], parts=["train", "train", "test"])
    assert find_rule(frame.lazy(), config, has_time=True, at_once=10) is None
    assert find_rule(frame.lazy(), SplitConfig(), has_time=False, at_once=10) is None
    assert find_rule(frame.lazy(), SplitConfig(kind=SplitKind.TIME), has_time=True, at_once=10) is not None
