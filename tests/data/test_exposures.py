"""Labels of shown rows come from events of their own part alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from kgrec.columns import PART_TYPE
from kgrec.data.exposures import judge_within_parts

START = datetime(2024, 1, 1, tzinfo=UTC)


def table(rows: list[tuple[str, str, int, str]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": [user for user, *_ in rows],
            "item": [item for _, item, *_ in rows],
            "time": pl.Series([START + timedelta(hours=hour) for *_, hour, _ in rows], dtype=pl.Datetime("us", "UTC")),
            "part": pl.Series([part for *_, part in rows], dtype=PART_TYPE),
        }
    )


def test_a_purchase_after_a_view_converts_it_and_one_in_a_later_part_does_not() -> None:
    views = table([("u", "a", 0, "train"), ("u", "b", 1, "train"), ("v", "a", 2, "train"), ("u", "b", 9, "test")])
    buys = table([("u", "a", 5, "train"), ("u", "b", 8, "test"), ("u", "b", 10, "test")])
    events = pl.concat([views.with_columns(conversion=pl.lit(False)), buys.with_columns(conversion=pl.lit(True))])
    found = judge_within_parts(views, events, ["conversion"], has_time=True)
    assert found["conversion"].to_list() == [True, False, False, True]


def test_without_time_any_purchase_of_the_part_counts() -> None:
    views = table([("u", "a", 0, "train"), ("u", "b", 0, "train")]).with_columns(
        time=pl.lit(None, pl.Datetime("us", "UTC"))
    )
    buys = table([("u", "a", 0, "train"), ("u", "b", 0, "test")]).with_columns(
        time=pl.lit(None, pl.Datetime("us", "UTC"))
    )
    events = pl.concat([views.with_columns(conversion=pl.lit(False)), buys.with_columns(conversion=pl.lit(True))])
    found = judge_within_parts(views, events, ["conversion"], has_time=False)
    assert found["conversion"].to_list() == [True, False]


def test_a_row_that_is_its_own_conversion_counts() -> None:
    ratings = table([("u", "a", 0, "train"), ("u", "b", 1, "train")]).with_columns(conversion=pl.Series([True, False]))
    found = judge_within_parts(ratings, ratings, ["conversion"], has_time=True)
    assert found["conversion"].to_list() == [True, False]
