from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.artifacts import hash_file
from kgrec.columns import PART_TYPE, TIME_TYPE
from kgrec.errors import ArtifactError, InputError
from kgrec.features.by_day import KIND, FeatureDays
from kgrec.features.derived import Derived, How
from kgrec.features.point_in_time import build_features
from kgrec.features.view import EVENTS, Count, DecayedCount, DistinctCount, FeatureView, LastValues, Of, Rate, Recency
from tests.features.looking_at_one_row import START

EACH = (Count(), Count(Of.CLICK), Rate(Of.CLICK, 3.0), Recency(), Recency(Of.CLICK), LastValues("item_row", 2))
ALL_TIME = (DecayedCount(timedelta(hours=30), Of.CLICK), DistinctCount("item_row"), DistinctCount("tab", Of.CLICK))
VIEWS = (
    FeatureView("user", ("user_row",), EACH + ALL_TIME, None, "what", "who"),
    FeatureView("fresh", ("user_row",), (*EACH, *ALL_TIME), None, "what", "who", ttl=timedelta(hours=20)),
    FeatureView("item", ("item_row", "context:*"), EACH, timedelta(hours=40), "what", "who"),
    FeatureView("pair", ("user_row", "item_row"), EACH, None, "what", "who"),
    Derived("trend", How.RATIO, ("item_tab__click_rate", "user__click_rate"), "what", "who"),
)
DECAYED = ["user__click_decayed_108000s", "fresh__click_decayed_108000s"]


def log(rows):
    """rows: (user, item, tab, quarter of a day, click)."""
    return pl.DataFrame(
        {
            "user_row": [row[0] for row in rows], "item_row": [row[1] for row in rows], "tab": [row[2] for row in rows],
            "time": [START + timedelta(hours=6 * row[3]) for row in rows], "click": [row[4] for row in rows],
        },
        schema={"user_row": pl.Int32, "item_row": pl.Int32, "tab": pl.Int64, "time": TIME_TYPE, "click": pl.Boolean},
    )  # fmt: skip


def random_log(days, a_day, seed=0):
    draw = np.random.default_rng(seed)
    count = days * a_day
    return log(
        [
            (int(u), int(i), int(t), quarter * 4 * days / count, bool(c))
            for quarter, (u, i, t, c) in enumerate(draw.integers(0, [9, 7, 3, 2], (count, 4)))
        ]
    )


rows_of_log = st.tuples(
    st.sampled_from([0, 1, None]), st.integers(0, 1), st.sampled_from([1, 2, None]), st.integers(0, 18),
    st.sampled_from([True, False, None]),
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.lists(rows_of_log, min_size=4, max_size=16))
def test_day_by_day_is_all_at_once(tmp_path_factory, rows):
    world = log([*rows, (0, 0, 1, 0, True), (0, 0, 1, 1, True), (0, 0, 2, 1, False), (0, 0, 2, 0, False)])
    days = FeatureDays(tmp_path_factory.mktemp("days"))
    assert not days.backfill(VIEWS, world, context=["tab"]).left_out
    at_once = build_features(VIEWS, world.with_columns(part=pl.lit("train", PART_TYPE)), context=["tab"])
    order = world.with_row_index().sort("time", maintain_order=True)["index"]
    expected = at_once.rows[order].select(at_once.aggregates)
    found = days.read().select(at_once.aggregates)
    assert found.drop(DECAYED).equals(expected.drop(DECAYED))
    np.testing.assert_allclose(found.select(DECAYED).to_numpy(), expected.select(DECAYED).to_numpy(), rtol=1e-6)


def test_one_more_day_costs_a_day_and_gives_the_same_bits(tmp_path):
    world = random_log(days=8, a_day=40)
    last = world["time"].dt.date().max()
    grown, whole = FeatureDays(tmp_path / "grown"), FeatureDays(tmp_path / "whole")
    first = grown.backfill(VIEWS, world.filter(pl.col("time").dt.date() < last), context=["tab"])
    second = grown.backfill(VIEWS, world, context=["tab"])
    assert (len(first.computed), second.computed) == (7, (last,))
    assert second.reused == first.computed
    assert grown.backfill(VIEWS, world, context=["tab"]).computed == ()
    assert whole.backfill(VIEWS, world, context=["tab"]).snapshot == second.snapshot
    files = [{path.relative_to(root): hash_file(path) for path in (root / KIND).rglob("*.parquet")}
             for root in (tmp_path / "grown", tmp_path / "whole")]  # fmt: skip
    assert files[0] == files[1]
    assert len(files[0]) > 8
    assert grown.read(first.snapshot).equals(grown.read().head(280))


def test_a_late_event_reopens_its_day_and_those_after_it_until_nothing_changes(tmp_path):
    world = random_log(days=6, a_day=10)
    days = FeatureDays(tmp_path)
    windowed = [FeatureView("recent", ("user_row",), EACH[:2], timedelta(days=1), "what", "who")]
    for views, reopened in ((VIEWS, 4), (windowed, 2)):
        before = days.backfill(views, world, context=["tab"])
        late = pl.concat([world, log([(0, 0, 1, 9, True)])])  # the third day, 30 March counted as the first
        again = days.backfill(views, late, context=["tab"])
        opened = sorted({*before.computed, *before.reused})
        assert list(again.computed) == [day for day in opened if day >= date(2024, 1, 3)][:reopened]
        assert days.read().height == world.height + 1
        assert days.read(before.snapshot).height == world.height


def test_what_cannot_be_kept_by_day_is_named(tmp_path):
    foreign = FeatureView("did", ("user_row",), (Count(),), None, "what", "who", source=EVENTS)
    bought = FeatureView("bought", ("user_row",), (Count(Of.CONVERSION),), None, "what", "who")
    world = random_log(days=2, a_day=4)
    undated = pl.concat([world, world.head(1).with_columns(time=pl.lit(None, TIME_TYPE))])
    report = FeatureDays(tmp_path).backfill([*VIEWS[:1], foreign, bought], undated, context=["tab"])
    assert set(report.left_out) == {"did", "bought"}
    assert report.undated == 1
    with pytest.raises(InputError, match="no time"):
        FeatureDays(tmp_path).backfill(VIEWS, world.drop("time"))


def test_a_damaged_day_and_a_table_that_never_was_are_refused(tmp_path):
    days = FeatureDays(tmp_path)
    with pytest.raises(ArtifactError, match="no table"):
        days.read()
    days.backfill(VIEWS[:1], random_log(days=2, a_day=4), context=["tab"])
    rows = next((tmp_path / KIND).rglob("rows.parquet"))
    rows.write_bytes(rows.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match="content differs"):
        days.read()


@settings(max_examples=8, deadline=None)
@given(st.lists(rows_of_log, min_size=2, max_size=16))
def test_the_online_table_is_what_a_row_at_the_days_end_would_read(tmp_path_factory, rows):
    world = log([*rows, (0, 0, 1, 0, True), (0, 0, 1, 1, True), (1, 1, 2, 5, False), (0, 0, 2, 0, False)])
    days = FeatureDays(tmp_path_factory.mktemp("days"))
    done = days.backfill(VIEWS, world, context=["tab"])
    days.write_online(done)
    midnight = max(days.days()) + timedelta(days=1)
    quarter = (midnight - START.date()).days * 4
    asked = log([(user, item, tab, quarter, None) for user in (0, 1, 7) for item in (0, 1, 7) for tab in (1, 2, None)])
    everything = pl.concat([world, asked]).with_columns(part=pl.lit("train", PART_TYPE))
    expected = build_features(VIEWS, everything, context=["tab"])
    found = days.open_online().look_up(asked, context=["tab"])
    assert found.columns == expected.rows.columns
    expected = expected.rows.tail(asked.height)
    assert found.drop(DECAYED).equals(expected.drop(DECAYED))
    np.testing.assert_allclose(found.select(DECAYED).to_numpy(), expected.select(DECAYED).to_numpy(), rtol=1e-5)


def test_the_online_pointer_moves_with_the_log_and_nothing_is_written_twice(tmp_path):
    world = random_log(days=4, a_day=12)
    days = FeatureDays(tmp_path)
    with pytest.raises(ArtifactError, match="no online table"):
        days.open_online()
    last = world["time"].dt.date().max()
    first = days.write_online(days.backfill(VIEWS, world.filter(pl.col("time").dt.date() < last), context=["tab"]))
    before = days.open_online().views[0].table
    again = days.backfill(VIEWS, world, context=["tab"])
    assert days.open_online().views[0].table.equals(before), "until it is written the former one is read"
    second = days.write_online(again)
    assert first != second
    assert days.write_online(days.backfill(VIEWS, world, context=["tab"])) == second
    assert days.open_online().views[0].table["user__rows_count"].sum() == world.height
